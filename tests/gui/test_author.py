"""Writing a demo: stops recorded from the screen, written, ordered, checked, undone, saved and opened again."""

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.rights import WRITE
from engine.demo import Claim, Look, Moment, Stop
from engine.machine.look import Place
from gui import scenarios, stops
from gui.document import Change, Query
from gui.main_window import MainWindow
from gui.templates import templates
from gui.views.author import AuthorView
from storage import files
from tests.gui.conftest import Answers

ADDRESS = 0x7F12_3456_7ABC


@pytest.fixture
def begun(window: MainWindow) -> MainWindow:
    """A scenario of its own, with a mode change in it."""
    window.begin(next(t for t in templates() if t.key == "mode-change"))
    return window


def author(window: MainWindow) -> AuthorView:
    return window.author


def demo_stops(window: MainWindow) -> tuple[Stop, ...]:
    return window.document.scenario.demo.stops


def record(window: MainWindow, title: str = "") -> None:
    window.actions_["record-stop"].trigger()
    if title:
        author(window).fields["title"].setText(title)  # type: ignore[union-attr]
        author(window).settle()


def told(window: MainWindow, qtbot: QtBot) -> None:
    """Until the stops have been checked."""
    view = author(window)
    qtbot.waitUntil(lambda: all(not view.list.item(n).icon().isNull() for n in range(view.list.count())), timeout=5000)


# --- recording


def test_one_key_records_what_is_on_the_screen(begun: MainWindow) -> None:
    document = begun.document
    document.go_to_step(12)
    document.ask(Query(ADDRESS, WRITE, 0, Place(vcpu=0)))
    document.go_to_reference(2)
    document.pin_a(9)
    begun.tabs.setCurrentWidget(begun.lazy("walk"))
    assert begun.actions_["record-stop"].shortcut().toString() == "F8"
    record(begun)
    assert begun.docks["demos"].isVisible()
    look = Look(ADDRESS, WRITE.kind, WRITE.size, 0)
    assert demo_stops(begun) == (Stop(12, look=look, reference=2, a=Moment(9)),)


def test_what_is_recorded_is_shown_again(begun: MainWindow) -> None:
    """Step, look, lit reference, selection, pins and view: all come back, whatever was shown in between."""
    document = begun.document
    document.go_to_step(10)
    document.ask(Query(ADDRESS))
    walk = document.walk
    assert walk is not None
    step = walk.steps[3]
    assert step.table is not None
    document.go_to_reference(7)
    document.select(stops.Selection(step.stage, step.level, step.table, step.index + 1))
    document.pin_b(8, 1)
    begun.tabs.setCurrentWidget(begun.lazy("hierarchy"))
    before = (document.step, document.query, document.reference, document.selection, document.pinned)
    record(begun)
    document.unpin()
    document.go_to_step(2)
    begun.tabs.setCurrentWidget(begun.lazy("mappings"))
    record(begun)
    author(begun).list.setCurrentRow(0)
    assert (document.step, document.query, document.reference, document.selection, document.pinned) == before
    assert begun.tabs.currentWidget() is begun.lazy("hierarchy")


def test_a_zoomed_picture_is_recorded_as_it_is(begun: MainWindow) -> None:
    begun.tabs.setCurrentWidget(begun.lazy("hierarchy"))
    begun.lazy("hierarchy").open().zoom_to(3.0)  # type: ignore[attr-defined]
    record(begun)
    assert demo_stops(begun)[0].zoom == 300


def test_a_new_stop_stands_after_the_current_one(begun: MainWindow) -> None:
    for title in ("one", "two"):
        record(begun, title)
    author(begun).list.setCurrentRow(0)
    record(begun, "between")
    assert [stop.title for stop in demo_stops(begun)] == ["one", "between", "two"]
    assert author(begun).number == 1


def test_before_the_first_stop_it_says_what_to_do(begun: MainWindow) -> None:
    view = author(begun)
    assert not view.empty.isHidden()
    assert "F8" in view.empty.text()
    assert not view.form.isEnabled()
    record(begun)
    assert view.empty.isHidden()
    assert view.form.isEnabled()


# --- writing


def test_what_is_typed_becomes_part_of_the_scenario_and_of_no_state(begun: MainWindow, qtbot: QtBot) -> None:
    record(begun, "first")
    seen: list[Change] = []
    begun.document.changed.connect(seen.append)
    view = author(begun)
    view.fields["text"].setPlainText("It takes {references}.")  # type: ignore[union-attr]
    qtbot.waitUntil(lambda: demo_stops(begun)[0].text != "", timeout=3000)
    assert demo_stops(begun)[0].text == "It takes {references}."
    assert seen == [Change.DEMO]
    assert begun.files.is_modified


