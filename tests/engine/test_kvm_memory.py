"""How guest memory comes to be mapped: page sizes, rights, devices, dirty logging, ageing; what the host moves."""

from typing import Any

import msgspec
import pytest

from engine import events as ev
from engine.arch.faults import EptMisconfiguration, PageFault, Translated
from engine.host.mm import Placement
from engine.kvm.memslots import Backing, Pages
from engine.kvm.vm import GuestCpu
from engine.machine import State
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
    guest,
    intel,
    play,
    refusal,
    results,
    slot,
    vcpu,
    vm,
    walked,
)

AMD, EPT = amd(48), intel()
NO_AD = intel(accessed_dirty=False)
W, USER_DATA = 2, 0x1122_3344_5566_7788


def mapped_at(state: State, gpa: int) -> tuple[int, int]:
    """(level, SPTE) of the leaf that maps ``gpa``."""
    step = walked(state, gpa).steps[-1]
    assert step.is_leaf, step
    assert step.value is not None
    return step.level.level, step.value


def level_of(state: State, gpa: int, kind: Any = READ) -> int:
    return mapped_at(after(state, ev.GuestAccess(gpa, kind, 1)), gpa)[0]


def shaken(setup: Any = AMD, *events: ev.Event, **parameters: Any) -> State:
    return play(*booted(setup, ram=16 * GIB, **parameters), *VM, *events)


# --- page sizes (reference page, 5.8)


@pytest.mark.parametrize("setup", [AMD, EPT])
@pytest.mark.parametrize(
    ("memory", "gpa", "level"),
    [
        (slot(0, 64 * MIB), 0x40_0000, 1),
        (slot(0, 64 * MIB, Pages.THP), 0x40_0000, 2),
        (slot(0, 64 * MIB, Pages.HUGE_2M), 0x40_0000, 2),
        (slot(0, 2 * GIB, Pages.HUGE_1G), GIB, 3),
        # The first and last parts of a slot that are not whole large pages.
        (slot(0x10_0000, 63 * MIB, Pages.THP), 0x10_0000, 1),
        (slot(0x10_0000, 63 * MIB, Pages.THP), 0x20_0000, 2),
        (slot(0x10_0000, 63 * MIB, Pages.HUGE_2M), 0x10_0000, 1),  # the host's page is large all the same
        (slot(0, 0x3F_0000, Pages.THP), 0x20_0000, 1),
        # A VMM that mapped the memory at an odd place: large pages in the host, small ones in KVM.
        (slot(0, 64 * MIB, Pages.THP, hva=0x7E00_0000_1000), 0x40_0000, 1),
        (slot(0, 64 * MIB, Pages.THP, hva=0x7E00_0020_0000), 0x40_0000, 2),
        # Contiguous memory at an address that large pages cannot have.
        (slot(0, 64 * MIB, Pages.THP, at=0x4000_1000), 0x40_0000, 1),
        (slot(0, 64 * MIB, Pages.THP, at=0x4020_0000), 0x40_0000, 2),
    ],
)  # fmt: skip
def test_the_level_of_a_mapping(setup: Any, memory: ev.Event, gpa: int, level: int) -> None:
    assert level_of(shaken(setup, memory), gpa) == level


def test_ept_without_large_pages_maps_small_ones() -> None:
    assert level_of(shaken(intel(page1gb=False), slot(0, 2 * GIB, Pages.HUGE_1G)), 0) == 2
    assert level_of(shaken(intel(page1gb=False, page2mb=False), slot(0, 2 * GIB, Pages.HUGE_1G)), 0) == 1


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        (slot(0x1000, MIB + 1), "not a multiple of 4 KiB"),
        (slot(1 << 47, 1 << 48), "ends above"),
        (slot(0, MIB), "overlaps slot 0"),
        (slot(GIB, 2 * MIB, Pages.HUGE_2M, hva=0x7E00_0000_1000), "lie differently"),
        (slot(GIB, 2 * MIB, Pages.HUGE_2M, at=0x1000_1000), "align it"),
        (slot(GIB, 2 * MIB, at=1 << 46), "not in the host's RAM"),
        (slot(GIB, 2 * MIB, at=16 * MIB), "in use already"),
        (slot(GIB, 1 << 42), "not in the address space of a process"),
        (slot(GIB, 2 * MIB, hva=0x7F00_0000_0000), "in use by another slot"),
    ],
)
def test_slots_that_are_refused(memory: ev.Event, says: str) -> None:
    assert says in refusal(shaken(AMD, slot(0, 64 * MIB)), memory)


