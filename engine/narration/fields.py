"""All fields that a text can name, each with its meaning and how it comes from a scene."""

from collections.abc import Callable

import msgspec

from engine.arch.addresses import grouped, size_name
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    NestedPageFault,
    Outcome,
    PageFault,
    Translated,
    Unknown,
)
from engine.arch.walk import Stage, Step, Walk
from engine.effects.compare import EXPOSES, Class
from engine.effects.findings import Severity
from engine.kvm.module import would_capture
from engine.machine.mirror import Status
from engine.narration.scene import Absent, Scene

Value = int | str


def number(value: Value) -> str:
    return f"{value:,}"


def in_hex(value: Value) -> str:
    return grouped(int(value))


def size(value: Value) -> str:
    return size_name(int(value))


def as_it_is(value: Value) -> str:
    return str(value)


class Field(msgspec.Struct, frozen=True):
    """``meaning``: for authors. ``of``: its value in a scene. ``show``: the value as a text has it."""

    name: str
    meaning: str
    of: Callable[[Scene], Value]
    show: Callable[[Value], str] = number


def _word(outcome: Outcome) -> str:
    match outcome:
        case Translated():
            return "translated"
        case PageFault():
            return "#PF"
        case GeneralProtection():
            return "#GP" if outcome.vector == 13 else "#SS"
        case NestedPageFault():
            return "#NPF"
        case EptViolation():
            return "EPT violation"
        case EptMisconfiguration():
            return "EPT misconfiguration"
        case Unknown():
            return "unknown"


def _reason(outcome: Outcome) -> str:
    match outcome:
        case PageFault() | NestedPageFault() | EptViolation():
            return outcome.reason.value
        case GeneralProtection():
            return outcome.reason
        case EptMisconfiguration():
            return outcome.why
    raise Absent("the walk does not fault")


def _code(outcome: Outcome) -> int:
    match outcome:
        case PageFault():
            return outcome.error_code
        case NestedPageFault():
            return outcome.exitinfo1
        case EptViolation():
            return outcome.qualification
    raise Absent("the walk does not end in a fault that has a code")


def _fault_address(outcome: Outcome) -> int:
    match outcome:
        case PageFault():
            return outcome.cr2
        case NestedPageFault():
            return outcome.exitinfo2
        case EptViolation() | EptMisconfiguration():
            return outcome.gpa
    raise Absent("the walk does not end in a fault that has an address")


def _translated(walk: Walk) -> Translated:
    if not isinstance(walk.outcome, Translated):
        raise Absent("the walk does not reach a page")
    return walk.outcome


def _gpa(walk: Walk) -> int:
    if walk.gpa is None:
        raise Absent("the guest's own tables do not give an address")
    return walk.gpa


def _of_stage(walk: Walk, *stages: Stage) -> int:
    return sum(step.stage in stages and step.address is not None for step in walk.steps)


def _nested_levels(scene: Scene) -> int:
    if scene.stages.second is None:
        raise Absent("there is no second stage")
    return len(scene.stages.second.paging.levels)


def _value(step: Step) -> int:
    if step.value is None:
        raise Absent("the bytes of the entry are not known")
    return step.value


def _there(address: int | None) -> int:
    if address is None:
        raise Absent("the entry is in a register")
    return address


def _flag(name: str) -> Callable[[Scene], Value]:
    def of(scene: Scene) -> Value:
        found = [field.value for field in scene.lit.decoded() if field.name == name]
        if not found:
            raise Absent(f"the lit entry has no field {name}")
        return int(found[0])

    return of


def _page_flag(name: str, stage: Stage) -> Callable[[Scene], Value]:
    """Of the last entry of ``stage`` that the walk read: the leaf, where it came so far."""

    def of(scene: Scene) -> Value:
        steps = [step for step in scene.walk.steps if step.stage is stage]
        found = [field.value for field in steps[-1].decoded() if field.name == name] if steps else []
        if not found:
            raise Absent(f"no entry of the {stage.value} stage with a field {name} was read")
        return int(found[0])

    return of


