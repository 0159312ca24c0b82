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

MOST_SEEN = 1 << 14
"""Entries remembered of a level before all is forgotten, but for those of one block of addresses."""


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

    def take(self, rows: Index) -> "Seen":
        return Seen(*(getattr(self, name).take(rows) for name in self.__struct_fields__))

    def and_then(self, more: "Seen") -> "Seen":
        return Seen(*(np.concatenate([getattr(self, name), getattr(more, name)]) for name in self.__struct_fields__))


class UpperLevels:
    """All levels of ``paging`` but the last. Not ``strict``: reserved bits do not count."""

    def __init__(self, memory: PhysicalMemory, paging: Paging, *, strict: bool) -> None:
        self._memory = memory
        self._paging = paging
        self._strict = strict
        self._levels = paging.levels[:-1]
        self._forget()

    def _forget(self) -> None:
        def words(value: int) -> Words:
            return np.full(1, value, np.uint64)

        root, none = words(self._paging.root), words(0)
        level = np.full(1, self._levels[0].level, np.uint8)
        start = Seen(level, np.zeros(1, np.uint8), root, root, words(U64), none, none, none)
        # What has been seen of a level has numbers from 1; 0 in ``_numbers`` is a slot that has not been seen.
        self._seen = [start] * (len(self._levels) + 1)
        self._numbers = [np.zeros(lv.entries, np.int32) for lv in self._levels]

    def find(self, linear: Words) -> tuple[Seen, Index]:
        """What has been seen below the upper levels, and which row of it each address leads to."""
        if max(map(len, self._seen)) > MOST_SEEN:
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
        lv, slots = self._levels[depth], np.unique(slots)
        parent, index = np.divmod(slots, lv.entries)
        entries = self._seen[depth].take(parent)
        self._read(depth, entries, index.astype(np.uint64))
        first = len(self._seen[depth + 1])
        self._seen[depth + 1] = self._seen[depth + 1].and_then(entries)
        self._numbers[depth][slots] = np.arange(first, first + len(slots))
        if depth + 1 < len(self._levels):
            self._make_room(depth + 1, (first + len(slots)) * self._levels[depth + 1].entries)

    def _make_room(self, depth: int, slots: int) -> None:
        old = self._numbers[depth]
        if slots > len(old):
            self._numbers[depth] = np.zeros(2 * slots, np.int32)
            self._numbers[depth][: len(old)] = old

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
