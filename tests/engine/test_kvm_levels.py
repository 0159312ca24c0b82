"""Which depth KVM captures, what each vCPU gets of it, and what becomes of that when the host's mode changes."""

import pytest

from engine import events as ev
from engine.arch.faults import EntryFailure
from engine.host.machine import PcpuSetup
from engine.host.modes import Way
from engine.kvm.kernels import KERNELS, Bug
from engine.kvm.module import Parameters, actual, would_capture
from engine.kvm.vm import GuestCpu
from tests.engine.kvm_fixture import (
    FETCH,
    MIB,
    VM,
    accessed,
    after,
    amd,
    booted,
    functions,
    guest,
    intel,
    on_pcpu,
    play,
    refusal,
    results,
    slot,
    to,
    vcpu,
)

RESET_VECTOR = 0xFFFF_FFF0
BIOS = slot(0xFFF0_0000, MIB, read_only=True)

AMD, EPT5, EPT4 = amd(52), intel(), intel(walk5=False)
SINCE_5_15 = ("5.15", "5.19", "latest")


@pytest.mark.parametrize(
    ("setup", "host_la57", "guest_maxphyaddr", "kernels", "level"),
    [
        (AMD, False, (36, 48, 52), ("5.12", "5.13", *SINCE_5_15, "series-v1", "series-v2"), 4),
        (AMD, True, (36, 48, 52), ("5.12",), 4),  # and so it is broken from the start
        (AMD, True, (36, 48, 52), (*SINCE_5_15, "series-v1", "series-v2"), 5),
        (EPT5, False, (36, 48), tuple(KERNELS), 4),
        (EPT5, True, (36, 48), tuple(KERNELS), 4),
        (EPT5, False, (49, 52), tuple(KERNELS), 5),
        (EPT5, True, (49, 52), tuple(KERNELS), 5),
        (EPT4, False, (36, 52), tuple(KERNELS), 4),
        (EPT4, True, (36, 52), tuple(KERNELS), 4),
        # What the forced level prevents: the rule for EPT, applied to NPT.
        (AMD, True, (36, 48), ("unforced",), 4),
        (AMD, True, (49, 52), ("unforced",), 5),
    ],
)  # fmt: skip
def test_tdp_level(
    setup: PcpuSetup, host_la57: bool, guest_maxphyaddr: tuple[int, ...], kernels: tuple[str, ...], level: int
) -> None:
    for kernel in kernels:
        for bits in guest_maxphyaddr:
            state = play(
                *booted(setup, host_la57, kernel), ev.CreateVm(), ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=bits))
            )
            assert vcpu(state).role.level == level, f"{kernel}, MAXPHYADDR {bits}"


def test_5_13_does_not_load_on_a_5_level_amd_host() -> None:
    host = play(ev.BootHost((AMD, AMD), five_level=True))
    assert "KVM doesn't yet support 5-level paging on AMD SVM" in refusal(host, ev.LoadKvm("5.13"))
    on_intel = play(ev.BootHost((EPT5, EPT5), five_level=True), ev.LoadKvm("5.13"))
    assert on_intel.module is not None


# --- the overlay of section 9.6: how KVM runs a guest at the reset vector, before and after a change of pCPU 1


def outcome(*events: ev.Event) -> str:
    """ "runs", or "endless at level n": where the hardware stops for ever."""
    effect = accessed(play(*events), RESET_VECTOR, FETCH)
    if effect.livelock is None:
        return "runs"
    return f"endless at level {effect.walks[-1].steps[-1].level.level}"


@pytest.mark.parametrize(
    ("kernel", "la57_at_load", "unchanged", "changed"),
    [
        ("5.12", False, "runs", "endless at level 4"),
        ("5.12", True, "endless at level 4", "runs"),  # its 4 levels are right once the host walks 4
        ("5.13", False, "runs", "endless at level 4"),
        ("series-v2", False, "runs", "endless at level 4"),
        ("series-v2", True, "runs", "endless at level 3"),
        ("5.15", False, "runs", "endless at level 4"),
        ("5.15", True, "runs", "endless at level 3"),
        ("5.19", False, "runs", "endless at level 4"),
        ("5.19", True, "runs", "endless at level 3"),
        ("latest", False, "runs", "endless at level 4"),
        ("latest", True, "runs", "endless at level 3"),
    ],
)
def test_versions_on_amd(kernel: str, la57_at_load: bool, unchanged: str, changed: str) -> None:
    """4 -> 5 stops at level 4 (PDPT entry 0), 5 -> 4 at level 3 (PML4 entry 3), as section 9.5 has it."""
    loaded = booted(AMD, la57_at_load, kernel)
    assert outcome(*loaded, *VM, BIOS) == unchanged
    assert outcome(*loaded, to(not la57_at_load), *VM, BIOS, ev.MoveVcpu(1)) == changed


