"""The rules of `walk`, for arrays of entries: what an entry is, what rights a walk leaves, whether they suffice.

Made from the same bound levels and compiled checks. Everything is uint64: nothing signed is ever mixed in, for numpy
would turn both into floats.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from engine.arch.bits import U64
from engine.arch.faults import Unknown
from engine.arch.memory import PhysicalMemory
from engine.arch.memory import Words as WordMemory
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
    """How a translation ended; `ON_ENTRY` or `ON_PAGE` may be added. The explaining walker tells the rest."""

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


OK, NOT_PRESENT, UNKNOWN = (np.uint8(code) for code in (Code.OK, Code.NOT_PRESENT, Code.UNKNOWN))
"""To compare columns with: numpy takes a member of an enum for a 64-bit number, and widens the column to that."""
ON_ENTRY, ON_PAGE = 0x40, 0x80
"""Added to a code that the second stage gave, for a guest's entry or for the page itself."""


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


def plain(level: Level, leaves: Words, *, strict: bool = True) -> Flags:
    """Which of the ``leaves`` are surely present and free of reserved bits, at a glance."""
    if level.page_illegal or level.present & (level.present - 1):
        return np.zeros(len(leaves), np.bool_)
    good: Flags = leaves & U(level.present | (level.page_reserved if strict else 0)) == level.present
    return good


def classify(level: Level, values: Words, unknown: Flags, *, strict: bool = True) -> tuple[Small, Flags]:
    """`Code` of each entry as far as it alone decides, and which are leaves. Not ``strict``: presence alone counts."""
    leaf = values & U(level.leaf) != 0
    # Numbers are added and multiplied: choosing by a mask without a pattern costs ten times as much.
    absent = values & U(level.present) == 0
    code = absent * np.uint8(Code.NOT_PRESENT)
    if strict:
        table, page = U(level.table_reserved), U(level.page_reserved)
        reserved = values & (page if level.format.table is None else np.where(leaf, page, table)) != 0
        bad = reserved * np.uint8(Code.RESERVED)
        for rules, kind in ((level.page_illegal, leaf), (level.table_illegal, ~leaf)):
            for rule in rules:
                hit = kind & (values & U(rule.mask) == rule.value)
                np.maximum(bad, hit * np.uint8(Code.MISCONFIGURED), out=bad)
        code += bad * ~absent
    if unknown.any():
        code[unknown] = Code.UNKNOWN
    return code, leaf


# --- rights
#
# The rights that an entry gives are packed below bit 12, where a table's address is 0: R/W and U/S, or R, W, X and XU
# of EPT, in their own places, and in bit 3 that XD is clear. So a walk has the AND of the rights of its entries.

IN_PLACE, EXECUTE = 0x407, 1 << 3
ALL_RIGHTS = IN_PLACE | EXECUTE


def packed_rights(entries: Words) -> Words:
    """The packed rights of each entry."""
    return entries & U(IN_PLACE) | (entries >> U(60) & U(EXECUTE) ^ U(EXECUTE))


def packed(bits: int) -> int:
    """Where the bits of an entry that give rights (and XD, which takes one) are in packed rights."""
    return bits & IN_PLACE | bits >> 60 & EXECUTE


def denied(check: Check, granted: Words, above: Words, leaf: Words) -> tuple[Flags, Flags | None]:
    """Where `Check.allows` says no, and where a protection key is among the reasons (None: nowhere).

    ``granted``: the packed rights of all entries; ``above``: of those above the leaf; ``leaf``: the leaves.
    """
    need = packed(check.need | check.deny_any)
    no = granted & U(need | packed(check.deny_all)) != need
    if check.shadow_stack:
        no |= above & U(packed(check.table_need)) != packed(check.table_need)
        no |= leaf & U(check.leaf_need | check.leaf_deny) != check.leaf_need
    if not check.keyed:
        return no, None
    keys = np.where(granted & U(US) != 0, U(check.denied_keys_user), U(check.denied_keys_supervisor))
    key = keys >> (leaf >> U(KEY_LO) & U(0xF)) & U(1) != 0
    return no | key, key


def combined_rights(paging: Paging, granted: Words, leaf: Words) -> RightsColumn:
    """`rights.combined` as `Right` bits. ``granted``: the packed rights of all entries."""
    assert paging.format is not None
    bits = paging.format.rights
    execute = bits.execute or (bits.no_execute if paging.setting.nxe else 0)
    sources = ((Right.R, bits.read), (Right.W, bits.write), (Right.U, bits.user), (Right.X, execute))
    given = {right: packed(bits_of_entry) for right, bits_of_entry in sources}
    rights = granted.astype(np.uint16)
    out = rights & np.uint16(sum(right for right in given if given[right] == right))
    out |= np.uint16(sum(right for right in given if not given[right]))
    for right, source in given.items():
        if source not in (0, right):
            out |= (rights & np.uint16(source) != 0) * np.uint16(right)
    if paging.registers.cr4 & CR4.PGE:
        out |= (leaf >> U(4)).astype(np.uint16) & np.uint16(Right.G)
    if paging.setting.keys:
        out |= (leaf >> U(KEY_LO - Right.KEY_SHIFT)).astype(np.uint16) & np.uint16(0xF << Right.KEY_SHIFT)
    return out


def page_base(level: Level, values: Words) -> Words:
    """The physical byte address of the page that each leaf of ``level`` maps."""
    base = values & U(level.page_address)
    return base | (values & U(level.high)) << U(level.high_shift) if level.high else base


def pdpte_registers(memory: WordMemory, paging: Paging, *, strict: bool = True) -> tuple[Words, Small, Words]:
    """The four PDPTE registers, a `Code` for each, and where the missing bytes are for those that are unknown.

    Registers that were not loaded are loaded from memory, all or none of them, as MOV to CR3 does; not ``strict``: each
    by itself, for reserved bits and presence of the others do not count.
    """
    found: tuple[int | None, ...] | None = paging.registers.pdptes
    addresses = range(paging.root, paging.root + 32, 8)
    if found is None and strict:
        loaded = load_pdptes(memory, paging.registers.cr3, paging.features)
        if not isinstance(loaded, tuple):
            why, missing = (Code.UNKNOWN, loaded.address) if isinstance(loaded, Unknown) else (Code.PDPTE_LOAD, 0)
            return np.zeros(4, np.uint64), np.full(4, why, np.uint8), np.full(4, missing, np.uint64)
        found = loaded
    elif found is None:
        found = tuple(memory.word(address) for address in addresses)
    codes = [Code.UNKNOWN if value is None else Code.OK if value & 1 else Code.NOT_PRESENT for value in found]
    missed = [address if value is None else 0 for value, address in zip(found, addresses, strict=True)]
    return np.array([value or 0 for value in found], np.uint64), np.array(codes, np.uint8), np.array(missed, np.uint64)
