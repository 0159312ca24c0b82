"""KVM's answer to what a mismatched pCPU reports, a row of the reference page's table 9.5 each."""

import pytest

from engine import events as ev
from engine.kvm.memslots import Pages
from engine.machine import Effect, State
from tests.engine.kvm_fixture import (
    FETCH,
    GIB,
    MIB,
    READ,
    VM,
    WRITE,
    accessed,
    after,
    amd,
    booted,
    functions,
    on_pcpu,
    play,
    results,
    slot,
    to,
    vcpu,
)

P, W, U, NX = 1, 2, 4, 1 << 63
GROWS = dict[str, int]


def case_a(*memory: ev.Event) -> State:
    """Built with 4 levels; pCPU 1, where the vCPU is, walks 5."""
    return play(*booted(amd(48), ram=16 * GIB), *VM, *memory, to(True), ev.MoveVcpu(1))


def endless(effect: Effect, result: str, grows: GROWS) -> None:
    assert effect.livelock is not None
    assert results(effect)[-1] == result
    assert effect.livelock.growth == grows


def test_not_present_and_not_yet_mapped_is_fixed_once_and_then_spurious_for_ever() -> None:
    effect = accessed(case_a(slot(0, 64 * MIB)), 0x1000)
    assert results(effect) == ["RET_PF_FIXED", "RET_PF_SPURIOUS"]
    endless(effect, "RET_PF_SPURIOUS", {"exits": 1, "pf_taken": 1, "pf_spurious": 1})
    assert effect.livelock is not None
    assert (effect.livelock.first, effect.livelock.period) == (1, 1)


def test_not_present_and_mapped_is_spurious_for_ever() -> None:
    effect = accessed(case_a(slot(0, 64 * MIB), ev.GuestAccess(0x1000)), 0x1000)
    endless(effect, "RET_PF_SPURIOUS", {"exits": 1, "pf_taken": 1, "pf_spurious": 1})
    assert effect.livelock is not None
    assert "kvm_mmu_spte_requested" in effect.livelock.tracepoints
    assert not {"kvm_mmu_set_spte", "kvm_tdp_mmu_spte_changed"} & set(effect.livelock.tracepoints)


def test_reserved_is_tried_again_for_ever_and_nothing_counts_it() -> None:
    effect = accessed(case_a(slot(0, GIB, Pages.HUGE_1G), ev.GuestAccess(0)), 0x1000)
    assert effect.exits[0].walk.steps[-1].rule.name == "RESERVED"
    endless(effect, "RET_PF_RETRY", {"exits": 1})
    assert effect.livelock is not None
    assert effect.livelock.tracepoints == ("kvm_exit", "kvm_page_fault", "kvm_entry")


def test_reserved_where_there_really_is_a_device_is_emulated() -> None:
    """The MMIO SPTE was made on a good pCPU; KVM's own walk finds it."""
    memory = (slot(0, GIB, Pages.HUGE_1G), ev.GuestAccess(0), ev.GuestAccess(0xFEE0_0000))
    effect = accessed(case_a(*memory), 0xFEE0_0000)
    assert effect.exits[0].walk.steps[-1].rule.name == "RESERVED"
    assert effect.mmio
    assert results(effect) == ["RET_PF_EMULATE"]
    # The last MMIO frame is remembered, others are found by the walk.
    assert "mmio_info_in_cache()" in functions(effect)
    other = accessed(case_a(*memory, ev.GuestAccess(0xFEC0_0000)), 0xFEE0_0000)
    assert {"handle_mmio_page_fault()", "x86_emulate_instruction()"} <= functions(other)


def test_not_present_where_there_is_a_device_is_emulated() -> None:
    state = case_a(slot(0, 64 * MIB))
    before = vcpu(state).counters
    reached = after(state, ev.GuestAccess(0xFEE0_0000))
    assert reached.effect.mmio
    assert reached.effect.livelock is None
    grown = vcpu(reached).counters.growth(before)
    assert grown == {"exits": 1, "pf_taken": 1, "pf_emulate": 1, "pf_mmio_spte_created": 1, "mmio_exits": 1}


def guest_word_as_entry(word: int) -> State:
    """The guest's word at GPA 8 is what the hardware takes for the last entry of 0x1000; KVM has 0x1000 mapped."""
    return case_a(slot(0, 64 * MIB), ev.FillGuestPages(0x8, (word,)), ev.GuestAccess(0), ev.GuestAccess(0x1000))


