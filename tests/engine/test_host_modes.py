"""The ways a pCPU's paging mode can change, what each needs, and what the pCPU can still do afterwards."""

from typing import Any

import pytest

from engine import events as ev
from engine.arch.faults import GeneralProtection
from engine.arch.registers import CR4
from engine.host import mm
from engine.host.modes import Root, Way
from engine.machine import Configuration, StaleHostCr4, State
from tests.engine.kvm_fixture import (
    GIB,
    MIB,
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
    slot,
    to,
    vm,
)

SAME, REBUILT = Root.SAME, Root.REBUILT


def host(five: bool = False, pcpus: int = 2, setup: Any = None) -> State:
    return play(ev.BootHost((setup or amd(),) * pcpus, five))


def pcpu(state: State, index: int) -> Any:
    assert state.host is not None
    return state.host.pcpus[index]


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("way", [Way.TRAMPOLINE, Way.HOTPLUG, Way.PARENT])
def test_one_pcpu_changes_and_lives_on_a_root_of_its_new_depth(five: bool, way: Way) -> None:
    state = after(host(five), to(not five, 1, way))
    assert (pcpu(state, 0).levels, pcpu(state, 1).levels) == ((5, 4) if five else (4, 5))
    assert not pcpu(state, 1).lost
    assert [walk.ok for walk in state.effect.walks] == [True, True]
    assert any(name.startswith("root:") for name in state.effect.assumed)


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("way", [Way.TRAMPOLINE, Way.HOTPLUG, Way.PARENT])
def test_with_the_root_it_had_the_pcpu_is_lost_before_any_vm_entry(five: bool, way: Way) -> None:
    state = after(host(five), to(not five, 1, way, SAME))
    assert "cannot be reached through root" in pcpu(state, 1).lost
    assert not state.effect.walks[0].ok
    assert "lost" in refusal(after(state, ev.LoadKvm(), *VM), ev.MoveVcpu(1))
    assert "is lost" in refusal(state, to(five))


@pytest.mark.parametrize("five", [False, True])
def test_suspend_takes_all_pcpus_at_once(five: bool) -> None:
    state = after(host(five, 4), to(not five, 2, Way.SUSPEND))
    assert {p.levels for p in state.host.pcpus} == {4 if five else 5}  # type: ignore[union-attr]
    gone = after(host(five, 4), to(not five, 2, Way.SUSPEND, SAME))
    assert all(p.lost for p in gone.host.pcpus)  # type: ignore[union-attr]


def test_mov_to_cr4_is_a_gp_and_nothing_changes() -> None:
    before = host()
    state = after(before, to(True, way=Way.MOV_CR4))
    assert isinstance(state.effect.fault, GeneralProtection)
    assert "CR4.LA57 cannot change while EFER.LMA = 1" in state.effect.fault.reason
    assert state.host == before.host
    assert state.memory is before.memory


@pytest.mark.parametrize(
    ("state", "event", "says"),
    [
        (host(setup=amd(la57=False)), to(True), "has no LA57"),
        (host(), to(False), "walks 4 levels already"),
        (host(), to(True, 0, Way.HOTPLUG), "cannot be taken offline"),
        (host(), to(True, 5), "There is no pCPU 5"),
        (play(*booted(), ev.CreateVm(), ev.CreateVcpu(pcpu=1)), to(True, 1, Way.HOTPLUG), "A vCPU is on pCPU 1"),
        (after(host(), to(True, 0, root=SAME)), to(True, 1, Way.SUSPEND), "pCPU 0, which would lead the others"),
    ],
)
def test_preconditions(state: State, event: ev.ChangeMode, says: str) -> None:
    assert says in refusal(state, event)


def test_there_and_back() -> None:
    state = after(host(), to(True), to(False))
    assert pcpu(state, 1).registers == pcpu(host(), 1).registers


def test_a_rebuilt_root_maps_what_the_vmm_mapped_since() -> None:
    """Both roots share their lower tables, so what is mapped later is seen through both."""
    state = play(*booted(), *VM, to(True), to(False), slot(0, MIB), ev.GuestAccess(0x1000), to(True))
    assert state.host is not None
    roots = dict(state.host.roots)
    pages = [mm.lookup(state.memory, levels, roots[levels], mm.VMM_BASE + 0x1000) for levels in (4, 5)]
    assert pages[0] is not None
    assert pages[0] == pages[1]


def test_a_pcpu_that_cannot_walk_as_deep_stays_offline() -> None:
    mixed = play(ev.BootHost((amd(), amd(la57=False)), five_level=True))
    assert mixed.effect.notes[-1] == "pCPU 1 lacks LA57, so it stays offline"
    assert "offline" in refusal(after(mixed, ev.LoadKvm(), *VM), ev.MoveVcpu(1))
    assert "offline" in refusal(mixed, to(False))
    online = after(mixed, to(False, way=Way.HOTPLUG))
    assert (pcpu(online, 1).online, pcpu(online, 1).levels, pcpu(online, 1).lost) == (True, 4, "")
    lost = after(mixed, to(False, way=Way.HOTPLUG, root=SAME))
    assert pcpu(lost, 1).lost
    slept = after(play(ev.BootHost((amd(), amd(la57=False)))), to(True, 0, Way.SUSPEND))
    assert (pcpu(slept, 0).levels, pcpu(slept, 1).online) == (5, False)
    four = play(ev.BootHost((amd(la57=False), amd()), five_level=True))
    assert {p.levels for p in four.host.pcpus} == {4}  # type: ignore[union-attr]


# --- kexec