def _result(scene: Scene) -> str:
    if not scene.effect.exits:
        raise Absent("there is no exit at this step")
    return scene.effect.exits[-1].reaction.result


def _round(scene: Scene) -> int:
    if scene.effect.livelock is None:
        raise Absent("the access ends")
    return scene.effect.livelock.period


def _growth(scene: Scene) -> str:
    if scene.effect.livelock is None:
        raise Absent("the access ends")
    return ", ".join(f"{name} +{n}" for name, n in scene.effect.livelock.growth.items())


def _dropped(scene: Scene) -> int:
    emulated = scene.effect.emulated
    if emulated is None or emulated.tracked is None:
        raise Absent("the step writes to nothing that KVM mirrors and protects")
    return emulated.tracked.entries


def _loaded(scene: Scene) -> int:
    if scene.effect.loaded is None:
        raise Absent("nothing was loaded, or what was is not known")
    return scene.effect.loaded


def _event_fault(scene: Scene) -> str:
    fault = scene.effect.fault
    if fault is None:
        raise Absent("the event raises no fault")
    return fault.reason if isinstance(fault, EntryFailure) else _word(fault)


def _note(scene: Scene) -> str:
    if not scene.effect.notes:
        raise Absent("nothing was noted at this step")
    return scene.effect.notes[-1]


def _now(scene: Scene) -> Value:
    found = would_capture(scene.module, scene.host, scene.module.pcpu).get("max_tdp_level")
    if found is None:
        raise Absent("KVM would not load now")
    return int(found)


def _graver(least: Severity) -> Callable[[Scene], Value]:
    return lambda scene: sum(finding.severity >= least for finding in scene.findings)


def _first_finding(scene: Scene) -> str:
    if not scene.findings:
        raise Absent("nothing is amiss")
    return scene.findings[0].title


def _pages(*classes: Class) -> Callable[[Scene], Value]:
    return lambda scene: sum(scene.pages.get(one, 0) for one in classes)