@pytest.mark.parametrize("la57_at_load", [False, True])
def test_series_v1_follows_the_pcpu_that_initialises_the_mmu(la57_at_load: bool) -> None:
    host = (*booted(AMD, la57_at_load, "series-v1"), to(not la57_at_load), ev.CreateVm())
    there = play(*host, ev.CreateVcpu(pcpu=1), BIOS)
    assert vcpu(there).role.level == (4 if la57_at_load else 5)
    assert accessed(there, RESET_VECTOR, FETCH).livelock is None
    # Roots built before keep their depth ...
    moved = play(*host, ev.CreateVcpu(pcpu=0), BIOS, ev.GuestAccess(RESET_VECTOR, FETCH, 1), ev.MoveVcpu(1))
    assert accessed(moved, RESET_VECTOR, FETCH).livelock is not None
    # ... until the MMU is initialised anew, on the changed pCPU.
    again = after(moved, ev.SetGuestRegisters(guest("none", 0)))
    assert vcpu(again).role.level == (4 if la57_at_load else 5)
    assert accessed(again, RESET_VECTOR, FETCH).livelock is None


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != "series-v1"])
def test_no_other_version_asks_again(kernel: str) -> None:
    state = play(*booted(AMD, False, kernel), *VM, to(True), ev.MoveVcpu(1), ev.SetGuestRegisters(guest("none", 0)))
    assert vcpu(state).role.level == 4


def test_a_new_vm_is_built_in_the_stale_depth_too() -> None:
    """All pCPUs changed: with the captured level, nothing that comes later is better."""
    changed = play(*booted(AMD), to(True, 0, Way.SUSPEND))
    assert {p.levels for p in changed.host.pcpus} == {5}  # type: ignore[union-attr]
    assert accessed(after(changed, *VM, BIOS), RESET_VECTOR, FETCH).livelock is not None
    reloaded = after(changed, ev.UnloadKvm(), ev.LoadKvm("series-v2"), *VM, BIOS)
    assert accessed(reloaded, RESET_VECTOR, FETCH).livelock is None
    # The merged version asks the kernel, which does not know: loading it again does not help.
    merged = after(changed, ev.UnloadKvm(), ev.LoadKvm(), *VM, BIOS)
    assert accessed(merged, RESET_VECTOR, FETCH).livelock is not None


def test_hotplug_is_let_through_by_the_compatibility_check() -> None:
    for kernel in ("5.13", "latest"):
        state = play(*booted(AMD, False, kernel), to(True, way=Way.HOTPLUG))
        assert "kvm_x86_check_processor_compatibility()" in functions(state.effect)
        assert outcome(*booted(AMD, False, kernel), to(True, way=Way.HOTPLUG), *VM, BIOS, ev.MoveVcpu(1)) != "runs"


@pytest.mark.parametrize("host_la57", [False, True])
@pytest.mark.parametrize(("bits", "level"), [(48, 4), (52, 5)])
def test_ept_is_unaffected_because_the_eptp_tells_the_depth(host_la57: bool, bits: int, level: int) -> None:
    created = (ev.CreateVm(), ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=bits)), slot(0, 64 * MIB))
    state = play(*booted(EPT5, host_la57), *created, ev.GuestAccess(0x1000))
    moved = after(state, to(not host_la57), ev.MoveVcpu(1))
    for gpa in (0x1000, 0x2000):
        effect = accessed(moved, gpa)
        assert effect.walks[-1].ok
        assert effect.walks[-1].references == level
        assert not effect.assumed