@pytest.mark.parametrize(("five", "to_five"), [(False, False), (False, True), (True, False), (True, True)])
def test_kexec_boots_another_kernel_and_kvm_is_gone(five: bool, to_five: bool) -> None:
    state = play(*booted(five=five), *VM, slot(0, 64 * MIB), ev.GuestAccess(0x1000, WRITE, 8, 5))
    new = after(state, to(to_five, 0, Way.KEXEC))
    assert new.module is None
    assert new.vms == ()
    assert new.host is not None
    assert new.host.levels == (5 if to_five else 4)
    assert {p.levels for p in new.host.pcpus} == {new.host.levels}
    assert not any(p.lost for p in new.host.pcpus)
    assert new.host.frames.regions == play(ev.BootHost((amd(),))).host.frames.regions  # type: ignore[union-attr]
    # No level is stale: the new kernel's KVM captures the new depth, and guests run.
    again = after(new, ev.LoadKvm(), *VM, slot(0, 64 * MIB), ev.GuestAccess(0x1000))
    assert again.effect.livelock is None
    assert again.effect.loaded == 0


def test_kexec_into_another_depth_with_the_same_root_ends_there() -> None:
    gone = after(play(*booted()), to(True, 0, Way.KEXEC, SAME))
    assert all(p.lost for p in gone.host.pcpus)  # type: ignore[union-attr]
    assert gone.module is None
    kept = after(play(*booted()), to(False, 0, Way.KEXEC, SAME))
    assert not any(p.lost for p in kept.host.pcpus)  # type: ignore[union-attr]


# --- a parent hypervisor


def test_the_kernel_does_not_see_what_a_parent_does_to_cr4() -> None:
    state = after(play(*booted(kernel="series-v1")), to(True, way=Way.PARENT))
    assert pcpu(state, 1).levels == 5
    assert not pcpu(state, 1).cr4_shadow & CR4.LA57
    # Series v1 reads the kernel's copy: it builds 4 levels on a pCPU that walks 5.
    there = after(state, ev.CreateVm(), ev.CreateVcpu(pcpu=1), slot(0xFFF0_0000, MIB, read_only=True))
    assert vm(there).vcpus[0].role.level == 4
    assert accessed(there, 0xFFFF_FFF0).livelock is not None
    assert any(name.startswith("parent:") for name in state.effect.assumed)


@pytest.mark.parametrize(
    ("setting", "lost", "levels"), [(StaleHostCr4.LOST, True, 5), (StaleHostCr4.LOADED, True, 4)]
)  # fmt: skip
def test_on_vmx_the_next_exit_loads_the_kernels_copy(setting: StaleHostCr4, lost: bool, levels: int) -> None:
    """Which no source settles: a named assumption with a setting. LA57 back at 0, the 5-level root is no use."""
    configuration = Configuration(stale_host_cr4=setting)
    state = play(*booted(intel()), *VM, slot(0, MIB), ev.GuestAccess(0x1000), configuration=configuration)
    there = after(state, to(True, way=Way.PARENT), ev.MoveVcpu(1))
    assert accessed(there, 0x1000).exits == ()  # no exit, no trouble
    reached = after(there, ev.GuestAccess(0x2000))
    assert bool(pcpu(reached, 1).lost) == lost
    assert pcpu(reached, 1).levels == levels
    assert any(name.startswith("stale_host_cr4:") for name in reached.effect.assumed)
    for way in (Way.TRAMPOLINE, Way.SUSPEND):
        fine = after(state, to(True, way=way), ev.MoveVcpu(1), ev.GuestAccess(0x2000))
        assert fine.effect.walks[-1].ok


# --- booting


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (ev.BootHost(()), "1 to 8 pCPUs"),
        (ev.BootHost((amd(),) * 9), "1 to 8 pCPUs"),
        (ev.BootHost((amd(), intel())), "one vendor"),
        (ev.BootHost(ram_size=64 * MIB + 4096), "whole 2 MiB"),
        (ev.BootHost(ram_size=2 * MIB), "64 MiB to 64 TiB"),
        (ev.BootHost((amd(36),), ram_size=128 * GIB), "cannot reach"),
        (ev.BootHost(ram=(ev.RamRange(GIB, GIB), ev.RamRange(0, GIB))), "sorted"),
        (ev.BootHost(ram=(ev.RamRange(GIB, GIB),)), "not in the host's RAM"),
        (ev.BootHost(ram=(ev.RamRange(0, 0),)), "whole 2 MiB"),
    ],
)
def test_hosts_that_cannot_be(event: ev.BootHost, says: str) -> None:
    assert says in refusal(play(), event)


def test_nothing_answers_in_a_hole_of_the_ram_map() -> None:
    ram = (ev.RamRange(0, 3 * GIB), ev.RamRange(4 * GIB, GIB))
    state = play(ev.BootHost(ram=ram))
    assert state.memory.word(3 * GIB) is None
    assert state.memory.word(4 * GIB) == 0
    assert "no memory at" in refusal(state, ev.Poke(3 * GIB, 1))


def test_what_a_guest_stores_outside_ram_is_lost() -> None:
    """It made itself a nested entry that leads out of RAM (case A, its own word as the last entry)."""
    memory = (slot(0, 64 * MIB), ev.FillGuestPages(0x8, (0x3F_FFFF_F007,)), ev.GuestAccess(0), ev.GuestAccess(0x1000))
    state = on_pcpu(play(*booted(), *VM, *memory, to(True)), 1)
    for event in (ev.GuestAccess(0x1000), ev.GuestAccess(0x1000, WRITE, 8, 7), ev.GuestAccess(0x1000)):
        state = after(state, event)
        assert state.effect.walks[-1].ok
        assert state.effect.loaded is None
        assert any(name.startswith("outside_ram:") for name in state.effect.assumed)
    assert functions(state.effect) == set()
