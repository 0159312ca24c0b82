"""Scenarios in the window: begun from a template, edited by forms, performed, saved and opened again."""

from pathlib import Path

import pytest
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.addresses import grouped
from engine.arch.rights import Kind
from gui import scenarios
from gui.document import Query
from gui.main_window import MainWindow
from gui.templates import Template, templates
from gui.views.host_cards import HostCards
from tests.gui.conftest import Answers


def template(key: str) -> Template:
    return next(t for t in templates() if t.key == key)


def cards_of(window: MainWindow) -> HostCards | None:
    dock = window.lazy("machine").open()
    current = dock.currentWidget()
    return current if isinstance(current, HostCards) else None


@pytest.mark.parametrize("key", [t.key for t in templates()])
def test_a_template_opens_at_its_last_access(window: MainWindow, key: str) -> None:
    window.begin(template(key))
    document = window.document
    access = [e for e in document.scenario.events if isinstance(e, ev.GuestAccess)][-1]
    assert document.step == document.last_step
    assert document.query is not None
    assert document.query.address == access.address
    assert document.walk is not None
    assert (document.walk.second is None) == (key == "npt-0"), "without nested paging there is one stage"


def test_the_machine_dock_shows_what_the_scenario_is_about(window: MainWindow) -> None:
    assert cards_of(window) is None
    window.begin(template("amd-4"))
    assert cards_of(window) is not None
    assert window.statusBar().mode.text() == "AMD · NPT · VMs: 1 · vCPUs: 1 · pCPUs: 2"
    window.begin(None)
    cards = cards_of(window)
    assert cards is not None
    assert not cards.next_step.isHidden()
    window.opener.open_built_in()


def test_what_is_saved_opens_as_it_was(window: MainWindow, answers: Answers, tmp_path: Path) -> None:
    window.begin(template("mode-change"))
    saved = window.document.scenario
    answers.path = str(tmp_path / "mode change.json")
    window.actions_["save-as"].trigger()
    path = tmp_path / "mode change.json"
    assert scenarios.read(str(path)).scenario == saved
    window.begin(None)
    window.opener.open(str(path))
    assert window.document.scenario == saved
    assert str(path) in window.recent.paths()
    assert answers.errors == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "not JSON"),
        ("{}", "no format number"),
        ('{"format": 99, "events": []}', "format 99"),
        ('{"format": 1, "events": [{"type": "Nothing"}]}', "cannot be read"),
    ],
)
def test_a_file_that_is_no_scenario_leaves_what_is_open(
    window: MainWindow, answers: Answers, tmp_path: Path, content: str, sentence: str
) -> None:
    before = window.document.scenario
    path = tmp_path / "bad.json"
    path.write_text(content)
    window.opener.open(str(path))
    assert window.document.scenario == before
    assert len(answers.errors) == 1
    assert sentence in answers.errors[0]


def test_a_place_that_cannot_be_written_is_a_sentence(window: MainWindow, answers: Answers, tmp_path: Path) -> None:
    window.begin(template("amd-4"))
    answers.path = str(tmp_path / "missing" / "folder" / "x.json")
    window.actions_["save-as"].trigger()
    assert len(answers.asked) == 1
    assert "save it in another one" in answers.asked[0]


def test_events_are_added_and_changed_by_forms_and_undone(window: MainWindow, answers: Answers) -> None:
    window.begin(template("amd-4"))
    document, count = window.document, window.document.last_step
    answers.fill = lambda dialog: dialog.accept()
    window.add_event(ev.Populate)
    assert isinstance(document.scenario.events[-1], ev.Populate)
    assert document.step == count + 1
    answers.fill = lambda dialog: False
    window.edit_event()
    assert document.last_step == count + 1
    document.undo_stack.undo()
    assert document.last_step == count


def test_performing_the_access_makes_the_guest_do_it(window: MainWindow, qtbot: QtBot) -> None:
    window.begin(template("amd-4"))
    document = window.document
    assert document.query is not None
    window.perform_access()
    event = document.scenario.events[-1]
    assert isinstance(event, ev.GuestAccess)
    assert (event.address, event.kind) == (document.query.address, Kind.READ)
    assert document.state.effect.walks[-1].references == 24


def test_every_place_can_be_asked_about(window: MainWindow) -> None:
    from engine.machine.look import Place

    window.begin(template("amd-4"))
    document = window.document
    document.ask(Query(0x0200_0000, cpl=3, place=Place(physical=True)))
    assert document.walk is not None
    assert document.walk.references == 4
    document.ask(Query(0xFFFF_FFFF_8100_0000, cpl=0, place=Place(pcpu=1)))
    assert document.walk is not None
    assert document.walk.second is None
    assert document.walk.ok


def test_the_menus_offer_templates_and_the_events_that_can_be_next(window: MainWindow) -> None:
    window.begin(template("amd-4"))
    found = {menu.title(): menu for menu in window.menuBar().findChildren(QMenu)}
    new, add = found["&New scenario"], found["Add e&vent"]
    new.parent().aboutToShow.emit()
    assert [a.text() for a in new.actions() if a.text()] == ["&Empty", *[t.name for t in templates()]]
    add.aboutToShow.emit()
    assert any("mode" in action.text() for action in add.actions())


def test_a_shorter_scenario_can_take_the_place_of_an_edited_one(window: MainWindow) -> None:
    """Undo starts afresh, and who listens to it finds the new scenario in place."""
    window.begin(template("mode-change"))
    window.perform_access()
    window.begin(None)
    assert window.document.step == 0
    assert not window.document.undo_stack.canUndo()


def test_the_mappings_of_a_guest_are_those_of_both_stages(window: MainWindow, qtbot: QtBot) -> None:
    """One page is mapped by the guest; its row says the host-physical address. As GPA, the nested tables are listed."""
    from engine.machine.look import Place

    window.begin(template("amd-4"))
    document = window.document
    window.tabs.setCurrentWidget(window.lazy("mappings"))
    view = window.lazy("mappings").open()
    qtbot.waitUntil(lambda: view.model.rowCount() == 1, timeout=5000)
    assert document.walk is not None
    assert view.model.index(0, 0).data() == "0x7f12_3456_7000"
    page = document.walk.outcome.address & ~0xFFF  # type: ignore[union-attr]
    assert any(view.model.index(0, n).data() == grouped(page) for n in range(view.model.columnCount()))
    document.ask(Query(0x0200_0000, cpl=3, place=Place(physical=True)))
    qtbot.waitUntil(lambda: view.model.rowCount() > 1, timeout=5000)
