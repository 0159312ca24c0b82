"""The one start-up path: arguments, application, look, window; what takes time comes after the first paint."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QObject, QSettings, QTimer
from PySide6.QtWidgets import QApplication

from engine.errors import InputError
from gui import demos, style
from gui.dialogs.prompts import Prompts
from gui.icons import application_icon
from gui.main_window import MainWindow
from gui.settings import Appearance
from gui.uncaught import Uncaught
from gui.version import VERSION


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("walkscope", description="An explorer of x86 page tables.", allow_abbrev=False)
    help_ = "scenario (.wscope, .json) or memory image: ELF core (also gzip, xz) or raw memory"
    parser.add_argument("file", metavar="FILE", nargs="?", help=help_)
    parser.add_argument("--demo", metavar="NAME", help="play a demo that comes with the program")
    record = "write each stop of the demo (default: of all) as a PNG into DIR, and end"
    parser.add_argument("--record", metavar="DIR", help=record)
    parser.add_argument("--version", action="version", version=f"Walkscope {VERSION}")
    return parser.parse_args(arguments)


def create_application(arguments: Sequence[str]) -> QApplication:
    """The application object, dressed as the user wants it. The theme follows the desktop's from then on."""
    application = QApplication(list(arguments))
    application.setApplicationName("Walkscope")
    application.setOrganizationName("walkscope")
    application.setApplicationVersion(VERSION)
    application.setDesktopFileName("walkscope")
    style.install(application)
    return application


def create_window(settings: QSettings, prompts: Prompts | None = None, *, gallery: bool = False) -> MainWindow:
    """The window in the user's colours, not shown yet and still to be filled; on its start page where ``gallery``."""
    appearance = Appearance(settings)
    appearance.apply()
    QApplication.styleHints().colorSchemeChanged.connect(appearance.apply)
    window = MainWindow(settings, prompts)
    if gallery:
        window.show_gallery()
    return window


class AfterFirstPaint(QObject):
    """Calls ``then`` once ``window`` has been painted: what it needs to import and read must not delay that."""

    def __init__(self, window: MainWindow, then: Callable[[], None]) -> None:
        super().__init__(window)
        self._then = then
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() is QEvent.Type.Paint:
            watched.removeEventFilter(self)
            QTimer.singleShot(0, self._then)
        return False


def main(arguments: Sequence[str]) -> int:
    """Runs the program until its window is closed; returns the exit code. ``arguments`` begin with its name."""
    options = parse(arguments[1:])
    try:
        if options.demo is not None:
            demos.check(options.demo)
        if options.record is not None:
            return record(arguments[:1], options.record, [options.demo] if options.demo else demos.names())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    application = create_application(arguments[:1])
    uncaught = Uncaught(application)
    uncaught.install()
    window = create_window(QSettings(), gallery=options.file is None)
    uncaught.caught.connect(window.report)

    def go_on() -> None:
        begin(window, options.file)
        if options.demo is not None:
            window.play_demo(options.demo)

    AfterFirstPaint(window, go_on)
    window.show()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C in the terminal ends the program
    return application.exec()


def record(arguments: Sequence[str], folder: str, names: list[str]) -> int:
    """Write each stop of these demos into ``folder``, on no screen; returns the exit code. Raises InputError."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = create_application(arguments)
    settings = QSettings()
    Appearance(settings).apply()
    from engine.memory.library import Library
    from gui.recorder import Recorder

    recorder, library = Recorder(settings, folder), Library()
    for name in names:
        recorder.record(demos.load(name), library, name)
    print(f"{recorder.count} pictures in {folder}")
    application.quit()
    return 0


def begin(window: MainWindow, path: str | None) -> None:
    """Fill the window, and open what was asked for; nothing: the start page shows what there is."""
    from engine.memory.library import Library
    from gui.jobs import runner

    runner().crashed.connect(window.report)
    window.setWindowIcon(application_icon())
    window.fill(Library())
    if not window.is_on_gallery:
        window.tabs.currentWidget().setFocus()
    window.files.recover()
    if path is not None:
        window.opener.open(path)
