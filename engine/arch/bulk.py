"""The array walker: what `walk` says of one address, for millions of them.

A property test holds it equal to the explaining walker, address by address, faults included.
"""

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.arch.arrays import (
    Code,
    Flags,
    Right,
    RightsColumn,
    Small,
    U,
    Words,
    allowed,
    classify,
    combined_rights,
    page_base,
    read_entries,
)
from engine.arch.bits import U64, bit, mask
from engine.arch.faults import Reason, Unknown, pf_code
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging
from engine.arch.registers import CR3_LAM_U48, CR3_LAM_U57, CR4, RFLAGS_AC, Mode, load_pdptes
from engine.arch.rights import READ, Access, Check, Kind, compile_check

Progress = Callable[[float], None]
"""Is told how much is done, 0.0 .. 1.0, never less than before. Cancels by raising."""

BLOCK = 1 << 15
"""Addresses walked at a time: their columns stay in the second-level cache."""


class Translations(msgspec.Struct, frozen=True):
    """One row an address. ``physical``: byte address where `Code.OK`, that of the entry where `Code.UNKNOWN`, else 0.

    ``page_shift``: log2 of the page's bytes (0: no paging, or no page). ``rights``: `Right` bits, register modifiers
    aside, 0 unless `Code.OK`. ``level``: where the walk ended, 0 where there was none.
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

    def block(self, start: int, stop: int) -> "Translations":
        """A view of some of the rows."""
        return Translations(*(getattr(self, name)[start:stop] for name in self.__struct_fields__))


def empty(count: int) -> Translations:
    """``count`` rows to fill."""
    return Translations(
        physical=np.zeros(count, np.uint64),
        page_shift=np.zeros(count, np.uint8),
        rights=np.zeros(count, np.uint16),
        code=np.zeros(count, np.uint8),
        level=np.zeros(count, np.uint8),
    )


_REASONS = {
    Code.NOT_PRESENT: Reason.NOT_PRESENT,
    Code.RESERVED: Reason.RESERVED,
    Code.RIGHTS: Reason.RIGHTS,
    Code.KEY: Reason.RIGHTS,
}


def error_code(code: Code, paging: Paging, access: Access = READ) -> int | None:
    """The #PF error code that ``code`` stands for; None where it is no page fault."""
    reason = _REASONS.get(code)
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
    count = len(addresses)
    out = empty(count)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        _walk_block(memory, paging, addresses[start:stop], access, out.block(start, stop))
        if progress is not None:
            progress(stop / count)
    return out


def _walk_block(
    memory: PhysicalMemory, paging: Paging, addresses: Words, access: Access | None, out: Translations
) -> None:
    linear = check_addresses(paging, addresses, access, out.code)
    if paging.format is None:
        out.physical[:] = linear
        out.rights[:] = Right.ALL
        return
    lanes = np.flatnonzero(out.code == Code.OK)
    linear = linear[lanes]
    base = np.full(len(lanes), paging.root, np.uint64)
    levels = paging.levels
    if paging.mode is Mode.PAE and not paging.pdptes_from_memory:
        through, base = _through_pdptes(memory, paging, lanes, linear, access, out)
        lanes, linear = lanes[through], linear[through]
        levels = levels[1:]
    check = compile_check(paging, access) if access is not None else PRESENCE
    descend(memory, paging, levels, base, lanes, linear, check, out, strict=access is not None)


