"""The upper levels of a hierarchy, compiled as arrays of addresses come by.

Millions of addresses share a few thousand entries above the last level. Each of these is read, checked and combined
with those above it once, when the first address leads to it; after that a level costs an address one indexed read.
What has been seen is forgotten when it grows too large, so that the memory it takes is bounded.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.arch.arrays import (
    ALL_RIGHTS,
    NOT_PRESENT,
    OK,
    ON_ENTRY,
    Code,
    Index,
    Small,
    U,
    Words,
    classify,
    packed,
    packed_rights,
    page_base,
    pdpte_registers,
    read_entries,
)
from engine.arch.bits import U64
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging

BLOCK = 1 << 16
"""Addresses worked on at a time: their columns stay in the second-level cache."""
SPAN = 1 << 17
"""Addresses for which new entries are read at a time, for each time costs something."""
ROOM = 1 << 6
"""Rows there is room for at first."""
MOST_SEEN = 1 << 14
"""Entries remembered of a level before all is forgotten, those of the last addresses aside."""


DONE = 1 << 4
"""In a way, beside packed rights: the walk ends above the last level."""
PAGE_MASK = U64 ^ 0xFFF


class Located(NamedTuple):
    """Where tables lie in memory. ``code`` tells why one cannot be reached, ``host`` then which bytes are missing.

    ``fixed`` is not 0 where the flags of the table's entries cannot be written.
    """

    host: Words
    code: Small
    fixed: Small


class Through(Protocol):
    """A second stage, as the array walk of a guest uses it."""

    def locate(self, tables: Words) -> Located:
        """Where the guest's tables at guest-physical byte addresses lie."""


Registers = tuple[Words, Small, Words]
"""Four PDPTE registers as `pdpte_registers` gives them."""


_NONE = np.zeros(0, np.int64)


