"""Edits of the timeline that commands make, each undone in one go."""

from typing import get_args

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from engine import events as ev
from engine.edits import Insert
from engine.machine import State
from gui.describe import describe
from gui.dialogs.prompts import Prompts
from gui.document import Document, Query
from gui.explain import engine_text

translate = QCoreApplication.translate


def _title(document: Document, at: int) -> str:
    replay = document.replay
    return describe(document.scenario.events[at], replay.state(at + 1), replay.refusal(at + 1)).title


def duplicate(document: Document) -> None:
    """The event of the current step happens once more after it."""
    at = document.step - 1
    text = translate("Edits", "Duplicate “{event}”").format(event=_title(document, at))
    document.edit(Insert(at + 1, document.scenario.events[at]), text, document.step + 1)


def remove(document: Document) -> None:
    """The event of the current step never happened."""
    at = document.step - 1
    document.remove_event(at, translate("Edits", "Delete “{event}”").format(event=_title(document, at)))


def move(document: Document, by: int) -> None:
    """The event of the current step happens earlier or later, and stays the current one."""
    at = document.step - 1
    text = translate("Edits", "Move “{event}”").format(event=_title(document, at))
    document.undo_stack.beginMacro(text)
    document.move_event(at, at + by, text)
    document.undo_stack.endMacro()
    document.go_to_step(at + by + 1)


def edit_register(document: Document, prompts: Prompts, name: ev.RegisterName, parent: QWidget) -> str | None:
    """Let the user change a register, as an event. A sentence instead where it cannot happen."""
    from gui.dialogs.register_dialog import RegisterDialog

    dialog = RegisterDialog(document, name, parent)
    event = dialog.event if prompts.run(dialog) else None
    if event is None:
        return None
    after = document.after(event)
    text = describe(event, after).title if isinstance(after, State) else ""
    refused = document.append(event, text)
    return engine_text(refused) if refused is not None else None


def perform_access(document: Document, prompts: Prompts, parent: QWidget) -> str | None:
    """The access that is looked at happens: flags are set, a store stores. A sentence instead where it cannot.

    The processor gets the privilege that was asked about, as an event of its own, where it has another.
    """
    query = document.query
    assert query is not None
    size: ev.AccessSize = next((size for size in get_args(ev.AccessSize) if size == query.access.size), 8)
    if document.state.host is not None:
        add_access(document, prompts, query, size, parent)
        return None
    event: ev.AccessMemory | None = ev.AccessMemory(query.address, query.access.kind, size)
    if query.access.kind.writes:
        from gui.dialogs.store_dialog import StoreDialog

        dialog = StoreDialog(query.address, query.access.kind, parent)
        event = dialog.event if prompts.run(dialog) else None
    if event is None:
        return None
    text = translate("Edits", "Perform access")
    document.undo_stack.beginMacro(text)
    refused = None
    if document.state.registers.cpl != query.cpl:
        refused = document.append(ev.SetRegister("cpl", query.cpl), text)
    if refused is None:
        refused = document.append(event, text)
    document.undo_stack.endMacro()
    return engine_text(refused) if refused is not None else None



def add_access(document: Document, prompts: Prompts, query: Query, size: ev.AccessSize, parent: QWidget) -> None:
    """A guest makes the access that is looked at: through a form for a store, at once otherwise."""
    from gui.dialogs.event_form import ask_event

    place = query.place
    event: ev.Event | None = ev.GuestAccess(query.address, query.access.kind, size, vm=place.vm, vcpu=place.vcpu)
    if query.access.kind.writes:
        event = ask_event(document, ev.GuestAccess, event, parent, None, prompts.run)
    if event is not None:
        after = document.after(event)
        text = describe(event, after).title if isinstance(after, State) else translate("Edits", "Perform access")
        document.edit(Insert(document.step, event), text, document.step + 1)
