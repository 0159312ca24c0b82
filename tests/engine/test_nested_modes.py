"""The host's mode changes under mirrored tables, at L0 and at L1 (reference page, 8.5 - 8.7 and 9.6 c, d).

Nothing here is special: the same pCPU walks the same bytes in another mode.
"""

import pytest

from engine import events as ev
from engine.arch.faults import EntryFailure, NestedPageFault, PageFault, Translated
from engine.arch.rights import READ as READS
from engine.effects.reaction import Answer, answer_of
from engine.host.frames import Use
from engine.kvm.memslots import Pages
from engine.machine import Effect, State
from engine.machine.guest_view import GuestView
from engine.machine.intended import intended
from engine.machine.look import Place, look, look_logical
from tests.engine.kvm_fixture import (
    FETCH,
    MIB,
    READ,
    VM,
    WRITE,
    accessed,
    after,
    amd,
    booted,
    guest,
    intel,
    on_pcpu,
    play,
    refusal,
    results,
    slot,
    to,
    vcpu,
    vm,
    walked,
)

L1_ROOT, NPT_ROOT, NPT_TABLES, L2_BASE = 0x1000, 0x20000, 0x40000, 0x40_0000
AREA, PAGES = 0x4000_0000, 0x10_0000


def nested(l1: str, five: bool, size: int = 0x20_0000, l2: str = "none") -> State:
    """L2 has ``size`` bytes from L1-physical 4 MiB on, and its hypervisor is in mode ``l1``."""
    state = play(*booted(amd(), five=five), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest(l1, L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, size),
    )  # fmt: skip
    if l2 != "none":
        pages = ev.MapL2Pages(root=0x1000, tables=0x2000, address=AREA, target=PAGES, size=0x4000, mode=l2)  # type: ignore
        state = after(state, pages)
    return after(state, ev.EnterNested(guest(l2, 0x1000)))


def used(state: State, pages: int = 8) -> State:
    """L2 has read its first ``pages`` pages, so that L0 mirrors them."""
    for n in range(pages):
        state = after(state, ev.GuestAccess(n * 0x1000))
    return state


def table_at(state: State, hpa: int) -> str:
    """What page of KVM's lies at ``hpa``: "pae_root" and so on, or the level of a mirror; '' for none."""
    special = vcpu(state).special
    names = {special.pae_root: "pae_root", special.pml4_root: "pml4_root", special.pml5_root: "pml5_root"}
    page = vm(state).shadow.page(hpa)
    return names.get(hpa & ~0xFFF) or (f"SP({page.role.level})" if page else "")


# --- (c) without nested paging


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("mode", ["32-bit", "PAE", "4-level", "5-level"])
@pytest.mark.parametrize("vendor", ["amd", "intel"])
def test_without_nested_paging_the_hosts_mode_makes_no_difference(vendor: str, mode: str, five: bool) -> None:
    """The depth comes from the guest's own CR4 and EFER, in the VMCB or the VMCS."""
    setup, off = (amd(), {"npt": False}) if vendor == "amd" else (intel(48), {"ept": False})
    state = play(*booted(setup, five=five, **off), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.MapGuestPages(root=L1_ROOT, tables=0x2000, address=AREA, target=PAGES, size=0x4000, mode=mode),  # type: ignore
        ev.SetGuestRegisters(guest(mode, L1_ROOT)), ev.GuestAccess(AREA), to(not five),
    )  # fmt: skip
    moved = on_pcpu(state, 1)
    for address in (AREA, AREA + 0x1000):
        for kind in (READ, WRITE, FETCH):
            here, there = (after(s, ev.GuestAccess(address, kind, 4)).effect for s in (state, moved))
            assert there.livelock is None
            assert here.walks[-1].outcome == there.walks[-1].outcome
            assert len(here.walks[-1].steps) == len(there.walks[-1].steps)


# --- (d) nested NPT, L0 changes


def test_l0_goes_from_4_to_5_levels_under_a_nested_guest() -> None:
    """NPT02 is an ordinary table of L0's: read one level too deep, L2's own words become its nested page table."""
    state = used(nested("4-level", False))
    odd = on_pcpu(after(state, to(True)), 1)
    found = walked(odd, 0x5000)
    assert isinstance(found.outcome, NestedPageFault)  # L2's memory holds zeros: not present at the last step
    assert len(found.steps) == 5
    last = found.steps[-1].address
    assert last == (intended(odd, 0, L2_BASE) or 0) + (0x5000 >> 9)  # L2-physical (g >> 9), by L1's and L0's intention
    effect = after(odd, ev.GuestAccess(0x5000)).effect
    assert answer_of(effect) is Answer.SPURIOUS_LOOP


