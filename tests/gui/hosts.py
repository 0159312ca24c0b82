"""Scenarios for tests of views that compare: a populated VM whose vCPU moves to a pCPU of another depth."""

from engine import events as ev
from engine.arch.rights import Kind
from engine.host.machine import PcpuSetup
from engine.scenario import Scenario
from gui.document import Document
from gui.presets import preset
from gui.templates import AMD, INTEL, PAGE, PATTERN, ROOT, TABLES, TARGET

POPULATED, CHANGED, MOVED, ACCESSED = 9, 10, 11, 12
"""Steps: before the mode change, after it, after the move, after an access there."""
SIZE = 64 << 20


def mode_change(five_level: bool, setup: PcpuSetup = AMD) -> tuple[ev.Event, ...]:
    """A host of 4 or 5 levels; pCPU 1 goes to the other depth, and the vCPU to pCPU 1, where the guest reads."""
    return (
        ev.BootHost(pcpus=(setup, setup), five_level=five_level),
        ev.LoadKvm(),
        ev.CreateVm(),
        ev.SetMemslot(size=SIZE),
        ev.CreateVcpu(),
        ev.MapGuestPages(root=ROOT, tables=TABLES, address=PAGE, target=TARGET, size=4096),
        ev.FillGuestPages(gpa=TARGET, words=(PATTERN,), size=4096),
        ev.SetGuestRegisters(registers=preset("4-level").at(ROOT, cpl=3)),
        ev.Populate(),
        ev.ChangeMode(pcpu=1, la57=not five_level),
        ev.MoveVcpu(pcpu=1),
        ev.GuestAccess(PAGE, Kind.READ, 4),
    )


def host_document(events: tuple[ev.Event, ...], step: int | None = None) -> Document:
    document = Document(lambda reference: None)
    document.open(Scenario(events=events), step)
    assert not any(document.replay.refusal(n) for n in range(1, len(events) + 1))
    return document


__all__ = ["ACCESSED", "CHANGED", "INTEL", "MOVED", "PAGE", "POPULATED", "SIZE", "host_document", "mode_change"]
