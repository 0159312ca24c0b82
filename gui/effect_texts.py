"""Effects in words: what becomes of a page, whose memory it is, and what KVM does then."""

from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped
from engine.arch.arrays import Code, Right
from engine.arch.faults import Translated
from engine.effects.compare import Class
from engine.effects.comparison import Comparison
from engine.effects.owners import FREE, OUTSIDE
from engine.effects.reaction import Answer, Reacted
from engine.host.frames import Owner, Use
from gui.explain import engine_text, outcome_title
from gui.theme import Outcome

translate = QCoreApplication.translate

TABLES = {1: "PT", 2: "PD", 3: "PDPT", 4: "PML4", 5: "PML5"}
"""The level that KVM made a table for, by the name that the hardware gives such a table."""
OUTCOMES = {kind: Outcome[kind.name] for kind in Class if kind is not Class.RESTORED} | {Class.RESTORED: Outcome.SAME}
"""The fill of each class."""


def class_name(kind: Class) -> str:
    """What one side makes of a page, in a few words."""
    return {
        Class.SAME: translate("Effects", "as mapped"),
        Class.NOT_PRESENT: translate("Effects", "faults (not present)"),
        Class.RESERVED: translate("Effects", "faults (reserved bit)"),
        Class.PERMISSION: translate("Effects", "lacks rights"),
        Class.ANOTHER_PAGE: translate("Effects", "another page"),
        Class.TABLE_PAGE: translate("Effects", "a page-table page"),
        Class.HOST_PAGE: translate("Effects", "a page of the host"),
        Class.OTHER_VM: translate("Effects", "another VM's page"),
        Class.OUTSIDE_RAM: translate("Effects", "no RAM"),
        Class.UNKNOWN: translate("Effects", "unknown bytes"),
        Class.RESTORED: translate("Effects", "as mapped"),
    }[kind]


def pages(count: int) -> str:
    """ "16,384 pages"."""
    if count == 1:
        return translate("Effects", "1 page")
    return translate("Effects", "{count} pages").format(count=f"{count:,}")


def summary(comparison: Comparison) -> str:
    """How much of the VM translates differently, in one sentence."""
    total = sum(comparison.pages.values())
    same = comparison.pages.get(Class.SAME, 0)
    if total == 0:
        return translate("Effects", "Neither side translates any page")
    if same == total:
        return translate("Effects", "All {pages} translate the same").format(pages=pages(total))
    if same == 0:
        return translate("Effects", "None of {pages} translates as on A").format(pages=pages(total))
    text = translate("Effects", "{count} of {pages} translate differently")
    if total - same == 1:
        text = translate("Effects", "{count} of {pages} translates differently")
    return text.format(count=f"{total - same:,}", pages=pages(total))


# --- the rows of the table


def gives(code: int, physical: int, scattered: bool) -> str:
    """What a side makes of a range: the HPA that it starts at (with … where the frames are scattered), or why none."""
    if code == Code.OK:
        return f"{grouped(physical)}…" if scattered else grouped(physical)
    return {
        Code.NOT_PRESENT: translate("Effects", "not present"),
        Code.RESERVED: translate("Effects", "reserved bit"),
        Code.MISCONFIGURED: translate("Effects", "misconfigured"),
        Code.UNKNOWN: translate("Effects", "unknown"),
    }.get(Code(code), translate("Effects", "no rights"))


def happens(comparison: Comparison, run: int) -> str:
    """What an access meets in a run of pages."""
    changed, row = comparison.changed, comparison.first[run]
    kind, rights = Class(int(changed.kind[row])), int(changed.rights[row])
    match kind:
        case Class.RESTORED:
            return translate("Effects", "is mapped as it should be")
        case Class.PERMISSION if changed.b_code[row] == Code.OK:
            lost = translate("Effects", "the same page, without the right to write")
            return lost if not rights & Right.W else translate("Effects", "the same page, with fewer rights")
        case _ if changed.b_code[row] != Code.OK:
            return faults(comparison, run)
    whose = owned(int(changed.b_owner[row]), comparison.b.vm.index)
    text = translate("Effects", "reaches {what}") if rights & Right.W else translate("Effects", "reads {what}")
    return text.format(what=whose)


def faults(comparison: Comparison, run: int) -> str:
    """The fault of the run's access, with its code."""
    outcome = comparison.outcomes[int(comparison.number[run])]
    if isinstance(outcome, Translated):
        return translate("Effects", "translates")
    return outcome_title(outcome)


def owned(packed: int, vm: int) -> str:
    """What a frame is, from VM ``vm``'s point of view; ``packed``: `Owner.packed`."""
    if packed == FREE:
        return translate("Effects", "a free host frame")
    if packed == OUTSIDE:
        return translate("Effects", "no RAM")
    owner = Owner.unpacked(packed)
    match owner.use:
        case Use.KVM_TABLE if owner.vm == vm:
            return translate("Effects", "its own nested {table}").format(table=TABLES[owner.level])
        case Use.KVM_TABLE:
            return translate("Effects", "a table of VM {vm}").format(vm=owner.vm)
        case Use.GUEST_PAGE if owner.vm == vm:
            return translate("Effects", "another page")
        case Use.GUEST_PAGE:
            return translate("Effects", "memory of VM {vm}").format(vm=owner.vm)
        case Use.HOST_TABLE:
            return translate("Effects", "a host page table")
    return translate("Effects", "the host's kernel")


def kvm_then(reacted: Reacted) -> str:
    """KVM's answer in a few words."""
    if reacted.livelock is not None and reacted.livelock.first:
        return translate("Effects", "maps it in vain: loops")
    return {
        Answer.NEVER_ASKED: translate("Effects", "never asked"),
        Answer.MENDS: translate("Effects", "maps it: goes on"),
        Answer.SPURIOUS_LOOP: translate("Effects", "loops: RET_PF_SPURIOUS"),
        Answer.RETRY_LOOP: translate("Effects", "loops: RET_PF_RETRY"),
        Answer.EMULATES: translate("Effects", "emulates: MMIO path"),
        Answer.REFLECTS: translate("Effects", "exit for L1"),
        Answer.FAILS: translate("Effects", "gives up"),
    }[reacted.answer]


def kvm_in_full(reacted: Reacted) -> str:
    """KVM's answer with its evidence, a line each."""
    lines = [
        translate("Effects", "KVM {answer}.").format(answer=engine_text(reacted.answer.value)),
        translate("Effects", "Tried at GPA {gpa}.").format(gpa=grouped(reacted.gpa)),
    ]
    if reacted.functions:
        lines.append(translate("Effects", "Path: {functions}").format(functions=", ".join(reacted.functions)))
    if reacted.livelock is not None:
        grown = ", ".join(f"{name} +{count}" for name, count in reacted.livelock.growth.items())
        lines.append(translate("Effects", "Each round: {counters}").format(counters=grown))
    return "\n".join(lines)