def test_l0_goes_from_5_to_4_levels_and_a_passthrough_root_is_read_as_a_pml4() -> None:
    """SP(5) is read as a PML4, SP(4) as a PDPT, SP(3) as a PD and SP(2) as a page table, whose entries point at
    SP(1)."""
    state = used(nested("4-level", True))
    odd = on_pcpu(after(state, to(False)), 1)
    found = walked(odd, 0x0)
    assert [table_at(odd, step.address or 0) for step in found.steps] == ["SP(5)", "SP(4)", "SP(3)", "SP(2)"]
    assert isinstance(found.outcome, Translated)
    assert table_at(odd, found.outcome.address) == "SP(1)"  # L2 reads, and may write, a table of L0's
    assert found.outcome.rights.write
    stored = after(odd, ev.GuestAccess(0x0, WRITE, 8, 0xDEAD_BEEF))
    assert stored.effect.exits == ()
    assert stored.memory.word(found.outcome.address) == 0xDEAD_BEEF


@pytest.mark.parametrize("l1", ["32-bit", "PAE"])
def test_a_32_bit_l1_under_a_5_level_l0_that_drops_to_4(l1: str) -> None:
    """pml5_root is read as a PML4, pml4_root as a PDPT, pae_root as a PD: its entries point at SP(2)s, read as PTs."""
    state = used(nested(l1, True))
    odd = on_pcpu(after(state, to(False)), 1)
    found = walked(odd, 0x0)
    names = [table_at(odd, step.address or 0) for step in found.steps]
    assert names == ["pml5_root", "pml4_root", "pae_root", "SP(2)"]
    assert isinstance(found.outcome, Translated)
    assert table_at(odd, found.outcome.address) == "SP(1)"


def test_nested_ept_does_not_care() -> None:
    state = play(*booted(intel()), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES, levels=5),
        ev.MapNestedPages(0, L2_BASE, 0x20_0000), ev.EnterNested(guest("none", 0)),
    )  # fmt: skip
    state = used(state)
    odd = on_pcpu(after(state, to(True)), 1)
    assert walked(odd, 0x3000).outcome == walked(state, 0x3000).outcome
    assert accessed(odd, 0x9000).livelock is None


# --- L1 changes its own mode after its kvm_init (8.7)


def l1_in(state: State, mode: str) -> State:
    """L1 goes on in another mode; its NPT12 stays as it is."""
    return after(state, ev.LeaveNested(), ev.SetGuestRegisters(guest(mode, L1_ROOT)), ev.EnterNested(guest("none", 0)))


def reflected(effect: Effect) -> NestedPageFault:
    assert effect.reflected is not None
    assert isinstance(effect.reflected.exit, NestedPageFault)
    return effect.reflected.exit


def test_l1_goes_from_4_to_5_levels_and_l0_reads_its_tables_so() -> None:
    """L0 takes the format from L1's CR4 at each VMRUN. The misreading is L0's own walker's, the fault goes to L1."""
    changed = l1_in(used(nested("4-level", True)), "5-level")
    effect = after(changed, ev.GuestAccess(0x5000)).effect
    assert reflected(effect).exitinfo1 == 1 << 32 | 0b100  # not present: the last step is in L2's own zeros
    again = after(changed, ev.GuestAccess(0x5000))
    assert vcpu(again).nested is None  # L1 runs and finds the exit
    assert results(effect) == ["RET_PF_RETRY"]


def test_on_a_4_level_host_what_was_mirrored_before_l1s_change_stays_in_use() -> None:
    """The role word of a level-4 root does not tell a 5-level L1 from a 4-level one, and nCR3 is the same: L0 takes the
    old root again. Only what was never mirrored is read in the new mode. (Follows from is_root_usable(); not tried on a
    machine.)"""
    before = used(nested("4-level", False))
    changed = l1_in(before, "5-level")
    assert vcpu(changed).role.word == vcpu(before).role.word
    assert after(changed, ev.GuestAccess(0x5000)).effect.reflected is None
    assert after(changed, ev.GuestAccess(0x50000)).effect.reflected is not None


