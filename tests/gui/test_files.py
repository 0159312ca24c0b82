"""The document's file: saved, asked about, reverted; and what other programs and full disks do to it."""

import gzip
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.memory.library import RESOURCES
from engine.scenario import Scenario
from gui import scenarios, thumbnails
from gui.main_window import MainWindow
from gui.templates import templates
from storage import files
from storage.content import Content
from tests.gui.conftest import Answers

BUILT_IN = RESOURCES / "debian-6.1-4level.core.gz"


def edit(window: MainWindow) -> Scenario:
    """Delete the last event; what the scenario is then."""
    window.document.remove_event(window.document.last_step - 1, "Delete an event")
    return window.document.scenario


def opened(window: MainWindow, qtbot: QtBot, path: Path) -> None:
    with qtbot.waitSignal(window.opener.opened):
        window.opener.open(str(path))


@pytest.fixture
def saved(window: MainWindow, answers: Answers, tmp_path: Path) -> Path:
    """A scenario that is open and saved."""
    window.begin(templates()[0])
    answers.path = str(tmp_path / "host.wscope")
    window.actions_["save-as"].trigger()
    return tmp_path / "host.wscope"


def test_what_the_program_starts_with_is_not_modified(window: MainWindow, answers: Answers) -> None:
    assert not window.isWindowModified()
    assert window.windowTitle() == "debian-6.1-4level.core.gz[*] — Walkscope"
    window.begin(None)
    assert answers.asked == []


def test_an_edit_marks_the_window_and_undoing_it_takes_the_mark_away(window: MainWindow, saved: Path) -> None:
    assert window.windowTitle() == "host.wscope[*] — Walkscope"
    edit(window)
    assert window.isWindowModified()
    assert window.statusBar().file.text() == "host.wscope: modified"
    window.document.undo_stack.undo()
    assert not window.isWindowModified()
    assert window.statusBar().file.text() == "host.wscope: saved"


def test_the_file_changes_only_on_save(window: MainWindow, saved: Path, qtbot: QtBot) -> None:
    before = saved.read_bytes()
    scenario = edit(window)
    assert saved.read_bytes() == before
    window.actions_["save"].trigger()
    assert files.open_file(str(saved)).content.scenario == scenario
    assert not window.isWindowModified()
    window.begin(None)
    opened(window, qtbot, saved)
    assert window.document.scenario == scenario
    assert str(saved) in window.recent.paths()


def test_a_saved_file_has_a_picture_of_the_open_view_which_recent_files_show(
    window: MainWindow, saved: Path, qtbot: QtBot
) -> None:
    qtbot.wait(100)  # the window has grown its views
    window.actions_["save"].trigger()
    view = window.tabs.currentWidget().grab().toImage()
    picture = QImage.fromData(files.peek(str(saved)).thumbnail)
    assert 0 < picture.width() <= 192
    assert picture.width() / picture.height() == pytest.approx(view.width() / view.height(), rel=0.02)
    smooth = Qt.TransformationMode.SmoothTransformation
    assert picture == view.scaled(picture.size(), mode=smooth).convertToFormat(picture.format())

    submenu = window.findChild(QMenu, "recent")
    assert submenu is not None
    submenu.parent().aboutToShow.emit()  # type: ignore[union-attr]
    submenu.aboutToShow.emit()
    shown = submenu.actions()[0].icon().pixmap(picture.size(), 1.0).toImage()
    assert shown.convertToFormat(picture.format()) == picture


