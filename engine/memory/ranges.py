"""Byte ranges ``(start, end)``, the end not included."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from engine.arch.memory import ADDRESS_END, FRAME_SHIFT, FRAME_SIZE

Range = tuple[int, int]


def coalesce(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, without empty ones, and with those that touch or overlap made one."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def runs_of_ones(bits: int) -> Iterator[Range]:
    """The runs of ones in a mask, lowest first."""
    position = 0
    while bits:
        gap = (bits & -bits).bit_length() - 1
        bits >>= gap
        length = (~bits & (bits + 1)).bit_length() - 1
        yield position + gap, position + gap + length
        bits >>= length
        position += gap + length


def outside(ranges: Iterable[Range], pfns: list[int]) -> Iterator[Range]:
    """What is left of the ranges without the bytes of some frames (sorted)."""
    for start, end in ranges:
        at = bisect_left(pfns, start >> FRAME_SHIFT)
        while at < len(pfns) and pfns[at] << FRAME_SHIFT < end:
            cut = pfns[at] << FRAME_SHIFT
            if start < cut:
                yield start, cut
            start = cut + FRAME_SIZE
            at += 1
        if start < end:
            yield start, end


def inside(ranges: list[Range], pfn: int) -> Iterator[Range]:
    """The parts of sorted ranges that lie in one frame, counted from its start."""
    base = pfn << FRAME_SHIFT
    at = max(0, bisect_right(ranges, (base, ADDRESS_END)) - 1)
    while at < len(ranges) and ranges[at][0] < base + FRAME_SIZE:
        start, end = max(ranges[at][0] - base, 0), min(ranges[at][1] - base, FRAME_SIZE)
        if start < end:
            yield start, end
        at += 1
