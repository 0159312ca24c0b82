"""The array walker: what `walk` says of one address, for millions of them.

A property test holds it equal to the explaining walker, address by address, faults included.
"""

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from engine.arch.arrays import (
    OK,
    ON_ENTRY,
    UNKNOWN,
    Code,
    Flags,
    Index,
    Right,
    RightsColumn,
    Small,
    U,
    Words,
    classify,
    combined_rights,
    denied,
    packed_rights,
    page_base,
    plain,
    read_entries,
)
from engine.arch.bits import bit, mask
from engine.arch.faults import Reason, pf_code
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Paging
from engine.arch.registers import CR3_LAM_U48, CR3_LAM_U57, CR4, RFLAGS_AC, Mode
from engine.arch.rights import READ, Access, Check, Kind, compile_check
from engine.arch.upper import BLOCK, DONE, PAGE_MASK, SPAN, Registers, Seen, Through, UpperLevels, slices

Lanes = Index | slice
"""Some of the addresses of a block, or all of them."""
Progress = Callable[[float], None]
"""Is told how much is done, 0.0 .. 1.0, never less than before. Cancels by raising."""


class Translations(msgspec.Struct, frozen=True):
    """One row an address. ``physical``: the byte address reached where `Code.OK`; that of the entry where the code is
    `Code.UNKNOWN`; the guest-physical address that failed where the second stage gave the code; else 0.

    ``page_shift``: log2 of the page's bytes (0: no paging, or no page). ``rights``: `Right` bits, register modifiers
    aside, 0 unless `Code.OK`. ``level``: of the entry where the walk ended, 0 where there was none; where a guest's
    entry could not be reached that entry's.
    """

    physical: Words
    page_shift: Small
    rights: RightsColumn
    code: Small
    level: Small

    @property
    def ok(self) -> Flags:
        return np.equal(self.code, Code.OK)

    def __len__(self) -> int:
        return len(self.code)

    def part(self, rows: slice | Index) -> "Translations":
        """Some of the rows: a view of a slice, else a copy."""
        return Translations(*(getattr(self, name)[rows] for name in self.__struct_fields__))

    def put(self, rows: Index, part: "Translations") -> None:
        """Write ``part`` over some of the rows."""
        for name in self.__struct_fields__:
            getattr(self, name)[rows] = getattr(part, name)


REASONS = {
    Code.NOT_PRESENT: Reason.NOT_PRESENT,
    Code.RESERVED: Reason.RESERVED,
    Code.RIGHTS: Reason.RIGHTS,
    Code.KEY: Reason.RIGHTS,
    Code.MISCONFIGURED: Reason.MISCONFIGURED,
}
CODES = {reason: code for code, reason in REASONS.items() if code is not Code.KEY} | {
    Reason.OUT_OF_RANGE: Code.NOT_PRESENT,
    Reason.UNKNOWN: Code.UNKNOWN,
}


def error_code(code: Code, paging: Paging, access: Access = READ) -> int | None:
    """The #PF error code that ``code`` stands for; None where it is no page fault."""
    reason = REASONS.get(code)
    if reason is None:
        return None
    check = compile_check(paging, access)
    return pf_code(
        reason,
        write=check.writes,
        user=check.user,
        fetch=check.reports_fetch,
        key=code is Code.KEY,
        shadow_stack=check.shadow_stack,
    )


def translate(
    memory: PhysicalMemory,
    paging: Paging,
    addresses: Words,
    access: Access | None = READ,
    *,
    progress: Progress | None = None,
) -> Translations:
    """Translate linear ``addresses`` for ``access`` under ``paging``, one stage.

    ``access`` None asks for presence only, as QEMU's gva2gpa does: reserved bits, rights, LAM and LASS do not count.
    """
    addresses = np.ascontiguousarray(addresses, np.uint64)
    out = empty(len(addresses))
    walker = ArrayWalker(memory, paging, strict=access is not None) if paging.format is not None else None
    check = compile_check(paging, access) if access is not None else PRESENCE
    for block in spans(len(addresses), progress):
        rows = out.part(block)
        linear = check_addresses(paging, addresses[block], access, rows.code)
        if walker is None:
            rows.physical[:], rows.rights[:] = linear, Right.ALL
        else:
            walker.walk(linear, check, rows)
    return out