def descend(
    memory: PhysicalMemory,
    paging: Paging,
    levels: tuple[Level, ...],
    base: Words,
    lanes: NDArray[np.intp],
    linear: Words,
    check: Check,
    out: Translations,
    *,
    strict: bool = True,
) -> None:
    """`walk.descend` for arrays: ``linear`` addresses down ``levels`` from tables at ``base``, into rows ``lanes``."""
    every = np.full(len(lanes), U64, np.uint64)
    some = np.zeros(len(lanes), np.uint64)
    tables = every
    for lv in levels:
        at = base + ((linear >> U(lv.shift) & U(lv.index_mask)) << U(lv.entry_shift))
        value, unknown = read_entries(memory, lv, at)
        code, leaf = classify(lv, value, unknown, strict=strict)
        every = every & (value | U(lv.neutral & U64))
        some = some | value
        page = np.flatnonzero(leaf & (code == Code.OK))
        code[page] = allowed(check, every[page], some[page], tables[page], value[page])
        out.code[lanes] = code
        out.level[lanes] = lv.level
        out.physical[lanes[unknown]] = at[unknown]
        page = page[code[page] == Code.OK]
        where = lanes[page]
        out.physical[where] = page_base(lv, value[page]) | linear[page] & U(mask(lv.page_shift - 1, 0))
        out.page_shift[where] = lv.page_shift
        out.rights[where] = combined_rights(paging, every[page], some[page], value[page])
        on = np.flatnonzero(~leaf & (code == Code.OK))
        lanes, linear, every, some = lanes[on], linear[on], every[on], some[on]
        tables, base = every, value[on] & U(lv.table_address)


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
        code[top & U(mask(64 - paging.width, 1)) != 0] = Code.NON_CANONICAL
    r = paging.registers
    if access is not None and r.cr4 & CR4.LASS:
        wants_smap = r.cr4 & CR4.SMAP and (access.implicit or not r.rflags & RFLAGS_AC)
        upper = linear & U(bit(63)) != 0
        if access.is_user(r.cpl):
            code[upper & (code == Code.OK)] = Code.LASS
        elif access.kind is Kind.FETCH or wants_smap:
            code[~upper & (code == Code.OK)] = Code.LASS
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


def _through_pdptes(
    memory: PhysicalMemory,
    paging: Paging,
    lanes: NDArray[np.intp],
    linear: Words,
    access: Access | None,
    out: Translations,
) -> tuple[NDArray[np.intp], Words]:
    """Which lanes the four PDPTE registers let through, and the directories that these go on to."""
    lv = paging.levels[0]
    values, codes, at = pdpte_registers(memory, paging, strict=access is not None)
    index = linear >> U(lv.shift) & U(lv.index_mask)
    out.code[lanes], out.physical[lanes] = codes[index], at[index]
    out.level[lanes] = np.where(codes <= Code.NOT_PRESENT, lv.level, 0)[index]
    through = np.flatnonzero(codes[index] == Code.OK)
    return through, values[index[through]] & U(lv.table_address)


def pdpte_registers(memory: PhysicalMemory, paging: Paging, *, strict: bool = True) -> tuple[Words, Small, Words]:
    """The four PDPTE registers, a `Code` for each, and where the missing bytes are for those that are unknown.

    Registers that were not loaded are loaded from memory, all or none of them, as MOV to CR3 does; not ``strict``: each
    by itself, for reserved bits and presence of the others do not count.
    """
    pdptes = paging.registers.pdptes
    at = np.zeros(4, np.uint64)
    if pdptes is None and not strict:
        at = np.arange(paging.root, paging.root + 32, 8, dtype=np.uint64)
        values, unknown = memory.gather(at)
    elif pdptes is None:
        loaded = load_pdptes(memory, paging.registers.cr3, paging.features)
        if not isinstance(loaded, tuple):
            found, missing = (Code.UNKNOWN, loaded.address) if isinstance(loaded, Unknown) else (Code.PDPTE_LOAD, 0)
            return at, np.full(4, found, np.uint8), at + U(missing)
        pdptes = loaded
    if pdptes is not None:
        values, unknown = np.array(pdptes, np.uint64), np.zeros(4, np.bool_)
    code = np.where(values & U(1) != 0, np.uint8(Code.OK), np.uint8(Code.NOT_PRESENT))
    code[unknown] = Code.UNKNOWN
    return values, code, np.where(unknown, at, U(0))
