"""What a scenario with a host still lacks, and the events that would mend it: empty states say what to do next."""

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.registers import Mode
from engine.machine import State
from gui.presets import preset
from gui.templates import PAGE, ROOT, TABLES, TARGET

translate = QCoreApplication.translate


class Offer(msgspec.Struct, frozen=True):
    """``event``: filled in as far as it is known; ``ready``: nothing is left to choose. ``label``: of its button."""

    label: str
    event: ev.Event
    ready: bool = False


class NextStep(msgspec.Struct, frozen=True):
    """``advice``: one sentence."""

    advice: str
    offers: tuple[Offer, ...]


def next_step(state: State) -> NextStep | None:
    """The first thing that is missing before a guest can access memory; None where nothing is."""
    if state.host is None:
        return _boot()
    if state.module is None:
        advice = translate("NextStep", "KVM is not loaded. What it takes the host for is captured when it is.")
        return NextStep(advice, (Offer(translate("NextStep", "Load KVM…"), ev.LoadKvm()),))
    vms = [vm for vm in state.vms if vm is not None and not vm.dead]
    if not vms:
        advice = translate("NextStep", "There is no VM yet.")
        return NextStep(advice, (Offer(translate("NextStep", "Create a VM"), ev.CreateVm(), ready=True),))
    for vm in vms:
        missing = []
        if not vm.slots:
            missing.append(Offer(translate("NextStep", "Add memory…"), ev.SetMemslot(vm=vm.index)))
        if not vm.vcpus:
            missing.append(Offer(translate("NextStep", "Add a vCPU…"), ev.CreateVcpu(vm=vm.index)))
        if missing:
            advice = translate("NextStep", "VM {vm} needs memory and a vCPU before it can run.")
            return NextStep(advice.format(vm=vm.index), tuple(missing))
        for vcpu in vm.vcpus:
            if vcpu.registers.mode is Mode.NONE and vcpu.nested is None:
                return _guest(vm.index, vcpu.index)
    return None


def _boot() -> NextStep:
    advice = translate("NextStep", "No host yet. Boot one, or start from a scenario that is ready.")
    return NextStep(advice, (Offer(translate("NextStep", "Boot a host…"), ev.BootHost()),))


def _guest(vm: int, vcpu: int) -> NextStep:
    advice = translate("NextStep", "vCPU {vcpu} does not page yet: map something, then set its registers.")
    pages = ev.MapGuestPages(root=ROOT, tables=TABLES, address=PAGE, target=TARGET, size=4096, vm=vm)
    registers = ev.SetGuestRegisters(registers=preset("4-level").at(ROOT, cpl=3), vm=vm, vcpu=vcpu)
    offers = (
        Offer(translate("NextStep", "Map guest pages…"), pages),
        Offer(translate("NextStep", "Set registers…"), registers),
    )
    return NextStep(advice.format(vcpu=vcpu), offers)
