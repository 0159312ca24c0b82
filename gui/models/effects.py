"""What the effects view shows, as values: the two sides, the axis of addresses, and what lies where along it."""

from bisect import bisect_right

import msgspec
import numpy as np
from PySide6.QtCore import QCoreApplication

from engine.arch.rights import Kind
from engine.effects.compare import EXPOSES, Class, Side, side
from engine.effects.comparison import Band, Comparison, compare
from engine.machine.look import Place, look
from engine.machine.state import Refusal, State
from gui.document import Document
from gui.effect_texts import GRAVITY
from gui.explain import engine_text
from gui.jobs import Report
from gui.pins import Pin

translate = QCoreApplication.translate
MOST_SPANS = 16
LEAST_SHARE, GAP_SHARE = 0.05, 0.012
"""Of the axis: what even the smallest span gets, and the gap between two spans."""
GRAVE_PIXELS = 4
"""The width that a range in which the guest is exposed has at least: it must not be overlooked."""


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
    place = document.place if document.place.pcpu is None else Place()
    sides = [side(state, place.vm, place.vcpu, pin.pcpu) for state, pin in zip(states, pins, strict=True)]
    for name, pin, one in zip("AB", pins, sides, strict=True):
        if isinstance(one, Refusal):
            title = translate("Effects", "Nothing to walk on {side} yet").format(side=name)
            text = translate("Effects", "{side} is step {step}. {reason}")
            return Advice(title, text.format(side=name, step=pin.step, reason=engine_text(one.reason)))
    kind = document.query.access.kind if document.query else Kind.READ
    return Question(pins, sides[0], sides[1], kind, states)  # type: ignore[arg-type]


# --- the axis


class Span(msgspec.Struct, frozen=True):
    """Bytes ``start`` .. ``end - 1``, drawn from ``left`` to ``right`` (0.0 .. 1.0)."""

    start: int
    end: int
    left: float
    right: float


class Axis(msgspec.Struct, frozen=True):
    """Guest-physical memory on a line: what is there in proportion, what is not there left out."""

    spans: tuple[Span, ...]

    def place(self, gpa: int) -> float | None:
        """Where ``gpa`` is, 0.0 .. 1.0; None where it is left out."""
        at = bisect_right(self.spans, gpa, key=lambda span: span.start) - 1
        if at < 0 or gpa >= self.spans[at].end:
            return None
        span = self.spans[at]
        return span.left + (span.right - span.left) * (gpa - span.start) / (span.end - span.start)

    def address(self, place: float) -> int | None:
        """The page at ``place``; None in the gap between two spans."""
        for span in self.spans:
            if span.left <= place < span.right:
                offset = int((place - span.left) / (span.right - span.left) * (span.end - span.start))
                return span.start + min(offset, span.end - span.start - 1) & ~0xFFF
        return None

    def places(self, addresses: "np.ndarray") -> "np.ndarray":
        """`place` of many addresses, each of them in a span or at its end."""
        known = [edge for span in self.spans for edge in (span.start, span.end)]
        drawn = [edge for span in self.spans for edge in (span.left, span.right)]
        return np.interp(addresses.astype(np.float64), np.array(known, np.float64), np.array(drawn))


def axis(comparison: Comparison) -> Axis:
    """The memslots of both sides, and whatever else a side translates."""
    slots = [(slot.gpa, slot.gpa + slot.size) for one in (comparison.a, comparison.b) for slot in one.vm.slots]
    band = comparison.band_a
    starts = np.concatenate((np.array([start for start, _ in slots], np.uint64), band.start))
    ends = np.concatenate((np.array([end for _, end in slots], np.uint64), band.start + band.size))
    order = np.argsort(starts, kind="stable")
    starts, reached = starts[order], np.maximum.accumulate(ends[order])
    if not len(starts):
        return Axis(())
    gaps = starts[1:].astype(np.float64) - reached[:-1].astype(np.float64)
    wide = np.flatnonzero(gaps > 0)
    wide = np.sort(wide[np.argsort(-gaps[wide], kind="stable")][: MOST_SPANS - 1])
    first = np.concatenate(([0], wide + 1))
    last = np.append(wide, len(starts) - 1)
    return _drawn([(int(starts[i]), int(reached[j])) for i, j in zip(first, last, strict=True)])


def _drawn(pieces: list[tuple[int, int]]) -> Axis:
    least = min(LEAST_SHARE, 0.5 / len(pieces))
    room = 1 - least * len(pieces) - GAP_SHARE * (len(pieces) - 1)
    total = sum(end - start for start, end in pieces)
    spans, left = [], 0.0
    for start, end in pieces:
        right = left + least + room * (end - start) / total
        spans.append(Span(start, end, left, right))
        left = right + GAP_SHARE
    return Axis(tuple(spans))


class Strip(msgspec.Struct, frozen=True):
    """A stretch of a band on the screen: pixels ``left`` .. ``right`` of one class."""

    kind: Class
    left: float
    right: float


def strips(band: Band, along: Axis, low: float, high: float, width: float) -> list[Strip]:
    """What is drawn of ``band`` where places ``low`` .. ``high`` of the axis fill ``width`` pixels.

    In the order of drawing: graver classes later, over the others. However many ranges there are, there are never more
    strips than pixels and classes.
    """
    scale = width / (high - low)
    left = (along.places(band.start) - low) * scale
    right = (along.places(band.start + band.size - np.uint64(1)) - low) * scale
    found = []
    for kind in GRAVITY:
        mine = (band.kind == kind) & (right > 0) & (left < width)
        if mine.any():
            wide = GRAVE_PIXELS if kind in EXPOSES else 1
            found += [Strip(kind, x, y) for x, y in _together(left[mine], right[mine], wide, width)]
    return found


def address_at(band: Band, along: Axis, low: float, high: float, width: float, x: float) -> int | None:
    """The page that is drawn at pixel ``x``: of a grave range that is drawn wider than it is, its first one."""
    gpa = along.address(low + x / width * (high - low))
    scale = width / (high - low)
    start = band.start[np.isin(band.kind, [int(kind) for kind in EXPOSES])]
    left = np.clip((along.places(start) - low) * scale, 0, width - GRAVE_PIXELS)
    near = np.flatnonzero((left <= x) & (x < left + GRAVE_PIXELS))
    if len(near) and gpa is not None and int(start[near[-1]]) < gpa:
        found = band.at(gpa)
        return gpa if found is not None and found[2] in EXPOSES else int(start[near[-1]])
    return gpa


def _together(left: "np.ndarray", right: "np.ndarray", least: float, width: float) -> list[tuple[float, float]]:
    """Ascending stretches cut to 0 .. ``width``, at least ``least`` wide, joined where they meet."""
    left, right = np.clip(left, 0, width - least), np.clip(right, 0, width)
    right = np.maximum(right, left + least)
    breaks = np.flatnonzero(left[1:] > np.maximum.accumulate(right)[:-1] + 0.5)
    first, last = np.concatenate(([0], breaks + 1)), np.append(breaks, len(left) - 1)
    return [(float(left[i]), float(right[i : j + 1].max())) for i, j in zip(first, last, strict=True)]


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