def test_recent_files_without_a_picture_have_none(window: MainWindow, saved: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wscope")
    (tmp_path / "text.wscope").write_text("no scenario")
    files.save(Content(), str(tmp_path / "plain.wscope"))
    names = ("pipe.wscope", "text.wscope", "plain.wscope", "gone.wscope")
    assert [thumbnails.icon(str(tmp_path / name)).isNull() for name in names] == [True] * 4
    files.save(Content(thumbnail=files.peek(str(saved)).thumbnail), str(tmp_path / "plain.wscope"))
    assert not thumbnails.icon(str(tmp_path / "plain.wscope")).isNull()


def test_step_and_pins_come_back(window: MainWindow, saved: Path, qtbot: QtBot) -> None:
    window.document.go_to_step(2)
    window.document.pin_a(1)
    window.actions_["save"].trigger()
    window.begin(None)
    opened(window, qtbot, saved)
    assert window.document.step == 2
    assert window.document.pinned.a is not None
    assert window.document.pinned.a.step == 1


def test_a_copy_leaves_what_is_open_as_it_was(
    window: MainWindow, answers: Answers, saved: Path, tmp_path: Path
) -> None:
    scenario = edit(window)
    answers.path = str(tmp_path / "copy")
    window.actions_["save-copy"].trigger()
    assert files.open_file(str(tmp_path / "copy.wscope")).content.scenario == scenario
    assert window.isWindowModified()
    assert window.files.name == "host.wscope"


def test_json_is_for_exchange_and_the_document_keeps_its_file(
    window: MainWindow, answers: Answers, saved: Path, tmp_path: Path
) -> None:
    scenario = edit(window)
    answers.path = str(tmp_path / "out.json")
    window.actions_["save-as"].trigger()
    assert scenarios.read(answers.path).scenario == scenario
    assert window.files.name == "host.wscope"
    assert window.isWindowModified()


def test_revert_asks_and_shows_what_is_in_the_file(
    window: MainWindow, answers: Answers, saved: Path, qtbot: QtBot
) -> None:
    before = window.document.scenario
    after = edit(window)
    answers.choices = [""]
    window.actions_["revert"].trigger()
    assert window.document.scenario == after
    answers.choices = ["discard"]
    with qtbot.waitSignal(window.opener.opened):
        window.actions_["revert"].trigger()
    assert window.document.scenario == before
    assert not window.isWindowModified()


LEAVING: dict[str, Callable[[MainWindow], object]] = {
    "new": lambda window: window.begin(None),
    "open": lambda window: window.opener.open("elsewhere.json"),
    "built-in": lambda window: window.opener.open_built_in(),
    "close": lambda window: window.close(),
}


@pytest.mark.parametrize("way", LEAVING)
def test_leaving_what_is_modified_asks_and_cancel_stays(
    window: MainWindow, answers: Answers, saved: Path, way: str
) -> None:
    scenario = edit(window)
    answers.choices = [""]
    LEAVING[way](window)
    assert answers.asked == ["host.wscope has changes that are not saved."]
    assert window.document.scenario == scenario
    assert window.isVisible()


def test_closing_saves_where_the_user_says_so(window: MainWindow, answers: Answers, saved: Path) -> None:
    scenario = edit(window)
    answers.choices = ["save"]
    assert window.close()
    assert files.open_file(str(saved)).content.scenario == scenario


def test_a_save_that_is_cancelled_does_not_close(window: MainWindow, answers: Answers) -> None:
    window.begin(templates()[0])
    edit(window)
    answers.choices, answers.path = ["save"], ""
    assert not window.close()
    assert window.isVisible()


# --- other programs


def test_a_file_that_another_program_changed_is_not_overwritten_unasked(
    window: MainWindow, answers: Answers, saved: Path, tmp_path: Path
) -> None:
    scenario = edit(window)
    files.save(Content(), str(saved))
    theirs = saved.read_bytes()
    window.files.look()
    assert "changed by another program" in window.notice.label.text()
    answers.choices, answers.path = ["save-as"], str(tmp_path / "mine.wscope")
    window.actions_["save"].trigger()
    assert saved.read_bytes() == theirs
    assert files.open_file(answers.path).content.scenario == scenario
    assert window.files.name == "mine.wscope"


def test_it_is_overwritten_where_the_user_says_so(window: MainWindow, answers: Answers, saved: Path) -> None:
    scenario = edit(window)
    files.save(Content(), str(saved))
    answers.choices = ["overwrite"]
    window.actions_["save"].trigger()
    assert files.open_file(str(saved)).content.scenario == scenario
    assert not window.isWindowModified()


def test_a_file_that_vanished_is_told_and_can_be_saved_again(window: MainWindow, answers: Answers, saved: Path) -> None:
    scenario = edit(window)
    saved.unlink()
    window.files.look()
    assert "not there any more" in window.notice.label.text()
    answers.choices = ["overwrite"]
    window.actions_["save"].trigger()
    assert files.open_file(str(saved)).content.scenario == scenario


def test_a_folder_that_is_gone_loses_nothing(window: MainWindow, answers: Answers, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    window.begin(templates()[0])
    answers.path = str(folder / "host.wscope")
    window.actions_["save-as"].trigger()
    scenario = edit(window)
    shutil.rmtree(folder)
    answers.choices = [""]
    window.actions_["save"].trigger()
    assert len(answers.asked) == 1
    assert window.document.scenario == scenario
    assert window.isWindowModified()


def test_a_disk_without_room_loses_nothing(window: MainWindow, answers: Answers, saved: Path) -> None:
    edit(window)
    before, limits = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    answers.choices = [""]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the system says that no more can be written
    try:
        window.actions_["save"].trigger()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the disk is full" in answers.asked[0]
    assert saved.read_bytes() == before
    assert window.isWindowModified()
    window.actions_["save"].trigger()
    assert not window.isWindowModified()


LOCKS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_program_locks_is_a_sentence(window: MainWindow, answers: Answers, saved: Path) -> None:
    scenario = edit(window)
    command = [sys.executable, "-c", LOCKS, str(saved)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        answers.choices = [""]
        window.actions_["save"].trigger()
        other.communicate()
    assert len(answers.asked) == 1
    assert "another program" in answers.asked[0]
    assert window.document.scenario == scenario
    window.actions_["save"].trigger()
    assert not window.isWindowModified()


def test_a_place_that_is_no_file_is_a_sentence(window: MainWindow, answers: Answers, saved: Path) -> None:
    edit(window)
    before = saved.read_bytes()
    answers.choices = [""]
    saved.rename(saved.with_suffix(".kept"))
    saved.mkdir()
    answers.path = str(saved)
    window.actions_["save-as"].trigger()
    assert "host.wscope" in answers.asked[0]
    assert window.isWindowModified()
    assert saved.with_suffix(".kept").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(200), b"text"])
def test_a_file_that_is_none_of_ours_leaves_what_is_open(
    window: MainWindow, answers: Answers, qtbot: QtBot, tmp_path: Path, content: bytes
) -> None:
    before = window.document.scenario
    path = tmp_path / "bad.wscope"
    path.write_bytes(content)
    window.opener.open(str(path))
    qtbot.waitUntil(lambda: bool(answers.errors))
    assert "bad.wscope" in answers.errors[0]
    assert window.document.scenario == before


# --- images


def with_image(path: Path, image: Path) -> None:
    event = ev.OpenImage(ev.ImageRef(str(image), image.stat().st_size))
    files.save(Content(scenario=Scenario(events=(event,))), str(path))


@pytest.fixture
def core(tmp_path: Path) -> Path:
    path = tmp_path / "here" / "guest.core"
    path.parent.mkdir()
    path.write_bytes(gzip.decompress(BUILT_IN.read_bytes()))
    return path


def test_file_and_image_move_together(window: MainWindow, answers: Answers, qtbot: QtBot, core: Path) -> None:
    with_image(core.with_name("a.wscope"), core)
    moved = core.parent.rename(core.parent.with_name("there"))
    opened(window, qtbot, moved / "a.wscope")
    assert window.document.state.image is not None
    assert answers.asked == []


@pytest.mark.parametrize("choice", ["allow", ""])
def test_an_image_outside_is_opened_only_after_asking(
    window: MainWindow, answers: Answers, qtbot: QtBot, core: Path, tmp_path: Path, choice: str
) -> None:
    (tmp_path / "other").mkdir()
    with_image(tmp_path / "other" / "a.wscope", core)
    answers.choices = [choice]
    opened(window, qtbot, tmp_path / "other" / "a.wscope")
    assert str(core) in answers.asked[0]
    assert (window.document.state.image is not None) is bool(choice)
    assert ("outside the scenario" in window.notice.label.text()) is not bool(choice)


def test_a_missing_image_is_told_and_the_scenario_stays(
    window: MainWindow, answers: Answers, qtbot: QtBot, core: Path
) -> None:
    path = core.with_name("a.wscope")
    with_image(path, core)
    core.unlink()
    opened(window, qtbot, path)
    assert len(window.document.scenario.events) == 1
    refusal = window.document.replay.refusal(1)
    assert refusal is not None
    assert window.notice.label.text() == refusal.reason
