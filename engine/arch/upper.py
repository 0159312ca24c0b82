"""The upper levels of a hierarchy, compiled as arrays of addresses come by.

Millions of addresses share a few thousand entries above the last level. Each of these is read, checked and combined
with those above it once, when the first address leads to it; after that a level costs an address one indexed read.
What has been seen is forgotten when it grows too large, so that the memory it takes is bounded.
"""

import msgspec
import numpy as np

from engine.arch.arrays import Code, Index, Small, U, Words, classify, page_base, pdpte_registers, read_entries
from engine.arch.bits import U64
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Paging

BLOCK = 1 << 15
"""Addresses walked at a time: their columns stay in the second-level cache."""
MOST_SEEN = 1 << 14
"""Entries remembered of a level before all is forgotten, those of the last block aside."""


class Seen(msgspec.Struct, frozen=True):
    """Entries of one level that addresses have led to, and what is known there. Columns.

    ``level``: that of the table to be read next, or where the walk has ended with ``code``. ``table``: the next table's
    address as the entry has it; ``host``: where it lies in memory. ``every``/``some``: AND/OR of the entries above that
    table, or above the leaf. ``value``: the leaf; ``base``: the address of its page, or the one that a fault is about.
    """

    level: Small
    code: Small
    table: Words
    host: Words
    every: Words
    some: Words
    value: Words
    base: Words

    def __len__(self) -> int:
        return len(self.level)

    @classmethod
    def room(cls, rows: int) -> "Seen":
        """Columns whose untouched pages cost nothing."""
        small, words = (lambda: np.zeros(rows, np.uint8)), (lambda: np.zeros(rows, np.uint64))
        return cls(small(), small(), words(), words(), words(), words(), words(), words())

    def take(self, rows: Index) -> "Seen":
        return Seen(*(getattr(self, name).take(rows) for name in self.__struct_fields__))

    def put(self, first: int, rows: "Seen") -> None:
        for name in self.__struct_fields__:
            getattr(self, name)[first : first + len(rows)] = getattr(rows, name)


class UpperLevels:
    """All levels of ``paging`` but the last. Not ``strict``: reserved bits do not count."""

    def __init__(self, memory: PhysicalMemory, paging: Paging, *, strict: bool) -> None:
        self._memory = memory
        self._paging = paging
        self._strict = strict
        self._levels = paging.levels[:-1]
        self._forget()

    def _forget(self) -> None:
        rows = 1 + MOST_SEEN + BLOCK
        root = Seen.room(1)
        root.level[:], root.table[:], root.host[:] = self._levels[0].level, self._paging.root, self._paging.root
        root.every[:] = U64
        # What has been seen of a level has numbers from 1; number 0 is a slot that has not been seen.
        self._seen = [root, *(Seen.room(rows) for _ in self._levels)]
        self._used = [1] * (len(self._levels) + 1)
        self._numbers = [
            np.zeros((rows if depth else 1) * lv.entries, np.int32) for depth, lv in enumerate(self._levels)
        ]

    def find(self, linear: Words) -> tuple[Seen, Index]:
        """What has been seen below the upper levels, and which row of it each of at most `BLOCK` addresses leads to."""
        if max(self._used) > MOST_SEEN:
            self._forget()
        number: Index = np.zeros(0, np.int64)
        for depth, lv in enumerate(self._levels):
            slot = (linear >> U(lv.shift) & U(lv.index_mask)).view(np.int64)
            if depth:
                slot += number * lv.entries
            found = self._numbers[depth].take(slot, mode="clip")
            if not found.all():
                self._see(depth, slot[found == 0])
                found = self._numbers[depth].take(slot, mode="clip")
            number = found.astype(np.int64)
        return self._seen[-1], number

    def _see(self, depth: int, slots: Index) -> None:
        """Read the entries in some slots of the tables of a level."""
        lv, numbers = self._levels[depth], self._numbers[depth]
        mark = np.arange(1, len(slots) + 1, dtype=np.int32)
        numbers[slots] = mark
        slots = slots[numbers.take(slots) == mark]  # each once
        parent, index = np.divmod(slots, lv.entries)
        entries = self._seen[depth].take(parent)
        self._read(depth, entries, index.astype(np.uint64))
        first = self._used[depth + 1]
        self._used[depth + 1] += len(slots)
        self._seen[depth + 1].put(first, entries)
        numbers[slots] = np.arange(first, first + len(slots))

    def _read(self, depth: int, entries: Seen, index: Words) -> None:
        """Take the walks of ``entries`` that go on one level further; those that have ended stay as they are."""
        lv = self._levels[depth]
        on = np.flatnonzero(entries.level == lv.level)
        if depth == 0 and self._paging.pdptes_are_registers:
            values, codes, at = pdpte_registers(self._memory, self._paging, strict=self._strict)
            slots = index[on].view(np.int64)
            value, code, at, leaf = values[slots], codes[slots], at[slots], np.zeros(len(on), np.bool_)
            entries.level[on[code > Code.NOT_PRESENT]] = 0  # what stops a load of the registers is no step of a walk
        else:
            at = entries.host[on] + (index[on] << U(lv.entry_shift))
            value, unknown = read_entries(self._memory, lv, at)
            code, leaf = classify(lv, value, unknown, strict=self._strict)
        good = code == Code.OK
        entries.code[on], entries.value[on] = code, value
        entries.base[on] = np.where(good, page_base(lv, value), at)
        entries.host[on] = self._paging.root
        table = good & ~leaf
        further, value = on[table], value[table]
        entries.level[further] = lv.level - 1
        entries.table[further] = entries.host[further] = value & U(lv.table_address)
        entries.every[further] &= value | U(lv.neutral & U64)
        entries.some[further] |= value
