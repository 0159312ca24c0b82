"""The decision table of reference page 4.2: what guest depth meets what depth of KVM's, and what roots that makes."""

from typing import Any

import pytest

from engine import events as ev
from engine.arch.faults import EntryFailure
from engine.kvm.kernels import Bug
from engine.kvm.vm import Root, Vcpu
from engine.machine import State
from tests.engine.kvm_fixture import MIB, VM, after, amd, booted, guest, intel, play, slot, to, vcpu, vm
from tests.engine.roots_shape import shape

L1_ROOT, NPT_ROOT, NPT_TABLES, L2_BASE = 0x1000, 0x20000, 0x40000, 0x40_0000
GUEST = {2: "32-bit", 3: "PAE", 4: "4-level", 5: "5-level"}


def pae_tables(state: State, root: int) -> State:
    """Two of the four PDPTEs of a PAE hypervisor's guest, or of a PAE guest, at ``root``."""
    return after(state, ev.FillGuestPages(root, (0x50001, 0, 0x51001, 0)))


def nested(l1: int, five: bool, kernel: str = "latest", **parameters: Any) -> State:
    """An AMD host of four or five levels, whose guest is a hypervisor with ``l1`` levels; its guest has been
    entered."""
    state = play(*booted(amd(), five=five, kernel=kernel, **parameters), *VM, slot(0, 16 * MIB))
    state = after(state, ev.SetGuestRegisters(guest(GUEST[l1], L1_ROOT)))
    if l1 == 3:
        state = pae_tables(state, NPT_ROOT)
    return after(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0))


def entered(l1: int, five: bool, kernel: str = "latest", **parameters: Any) -> State:
    """As `nested`, and once more: the access of L2 faults to L1, which has mapped nothing."""
    return after(nested(l1, five, kernel, **parameters), ev.EnterNested(guest("none", 0), root=NPT_ROOT))


def shadowed(mode: str, root: int = L1_ROOT, kernel: str = "latest", five: bool = False) -> State:
    """A guest without nested paging, once it has accessed something."""
    state = play(*booted(amd(), five=five, kernel=kernel, npt=False), *VM, slot(0, 16 * MIB))
    if mode == "PAE":
        state = pae_tables(state, root)
    return after(state, ev.SetGuestRegisters(guest(mode, root)), ev.GuestAccess(0x123))


PAE_ROOT = "pae_root > [SP(2, 0x50), -, SP(2, 0x51), -]"
QUARTERS = "pae_root > [SP(2, 0x20), SP(2, 0x20) q1, SP(2, 0x20) q2, SP(2, 0x20) q3]"


@pytest.mark.parametrize(
    ("l1", "l0", "kernels", "roots"),
    [
        (2, 4, ("5.12", "5.15", "5.19", "latest"), f"pml4_root > {QUARTERS}"),
        (2, 5, ("5.15", "5.19", "latest"), f"pml5_root > pml4_root > {QUARTERS}"),
        (3, 4, ("5.12", "5.15", "5.19", "latest"), f"pml4_root > {PAE_ROOT}"),
        (3, 5, ("5.15", "5.19", "latest"), f"pml5_root > pml4_root > {PAE_ROOT}"),
        (4, 4, ("5.12", "5.15", "5.19", "latest"), "SP(4, 0x20)"),
        (4, 5, ("5.19", "latest"), "SP(5, 0x20) passthrough"),
        (4, 5, ("5.15",), "SP(5, 0x20)"),  # taken for the mirror of a level-5 table
        (5, 4, ("5.15", "5.19", "latest"), "SP(4, 0x20)"),  # keyed by L1's PML5: see section 8.6
        (5, 5, ("5.15", "5.19", "latest"), "SP(5, 0x20)"),
    ],
)
def test_l1s_npt_meets_the_depth_that_the_host_forces(l1: int, l0: int, kernels: tuple[str, ...], roots: str) -> None:
    for kernel in kernels:
        state = nested(l1, l0 == 5, kernel)
        back = after(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0x40_0000))
        reloaded = last_inside(l1, l0 == 5, kernel)
        assert shape(reloaded) == roots, kernel
        assert reloaded.effect.fault is None
        assert back.effect.reflected is not None


def last_inside(l1: int, five: bool, kernel: str) -> State:
    """The state in which the nested guest runs and its MMU has a root: an INVLPG of its own finds nothing to do."""
    from engine.machine.access import loaded

    state = entered(l1, five, kernel)
    return loaded(state, vm(state), vcpu(state))


@pytest.mark.parametrize(
    ("mode", "root"),
    [
        ("none", "pae_root > [SP(2, 0x0) direct, SP(2, 0x40000) direct, SP(2, 0x80000) direct, SP(2, 0xc0000) direct]"),
        ("32-bit", "pae_root > [SP(2, 0x1), SP(2, 0x1) q1, SP(2, 0x1) q2, SP(2, 0x1) q3]"),
        ("PAE", PAE_ROOT),
        ("4-level", "SP(4, 0x1)"),
        ("5-level", "SP(5, 0x1)"),
    ],
)
@pytest.mark.parametrize("five", [False, True], ids=["4-level host", "5-level host"])
def test_without_nested_paging_the_guests_mode_decides_alone(mode: str, root: str, five: bool) -> None:
    for kernel in ("5.15", "5.19", "latest"):
        assert shape(shadowed(mode, kernel=kernel, five=five)) == root, kernel


