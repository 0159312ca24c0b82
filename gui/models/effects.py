"""What the effects view shows, as values: the two sides, the axis of addresses, and what lies where along it."""

import msgspec
import numpy as np
from PySide6.QtCore import QCoreApplication

from engine.arch.rights import Kind
from engine.effects.axis import Axis, axis
from engine.effects.compare import EXPOSES, SHADOWED, Side, comparable, side
from engine.effects.comparison import Comparison, compare
from engine.machine.look import Place, look
from engine.machine.state import Refusal, State
from gui.document import Document
from gui.explain import engine_text
from gui.jobs import Report
from gui.pins import Pin

translate = QCoreApplication.translate


class Question(msgspec.Struct, frozen=True):
    """Which sides are compared, and for which kind of access KVM answers. ``of``: the states and what was asked of
    them; two questions with equal ones have the same answer."""

    pins: tuple[Pin, Pin]
    a: Side
    b: Side
    kind: Kind
    states: tuple[State, State]

    def asks_as(self, other: "Question | None") -> bool:
        """Whether ``other`` has the same answer: it is about the very same states."""
        if other is None or (self.kind, *_who(self.a), *_who(self.b)) != (other.kind, *_who(other.a), *_who(other.b)):
            return False
        return all(mine is theirs for mine, theirs in zip(self.states, other.states, strict=True))


def _who(one: Side) -> tuple[int, int, int]:
    return one.vm.index, one.vcpu.index, one.pcpu


class Advice(msgspec.Struct, frozen=True):
    """Why there is nothing to compare, and what to do."""

    title: str
    text: str


def question(document: Document) -> Question | Advice:
    """What ``document`` asks to be compared."""
    if document.state.host is None:
        text = translate(
            "Effects", "Effects compare a virtual machine before and after a change: boot a host, load KVM, make a VM."
        )
        return Advice(translate("Effects", "No host yet"), text)
    pins = document.pins
    if pins[0] == pins[1]:
        text = translate(
            "Effects",
            "A and B are the same step: pin another step, or another pCPU, as one of them; or change a pCPU's mode.",
        )
        return Advice(translate("Effects", "Nothing to compare"), text)
    states = tuple(document.replay.state(min(pin.step, document.last_step)) for pin in pins)
    if any(state.module is not None and not state.module.tdp_enabled for state in states):
        return Advice(translate("Effects", "Nothing to compare"), engine_text(SHADOWED))
    place = document.place if document.place.pcpu is None else Place()
    sides = [side(state, place.vm, place.vcpu, pin.pcpu) for state, pin in zip(states, pins, strict=True)]
    for name, pin, one in zip("AB", pins, sides, strict=True):
        if isinstance(one, Refusal):
            title = translate("Effects", "Nothing to walk on {side} yet").format(side=name)
            text = translate("Effects", "{side} is step {step}. {reason}")
            return Advice(title, text.format(side=name, step=pin.step, reason=engine_text(one.reason)))
    a, b = sides
    assert isinstance(a, Side)
    assert isinstance(b, Side)
    differ = comparable(a, b)
    if differ is not None:
        return Advice(translate("Effects", "Not the same memory"), engine_text(differ.reason))
    kind = document.query.access.kind if document.query else Kind.READ
    return Question(pins, a, b, kind, states)  # type: ignore[arg-type]


# --- what is selected


class Picture(msgspec.Struct, frozen=True):
    """The answer to a question."""

    asked: Question
    comparison: Comparison
    axis: Axis


def answer(asked: Question, report: Report) -> Picture:
    """The worker's part."""
    comparison = compare(asked.a, asked.b, asked.kind, report)
    return Picture(asked, comparison, axis(comparison))


def selected(document: Document, picture: Picture) -> int:
    """The guest-physical address that the window is about: the one that is walked, or that the walked one leads to on
    side A. Before any, the first page that exposes something, or that changed."""
    query = document.query
    if query is not None and query.place.pcpu is None:
        if query.place.physical:
            return query.address
        walk = look(picture.asked.states[0], query.address, query.access, query.place, query.cpl)
        if not isinstance(walk, Refusal):
            gpa = walk.gpa if walk.gpa is not None else walk.steps[-1].target if walk.steps else None
            if gpa is not None:
                return gpa
    changed = picture.comparison.changed
    exposed = np.flatnonzero(np.isin(changed.kind, [int(kind) for kind in EXPOSES]))
    if len(exposed):
        return int(changed.start[exposed[0]])
    if len(changed):
        return int(changed.start[0])
    return picture.axis.spans[0].start if picture.axis.spans else 0