def test_the_preview_has_the_fields_filled_or_says_why_not(begun: MainWindow, qtbot: QtBot) -> None:
    begun.document.go_to_step(10)
    record(begun, "first")
    view = author(begun)
    view.fields["text"].setPlainText("It takes {references}.")  # type: ignore[union-attr]
    view.settle()
    qtbot.waitUntil(lambda: "It takes 24." in view.preview.toPlainText(), timeout=5000)
    view.fields["text"].setPlainText("It takes {nothing}.")  # type: ignore[union-attr]
    view.settle()
    qtbot.waitUntil(lambda: "There is no field “nothing”" in view.preview.toPlainText(), timeout=5000)


def test_claims_are_checked_and_a_tick_tells(begun: MainWindow, qtbot: QtBot) -> None:
    begun.document.go_to_step(10)
    record(begun, "first")
    view = author(begun)
    view.claims.setPlainText("references = 24\noutcome = translated")
    view.settle()
    assert demo_stops(begun)[0].claims == (Claim("references", "=", 24), Claim("outcome", "=", "translated"))
    qtbot.waitUntil(lambda: view.checked.text().count("✓") == 2, timeout=5000)
    assert "every claim holds" in view.list.item(0).toolTip()
    view.claims.setPlainText("references = 25")
    view.settle()
    qtbot.waitUntil(lambda: "✗ references = 25 does not hold: it is 24." in view.checked.text(), timeout=5000)
    assert "does not hold" in view.list.item(0).toolTip()
    view.claims.setPlainText("references is 25")
    view.settle()
    assert "is no claim" in view.checked.text()
    assert demo_stops(begun)[0].claims == (Claim("references", "=", 25),), "the last ones that were claims"


def test_a_field_is_put_where_the_cursor_is(begun: MainWindow) -> None:
    record(begun, "first")
    view = author(begun)
    menu = view.insert.menu()
    assert isinstance(menu, QMenu)
    group = menu.actions()[0].menu()
    assert isinstance(group, QMenu)
    action = next(a for a in group.actions() if a.text().startswith("references\t"))
    view.fields["text"].setPlainText("It takes .")  # type: ignore[union-attr]
    cursor = view.fields["text"].textCursor()  # type: ignore[union-attr]
    cursor.setPosition(9)
    view.fields["text"].setTextCursor(cursor)  # type: ignore[union-attr]
    action.trigger()
    view.settle()
    assert demo_stops(begun)[0].text == "It takes {references}."


def test_stops_are_moved_deleted_and_shown_anew_and_all_is_undone(begun: MainWindow) -> None:
    for title in ("one", "two", "three"):
        record(begun, title)
    recorded = demo_stops(begun)
    view = author(begun)
    view.up.click()
    assert [stop.title for stop in demo_stops(begun)] == ["one", "three", "two"]
    assert view.number == 1
    view.delete.click()
    assert [stop.title for stop in demo_stops(begun)] == ["one", "two"]
    begun.document.go_to_step(3)
    view.again.click()
    assert (demo_stops(begun)[1].step, demo_stops(begun)[1].title) == (3, "two")
    for _ in range(3):
        begun.actions_["undo"].trigger()
    assert demo_stops(begun) == recorded
    assert begun.document.step == 3, "undoing words does not move the steps"
    begun.actions_["redo"].trigger()
    assert [stop.title for stop in demo_stops(begun)] == ["one", "three", "two"]


def test_what_is_just_typed_is_undone_and_saved_and_played(
    begun: MainWindow, answers: Answers, tmp_path: Path, qtbot: QtBot
) -> None:
    """Nobody waits for the pause after typing."""
    record(begun, "first")
    view = author(begun)
    view.fields["text"].setPlainText("never mind")  # type: ignore[union-attr]
    begun.actions_["undo"].trigger()
    assert demo_stops(begun)[0].text == ""
    assert view.fields["text"].toPlainText() == ""  # type: ignore[union-attr]
    view.fields["text"].setPlainText("kept")  # type: ignore[union-attr]
    answers.path = str(tmp_path / "a.wscope")
    begun.actions_["save-as"].trigger()
    assert files.open_file(answers.path).content.scenario.demo.stops[0].text == "kept"
    view.fields["notes"].setPlainText("slowly")  # type: ignore[union-attr]
    begun.actions_["present"].trigger()
    assert begun.presenter is not None
    assert begun.presenter.demo.stops[0].notes == "slowly"
    begun.presenter.close()


