"""A user at the window: runs main.py on a real X server, types and presses keys, and notes what each view shows.

    xvfb-run python -m tests.end_to_end.session PICTURE ADDRESS [IMAGE]

One JSON line for each reference of the walk goes to standard output.
"""

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from gui import app
from gui.main_window import MainWindow
from tests.conftest import ROOT

PAUSE = 20
"""Milliseconds between two looks of the user."""
PATIENCE = 500
"""Looks without any news after which the user gives up."""
CTRL = Qt.KeyboardModifier.ControlModifier

Waits = Iterator[Callable[[], bool]]
"""What the user waits for, one thing after another."""


def press(key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    """``key`` to whatever has the focus."""
    focus = QApplication.focusWidget()
    assert focus is not None, "nothing has the focus"
    QTest.keyClick(focus, key, modifier)


def use(window: MainWindow, picture: str, address: str) -> Waits:
    """Open both views, walk ``address``, step through its references, keep a picture, and quit."""
    yield lambda: window.document.walk is not None and window.isActiveWindow()
    press(Qt.Key.Key_2, CTRL)
    press(Qt.Key.Key_1, CTRL)
    press(Qt.Key.Key_L, CTRL)
    for letter in address:
        QTest.keyClick(QApplication.focusWidget(), letter)
    press(Qt.Key.Key_Return)
    window.tabs.tabBar().setFocus()
    press(Qt.Key.Key_Home)
    window.tabs.currentWidget().setFocus()
    walk = window.document.walk
    assert walk is not None
    for number in range(len(walk.steps)):
        yield lambda number=number: window.tool_bar.step.text().startswith(f"step {number + 1} ")
        print(json.dumps(seen(window)), flush=True)
        press(Qt.Key.Key_Right)
    window.grab().save(picture)
    press(Qt.Key.Key_Q, CTRL)
    yield lambda: False


def seen(window: MainWindow) -> dict[str, Any]:
    """What the views show of the lit reference, each in its own words."""
    inspector, hierarchy, walk = (window.lazy(name).open() for name in ("inspector", "hierarchy", "walk"))
    return {
        "tool bar": window.tool_bar.step.text(),
        "address bar": window.address_bar.field.text(),
        "inspector": {
            "title": inspector.title.text(),  # type: ignore[attr-defined]
            "value": inspector.value.text(),  # type: ignore[attr-defined]
            "address": inspector.address.text(),  # type: ignore[attr-defined]
        },
        "hierarchy": hierarchy.canvas.accessibleDescription(),  # type: ignore[attr-defined]
        "walk": {
            "count": walk.count.text(),  # type: ignore[attr-defined]
            "title": walk.panel.title.text(),  # type: ignore[attr-defined]
            "reads": walk.panel.reads.text(),  # type: ignore[attr-defined]
        },
    }


class Drive(QTimer):
    """Goes on with ``waits`` whenever what they wait for has come."""

    def __init__(self, window: MainWindow, waits: Waits) -> None:
        super().__init__(window)
        self._waits = waits
        self._wait = next(waits)
        self._patience = PATIENCE
        self.setInterval(PAUSE)
        self.timeout.connect(self._look)

    def _look(self) -> None:
        self._patience -= 1
        if self._patience < 0:
            QApplication.exit(1)
        elif self._wait():
            self._wait = next(self._waits)
            self._patience = PATIENCE


def main(picture: str, address: str, *image: str) -> None:
    begin = app.begin

    def begin_and_drive(window: MainWindow, path: str | None) -> None:
        begin(window, path)
        window.activateWindow()
        Drive(window, use(window, picture, address)).start()

    app.begin = begin_and_drive
    sys.argv = ["main.py", *image]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