def test_l1_with_large_pages_gets_a_reserved_bit_fault_after_4_to_5() -> None:
    state = play(*booted(amd(), five=True), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, 2 * MIB, page_size=2 * MIB), ev.EnterNested(guest("none", 0)),
        ev.GuestAccess(0x1000),
    )  # fmt: skip
    effect = after(l1_in(state, "5-level"), ev.GuestAccess(0x1000)).effect
    assert reflected(effect).exitinfo1 & 0b1001 == 0b1001  # its 2-MiB leaf is read as a 1-GiB one, not aligned


def test_l1_goes_from_5_to_4_levels_and_its_guest_reads_l1s_tables() -> None:
    """L1's PDPT is read as its PD, its PD as a page table: L2's page is one of L1's page tables, with no exit to L1."""
    state = used(nested("5-level", True))
    changed = after(l1_in(state, "4-level"), ev.GuestAccess(0x0))
    assert changed.effect.reflected is None
    outcome = changed.effect.walks[-1].outcome
    assert isinstance(outcome, Translated)
    tables = range(NPT_TABLES, NPT_TABLES + 0x10000, 0x1000)
    assert outcome.address & ~0xFFF in {intended(changed, 0, gpa) for gpa in tables}
    owner = changed.host.frames.owner(outcome.address >> 12)  # type: ignore[union-attr]
    assert owner is not None
    assert owner.use is Use.GUEST_PAGE  # L0 itself is safe: all of it is L1's memory


def test_l1_vcpus_in_two_modes_read_the_same_tables_differently() -> None:
    state = play(*booted(amd(), five=True), *VM, ev.CreateVcpu(), slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, 0x20_0000), ev.SetGuestRegisters(guest("5-level", L1_ROOT), vcpu=1),
        ev.EnterNested(guest("none", 0)), ev.EnterNested(guest("none", 0), vcpu=1),
    )  # fmt: skip
    good = after(state, ev.GuestAccess(0x5000))
    bad = after(good, ev.GuestAccess(0x5000, vcpu=1))
    assert good.effect.reflected is None
    assert bad.effect.reflected is not None
    roles = {page.role.word for page in vm(bad).shadow.of_gfn(NPT_ROOT >> 12)}
    assert len(roles) >= 2  # one frame of L1's, mirrored twice: passthrough root and PML5


def test_passthrough_tells_the_two_meanings_of_a_frame_apart() -> None:
    """Before 5.19 a level-5 mirror of L1's PML4 is found again as that of its PML5, with the old entries in it."""
    for kernel, mixed in (("5.15", True), ("latest", False)):
        state = play(*booted(amd(), five=True, kernel=kernel), *VM, slot(0, 16 * MIB))
        state = after(
            state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
            ev.MapNestedPages(0, L2_BASE, 0x20_0000), ev.EnterNested(guest("none", 0)), ev.GuestAccess(0x5000),
        )  # fmt: skip
        four = vcpu(state).root
        effect = after(l1_in(state, "5-level"), ev.GuestAccess(0x5000)).effect
        five = after(l1_in(state, "5-level"), ev.GuestAccess(0x5000))
        assert (effect.reflected is None) is mixed, kernel  # old: the page of the 4-level reading, and no fault
        assert four is not None
        assert (vm(five).shadow.page(four.hpa) is not None) or not mixed


# --- 8.6: a 5-level L1 on a 4-level L0


def test_a_5_level_l1_on_a_4_level_l0_shares_what_differs_above_bit_47() -> None:
    """The level-4 root is keyed by L1's PML5 frame: L2-physical addresses 2**48 apart lead to one entry
    (UNVERIFIED)."""
    state = play(*booted(amd(maxphyaddr=52), five=False), ev.CreateVm(), ev.CreateVcpu(cpuid=WIDE), slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest("5-level", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, 0x1000), ev.MapNestedPages(1 << 48, L2_BASE + 0x1000, 0x1000),
        ev.EnterNested(guest("none", 0)), ev.GuestAccess(0x10),
    )  # fmt: skip
    from engine.machine.access import physical_access

    high = physical_access(state, vm(state), vcpu(state), (1 << 48) + 0x10, READ)
    outcome = high.effect.walks[-1].outcome
    assert isinstance(outcome, Translated)
    assert outcome.address & ~0xFFF == intended(state, 0, L2_BASE)  # that of the low address
    second = state.l1_stage(vcpu(state))
    assert second is not None
    from engine.arch.nested_walk import walk_nested
    from engine.machine.state import unpaged

    logical = walk_nested(
        GuestView(state, vm(state)), unpaged(state.guest_paging(vcpu(state))), second, (1 << 48) + 0x10, READS
    )
    assert isinstance(logical.outcome, Translated)
    assert logical.outcome.address == L2_BASE + 0x1010


