"""What an entry is by itself: the answer of one entry at a time is that of the array walker."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch import formats
from engine.arch.arrays import Code
from engine.arch.arrays import classify as classify_many
from engine.arch.formats import Format, Setting
from engine.arch.paging import Level, bind_levels
from engine.arch.tables import Run, classify, entries, entry_value, runs
from engine.arch.walk import Rule
from engine.memory.physical import ZERO, SparseMemory

FORMATS = (formats.LEGACY, formats.PAE, formats.LEVEL4, formats.LEVEL5, formats.EPT4, formats.EPT5)
CODES = {
    Rule.NOT_PRESENT: Code.NOT_PRESENT,
    Rule.RESERVED: Code.RESERVED,
    Rule.MISCONFIGURED: Code.MISCONFIGURED,
    Rule.TABLE: Code.OK,
    Rule.PAGE: Code.OK,
}
settings = st.builds(
    Setting,
    maxphyaddr=st.integers(36, 52), nxe=st.booleans(), pse=st.booleans(), pse36=st.booleans(), page1gb=st.booleans(),
    amd_bit8=st.booleans(), execute_only=st.booleans(), page2mb=st.booleans(), mbec=st.booleans(),
)  # fmt: skip
LEVEL4 = bind_levels(formats.LEVEL4, Setting())
LEGACY = bind_levels(formats.LEGACY, Setting(pse=True))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
@given(setting=settings, data=st.data())
def test_one_entry_is_judged_as_many_are(fmt: Format, setting: Setting, data: st.DataObject) -> None:
    level = data.draw(st.sampled_from(bind_levels(fmt, setting)))
    width = (1 << (8 << level.entry_shift)) - 1
    values = data.draw(st.lists(st.integers(0, width) | st.sampled_from([0, 1, 7, 0x83, 0x87]), min_size=1))
    array = np.array(values, np.uint64)
    codes, leaf = classify_many(level, array, np.zeros(len(values), np.bool_))
    for value, code, is_leaf in zip(values, codes, leaf, strict=True):
        rule = classify(level, value)
        assert CODES[rule] == code
        if rule in (Rule.TABLE, Rule.PAGE):
            assert (rule is Rule.PAGE) == bool(is_leaf)


@given(st.lists(st.sampled_from([0, 0x2007, 0x87, 0x2087, None]), min_size=1, max_size=40))
def test_runs_tell_every_slot_once(values: list[int | None]) -> None:
    level = LEVEL4[2]
    found = runs(level, values)
    slots = [(slot, run.rule) for run in found for slot in range(run.first, run.last + 1)]
    assert slots == [(slot, classify(level, value)) for slot, value in enumerate(values)]
    assert all(a.rule is not b.rule for a, b in itertools.pairwise(found))


def table_of(level: Level, words: dict[int, int], table: int) -> list[int | None]:
    return entries(SparseMemory(ZERO).with_words(words), level, table)


def test_a_table_of_4_byte_entries_has_two_in_a_word() -> None:
    table = table_of(LEGACY[0], {0x1000: 0x2222_2222_1111_1111}, 0x1000)
    assert table[:3] == [0x1111_1111, 0x2222_2222, 0]
    assert len(table) == 1024


def test_a_pae_root_is_four_entries_inside_a_frame() -> None:
    root = bind_levels(formats.PAE, Setting())[0]
    assert table_of(root, {0x1020: 5, 0x1038: 7}, 0x1020) == [5, 0, 0, 7]


def test_unknown_bytes_are_none_and_the_known_ones_beside_them_are_read() -> None:
    memory = SparseMemory().write(0x1008, (0x2007).to_bytes(8, "little"))
    level = LEVEL4[0]
    table = entries(memory, level, 0x1000)
    assert table[:3] == [None, 0x2007, None]
    assert entry_value(memory, level, 0x1008) == 0x2007
    assert runs(level, table)[:2] == [Run(0, 0, Rule.UNKNOWN), Run(1, 1, Rule.TABLE)]
