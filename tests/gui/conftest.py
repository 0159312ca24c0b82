"""The whole window for a test: settings of its own, somebody who answers its questions, and an image in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication, QDialog, QWidget
from pytestqt.qtbot import QtBot

from engine.memory.library import Library
from gui import app, style
from gui.dialogs.prompts import Prompts
from gui.jobs import runner
from gui.main_window import MainWindow


class Answers(Prompts):
    """Answers in the user's place and keeps what was said. ``fill`` is called with each dialog; it is accepted unless
    that returns False."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.choices: list[str] = []
        self.path = ""
        self.suggested = ""
        self.fill: Callable[[QDialog], object] = lambda dialog: None

    def error(self, parent: QWidget | None, sentence: str) -> None:
        self.errors.append(sentence)

    def image_to_open(self, parent: QWidget | None, folder: str) -> str:
        return self.path

    def scenario_to_save(self, parent: QWidget | None, title: str, suggested: str) -> str:
        return self.path

    def folder(self, parent: QWidget | None, title: str, suggested: str) -> str:
        return self.path

    def report_to_save(self, parent: QWidget | None, title: str, suggested: str) -> str:
        self.suggested = suggested
        return self.path

    def choose(self, parent: QWidget | None, sentence: str, ways: dict[str, str]) -> str:
        """What ``choices`` says, one after the other; after the last, changes are discarded and else nothing done."""
        self.asked.append(sentence)
        choice = self.choices.pop(0) if self.choices else "discard" if "discard" in ways else ""
        assert choice in ("", *ways)
        return choice

    def run(self, dialog: QDialog) -> bool:
        return self.fill(dialog) is not False


@pytest.fixture(scope="session")
def dressed(qapp: QApplication) -> QApplication:
    style.install(qapp)
    return qapp


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is not saved is kept: a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "walkscope" / "recovery"


@pytest.fixture
def settings(tmp_path: Path) -> QSettings:
    return QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def empty_window(dressed: QApplication, qtbot: QtBot, settings: QSettings, answers: Answers) -> Iterator[MainWindow]:
    """The window with nothing open."""
    made = app.create_window(settings, answers)
    qtbot.addWidget(made)
    made.show()
    made.fill(Library())
    yield made
    runner().cancel()


@pytest.fixture
def window(empty_window: MainWindow, qtbot: QtBot) -> MainWindow:
    """The window as it starts: the image that comes with the program, at its first sight."""
    with qtbot.waitSignal(empty_window.opener.opened):
        empty_window.opener.open_built_in()
    return empty_window
