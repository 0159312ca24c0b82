"""Sparse physical memory with copy on write: every version is a value, and versions share what they have in common.

What a frame holds, the first that applies:

1. what was written to it (a whole frame, or only some bytes where the rest is unknown);
2. a frame of another memory, where one was mapped there (guest memory that comes from an image);
3. the base: zeros, nothing known, or an image.

A frame that is written back to what lies under it is no longer kept, so that equal contents are equally stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from engine.arch.memory import (
    ADDRESS_END,
    ALL_KNOWN,
    FRAME_SHIFT,
    FRAME_SIZE,
    FRAME_WORDS,
    Partial,
    PhysicalMemory,
    word_at,
)
from engine.memory.framemap import FrameMap
from engine.memory.ranges import Range, coalesce, inside, outside, runs_of_ones

if TYPE_CHECKING:
    from numpy import bool_, uint64
    from numpy.typing import NDArray

    from engine.memory.pool import FramePool

CACHED = 4_096
"""Frames that one version remembers to answer ``frame`` in one step."""
POOLS = 4
"""Versions of one history whose frames are held in arrays at a time."""

ZERO_FRAME = memoryview(bytes(FRAME_SIZE)).cast("Q")


class Zeros:
    """A memory that is zero in some sorted ranges of bytes (whole frames) and unknown elsewhere: what is under all."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._ranges = tuple(ranges)

    def frame(self, pfn: int) -> memoryview | None:
        address = pfn << FRAME_SHIFT
        return ZERO_FRAME if any(start <= address < end for start, end in self._ranges) else None

    def word(self, address: int) -> int | None:
        return None if self.frame(address >> FRAME_SHIFT) is None else 0

    def partial(self, pfn: int) -> Partial | None:
        return None

    def gather(self, addresses: NDArray[uint64]) -> tuple[NDArray[uint64], NDArray[bool_]]:
        import numpy as np

        unknown = np.ones(addresses.size, np.bool_)
        for start, end in self._ranges:
            unknown &= (addresses < start) | (addresses >= end)
        return np.zeros(addresses.size, np.uint64), unknown

    def blank(self, pfns: NDArray[uint64]) -> NDArray[bool_]:
        import numpy as np

        return ~self.gather(pfns << np.uint64(FRAME_SHIFT))[1]

    def known(self) -> list[Range]:
        return list(self._ranges)


ZERO = Zeros([(0, ADDRESS_END)])
UNKNOWN = Zeros([])


