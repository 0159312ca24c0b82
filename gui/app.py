"""The one start-up path: arguments, application, look, window; what takes time comes after the first paint."""

import argparse
import signal
from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QObject, QSettings, QTimer
from PySide6.QtWidgets import QApplication

from gui import style
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


def create_window(settings: QSettings, prompts: Prompts | None = None) -> MainWindow:
    """The window in the user's colours, not shown yet and still to be filled."""
    appearance = Appearance(settings)
    appearance.apply()
    QApplication.styleHints().colorSchemeChanged.connect(appearance.apply)
    return MainWindow(settings, prompts)


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
    application = create_application(arguments[:1])
    uncaught = Uncaught(application)
    uncaught.install()
    window = create_window(QSettings())
    uncaught.caught.connect(window.report)
    AfterFirstPaint(window, lambda: begin(window, options.file))
    window.show()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C in the terminal ends the program
    return application.exec()


def begin(window: MainWindow, path: str | None) -> None:
    """Fill the window, and open what was asked for or the image that comes with the program."""
    from engine.memory.library import Library
    from gui.jobs import runner

    runner().crashed.connect(window.report)
    window.setWindowIcon(application_icon())
    window.fill(Library())
    window.tabs.currentWidget().setFocus()
    is_recovered = window.files.recover()
    if path is None:
        if not is_recovered:
            window.opener.open_built_in()
    else:
        window.opener.open(path)
