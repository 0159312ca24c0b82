"""Adding any event and editing any event: through one form, each an edit that can be undone."""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from PySide6.QtWidgets import QDialog, QMenu
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.memory.library import Library
from engine.scenario import Scenario
from gui import jobs
from gui.dialogs.event_commands import HOST, IMAGE, START, add_event, edit_event, fill_event_menu, offered
from gui.dialogs.event_form import EventForm
from gui.dialogs.event_texts import told
from gui.document import Document
from gui.templates import templates

Answer = Callable[[QDialog], bool]
EVENTS = next(t for t in templates() if t.key == "amd-4").events()


@pytest.fixture
def document(qapp: Any) -> Iterator[Document]:
    made = Document(Library())
    made.open(Scenario(events=EVENTS))
    yield made
    jobs.runner().cancel()


def accept(change: Callable[[Any], None] = lambda editors: None) -> Answer:
    """Answers a form in the user's place, after ``change`` of its editors."""

    def run(form: QDialog) -> bool:
        assert isinstance(form, EventForm)
        change(form.editor.editors)  # type: ignore[attr-defined]
        form.accept()
        return form.result() == QDialog.DialogCode.Accepted

    return run


def reject(form: QDialog) -> bool:
    form.reject()
    return False


def test_every_event_is_offered_somewhere() -> None:
    everywhere = {event for groups in ((START,), HOST, IMAGE) for group in groups for event in group}
    assert everywhere == set(get_args(ev.Event))


def test_what_is_offered_suits_what_there_is(document: Document) -> None:
    assert offered(document.state) == HOST
    document.open(Scenario())
    assert offered(document.state) == (START,)
    document.append(ev.OpenImage(ev.ImageRef("resource:debian-6.1-4level.core.gz")), "")
    assert offered(document.state) == IMAGE


def test_the_menu_follows_the_step(document: Document, qtbot: QtBot) -> None:
    menu = QMenu()
    qtbot.addWidget(menu)
    chosen: list[type] = []
    fill_event_menu(menu, document, chosen.append)
    assert menu.actions()[0].text() == "Load KVM…"
    document.go_to_step(0)
    menu.aboutToShow.emit()
    assert [action.text() for action in menu.actions()] == ["Boot a host…", "Open a memory image…"]
    assert menu.actions()[0].toolTip() == told()[ev.BootHost].help
    menu.actions()[0].trigger()
    assert chosen == [ev.BootHost]


def test_an_added_event_happens_after_the_current_step(document: Document) -> None:
    document.go_to_step(3)
    assert add_event(document, ev.CreateVm, run=accept())
    assert document.scenario.events == (*EVENTS[:3], ev.CreateVm(), *EVENTS[3:])
    assert document.step == 4
    assert document.undo_stack.undoText() == "VM 1 is created"
    document.undo_stack.undo()
    assert document.scenario.events == EVENTS


def test_an_edited_event_takes_the_place_of_the_old_one(document: Document) -> None:
    document.go_to_step(5)
    assert edit_event(document, 0, run=accept(lambda editors: editors["five_level"].set_value(True)))
    assert document.scenario.events == (ev.BootHost(pcpus=EVENTS[0].pcpus, five_level=True), *EVENTS[1:])  # type: ignore[union-attr]
    assert document.step == 5
    assert document.undo_stack.undoText() == "Change to “Host boots, 2 pCPUs”"


def test_a_change_of_mind_changes_nothing(document: Document) -> None:
    assert not add_event(document, ev.CreateVm, run=reject)
    assert not edit_event(document, 0, run=reject)
    assert not edit_event(document, 0, run=accept()), "nothing was changed in the form"
    assert document.undo_stack.count() == 0