WIDE = ev.GuestCpu(maxphyaddr=52)


# --- the three-stage walk and the one that hardware makes


@pytest.mark.parametrize(
    ("l1", "five", "logical", "collapsed"),
    [
        ("4-level", False, 124, 24),
        ("4-level", True, 149, 29),
        ("5-level", True, 179, 29),
        ("PAE", True, 119, 29),
        ("32-bit", True, 89, 29),
        ("32-bit", False, 74, 24),
    ],
)
def test_what_l2_and_l1_think_an_access_costs_and_what_it_does(
    l1: str, five: bool, logical: int, collapsed: int
) -> None:
    """(L2 + 1) x (L1 + 1) x (L0 + 1) - 1 references, and (L2 + 1) x (L0 + 1) - 1: whatever L1's depth."""
    state = play(*booted(amd(), five=five), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest(l1, L1_ROOT)), ev.Populate(), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, 0x20_0000),
        ev.MapL2Pages(root=0x1000, tables=0x2000, address=AREA, target=PAGES, size=0x4000),
        ev.EnterNested(guest("4-level", 0x1000)), ev.GuestAccess(AREA),
    )  # fmt: skip
    three, two = look_logical(state, AREA, READS, Place()), look(state, AREA, READS, Place())
    assert not isinstance(three, str)
    assert (three.references, two.references) == (logical, collapsed)  # type: ignore[union-attr]
    assert three.outcome.address == two.outcome.address  # type: ignore[union-attr]


# --- what the guest itself does


def test_a_guest_fault_of_l2_is_no_matter_of_anybody_elses() -> None:
    state = nested("4-level", True, l2="4-level")
    effect = after(state, ev.GuestAccess(0x7000_0000)).effect
    assert isinstance(effect.walks[-1].outcome, PageFault)
    assert effect.reflected is None


def test_large_pages_of_l1_are_mirrored_as_large_as_the_host_allows() -> None:
    for pages, levels in ((Pages.SMALL, 4), (Pages.HUGE_2M, 3)):
        state = play(*booted(amd()), *VM, slot(0, 16 * MIB, pages))
        state = after(
            state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
            ev.MapNestedPages(0, L2_BASE, 2 * MIB, page_size=2 * MIB), ev.EnterNested(guest("none", 0)),
            ev.GuestAccess(0x1000),
        )  # fmt: skip
        assert len(walked(state, 0x1000).steps) == levels, pages


@pytest.mark.parametrize("npt", [True, False], ids=["npt=1", "npt=0"])
def test_an_l1_without_nested_paging_has_its_own_mirror_of_l2_run(npt: bool) -> None:
    """What L1 names as CR3 is a table of L1's, which L0 runs L2 on as on any guest's table; L0 mirrors it if it
    must."""
    state = play(*booted(amd(), npt=npt), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)),
        ev.MapGuestPages(root=0x8_0000, tables=0x8_1000, address=AREA, target=PAGES, size=0x4000),
        ev.EnterNested(guest("4-level", 0x8_0000), paging=False), ev.GuestAccess(AREA + 0x1010),
    )  # fmt: skip
    assert vcpu(state).role.guest_mode
    outcome = state.effect.walks[-1].outcome
    assert isinstance(outcome, Translated)
    assert outcome.address == intended(state, 0, PAGES + 0x1010)
    back = after(state, ev.LeaveNested())
    assert not vcpu(back).role.guest_mode
    assert vcpu(back).registers.cr3 == L1_ROOT


def test_without_nested_paging_of_its_own_kvm_offers_none_to_l1() -> None:
    state = play(*booted(amd(), npt=False), *VM, slot(0, 16 * MIB))
    state = after(state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)))
    assert "KVM offers none" in refusal(state, ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES))
    assert "KVM offers none" in refusal(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT))


def test_an_l1_with_its_paging_off_cannot_enter_with_nested_paging() -> None:
    state = play(*booted(amd()), *VM, slot(0, 16 * MIB))
    failed = after(state, ev.SetGuestRegisters(guest("none", 0)), ev.EnterNested(guest("none", 0), root=NPT_ROOT))
    assert isinstance(failed.effect.fault, EntryFailure)
    assert "VMEXIT_INVALID" in failed.effect.fault.reason


def test_nested_0_offers_no_virtualization_to_the_guest() -> None:
    state = play(*booted(amd(), nested=False), *VM, slot(0, 16 * MIB))
    state = after(state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)))
    assert "nested=0" in refusal(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT))
