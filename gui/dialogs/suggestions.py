"""What the form of an event starts from: values that make sense in the state there is."""

from collections.abc import Callable
from itertools import count
from typing import Any

from engine import events as ev
from engine.arch.registers import Registers
from engine.kvm.vm import Vcpu, Vm
from engine.machine import State
from gui.presets import preset
from gui.templates import ADDRESS, L1_PAGES, L1_ROOT, L1_TABLES, L2_SIZE, L2_TARGET, PAGE, PATTERN, ROOT, TABLES, TARGET


def suggested(event_type: type, state: State) -> ev.Event:
    """An event of ``event_type`` to begin with; it may be refused still."""
    make = _MAKE.get(event_type)
    made: ev.Event = make(state) if make else event_type()
    return made


def _vm(state: State) -> Vm | None:
    """The newest VM."""
    return next((vm for vm in reversed(state.vms) if vm is not None), None)


def _vcpu(state: State) -> Vcpu | None:
    vm = _vm(state)
    return vm.vcpus[-1] if vm and vm.vcpus else None


def _on(state: State) -> dict[str, Any]:
    """The newest VM and its newest vCPU, as arguments of an event."""
    vm, vcpu = _vm(state), _vcpu(state)
    return {"vm": vm.index if vm else 0, "vcpu": vcpu.index if vcpu else 0}


def _in(state: State) -> dict[str, Any]:
    return {"vm": _on(state)["vm"]}


def _memslot(state: State) -> ev.Event:
    """Where no slot of the VM is: at 0, or in the next free GiB."""
    vm = _vm(state)
    slots = vm.slots if vm else ()
    size = 64 << 20
    free = next(gpa for gpa in count(0, 1 << 30) if all(gpa + size <= s.gpa or s.gpa + s.size <= gpa for s in slots))
    return ev.SetMemslot(gpa=free, size=size, **_in(state))


def _change_mode(state: State) -> ev.Event:
    """The last pCPU that can goes to the other depth."""
    pcpus = state.host.pcpus if state.host else ()
    able = [pcpu for pcpu in pcpus if not pcpu.lost and pcpu.features.la57]
    return ev.ChangeMode(able[-1].index, not able[-1].la57) if able else ev.ChangeMode(0, True)


def _move_vcpu(state: State) -> ev.Event:
    """To another pCPU than the one it is on."""
    vcpu = _vcpu(state)
    pcpus = state.host.pcpus if state.host else ()
    free = [p.index for p in pcpus if not p.lost and (vcpu is None or p.index != vcpu.pcpu)]
    return ev.MoveVcpu(free[0] if free else 0, **_on(state))


def _registers(state: State) -> Registers:
    """Those of the vCPU where it pages already, else 4-level paging with the tables that a mapping begins with."""
    vcpu = _vcpu(state)
    return vcpu.registers if vcpu and vcpu.registers.cr3 else preset("4-level").at(ROOT, cpl=3)


def _write_guest_register(state: State) -> ev.Event:
    vcpu = _vcpu(state)
    return ev.WriteGuestRegister("cr3", vcpu.registers.cr3 if vcpu else 0, **_on(state))


_IMAGE = ev.ImageRef("resource:debian-6.1-4level.core.gz")

_MAKE: dict[type, Callable[[State], ev.Event]] = {
    ev.SetMemslot: _memslot,
    ev.CreateVcpu: lambda state: ev.CreateVcpu(**_in(state)),
    ev.DestroyVm: lambda state: ev.DestroyVm(**_in(state)),
    ev.MapGuestPages: lambda state: ev.MapGuestPages(ROOT, TABLES, PAGE, TARGET, 4096, **_in(state)),
    ev.FillGuestPages: lambda state: ev.FillGuestPages(TARGET, (PATTERN,), 4096, **_in(state)),
    ev.SetGuestRegisters: lambda state: ev.SetGuestRegisters(_registers(state), **_on(state)),
    ev.GuestAccess: lambda state: ev.GuestAccess(ADDRESS, **_on(state)),
    ev.WriteGuestRegister: _write_guest_register,
    ev.InvalidatePage: lambda state: ev.InvalidatePage(ADDRESS, **_on(state)),
    ev.LoadNestedKvm: lambda state: ev.LoadNestedKvm(L1_ROOT, L1_TABLES, **_on(state)),
    ev.MapNestedPages: lambda state: ev.MapNestedPages(0, L1_PAGES, L2_SIZE, **_in(state)),
    ev.MapL2Pages: lambda state: ev.MapL2Pages(ROOT, TABLES, PAGE, L2_TARGET, 4096, **_in(state)),
    ev.FillL2Pages: lambda state: ev.FillL2Pages(L2_TARGET, (PATTERN,), 4096, **_in(state)),
    ev.EnterNested: lambda state: ev.EnterNested(preset("4-level").at(ROOT, cpl=3), **_on(state)),
    ev.LeaveNested: lambda state: ev.LeaveNested(**_on(state)),
    ev.InvalidateNested: lambda state: ev.InvalidateNested(**_on(state)),
    ev.Populate: lambda state: ev.Populate(**_on(state)),
    ev.MoveVcpu: _move_vcpu,
    ev.ChangeMode: _change_mode,
    ev.HostMemory: lambda state: ev.HostMemory(TARGET, **_in(state)),
    ev.OpenImage: lambda state: ev.OpenImage(_IMAGE),
    ev.RestoreGuest: lambda state: ev.RestoreGuest(_IMAGE),
    ev.ChooseCpu: lambda state: ev.ChooseCpu(0),
    ev.ChooseRoot: lambda state: ev.ChooseRoot(state.registers.cr3),
    ev.SetRegister: lambda state: ev.SetRegister("cr3", state.registers.cr3),
    ev.WriteRegister: lambda state: ev.WriteRegister("cr3", state.registers.cr3),
    ev.ChooseSecondStage: lambda state: ev.ChooseSecondStage("npt", state.registers.cr3, preset("4-level").at(0)),
    ev.AccessMemory: lambda state: ev.AccessMemory(0),
    ev.Poke: lambda state: ev.Poke(0, 0),
}
