"""A timeline that reads at a glance: what every event says of itself, and how it turned out."""

from typing import get_args

import pytest

from engine import events as ev
from engine.arch.registers import CR4, Features, Registers, Vendor
from engine.arch.rights import Kind
from engine.host.machine import PcpuSetup
from engine.host.modes import Root, Way
from engine.kvm.kernels import Bug
from engine.kvm.module import Parameters
from engine.kvm.vm import GuestCpu
from engine.memory.library import Library
from engine.scenario import Replay, Scenario
from gui.describe import Line, describe
from gui.outcomes import Mark
from gui.presets import preset
from gui.templates import PAGE, ROOT, TARGET, templates
from gui.titles import ICONS, TITLES, short

IMAGE = ev.OpenImage(ev.ImageRef("resource:debian-6.1-4level.core.gz"))
LIBRARY = Library()


def line(*events: ev.Event) -> Line:
    """The line of the last of ``events``."""
    replay = Replay(Scenario(events=events), LIBRARY)
    return describe(events[-1], replay.state(len(events)), replay.refusal(len(events)))


def machine(key: str = "amd-4") -> tuple[ev.Event, ...]:
    return next(t for t in templates() if t.key == key).events()


def said(*events: ev.Event) -> tuple[str, str, str]:
    found = line(*events)
    return found.title, found.subtitle, found.mark.value


def test_every_event_has_words_and_an_icon() -> None:
    assert set(TITLES) == set(get_args(ev.Event))
    assert len(ICONS) > 5


@pytest.mark.parametrize(
    ("address", "text"),
    [(0, "0x0"), (0x1000, "0x1000"), (0xFFFE_0000, "0xfffe_0000"), (0x7F12_3456_7ABC, "0x7f12…7abc"),
     (0xFFFF_8880_0000_0000, "0xffff…0000")],
)  # fmt: skip
def test_long_addresses_are_cut_to_their_ends(address: int, text: str) -> None:
    assert short(address) == text


# --- a memory image


def test_an_image_says_how_it_pages() -> None:
    found = line(IMAGE)
    assert found.title == "debian-6.1-4level.core.gz is opened"
    assert found.subtitle.startswith("4-level paging, CR3 0x")


