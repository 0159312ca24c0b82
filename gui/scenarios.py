"""Scenarios in the window: begun from a template, read from JSON and written to it."""

from pathlib import Path

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from engine.codec import MAX_BYTES, decode_scenario, encode_scenario
from engine.errors import InputError
from engine.events import GuestAccess
from engine.scenario import Scenario
from gui.dialogs.prompts import Prompts
from gui.document import Document, Query
from gui.templates import Template

translate = QCoreApplication.translate
SUFFIX = ".json"


def begin(document: Document, template: Template | None) -> None:
    """Open a new scenario: that of ``template``, or an empty one."""
    show(document, template.scenario() if template else Scenario())


def show(document: Document, scenario: Scenario) -> None:
    """Open ``scenario`` and walk the last address that a guest accesses in it."""
    document.open(scenario)
    access = next((e for e in reversed(scenario.events) if isinstance(e, GuestAccess)), None)
    if access is not None:
        document.ask(query_of(document, access))


def query_of(document: Document, event: GuestAccess) -> Query:
    """The look at what ``event`` accesses, with the privilege of its vCPU."""
    from engine.arch.rights import Access
    from engine.machine import Refusal
    from engine.machine.look import Place

    found = document.state.vcpu(event.vm, event.vcpu)
    cpl = 0 if isinstance(found, Refusal) else found[1].registers.cpl
    return Query(event.address, Access(event.kind, event.size), cpl, Place(vm=event.vm, vcpu=event.vcpu))


def read(path: str) -> Scenario:
    """The scenario in the JSON file ``path``. Raises InputError with a sentence."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{Path(path).name} cannot be read: {error.strerror}.") from None
    return decode_scenario(text)


def write(scenario: Scenario, path: str) -> None:
    """Write ``scenario`` to ``path``, whole or not at all. Raises InputError with a sentence."""
    target = Path(path)
    draft = target.with_name(f".{target.name}.part")
    try:
        draft.write_text(encode_scenario(scenario), encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{target.name} cannot be written: {error.strerror}. Choose another place.") from None


def save_as(document: Document, prompts: Prompts, parent: QWidget) -> str | None:
    """Ask where to and write the scenario; a sentence where that cannot be done."""
    path = prompts.scenario_to_save(parent)
    if not path:
        return None
    if not path.endswith(SUFFIX):
        path += SUFFIX
    try:
        write(document.scenario, path)
    except InputError as error:
        return str(error)
    document.undo_stack.setClean()
    return None
