"""Hosts, guests and accesses for tests of KVM, in as few words as a table row has."""

from typing import Any

import msgspec

from engine import events as ev
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.rights import Access, Kind
from engine.arch.second_stage import EptCapabilities
from engine.arch.walk import Walk
from engine.host.machine import PcpuSetup
from engine.host.mm import Placement
from engine.host.modes import Root, Way
from engine.kvm.memslots import Backing, Pages
from engine.kvm.module import Parameters
from engine.kvm.vm import Vcpu, Vm
from engine.machine import Configuration, Effect, Refusal, State, apply, start
from engine.machine.access import physical_access
from engine.machine.look import Place, look
from engine.memory.library import Library

MIB, GIB = 1 << 20, 1 << 30
LIBRARY = Library()
READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH


def amd(maxphyaddr: int = 48, **features: Any) -> PcpuSetup:
    return PcpuSetup(features=Features(vendor=Vendor.AMD, maxphyaddr=maxphyaddr, **features))


def intel(maxphyaddr: int = 52, **capabilities: Any) -> PcpuSetup:
    features = Features(vendor=Vendor.INTEL, maxphyaddr=maxphyaddr)
    return PcpuSetup(features=features, npt=False, ept=EptCapabilities(**capabilities))


def booted(
    setup: PcpuSetup | None = None, five: bool = False, kernel: str = "latest", ram: int = 4 * GIB, **parameters: Any
) -> tuple[ev.Event, ...]:
    """A host of two alike pCPUs with KVM loaded."""
    setups = (setup or amd(),) * 2
    return ev.BootHost(setups, five, ram), ev.LoadKvm(kernel, Parameters(**parameters))


def slot(gpa: int, size: int, pages: Pages = Pages.SMALL, at: int | None = None, **more: Any) -> ev.SetMemslot:
    """``at``: contiguous memory from that HPA on; None: scattered."""
    placement = Placement.SCATTERED if at is None else Placement.CONTIGUOUS
    return ev.SetMemslot(0, gpa, size, Backing(pages=pages, placement=placement, at=at or 0), **more)


VM = (ev.CreateVm(), ev.CreateVcpu())


def to(la57: bool, pcpu: int = 1, way: Way = Way.TRAMPOLINE, root: Root = Root.REBUILT) -> ev.ChangeMode:
    return ev.ChangeMode(pcpu, la57, way, root)


def guest(mode: str, cr3: int, cpl: int = 0, wp: bool = True) -> Registers:
    """A guest's registers in a paging ``mode``; "none": paging is off."""
    cr0 = int(CR0.PE | (CR0.WP if wp else 0))
    if mode == "none":
        return Registers(cr0=cr0, cpl=cpl)
    cr4 = {"32-bit": CR4.PSE, "PAE": CR4.PAE, "4-level": CR4.PAE, "5-level": CR4.PAE | CR4.LA57}[mode]
    long = mode in ("4-level", "5-level")
    efer = EFER.NXE | (EFER.LME | EFER.LMA if long else 0) if mode != "32-bit" else 0
    return Registers(cr0=int(cr0 | CR0.PG), cr3=cr3, cr4=int(cr4), efer=int(efer), cpl=cpl, cs_l=long)


def after(state: State | None, *events: ev.Event, configuration: Configuration | None = None) -> State:
    """The state after ``events``, none of which may be refused."""
    now = state if state is not None else start(configuration or Configuration())
    for event in events:
        reached = apply(now, event, LIBRARY)
        assert not isinstance(reached, Refusal), f"{event}: {reached}"
        now = reached
    return now


def play(*events: ev.Event, configuration: Configuration | None = None) -> State:
    return after(None, *events, configuration=configuration)


def refusal(state: State, event: ev.Event) -> str:
    reached = apply(state, event, LIBRARY)
    assert isinstance(reached, Refusal), f"{event} is not refused"
    return reached.reason


def vm(state: State, number: int = 0) -> Vm:
    found = state.vms[number]
    assert found is not None
    return found


def vcpu(state: State, number: int = 0) -> Vcpu:
    return vm(state).vcpus[number]


def on_pcpu(state: State, pcpu: int) -> State:
    return after(state, ev.MoveVcpu(pcpu))


def walked(state: State, gpa: int, kind: Kind = READ) -> Walk:
    """What the hardware makes of guest-physical ``gpa``, without asking KVM."""
    found = look(state, gpa, Access(kind), Place(physical=True))
    assert isinstance(found, Walk)
    return found


def accessed(state: State, gpa: int, kind: Kind = READ) -> Effect:
    """What an access to guest-physical ``gpa`` comes to, with KVM."""
    return physical_access(state, vm(state), vcpu(state), gpa, kind).effect


def results(effect: Effect) -> list[str]:
    return [each.reaction.result for each in effect.exits]


def functions(effect: Effect) -> set[str]:
    """The kernel functions that were involved."""
    return {a.function for a in effect.actions} | {a.function for e in effect.exits for a in e.reaction.actions}


def fingerprint(state: State) -> Any:
    """All of a state in a form that compares equal where two states are."""
    parts = {name: getattr(state, name) for name in state.__struct_fields__ if name not in ("memory", "image", "host")}
    host = state.host
    rest: tuple[Any, ...] = ()
    if host is not None:
        taken = sorted((pfn, host.frames.taken.get(pfn)) for pfn in host.frames.taken)
        bare = msgspec.structs.replace(host.frames, taken=None)  # type: ignore[arg-type]
        rest = (host.pcpus, host.levels, host.roots, taken, bare)
    return state.memory.digest(), parts, rest
