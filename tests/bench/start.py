"""From the start of the process to something on the screen, against an empty QMainWindow of the same size."""

import os
import subprocess
import sys
import time

from tests.conftest import ROOT

RUNS = 7
"""The best of so many starts counts: others only waited for the machine."""

EMPTY = """
import time
from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QApplication, QMainWindow

class Painted(QObject):
    def eventFilter(self, watched, event):
        if event.type() is QEvent.Type.Paint:
            watched.removeEventFilter(self)
            QTimer.singleShot(0, lambda: (print(time.monotonic()), application.quit()))
        return False

application = QApplication([])
window = QMainWindow()
window.resize(1440, 900)
painted = Painted()
window.installEventFilter(painted)
window.show()
application.exec()
"""
OURS = """
import sys, tempfile, time
from PySide6.QtCore import QSettings, QTimer
from gui import app, windows

def end():
    print(time.monotonic())
    application.quit()

def painted():
    if sys.argv[1] == "frame":
        end()
        return
    app.begin(window, None)
    window.opener.open_built_in()
    timer.timeout.connect(lambda: (window.repaint(), end()) if window.document.walk is not None else None)
    timer.start(1)

home = tempfile.mkdtemp()
timer = QTimer()
application = app.create_application(["walkscope"])
window = app.create_window(QSettings(f"{home}/settings.ini", QSettings.Format.IniFormat), gallery=True)
windows.AfterFirstPaint(window, painted)
window.show()
application.exec()
"""


def _seconds(code: str, *arguments: str) -> float:
    """From before the process is made until it says that it has painted."""
    # Whoever starts the program a second time has its bytecode cached, whatever this machine says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *arguments]
    times = []
    for _ in range(RUNS):
        begun = time.monotonic()
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        times.append(float(ended.stdout.split()[-1]) - begun)
    return min(times)


def empty_window() -> float:
    """Seconds to an empty QMainWindow: the floor."""
    return _seconds(EMPTY)


def first_paint() -> float:
    """Seconds to the first paint: the menus and the start page, its cards with their pictures."""
    return _seconds(OURS, "frame")


def built_in_walk() -> float:
    """Seconds until the built-in image is walked and painted."""
    return _seconds(OURS, "walk")
