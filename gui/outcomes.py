"""How an event turned out, in a few words and a mark: references, faults, hazards. Read off the state after it."""

from collections.abc import Iterator
from enum import Enum

from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.basis import Ground
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    PageFault,
    Unknown,
)
from engine.arch.registers import Vendor
from engine.arch.walk import Walk
from engine.host.machine import Host, Pcpu
from engine.kvm.module import Module, tdp_level
from engine.kvm.nested import Reflected
from engine.kvm.shadow_pages import Tracked
from engine.machine import Livelock, Refusal, State
from engine.machine.nested import tables_of_another_mode
from engine.machine.promised import astray
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
        case ev.WriteRegister() | ev.WriteGuestRegister() if isinstance(fault, GeneralProtection | Unknown):
            return Mark.REFUSED, _raised(fault)
        case ev.ChangeMode():
            return _mode_change(event, state)
        case ev.LoadKvm():
            return _captured(state)
        case ev.MoveVcpu():
            return _moved(event, state)
        case ev.MapNestedPages() if state.effect.actions:
            return _trapped(len(state.effect.actions))
        case ev.EnterNested():
            return _entered(event, state)
    return NOTHING


# --- accesses


def _guest_access(event: ev.GuestAccess, state: State) -> Outcome:
    effect = state.effect
    if isinstance(effect.fault, EntryFailure):
        return Mark.FAULT, _not_entered(effect.fault)
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
        if effect.emulated.tracked is not None:
            return Mark.OK, _tracked(effect.emulated.tracked)
        return Mark.OK, translate("Outcomes", "KVM emulates it in memory")
    if effect.reflected is not None:
        return Mark.FAULT, _reflected(effect.reflected)
    if isinstance(effect.fault, PageFault):
        text = translate("Outcomes", "{fault} in the guest")
        return Mark.FAULT, text.format(fault=outcome_title(effect.fault))
    if effect.exits and not effect.exits[-1].reaction.resumes:
        text = translate("Outcomes", "KVM gives up: {result}")
        return Mark.FAULT, text.format(result=effect.exits[-1].reaction.result)
    mark, said = _walked(effect.walks)
    if mark is not Mark.OK:
        return mark, translate("Outcomes", "{fault} in the guest").format(fault=said)
    if any(astray(state, event.vm, event.vcpu, walk) for walk in effect.walks):
        return Mark.HAZARD, translate("Outcomes", "{references}, to a wrong page").format(references=said)
    if effect.exits:
        one, text = (
            translate("Outcomes", "{references} after 1 exit"),
            translate("Outcomes", "{references} after {count} exits"),
        )
        if state.is_nested(event.vm, event.vcpu):
            one, text = (
                translate("Outcomes", "{references}; 1 exit to L0"),
                translate("Outcomes", "{references}; {count} exits to L0"),
            )
        text = one if len(effect.exits) == 1 else text
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
        case PageFault():
            return "#PF"
    return "#NPF"


def _not_entered(fault: EntryFailure) -> str:
    """Whose failure it is: KVM's, which makes no tables, or the processor's, which does not take them."""
    if fault.basis.ground is Ground.KERNEL:
        return translate("Outcomes", "kvm_mmu_load fails: -EIO")
    text = translate("Outcomes", "the guest cannot be entered: {reason}")
    return text.format(reason=engine_text(fault.reason))


def _tracked(tracked: Tracked) -> str:
    if tracked.tables:
        return translate("Outcomes", "KVM emulates the write to a mirrored table, and drops the mirror")
    if tracked.entries == 1:
        return translate("Outcomes", "KVM emulates the write to a mirrored table; 1 SPTE dropped")
    text = translate("Outcomes", "KVM emulates the write to a mirrored table; {count} SPTEs dropped")
    return text.format(count=tracked.entries)


def _reflected(reflected: Reflected) -> str:
    if isinstance(reflected.exit, EptMisconfiguration):
        return translate("Outcomes", "EPT misconfiguration reflected to L1")
    text = translate("Outcomes", "{exit} reflected to L1: {reason}")
    return text.format(exit=engine_text(reflected.name), reason=engine_text(reflected.exit.reason.value))


def _walked(walks: tuple[Walk, ...]) -> Outcome:
    """The references of walks that went through, or the fault that the last one ended in."""
    if not walks:
        return NOTHING
    if walks[-1].ok:
        return Mark.OK, references(sum(walk.references for walk in walks))
    return Mark.FAULT, outcome_title(walks[-1].outcome)


def _raised(fault: GeneralProtection | Unknown) -> str:
    if isinstance(fault, Unknown):
        return outcome_title(fault)
    text = translate("Outcomes", "{fault}: {reason}")
    return text.format(fault=outcome_title(fault), reason=engine_text(fault.reason))


# --- a hypervisor inside a VM


def _trapped(stores: int) -> Outcome:
    if stores == 1:
        return Mark.OK, translate("Outcomes", "1 store to a mirrored table traps")
    return Mark.OK, translate("Outcomes", "{count} stores to mirrored tables trap").format(count=stores)


def _entered(event: ev.EnterNested, state: State) -> Outcome:
    if isinstance(state.effect.fault, EntryFailure):
        text = translate("Outcomes", "the entry fails: {reason}")
        return Mark.FAULT, text.format(reason=engine_text(state.effect.fault.reason))
    found = state.vcpu(event.vm, event.vcpu)
    formats = None if isinstance(found, Refusal) else tables_of_another_mode(state, *found)
    if formats is None:
        return NOTHING
    text = translate("Outcomes", "L1 built its tables as {built}, they are read as {read}")
    return Mark.HAZARD, text.format(built=formats[0], read=formats[1])


# --- the host's mode against what KVM took it for


def kvm_depth(module: Module, host: Host, pcpu: Pcpu) -> int:
    """How deep KVM makes the tables of a guest whose MAXPHYADDR is no limit, on ``pcpu``."""
    return tdp_level(module, host, pcpu, WIDEST_GUEST)


def disagreeing(module: Module, host: Host) -> Iterator[Pcpu]:
    """The pCPUs that walk nested tables deeper or less deep than KVM builds them. AMD with NPT only: an EPTP tells the
    depth, and without nested paging the guest's own mode does."""
    if module.vendor is Vendor.AMD and module.tdp_enabled:
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
    if not isinstance(found, tuple) or state.host is None or state.module is None or not state.module.tdp_enabled:
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
