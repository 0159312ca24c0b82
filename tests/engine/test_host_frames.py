"""The frame allocator: from a seed, a function of what is free, room for large blocks; and the world that uses it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.host.frames import Frames, Owner, Region, Use
from engine.host.world import Oops, UnknownBytes, World
from engine.memory.physical import SparseMemory, Zeros
from tests.engine.kvm_fixture import GIB, MIB

PAGE = Owner(Use.GUEST_PAGE)
RAM = ((0, 64 * MIB),)
HOLED = ((0, 2 * MIB), (16 * MIB, 80 * MIB), (4 * GIB, 4 * GIB + 6 * MIB))


def world(ram: tuple[tuple[int, int], ...] = RAM, seed: int = 1) -> World:
    return World(SparseMemory(Zeros(ram)), Frames(ram=ram, seed=seed))


@pytest.mark.parametrize("ram", [RAM, HOLED])
@pytest.mark.parametrize("seed", [0, 1, 7, 2**64 - 1])
def test_every_frame_of_ram_is_given_once_and_then_none(ram: tuple[tuple[int, int], ...], seed: int) -> None:
    host = world(ram, seed)
    total = host.frames.total
    given_out = {host.take(PAGE) for _ in range(total)}
    assert len(given_out) == total
    assert all(any(start <= hpa < end for start, end in ram) for hpa in given_out)
    with pytest.raises(InputError, match="RAM is full"):
        host.take(PAGE)


def test_a_seed_always_gives_the_same_order_and_another_seed_another() -> None:
    first, again, other = ([host.take(PAGE) for _ in range(99)] for host in (world(), world(), world(seed=2)))
    assert first == again
    assert first != other


def test_small_pages_are_scattered_and_leave_room_for_large_ones() -> None:
    host = world(((0, 4 * GIB),))
    taken = [host.take(PAGE) for _ in range(10_000)]
    assert sum(b - a == 4096 for a, b in pairwise(taken)) < 10
    for _ in range(300):
        assert host.allocate_block(2 * MIB, PAGE) % (2 * MIB) == 0
    assert host.allocate_block(GIB, PAGE) % GIB == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 99)), max_size=60))
def test_the_next_frame_depends_on_what_is_free_alone(steps: list[tuple[bool, int]]) -> None:
    """However frames were taken and given back, a fresh allocator with the same ones free gives the same next."""
    host = world()
    held: list[int] = []
    for take, which in steps:
        if take or not held:
            held.append(host.take(PAGE))
        else:
            host.free(held.pop(which % len(held)))
    fresh = world()
    order = [fresh.take(PAGE) for _ in range(len(held) + 1)]
    expected = next(hpa for hpa in order if hpa not in held)
    assert host.take(PAGE) == expected


def test_a_region_is_given_back_whole_or_in_part() -> None:
    host = world()
    host.reserve(8 * MIB, 4 * MIB, Owner(Use.GUEST_PAGE, vm=1, gfn=100))
    host.free(9 * MIB, 2 * MIB)
    assert host.frames.regions == (
        Region(8 * MIB >> 12, 9 * MIB >> 12, Owner(Use.GUEST_PAGE, vm=1, gfn=100)),
        Region(11 * MIB >> 12, 12 * MIB >> 12, Owner(Use.GUEST_PAGE, vm=1, gfn=100 + (3 * MIB >> 12))),
    )
    assert host.owner(9 * MIB) is None
    assert host.owner(11 * MIB) == Owner(Use.GUEST_PAGE, vm=1, gfn=100 + (3 * MIB >> 12))


@pytest.mark.parametrize(
    ("start", "size", "says"),
    [(1, 4096, "whole number"), (63 * MIB, 2 * MIB, "not in the host's RAM"), (8 * MIB, MIB, "in use already")],
)
def test_what_cannot_be_reserved(start: int, size: int, says: str) -> None:
    host = world()
    host.reserve(8 * MIB, MIB, PAGE)
    with pytest.raises(InputError, match=says):
        host.reserve(start, size, PAGE)


def test_what_is_allocated_is_zero_whatever_was_there() -> None:
    host = world()
    page = host.allocate(PAGE)
    host.write_word(page + 8, 0x1234)
    host.free(page)
    assert host.word(page + 8) == 0x1234  # nobody clears what is given back
    assert host.allocate(PAGE) == page
    assert host.word(page + 8) == 0
    block = host.allocate_block(2 * MIB, PAGE)
    host.write_word(block + MIB, 5)
    host.free(block, 2 * MIB)
    host.reserve(block, 2 * MIB, PAGE)
    assert host.word(block + MIB) == 0


def test_the_kernel_cannot_read_what_is_not_there() -> None:
    host = world()
    with pytest.raises(Oops, match="not RAM"):
        host.word(1 << 40)
    host.memory = host.memory.with_frames_of(SparseMemory(), {5: 5})
    with pytest.raises(UnknownBytes):
        host.word(5 << 12)
