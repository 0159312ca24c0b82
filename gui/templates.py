"""Scenarios to start from: short event lists that boot a host, load KVM, build a guest and let it read a page."""

from collections.abc import Callable
from typing import Literal

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.addresses import FRAME_SIZE
from engine.arch.registers import Features, Vendor
from engine.arch.rights import Kind
from engine.arch.second_stage import EptCapabilities
from engine.host.machine import PcpuSetup
from engine.host.modes import Root, Way
from engine.kvm.kernels import LATEST
from engine.kvm.module import Parameters
from engine.scenario import Scenario
from gui.presets import preset

translate = QCoreApplication.translate

AMD = PcpuSetup()
INTEL = PcpuSetup(features=Features(vendor=Vendor.INTEL, maxphyaddr=52), npt=False, ept=EptCapabilities())
BIOS_GPA, BIOS_SIZE = 0xFFFE_0000, 128 << 10
"""The VMM's firmware ends at 4 GiB: the reset vector is in its last 16 bytes."""
ROOT, TABLES = 0x0010_0000, 0x0010_1000
"""Guest-physical addresses of the guest's top-level table and of the tables below it."""
PAGE, TARGET = 0x7F12_3456_7000, 0x0200_0000
"""A guest-virtual page and the guest-physical one that it is mapped to."""
ADDRESS = PAGE + 0xABC
SELF = 0x7F12_4000_0000
"""Where a guest has its own tables mapped, to write them."""
PATTERN = 0x0123_4567_89AB_CDEF
L1_ROOT, L1_TABLES = 0x0040_0000, 0x0040_1000
"""L1-physical addresses of the top-level table that a hypervisor in the guest builds, and of the tables below it."""
L1_PAGES, L2_SIZE = 0x0200_0000, 0x20_0000
"""L1-physical address of the memory of the nested guest, and its size in bytes."""
L2_TARGET = 0x0018_0000
"""The L2-physical page that the nested guest's page is mapped to."""


class Template(msgspec.Struct, frozen=True):
    """``name`` and one sentence, ``summary``, for the user; the events are made when they are asked for."""

    key: str
    name: str
    summary: str
    events: Callable[[], tuple[ev.Event, ...]]

    def scenario(self) -> Scenario:
        return Scenario(events=self.events())


def _machine(setup: PcpuSetup, kernel: str, five_level: bool) -> tuple[ev.Event, ...]:
    """A host of two pCPUs, KVM, and a VM with memory, firmware and one vCPU."""
    return (
        ev.BootHost(pcpus=(setup, setup), five_level=five_level),
        ev.LoadKvm(kernel=kernel),
        *_vm(),
    )


def _vm() -> tuple[ev.Event, ...]:
    return (
        ev.CreateVm(),
        ev.SetMemslot(size=64 << 20),
        ev.SetMemslot(gpa=BIOS_GPA, size=BIOS_SIZE, read_only=True),
        ev.CreateVcpu(),
    )


def _guest(mode: Literal["4-level", "5-level"]) -> tuple[ev.Event, ...]:
    """A guest with tables of ``mode`` for one page of data, in user mode."""
    return (
        ev.MapGuestPages(root=ROOT, tables=TABLES, address=PAGE, target=TARGET, size=4096, mode=mode),
        ev.FillGuestPages(gpa=TARGET, words=(PATTERN,), size=4096),
        ev.SetGuestRegisters(registers=preset(mode).at(ROOT, cpl=3)),
    )


def _guest_reads(
    setup: PcpuSetup, kernel: str = LATEST, five_level: bool = False, mode: Literal["4-level", "5-level"] = "4-level"
) -> tuple[ev.Event, ...]:
    return (*_machine(setup, kernel, five_level), *_guest(mode), ev.GuestAccess(ADDRESS, size=4))


