"""The host's frame allocator: who owns which frame, and which frame comes next, from a seed.

The order of frames is a permutation of RAM that the seed picks, so a scenario always gets the same ones, spread out as
on a machine that has been up for a while. Values never change; what takes or gives back frames
returns the next version.
"""

from bisect import bisect_right
from collections.abc import Container, Mapping
from enum import Enum
from functools import lru_cache
from math import gcd

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE, size_name
from engine.errors import InputError
from engine.memory.framemap import FrameMap


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


@lru_cache
def _multiplier(seed: int, count: int) -> int:
    """A number coprime with ``count``, so that n -> n * it mod count visits every frame."""
    wanted = (seed * 0x9E37_79B9_7F4A_7C15 + 0x2545_F491_4F6C_DD1D) % count | 1
    while gcd(wanted, count) != 1:
        wanted += 2
    return wanted


class Frames(msgspec.Struct, frozen=True):
    """``ram``: the byte ranges (start, end) of RAM. ``taken``: frame number -> `Owner.packed`, beside ``regions`` (sorted)."""

    ram: tuple[tuple[int, int], ...]
    seed: int
    taken: FrameMap[int] = FrameMap()
    regions: tuple[Region, ...] = ()
    cursor: int = 0

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
        if region is None:
            return None
        return msgspec.structs.replace(region.owner, gfn=region.owner.gfn + pfn - region.first)

    def _region(self, pfn: int) -> Region | None:
        at = bisect_right(self.regions, pfn, key=lambda r: r.first) - 1
        return self.regions[at] if at >= 0 and pfn < self.regions[at].end else None

    def is_ram(self, pfn: int) -> bool:
        return any(start <= pfn << FRAME_BITS < end for start, end in self.ram)

    def is_free(self, pfn: int) -> bool:
        return self.is_ram(pfn) and self.taken.get(pfn) is None and self._region(pfn) is None

    def next_free(self, cursor: int, pending: Container[int] = ()) -> tuple[int, int]:
        """The next free frame in the seed's order from ``cursor`` on but for ``pending``; and the cursor after it.

        Raises InputError where RAM is full.
        """
        count = self.total
        step = _multiplier(self.seed, count)
        for n in range(cursor, cursor + count):
            pfn = self._nth((n * step + self.seed) % count)
            if pfn not in pending and self.taken.get(pfn) is None and self._region(pfn) is None:
                return pfn, (n + 1) % count
        raise InputError(f"The host's RAM is full: all {count} frames are in use. Give the host more RAM.")

    def with_taken(self, owners: Mapping[int, Owner], cursor: int) -> "Frames":
        """The allocator in which these frames have these owners and the search goes on at ``cursor``."""
        packed = {pfn: owner.packed for pfn, owner in owners.items()}
        return msgspec.structs.replace(self, taken=self.taken.update(packed), cursor=cursor)

    def take_block(self, frames: int, owner: Owner) -> tuple["Frames", int]:
        """``frames`` contiguous frames, aligned to their number: the next allocator, the first frame's number."""
        blocks = [
            first
            for start, end in self.ram
            for first in range(-(-(start >> FRAME_BITS) // frames) * frames, (end >> FRAME_BITS) - frames + 1, frames)
        ]
        if blocks:
            step = _multiplier(self.seed, len(blocks))
            for n in range(len(blocks)):
                first = blocks[(n * step + self.seed) % len(blocks)]
                if self._is_block_free(first, first + frames):
                    return self.with_region(Region(first, first + frames, owner)), first
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
        return self.with_region(Region(first, end, owner))

    def _is_block_free(self, first: int, end: int) -> bool:
        at = bisect_right(self.regions, first, key=lambda r: r.first)
        near = self.regions[max(0, at - 1) : at + 1]
        if any(r.first < end and first < r.end for r in near):
            return False
        if end - first > len(self.taken):
            return not any(first <= pfn < end for pfn in self.taken)
        return all(self.taken.get(pfn) is None for pfn in range(first, end))

    def with_region(self, region: Region) -> "Frames":
        at = bisect_right(self.regions, region.first, key=lambda r: r.first)
        return msgspec.structs.replace(self, regions=(*self.regions[:at], region, *self.regions[at:]))

    def give_back(self, pfn: int) -> "Frames":
        """Frame ``pfn`` is free again; a frame inside a region is cut out of it."""
        if self.taken.get(pfn) is not None:
            return msgspec.structs.replace(self, taken=self.taken.update({pfn: None}))
        region = self._region(pfn)
        if region is None:
            raise ValueError(f"frame {pfn:#x} is not in use")
        rest = msgspec.structs.replace(self, regions=tuple(r for r in self.regions if r is not region))
        for first, end in ((region.first, pfn), (pfn + 1, region.end)):
            if first < end:
                owner = msgspec.structs.replace(region.owner, gfn=region.owner.gfn + first - region.first)
                rest = rest.with_region(Region(first, end, owner))
        return rest

    def _nth(self, n: int) -> int:
        """The frame number of RAM's ``n``-th frame."""
        for start, end in self.ram:
            frames = (end - start) >> FRAME_BITS
            if n < frames:
                return (start >> FRAME_BITS) + n
            n -= frames
        raise IndexError(n)
