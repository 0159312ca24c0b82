"""A guest that reaches KVM's own tables, and KVM meeting there what the guest wrote: an outcome each, never a crash.

Case B: tables of 5 levels walked with 4 map KVM's level-1 tables into the guest, writable.
"""

import random

import pytest

from engine import events as ev
from engine.arch.faults import Translated
from engine.arch.rights import Kind
from engine.host.frames import Use
from engine.kvm.memslots import Pages
from engine.machine import Refusal, State, apply
from tests.conftest import scaled
from tests.engine.kvm_fixture import (
    LIBRARY,
    MIB,
    READ,
    VM,
    WRITE,
    accessed,
    after,
    amd,
    booted,
    functions,
    intel,
    on_pcpu,
    play,
    refusal,
    results,
    slot,
    to,
    vm,
    walked,
)

KERNEL = 16 << 20
SPTE = 0x867  # P, W, U, A, D and KVM's own bit 11


def exposed(kernel: str = "latest", pages: Pages = Pages.SMALL, **parameters: bool) -> State:
    """pCPU 0 walks as KVM built, 5 levels; pCPU 1 walks 4, and there GPA 8 is the SPTE of GPA 0x1000."""
    parameters.setdefault("tdp_mmu", True)
    state = play(*booted(amd(48), True, kernel, **parameters), *VM, slot(0, 16 * MIB, pages), ev.GuestAccess(0x1000))
    return after(state, to(False), ev.MoveVcpu(1))


def overwritten(word: int, kernel: str = "latest", **parameters: bool) -> State:
    """The guest stored ``word`` over the SPTE of GPA 0x1000, and is back where KVM and the hardware agree."""
    return on_pcpu(after(exposed(kernel, **parameters), ev.GuestAccess(0x8, WRITE, 8, word)), 0)


def test_one_store_maps_any_frame_of_the_host() -> None:
    state = overwritten(KERNEL | SPTE)
    outcome = walked(state, 0x1000).outcome
    assert isinstance(outcome, Translated)
    assert outcome.address == KERNEL
    stored = after(state, ev.GuestAccess(0x1000, WRITE, 8, 0xBAD))
    assert stored.effect.exits == ()
    assert stored.memory.word(KERNEL) == 0xBAD
    assert stored.host is not None
    owner = stored.host.frames.owner(KERNEL >> 12)
    assert owner is not None
    assert owner.use is Use.KERNEL


def test_kvm_believes_an_spte_that_allows_the_access() -> None:
    """NX for the hardware, and KVM's bit 11: a fetch faults, KVM finds NX too and maps the right page again."""
    state = overwritten(KERNEL | SPTE | 1 << 63)
    effect = accessed(state, 0x1000, Kind.FETCH)
    assert results(effect) == ["RET_PF_FIXED"]
    assert walked(after(state, ev.GuestAccess(0x1000, Kind.FETCH, 1)), 0x1000).ok


def test_an_absent_word_is_simply_mapped_again() -> None:
    for word in (0, 1 << 63, 0x1234_5000):
        assert results(accessed(overwritten(word), 0x1000)) == ["RET_PF_FIXED"]


def test_reserved_bits_are_a_warning_and_an_error() -> None:
    effect = accessed(overwritten(KERNEL | SPTE | 1 << 50), 0x1000)
    assert results(effect) == ["-EINVAL"]
    assert "handle_mmio_page_fault()" in functions(effect)


def test_what_looks_like_a_device_is_emulated_or_not_by_its_generation() -> None:
    mmio = 1 << 51 | 1
    stale = accessed(overwritten(mmio), 0x1000)
    assert "check_mmio_spte()" in functions(stale)
    assert results(stale)[-1] == "RET_PF_FIXED"
    fresh = accessed(overwritten(mmio | 2 << 3), 0x1000)  # the generation after one memslot
    assert results(fresh) == ["RET_PF_EMULATE"]


# --- a level-2 entry: where KVM goes on through a pointer