def test_a_guest_without_ram_left_gets_an_error_and_no_crash() -> None:
    state = play(*booted(AMD, ram=64 * MIB), *VM, slot(0, 128 * MIB))
    for gpa in range(0, 128 * MIB, 4096):
        state = after(state, ev.FillGuestPages(gpa, (1,))) if gpa < 40 * MIB else state
    while not (effect := accessed(state, gpa)).exits[-1].reaction.result.startswith("-"):
        state, gpa = after(state, ev.GuestAccess(gpa - 60 * MIB)), gpa - 4096
    assert effect.exits[-1].reaction.result in ("-EFAULT", "-ENOMEM")


# --- rights


def test_a_read_only_slot_is_readable_and_executable_and_a_store_goes_to_the_vmm() -> None:
    state = shaken(AMD, slot(0, MIB, read_only=True))
    for kind in (READ, FETCH):
        assert accessed(state, 0x1000, kind).walks[-1].ok
    for present in (state, after(state, ev.GuestAccess(0x1000))):
        effect = accessed(present, 0x1000, WRITE)
        assert effect.mmio
        assert "kvm_handle_error_pfn()" in functions(effect)


def test_nx_huge_pages_are_split_by_a_fetch_and_stay_split() -> None:
    state = shaken(AMD, slot(0, 64 * MIB, Pages.THP), nx_huge_pages=True)
    data = after(state, ev.GuestAccess(0x1000))
    level, spte = mapped_at(data, 0x1000)
    assert (level, spte >> 63) == (2, 1)
    fetched = after(data, ev.GuestAccess(0x1000, FETCH, 1))
    assert "tdp_mmu_split_huge_page()" in functions(fetched.effect)
    level, spte = mapped_at(fetched, 0x1000)
    assert (level, spte >> 63) == (1, 0)
    zapped = after(fetched, ev.ZapGuest(0x5000, 4096))
    again = after(zapped, ev.GuestAccess(0x5000))
    assert "disallowed_hugepage_adjust()" in functions(again.effect)
    assert mapped_at(again, 0x5000)[0] == 1


@pytest.mark.parametrize(("kernel", "tdp_mmu"), [("5.15", True), ("5.15", False), ("latest", False), ("latest", True)])
def test_data_and_code_in_one_large_page_do_not_fight(kernel: str, tdp_mmu: bool) -> None:
    state = shaken(AMD, slot(0, 64 * MIB, Pages.THP), nx_huge_pages=True, kernel=kernel, tdp_mmu=tdp_mmu)
    for _ in range(3):
        for gpa, kind in ((0x1000, FETCH), (0x2000, READ), (0x3000, WRITE)):
            state = after(state, ev.GuestAccess(gpa, kind, 1))
            assert state.effect.livelock is None
    assert accessed(state, 0x1000, FETCH).exits == ()


# --- devices


@pytest.mark.parametrize(
    ("setup", "kernel", "made"),
    [
        (amd(48), "latest", True),
        (amd(52), "latest", False),  # bit 51 is an address bit: no MMIO SPTEs
        (amd(52), "5.12", True),  # they have a mark of their own, not present to hardware
        (EPT, "latest", True),
        (EPT, "5.12", True),
    ],
)
def test_mmio_sptes(setup: Any, kernel: str, made: bool) -> None:
    state = after(shaken(setup, slot(0, MIB), kernel=kernel), ev.GuestAccess(0xFEE0_0000))
    assert state.effect.mmio
    assert ("mark_mmio_spte()" in functions(state.effect)) == made
    second = accessed(state, 0xFEC0_0000)
    third = accessed(after(state, ev.GuestAccess(0xFEC0_0000)), 0xFEE0_0000)
    assert second.mmio
    assert third.mmio
    if made and setup.features.maxphyaddr < 52:
        assert "handle_mmio_page_fault()" in functions(third)
    if setup is EPT:
        assert isinstance(third.walks[-1].outcome, EptMisconfiguration)


def test_an_mmio_spte_of_an_older_generation_gives_way_to_memory() -> None:
    for setup in (AMD, EPT):
        state = after(shaken(setup, slot(0, MIB)), ev.GuestAccess(0x4000_0000), ev.GuestAccess(0x5000_0000))
        plugged = after(state, slot(0x4000_0000, MIB))
        effect = accessed(plugged, 0x4000_0000)
        assert "check_mmio_spte()" in functions(effect)
        assert effect.walks[-1].ok


def test_a_fetch_from_a_device_cannot_be_emulated() -> None:
    effect = accessed(shaken(AMD, slot(0, MIB)), 0xFEE0_0000, FETCH)
    assert effect.emulated is not None
    assert effect.emulated.failed


