"""The strips of the hierarchy show each entry as what it is by itself."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.occupancy import Slot, occupancy
from engine.arch.paging import Level, Paging, bind
from engine.arch.registers import CR0, CR4, EFER, Features, Mode, Registers
from engine.arch.tables import classify, entries
from engine.arch.walk import Rule
from engine.memory.physical import SparseMemory
from tests.engine.spaces import TABLES, random_space

LONG_MODE = Registers(cr0=CR0.PE | CR0.PG, cr3=0x1000, cr4=CR4.PAE, efer=EFER.LME | EFER.LMA | EFER.NXE)
PAGING = bind(LONG_MODE, Features())
MODES = [mode for mode in Mode if mode is not Mode.NONE]


@given(seed=st.integers(0, 1 << 32), mode=st.sampled_from(MODES))
def test_occupancy_is_what_each_entry_is_by_itself(seed: int, mode: Mode) -> None:
    space = random_space(seed, mode, pdptes=mode is Mode.PAE)
    memory, paging = space
    for lv in paging.levels[1:]:
        for pfn in range(1, TABLES + 2):
            table = pfn << 12
            flags = occupancy(memory, paging, lv, table).tolist()
            for index, value in enumerate(entries(memory, lv, table)):
                assert flags[index] == expected_flags(paging, lv, value), (lv.name, hex(table), index)


def expected_flags(paging: Paging, lv: Level, value: int | None) -> int:
    rule = classify(lv, value)
    if value is None:
        return Slot.UNKNOWN
    if rule not in (Rule.TABLE, Rule.PAGE):
        return Slot.PRESENT | Slot.RESERVED if rule is Rule.RESERVED else 0
    leaf = rule is Rule.PAGE
    flags = Slot.PRESENT | Slot.LEAF * leaf | Slot.WRITE * bool(value & 2) | Slot.USER * bool(value & 4)
    flags |= Slot.EXEC * (not (paging.setting.nxe and value >> 63))
    return flags | Slot.ACCESSED * bool(value & 0x20) | Slot.DIRTY * (leaf and bool(value & 0x40))


def test_occupancy_tells_which_slots_changed() -> None:
    before = SparseMemory().write(0x4000, bytes(4096)).with_words({0x4008: 0x9003})
    after = before.with_words({0x4008: 0x9007, 0x4FF8: 0xA003})
    flags = occupancy(after, PAGING, PAGING.level(1), 0x4000, before)
    assert np.flatnonzero(flags & Slot.CHANGED).tolist() == [1, 511]
    assert not np.any(occupancy(after, PAGING, PAGING.level(1), 0x4000) & Slot.CHANGED)