GROUPS: dict[str, tuple[Field, ...]] = {
    "The walk": (
        Field("address", "the address that is walked", lambda s: s.walk.address, in_hex),
        Field("gpa", "the guest-physical address that the guest's own tables give", lambda s: _gpa(s.walk), in_hex),
        Field("reached", "the physical address that the walk reaches", lambda s: _translated(s.walk).address, in_hex),
        Field("page", "the size of the page that is reached", lambda s: _translated(s.walk).page_size, size),
        Field("rights", "what the walk leaves of rights, in letters",
            lambda s: _translated(s.walk).rights.letters(), as_it_is),
        Field("references", "memory references of the walk", lambda s: s.walk.references),
        Field("guest-references", "those to entries of the guest's tables", lambda s: _of_stage(s.walk, Stage.GUEST)),
        Field("nested-references", "those to entries of nested tables", lambda s: _of_stage(s.walk, Stage.NESTED)),
        Field("host-references", "those to entries of L0's tables, where a nested guest's logical walk is looked at",
            lambda s: _of_stage(s.walk, Stage.HOST)),
        Field("cache-lines", "distinct lines of 64 bytes among the references", lambda s: s.walk.cache_lines),
        Field("flags-to-set", "entries in which the walk would set A or D", lambda s: len(s.walk.updates)),
        Field("outcome", "what the walk comes to, in a word: translated, #PF, #NPF, EPT violation...",
            lambda s: _word(s.walk.outcome), as_it_is),
        Field("reason", "why the walk faults", lambda s: _reason(s.walk.outcome), as_it_is),
        Field("error-code", "the fault's error code, EXITINFO1 or qualification",
            lambda s: _code(s.walk.outcome), in_hex),
        Field("fault-address", "CR2, EXITINFO2 or the GPA of the fault",
            lambda s: _fault_address(s.walk.outcome), in_hex),
        Field("levels", "levels of the first stage's tables, as walked", lambda s: len(s.stages.first.levels)),
        Field("nested-levels", "levels of the nested tables, as the hardware walks them", _nested_levels),
        Field("mode", "the paging mode of the first stage", lambda s: s.stages.first.name, as_it_is),
    ),
    "The lit entry, and the last ones read": (
        Field("entry", "the lit entry", lambda s: _value(s.lit), in_hex),
        Field("entry-address", "where the lit entry was read", lambda s: _there(s.lit.address), in_hex),
        Field("entry-table", "the table that the lit entry is in", lambda s: _there(s.lit.table), in_hex),
        Field("entry-index", "the slot of the lit entry", lambda s: s.lit.index),
        Field("entry-level", "the level of the lit entry, in its name", lambda s: s.lit.level.name, as_it_is),
        Field("entry-verdict", "what was decided at the lit entry", lambda s: s.lit.rule.value, as_it_is),
        Field("entry-accessed", "bit A of the lit entry", _flag("A")),
        Field("entry-dirty", "bit D of the lit entry", _flag("D")),
        Field("guest-accessed", "bit A of the guest's last entry", _page_flag("A", Stage.GUEST)),
        Field("guest-dirty", "bit D of the guest's last entry", _page_flag("D", Stage.GUEST)),
        Field("nested-accessed", "bit A of the last nested entry", _page_flag("A", Stage.NESTED)),
        Field("nested-dirty", "bit D of the last nested entry", _page_flag("D", Stage.NESTED)),
    ),
    "The step's event": (
        Field("exits", "VM exits of the step's access", lambda s: len(s.effect.exits)),
        Field("result", "what KVM's fault path returned for the last exit", _result, as_it_is),
        Field("access-references", "references of the last walk of the step's access",
            lambda s: s.last_walk.references),
        Field("access-outcome", "what the step's access comes to, in a word",
            lambda s: _word(s.last_walk.outcome), as_it_is),
        Field("access-code", "error code, EXITINFO1 or qualification of the last walk of the step's access",
            lambda s: _code(s.last_walk.outcome), in_hex),
        Field("endless", "yes, where it is proved that the step's access never ends; no",
            lambda s: "yes" if s.effect.livelock else "no", as_it_is),
        Field("round", "exits of one round of an access that never ends", _round),
        Field("growth", "the counters that grow in each round of an access that never ends", _growth, as_it_is),
        Field("loaded", "the value that the step's access loaded", _loaded, in_hex),
        Field("event-fault", "the fault that the step's event raises, or why the guest is not entered",
            _event_fault, as_it_is),
        Field("note", "what is noted of the step's event", _note, as_it_is),
        Field("refused", "why the step's event did not happen; empty where it did", lambda s: s.refused, as_it_is),
        Field("answer", "KVM's answer to the access, in words", lambda s: s.answer.value, as_it_is),
    ),
    "KVM and the host": (
        Field("kernel", "the kernel whose KVM is loaded", lambda s: s.module.kernel.label, as_it_is),
        Field("captured-level", "max_tdp_level, as KVM keeps it", lambda s: s.module.max_tdp_level),
        Field("forced-level", "tdp_root_level, as KVM keeps it; 0: none is forced", lambda s: s.module.tdp_root_level),
        Field("level-now", "max_tdp_level, as KVM would capture it now", _now),
        Field("built-levels", "levels of the nested tables, as KVM built them", lambda s: s.root.role.level),
        Field("root", "the root of the vCPU's nested tables", lambda s: s.root.hpa, in_hex),
        Field("kvm-tables", "pages that KVM uses for nested tables of the VM", lambda s: s.kvm_tables),
        Field("guest-maxphyaddr", "MAXPHYADDR that the guest is told", lambda s: s.vcpu.cpuid.maxphyaddr),
        Field("host-levels", "levels that the host's kernel was booted with", lambda s: s.host.levels),
        Field("vcpu-pcpu", "the number of the pCPU that the vCPU is on", lambda s: s.vcpu.pcpu),
        Field("pcpu-levels", "levels of the pCPU that the vCPU is on", lambda s: s.pcpu(s.vcpu.pcpu).levels),
        Field("pcpu0-levels", "levels of pCPU 0", lambda s: s.pcpu(0).levels),
        Field("pcpu1-levels", "levels of pCPU 1", lambda s: s.pcpu(1).levels),
        Field("pcpu1-lost", "why pCPU 1 can execute nothing any more; empty while it can",
            lambda s: s.pcpu(1).lost, as_it_is),
    ),
    "What KVM mirrors, and a hypervisor inside the VM": (
        Field("mirrored-tables", "pages of KVM's that mirror a table of the guest's, or of its hypervisor's",
            lambda s: s.mirrored),
        Field("above-tables", "tables of the guest's, or of its hypervisor's, that KVM's stand for",
            lambda s: len(s.mirror.guest)),
        Field("shadow-tables", "tables that KVM made of them, special roots among them",
            lambda s: len(s.mirror.shadow)),
        Field("extra-tables", "of those the tables that only the depth of KVM's own asks for",
            lambda s: len(s.mirror.extra)),
        Field("special-roots", "the special roots that the vCPU's root leads through, from the top down; or none",
            lambda s: " > ".join(s.special_roots) or "none", as_it_is),
        Field("role-word", "the role word of the vCPU's MMU, by which KVM finds a root again",
            lambda s: s.vcpu.role.word, in_hex),
        Field("unsync-tables", "page tables of the guest's that it may write without an exit, for now",
            lambda s: len(s.vm.shadow.unsync)),
        Field("stale-entries", "entries of KVM's that say something else than what they mirror says now",
            lambda s: s.mirror.count(Status.STALE)),
        Field("dropped-entries", "entries of KVM's that went with the step's write to what they mirror", _dropped),
        Field("l1-captured", "the format that the hypervisor inside the VM captured when it was loaded",
            lambda s: s.hypervisor.captured, as_it_is),
        Field("l1-levels", "levels of the hypervisor's tables for its guest, as they are read",
            lambda s: len(s.l1.paging.levels)),
        Field("l1-format", "the format that those tables are read in", lambda s: s.l1.name, as_it_is),
        Field("logical-references", "references of the look as the nested guest and its hypervisor take it to be",
            lambda s: s.walked(True).references),
        Field("hardware-references", "references of the look as the hardware makes it",
            lambda s: s.walked(False).references),
        Field("reflected", "yes, where the step's access ends in an exit to the hypervisor inside the VM; no",
            lambda s: "yes" if s.effect.reflected else "no", as_it_is),
        Field("reflected-exit", "the exit that the hypervisor finds, by name", lambda s: s.reflected.name, as_it_is),
        Field("reflected-code", "EXITINFO1 or qualification that the hypervisor finds",
            lambda s: _code(s.reflected.exit), in_hex),
        Field("reflected-address", "EXITINFO2 or GPA that the hypervisor finds",
            lambda s: _fault_address(s.reflected.exit), in_hex),
        Field("reflected-reason", "why there is that exit", lambda s: _reason(s.reflected.exit), as_it_is),
    ),
    "Findings, and what changes from A to B": (
        Field("findings", "findings at this step", lambda s: len(s.findings)),
        Field("warnings", "findings that are warnings or hazards", _graver(Severity.WARNING)),
        Field("hazards", "findings that are hazards", _graver(Severity.HAZARD)),
        Field("finding", "the title of the gravest finding", _first_finding, as_it_is),
        Field("pages", "guest pages that A or B translates", _pages(*Class)),
        Field("pages-same", "guest pages that B translates as A does", _pages(Class.SAME)),
        Field("pages-changed", "guest pages that B does not translate as A does",
            _pages(*(one for one in Class if one is not Class.SAME))),
        Field("pages-absent", "guest pages that are not present on B", _pages(Class.NOT_PRESENT)),
        Field("pages-reserved", "guest pages that stop at a reserved bit on B", _pages(Class.RESERVED)),
        Field("pages-exposed", "guest pages that lead where the guest should not come, on B", _pages(*EXPOSES)),
        Field("pages-of-tables", "those of them that lead to tables of KVM", _pages(Class.TABLE_PAGE)),
    ),
}  # fmt: skip
"""All fields, under the titles that help and menus have."""
FIELDS = {field.name: field for fields in GROUPS.values() for field in fields}
