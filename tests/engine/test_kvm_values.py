"""Tables built in one depth and walked in the other: the reference values and the algebra of it, out of bytes.

Reference page, sections 9.3 and 9.7. KVM builds the tables (4-KiB, 2-MiB or 1-GiB leaves over contiguous memory), the
pCPU of the vCPU then walks them in the other mode.
"""

import random
from functools import cache
from typing import Literal

import pytest

from engine import events as ev
from engine.arch.faults import NestedPageFault, Reason, Translated
from engine.host.frames import Use
from engine.kvm.memslots import Pages
from engine.machine import Configuration, State
from tests.engine.kvm_fixture import GIB, MIB, VM, after, amd, booted, play, slot, to, vm, walked

Case = Literal["A", "B"]
RESERVED, ABSENT = Reason.RESERVED, Reason.NOT_PRESENT
SMALL, LARGE, HUGE = Pages.SMALL, Pages.HUGE_2M, Pages.HUGE_1G


@cache
def mismatched(case: Case, pages: Pages, size: int, hpa: int) -> State:
    """A: built with 4 levels, walked with 5. B: the reverse. GPA 0 .. ``size`` is at ``hpa``, all of it mapped."""
    built = play(*booted(amd(48), five=case == "B", ram=16 * GIB), *VM, slot(0, size, pages, at=hpa), ev.Populate())
    return after(built, to(case == "A"), ev.MoveVcpu(1))


def told(case: Case, pages: Pages, size: int, hpa: int, g: int) -> tuple[str, int]:
    """What the hardware makes of ``g``: ("page", HPA), ("table", HPA) where that is one of KVM's, or a fault's reason
    and level."""
    state = mismatched(case, pages, size, hpa)
    walk = walked(state, g)
    match walk.outcome:
        case Translated(address=address):
            assert state.host is not None
            owner = state.host.frames.owner(address >> 12)
            return "table" if owner and owner.use is Use.KVM_TABLE else "page", address
        case NestedPageFault(reason=reason):
            return reason.value, walk.steps[-1].level.level
    raise AssertionError(walk.outcome)


@pytest.mark.parametrize(
    ("case", "pages", "size", "hpa", "g", "expected"),
    [
        ("A", LARGE, 1 * GIB, 0x8000_0000, 0x1000, ("page", 0x8000_1000)),  # right, by coincidence
        ("A", LARGE, 1 * GIB, 0x8000_0000, 0x4000_0000, ("reserved bit", 3)),
        ("A", LARGE, 1 * GIB, 0x8000_0000, 0x80_0000_0000, ("not present", 4)),
        ("A", HUGE, 4 * GIB, 0x1_0000_0000, 0x0, ("reserved bit", 4)),
        ("A", HUGE, 4 * GIB, 0x1_0000_0000, 0x4000_0000, ("reserved bit", 4)),
        ("B", SMALL, 16 * MIB, 0x4060_0000, 0x8000, ("not present", 1)),
        ("B", SMALL, 16 * MIB, 0x4060_0000, 0x20_0000, ("not present", 2)),
        ("B", SMALL, 16 * MIB, 0x4060_0000, 0x4000_0000, ("not present", 3)),
        ("B", SMALL, 16 * MIB, 0x4060_0000, 0xFFFF_FFF0, ("not present", 3)),
        ("B", SMALL, 16 * MIB, 0x4060_0000, 0x80_0000_0000, ("not present", 4)),
        ("B", LARGE, 2 * GIB, 0x8000_0000, 0x1234, ("page", 0x8020_0234)),
        ("B", LARGE, 2 * GIB, 0x8000_0000, 0x20_0000, ("page", 0xC000_0000)),
        ("B", LARGE, 2 * GIB, 0x8000_0000, 0x40_0000, ("not present", 2)),
        ("B", HUGE, 8 * GIB, 0x1_0000_0000, 0x1234, ("page", 0x1_0000_1234)),  # right, by coincidence
        ("B", HUGE, 8 * GIB, 0x1_0000_0000, 0x20_0000, ("page", 0x1_4000_0000)),
        ("B", HUGE, 8 * GIB, 0x1_0000_0000, 0x100_0000, ("not present", 2)),
    ],
)  # fmt: skip
def test_reference_values(case: Case, pages: Pages, size: int, hpa: int, g: int, expected: tuple[str, int]) -> None:
    assert told(case, pages, size, hpa, g) == expected


def test_b_small_shows_the_eight_level_1_tables_of_kvm() -> None:
    found = [told("B", SMALL, 16 * MIB, 0x4060_0000, g) for g in range(0, 0x8000, 0x1000)]
    assert {kind for kind, _ in found} == {"table"}
    state = mismatched("B", SMALL, 16 * MIB, 0x4060_0000)
    assert state.host is not None
    owners = [state.host.frames.owner(hpa >> 12) for _, hpa in found]
    assert [(owner.level, owner.gfn) for owner in owners if owner] == [(1, n * 512) for n in range(8)]