def test_stops_follow_events_that_are_edited_in_the_timeline(begun: MainWindow) -> None:
    begun.document.go_to_step(10)
    record(begun, "first")
    begun.document.go_to_step(2)
    begun.actions_["duplicate-event"].trigger()
    assert demo_stops(begun)[0].step == 11
    assert "step 11" in author(begun).list.item(0).text()
    begun.actions_["undo"].trigger()
    assert demo_stops(begun)[0].step == 10


def test_play_from_this_stop(begun: MainWindow) -> None:
    record(begun, "one")
    record(begun, "two")
    begun.actions_["present-here"].trigger()
    assert begun.presenter is not None
    assert begun.presenter.number == 1
    begun.presenter.close()


# --- files


@pytest.mark.parametrize("name", ["a.wscope", "a.json"])
def test_a_demo_is_saved_and_opened_again(begun: MainWindow, answers: Answers, tmp_path: Path, name: str,
                                          qtbot: QtBot) -> None:  # fmt: skip
    record(begun, "first")
    begun.author.demo_title.setText("My demo")
    begun.author.settle()
    saved = begun.document.scenario.demo
    answers.path = str(tmp_path / name)
    begun.actions_["save-as"].trigger()
    begun.begin(None)
    assert begun.document.scenario.demo.stops == ()
    begun.opener.open(answers.path)
    qtbot.waitUntil(lambda: begun.document.scenario.demo == saved, timeout=5000)
    assert author(begun).list.count() == 1
    assert author(begun).demo_title.text() == "My demo"


def test_pictures_of_the_stops_are_written_into_a_folder(begun: MainWindow, answers: Answers, tmp_path: Path) -> None:
    record(begun, "first")
    answers.path = str(tmp_path)
    begun.actions_["record-pictures"].trigger()
    assert [path.name for path in tmp_path.rglob("*.png")] == ["01-first.png"]
    assert begun.notice.label.text() == f"Pictures of the stops: 1, in {tmp_path}."


def test_without_stops_there_is_nothing_to_play(begun: MainWindow) -> None:
    assert not begun.actions_["present"].isEnabled()
    record(begun)
    assert begun.actions_["present"].isEnabled()


def test_a_scenario_of_others_cannot_bring_the_view_to_a_halt(begun: MainWindow, qtbot: QtBot) -> None:
    """Stops behind the end, looks at what is not there, fields that are none: said, and nothing more."""
    from engine.demo import Demo
    from engine.scenario import Scenario

    odd = (
        Stop(99, "{x}", look=Look(1, place=Place(vm=7))),
        Stop(0, view="effects", a=Moment(50), claims=(Claim("pages"),)),
        Stop(1, look=Look(1 << 63, place=Place(pcpu=9)), reference=500, view="mappings"),
    )
    scenarios.show(begun.document, Scenario(events=(ev.BootHost(),), demo=Demo(stops=odd)))
    view = author(begun)
    begun.bring("demos")
    told(begun, qtbot)
    for row in range(3):
        view.list.setCurrentRow(row)
    begun.present(0)
    assert begun.presenter is not None
    for _ in range(3):
        qtbot.keyClick(begun.presenter, Qt.Key.Key_PageDown)
    begun.presenter.close()


def test_a_stop_can_have_another_view_and_one_beside_it(begun: MainWindow) -> None:
    record(begun, "one")
    view = author(begun)
    view.view.setCurrentIndex(view.view.findData("machine"))
    view.view.activated.emit(view.view.currentIndex())
    view.beside.setCurrentIndex(view.beside.findData("timeline"))
    view.beside.activated.emit(view.beside.currentIndex())
    assert (demo_stops(begun)[0].view, demo_stops(begun)[0].beside) == ("machine", "timeline")
    begun.actions_["undo"].trigger()
    assert demo_stops(begun)[0].beside == ""
    assert view.beside.currentData() == ""


def test_every_view_that_a_demo_can_name_is_offered_and_made(begun: MainWindow) -> None:
    from typing import get_args

    from engine.demo import View
    from gui.view_makers import MAKERS
    from gui.view_names import view_names

    assert set(get_args(View)) == set(MAKERS) == set(view_names())
