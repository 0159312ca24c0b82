"""The one start-up path: arguments, application, look, windows; what takes time comes after the first paint."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication

from engine.errors import InputError
from gui import demos, style
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
    application.setDesktopFileName("org.walkscope.Walkscope")
    style.install(application)
    return application


def create_window(settings: QSettings, prompts: Prompts | None = None, *, gallery: bool = False) -> MainWindow:
    """A window in the user's colours, not shown yet and still to be filled; on its start page where ``gallery``."""
    Appearance(settings).apply()
    window = MainWindow(settings, prompts)
    if gallery:
        window.show_gallery()
    return window


def main(arguments: Sequence[str]) -> int:
    """Runs the program until its last window is closed, or hands its files to the one that runs already; returns the
    exit code. ``arguments`` begin with its name."""
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
    settings = QSettings()
    windows = Windows(lambda gallery: create_window(settings, gallery=gallery), go_on, application)
    instance = Instance(windows.show_files, application)
    if options.demo is None and instance.hand_over(options.files):
        return 0
    uncaught = Uncaught(application)
    uncaught.install()
    uncaught.caught.connect(windows.report)
    application.styleHints().colorSchemeChanged.connect(Appearance(settings).apply)

    def begin_with_demo(window: MainWindow, path: str | None) -> None:
        begin(window, path)
        if options.demo is not None:
            window.play_demo(options.demo)

    first, *others = options.files or [None]
    windows.show(first, begin_with_demo)
    for path in others:
        windows.show(path)
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
    """Fill the first window, take up again what an earlier start lost, and open what was asked for."""
    fill(window)
    is_recovered = window.files.recover()
    if path is not None and is_recovered:
        window.window_wanted.emit(path)
    elif path is not None:
        window.opener.start(path)


def go_on(window: MainWindow, path: str | None) -> None:
    """Fill a later window, which the user wants in front, and open what was asked for."""
    window.activateWindow()
    fill(window)
    if path is not None:
        window.opener.start(path)


def fill(window: MainWindow) -> None:
    from engine.memory.library import Library
    from gui.jobs import WindowJobs

    window.setWindowIcon(application_icon())
    window.fill(Library())
    WindowJobs.of(window.document).crashed.connect(window.report)
    if not window.is_on_gallery:
        window.tabs.currentWidget().setFocus()
