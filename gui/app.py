"""The one start-up path: arguments, application, look, window; what takes time comes after the first paint."""

import argparse
import signal
from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QObject, QSettings, QTimer
from PySide6.QtWidgets import QApplication

from engine.memory.library import Library
from gui import style
from gui.dialogs.crash import CrashReports
from gui.dialogs.prompts import Prompts
from gui.icons import application_icon
from gui.jobs import runner
from gui.main_window import MainWindow
from gui.settings import Appearance
from gui.version import VERSION


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("walkscope", description="An explorer of x86 page tables.", allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", nargs="?", help="memory image: ELF core (also gzip, xz) or raw memory")
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
    """The window in the user's colours, not shown yet and with nothing open."""
    appearance = Appearance(settings)
    appearance.apply()
    QApplication.styleHints().colorSchemeChanged.connect(appearance.apply)
    return MainWindow(Library(), settings, prompts)


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
    reports = CrashReports(application)
    reports.install()
    window = create_window(QSettings())
    reports.caught.connect(window.report)
    runner().crashed.connect(window.report)
    AfterFirstPaint(window, lambda: begin(window, options.file))
    window.show()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C in the terminal ends the program
    return application.exec()


def begin(window: MainWindow, path: str | None) -> None:
    """Open what was asked for, or the image that comes with the program."""
    window.setWindowIcon(application_icon())
    window.tabs.currentWidget().setFocus()
    if path is None:
        window.opener.open_built_in()
    else:
        window.opener.open(path)