class SparseMemory:
    """One version of a memory; ``write``, ``with_words`` and ``with_frames_of`` give the next. Never changes."""

    __slots__ = ("__weakref__", "_base", "_digest", "_frames", "_held", "_mapped", "_pools", "_written")

    def __init__(self, base: PhysicalMemory = UNKNOWN) -> None:
        self._start(base, FrameMap(), FrameMap(), WeakKeyDictionary())

    def _start(
        self,
        base: PhysicalMemory,
        written: FrameMap[memoryview | Partial],
        mapped: FrameMap[tuple[PhysicalMemory, int]],
        pools: WeakKeyDictionary[SparseMemory, FramePool],
    ) -> None:
        self._base = base
        self._written = written
        self._mapped = mapped
        self._pools = pools  # of all versions
        self._frames: dict[int, memoryview] = {}
        self._digest: int | None = None
        self._held: NDArray[uint64] | None = None

    # --- reading

    def frame(self, pfn: int) -> memoryview | None:
        found = self._frames.get(pfn)
        return found if found is not None else self._load(pfn)

    def _load(self, pfn: int) -> memoryview | None:
        held = self._written.get(pfn)
        if held is None:
            source, number = self._under(pfn)
            frame = source.frame(number)
        else:
            frame = None if isinstance(held, Partial) else held
        if frame is not None:
            if len(self._frames) >= CACHED:
                self._frames.clear()
            self._frames[pfn] = frame
        return frame

    def _under(self, pfn: int) -> tuple[PhysicalMemory, int]:
        """The memory and the frame of it that show where nothing was written."""
        return self._mapped.get(pfn) or (self._base, pfn)

    def partial(self, pfn: int) -> Partial | None:
        held = self._written.get(pfn)
        if held is None:
            source, number = self._under(pfn)
            return source.partial(number)
        return held if isinstance(held, Partial) else None

    def word(self, address: int) -> int | None:
        return word_at(self, address)

    def gather(self, addresses: NDArray[uint64]) -> tuple[NDArray[uint64], NDArray[bool_]]:
        if not self._written and not self._mapped:
            return self._base.gather(addresses)
        pool = self._pools.pop(self, None) or self._new_pool()
        self._pools[self] = pool  # now the last in order
        for old in list(self._pools)[:-POOLS]:
            self._pools.pop(old, None)
        return pool.gather(self, addresses)

    def blank(self, pfns: NDArray[uint64]) -> NDArray[bool_]:
        import numpy as np

        return self._base.blank(pfns) & ~np.isin(pfns, self._held_frames())

    def _held_frames(self) -> NDArray[uint64]:
        """The numbers of the frames that were written or mapped."""
        import numpy as np

        if self._held is None:
            parts = [np.fromiter(part, np.uint64, len(part)) for part in (self._written, self._mapped)]
            self._held = np.concatenate(parts)
        return self._held

    def _new_pool(self) -> FramePool:
        from engine.memory.pool import FramePool

        held = {*self._written, *self._mapped}
        below = [] if isinstance(self._base, Zeros) else list(self._base.known())
        span = max([*held, *(end >> FRAME_SHIFT for _, end in below)]) + 1
        frames = len(held) + sum(end - start for start, end in below) // FRAME_SIZE
        return FramePool(span=span, frames=frames)

    def runs(self, pfns: list[int]) -> Iterator[tuple[int, memoryview]]:
        for pfn in pfns:
            frame = self.frame(pfn)
            if frame is not None:
                yield pfn, frame

    def known(self) -> list[Range]:
        held = sorted({*self._written, *self._mapped})
        ranges = list(outside(self._base.known(), held))
        sources: dict[PhysicalMemory, list[Range]] = {}
        for pfn in held:
            base = pfn << FRAME_SHIFT
            ranges.extend((base + start, base + end) for start, end in self._known_of(pfn, sources))
        return coalesce(ranges)

    def _known_of(self, pfn: int, sources: dict[PhysicalMemory, list[Range]]) -> Iterator[Range]:
        """What is known of one frame that was written or mapped, counted from its start."""
        held = self._written.get(pfn)
        if held is not None:
            yield from runs_of_ones(held.known) if isinstance(held, Partial) else [(0, FRAME_SIZE)]
            return
        source, number = self._under(pfn)
        if source not in sources:
            sources[source] = list(source.known())
        yield from inside(sources[source], number)

    def held(self, first: int, end: int) -> list[int]:
        """The frames of ``first`` .. ``end - 1`` that were written or mapped; the rest is as the base has it."""
        if end - first > len(self._written) + len(self._mapped):
            return sorted({pfn for pfn in (*self._written, *self._mapped) if first <= pfn < end})
        return [pfn for pfn in range(first, end) if self.is_held(pfn)]

    def is_held(self, pfn: int) -> bool:
        return self._written.get(pfn) is not None or self._mapped.get(pfn) is not None

    # --- new versions

    def write(self, address: int, data: bytes) -> SparseMemory:
        """The version with ``data`` at ``address``."""
        edits: dict[int, list[tuple[int, bytes]]] = {}
        if not 0 <= address <= address + len(data) <= ADDRESS_END:
            raise ValueError(f"bytes {address:#x} .. {address + len(data):#x} are not physical memory")
        done = 0
        while done < len(data):
            pfn, offset = divmod(address + done, FRAME_SIZE)
            piece = data[done : done + FRAME_SIZE - offset]
            edits[pfn] = [(offset, piece)]
            done += len(piece)
        return self._edit(edits)

    def with_words(self, words: Mapping[int, int]) -> SparseMemory:
        """The version with these 8-byte words at these 8-byte-aligned addresses."""
        edits: dict[int, list[tuple[int, bytes]]] = {}
        for address, value in words.items():
            if address % 8 or not 0 <= address < ADDRESS_END:
                raise ValueError(f"{address:#x} is not the address of a word")
            pfn, offset = divmod(address, FRAME_SIZE)
            edits.setdefault(pfn, []).append((offset, value.to_bytes(8, "little")))
        return self._edit(edits)

    def with_frames_of(self, source: PhysicalMemory, frames: Mapping[int, int]) -> SparseMemory:
        """The version in which our frame ``pfn`` shows, copy on write, the frame ``frames[pfn]`` of ``source``."""
        mapped = self._mapped.update({pfn: (source, number) for pfn, number in frames.items()})
        return self._next(self._written.update(dict.fromkeys(frames)), mapped)

    def copied(self, source: int, target: int) -> SparseMemory:
        """The version in which frame ``target`` holds what frame ``source`` does, as far as it is known."""
        contents, known = _contents(self.frame(source), self.partial(source))
        under, number = self._under(target)
        same = (contents, known) == _contents(under.frame(number), under.partial(number))
        held = memoryview(contents).cast("Q") if known == ALL_KNOWN else Partial(contents, known)
        return self._next(self._written.update({target: None if same else held}), self._mapped)

    def _edit(self, edits: Mapping[int, list[tuple[int, bytes]]]) -> SparseMemory:
        written = {pfn: self._edited(pfn, pieces) for pfn, pieces in edits.items()}
        return self._next(self._written.update(written), self._mapped)

    def _edited(self, pfn: int, pieces: list[tuple[int, bytes]]) -> memoryview | Partial | None:
        """What to keep for a frame after an edit: None where it is what lies under it."""
        data, known = _contents(self.frame(pfn), self.partial(pfn))
        changed = bytearray(data)
        for offset, piece in pieces:
            changed[offset : offset + len(piece)] = piece
            known |= ((1 << len(piece)) - 1) << offset
        source, number = self._under(pfn)
        contents = bytes(changed)
        if (contents, known) == _contents(source.frame(number), source.partial(number)):
            return None
        return memoryview(contents).cast("Q") if known == ALL_KNOWN else Partial(contents, known)

    def _next(
        self, written: FrameMap[memoryview | Partial], mapped: FrameMap[tuple[PhysicalMemory, int]]
    ) -> SparseMemory:
        version = SparseMemory.__new__(SparseMemory)
        version._start(self._base, written, mapped, self._pools)
        return version

    # --- comparing versions

    def digest(self) -> int:
        """128 bits that are equal for versions with equal contents and equal mapped frames, however they came about.

        Comparable between versions of one history, within one run of the program.
        """
        if self._digest is None:
            total = self._written.digest(_digest_written) + self._mapped.digest(_digest_mapped)
            self._digest = total & ((1 << 128) - 1)
        return self._digest