# --- the key formulas of 9.3, for random addresses

NUMBERS = random.Random(957)


def numbers(bits: int, count: int = 300) -> list[int]:
    return [NUMBERS.getrandbits(NUMBERS.randint(1, bits)) for _ in range(count)]


def test_a_small_the_last_entry_is_the_guests_own_word_at_g_shifted_right_by_9() -> None:
    hpa, size = 0x4060_0000, 8 * MIB
    state = mismatched("A", SMALL, size, hpa)
    for g in numbers(31):
        step = walked(state, g).steps[-1]
        if g >> 9 < size:
            assert (step.level.level, step.address) == (1, hpa + (g >> 9 & ~7))
        else:
            assert step.level.level > 1


def test_b_small_a_load_at_g_returns_the_spte_of_g_shifted_left_by_9() -> None:
    size = 16 * MIB
    state = mismatched("B", SMALL, size, 0x4060_0000)
    right = after(state, ev.MoveVcpu(0))
    for g in numbers(15):
        outcome = walked(state, g).outcome
        assert isinstance(outcome, Translated)
        gpa = (g & ~7) << 9
        assert outcome.address & ~7 == walked(right, gpa).steps[-1].address


@pytest.mark.parametrize(
    ("pages", "size", "hpa", "shift", "low"),
    [(LARGE, 2 * GIB, 0x8000_0000, 21, 12), (HUGE, 8 * GIB, 0x1_0000_0000, 30, 21)],
)
def test_b_large_g_reads_true_of_its_page_number_times_a_large_page(
    pages: Pages, size: int, hpa: int, shift: int, low: int
) -> None:
    """2 MiB: TRUE((g >> 12) << 21) + g[11:0]. 1 GiB: TRUE((g >> 21) << 30) + g[20:0]."""
    state = mismatched("B", pages, size, hpa)
    for g in numbers(34):
        intended = (g >> low) << shift
        outcome = walked(state, g).outcome
        if intended < size:
            assert isinstance(outcome, Translated)
            assert outcome.address == hpa + intended + (g & (1 << low) - 1)
        else:
            assert isinstance(outcome, NestedPageFault)


@pytest.mark.parametrize("pages", [SMALL, LARGE])
def test_walks_of_one_depth_read_the_entries_that_walks_of_the_other_read(pages: Pages) -> None:
    """A: the walk of g reads at levels 5 .. 2 what the intended walk of (g >> 9) & ~0xfff reads at 4 .. 1."""
    size, hpa = (8 * MIB, 0x4060_0000) if pages is SMALL else (GIB, 0x8000_0000)
    wrong = mismatched("A", pages, size, hpa)
    right = after(wrong, ev.MoveVcpu(0))
    for g in numbers(48):
        read = [(step.level.level, step.address) for step in walked(wrong, g).steps]
        intended = [(step.level.level + 1, step.address) for step in walked(right, (g >> 9) & ~0xFFF).steps]
        assert read[: len(intended)] == intended[: len(read)]


def test_hardware_sets_a_and_d_in_guest_data_that_it_takes_for_an_entry() -> None:
    """Case A: the last entry lies in guest memory, so a guest's data change under it."""
    state = play(*booted(amd(48)), *VM, slot(0, 8 * MIB), ev.FillGuestPages(0x8, (0x0030_0007,)), ev.Populate())
    changed = after(state, to(True), ev.MoveVcpu(1), ev.GuestAccess(0x1000, ev.Kind.WRITE, value=1))
    seen = after(changed, ev.MoveVcpu(0), ev.GuestAccess(0x8))
    assert seen.effect.loaded == 0x0030_0007 | 1 << 5 | 1 << 6


def test_pcpus_of_both_depths_share_the_damage() -> None:
    """A mixed host: progress only on the right pCPU, and a store on the wrong one persists."""
    state = mismatched("B", LARGE, 2 * GIB, 0x8000_0000)
    stored = after(state, ev.GuestAccess(0x1230, ev.Kind.WRITE, value=0xBAD))
    seen = after(stored, ev.MoveVcpu(0), ev.GuestAccess(0x20_0230))
    assert seen.effect.loaded == 0xBAD
    assert vm(seen).roots == vm(state).roots


def test_what_decides_is_named() -> None:
    state = mismatched("B", LARGE, 2 * GIB, 0x8000_0000)
    effect = after(state, ev.GuestAccess(0x1234)).effect
    assert [assumption.split(":")[0] for assumption in effect.assumed] == ["npt_depth"]
    assert Configuration().rules.npt_gpa_high.value == "ignored"