def level_2_table(state: State) -> int:
    """HPA of the table that holds the level-2 SPTE of GPA 0."""
    steps = walked(on_pcpu(state, 0), 0x1000).steps
    return next(step.table for step in steps if step.level.level == 2 and step.table is not None)


def pointing_at(target: int, kernel: str = "latest", **parameters: bool) -> State:
    """The guest made the level-2 SPTE of GPA 0x20_0000 a pointer to ``target``."""
    state = exposed(kernel, **parameters)
    table = level_2_table(state)
    window = after(state, ev.GuestAccess(0x8, WRITE, 8, table | SPTE), ev.MoveVcpu(0))  # GPA 0x1000 is that table
    return after(window, ev.GuestAccess(0x1000 + 8, WRITE, 8, target | SPTE))


def frame_of_guest(state: State) -> int:
    outcome = walked(after(on_pcpu(state, 0), ev.GuestAccess(0x5000)), 0x5000).outcome
    assert isinstance(outcome, Translated)
    return outcome.address & ~0xFFF


@pytest.mark.parametrize(("kernel", "tdp_mmu"), [("latest", True), ("latest", False), ("5.15", True)])
def test_a_table_that_is_none_of_kvms_is_an_oops(kernel: str, tdp_mmu: bool) -> None:
    """sptep_to_sp() of a page that has no struct kvm_mmu_page."""
    state = pointing_at(KERNEL, kernel, tdp_mmu=tdp_mmu)
    reached = after(state, ev.GuestAccess(0x20_1000))
    assert results(reached.effect)[-1] == "oops"
    assert "has no kvm_mmu_page" in vm(reached).dead
    assert "does nothing any more" in refusal(reached, ev.GuestAccess(0))
    assert "does nothing any more" in refusal(reached, ev.DestroyVm())


def test_a_pointer_out_of_ram_is_an_oops_too() -> None:
    state = pointing_at(0xF_0000_0000)
    reached = apply(state, ev.GuestAccess(0x20_1000), LIBRARY)
    assert isinstance(reached, State)
    assert not reached.effect.walks[-1].ok


def test_a_table_of_another_level_is_a_warning_and_tried_again_for_ever() -> None:
    """A level-2 table in the place of a level-1 table; older kernels do not look."""
    effect = accessed(pointing_at(level_2_table(exposed())), 0x20_3000)
    assert effect.livelock is not None
    assert set(results(effect)) == {"RET_PF_RETRY"}
    old = exposed("5.15")
    assert results(accessed(pointing_at(level_2_table(old), "5.15"), 0x20_3000)) == ["RET_PF_FIXED"]


@pytest.mark.parametrize("event", [ev.ZapGuest(), ev.DestroyVm(), ev.DeleteMemslot()])
def test_freeing_such_a_tree_is_an_oops(event: ev.Event) -> None:
    reached = apply(pointing_at(KERNEL), event, LIBRARY)
    assert isinstance(reached, State)
    assert "handle_removed_pt()" in functions(reached.effect)
    assert vm(reached).dead


def test_ranges_are_walked_through_foreign_pages_and_what_looks_present_there_is_zapped() -> None:
    state = exposed()
    frame = frame_of_guest(state)
    state = after(on_pcpu(state, 0), ev.FillGuestPages(0x5000, (KERNEL | SPTE,), 4096))
    table = level_2_table(state)
    state = after(state, ev.Poke(table + 8, frame | SPTE))
    zapped = after(state, ev.ZapGuest(0x20_0000, 2 * MIB))
    assert "512 SPTEs are zapped" in zapped.effect.notes[-1]
    assert zapped.memory.word(frame) == 1 << 63  # the guest's data


