"""Every leaf entry that one stage's tables hold, as bytes: what flags and memory types they have beside the rights."""

import msgspec
import numpy as np

from engine.arch.arrays import Code, Small, U, Words, classify, page_base, read_entries
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging

MOST_TABLES = 1 << 13
"""Tables of a level beyond that are not read."""


class Leaves(msgspec.Struct, frozen=True):
    """The leaf entries of one level: where they lie (byte addresses), what they hold, and the page each maps."""

    level: Level
    address: Words
    value: Words
    page: Words


def leaves(memory: PhysicalMemory, paging: Paging) -> list[Leaves]:
    """Level by level from the root; a table that is linked twice is read once. PAE's registers are not tables."""
    found: list[Leaves] = []
    levels = paging.levels[1:] if paging.pdptes_are_registers else paging.levels
    tables = np.array([paging.root], np.uint64)
    if paging.pdptes_are_registers:
        held = paging.registers.pdptes or ()
        tables = np.array([p & paging.levels[0].table_address for p in held if p & 1], np.uint64)
    for lv in levels:
        tables = np.unique(tables)[:MOST_TABLES]
        slots = np.arange(lv.entries, dtype=np.uint64) << U(lv.entry_shift)
        address = (tables[:, None] + slots).ravel()
        value, unknown = read_entries(memory, lv, address)
        code, leaf = classify(lv, value, unknown)
        good = code == Code.OK
        page = good & leaf
        found.append(Leaves(lv, address[page], value[page], page_base(lv, value[page])))
        tables = value[good & ~leaf] & U(lv.table_address)
        if not len(tables):
            break
    return found


def memory_types(rows: Leaves, pat: int) -> Small:
    """The encoding of the memory type that each leaf names: through register ``pat``, or EPT's own bits.

    The same as `memory_type.pat_type` and bits 5:3 of EPT, for arrays (SDM vol. 3A, 12.12.3; vol. 3C, 29.3.7.2).
    """
    lv, value = rows.level, rows.value
    if lv.present != 1:
        return (value >> U(3) & U(7)).astype(np.uint8)
    index = value >> U(3) & U(3) | (value >> U(7 if lv.page_shift == 12 else 12) & U(1)) << U(2)
    encodings = np.array([pat >> (8 * entry) & 7 for entry in range(8)], np.uint8)
    return encodings[index]