def slices(count: int, size: int) -> Iterator[slice]:
    """``count`` rows in pieces of ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


class Seen:
    """Entries of one level that addresses have led to, and what is known there. Columns, views of two arrays.

    ``level``: that of the table to be read next, or where the walk has ended with ``code``; ``done``: not 0 where it
    ends, be it because the next table cannot be reached. ``table``: the next table's address, or that of the entry at
    which the walk has ended; ``host``: where the next table lies in memory. ``granted``: the packed rights of the
    entries above that table, or above the leaf. ``value``: the leaf; ``base``: the address of its page, or the one that
    a fault is about, and ``low`` the bits of an address below that. ``way``: of a table of the last level ``host`` with
    ``granted`` and `DONE` in its low bits, which is all that most addresses need.
    """

    __slots__ = (
        "_small", "_words", "base", "code", "done", "fixed", "granted", "host", "level", "low", "table", "value",
        "way",
    )  # fmt: skip

    def __init__(self, words: Words, small: Small) -> None:
        self._words, self._small = words, small
        self.table, self.host, self.granted, self.value, self.base, self.low, self.way = words
        self.level, self.code, self.fixed, self.done = small

    def __len__(self) -> int:
        return len(self.level)

    @classmethod
    def room(cls, rows: int) -> "Seen":
        return cls(np.zeros((7, rows), np.uint64), np.zeros((4, rows), np.uint8))

    def grown(self) -> "Seen":
        """With room for twice as many rows."""
        return Seen(np.pad(self._words, ((0, 0), (0, len(self)))), np.pad(self._small, ((0, 0), (0, len(self)))))

    def take(self, rows: Index) -> "Seen":
        return Seen(self._words.take(rows, axis=1), self._small.take(rows, axis=1))

    def put(self, first: int, rows: "Seen", which: Index) -> None:
        self._words[:, first : first + len(which)] = rows._words[:, which]
        self._small[:, first : first + len(which)] = rows._small[:, which]


class UpperLevels:
    """All levels of ``paging`` but the last. Not ``strict``: reserved bits do not count.

    ``pdptes``: the registers of a guest's PAE paging, where they are not to be had from ``memory``.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        paging: Paging,
        *,
        strict: bool = True,
        through: Through | None = None,
        pdptes: Registers | None = None,
    ) -> None:
        self._memory = memory
        self._paging = paging
        self._strict = strict
        self._through = through
        self._levels = paging.levels[:-1]
        if paging.pdptes_are_registers and pdptes is None:
            pdptes = pdpte_registers(memory, paging, strict=strict)
        self._pdptes = pdptes
        self._forget()

    def _forget(self) -> None:
        # Rows of what has been seen are numbered from 1; number 0 is a slot that has not been seen. The first rows, the
        # same of every level, are for walks that ended at an absent entry: there is one for each level.
        depths = range(len(self._levels))
        self._seen = [Seen.room(1), *(Seen.room(ROOM) for _ in depths)]
        self._used = [1 + len(depths)] * len(self._seen)
        # A slot holds the number of what its entry leads to; but above the last of these levels the number of the first
        # slot of that row, which saves each address a multiplication.
        self._step = [lv.entries for lv in self._levels[1:]] + [1]
        slots = [lv.entries * (ROOM if depth else 1) for depth, lv in enumerate(self._levels)]
        self._numbers: list[NDArray[np.int64 | np.int32]] = [np.zeros(count, np.int64) for count in slots]
        self._numbers[-1] = self._numbers[-1].astype(np.int32)  # by far the most: half as wide, twice as near
        self._start_at_root()
        for seen in self._seen[1:]:
            for absent, lv in enumerate(self._levels, 1):
                seen.level[absent], seen.code[absent], seen.done[absent] = lv.level, Code.NOT_PRESENT, 1
                seen.host[absent], seen.way[absent] = self._parking, self._parking & U(PAGE_MASK) | U(DONE)
        for depth in depths[1:]:
            of_one = self._levels[depth].entries
            for absent in range(1, depth + 1):
                self._numbers[depth][absent * of_one : (absent + 1) * of_one] = absent * self._step[depth]

    def _make_room(self, depth: int, rows: int) -> None:
        """Room for so many rows of what has been seen below level ``depth``."""
        while rows > len(self._seen[depth + 1]):
            self._seen[depth + 1] = self._seen[depth + 1].grown()
            if depth + 1 < len(self._levels):
                numbers = self._numbers[depth + 1]
                self._numbers[depth + 1] = np.concatenate([numbers, np.zeros_like(numbers)])

    def _start_at_root(self) -> None:
        root, table = self._seen[0], np.array([self._paging.root], np.uint64)
        root.table[:], root.host[:], root.granted[:], root.level[:] = table, table, ALL_RIGHTS, self._levels[0].level
        if self._through is not None and self._pdptes is None:
            root.host[:], root.code[:], root.fixed[:] = self._through.locate(table)
            root.base[:], root.done[:] = root.host, root.code != OK
        self._parking = root.host[0]
        """Where addresses whose walk has ended read on, to no purpose and no harm."""

    def find(self, linear: Words) -> tuple[Seen, Index]:
        """What has been seen below the upper levels, and which row of it each of at most `SPAN` addresses leads to."""
        if max(self._used) > MOST_SEEN:
            self._forget()
        found = np.zeros(len(linear), np.int64)
        for depth, lv in enumerate(self._levels):
            unseen: list[tuple[Index, Index]] = [(_NONE, _NONE)]
            for block in slices(len(linear), BLOCK):
                slot = (linear[block] >> U(lv.shift) & U(lv.index_mask)).view(np.int64)
                slot += found[block]
                found[block] = self._numbers[depth].take(slot, mode="clip")
                new = np.flatnonzero(found[block] == 0)
                if len(new):
                    unseen.append((new + block.start, slot[new]))
            if len(unseen) > 1:
                lanes, slots = (np.concatenate(parts) for parts in zip(*unseen, strict=True))
                self._see(depth, slots)
                found[lanes] = self._numbers[depth].take(slots)
        return self._seen[-1], found

    def _see(self, depth: int, slots: Index) -> None:
        """Read the entries in some slots of the tables of a level."""
        lv, numbers = self._levels[depth], self._numbers[depth]
        mark = np.arange(1, len(slots) + 1, dtype=numbers.dtype)
        numbers[slots] = mark
        slots = slots[numbers.take(slots) == mark]  # each once
        entries = self._seen[depth].take(slots // lv.entries)
        self._read(lv, entries, (slots % lv.entries).view(np.uint64))
        entries.way[:] = entries.host & U(PAGE_MASK) | entries.granted | (entries.done != 0) * U(DONE)
        numbers[slots] = (1 + depth) * self._step[depth]
        new = np.flatnonzero(entries.code != NOT_PRESENT)
        first = self._used[depth + 1]
        self._used[depth + 1] += len(new)
        self._make_room(depth, self._used[depth + 1])
        self._seen[depth + 1].put(first, entries, new)
        numbers[slots[new]] = np.arange(first, first + len(new)) * self._step[depth]

    def _read(self, lv: Level, entries: Seen, index: Words) -> None:
        """Take the walks of ``entries`` that go on one level further; those that have ended stay as they are."""
        offset = index << U(lv.entry_shift)
        if self._through is not None:
            self._fail_at_entries(lv, entries, offset)
        on = np.flatnonzero(entries.done == 0)
        if self._pdptes is not None and lv is self._levels[0]:
            slots = index[on].view(np.int64)
            value, code, at = self._pdptes[0][slots], self._pdptes[1][slots], self._pdptes[2][slots]
            leaf = np.zeros(len(on), np.bool_)
            entries.level[on[code > NOT_PRESENT]] = 0  # what stops a load of the registers is no step of a walk
        else:
            at = entries.host[on] + offset[on]
            value, unknown = read_entries(self._memory, lv, at)
            code, leaf = classify(lv, value, unknown, strict=self._strict)
        good = code == OK
        entries.base[on] = np.where(good, page_base(lv, value), at)
        entries.low[on] = good * U(lv.span - 1)
        entries.table[on] += offset[on]
        table = good & ~leaf
        if self._through is not None:
            fixed = table & (entries.fixed[on] != 0) & (value & U(lv.accessed) != U(lv.accessed))
            code[fixed] = Code.RIGHTS | ON_ENTRY
            entries.base[on[fixed]], entries.low[on[fixed]] = entries.table[on[fixed]], 0
            table &= ~fixed
        entries.code[on], entries.value[on], entries.done[on] = code, value, 1
        entries.host[on] = self._parking
        self._descend(lv, entries, on[table])

    def _fail_at_entries(self, lv: Level, entries: Seen, offset: Words) -> None:
        """A table that cannot be reached fails at the entry that is needed of it."""
        stuck = np.flatnonzero((entries.level == lv.level) & (entries.done != 0))
        entries.table[stuck] += offset[stuck]
        stuck = stuck[entries.code[stuck] >= ON_ENTRY]
        entries.base[stuck] = entries.table[stuck]

    def _descend(self, lv: Level, entries: Seen, on: Index) -> None:
        """Go on from some entries that point at tables."""
        value = entries.value[on]
        table = value & U(lv.table_address)
        entries.table[on] = entries.host[on] = table
        entries.level[on], entries.done[on] = lv.level - 1, 0
        entries.granted[on] &= packed_rights(value) | U(packed(lv.neutral & U64))
        if self._through is not None:
            host, code, fixed = self._through.locate(table)
            entries.code[on], entries.fixed[on], entries.done[on] = code, fixed, code != OK
            entries.base[on], entries.low[on] = host, 0  # of bytes that are unknown, if they are
            entries.host[on] = np.where(code == OK, host, self._parking)
