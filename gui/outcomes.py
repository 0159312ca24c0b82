"""How an event turned out, in a few words and a mark: references, faults, hazards. Read off the state after it."""

from collections.abc import Iterator
from enum import Enum

from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    PageFault,
    Translated,
    Unknown,
)
from engine.arch.registers import Vendor
from engine.arch.walk import Walk
from engine.host.machine import Host, Pcpu
from engine.kvm.module import Module, tdp_level
from engine.machine import Livelock, State
from engine.machine.intended import intended
from gui.explain import engine_text, outcome_title, references

translate = QCoreApplication.translate
WIDEST_GUEST = 52
"""The MAXPHYADDR of a guest for which KVM builds tables as deep as it can."""


class Mark(Enum):
    """How an event turned out, the gravest news first."""

    REFUSED = "refused"
    FAULT = "fault"
    HAZARD = "hazard"
    ASSUMED = "assumed"
    OK = "ok"


Outcome = tuple[Mark, str]
"""A mark, and a few words; '' where there is nothing to say."""
NOTHING: Outcome = (Mark.OK, "")


def outcome(event: ev.Event, state: State) -> Outcome:
    """How ``event`` turned out; ``state`` is the one after it."""
    fault = state.effect.fault
    match event:
        case ev.GuestAccess():
            return _guest_access(event, state)
        case ev.AccessMemory():
            return _walked(state.effect.walks)
        case ev.WriteRegister() if isinstance(fault, GeneralProtection | Unknown):
            return Mark.REFUSED, _raised(fault)
        case ev.ChangeMode():
            return _mode_change(event, state)
        case ev.LoadKvm():
            return _captured(state)
        case ev.MoveVcpu():
            return _moved(event, state)
    return NOTHING


# --- accesses


def _guest_access(event: ev.GuestAccess, state: State) -> Outcome:
    effect = state.effect
    if isinstance(effect.fault, EntryFailure):
        text = translate("Outcomes", "the guest cannot be entered: {reason}")
        return Mark.FAULT, text.format(reason=engine_text(effect.fault.reason))
    if effect.livelock is not None:
        return Mark.HAZARD, _for_ever(effect.livelock, state)
    if effect.mmio:
        return Mark.OK, translate("Outcomes", "MMIO: a device of the VMM gets it")
    if effect.emulated is not None:
        if isinstance(effect.fault, PageFault):
            text = translate("Outcomes", "{fault} in the guest, found by KVM")
            return Mark.FAULT, text.format(fault=outcome_title(effect.fault))
        if effect.emulated.failed:
            return Mark.FAULT, translate("Outcomes", "KVM cannot emulate it")
        return Mark.OK, translate("Outcomes", "KVM emulates it in memory")
    if effect.exits and not effect.exits[-1].reaction.resumes:
        text = translate("Outcomes", "KVM gives up: {result}")
        return Mark.FAULT, text.format(result=effect.exits[-1].reaction.result)
    mark, said = _walked(effect.walks)
    if mark is not Mark.OK:
        return mark, translate("Outcomes", "{fault} in the guest").format(fault=said)
    if any(_is_astray(walk, state, event.vm) for walk in effect.walks):
        return Mark.HAZARD, translate("Outcomes", "{references}, to a wrong page").format(references=said)
    if effect.exits:
        text = translate("Outcomes", "{references} after {count} exits")
        if len(effect.exits) == 1:
            text = translate("Outcomes", "{references} after 1 exit")
        return Mark.OK, text.format(references=said, count=len(effect.exits))
    return Mark.OK, said


def _for_ever(livelock: Livelock, state: State) -> str:
    """ "#NPF, then again, …": the exits of one round of the loop."""
    names = [_exit_name(exit_.walk) for exit_ in state.effect.exits[livelock.first :]]
    return translate("Outcomes", "{exits}, then again, …").format(exits=", ".join(dict.fromkeys(names)))


def _exit_name(walk: Walk) -> str:
    match walk.outcome:
        case EptViolation():
            return translate("Outcomes", "EPT violation")
        case EptMisconfiguration():
            return translate("Outcomes", "EPT misconfiguration")
    return "#NPF"


def _walked(walks: tuple[Walk, ...]) -> Outcome:
    """The references of walks that went through, or the fault that the last one ended in."""
    if not walks:
        return NOTHING
    if walks[-1].ok:
        return Mark.OK, references(sum(walk.references for walk in walks))
    return Mark.FAULT, outcome_title(walks[-1].outcome)


def _is_astray(walk: Walk, state: State, vm: int) -> bool:
    """Whether the access ended at another place than the memslots and the host's tables say."""
    if not isinstance(walk.outcome, Translated) or walk.gpa is None:
        return False
    return intended(state, vm, walk.gpa) != walk.outcome.address


def _raised(fault: GeneralProtection | Unknown) -> str:
    if isinstance(fault, Unknown):
        return outcome_title(fault)
    text = translate("Outcomes", "{fault}: {reason}")
    return text.format(fault=outcome_title(fault), reason=engine_text(fault.reason))


# --- the host's mode against what KVM took it for


def kvm_depth(module: Module, host: Host, pcpu: Pcpu) -> int:
    """How deep KVM makes the tables of a guest whose MAXPHYADDR is no limit, on ``pcpu``."""
    return tdp_level(module, host, pcpu, WIDEST_GUEST)


def disagreeing(module: Module, host: Host) -> Iterator[Pcpu]:
    """The pCPUs that walk nested tables deeper or less deep than KVM builds them. AMD only: an EPTP tells the depth."""
    if module.vendor is Vendor.AMD:
        for pcpu in host.pcpus:
            if pcpu.online and not pcpu.lost and pcpu.levels != kvm_depth(module, host, pcpu):
                yield pcpu


def _captured(state: State) -> Outcome:
    assert state.host is not None
    assert state.module is not None
    pcpu = next(disagreeing(state.module, state.host), None)
    if pcpu is None:
        return NOTHING
    text = translate("Outcomes", "captures max TDP level {captured}, pCPU {pcpu} walks {levels}")
    return Mark.HAZARD, text.format(captured=state.module.max_tdp_level, pcpu=pcpu.index, levels=pcpu.levels)


def _moved(event: ev.MoveVcpu, state: State) -> Outcome:
    found = state.vcpu(event.vm, event.vcpu)
    if not isinstance(found, tuple) or state.host is None:
        return NOTHING
    root, pcpu = found[1].root, state.host.pcpus[event.pcpu]
    if root is None or state.host.vendor is not Vendor.AMD or root.role.level == pcpu.levels:
        return NOTHING
    text = translate("Outcomes", "same nCR3: {built} levels, walked as {walked}")
    return Mark.HAZARD, text.format(built=root.role.level, walked=pcpu.levels)


def _mode_change(event: ev.ChangeMode, state: State) -> Outcome:
    assert state.host is not None
    fault, pcpu = state.effect.fault, state.host.pcpus[event.pcpu]
    if isinstance(fault, GeneralProtection):
        return Mark.REFUSED, _raised(fault)
    if pcpu.lost:
        return Mark.FAULT, translate("Outcomes", "lost: {reason}").format(reason=engine_text(pcpu.lost))
    if state.module is not None and any(disagreeing(state.module, state.host)):
        return Mark.HAZARD, ""
    return NOTHING