def _shadowed() -> tuple[ev.Event, ...]:
    """A guest without nested paging, whose tables KVM mirrors: it writes a page table, which may be out of sync until
    INVLPG, and a directory, where every write traps."""
    directory, table = TABLES + FRAME_SIZE, TABLES + 2 * FRAME_SIZE
    pde, pte = directory + (PAGE >> 21 & 511) * 8, table + (PAGE >> 12 & 511) * 8
    return (
        ev.BootHost(pcpus=(AMD, AMD)),
        ev.LoadKvm(parameters=Parameters(npt=False)),
        *_vm(),
        ev.MapGuestPages(root=ROOT, tables=TABLES, address=PAGE, target=TARGET, size=2 * FRAME_SIZE),
        ev.MapGuestPages(root=ROOT, tables=TABLES + 0x8000, address=SELF, target=TABLES, size=4 * FRAME_SIZE),
        ev.FillGuestPages(gpa=TARGET, words=(PATTERN,), size=FRAME_SIZE),
        ev.SetGuestRegisters(registers=preset("4-level").at(ROOT)),
        ev.GuestAccess(ADDRESS, size=4),
        ev.GuestAccess(SELF + pte - TABLES, Kind.WRITE, value=(TARGET + FRAME_SIZE) | 0x7),
        ev.InvalidatePage(PAGE),
        ev.GuestAccess(ADDRESS, size=4),
        ev.GuestAccess(SELF + pde - TABLES, Kind.WRITE, value=table | 0x27),
        ev.GuestAccess(ADDRESS, size=4),
    )


def _hypervisor() -> tuple[ev.Event, ...]:
    """A hypervisor with 4-level paging in a guest of a 5-level host, and its guest, which reads."""
    return (
        *_machine(AMD, LATEST, True),
        ev.SetGuestRegisters(registers=preset("4-level").at(ROOT)),
        ev.LoadNestedKvm(L1_ROOT, L1_TABLES),
        ev.MapNestedPages(0, L1_PAGES, L2_SIZE),
        ev.MapL2Pages(root=ROOT, tables=TABLES, address=PAGE, target=L2_TARGET, size=FRAME_SIZE),
        ev.FillL2Pages(gpa=L2_TARGET, words=(PATTERN,), size=FRAME_SIZE),
        ev.EnterNested(preset("4-level").at(ROOT, cpl=3)),
        ev.GuestAccess(ADDRESS, size=4),
        ev.GuestAccess(ADDRESS, size=4),
    )


def _mode_changes() -> tuple[ev.Event, ...]:
    return (
        *_guest_reads(AMD),
        ev.ChangeMode(pcpu=1, la57=True, way=Way.TRAMPOLINE, root=Root.REBUILT),
        ev.MoveVcpu(pcpu=1),
        ev.GuestAccess(ADDRESS, size=4),
        ev.GuestAccess(ADDRESS, Kind.WRITE, size=4, value=1),
    )


def templates() -> tuple[Template, ...]:
    """All of them, in the user's language."""
    return (
        Template(
            "amd-4", translate("Templates", "AMD host, 4-level"),
            translate("Templates", "Nested paging as it mostly is: a read of 24 references, 4 levels by 4."),
            lambda: _guest_reads(AMD),
        ),
        Template(
            "amd-5", translate("Templates", "AMD host, 5-level"),
            translate("Templates", "Host and guest run with LA57: a read of 35 references, 5 levels by 5."),
            lambda: _guest_reads(AMD, five_level=True, mode="5-level"),
        ),
        Template(
            "intel-ept", translate("Templates", "Intel host, EPT"),
            translate("Templates", "The EPTP says how deep the tables are, whatever mode the host is in."),
            lambda: _guest_reads(INTEL),
        ),
        Template(
            "linux-5.12", translate("Templates", "Linux 5.12 on a 5-level AMD host"),
            translate("Templates", "KVM builds 4 levels and the processor walks 5: the guest's read never ends."),
            lambda: _guest_reads(AMD, kernel="5.12", five_level=True),
        ),
        Template(
            "mode-change", translate("Templates", "The host's mode changes after kvm_init"),
            translate("Templates", "A pCPU goes 5-level, the vCPU moves there, and walks the same nested tables."),
            _mode_changes,
        ),
        Template(
            "npt-0", translate("Templates", "Shadow paging (npt=0)"),
            translate("Templates", "KVM mirrors the guest's own tables: a read of 4 references, and a table write."),
            _shadowed,
        ),
        Template(
            "nested", translate("Templates", "A hypervisor in the guest"),
            translate("Templates", "L1 has 4 levels for its guest, the 5-level host mirrors them with 5."),
            _hypervisor,
        ),
    )  # fmt: skip