def test_a_tree_that_leads_on_and_on_is_given_up_with_a_sentence() -> None:
    """16 guest pages of pointers to 512 others each: KVM's walk would read them all."""
    state = after(on_pcpu(exposed(), 0), slot(1 << 30, 64 * MIB, at=0x4000_0000))
    names = tuple(0x4000_0000 + n * 0x1000 | SPTE for n in range(16 * 512))
    tables = tuple(0x4000_0000 + n * 0x1000 | SPTE for n in range(16))
    state = after(state, ev.FillGuestPages(1 << 30, names), ev.FillGuestPages((1 << 30) + 0x20_0000, tables))
    spread = after(state, ev.Poke(vm(state).roots[0].hpa + 8, 0x4020_0000 | SPTE))
    assert "leads through more than 4,096 foreign pages" in refusal(spread, ev.ZapGuest(0, 1 << 51))
    assert apply(spread, ev.ZapGuest(0, 4096), LIBRARY).__class__ is State  # elsewhere all is well


def test_a_table_that_names_itself_ends() -> None:
    state = exposed()
    root = vm(state).roots[0].hpa
    looped = after(on_pcpu(state, 0), *(ev.Poke(root + n * 8, root | SPTE) for n in range(0, 512, 7)))
    for event in (ev.ZapGuest(0, 1 << 51), ev.DirtyLogging(), ev.HostMemory(0x1000), ev.ZapGuest(), ev.DestroyVm()):
        assert isinstance(apply(looped, event, LIBRARY), State)


# --- anything at all


def test_whatever_a_guest_or_a_debugger_writes_into_tables_everything_has_an_outcome() -> None:
    chance = random.Random(20_21)
    for round_ in range(scaled(400)):
        tdp_mmu, five = chance.random() < 0.5, chance.random() < 0.5
        kernel = chance.choice(["5.15", "5.19", "latest", "5.12" if not five else "latest"])
        setup = chance.choice([amd(48), amd(52), intel()])
        pages = chance.choice([Pages.SMALL, Pages.THP])
        host = booted(setup, five, kernel, 256 * MIB, tdp_mmu=tdp_mmu, nx_huge_pages=chance.random() < 0.3)
        state = play(*host, *VM, slot(0, 8 * MIB, pages), *(ev.GuestAccess(n * 0x40_1000) for n in range(2)))
        if chance.random() < 0.5:
            state = after(state, to(not five), ev.MoveVcpu(1))
        for _ in range(20):
            reached = apply(state, _anything(chance, state), LIBRARY)
            state = state if isinstance(reached, Refusal) else reached
        assert state.host is not None, round_


def _anything(chance: random.Random, state: State) -> ev.Event:
    assert state.host is not None
    frames = [pfn << 12 for pfn in sorted(state.host.frames.taken)]
    low = chance.choice([0x867, 0x827, 0x8E7, 0x877, 0xB77, 0x007, 0x001, 0x800, chance.getrandbits(12)])
    pointer = (
        chance.choice([*frames, chance.getrandbits(48) & ~0xFFF, 0]) | low | chance.choice([0, 0, 1 << 63, 1 << 51])
    )
    gpa = chance.choice([0, 0x1000, 0x40_1000, 0x20_0000, 0xFEE0_0000, 0x7F_F000])
    kind = chance.choice([READ, WRITE, Kind.FETCH])
    return chance.choice(
        [
            ev.Poke(chance.choice(frames) + chance.choice([0, 8, 16, 0xFF8]), pointer),
            ev.Poke(chance.choice(frames) + 8 * chance.randrange(512), pointer),
            ev.GuestAccess(gpa + 8 * chance.randrange(4), kind, 1, pointer),
            ev.GuestAccess(gpa, WRITE, 8, pointer),
            ev.GuestAccess(gpa + 0xFFC, kind, 8, pointer),
            ev.ZapGuest(gpa, chance.choice([0, 4096, 1 << 40])),
            ev.HostMemory(gpa, chance.choice(["move", "unmap", "collapse", "age"])),
            ev.DirtyLogging(chance.random() < 0.5),
            ev.MoveVcpu(chance.randrange(2)),
            ev.FillGuestPages(gpa & ~7, (pointer,), 4096),
            ev.Populate(),
            to(chance.random() < 0.5, chance.randrange(2)),
            ev.DeleteMemslot(),
            ev.SetMemslot(size=8 * MIB),
            ev.DestroyVm(),
            ev.CreateVm(),
        ]
    )  # type: ignore[arg-type]
