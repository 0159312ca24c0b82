"""The one start-up path: arguments, application, look, windows; what takes time comes after the first paint."""

import argparse
import signal
from collections.abc import Sequence

from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication

from gui import style
from gui.dialogs.prompts import Prompts
from gui.icons import application_icon
from gui.instance import Instance
from gui.main_window import MainWindow
from gui.settings import Appearance
from gui.uncaught import Uncaught
from gui.version import VERSION
from gui.windows import Windows


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("walkscope", description="An explorer of x86 page tables.", allow_abbrev=False)
    help_ = "scenario (.wscope, .json) or memory image: ELF core (also gzip, xz) or raw memory; each in its own window"
    parser.add_argument("files", metavar="FILE", nargs="*", help=help_)
    parser.add_argument("--version", action="version", version=f"Walkscope {VERSION}")
    return parser.parse_args(arguments)


def create_application(arguments: Sequence[str]) -> QApplication:
    """The application object, dressed as the user wants it. The theme follows the desktop's from then on."""
    application = QApplication(list(arguments))
    application.setApplicationName("Walkscope")
    application.setOrganizationName("walkscope")
    application.setApplicationVersion(VERSION)
    application.setDesktopFileName("org.walkscope.Walkscope")
    style.install(application)
    return application


def create_window(settings: QSettings, prompts: Prompts | None = None) -> MainWindow:
    """A window in the user's colours, not shown yet and still to be filled."""
    Appearance(settings).apply()
    return MainWindow(settings, prompts)


def main(arguments: Sequence[str]) -> int:
    """Runs the program until its last window is closed, or hands its files to the one that runs already; returns the
    exit code. ``arguments`` begin with its name."""
    options = parse(arguments[1:])
    application = create_application(arguments[:1])
    settings = QSettings()
    windows = Windows(lambda: create_window(settings), go_on, application)
    if Instance(windows.show_files, application).hand_over(options.files):
        return 0
    uncaught = Uncaught(application)
    uncaught.install()
    uncaught.caught.connect(windows.report)
    application.styleHints().colorSchemeChanged.connect(Appearance(settings).apply)
    first, *others = options.files or [None]
    windows.show(first, lambda window, path: begin(window, path))
    for path in others:
        windows.show(path)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C in the terminal ends the program
    return application.exec()


def begin(window: MainWindow, path: str | None) -> None:
    """Fill the first window, take up again what an earlier start lost, and open what was asked for."""
    fill(window)
    is_recovered = window.files.recover()
    if not is_recovered:
        window.opener.start(path)
    elif path is not None:
        window.window_wanted.emit(path)


def go_on(window: MainWindow, path: str | None) -> None:
    """Fill a later window, which the user wants in front, and open what was asked for."""
    window.activateWindow()
    fill(window)
    window.opener.start(path)


def fill(window: MainWindow) -> None:
    from engine.memory.library import Library
    from gui.jobs import WindowJobs

    window.setWindowIcon(application_icon())
    window.fill(Library())
    WindowJobs.of(window.document).crashed.connect(window.report)
    window.tabs.currentWidget().setFocus()