# --- the emulator


def guest_with_tables_in(read_only: bool, setup: Any = AMD) -> State:
    """A guest whose page table is in a ROM: the VMM wrote it before it was one."""
    memory = slot(0x20_0000, MIB)
    tables = ev.MapGuestPages(0x20_0000, 0x20_1000, 0x7000, 0x5000, 4096)
    state = shaken(setup, slot(0, MIB), memory, tables, ev.FillGuestPages(0x5000, (USER_DATA,)))
    the_slot = vm(state).slots[1]
    rom = vm(state).with_slot(msgspec.structs.replace(the_slot, read_only=read_only))
    return after(state.with_vm(rom), ev.SetGuestRegisters(guest("4-level", 0x20_0000)))


@pytest.mark.parametrize("setup", [AMD, EPT])
def test_a_guest_with_its_tables_in_rom_is_emulated_access_by_access(setup: Any) -> None:
    """Hardware wants to write to guest tables (A/D); KVM's emulator walks them itself and leaves them alone."""
    state = after(guest_with_tables_in(True, setup), ev.GuestAccess(0x7000))
    assert state.effect.emulated is not None
    assert state.effect.loaded == USER_DATA
    stored = after(state, ev.GuestAccess(0x7000, WRITE, 8, 0x99), ev.GuestAccess(0x7000))
    assert stored.effect.loaded == 0x99
    absent = after(state, ev.GuestAccess(0x9000))
    assert isinstance(absent.effect.fault, PageFault)
    assert absent.effect.fault.error_code == 0
    assert vcpu(absent).registers.cr2 == 0x9000
    assert after(guest_with_tables_in(False, setup), ev.GuestAccess(0x7000)).effect.emulated is None


@pytest.mark.parametrize("smaller", [False, True])
def test_a_smaller_maxphyaddr_than_the_hosts(smaller: bool) -> None:
    """The hardware goes by its own MAXPHYADDR; with allow_smaller_maxphyaddr KVM makes up for it."""
    narrow = ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=36))
    memory = (slot(0, 16 * MIB), ev.MapGuestPages(0x1_0000, 0x1_1000, 0x7000, 1 << 40, 4096, write=False))
    state = play(*booted(EPT, allow_smaller_maxphyaddr=smaller), ev.CreateVm(), narrow, *memory)
    state = after(state, ev.SetGuestRegisters(guest("4-level", 0x1_0000)))
    read = after(state, ev.GuestAccess(0x7000)).effect
    write = after(state, ev.GuestAccess(0x7000, WRITE)).effect
    if smaller:
        assert isinstance(read.fault, PageFault)
        assert read.fault.error_code == 0b1001  # P and RSVD, by the guest's own MAXPHYADDR
        assert isinstance(write.walks[-1].outcome, PageFault)
        assert isinstance(write.fault, PageFault)
        assert (write.walks[-1].outcome.error_code, write.fault.error_code) == (0b0011, 0b1011)
    else:
        assert read.mmio
        assert write.fault is None


# --- dirty logging


@pytest.mark.parametrize("setup", [AMD, EPT])
def test_dirty_logging_takes_w_and_a_write_gives_it_back_without_the_lock(setup: Any) -> None:
    state = after(shaken(setup, slot(0, MIB)), ev.GuestAccess(0x1000, WRITE, 8, 1))
    logging = after(state, ev.DirtyLogging())
    assert "1 SPTEs lose W" in logging.effect.notes[-1]
    assert not mapped_at(logging, 0x1000)[1] & W
    assert accessed(logging, 0x1000, READ).exits == ()
    written = after(logging, ev.GuestAccess(0x1000, WRITE, 8, 2))
    assert {"fast_page_fault()", "mark_page_dirty_in_slot()"} <= functions(written.effect)
    assert results(written.effect) == ["RET_PF_FIXED"]
    assert mapped_at(written, 0x1000)[1] & W


@pytest.mark.parametrize(
    ("kernel", "at_once"), [("5.15", False), ("5.19", True), ("latest", True)]
)  # fmt: skip
def test_large_pages_are_logged_as_small_ones(kernel: str, at_once: bool) -> None:
    state = after(shaken(AMD, slot(0, 4 * MIB, Pages.THP), kernel=kernel), ev.GuestAccess(0x1000, WRITE, 8, 1))
    logging = after(state, ev.DirtyLogging())
    assert mapped_at(logging, 0x1000)[0] == (1 if at_once else 2)
    written = after(logging, ev.GuestAccess(0x2000, WRITE, 8, 2))
    assert mapped_at(written, 0x2000)[0] == 1
    over = after(written, ev.DirtyLogging(False))
    assert "1 tables give way" in over.effect.notes[-1]
    assert level_of(over, 0x1000) == 2
    assert after(over, ev.GuestAccess(0x2000)).effect.loaded == 2