@pytest.mark.parametrize(("levels", "root"), [(4, "SP(4, 0x20)"), (5, "SP(5, 0x20)")])
@pytest.mark.parametrize("five", [False, True], ids=["4-level host", "5-level host"])
def test_nested_ept_is_mirrored_as_deep_as_l1s_own_eptp_says(levels: int, root: str, five: bool) -> None:
    eptp = NPT_ROOT | 6 | (levels - 1) << 3
    state = play(*booted(intel(), five=five), *VM, slot(0, 16 * MIB))
    state = after(state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)))
    inside = after(state, ev.EnterNested(guest("none", 0), root=eptp), ev.GuestAccess(0))
    from engine.machine.access import loaded

    again = after(inside, ev.EnterNested(guest("none", 0), root=eptp))
    assert shape(loaded(again, vm(again), vcpu(again))) == root


@pytest.mark.parametrize(("eptp", "why"), [
    (NPT_ROOT | 6 | 2 << 3, "walk length - 1 2 is not supported"),
    (NPT_ROOT | 5 | 3 << 3, "memory type 5 is not supported"),
    (NPT_ROOT | 6 | 3 << 3 | 1 << 8, "bits 8 must be 0"),
    (NPT_ROOT | 6 | 3 << 3 | 1 << 50, "bits 50 must be 0"),
])  # fmt: skip
def test_an_eptp_that_l1_was_not_offered_fails_its_entry(eptp: int, why: str) -> None:
    state = play(*booted(intel(maxphyaddr=48)), *VM, slot(0, 16 * MIB))
    state = after(state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)))
    failed = after(state, ev.EnterNested(guest("none", 0), root=eptp))
    assert isinstance(failed.effect.fault, EntryFailure)
    assert why in failed.effect.fault.reason
    assert vcpu(failed).nested is None


def test_five_level_ept_is_offered_to_l1_where_the_processor_has_it() -> None:
    state = play(*booted(intel(walk5=False)), *VM, slot(0, 16 * MIB))
    state = after(state, ev.SetGuestRegisters(guest("4-level", L1_ROOT)))
    failed = after(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT | 6 | 4 << 3))
    assert isinstance(failed.effect.fault, EntryFailure)


# --- special roots


def test_special_roots_are_made_once_and_used_again() -> None:
    first = last_inside(3, True, "latest")
    again = after(first, ev.LeaveNested(), ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0))
    assert vcpu(again).parked is not None
    assert vcpu(again).parked.special == vcpu(first).special  # type: ignore[union-attr]


def test_the_bug_of_515_asks_for_a_level_5_root_on_a_4_level_host_too() -> None:
    """The first root is made; the second time two of three special roots exist, which KVM takes for an accident."""
    first = nested(3, False, "5.15", bugs=(Bug.SPECIAL_ROOTS,))
    assert first.effect.reflected is not None
    second = after(first, ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0))
    assert isinstance(second.effect.fault, EntryFailure)
    assert "mmu_alloc_special_roots()" in second.effect.fault.reason
    assert "-EIO" in second.effect.fault.reason
    mended = after(nested(3, False, "5.15"), ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0))
    assert mended.effect.fault is None


def test_the_bug_of_515_walks_from_a_special_root() -> None:
    """A 32-bit L1 on a 5-level host: FNAME(fetch)() uses a guest frame that its walk never found."""
    state = play(*booted(amd(), five=True, kernel="5.15", bugs=(Bug.WALK_START,)), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest("32-bit", L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, 0x10000), ev.EnterNested(guest("none", 0)), ev.GuestAccess(0x123),
    )  # fmt: skip
    reaction = state.effect.exits[-1].reaction
    assert reaction.result == "unknown"
    assert "special root" in reaction.actions[-1].did


def test_series_v1_warns_where_a_vcpu_takes_its_special_roots_to_the_other_depth() -> None:
    """Version 1 of the series reads CR4 at every initialisation: an MMU with special roots for four levels then wants
    five (section 9.1)."""
    state = play(*booted(amd(), five=False, kernel="series-v1"), *VM, slot(0, 16 * MIB))
    state = pae_tables(after(state, ev.SetGuestRegisters(guest("PAE", L1_ROOT))), NPT_ROOT)
    inside = after(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0))
    assert inside.effect.reflected is not None
    moved = after(inside, to(True), ev.MoveVcpu(1), ev.EnterNested(guest("none", 0), root=NPT_ROOT))
    assert vcpu(moved).role.level == 5
    failed = after(moved, ev.GuestAccess(0))
    assert isinstance(failed.effect.fault, EntryFailure)
    assert "only some of the special roots exist" in failed.effect.fault.reason


# --- the roots a vCPU had before


def kept(cpu: Vcpu) -> list[int]:
    return [root.pgd for root in (cpu.root, *cpu.previous) if isinstance(root, Root)]


def test_three_roots_are_kept_beside_the_one_in_use() -> None:
    state = shadowed("4-level", 0x1000)
    for pgd in (0x2000, 0x3000, 0x4000, 0x5000):
        state = after(state, ev.WriteGuestRegister("cr3", pgd), ev.GuestAccess(0x123))
    assert kept(vcpu(state)) == [0x5000, 0x4000, 0x3000, 0x2000]
    back = after(state, ev.WriteGuestRegister("cr3", 0x3000))
    assert kept(vcpu(back)) == [0x3000, 0x5000, 0x4000, 0x2000]
    assert back.effect.actions[0].function == "fast_pgd_switch()"


def test_special_roots_are_never_kept() -> None:
    state = after(shadowed("32-bit", 0x1000), ev.WriteGuestRegister("cr3", 0x2000))
    assert kept(vcpu(state)) == []
    assert vm(state).shadow.of_gfn(1)  # the tables themselves stay, to be found again


def test_a_root_in_no_memslot_is_a_dummy_and_the_guest_faults() -> None:
    state = shadowed("4-level", 0x9000_0000)
    assert vcpu(state).root is not None
    assert vcpu(state).root.dummy  # type: ignore[union-attr]
    assert state.effect.fault is not None
    assert state.effect.fault.error_code == 0  # type: ignore[union-attr]