def empty(count: int) -> Translations:
    """``count`` rows to fill."""
    return Translations(
        physical=np.zeros(count, np.uint64),
        page_shift=np.zeros(count, np.uint8),
        rights=np.zeros(count, np.uint16),
        code=np.zeros(count, np.uint8),
        level=np.zeros(count, np.uint8),
    )


def spans(count: int, progress: Progress | None) -> Iterator[slice]:
    """``count`` rows a span at a time; the first, for which all is new, is short. ``progress`` is told after each."""
    stop = 0
    while stop < count:
        start, stop = stop, min(stop + SPAN if stop else BLOCK, count)
        yield slice(start, stop)
        if progress is not None:
            progress(stop / count)


class ArrayWalker:
    """One stage of translation for blocks of addresses. Not ``strict``: reserved bits do not count.

    ``through``: the second stage, where the tables are a guest's; ``pdptes``: the registers of its PAE paging.
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
        self._nested = through is not None
        self._last = paging.levels[-1]
        self._upper = UpperLevels(memory, paging, strict=strict, through=through, pdptes=pdptes)
        self._shifts = np.zeros(8, np.uint8)
        for lv in paging.levels:
            self._shifts[lv.level] = lv.shift

    def walk(self, linear: Words, check: Check, out: Translations) -> None:
        """Walk at most `SPAN` addresses and check ``check`` at their leaves.

        Rows of ``out`` that have a code already are those of addresses that must not be walked.
        """
        linear = linear * (out.code == OK)  # what is not walked need not be read all over the place
        seen, number = self._upper.find(linear)
        for block in slices(len(linear), BLOCK):
            self._walk_block(linear[block], seen, number[block], check, out.part(block))

    def _walk_block(self, linear: Words, seen: Seen, number: Index, check: Check, out: Translations) -> None:
        last, refused = self._last, out.code.copy()
        walked = refused == OK
        offset = (linear >> U(last.shift) & U(last.index_mask)) << U(last.entry_shift)
        way = seen.way.take(number)
        done = way & U(DONE) != 0
        leaf = np.empty(len(linear), np.uint64)
        # One of the two is done for all addresses and then, for some, written over: it is the quicker that way.
        if 2 * np.count_nonzero(done) < len(done):
            self._read_last(slice(None), linear, offset, way, leaf, out)
            self._end_above(np.flatnonzero(done), linear, offset, seen, number, leaf, out)
        else:
            self._end_above(slice(None), linear, offset, seen, number, leaf, out)
            self._read_last(np.flatnonzero(~done), linear, offset, way, leaf, out)
        granted = way & packed_rights(leaf)
        no, key = denied(check, granted, way, leaf)
        # From here on numbers are added and multiplied: choosing by a mask without a pattern costs ten times as much.
        no &= out.code == OK
        np.add(out.code, no * np.uint8(Code.RIGHTS), out=out.code)
        if key is not None:
            np.add(out.code, (no & key) * np.uint8(Code.KEY - Code.RIGHTS), out=out.code)
        if self._nested:
            self._write_flags(check, leaf, seen, number, offset, out)
        np.add(out.code * walked, refused, out=out.code)
        np.multiply(out.level, walked, out=out.level)
        good = out.code == OK
        np.multiply(out.page_shift, good, out=out.page_shift)
        np.multiply(combined_rights(self._paging, granted, leaf), good, out=out.rights)
        good |= ((out.code == UNKNOWN) | (out.code >= ON_ENTRY)) & walked
        np.multiply(out.physical, good, out=out.physical)

    def _read_last(
        self, lanes: Lanes, linear: Words, offset: Words, way: Words, leaf: Words, out: Translations
    ) -> None:
        """The rows of walks that reach an entry of the last level, but for their rights."""
        last, at = self._last, way[lanes] & U(PAGE_MASK) | offset[lanes]
        entry, unknown = read_entries(self._memory, last, at)
        physical = page_base(last, entry) | linear[lanes] & U(mask(last.page_shift - 1, 0))
        code = np.zeros(len(entry), np.uint8)
        odd = np.flatnonzero(~plain(last, entry, strict=self._strict) | unknown)
        code[odd], _ = classify(last, entry[odd], unknown[odd], strict=self._strict)
        physical[odd] = np.where(unknown[odd], at[odd], physical[odd])
        out.code[lanes], out.physical[lanes], leaf[lanes] = code, physical, entry
        out.level[lanes], out.page_shift[lanes] = last.level, last.page_shift

    def _end_above(
        self, lanes: Lanes, linear: Words, offset: Words, seen: Seen, number: Index, leaf: Words, out: Translations
    ) -> None:
        """The rows of walks that do not reach an entry of the last level, but for their rights."""
        row = number[lanes]
        code, level, base = seen.code.take(row), seen.level.take(row), seen.base.take(row)
        base |= linear[lanes] & seen.low.take(row)
        if self._nested:
            # A table of the last level that cannot be reached fails at the entry that each address needs of it.
            short = (level == self._last.level) & (code >= ON_ENTRY)
            base = np.where(short, seen.table.take(row) + offset[lanes], base)
        out.code[lanes], out.physical[lanes], leaf[lanes] = code, base, seen.value.take(row)
        out.level[lanes], out.page_shift[lanes] = level, self._shifts.take(level)

    def _write_flags(
        self, check: Check, leaf: Words, seen: Seen, number: Index, offset: Words, out: Translations
    ) -> None:
        """Where the leaf's A or D flag would have to be set, and its page may not be written."""
        flags = U(self._last.accessed | self._last.dirty if check.writes else self._last.accessed)
        stuck = np.flatnonzero((out.code == OK) & (seen.fixed.take(number) != 0) & (leaf & flags != flags))
        at = seen.table[number[stuck]]
        out.physical[stuck] = np.where(seen.done[number[stuck]] != 0, at, at + offset[stuck])
        out.code[stuck] = Code.RIGHTS | ON_ENTRY


