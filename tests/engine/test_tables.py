"""Building tables: what is built is what the walker finds, and what cannot be built is refused with a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.faults import Translated
from engine.arch.formats import EPT4, EPT5, LEGACY, LEVEL4, LEVEL5, PAE
from engine.arch.paging import bind
from engine.arch.registers import CR4, EFER, Features, Registers
from engine.arch.rights import FETCH, WRITE
from engine.arch.second_stage import ept
from engine.arch.walk import Stage, Trail, descend, walk
from engine.errors import InputError
from engine.memory.physical import ZERO, SparseMemory
from engine.memory.tables import Range, frames_from, map_ranges
from tests.engine.nested_fixture import LONG, PG

ROOT = 0x1000
MODES = {
    LEGACY: {"cr0": PG, "cr4": int(CR4.PSE)},
    PAE: {"cr0": PG, "cr4": int(CR4.PAE), "efer": int(EFER.NXE)},
    LEVEL4: LONG,
    LEVEL5: {**LONG, "cr4": int(CR4.PAE | CR4.LA57)},
}
CHOICES = [(fmt, 1 << lv.page.page_shift) for fmt in MODES for lv in fmt.levels if lv.page]


def built(fmt, *ranges):
    return map_ranges(SparseMemory(ZERO), fmt, ROOT, ranges, frames_from(0x2000))


@given(
    choice=st.sampled_from(CHOICES),
    slot=st.integers(0, 200),
    target=st.integers(0, 200),
    write=st.booleans(),
    user=st.booleans(),
    execute=st.booleans(),
)
def test_the_walker_finds_what_was_mapped(choice, slot, target, write, user, execute):
    fmt, page = choice
    address = (slot * page * 3) % (1 << (fmt.width - 1)) // page * page
    execute = execute or fmt is LEGACY  # 32-bit tables cannot forbid a fetch
    wanted = Range(
        address=address, target=target * page, size=page, page_size=page, write=write, user=user, execute=execute
    )
    if wanted.target + page > 1 << (32 if fmt is LEGACY and page == 4096 else 40):
        return
    memory = built(fmt, wanted)
    paging = bind(Registers(**MODES[fmt], cr3=ROOT), Features(maxphyaddr=40))
    outcome = walk(memory, paging, address + 0x123).outcome
    assert isinstance(outcome, Translated)
    assert (outcome.address, outcome.page_size) == (wanted.target + 0x123, page)
    rights = outcome.rights
    assert (rights.write, rights.user, rights.execute) == (write, user, execute)
    assert walk(memory, paging, address, WRITE).ok == write
    assert walk(memory, paging, address, FETCH).ok == execute


@pytest.mark.parametrize("fmt", [EPT4, EPT5], ids=lambda f: f.name)
@pytest.mark.parametrize("page", [4096, 2 << 20, 1 << 30])
def test_ept_leaves_carry_rights_and_a_memory_type(fmt, page):
    memory = built(fmt, Range(address=page, target=5 * page, size=page, page_size=page, write=False, memory_type=0))
    second = ept(ROOT | 6 | (len(fmt.levels) - 1) << 3, 52)
    leaf = descend(Trail(memory), second.paging.levels, ROOT, page + 7, second.table, Stage.NESTED)
    assert leaf.address == 5 * page + 7
    assert leaf.every & 0b111 == 0b101
    assert leaf.value >> 3 & 7 == 0


def test_tables_that_exist_are_extended():
    first = built(LEVEL4, Range(address=0x1000, target=0x5000, size=0x1000))
    both = map_ranges(first, LEVEL4, ROOT, [Range(address=0x2000, target=0x6000, size=0x1000)], frames_from(0x9000))
    paging = bind(Registers(**LONG, cr3=ROOT), Features())
    assert [walk(both, paging, a).outcome.address for a in (0x1000, 0x2000)] == [0x5000, 0x6000]


REFUSED = [
    ("unaligned address", LEVEL4, {"address": 0x1800, "target": 0, "size": 0x1000}, "multiple of the page size"),
    ("unaligned target", LEVEL4, {"address": 0, "target": 0x1000, "size": 2 << 20, "page_size": 2 << 20}, "target"),
    ("empty", LEVEL4, {"address": 0, "target": 0, "size": 0}, "size"),
    ("no such page", PAE, {"address": 0, "target": 0, "size": 1 << 30, "page_size": 1 << 30}, "no pages of 1 GiB"),
    ("not canonical", LEVEL4, {"address": 1 << 50, "target": 0, "size": 0x1000}, "out of the reach"),
    ("above 4 GiB", PAE, {"address": 1 << 32, "target": 0, "size": 0x1000}, "out of the reach"),
    ("no keys", PAE, {"address": 0, "target": 0, "size": 0x1000, "key": 3}, "no protection keys"),
]


@pytest.mark.parametrize(("name", "fmt", "wanted", "sentence"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_mapped_is_refused_with_a_sentence(name, fmt, wanted, sentence):
    with pytest.raises(InputError, match=sentence):
        built(fmt, Range(**wanted))


def test_overlaps_are_refused():
    small, large = Range(address=0, target=0, size=0x1000), Range(address=0, target=0, size=2 << 20, page_size=2 << 20)
    for pair in ((small, small), (small, large), (large, small)):
        with pytest.raises(InputError, match="mapped already"):
            built(LEVEL4, *pair)