def changed_frames(a: SparseMemory, b: SparseMemory) -> set[int]:
    """The frame numbers whose contents, or what is known of them, differ between two versions of one history."""
    if a._base is not b._base:
        raise ValueError("only versions of one memory can be compared")
    candidates = a._written.differing(b._written) | a._mapped.differing(b._mapped)
    return {
        pfn for pfn in candidates if _contents(a.frame(pfn), a.partial(pfn)) != _contents(b.frame(pfn), b.partial(pfn))
    }


def _contents(frame: memoryview | None, part: Partial | None) -> tuple[bytes, int]:
    """A frame's bytes (0 where unknown) and the mask of the known ones."""
    if frame is not None:
        return bytes(frame), ALL_KNOWN
    return (part.data, part.known) if part is not None else (bytes(FRAME_SIZE), 0)


def _hash(pfn: int, *parts: bytes) -> int:
    state = blake2b(pfn.to_bytes(8, "little"), digest_size=16)
    for part in parts:
        state.update(part)
    return int.from_bytes(state.digest(), "little")


def _digest_written(pfn: int, held: memoryview | Partial) -> int:
    if isinstance(held, Partial):
        return _hash(pfn, held.data, held.known.to_bytes(FRAME_WORDS, "little"))
    return _hash(pfn, bytes(held))


def _digest_mapped(pfn: int, source: tuple[PhysicalMemory, int]) -> int:
    memory, number = source
    return _hash(pfn, b"mapped", id(memory).to_bytes(8, "little"), number.to_bytes(8, "little"))
