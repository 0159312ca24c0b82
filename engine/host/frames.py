"""The host's frame allocator: who owns which frame, and which frame comes next, from a seed.

Which frame comes next depends on the seed and on which frames are free, on nothing else: software that takes and gives
back in a circle comes back to the same state. RAM is used zone by zone from the top down, each in an order that the
seed picks: small pages lie scattered and yet leave room for large ones. Values never change; what takes or gives
back frames returns the next version.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from itertools import chain
from math import gcd

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE, size_name
from engine.errors import InputError
from engine.memory.framemap import FrameMap

ZONES = 8
GIB_FRAMES = 1 << 18


class Use(Enum):
    KERNEL = "host kernel"
    HOST_TABLE = "host page table"
    GUEST_PAGE = "guest memory"
    KVM_TABLE = "KVM page table"


class Owner(msgspec.Struct, frozen=True):
    """What a frame is used for. ``vm``: the VM it belongs to, -1 for none. ``level`` and ``gfn``: of a KVM table, the
    level and the first guest frame it covers; of guest memory, ``gfn`` is the guest frame it holds."""

    use: Use
    vm: int = -1
    level: int = 0
    gfn: int = 0

    @property
    def packed(self) -> int:
        """One word, so that a million owners are an array: use in bits 3:0, level 7:4, VM + 1 23:8, gfn 63:24."""
        return USES.index(self.use) | self.level << 4 | (self.vm + 1) << 8 | self.gfn << 24

    @classmethod
    def unpacked(cls, word: int) -> "Owner":
        return cls(USES[word & 0xF], (word >> 8 & 0xFFFF) - 1, word >> 4 & 0xF, word >> 24)


USES = tuple(Use)


class Region(msgspec.Struct, frozen=True):
    """Frames ``first`` .. ``end - 1``, owned alike; a guest page's gfn counts up from ``owner.gfn``."""

    first: int
    end: int
    owner: Owner

    def part(self, first: int, end: int) -> "Region":
        return Region(first, end, msgspec.structs.replace(self.owner, gfn=self.owner.gfn + first - self.first))


@lru_cache
def _multiplier(seed: int, count: int) -> int:
    """A number coprime with ``count``, so that n -> n * it mod count visits every one of ``count``."""
    wanted = (seed * 0x9E37_79B9_7F4A_7C15 + 0x2545_F491_4F6C_DD1D) % count | 1
    while gcd(wanted, count) != 1:
        wanted += 2
    return wanted


@lru_cache
def _inverse(seed: int, count: int) -> int:
    return pow(_multiplier(seed, count), -1, count)


def _shuffled(seed: int, count: int, zone: int, position: int) -> int:
    """Which of ``count`` things comes at ``position``: zone after zone of ``zone`` things from the top down, and within
    a zone in an order that the seed picks."""
    top = count % zone or zone
    if position < top:
        base, here, k = count - top, top, position
    else:
        number, k = divmod(position - top, zone)
        base, here = count - top - (number + 1) * zone, zone
    return base + (k * _multiplier(seed, here) + seed) % here


def _position(seed: int, count: int, zone: int, nth: int) -> int:
    """Where `_shuffled` has the ``nth`` thing."""
    top = count % zone or zone
    if nth >= count - top:
        base, here, start = count - top, top, 0
    else:
        number = (count - top - 1 - nth) // zone
        base, here, start = count - top - (number + 1) * zone, zone, top + number * zone
    return start + (nth - base - seed) * _inverse(seed, here) % here


