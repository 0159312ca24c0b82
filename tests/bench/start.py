"""From the start of the process to something on the screen, against an empty QMainWindow of the same size."""

import os
import subprocess
import sys
import time

from tests.conftest import ROOT

RUNS = 7
"""The best of so many starts counts: others only waited for the machine."""

PAINTED = """
import time
from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QApplication, QMainWindow

def end():
    print(time.monotonic())
    application.quit()

class Painted(QObject):
    def eventFilter(self, watched, event):
        if event.type() is QEvent.Type.Paint:
            watched.removeEventFilter(self)
            QTimer.singleShot(0, end)
        return False

painted = Painted()
"""
"""Of either window: the moment once its first paint is through."""
EMPTY = f"""{PAINTED}
application = QApplication([])
window = QMainWindow()
window.resize(1440, 900)
window.installEventFilter(painted)
window.show()
application.exec()
"""
OURS = f"""{PAINTED}
import sys, tempfile
from PySide6.QtCore import QSettings
from gui import app, windows

def go_on():
    if sys.argv[1] == "pictures":
        end()
        return
    app.begin(window, None)
    window.opener.open_built_in()
    timer.timeout.connect(lambda: (window.repaint(), end()) if window.document.walk is not None else None)
    timer.start(1)

timer = QTimer()
application = app.create_application(["walkscope"])
settings = QSettings(tempfile.mkdtemp() + "/settings.ini", QSettings.Format.IniFormat)
window = app.create_window(settings, gallery=True)
if sys.argv[1] == "frame":
    window.installEventFilter(painted)
else:
    windows.AfterFirstPaint(window, go_on)
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
    """Seconds to the first paint: the menus and the start page with its cards."""
    return _seconds(OURS, "frame")


def pictures() -> float:
    """Seconds until the cards that are seen have their pictures, after which all else is imported."""
    return _seconds(OURS, "pictures")


def built_in_walk() -> float:
    """Seconds until the built-in image is walked and painted."""
    return _seconds(OURS, "walk")
