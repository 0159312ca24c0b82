"""Scenarios in the window: begun from a template, read from JSON and written to it."""

from engine.codec import decode_scenario, encode_scenario
from engine.events import GuestAccess
from engine.machine import Images
from engine.scenario import Scenario
from gui.document import Document, Query
from gui.templates import Template
from storage.content import Content

SUFFIX = ".json"


def begin(document: Document, template: Template | None) -> None:
    """Open a new scenario: that of ``template``, or an empty one."""
    show(document, template.scenario() if template else Scenario())


def show(document: Document, scenario: Scenario, images: Images | None = None) -> None:
    """Open ``scenario`` and walk the last address that a guest accesses in it."""
    document.open(scenario, images=images)
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


def read(path: str) -> Content:
    """The scenario in the JSON file ``path``, with absolute paths of images. Raises InputError with a sentence."""
    from storage import disk, files, images
    from storage.errors import named

    with named(path):
        scenario = decode_scenario(disk.read(path)[0])
        return images.resolved(Content(scenario=scenario), files.folder_of(path))


def write(content: Content, path: str) -> None:
    """Write the scenario to ``path`` for exchange, whole or not at all. Raises InputError with a sentence."""
    from storage import disk, files, images
    from storage.errors import named

    with named(path, writing=True):
        text = encode_scenario(images.relative(content, files.folder_of(path)).scenario).encode()
        disk.replace(path, text, None, files.same_as(text))