def test_a_write_where_the_hardware_sees_no_w_is_fast_and_spurious_for_ever() -> None:
    effect = accessed(guest_word_as_entry(0x30_0000 | P | U), 0x1000, WRITE)
    endless(effect, "RET_PF_SPURIOUS", {"exits": 1, "pf_taken": 1, "pf_fast": 1, "pf_spurious": 1})


def test_a_fetch_where_the_hardware_sees_nx_is_never_fast() -> None:
    effect = accessed(guest_word_as_entry(0x30_0000 | P | W | U | NX), 0x1000, FETCH)
    endless(effect, "RET_PF_SPURIOUS", {"exits": 1, "pf_taken": 1, "pf_spurious": 1})


def test_without_a_fault_kvm_is_not_involved() -> None:
    effect = accessed(guest_word_as_entry(0x30_0000 | P | W | U), 0x1000, READ)
    assert effect.exits == ()
    assert effect.walks[-1].ok


@pytest.mark.parametrize(("kernel", "value"), [("5.12", 4), ("5.15", 4), ("5.19", 5), ("latest", 6)])
def test_ret_pf_spurious_has_its_versions_number(kernel: str, value: int) -> None:
    state = play(*booted(amd(52), kernel=kernel), *VM, slot(0, 64 * MIB), ev.GuestAccess(0x1000), to(True))
    last = accessed(on_pcpu(state, 1), 0x1000).exits[-1].reaction
    assert (last.result, last.value) == ("RET_PF_SPURIOUS", value)


def test_an_older_kernel_has_none_of_the_counters() -> None:
    state = play(*booted(amd(52), five=True, kernel="5.12"), *VM, slot(0, 64 * MIB))
    endless(accessed(state, 0x1000), "RET_PF_SPURIOUS", {"exits": 1})


def test_a_zap_in_between_makes_one_more_exit_and_the_loop_goes_on() -> None:
    """What the field report saw about once a second (mmu_notifier)."""
    state = case_a(slot(0, 64 * MIB), ev.GuestAccess(0x1000))
    moved = after(state, ev.HostMemory(0x1000))
    assert results(accessed(moved, 0x1000)) == ["RET_PF_FIXED", "RET_PF_SPURIOUS"]


def test_back_on_a_good_pcpu_the_guest_goes_on() -> None:
    state = after(case_a(slot(0, 64 * MIB)), ev.GuestAccess(0x1000))
    assert state.effect.livelock is not None
    assert accessed(on_pcpu(state, 0), 0x1000).exits == ()


# --- the reset vector of a fresh vCPU


@pytest.mark.parametrize(
    ("five", "stops"), [(False, [5, 4]), (True, [4, 3])], ids=["A: 4 read as 5", "B: 5 read as 4"]
)  # fmt: skip
def test_reset_vector(five: bool, stops: list[int]) -> None:
    """Exit 1 is fixed, exits 2.. are spurious for ever, one level further down."""
    host = (*booted(amd(48), five), to(not five), ev.CreateVm(), ev.CreateVcpu(pcpu=0), ev.MoveVcpu(1))
    effect = accessed(play(*host, slot(0xFFF0_0000, MIB, read_only=True)), 0xFFFF_FFF0, FETCH)
    assert results(effect) == ["RET_PF_FIXED", "RET_PF_SPURIOUS"]
    assert [each.walk.steps[-1].level.level for each in effect.exits] == stops
    assert effect.livelock is not None


def test_the_field_report() -> None:
    """9.10: Linux 5.12 on an LA57 host, no change of mode; raw values as they were seen there."""
    state = play(*booted(amd(52), True, "5.12"), *VM, slot(0xFFF0_0000, MIB, read_only=True))
    reached = after(state, ev.GuestAccess(0xFFFF_FFF0, FETCH, 1))
    effect = reached.effect
    assert effect.livelock is not None
    assert {each.reaction.error_code & 0xFF for each in effect.exits} == {0x14}  # U and F, not P
    right = on_pcpu(after(reached, to(False)), 1)  # KVM's own walk: 4 levels
    steps = accessed(right, 0xFFFF_F000).walks[-1].steps
    assert [step.index for step in steps] == [0, 3, 0x1FF, 0x1FF]
    assert [step.value & 0xFFF for step in steps if step.value] == [0x027, 0x027, 0x027, 0x025]
    assert right.host is not None
    owners = [right.host.frames.owner((step.address or 0) >> 12) for step in steps]
    assert [owner.gfn for owner in owners if owner] == [0, 0, 0xC0000, 0xFFE00]
    root = vcpu(right).root
    assert root is not None
    assert root.role.word == 0x794