def test_a_pcpu_without_5_level_ept_refuses_the_entry() -> None:
    five = ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=52))
    state = play(ev.BootHost((EPT5, EPT4)), ev.LoadKvm(), ev.CreateVm(), five, slot(0, 64 * MIB), ev.MoveVcpu(1))
    fault = accessed(state, 0x1000).fault
    assert isinstance(fault, EntryFailure)
    assert "walk length" in fault.reason


# --- what is captured, and beside it what there is now


def test_every_captured_value_says_when_where_and_by_whom() -> None:
    for setup in (AMD, EPT5):
        for kernel in KERNELS:
            module = play(*booted(setup, kernel=kernel)).module
            assert module is not None
            assert all(c.function and c.when and c.depends for c in module.captured)
            assert {c.pcpu for c in module.captured} == {0}


@pytest.mark.parametrize(
    ("kernel", "captured", "captured_again"),
    [("5.12", 4, 4), ("5.13", 4, 4), ("series-v1", 4, 5), ("series-v2", 4, 5), ("5.15", 4, 4), ("latest", 4, 4)],
)
def test_captured_beside_what_would_be_captured_beside_what_is(kernel: str, captured: int, captured_again: int) -> None:
    state = play(*booted(AMD, False, kernel), to(True))
    assert state.module is not None
    assert state.host is not None
    assert state.module.max_tdp_level == captured
    assert would_capture(state.module, state.host, 1)["max_tdp_level"] == captured_again
    assert actual(state.module, state.host, 1)["max_tdp_level"] == 5
    assert actual(state.module, state.host, 0)["max_tdp_level"] == 4


@pytest.mark.parametrize(
    ("setup", "event", "says"),
    [
        (PcpuSetup(virtualization=False), ev.LoadKvm(), "SVM is not supported"),
        (amd(nx=False), ev.LoadKvm(), "kvm_amd needs NX"),
        (AMD, ev.LoadKvm("latest", Parameters(bugs=(Bug.WALK_START,))), "never had this"),
        (AMD, ev.LoadKvm("4.4"), "There is no kernel"),
        (AMD, ev.LoadKvm(pcpu=7), "There is no pCPU 7"),
    ],
)
def test_refusals(setup: PcpuSetup, event: ev.LoadKvm, says: str) -> None:
    assert says in refusal(play(ev.BootHost((setup, setup))), event)


@pytest.mark.parametrize(
    ("second", "five", "loads"),
    [
        (amd(la57=False), False, True),  # the kernel has cleared the flag everywhere
        (amd(la57=False), True, True),  # offline, so not compared
        (amd(pku=False), False, False),
        (amd(smap=False), True, False),
    ],
)
def test_compatibility_compares_what_cpuid_allows(second: PcpuSetup, five: bool, loads: bool) -> None:
    host = play(ev.BootHost((amd(), second), five))
    if loads:
        assert after(host, ev.LoadKvm()).module is not None
    else:
        assert "-EIO" in refusal(host, ev.LoadKvm())


def test_5_15_has_its_bugs_as_switches() -> None:
    module = play(*booted(AMD, False, "5.15", bugs=(Bug.SPECIAL_ROOTS, Bug.WALK_START))).module
    assert module is not None
    assert module.parameters.bugs == (Bug.SPECIAL_ROOTS, Bug.WALK_START)


def test_moving_keeps_the_root_and_asks_for_no_mode() -> None:
    state = play(*booted(AMD), *VM, BIOS, ev.GuestAccess(RESET_VECTOR, FETCH, 1), to(True))
    moved = on_pcpu(state, 1)
    assert vcpu(moved).root == vcpu(state).root
    assert functions(moved.effect) == {"pre_svm_run()"}
    assert results(accessed(on_pcpu(moved, 0), RESET_VECTOR, FETCH)) == []


@pytest.mark.parametrize(
    ("setup", "parameters"),
    [
        (AMD, {"npt": False}),
        (PcpuSetup(npt=False), {}),
        (EPT5, {"ept": False}),
        (intel(walk4=False), {}),
        (intel(write_back=False), {}),
    ],
)
def test_without_nested_paging_kvm_loads_and_mirrors_tables(setup: PcpuSetup, parameters: dict[str, bool]) -> None:
    state = play(*booted(setup, **parameters), *VM)
    assert state.module is not None
    assert not state.module.tdp_enabled
    assert not state.module.tdp_mmu
    assert vcpu(state).role.level == 3  # a guest without paging is mapped by PAE tables