@pytest.mark.parametrize(
    ("event", "title", "subtitle"),
    [
        (ev.ChooseRoot(0x5000), "Tables at 0x5000 are walked", "CR3 set as by a debugger"),
        (ev.SetRegister("cr0", 0), "CR0 is set to 0x0", "as by a debugger, unchecked"),
        (ev.ChooseSecondStage("none"), "No second stage", "addresses are physical"),
        (ev.ChooseSecondStage("ept", 0x501E), "EPT translates further", "EPTP 0x501e"),
        (ev.Poke(0x8000, 0x63), "Entry at 0x8000 is overwritten", "now 0x63"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_changes_of_an_image(event: ev.Event, title: str, subtitle: str) -> None:
    assert said(IMAGE, event) == (title, subtitle, "ok")


def test_a_register_write_that_the_processor_rejects_is_refused() -> None:
    registers = Library()(IMAGE.image).cpus[0].registers
    ring0 = ev.SetRegister("cpl", 0)
    title, subtitle, mark = said(IMAGE, ring0, ev.WriteRegister("cr4", registers.cr4 ^ CR4.LA57))
    assert title.startswith("CR4 is written: 0x")
    assert subtitle == "#GP(0): CR4.LA57 cannot change while EFER.LMA = 1"
    assert mark == "refused"


def test_an_access_says_what_it_cost_or_how_it_failed() -> None:
    bare = ev.SetRegister("cr0", 1)
    assert said(IMAGE, bare, ev.AccessMemory(0x1000)) == ("Reads 0x1000", "0 references", "ok")
    title, subtitle, mark = said(IMAGE, ev.SetRegister("cpl", 3), ev.AccessMemory(0xFFFF_FFFF_8100_0000, Kind.WRITE))
    assert (title, subtitle, mark) == ("Writes 0xffff…0000", "#PF 0x6", "fault")


def test_what_cannot_happen_says_why() -> None:
    found = line(IMAGE, ev.ChooseCpu(7))
    assert found.title == "Registers of CPU 7 are taken"
    assert found.subtitle == "There is no CPU 7: the image has the registers of 1."
    assert found.mark is Mark.REFUSED


# --- a host with KVM


@pytest.mark.parametrize(
    ("before", "event", "title", "subtitle"),
    [
        (0, ev.BootHost(), "Host boots, 2 pCPUs", "4-level"),
        (0, ev.BootHost(five_level=True), "Host boots, 2 pCPUs", "5-level"),
        (0, ev.BootHost(pcpus=(PcpuSetup(),)), "Host boots, 1 pCPU", "4-level"),
        (
            0,
            ev.BootHost(pcpus=(PcpuSetup(features=Features(vendor=Vendor.AMD, la57=False)),), five_level=True),
            "Host boots, 1 pCPU",
            "4-level: pCPU 0 lacks LA57",
        ),
        (1, ev.LoadKvm(), "kvm_init, Linux 7.0-era", "captures max TDP level 4"),
        (2, ev.UnloadKvm(), "KVM is unloaded", "the next load captures anew"),
        (3, ev.CreateVm(), "VM 1 is created", "KVM_CREATE_VM"),
        (3, ev.CreateVcpu(), "vCPU 0 on pCPU 0", "MAXPHYADDR 48, LA57"),
        (6, ev.CreateVcpu(pcpu=1, cpuid=GuestCpu(la57=False)), "vCPU 1 on pCPU 1", "MAXPHYADDR 48, no LA57"),
        (3, ev.SetMemslot(), "Memslot of 64 MiB at 0x0", "4K pages, scattered"),
        (3, ev.SetMemslot(read_only=True), "Memslot of 64 MiB at 0x0", "read-only, 4K pages, scattered"),
        (10, ev.DeleteMemslot(slot=0), "Memslot 0 is deleted", "all roots are invalid; 5 tables are freed"),
        (9, ev.SetGuestRegisters(Registers()), "Registers of vCPU 0 are set", "paging is off"),
        (7, ev.FillGuestPages(TARGET, (1,), 8192), "Guest memory is filled", "8 KiB at 0x200_0000"),
        (9, ev.Populate(slot=1), "Memslot 1 is populated", "1 faults, 31 further pages like them"),
        (10, ev.MoveVcpu(pcpu=1), "vCPU 0 moves to pCPU 1", "a new ASID; nCR3 stays"),
        (10, ev.ZapGuest(), "KVM zaps VM 0", "all roots are invalid; 5 tables are freed"),
        (10, ev.ZapGuest(TARGET, 4096), "KVM zaps 4 KiB at 0x200_0000", "1 SPTEs are zapped"),
        (
            10,
            ev.HostMemory(TARGET),
            "Host moves the page behind 0x200_0000",
            "1 SPTEs are zapped",
        ),
        (10, ev.DirtyLogging(on=False), "Dirty logging of slot 0: off", "nothing changes: dirty logging is off"),
        (
            10,
            ev.FlushTlb(),
            "TLBs of VM 0 are flushed",
            "no translation cache is modelled: every access walks anew",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ev._Event) else None,
)  # fmt: skip
def test_events_on_the_host(before: int, event: ev.Event, title: str, subtitle: str) -> None:
    assert said(*machine()[:before], event) == (title, subtitle, "ok")


def test_a_guest_maps_and_reads() -> None:
    events = machine()
    assert said(*events[:7]) == ("Guest maps 0x7f12…7000", "4 KiB to 0x200_0000, 4-level tables", "ok")
    assert said(*events) == ("Guest reads 0x7f12…7abc", "24 references after 5 exits", "ok")
    assert said(*events, events[-1]) == ("Guest reads 0x7f12…7abc", "24 references", "ok")


def test_a_fault_of_the_guest_is_its_own() -> None:
    events = machine()
    read_only = ev.MapGuestPages(
        root=ROOT, tables=ROOT + 0x8000, address=PAGE + 0x1000, target=TARGET, size=4096, write=False
    )
    write = ev.GuestAccess(PAGE + 0x1000, Kind.WRITE)
    assert said(*events, read_only, write) == ("Guest writes 0x7f12…8000", "#PF 0x7 in the guest", "fault")
    assert said(*events, ev.GuestAccess(1 << 63)) == ("Guest reads 0x8000…0000", "#GP(0) in the guest", "fault")


def test_an_address_without_memory_is_a_device() -> None:
    events = machine()
    device = ev.MapGuestPages(root=ROOT, tables=ROOT + 0x8000, address=0x1000, target=0xFEE0_0000, size=4096)
    assert said(*events, device, ev.GuestAccess(0x1000))[1:] == ("MMIO: a device of the VMM gets it", "ok")


def test_what_kvm_emulates_says_so() -> None:
    events = machine()
    off = ev.SetGuestRegisters(Registers(cr0=1))
    assert said(*events, off, ev.GuestAccess(0xFEE0_0000, Kind.FETCH, 1))[1:] == ("KVM cannot emulate it", "fault")


def test_an_access_that_never_ends_is_a_hazard() -> None:
    assert said(*machine("linux-5.12")) == ("Guest reads 0x7f12…7abc", "#NPF, then again, …", "hazard")


def test_kvm_that_takes_the_host_for_what_it_is_not_is_a_hazard() -> None:
    title, subtitle, mark = said(*machine("linux-5.12")[:2])
    assert title == "kvm_init, Linux 5.12 and before"
    assert subtitle == "captures max TDP level 4, pCPU 0 walks 5"
    assert mark == "hazard"


def test_a_mode_that_changes_under_kvm_is_a_hazard_and_names_the_way() -> None:
    found = line(*machine("mode-change")[:11])
    assert found == Line(
        "mode",
        "pCPU 1 goes 5-level",
        "trampoline: CR4.LA57 = 1",
        Mark.HAZARD,
        "Assumed: root: the host has tables of the new depth at hand, mapping the same.",
    )


def test_a_vcpu_that_moves_to_a_pcpu_of_another_depth_takes_its_tables_along() -> None:
    assert said(*machine("mode-change")[:12])[1:] == ("same nCR3: 4 levels, walked as 5", "hazard")


def test_intel_does_not_mind_the_host_mode() -> None:
    change = ev.ChangeMode(pcpu=1, la57=True)
    assert said(*machine("intel-ept"), change) == ("pCPU 1 goes 5-level", "trampoline: CR4.LA57 = 1", "assumed")


@pytest.mark.parametrize(
    ("event", "title", "start", "mark"),
    [
        (
            ev.ChangeMode(pcpu=1, la57=True, way=Way.MOV_CR4),
            "pCPU 1 goes 5-level",
            "#GP(0): CR4.LA57 cannot change while EFER.LMA = 1",
            "refused",
        ),
        (
            ev.ChangeMode(pcpu=1, la57=True, root=Root.SAME),
            "pCPU 1 goes 5-level",
            "lost: its next instruction",
            "fault",
        ),
        (ev.ChangeMode(pcpu=1, la57=True, way=Way.SUSPEND), "Host goes 5-level", "suspend: CR4.LA57 = 1", "assumed"),
        (ev.ChangeMode(pcpu=1, la57=False), "pCPU 1 goes 4-level", "pCPU 1 walks 4 levels already.", "refused"),
    ],
    ids=["MOV CR4", "same root", "suspend", "no change"],
)
def test_ways_for_a_mode_to_change(event: ev.Event, title: str, start: str, mark: str) -> None:
    found = line(ev.BootHost(), event)
    assert found.title == title
    assert found.subtitle.startswith(start)
    assert found.mark.value == mark


def test_a_guest_that_reaches_another_page_than_its_own_is_a_hazard() -> None:
    """Somebody writes another frame into the last nested entry: the walk goes through, to the wrong place."""
    events = machine()
    replay = Replay(Scenario(events=events), LIBRARY)
    leaf = replay.state(len(events)).effect.walks[-1].steps[-1]
    assert leaf.address is not None
    assert leaf.value is not None
    astray = ev.Poke(leaf.address, leaf.value ^ 0x1000)
    assert said(*events, astray, events[-1])[1:] == ("24 references, to a wrong page", "hazard")


def test_a_refusal_of_kvm_is_told_with_its_reason() -> None:
    title, subtitle, mark = said(ev.BootHost(five_level=True), ev.LoadKvm(kernel="5.13"))
    assert title.startswith("kvm_init, Linux 5.13")
    assert subtitle.startswith("kvm_init refuses: KVM doesn't yet support 5-level paging")
    assert mark == "refused"


def test_registers_of_every_preset_name_their_mode() -> None:
    events = machine()[:6]
    modes = {key: said(*events, ev.SetGuestRegisters(preset(key).at(0x1000)))[1] for key in ("PAE", "5-level")}
    assert modes == {"PAE": "PAE paging, CR3 0x1000", "5-level": "5-level paging, CR3 0x1000"}


# --- shadow paging


def test_a_guest_whose_tables_are_mirrored() -> None:
    events = machine("npt-0")
    lines = [said(*events[: n + 1]) for n in range(len(events))]
    assert lines[1] == ("kvm_init, Linux 7.0-era", "shadow paging: nested paging is off", "ok")
    assert lines[10:] == [
        ("Guest reads 0x7f12…7abc", "4 references after 1 exit", "ok"),
        ("Guest writes 0x7f12…2b38", "4 references after 1 exit", "ok"),  # a page table may be out of sync
        ("Guest executes INVLPG 0x7f12…7000", lines[12][1], "ok"),
        ("Guest reads 0x7f12…7abc", "4 references after 1 exit", "ok"),
        ("Guest writes 0x7f12…1d10", "KVM emulates the write to a mirrored table; 1 SPTE dropped", "ok"),
        ("Guest reads 0x7f12…7abc", "4 references after 1 exit", "ok"),
    ]
    assert lines[12][1].startswith("the SPTE at 0x")


def test_what_is_out_of_sync_is_not_wrong() -> None:
    """Before INVLPG the old page is a right answer; one that somebody else wrote into KVM's table is not."""
    events = machine("npt-0")
    assert said(*events[:12], events[10])[1:] == ("4 references", "ok")
    replay = Replay(Scenario(events=events[:11]), LIBRARY)
    leaf = replay.state(11).effect.walks[-1].steps[-1]
    assert leaf.address is not None
    assert leaf.value is not None
    astray = ev.Poke(leaf.address, leaf.value ^ 0x1000)
    assert said(*events[:11], astray, events[10])[1:] == ("4 references, to a wrong page", "hazard")


def test_a_fault_that_kvm_injects_is_the_guests_own() -> None:
    """The hardware's #PF is about KVM's tables; the guest gets one about its own."""
    found = said(*machine("npt-0")[:11], ev.GuestAccess(0x1000, Kind.WRITE))
    assert found == ("Guest writes 0x1000", "#PF 0x2 in the guest", "fault")


def test_a_vcpu_without_nested_paging_does_not_mind_the_depth_of_its_pcpu() -> None:
    events = (*machine("npt-0")[:11], ev.ChangeMode(pcpu=1, la57=True))
    assert said(*events)[2] == "assumed"
    assert said(*events, ev.MoveVcpu(pcpu=1))[2] == "ok"


def test_a_register_that_the_guest_may_not_write_is_refused() -> None:
    found = said(*machine("npt-0")[:11], ev.WriteGuestRegister("cr4", 0))
    assert found == ("Guest writes CR4: 0x0", "#GP(0): CR4.PAE cannot be cleared while EFER.LMA = 1", "refused")


# --- a hypervisor inside a VM

L1 = machine("nested")
ENTERED = 12
"""Events up to the entry."""
L2_FAULTS = (ev.MapL2Pages(ROOT, ROOT + 0x8000, PAGE + 0x1000, 0x40_0000, 4096), ev.GuestAccess(PAGE + 0x1000))
"""L2 maps a page to memory that L1 has given it none of."""


def test_l1_and_l2_say_who_they_are() -> None:
    assert [said(*L1[: n + 1])[:2] for n in range(7, len(L1))] == [
        ("kvm_init in VM 0", "captures 4-level, on vCPU 0"),
        ("L1 maps L2-physical 0x0", "2 MiB to L1-physical 0x200_0000"),
        ("L2 maps 0x7f12…7000", "4 KiB to 0x18_0000, 4-level tables"),
        ("L2 memory is filled", "4 KiB at 0x18_0000"),
        ("L2 is entered on vCPU 0", "4-level NPT of L1, 5 levels for L0"),
        ("L2 reads 0x7f12…7abc", "29 references; 5 exits to L0"),
        ("L2 reads 0x7f12…7abc", "29 references"),
    ]
    assert said(*L1, ev.LeaveNested())[0] == "L2 exits to L1 on vCPU 0"
    assert said(*L1, ev.InvalidatePage(PAGE))[0] == "L2 executes INVLPG 0x7f12…7000"
    assert said(*L1, ev.LeaveNested(), ev.InvalidateNested())[0] == "L1 executes INVEPT"


def test_an_exit_that_l1_gets_says_so_with_the_fields_that_it_finds() -> None:
    found = line(*L1, *L2_FAULTS)
    assert (found.title, found.subtitle) == ("L2 reads 0x7f12…8000", "#NPF reflected to L1: not present")
    assert found.mark is Mark.FAULT
    assert "L1 finds exit_info_2 = 0x400000: kept from the hardware's exit" in found.tip.splitlines()


def test_l1_that_maps_more_writes_tables_that_are_mirrored() -> None:
    more = ev.MapNestedPages(0x40_0000, 0x280_0000, 0x1000)
    assert said(*L1, ev.LeaveNested(), more)[1] == "1 store to a mirrored table traps"


def test_l1_that_changed_its_mode_is_a_hazard_at_its_entry() -> None:
    """L0 reads L1's tables in the mode that L1 is in now, whatever they were built for (reference page, 8.7)."""
    change = ev.SetGuestRegisters(preset("5-level").at(ROOT))
    found = said(*L1, ev.LeaveNested(), change, ev.EnterNested(preset("4-level").at(ROOT)))
    assert found == ("L2 is entered on vCPU 0", "L1 built its tables as 4-level, they are read as 5-level", "hazard")


def test_an_entry_that_fails_says_why() -> None:
    found = said(*L1[: ENTERED - 1], ev.EnterNested(preset("4-level").at(ROOT), root=1 << 50))
    assert found[1].startswith("the entry fails: nCR3 of VMCB12 has bits beyond L1's MAXPHYADDR")
    assert found[2] == "fault"


def test_a_root_that_kvm_cannot_make_says_so() -> None:
    """The special-root check of 5.15: the second load of a PAE hypervisor's root fails."""
    enter, pae = ev.EnterNested(Registers(), root=0x20000), preset("PAE").at(0x1000)
    start = (
        ev.BootHost(), ev.LoadKvm("5.15", Parameters(bugs=(Bug.SPECIAL_ROOTS,))), *L1[2:6],
        ev.FillGuestPages(0x1000, (0x50001, 0, 0, 0)), ev.FillGuestPages(0x20000, (0x50001, 0, 0, 0)),
        ev.SetGuestRegisters(pae), enter, ev.GuestAccess(0),
    )  # fmt: skip
    found = line(*start, enter, ev.GuestAccess(0))
    assert (found.subtitle, found.mark) == ("kvm_mmu_load fails: -EIO", Mark.FAULT)
    assert "mmu_alloc_special_roots()" in found.tip


def test_a_refused_access_after_an_exit_to_l1_is_not_l2s() -> None:
    lost = ev.ChangeMode(pcpu=0, la57=False, root=Root.SAME)
    assert said(*L1, *L2_FAULTS, lost, ev.GuestAccess(PAGE))[0] == "Guest reads 0x7f12…7000"
