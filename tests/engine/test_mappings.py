"""The enumeration of an address space says of every address what a walk says, whatever its tables look like."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch import layers
from engine.arch import mappings as enumeration
from engine.arch.arrays import Code, Right
from engine.arch.bits import U64, bit
from engine.arch.faults import Unknown
from engine.arch.mappings import Mappings, mappings, nearest, stream
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR3_LAM_U48, CR3_LAM_U57, CR4, EFER, Features, Mode, Registers
from engine.arch.walk import Rule, walk
from engine.memory.physical import SparseMemory
from tests.engine.spaces import Space, random_addresses, random_space

SEEDS = st.integers(0, 1 << 32)
PAGED = [(mode, False) for mode in Mode] + [(Mode.PAE, True)]
LONG_MODE = Registers(cr0=CR0.PE | CR0.PG, cr3=0x1000, cr4=CR4.PAE, efer=EFER.LME | EFER.LMA | EFER.NXE)
PAGING = bind(LONG_MODE, Features())


def plain(space: Space) -> Space:
    """Without LAM and LASS, which are no matter of tables."""
    old = space.paging.registers
    new = msgspec.structs.replace(
        old, cr3=old.cr3 & ~(CR3_LAM_U48 | CR3_LAM_U57), cr4=old.cr4 & ~(CR4.LAM_SUP | CR4.LASS)
    )
    return Space(space.memory, bind(new, space.paging.features))


def walked(space: Space, address: int) -> tuple[Code, int, int, int] | None:
    """What there is at an address: code, where it points, page shift and rights; None: it is not canonical."""
    one = walk(space.memory, space.paging, address)
    if not one.steps:
        match one.outcome:
            case Unknown(at):
                return Code.UNKNOWN, at, 0, 0
        if space.paging.format is None:
            return Code.OK, address & 0xFFFF_FFFF, 0, Right.ALL
        return (Code.PDPTE_LOAD, 0, 0, 0) if space.paging.mode is Mode.PAE else None
    last = one.steps[-1]
    if last.rule in (Rule.PAGE, Rule.DENIED):
        r = one.rights_after(len(one.steps) - 1)
        rights = Right.R * r.read | Right.W * r.write | Right.U * r.user | Right.X * r.execute | Right.G * r.global_
        assert last.base is not None
        shift = last.level.page_shift
        return Code.OK, last.base | address & ((1 << shift) - 1), shift, rights | (r.key or 0) << Right.KEY_SHIFT
    codes = {Rule.NOT_PRESENT: Code.NOT_PRESENT, Rule.RESERVED: Code.RESERVED, Rule.UNKNOWN: Code.UNKNOWN}
    return codes[last.rule], last.address or 0, 0, 0


def listed(found: Mappings, address: int) -> tuple[int, int, int, int]:
    """What `Mappings` has at an address; of a gap only the code."""
    row = int(np.searchsorted(found.va, np.uint64(address), side="right")) - 1
    if row >= 0 and address <= int(found.last[row]):
        offset = address - int(found.va[row])
        return Code.OK, int(found.pa[row]) + offset, int(found.page_shift[row]), int(found.rights[row])
    gaps = found.gaps
    row = int(np.searchsorted(gaps.va, np.uint64(address), side="right")) - 1
    if row < 0 or address - int(gaps.va[row]) >= int(gaps.size[row]):
        return Code.NOT_PRESENT, 0, 0, 0
    if gaps.code[row] == Code.REPEATED:
        inside = (address - int(gaps.va[row])) & ((1 << int(gaps.shift[row])) - 1)
        return listed(found, int(gaps.at[row]) + inside)
    return int(gaps.code[row]), 0, 0, 0


def places(found: Mappings) -> Iterator[int]:
    """Both sides of both ends of every run."""
    for va, size in (
        *zip(found.va.tolist(), found.size.tolist(), strict=True),
        *zip(found.gaps.va.tolist(), found.gaps.size.tolist(), strict=True),
    ):
        yield from ((va - 1) & U64, va, va + size - 1, (va + size) & U64)


def assert_agrees(space: Space, found: Mappings, seed: int) -> None:
    for address in (*random_addresses(seed, space.paging, 100).tolist(), *list(places(found))[:200]):
        expected = walked(space, address)
        if expected is None or (not space.paging.mode.is_long and address >> 32):
            continue
        got = listed(found, address)
        assert got == (expected if expected[0] is Code.OK else (expected[0], 0, 0, 0)), hex(address)


@pytest.mark.parametrize(("mode", "pdptes"), PAGED)
@given(seed=SEEDS)
def test_equal_to_the_explaining_walker_everywhere(seed: int, mode: Mode, pdptes: bool) -> None:
    space = plain(random_space(seed, mode, pdptes=pdptes))
    found = mappings(space.memory, space.paging)
    assert_agrees(space, found, seed)
    assert not np.any(found.va[1:] <= found.last[:-1]), "sorted, and none overlaps"


@pytest.mark.parametrize("mode", [Mode.LEVEL4, Mode.LEVEL5])
@given(seed=SEEDS)
def test_repeated_tables_stand_for_what_they_repeat(seed: int, mode: Mode) -> None:
    space = plain(random_space(seed, mode))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enumeration, "MOST_PLACED", 50)
        found = mappings(space.memory, space.paging)
    assert_agrees(space, found, seed)


@given(seed=SEEDS)
def test_blocks_and_chunks_of_any_size_give_the_same(seed: int) -> None:
    space = plain(random_space(seed, Mode.LEVEL4))
    whole = mappings(space.memory, space.paging)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enumeration, "BLOCK_ROWS", 7)
        patch.setattr(layers, "CHUNK", 1024)
        blocks = list(stream(space.memory, space.paging))
    for name in ("va", "pa", "size", "page_shift", "rights"):
        assert np.concatenate([getattr(block, name) for block in blocks]).tolist() == getattr(whole, name).tolist()
    for name in ("va", "size", "code", "at", "shift"):
        parts = [getattr(block.gaps, name) for block in blocks]
        assert np.concatenate(parts).tolist() == getattr(whole.gaps, name).tolist()


def test_a_root_that_maps_only_itself_ends() -> None:
    memory = SparseMemory().write(0x1000, (0x1000 | 3).to_bytes(8, "little") * 512)
    found = mappings(memory, PAGING)
    assert Code.REPEATED in found.gaps.code
    # As a page table it maps itself 512 times, from address 0 on; all the rest is the same again.
    assert found.pa[:512].tolist() == [0x1000] * 512
    pages, repeated = int(found.size.sum()), int(found.gaps.size.sum())
    assert pages + repeated == 1 << 48
    assert listed(found, 0xFFFF_FFFF_FFFF_F123) == (Code.OK, 0x1123, 12, Right.R | Right.W | Right.X)


def test_one_recursive_slot_shows_every_table_as_a_page() -> None:
    tables = {0x1000: {0: 0x2003, 510: 0x1003}, 0x2000: {0: 0x3003}, 0x3000: {0: 0x4003}, 0x4000: {5: 0x9003}}
    memory = SparseMemory()
    for at, entries in tables.items():
        memory = memory.write(at, bytes(4096)).with_words({at + 8 * slot: entry for slot, entry in entries.items()})
    found = mappings(memory, PAGING)
    recursive = found.va >= np.uint64(bit(63))
    assert sorted(found.pa[recursive].tolist()) == [0x1000, 0x2000, 0x3000, 0x4000]
    assert len(found.gaps) == 0


def test_runs_are_told_apart_by_rights_page_size_and_frame() -> None:
    pages = [0x8003, 0x9003, 0xA001, 0xC001, 0xD001 | bit(63)]
    memory = SparseMemory()
    for at, entries in {0x1000: [0x2003], 0x2000: [0x3003], 0x3000: [0x4003, 0x20_0083], 0x4000: pages}.items():
        data = b"".join(entry.to_bytes(8, "little") for entry in entries)
        memory = memory.write(at, data.ljust(4096, b"\0"))
    found = mappings(memory, PAGING)
    rows = zip(found.va.tolist(), found.pa.tolist(), found.size.tolist(), found.page_shift.tolist(), strict=True)
    assert list(rows) == [
        (0x0000, 0x8000, 0x2000, 12),
        (0x2000, 0xA000, 0x1000, 12),
        (0x3000, 0xC000, 0x1000, 12),
        (0x4000, 0xD000, 0x1000, 12),
        (0x20_0000, 0x20_0000, 0x20_0000, 21),
    ]


def test_tables_that_the_memory_does_not_hold_are_gaps_of_their_whole_range() -> None:
    memory = SparseMemory().write(0x1000, (0x7777_7003).to_bytes(8, "little") + bytes(4088))
    gaps = mappings(memory, PAGING).gaps
    assert (gaps.va.tolist(), gaps.size.tolist()) == ([0], [1 << 39])
    assert (gaps.code.tolist(), gaps.at.tolist()) == ([Code.UNKNOWN], [0x7777_7000])


def test_the_nearest_runs_of_an_address() -> None:
    memory = SparseMemory()
    for at, entry in {0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003}.items():
        memory = memory.write(at, entry.to_bytes(8, "little") + bytes(4088))
    memory = memory.write(0x4000, bytes(4096)).with_words({0x4010: 0x9003, 0x4028: 0xA003})
    found = mappings(memory, PAGING)
    assert nearest(found, 0x1FFF) == (None, 0)
    assert nearest(found, 0x2ABC) == (0, 0)
    assert nearest(found, 0x3000) == (0, 1)
    assert nearest(found, U64) == (1, None)


def test_progress_never_goes_back_and_a_raise_cancels() -> None:
    space = plain(random_space(7, Mode.LEVEL5))
    told: list[float] = []
    mappings(space.memory, space.paging, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    class Cancelled(Exception):
        pass

    def cancel(done: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        mappings(space.memory, space.paging, progress=cancel)


def test_what_lies_beyond_the_limit_is_said_to_be_left_out() -> None:
    space = plain(random_space(3, Mode.LEVEL4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "MOST_ROWS", 10)
        patch.setattr(layers, "CHUNK", 512)
        found = mappings(space.memory, space.paging)
    assert Code.LIMIT in found.gaps.code
    for address in random_addresses(3, space.paging, 300).tolist():
        expected, got = walked(space, address), listed(found, address)
        assert expected is None or got[0] in (expected[0], Code.LIMIT)
