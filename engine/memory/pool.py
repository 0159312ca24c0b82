"""Frames side by side in one array: what makes ``gather`` as fast as a flat file.

The pool holds the frames that were asked for. A table with one number a frame gives the distance, in words, from
where a frame's words would be in a flat array of all memory to where they are in the pool, so that a word is found
by two indexed reads: distance = table[address >> 12], word = pool[(address >> 3) + distance]. Distance 0 stands for
a frame that is not in the pool; no frame has it, because the pool's first frame starts at word 1.
"""

from collections.abc import Iterable
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.arch.memory import FRAME_SHIFT, FRAME_WORDS, PhysicalMemory

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]

FRAMES = 14_336
"""Frames a pool holds at most (56 MiB; the page tables of 28 GiB of 4-KiB pages)."""
BLOCK = 8_192
"""Addresses answered at a time: their arrays stay in the cache, and the pool has room for all their frames."""
DENSE_SPAN = 1 << 24
"""Frame numbers (64 GiB) that a table may cover whatever the memory's size: 128 MiB, of which untouched pages
cost nothing."""


class Source(PhysicalMemory, Protocol):
    """A memory that can fill a pool."""

    def runs(self, pfns: list[int]) -> Iterable[tuple[int, memoryview]]:
        """Those of the sorted frames that it can give at one go: the number of the first of a run, and its words."""


class FramePool:
    """Answers ``gather`` for one memory, whose contents do not change; it is passed each time, for a reference to
    it would be a cycle that keeps files open.

    ``span`` is one more than the highest frame number worth a place in the table, ``frames`` how many frames the
    memory has: a table is kept proportionate to it. Frames beyond the table are read one by one.
    """

    def __init__(self, *, span: int, frames: int) -> None:
        self._span = min(span, max(DENSE_SPAN, 4 * frames))
        self._distances = np.zeros(self._span + 1, np.int64)  # the last: every frame beyond the table
        self._words = np.empty(1 + FRAMES * FRAME_WORDS, np.uint64)
        self._used = 0
        self._lock = Lock()  # a window and its workers share an image

    def gather(self, source: Source, addresses: Words) -> tuple[Words, Mask]:
        words = np.empty(addresses.size, np.uint64)
        unknown = np.zeros(addresses.size, np.bool_)
        with self._lock:
            for start in range(0, addresses.size, BLOCK):
                part = slice(start, start + BLOCK)
                self._gather_block(source, addresses[part], words[part], unknown[part])
        return words, unknown

    def _gather_block(self, source: Source, addresses: Words, words: Words, unknown: Mask) -> None:
        distances = self._take(addresses, words)
        if distances.all():
            return
        frames = addresses >> np.uint64(FRAME_SHIFT)
        near = frames < self._span
        if not self._keep(source, np.unique(frames[near & (distances == 0)])):
            self._distances = np.zeros(self._span + 1, np.int64)
            self._used = 0
            self._keep(source, np.unique(frames[near]))
        distances = self._take(addresses, words)
        fill(source, addresses, np.flatnonzero(distances == 0), words, unknown)

    def _take(self, addresses: Words, words: Words) -> NDArray[np.int64]:
        """Reads what the pool has into ``words``; the lanes whose distance is 0 are not valid."""
        frames = (addresses >> np.uint64(FRAME_SHIFT)).view(np.int64)
        distances = self._distances.take(frames, mode="clip")
        indexes = (addresses >> np.uint64(3)).view(np.int64)
        indexes += distances
        self._words.take(indexes, mode="clip", out=words)
        return distances

    def _keep(self, source: Source, missing: Words) -> bool:
        """Puts those of the frames that are wholly known into the pool; False where it has no room for them."""
        for pfn, run in source.runs(missing.tolist()):
            count = len(run) // FRAME_WORDS
            if self._used + count > FRAMES:
                return False
            first = 1 + self._used * FRAME_WORDS
            self._words[first : first + len(run)] = run
            self._distances[pfn : pfn + count] = first - pfn * FRAME_WORDS
            self._used += count
        return True


def fill(memory: PhysicalMemory, addresses: Words, lanes: NDArray[np.intp], words: Words, unknown: Mask) -> None:
    """The words of some ``lanes``, one frame at a time: for frames that are partly known, unknown or far away."""
    if not lanes.size:
        return
    frames = addresses[lanes] >> np.uint64(FRAME_SHIFT)
    order = np.argsort(frames, kind="stable")
    lanes, frames = lanes[order], frames[order]
    starts = np.flatnonzero(np.diff(frames, prepend=~frames[:1]))
    for group, pfn in zip(np.split(lanes, starts[1:]), frames[starts].tolist(), strict=True):
        offsets = (addresses[group] >> np.uint64(3)) & np.uint64(FRAME_WORDS - 1)
        values, known = _frame_arrays(memory, pfn)
        words[group] = values[offsets]
        unknown[group] = ~known[offsets]


def _frame_arrays(memory: PhysicalMemory, pfn: int) -> tuple[Words, Mask]:
    """The 512 words of a frame (0 where unknown), and which of them are known."""
    frame = memory.frame(pfn)
    if frame is not None:
        return np.frombuffer(frame, np.uint64), np.ones(FRAME_WORDS, np.bool_)
    part = memory.partial(pfn)
    if part is None:
        return np.zeros(FRAME_WORDS, np.uint64), np.zeros(FRAME_WORDS, np.bool_)
    flags = np.frombuffer(part.known.to_bytes(FRAME_WORDS, "little"), np.uint8)  # one byte a word, one bit a byte
    known = flags == 0xFF
    return np.where(known, np.frombuffer(part.data, np.uint64), np.uint64(0)), known
