"""What the findings view shows: each finding of a step, since when it holds, and where to look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.faults import EntryFailure
from engine.arch.rights import Access
from engine.arch.walk import Stage
from engine.machine.look import Place
from engine.machine.state import State
from gui.document import Document, Query, Selection
from gui.explain import engine_text
from gui.jobs import Report as Progress

if TYPE_CHECKING:
    from engine.effects.findings import Finding
    from engine.report.model import Report

translate = QCoreApplication.translate
Known = dict[int, tuple[State, "tuple[Finding, ...]"]]
"""The findings of steps that were looked at, with the states that they are of."""


class Shown(msgspec.Struct, frozen=True):
    """``since``: the first step from which the finding has held without a break."""

    finding: Finding
    since: int


class Found(msgspec.Struct, frozen=True):
    """The findings of ``step``, the gravest first, and all that is known of others."""

    step: int
    shown: tuple[Shown, ...]
    known: Known


def look(states: Sequence[State], known: Known, report: Progress) -> Found:
    """The worker's part. ``states``: those of steps 0 .. the current one; what is ``known`` of them is kept."""
    from engine.effects.findings import findings

    now: Known = {n: known[n] for n, state in enumerate(states) if n in known and known[n][0] is state}

    def of(step: int) -> tuple[Finding, ...]:
        if step not in now:
            now[step] = states[step], tuple(findings(states[step]))
        return now[step][1]

    last = len(states) - 1
    since = {_identity(finding): last for finding in of(last)}
    holding, step = set(since), last - 1
    while holding and step >= 0:
        holding &= {_identity(finding) for finding in of(step)}
        since.update(dict.fromkeys(holding, step))
        step -= 1
        report(last - step, last + 1)
    return Found(last, tuple(Shown(finding, since[_identity(finding)]) for finding in of(last)), now)


def _identity(finding: Finding) -> tuple[object, ...]:
    """What makes findings of two steps the same one."""
    return finding.key, finding.vm, finding.vcpu, finding.pcpu


# --- where to look


def show(document: Document, shown: Shown) -> None:
    """Bring the window to the evidence: an address, an entry, or the step where it began."""
    target = _TARGETS.get(shown.finding.key, _first_address)(document, shown)
    match target:
        case Query():
            document.ask(target)
        case Selection():
            document.select(target)
        case _:
            document.go_to_step(shown.since)


Target = Query | Selection | None


def _first_address(document: Document, shown: Shown) -> Target:
    """The first address of the evidence: linear on an image, guest-physical of a VM."""
    finding = shown.finding
    address = next((each.address for each in finding.evidence if each.address is not None), None)
    if address is None or (document.state.host is not None and finding.vm < 0):
        return None
    if finding.vm < 0:
        return Query(address)
    return Query(address, place=Place(vm=finding.vm, vcpu=max(finding.vcpu, 0), physical=True))


def _root_of_vcpu(document: Document, shown: Shown) -> Target:
    """The first entry of the vCPU's root, read as the hardware of its pCPU does."""
    found = document.state.vcpu(shown.finding.vm, shown.finding.vcpu)
    second = document.state.second_stage(found[1]) if isinstance(found, tuple) else None
    if second is None or isinstance(second, EntryFailure):
        return None
    return Selection(Stage.NESTED, second.paging.levels[0], second.paging.root, 0)


def _access_of_step(document: Document, shown: Shown) -> Target:
    """The guest's access that the step is about."""
    event = document.scenario.events[document.step - 1] if document.step else None
    if not isinstance(event, ev.GuestAccess):
        return None
    return Query(event.address, Access(event.kind, event.size), 3, Place(vm=event.vm, vcpu=event.vcpu))


def _beginning(document: Document, shown: Shown) -> Target:
    return None


_TARGETS: dict[str, Callable[[Document, Shown], Target]] = {
    "stale-level": _root_of_vcpu,
    "livelock": _access_of_step,
    "lost-pcpu": _beginning,
    "mixed-modes": _beginning,
}


# --- in words


def severity_name(severity: int) -> str:
    return (
        translate("Findings", "Note"), translate("Findings", "Warning"), translate("Findings", "Hazard"),
    )[severity]  # fmt: skip


def counted(shown: Sequence[Shown]) -> str:
    """ "3 hazards, 1 warning", without those that are none."""
    texts = []
    for severity, one, many in (
        (2, translate("Findings", "1 hazard"), translate("Findings", "{count} hazards")),
        (1, translate("Findings", "1 warning"), translate("Findings", "{count} warnings")),
        (0, translate("Findings", "1 note"), translate("Findings", "{count} notes")),
    ):
        count = sum(each.finding.severity == severity for each in shown)
        if count:
            texts.append(one if count == 1 else many.format(count=count))
    return ", ".join(texts)


def parts(finding: Finding) -> tuple[tuple[str, str], ...]:
    """What there is to say beyond the sentence: headings and texts, empty ones left out."""
    found = (
        (translate("Findings", "Rests on"), engine_text(str(finding.basis))),
        (translate("Findings", "How a kernel could notice"), engine_text(finding.notice)),
        (translate("Findings", "What would help"), engine_text(finding.remedy)),
    )
    return tuple((heading, text) for heading, text in found if text)


def report(found: Found, name: str = "") -> Report:
    """All findings of a step, as a report of their own. ``name``: of the scenario, where there is one."""
    from engine.report.findings import of_step

    return of_step(name, found.step, ((each.finding, each.since) for each in found.shown))
