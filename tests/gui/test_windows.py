"""Several windows: each has its own document, jobs and recovery; closing one leaves the others alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import shiboken6
from PySide6.QtCore import QMimeData, QPointF, QSettings, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from gui import app
from gui.dialogs.crash import CrashDialog
from gui.jobs import Report, WindowJobs, runner
from gui.main_window import MainWindow
from gui.settings import Appearance
from gui.templates import templates
from gui.theme import Scheme
from gui.windows import Windows
from storage import files
from storage.content import Content
from tests.gui.conftest import Answers

Open = Callable[..., MainWindow]


@pytest.fixture
def windows(dressed: QApplication, settings: QSettings, answers: Answers) -> Iterator[Windows]:
    made = Windows(lambda gallery: app.create_window(settings, answers, gallery=gallery), app.go_on)
    yield made
    for window in made.open:
        window.close()
    runner().cancel()


@pytest.fixture
def show(windows: Windows, qtbot: QtBot) -> Open:
    """Show a window and wait until something is open in it: ``path``, or the built-in image from its start page."""

    def shown(path: Path | None = None) -> MainWindow:
        window = windows.show(path and str(path))
        qtbot.waitUntil(lambda: window.is_filled)
        if path is None:
            window.opener.open_built_in()
        qtbot.waitUntil(lambda: window.is_filled and bool(window.document.scenario.events))
        return window

    return shown


@pytest.fixture
def host(tmp_path: Path) -> Path:
    path = tmp_path / "host.wscope"
    files.save(Content(scenario=templates()[0].scenario()), str(path))
    return path


def drop(window: MainWindow, *paths: Path) -> None:
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, dropped, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    window.dropEvent(event)
    assert event.isAccepted()


def test_each_window_has_a_document_of_its_own(show: Open, host: Path) -> None:
    one, other = show(), show(host)
    before = one.document.scenario
    other.document.remove_event(other.document.last_step - 1, "Delete the last event")
    assert one.document.scenario == before
    assert other.isWindowModified()
    assert not one.isWindowModified()


def test_a_later_window_stands_beside_the_one_before(show: Open) -> None:
    one, other = show(), show()
    assert other.size() == one.size()
    assert other.pos() != one.pos()


@pytest.mark.qt_log_ignore(r"does not support (raise|propagateSizeHints)")
def test_a_file_that_is_open_already_is_not_opened_twice(show: Open, windows: Windows, host: Path) -> None:
    one = show(host)
    assert windows.show(str(host)) is one
    assert len(windows.open) == 1


def test_without_files_a_window_begins_as_the_first_did(windows: Windows, qtbot: QtBot) -> None:
    windows.show_files([])
    (window,) = windows.open
    qtbot.waitUntil(lambda: window.is_filled)
    assert window.is_on_gallery
    assert window.files.path == ""


def test_of_several_dropped_files_the_first_opens_here_and_the_others_in_windows(
    show: Open, windows: Windows, host: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    other = tmp_path / "other.wscope"
    other.write_bytes(host.read_bytes())
    window = show()
    drop(window, host, other)
    assert len(windows.open) == 2
    qtbot.waitUntil(lambda: [each.is_filled and each.files.path for each in windows.open] == [str(host), str(other)])


def test_a_command_opens_another_window_and_one_closes_this(show: Open, windows: Windows) -> None:
    window = show()
    window.actions_["new-window"].trigger()
    assert len(windows.open) == 2
    window.actions_["close"].trigger()
    assert window not in windows.open
    assert len(windows.open) == 1


def test_quitting_asks_for_each_window_and_stops_where_one_stays(
    show: Open, windows: Windows, host: Path, answers: Answers
) -> None:
    window = show(host)
    window.document.remove_event(0, "Delete the first event")
    answers.choices = [""]
    window.actions_["quit"].trigger()
    assert answers.asked == ["host.wscope has changes that are not saved."]
    assert windows.open == (window,)
    window.actions_["quit"].trigger()
    assert windows.open == ()


def test_a_closed_window_is_gone_and_the_colours_of_the_others_can_change(
    show: Open, settings: QSettings, qtbot: QtBot
) -> None:
    stays, goes = show(), show()
    for number in range(goes.tabs.count()):
        goes.tabs.setCurrentIndex(number)
    goes.close()
    qtbot.waitUntil(lambda: not shiboken6.isValid(goes))
    stays.actions_["scheme-dark"].trigger()
    assert Appearance(settings).scheme is Scheme.DARK
    stays.actions_["scheme-light"].trigger()
    assert stays.document.walk is not None


def test_the_choice_of_colours_is_ticked_in_every_window(show: Open) -> None:
    one, other = show(), show()
    one.actions_["scheme-dark"].trigger()
    assert other.actions_["scheme-dark"].isChecked()
    one.actions_["scheme-light"].trigger()
    assert not other.actions_["scheme-dark"].isChecked()


def test_work_of_one_window_is_neither_shown_nor_cancelled_by_another(show: Open, qtbot: QtBot) -> None:
    one, other = show(), show()
    jobs, others = WindowJobs.of(one.document), WindowJobs.of(other.document)
    qtbot.waitUntil(lambda: not runner().running)
    go_on: list[bool] = []
    results: list[str] = []

    def work(report: Report) -> str:
        while not go_on:
            report(0.5)
        return "done"

    jobs.start("Working", work, results.append, key="same")
    assert others.running == ()
    others.start("Working elsewhere", lambda report: "", lambda _: None, key="same")
    other.close()
    assert [job.text for job in jobs.running] == ["Working"]
    go_on.append(True)
    qtbot.waitUntil(lambda: results == ["done"])


def test_a_fault_in_work_is_reported_where_it_was_begun(show: Open, qtbot: QtBot) -> None:
    one, other = show(), show()

    def work(report: Report) -> None:
        raise ZeroDivisionError

    WindowJobs.of(one.document).start("Working", work, lambda _: None, key="fault")
    qtbot.waitUntil(lambda: one.findChild(CrashDialog) is not None)
    assert other.findChild(CrashDialog) is None


def test_each_window_keeps_its_edits_for_itself(show: Open, host: Path, state_folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.wscope"
    second.write_bytes(host.read_bytes())
    one, other = show(host), show(second)
    for window in (one, other):
        window.document.remove_event(window.document.last_step - 1, "Delete the last event")
    assert len(list(state_folder.glob("*.sqlite"))) == 2
    assert not one.files.recover(), "what living windows keep is not offered"
    other.close()
    assert len(list(state_folder.glob("*.sqlite"))) == 1


@pytest.mark.parametrize("name", ["missing.wscope", "folder", "noise.wscope"])
def test_a_wrong_file_is_a_sentence_and_the_window_begins_as_without_one(
    windows: Windows, qtbot: QtBot, answers: Answers, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.wscope").write_bytes(b"noise" * 100)
    window = windows.show(str(tmp_path / name))
    qtbot.waitUntil(lambda: window.is_filled and window.is_on_gallery)
    assert len(answers.errors) == 1
    assert answers.errors[0].startswith(f"{name}: ")
    assert window.files.path == ""
