"""A user of main.py whose machine dies, and the same user at the next start.

    xvfb-run python -m tests.end_to_end.edit_and_die edit|recover FILE STATE

``edit`` opens FILE, deletes its last event by a key, says so, and waits to be killed. ``recover`` takes up what
is offered, saves it, and quits. STATE is the folder for what is not saved.
"""

import os
import runpy
import sys
from collections.abc import Callable

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QApplication

from gui import app
from gui.dialogs.recovery_dialog import RecoveryDialog
from gui.main_window import MainWindow
from tests.conftest import ROOT
from tests.end_to_end.session import CTRL, Drive, Waits, press


def edit(window: MainWindow, path: str) -> Waits:
    yield lambda: window.files.file is not None and window.isActiveWindow()
    before = window.document.last_step
    window.timeline.list.setFocus()
    press(Qt.Key.Key_Delete)
    yield lambda: window.document.last_step == before - 1
    print("edited", window.document.last_step, flush=True)
    while True:
        yield lambda: True


def recover(window: MainWindow, path: str) -> Waits:
    yield lambda: window.files.is_modified and window.isActiveWindow()
    print("recovered", window.document.last_step, flush=True)
    window.timeline.list.setFocus()
    press(Qt.Key.Key_S, CTRL)
    yield lambda: not window.files.is_modified
    press(Qt.Key.Key_Q, CTRL)
    yield lambda: False


def accept_offer() -> None:
    """Press Return in the dialog that waits."""
    dialog = QApplication.activeModalWidget()
    if isinstance(dialog, RecoveryDialog):
        print("offered", dialog.list.item(0).text(), flush=True)
        dialog.recover.click()


def main(role: str, path: str, state: str) -> None:
    os.environ["XDG_STATE_HOME"] = state  # tests have folders of their own, and this is about the same one twice
    begin = app.begin
    users: dict[str, Callable[[MainWindow, str], Waits]] = {"edit": edit, "recover": recover}

    def begin_and_drive(window: MainWindow, file: str | None) -> None:
        QTimer.singleShot(500, accept_offer)
        begin(window, file)
        window.activateWindow()
        Drive(window, users[role](window, path)).start()

    app.begin = begin_and_drive
    sys.argv = ["main.py", *([path] if role == "edit" else [])]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