class Frames(msgspec.Struct, frozen=True):
    """``ram``: the sorted byte ranges (start, end) of RAM. ``taken``: frame number -> `Owner.packed`, beside the
    sorted ``regions``. Of the positions in the order of allocation that lie before ``cursor``, only those in ``freed``
    (sorted) may be free.
    """

    ram: tuple[tuple[int, int], ...]
    seed: int
    taken: FrameMap[int] = FrameMap()
    regions: tuple[Region, ...] = ()
    cursor: int = 0
    freed: tuple[int, ...] = ()
    block_cursor: tuple[int, int] = (0, 0)
    """(frames, n): of the blocks of so many frames the first n in the order are not free. It only spares a search."""

    @property
    def total(self) -> int:
        """Frames of RAM."""
        return sum(end - start for start, end in self.ram) >> FRAME_BITS

    def owner(self, pfn: int) -> Owner | None:
        """Who owns frame ``pfn``; None where nobody does."""
        found = self.taken.get(pfn)
        if found is not None:
            return Owner.unpacked(found)
        region = self._region(pfn)
        return region.part(pfn, pfn + 1).owner if region else None

    def _region(self, pfn: int) -> Region | None:
        at = bisect_right(self.regions, pfn, key=_first) - 1
        return self.regions[at] if at >= 0 and pfn < self.regions[at].end else None

    def is_ram(self, pfn: int) -> bool:
        return any(start <= pfn << FRAME_BITS < end for start, end in self.ram)

    # --- frames one by one

    def next_free(
        self, wanted: int, cursor: int, freed: tuple[int, ...], pending: Container[int] = ()
    ) -> tuple[list[int], int, tuple[int, ...]]:
        """The next ``wanted`` free frames but for ``pending``, and what ``cursor`` and ``freed`` are after them.

        Raises InputError where RAM is full.
        """
        count, taken, found = self.total, self.taken.get, list[int]()
        starts, regions, used = [r.first for r in self.regions], self.regions, 0
        for position in chain(freed, range(cursor, count)):
            if len(found) == wanted:
                break
            used += 1
            pfn = self._pfn(position, count)
            at = bisect_right(starts, pfn)
            if pfn not in pending and taken(pfn) is None and not (at and pfn < regions[at - 1].end):
                found.append(pfn)
        if len(found) < wanted:
            raise InputError(f"The host's RAM is full: all {count} frames are in use. Give the host more RAM.")
        return found, cursor + max(0, used - len(freed)), freed[used:]

    def with_taken(self, owners: Mapping[int, Owner], cursor: int, freed: tuple[int, ...]) -> "Frames":
        """The allocator in which these frames have these owners and the search goes on at ``cursor`` and ``freed``."""
        packed = {pfn: owner.packed for pfn, owner in owners.items()}
        return msgspec.structs.replace(self, taken=self.taken.update(packed), cursor=cursor, freed=freed)

    def _pfn(self, position: int, count: int) -> int:
        n = _shuffled(self.seed, count, -(-count // ZONES), position)
        for start, end in self.ram:
            frames = (end - start) >> FRAME_BITS
            if n < frames:
                return (start >> FRAME_BITS) + n
            n -= frames
        raise IndexError(position)

    def _position(self, pfn: int) -> int:
        """Where frame ``pfn`` of RAM stands in the order of allocation."""
        n, count = 0, self.total
        for start, end in self.ram:
            if start <= pfn << FRAME_BITS < end:
                n += pfn - (start >> FRAME_BITS)
                break
            n += (end - start) >> FRAME_BITS
        return _position(self.seed, count, -(-count // ZONES), n)

    # --- blocks

    def take_block(self, frames: int, owner: Owner) -> tuple["Frames", int]:
        """``frames`` contiguous frames, aligned to their number: the next allocator, the first frame's number."""
        spans = []
        for start, end in self.ram:
            first = -(-(start >> FRAME_BITS) // frames) * frames
            spans.append((first, max(0, ((end >> FRAME_BITS) - first) // frames)))
        count = sum(blocks for _, blocks in spans)
        for n in range(self.block_cursor[1] if self.block_cursor[0] == frames else 0, count):
            nth = _shuffled(self.seed, count, max(1, GIB_FRAMES // frames), n)
            for first, blocks in spans:
                at = first + nth * frames
                if 0 <= nth < blocks and self._is_block_free(at, at + frames):
                    taken = self._with_region(Region(at, at + frames, owner))
                    return msgspec.structs.replace(taken, block_cursor=(frames, n + 1)), at
                nth -= blocks
        size = size_name(frames << FRAME_BITS)
        raise InputError(f"The host has no free block of {size}: give it more RAM, or use smaller pages.")

    def reserve(self, start: int, size: int, owner: Owner) -> "Frames":
        """The given ``size`` bytes from byte address ``start`` become ``owner``'s. Raises InputError if they cannot."""
        if start % FRAME_SIZE or size % FRAME_SIZE:
            raise InputError(f"{start:#x} + {size:#x} is not a whole number of 4-KiB frames.")
        first, end = start >> FRAME_BITS, (start + size) >> FRAME_BITS
        if not any(low <= start and start + size <= high for low, high in self.ram):
            raise InputError(f"{start:#x} .. {start + size:#x} is not in the host's RAM.")
        if not self._is_block_free(first, end):
            raise InputError(f"Some frames of {start:#x} .. {start + size:#x} are in use already.")
        return self._with_region(Region(first, end, owner))

    def _is_block_free(self, first: int, end: int) -> bool:
        at = bisect_right(self.regions, first, key=_first)
        if at and self.regions[at - 1].end > first:
            return False
        if at < len(self.regions) and self.regions[at].first < end:
            return False
        if end - first > len(self.taken):
            return not any(first <= pfn < end for pfn in self.taken)
        return all(self.taken.get(pfn) is None for pfn in range(first, end))

    def _with_region(self, region: Region) -> "Frames":
        at = bisect_right(self.regions, region.first, key=_first)
        return msgspec.structs.replace(self, regions=(*self.regions[:at], region, *self.regions[at:]))

    # --- giving back

    def give_back(self, spans: Iterable[tuple[int, int]]) -> "Frames":
        """The frames of ``spans`` (first, count) are free again; those inside regions are cut out of them."""
        gone, cuts = dict[int, None](), list[tuple[int, int]]()
        for first, count in spans:
            if count == 1 and self.taken.get(first) is not None:
                gone[first] = None
            else:
                cuts.append((first, first + count))
        if not cuts:
            positions = (self._position(pfn) for pfn in gone)
            freed = tuple(sorted({*self.freed, *(p for p in positions if p < self.cursor)}))
            return msgspec.structs.replace(self, taken=self.taken.update(gone), freed=freed, block_cursor=(0, 0))
        for first, end in cuts:
            gone |= {pfn: None for pfn in range(first, end) if self.taken.get(pfn) is not None}
        cuts.sort()
        regions = tuple(part for region in self.regions for part in _without(region, cuts))
        # Frames that were part of regions may stand anywhere in the order: the search starts anew.
        return Frames(self.ram, self.seed, self.taken.update(gone), regions)


def _without(region: Region, cuts: list[tuple[int, int]]) -> Iterator[Region]:
    """What is left of ``region`` without the frames of sorted ``cuts`` (first, end)."""
    start = region.first
    for first, end in cuts[max(0, bisect_right(cuts, (region.first,)) - 1) :]:
        if first >= region.end:
            break
        if start < first:
            yield region.part(start, first)
        start = max(start, end)
    if start < region.end:
        yield region.part(start, region.end)


def _first(region: Region) -> int:
    return region.first
