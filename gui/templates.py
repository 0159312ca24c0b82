"""Scenarios to start from: short event lists that boot a host, load KVM, build a guest and let it read a page."""

from collections.abc import Callable
from typing import Literal

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.registers import Features, Vendor
from engine.arch.rights import Kind
from engine.arch.second_stage import EptCapabilities
from engine.host.machine import PcpuSetup
from engine.host.modes import Root, Way
from engine.kvm.kernels import LATEST
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
PATTERN = 0x0123_4567_89AB_CDEF


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
    )  # fmt: skip