# --- what the host does underneath


def test_a_page_that_moves_keeps_its_content_and_is_found_again() -> None:
    state = after(shaken(AMD, slot(0, MIB)), ev.GuestAccess(0x1000, WRITE, 8, USER_DATA))
    before = walked(state, 0x1000).outcome
    moved = after(state, ev.HostMemory(0x1000), ev.GuestAccess(0x1000))
    assert isinstance(before, Translated)
    assert moved.effect.walks[-1].outcome != before
    assert moved.effect.loaded == USER_DATA
    assert results(moved.effect) == ["RET_PF_FIXED"]
    assert moved.host is not None
    assert moved.host.frames.owner(before.address >> 12) is None


def test_a_page_that_is_unmapped_is_a_zero_page_at_the_next_touch() -> None:
    state = after(
        shaken(AMD, slot(0, MIB)), ev.GuestAccess(0x1000, WRITE, 8, USER_DATA), ev.HostMemory(0x1000, "unmap")
    )
    assert after(state, ev.GuestAccess(0x1000)).effect.loaded == 0


def test_pages_that_collapse_are_mapped_large_from_then_on() -> None:
    stores = [ev.GuestAccess(0x20_0000 + n * 0x1000, WRITE, 8, n) for n in range(4)]
    state = after(shaken(AMD, slot(0, 8 * MIB)), *stores)
    collapsed = after(state, ev.HostMemory(0x20_2000, "collapse"), ev.GuestAccess(0x20_2000))
    assert collapsed.effect.loaded == 2
    assert mapped_at(collapsed, 0x20_2000)[0] == 2
    assert "handle_removed_pt()" in functions(collapsed.effect)
    assert after(collapsed, ev.GuestAccess(0x20_3000)).effect.loaded == 3


@pytest.mark.parametrize(
    ("memory", "event", "says"),
    [
        (slot(0, MIB), ev.HostMemory(0x1000), "no page behind"),
        (slot(0, MIB), ev.HostMemory(0x1000, "collapse"), "does not hold the whole 2 MiB"),
        (slot(0, 4 * MIB, Pages.THP), ev.HostMemory(0, "collapse"), "large page is mapped here already"),
        (slot(0, MIB, at=0x4000_0000), ev.HostMemory(0), "pinned"),
        (slot(0, MIB), ev.HostMemory(1 << 40), "No memslot"),
    ],
)
def test_what_the_host_cannot_do(memory: ev.SetMemslot, event: ev.HostMemory, says: str) -> None:
    state = after(shaken(AMD, memory), ev.GuestAccess(0))
    assert says in refusal(state, event)


def test_ageing_with_a_flag_takes_the_flag_and_without_one_takes_the_rights() -> None:
    for setup in (AMD, EPT):
        state = after(shaken(setup, slot(0, MIB)), ev.GuestAccess(0x1000), ev.HostMemory(0x1000, "age"))
        assert "1 SPTEs" in state.effect.notes[-1]
        assert accessed(state, 0x1000).exits == ()
    state = after(shaken(NO_AD, slot(0, MIB)), ev.GuestAccess(0x1000, WRITE, 8, 5), ev.HostMemory(0x1000, "age"))
    step = walked(state, 0x1000).steps[-1]
    assert step.value is not None
    assert step.value & 0b111 == 0
    for kind, value in ((READ, 5), (FETCH, 5)):
        effect = after(state, ev.GuestAccess(0x1000, kind, 1)).effect
        assert functions(effect) >= {"fast_page_fault()"}
        assert effect.loaded == value
    assert after(state, ev.GuestAccess(0x1000, WRITE, 8, 6), ev.GuestAccess(0x1000)).effect.loaded == 6


@pytest.mark.parametrize("kernel", ["5.12", "5.15", "latest"])
def test_a_tree_without_flags_says_so_in_every_spte(kernel: str) -> None:
    state = after(shaken(NO_AD, slot(0, MIB), kernel=kernel), ev.GuestAccess(0x1000))
    assert [step.value >> 52 & 3 for step in walked(state, 0x1000).steps if step.value] == [1, 1, 1, 1]
    leaf = mapped_at(state, 0x1000)[1]
    assert leaf >> 8 & 3 == (3 if kernel == "latest" else 0)
    assert vcpu(state).role.ad_disabled


# --- VMs come and go


