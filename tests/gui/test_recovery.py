"""What is not saved: kept at once, offered after a crash, and gone only where the user says so."""

import shutil
from pathlib import Path

import pytest
from PySide6.QtWidgets import QDialog
from pytestqt.qtbot import QtBot

from engine.scenario import Scenario
from gui import app
from gui.dialogs.recovery_dialog import RecoveryDialog
from gui.main_window import MainWindow
from gui.templates import templates
from storage import files
from tests.gui.conftest import Answers


@pytest.fixture
def crashed(window: MainWindow, answers: Answers, state_folder: Path, tmp_path: Path) -> Scenario:
    """What a session had not saved that died: its store, and a lock that nobody holds."""
    window.begin(templates()[0])
    answers.path = str(tmp_path / "host.wscope")
    window.files.save_as()
    window.document.remove_event(window.document.last_step - 1, "Delete the last event")
    window.document.go_to_step(1)
    scenario = window.document.scenario
    copy = tmp_path / "copy"
    shutil.copytree(state_folder, copy)
    answers.choices = ["discard"]
    window.begin(None)
    shutil.rmtree(state_folder)
    shutil.move(copy, state_folder)
    return scenario


def offered(window: MainWindow, answers: Answers, button: str) -> RecoveryDialog:
    """Start, and press ``button`` of what is offered."""
    seen: list[RecoveryDialog] = []

    def press(dialog: QDialog) -> bool:
        assert isinstance(dialog, RecoveryDialog)
        seen.append(dialog)
        getattr(dialog, button).click()
        return dialog.result() == QDialog.DialogCode.Accepted

    answers.fill = press
    window.files.recover()
    assert len(seen) == 1
    return seen[0]


def stores(folder: Path) -> int:
    return len(list(folder.glob("*.sqlite")))


def test_an_edit_is_kept_at_once_and_forgotten_once_saved(
    window: MainWindow, answers: Answers, state_folder: Path, tmp_path: Path
) -> None:
    window.begin(templates()[0])
    assert not state_folder.exists()
    window.document.remove_event(0, "Delete the first event")
    assert stores(state_folder) == 1
    answers.path = str(tmp_path / "a.wscope")
    window.files.save_as()
    window.close()
    assert stores(state_folder) == 0


def test_nothing_is_offered_where_nothing_was_lost(window: MainWindow, answers: Answers) -> None:
    answers.fill = lambda dialog: pytest.fail("a dialog")
    assert not window.files.recover()


def test_what_was_not_saved_is_offered_with_what_was_done(
    window: MainWindow, answers: Answers, crashed: Scenario, state_folder: Path
) -> None:
    dialog = offered(window, answers, "later")
    assert "host.wscope, changes: 1" in dialog.list.item(0).text()
    assert "Delete the last event" in dialog.details.toPlainText()
    assert "as it was before" in dialog.details.toPlainText()
    assert stores(state_folder) == 1
    offered(window, answers, "later")


def test_recovered_it_is_modified_and_saved_into_its_file(
    window: MainWindow, answers: Answers, crashed: Scenario, state_folder: Path, tmp_path: Path
) -> None:
    offered(window, answers, "recover")
    assert window.document.scenario == crashed
    assert window.isWindowModified()
    window.actions_["save"].trigger()
    assert not window.isWindowModified()
    assert files.open_file(str(tmp_path / "host.wscope")).content.scenario == crashed
    window.close()
    assert stores(state_folder) == 0


def test_recovered_from_a_file_that_changed_it_asks_for_a_name(
    window: MainWindow, answers: Answers, crashed: Scenario, tmp_path: Path
) -> None:
    files.save(files.Content(), str(tmp_path / "host.wscope"))
    theirs = (tmp_path / "host.wscope").read_bytes()
    offered(window, answers, "recover")
    assert window.document.scenario == crashed
    answers.path = str(tmp_path / "mine.wscope")
    window.actions_["save"].trigger()
    assert (tmp_path / "host.wscope").read_bytes() == theirs
    assert files.open_file(answers.path).content.scenario == crashed


def test_a_copy_is_saved_and_not_offered_again(
    window: MainWindow, answers: Answers, crashed: Scenario, state_folder: Path, tmp_path: Path
) -> None:
    answers.path = str(tmp_path / "copy of it.wscope")
    offered(window, answers, "copy")
    assert files.open_file(answers.path).content.scenario == crashed
    assert stores(state_folder) == 0


@pytest.mark.parametrize(("choice", "left"), [("", 1), ("discard", 0)])
def test_it_is_discarded_only_after_asking(
    window: MainWindow, answers: Answers, crashed: Scenario, state_folder: Path, choice: str, left: int
) -> None:
    answers.choices = [choice]
    offered(window, answers, "discard")
    assert stores(state_folder) == left


def test_a_state_folder_that_cannot_be_made_is_told_and_editing_goes_on(window: MainWindow, state_folder: Path) -> None:
    state_folder.parent.parent.mkdir(parents=True)
    state_folder.parent.write_text("in the way")
    window.begin(templates()[0])
    count = window.document.last_step
    window.document.remove_event(0, "Delete the first event")
    assert window.document.last_step == count - 1
    assert "not kept for recovery" in window.notice.label.text()


def test_the_start_offers_it_in_place_of_the_built_in_image(
    window: MainWindow, answers: Answers, crashed: Scenario, qtbot: QtBot
) -> None:
    answers.fill = lambda dialog: dialog.recover.click()  # type: ignore[attr-defined]
    again = app.create_window(window._settings, answers)
    qtbot.addWidget(again)
    again.show()
    app.begin(again, None)
    assert again.document.scenario == crashed