PRESENCE = Check(need=0, names=())
"""Asks nothing of the rights."""


def check_addresses(paging: Paging, addresses: Words, access: Access | None, code: Small) -> Words:
    """The addresses that are walked, after LAM; ``code`` is set where `walk.check_address` refuses one."""
    if not paging.mode.is_long:
        return addresses & U(mask(paging.width - 1, 0))
    data = access is not None and access.kind is not Kind.FETCH and not access.implicit
    linear = _unmask_lam(paging, addresses) if data else addresses
    size = access.size if access is not None else 1
    for end in (linear, linear + U(size - 1)) if size > 1 else (linear,):
        # Bits 63 .. width - 1 are all 0 or all 1: one more than that is 1 or 0 in a field of so many bits.
        top = (end >> U(paging.width - 1)) + U(1)
        np.maximum(code, (top & U(mask(64 - paging.width, 1)) != 0) * np.uint8(Code.NON_CANONICAL), out=code)
    r = paging.registers
    if access is not None and r.cr4 & CR4.LASS:
        wants_smap = r.cr4 & CR4.SMAP and (access.implicit or not r.rflags & RFLAGS_AC)
        upper = linear & U(bit(63)) != 0
        if access.is_user(r.cpl):
            code[upper & (code == OK)] = Code.LASS
        elif access.kind is Kind.FETCH or wants_smap:
            code[~upper & (code == OK)] = Code.LASS
    return linear


def _unmask_lam(paging: Paging, addresses: Words) -> Words:
    """`paging.unmask_lam` for arrays: the metadata bits become copies of the highest bit below them."""
    r = paging.registers
    upper = (57 if paging.mode is Mode.LEVEL5 else 48) if r.cr4 & CR4.LAM_SUP else 0
    lower = 57 if r.cr3 & CR3_LAM_U57 else 48 if r.cr3 & CR3_LAM_U48 else 0
    if not upper and not lower:
        return addresses
    high = addresses & U(bit(63)) != 0
    for half, low in ((high, upper), (~high, lower)):
        if low:
            metadata = U(mask(62, low))
            filled = np.where(addresses & U(bit(low - 1)) != 0, addresses | metadata, addresses & ~metadata)
            addresses = np.where(half, filled, addresses)
    return addresses