def test_what_a_vm_had_is_given_back_and_can_be_used_again() -> None:
    empty = shaken(AMD)
    memory = [
        slot(0, 64 * MIB, Pages.HUGE_2M),
        slot(GIB, MIB),
        slot(2 * GIB, 16 * MIB, at=0x4000_0000),
        slot(4 * GIB, GIB, Pages.HUGE_1G),
    ]
    touches = [ev.GuestAccess(gpa, WRITE, 8, 7) for gpa in (0x1000, 0x4000_0000, 0x8000_0000)]
    full = after(empty, *memory, *touches, ev.Populate(slot=3))
    gone = after(full, ev.DestroyVm())
    assert empty.host is not None
    assert gone.host is not None
    assert sorted(gone.host.frames.taken) == sorted(empty.host.frames.taken)
    assert gone.host.frames.regions == empty.host.frames.regions
    same = [msgspec.structs.replace(m, vm=1) for m in memory]
    again = after(gone, ev.CreateVm(), ev.CreateVcpu(vm=1), *same)
    loads = [after(again, ev.GuestAccess(a.address, vm=1)).effect.loaded for a in touches]
    assert loads == [0, 0, 0]  # nobody sees what another VM left


def test_tables_can_be_built_where_another_vm_had_data() -> None:
    """The frames are the host's old ones; what was in them is gone before anything is read as a table."""
    state = play(*booted(), *VM, slot(0, 16 * MIB))
    state = after(state, ev.FillGuestPages(0, (0x83_0000_0007,), 16 * MIB), ev.DestroyVm())
    again = msgspec.structs.replace(slot(0, 16 * MIB), vm=1)
    pages = ev.MapGuestPages(root=0x1000, tables=0x2000, address=0x4000_0000, target=0, size=16 * MIB, vm=1)
    assert after(state, ev.CreateVm(), again, pages).effect.fault is None


def test_deleting_a_slot_drops_all_tables_and_its_memory() -> None:
    state = after(shaken(AMD, slot(0, MIB), slot(GIB, MIB)), ev.GuestAccess(0x1000, WRITE, 8, 3), ev.GuestAccess(GIB))
    gone = after(state, ev.DeleteMemslot(slot=1))
    assert vm(gone).roots == ()
    assert accessed(gone, GIB).mmio
    assert after(gone, ev.GuestAccess(0x1000)).effect.loaded == 3


def test_two_vcpus_share_the_root_of_their_role() -> None:
    state = play(*booted(AMD), ev.CreateVm(), ev.CreateVcpu(), ev.CreateVcpu(pcpu=1), slot(0, MIB))
    both = after(state, ev.GuestAccess(0x1000, WRITE, 8, 9), ev.GuestAccess(0x1000, vcpu=1))
    assert both.effect.exits == ()
    assert both.effect.loaded == 9
    assert len(vm(both).roots) == 1


def test_an_old_kernel_makes_a_new_root_when_the_guest_changes_its_mode() -> None:
    for kernel, roots in (("5.12", 2), ("5.15", 2), ("latest", 1)):
        state = after(shaken(AMD, slot(0, MIB), kernel=kernel), ev.GuestAccess(0x1000))
        mapped = (
            ev.MapGuestPages(0x1_0000, 0x1_1000, 0x1000, 0x1000, 4096),
            ev.SetGuestRegisters(guest("4-level", 0x1_0000)),
        )
        assert len(vm(after(state, *mapped, ev.GuestAccess(0x1000))).roots) == roots


@pytest.mark.parametrize(
    ("registers", "says"),
    [
        (guest("5-level", 0), "a reserved bit of CR4"),
        (guest("4-level", 1 << 50), "MAXPHYADDR"),
        (guest("none", 0).__class__(cr0=1 << 31), "CR0"),
        (guest("none", 0).__class__(efer=1 << 10), "long mode"),
    ],
)
def test_registers_that_kvm_refuses(registers: Any, says: str) -> None:
    state = play(*booted(AMD), ev.CreateVm(), ev.CreateVcpu(cpuid=GuestCpu(la57=False)))
    assert says in refusal(state, ev.SetGuestRegisters(registers))


def test_a_guest_from_an_image_runs_its_own_tables() -> None:
    image = ev.ImageRef("resource:debian-6.1-4level.core.gz")
    state = play(*booted(EPT), ev.RestoreGuest(image, Backing(placement=Placement.SCATTERED)))
    registers = vcpu(state).registers
    text = after(state, ev.GuestAccess(0xFFFF_FFFF_8100_0000, READ, 1))
    assert registers.cr3
    assert text.effect.walks[-1].steps
