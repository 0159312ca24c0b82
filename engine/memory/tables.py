"""Building page tables in memory: any format, any page size it has, one or two stages, through one small call.

Software writes tables; this is how a scenario, a guest or a test writes them. The entry bits come from the same format
tables that the walkers read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count

import msgspec

from engine.arch.addresses import FRAME_SIZE, grouped, size_name
from engine.arch.bits import bit, mask
from engine.arch.formats import EPT4, EPT5, Format, LevelFormat, Setting
from engine.errors import InputError
from engine.memory.physical import SparseMemory

Allocate = Callable[[], int]
"""Gives the byte address of a fresh, zeroed frame, in the address space that entries point into."""
Place = Callable[[int], int]
"""Where in physical memory the table at that address lies: the identity, or, for a guest's tables, GPA -> HPA."""

WRITE_BACK = 6


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """``size`` bytes at virtual (or guest-physical) ``address`` shall map to ``target``, in pages of ``page_size``.

    ``key``: protection key. ``memory_type``: of EPT leaves only. ``accessed``, ``dirty``: the flags set beforehand.
    """

    address: int
    target: int
    size: int
    page_size: int = FRAME_SIZE
    write: bool = True
    user: bool = True
    execute: bool = True
    global_: bool = False
    key: int = 0
    memory_type: int = WRITE_BACK
    accessed: bool = False
    dirty: bool = False


def frames_from(first: int) -> Allocate:
    """An allocator that gives frame after frame from byte address ``first`` up."""
    return (first + n * FRAME_SIZE for n in count()).__next__


def map_ranges(
    memory: SparseMemory,
    fmt: Format,
    root: int,
    ranges: Iterable[Range],
    allocate: Allocate,
    place: Place = lambda address: address,
) -> SparseMemory:
    """``memory`` with ``ranges`` mapped by the tables of format ``fmt`` under ``root`` (byte addresses).

    Tables that are missing are allocated; those that exist are extended. Raises InputError with a sentence where a
    range is not aligned to its page size, has a page size that the format lacks, lies outside the format's reach or
    maps what is mapped.
    """
    writer = _Writer(memory, fmt, allocate, place)
    for r in ranges:
        leaf = _leaf_level(fmt, r)
        for offset in range(0, r.size, r.page_size):
            writer.map_page(root, leaf, r, offset)
    return memory.with_words(writer.words)


def _leaf_level(fmt: Format, r: Range) -> LevelFormat:
    """The level whose entries map pages of ``r.page_size``, after all checks that do not need the tables."""
    sizes = {1 << lv.page.page_shift: lv for lv in fmt.levels if lv.page}
    if r.page_size not in sizes:
        has = ", ".join(size_name(size) for size in sorted(sizes))
        raise InputError(f"{fmt.name} tables have no pages of {size_name(r.page_size)}: they have {has}.")
    for what, value in (("address", r.address), ("target", r.target), ("size", r.size)):
        if value % r.page_size or (what == "size" and value <= 0):
            raise InputError(
                f"The {what} {grouped(value)} is not a multiple of the page size, {size_name(r.page_size)}: align it."
            )
    low_end = 1 << (fmt.width - 1 if fmt.width in (48, 57) and fmt not in (EPT4, EPT5) else fmt.width)
    inside = r.address + r.size <= low_end or (r.address >= mask(63, fmt.width - 1) and fmt.width > 32)
    if not inside and not r.address + r.size <= 1 << fmt.width:
        raise InputError(f"{grouped(r.address)} is out of the reach of {fmt.name} tables ({fmt.width} bits).")
    if r.key and fmt.width < 48:
        raise InputError(f"{fmt.name} tables have no protection keys.")
    return sizes[r.page_size]


class _Writer:
    """The words written so far, over the memory they will go into."""

    def __init__(self, memory: SparseMemory, fmt: Format, allocate: Allocate, place: Place) -> None:
        self.words: dict[int, int] = {}
        self._memory = memory
        self._fmt = fmt
        self._allocate = allocate
        self._place = place
        self._is_ept = bool(fmt.rights.read)
        self._setting = Setting(pse=True, nxe=True)

    def map_page(self, root: int, leaf: LevelFormat, r: Range, offset: int) -> None:
        base, address = root, r.address + offset
        for lv in self._fmt.levels:
            at = base + ((address >> lv.shift) & ((1 << lv.bits) - 1)) * self._fmt.entry_bytes
            entry = self._read(at)
            present = entry & self._fmt.present(self._setting)
            if lv is leaf:
                if present:
                    raise InputError(
                        f"{grouped(address)} is mapped already: unmap it first, or choose another address."
                    )
                self._write(at, self._page(lv, r, offset))
                return
            assert lv.table is not None
            if not present:
                base = self._allocate()
                self._clear(base)
                self._write(at, self._table(lv, base))
            elif entry & lv.leaf(self._setting):
                raise InputError(f"{grouped(address)} lies in a larger page that is mapped already.")
            else:
                base = entry & lv.table.address

    def _table(self, lv: LevelFormat, base: int) -> int:
        if lv.neutral:
            return base | bit(0)
        rights = self._fmt.rights
        return base | self._fmt.present(self._setting) & 7 | rights.write | rights.user | rights.execute

    def _page(self, lv: LevelFormat, r: Range, offset: int) -> int:
        assert lv.page is not None
        rights, target = self._fmt.rights, r.target + offset
        high = (target >> lv.page.high_shift) & lv.page.high if lv.page.high else 0
        entry = (target & lv.page.address) | high | (rights.read or bit(0))
        entry |= rights.write if r.write else 0
        entry |= rights.user if r.user else 0
        if rights.execute:
            entry |= rights.execute if r.execute else 0
        elif not r.execute and self._fmt.entry_bytes == 8:
            entry |= rights.no_execute
        entry |= self._fmt.accessed(self._setting) if r.accessed else 0
        entry |= self._fmt.dirty(self._setting) if r.dirty else 0
        if lv.page.page_shift > 12:
            entry |= bit(7)
        if self._is_ept:
            return entry | r.memory_type << 3
        return entry | (bit(8) if r.global_ else 0) | r.key << 59

    # --- entries of 4 or 8 bytes, as words

    def _read(self, at: int) -> int:
        address = self._place(at)
        word = self.words.get(address & ~7)
        if word is None:
            word = self._memory.word(address & ~7)
        if word is None:
            raise InputError(f"The table at {grouped(at)} is not in this memory.")
        return word if self._fmt.entry_bytes == 8 else (word >> (8 * (address & 4))) & 0xFFFF_FFFF

    def _write(self, at: int, entry: int) -> None:
        address = self._place(at)
        key = address & ~7
        if self._fmt.entry_bytes == 8:
            self.words[key] = entry
            return
        before = self.words.get(key)
        if before is None:
            before = self._memory.word(key) or 0
        shift = 8 * (address & 4)
        self.words[key] = before & ~(0xFFFF_FFFF << shift) | entry << shift

    def _clear(self, base: int) -> None:
        for at in self._slots(base):
            self.words[at] = 0

    def _slots(self, base: int) -> Iterator[int]:
        first = self._place(base)
        return iter(range(first, first + FRAME_SIZE, 8))
