"""The rules of `walk`, for arrays of entries: what an entry is, what rights a walk leaves, whether they suffice.

Made from the same bound levels and compiled checks. Everything is uint64: nothing signed is ever mixed in, for numpy
would turn both into floats.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from engine.arch.bits import U64, bit
from engine.arch.faults import Unknown
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging
from engine.arch.registers import CR4, load_pdptes
from engine.arch.rights import KEY_LO, US, Check

U = np.uint64
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Small = NDArray[np.uint8]
RightsColumn = NDArray[np.uint16]
Index = NDArray[np.int64]


class Code(IntEnum):
    """How a translation ended. The explaining walker tells the rest of such an address."""

    OK = 0
    NOT_PRESENT = 1
    RESERVED = 2
    RIGHTS = 3
    KEY = 4
    """Rights, and a protection key's among those that lack."""
    UNKNOWN = 5
    NON_CANONICAL = 6
    LASS = 7
    PDPTE_LOAD = 8
    """#GP: a PDPTE that CR3 loads has reserved bits set."""
    MISCONFIGURED = 9
    REPEATED = 10
    """Of a range: its tables have been enumerated at another address."""
    LIMIT = 11
    """Of a range: not enumerated, for there was too much before it."""


class Right:
    """The bits of a column of rights; plain numbers, which arrays take. R, W and U stand where P, R/W and U/S do."""

    R, W, U, X, G = 1, 2, 4, 8, 16
    KEY_SHIFT = 8
    """The protection key, where keys are on, is in bits 11:8."""
    ALL = R | W | U | X
    """Without paging."""


def read_entries(memory: PhysicalMemory, level: Level, addresses: Words) -> tuple[Words, Flags]:
    """The entries of ``level`` at byte ``addresses`` (0 where unknown), and a mask of the unknown ones."""
    if level.entry_shift == 3:
        return memory.gather(addresses)
    words, unknown = memory.gather(addresses & U(U64 ^ 7))
    return words >> ((addresses & U(4)) << U(3)) & U(0xFFFF_FFFF), unknown


def read_tables(memory: PhysicalMemory, lv: Level, tables: Words) -> tuple[Words, Flags]:
    """All entries of the tables at byte addresses ``tables``, table after table, and a mask of the unknown ones."""
    words = lv.entries >> (3 - lv.entry_shift)
    at = tables[:, None] + np.arange(words, dtype=np.uint64) * U(8)
    values, unknown = memory.gather(at.ravel())
    if lv.entry_shift == 3:
        return values, unknown
    return values.view(np.uint32).astype(np.uint64), np.repeat(unknown, 2)


def classify(level: Level, values: Words, unknown: Flags, *, strict: bool = True) -> tuple[Small, Flags]:
    """`Code` of each entry as far as it alone decides, and which are leaves. Not ``strict``: presence alone counts."""
    code = np.zeros(len(values), np.uint8)
    leaf = values & U(level.leaf) != 0
    if strict:
        code[values & np.where(leaf, U(level.page_reserved), U(level.table_reserved)) != 0] = Code.RESERVED
        for rules, kind in ((level.page_illegal, leaf), (level.table_illegal, ~leaf)):
            for rule in rules:
                code[kind & (values & U(rule.mask) == rule.value)] = Code.MISCONFIGURED
    code[values & U(level.present) == 0] = Code.NOT_PRESENT
    code[unknown] = Code.UNKNOWN
    return code, leaf


def allowed(check: Check, every: Words, some: Words, tables: Words, leaf: Words) -> Small:
    """`Check.allows` as codes: OK, RIGHTS or KEY. The arguments are those of `Check.allows`."""
    good = every & U(check.need) == check.need
    if check.deny_all:
        good &= every & U(check.deny_all) == 0
    if check.deny_any:
        good &= some & U(check.deny_any) == 0
    if check.shadow_stack:
        good &= tables & U(check.table_need) == check.table_need
        good &= leaf & U(check.leaf_need | check.leaf_deny) == check.leaf_need
    code = np.where(good, np.uint8(Code.OK), np.uint8(Code.RIGHTS))
    if check.keyed:
        denied = np.where(every & U(US) != 0, U(check.denied_keys_user), U(check.denied_keys_supervisor))
        code[denied >> (leaf >> U(KEY_LO) & U(0xF)) & U(1) != 0] = Code.KEY
    return code


def combined_rights(paging: Paging, every: Words, some: Words, leaf: Words) -> RightsColumn:
    """`rights.combined` as `Right` bits."""
    assert paging.format is not None
    bits = paging.format.rights
    out = np.zeros(len(every), np.uint64)
    for right, given_by in ((Right.R, bits.read), (Right.W, bits.write), (Right.U, bits.user), (Right.X, bits.execute)):
        out |= _moved(every, given_by, right) if given_by else U(right)
    if paging.setting.nxe and bits.no_execute:
        out &= ~_moved(some, bits.no_execute, Right.X)
    if paging.registers.cr4 & CR4.PGE:
        out |= _moved(leaf, bit(8), Right.G)
    if paging.setting.keys:
        out |= leaf >> U(KEY_LO - Right.KEY_SHIFT) & U(0xF << Right.KEY_SHIFT)
    return out.astype(np.uint16)


def _moved(values: Words, source: int, target: int) -> Words:
    """Bit ``source`` of ``values`` in the place of bit ``target``, alone."""
    down = source.bit_length() - target.bit_length()
    return (values & U(source)) >> U(down) if down >= 0 else (values & U(source)) << U(-down)


def page_base(level: Level, values: Words) -> Words:
    """The physical byte address of the page that each leaf of ``level`` maps."""
    base = values & U(level.page_address)
    return base | (values & U(level.high)) << U(level.high_shift) if level.high else base


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
