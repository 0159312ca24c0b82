"""Guest-physical memory along a line: where each address is drawn, and what a picture of a few hundred pixels shows."""

from bisect import bisect_right

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.arch.arrays import Words
from engine.effects.compare import EXPOSES, Class, memory_of
from engine.effects.comparison import Band, Comparison

Doubles = NDArray[np.float64]
GRAVITY = (
    Class.SAME, Class.RESTORED, Class.UNKNOWN, Class.NOT_PRESENT, Class.PERMISSION, Class.RESERVED, Class.ANOTHER_PAGE,
    Class.OUTSIDE_RAM, Class.OTHER_VM, Class.HOST_PAGE, Class.TABLE_PAGE,
)  # fmt: skip
"""From good news to bad: what comes later is painted over what comes before."""
MOST_SPANS = 16
LEAST_SHARE, GAP_SHARE = 0.05, 0.012
"""Of the axis: what even the smallest span gets, and the gap between two spans."""
GRAVE_PIXELS = 4
"""The width that a range in which the guest is exposed has at least: it must not be overlooked."""


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

    def places(self, addresses: Words) -> Doubles:
        """`place` of many addresses, each of them in a span or at its end."""
        known = [edge for span in self.spans for edge in (span.start, span.end)]
        drawn = [edge for span in self.spans for edge in (span.left, span.right)]
        found: Doubles = np.interp(addresses.astype(np.float64), np.array(known, np.float64), np.array(drawn))
        return found


def axis(comparison: Comparison) -> Axis:
    """The memory of both sides, and whatever else a side translates."""
    slots = [span for one in (comparison.a, comparison.b) for span in memory_of(one)]
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


def strips(band: Band, along: Axis, low: float, high: float, width: float, grave: float = GRAVE_PIXELS) -> list[Strip]:
    """What is drawn of ``band`` where places ``low`` .. ``high`` of the axis fill ``width`` pixels.

    Ranges in which the guest is exposed are at least ``grave`` pixels wide.

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
            wide = grave if kind in EXPOSES else 1
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


def _together(left: Doubles, right: Doubles, least: float, width: float) -> list[tuple[float, float]]:
    """Ascending stretches cut to 0 .. ``width``, at least ``least`` wide, joined where they meet."""
    left, right = np.clip(left, 0, width - least), np.clip(right, 0, width)
    right = np.maximum(right, left + least)
    breaks = np.flatnonzero(left[1:] > np.maximum.accumulate(right)[:-1] + 0.5)
    first, last = np.concatenate(([0], breaks + 1)), np.append(breaks, len(left) - 1)
    return [(float(left[i]), float(right[i : j + 1].max())) for i, j in zip(first, last, strict=True)]
