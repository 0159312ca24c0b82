"""Mirrored tables in words: whose a table and an entry is, what it is for, and how both sides compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

from engine.arch.paging import Level
from engine.kvm.vm import NestedPaging
from engine.machine.mirror import Link, Mirror, ShadowTable, Status, TableKind, Why

if TYPE_CHECKING:
    from gui.models.mirror import Beside, Counterpart

translate = QCoreApplication.translate


def entry_name(mirror: Mirror, is_above: bool, level: Level, index: int) -> str:
    """An entry with whose it is: "L1's NPT12 PT entry 5"."""
    if mirror.nested is None:
        text = (
            translate("Mirror", "Guest {table} entry {index}") if is_above
            else translate("Mirror", "Shadow {table} entry {index}")
        )  # fmt: skip
    elif is_above:
        text = translate("Mirror", "L1's {kind}12 {table} entry {index}")
    else:
        text = translate("Mirror", "L0's {kind}02 {table} entry {index}")
    return text.format(kind=_kind(mirror), table=level.name, index=index)


def _kind(mirror: Mirror) -> str:
    return "EPT" if mirror.nested is NestedPaging.EPT else "NPT"


def stage_title(mirror: Mirror, is_above: bool) -> str:
    if mirror.nested is None:
        return translate("Mirror", "The guest's tables") if is_above else translate("Mirror", "KVM's shadow of them")
    text = translate("Mirror", "L1's {kind}12") if is_above else translate("Mirror", "L0's shadow of it, {kind}02")
    return text.format(kind=_kind(mirror))


def stage_note(mirror: Mirror, is_above: bool) -> str:
    paging = mirror.above if is_above else mirror.below
    if mirror.nested is None:
        text = translate("Mirror", "linear → GPA, {mode}") if is_above else translate("Mirror", "linear → HPA, {mode}")
    elif is_above:
        text = translate("Mirror", "L2 GPA → L1 GPA, {mode}")
    else:
        text = translate("Mirror", "L2 GPA → HPA, {mode}")
    return text.format(mode=paging.name)


def cost(mirror: Mirror) -> str:
    """How many tables KVM needs, how many for its depth alone, and what a walk costs."""
    extra, nested = len(mirror.extra), mirror.nested is not None
    if not mirror.shadow:
        text = (
            translate("Mirror", "L1 has {above} tables, and L0 has mirrored none of them yet") if nested
            else translate("Mirror", "The guest has {above} tables, and KVM has mirrored none of them yet")
        )  # fmt: skip
        return text.format(above=len(mirror.guest))
    parked = {
        False: translate("Mirror", "L1: {above} tables. L0: {below}. Not walked while L1 runs"),
        True: translate(
            "Mirror", "L1: {above} tables. L0: {below}, {extra} for its depth alone. Not walked while L1 runs"
        ),
    }
    text = {
        (False, False): translate("Mirror", "Guest: {above} tables. KVM: {below}. {references} references a walk"),
        (False, True): translate(
            "Mirror", "Guest: {above} tables. KVM: {below}, {extra} for its depth alone. {references} references a walk"
        ),
        (True, False): translate("Mirror", "L1: {above} tables. L0: {below}. {references} references a walk"),
        (True, True): translate(
            "Mirror", "L1: {above} tables. L0: {below}, {extra} for its depth alone. {references} references a walk, "
            "{bare} at L1's depth"
        ),
    }[nested, bool(extra)]  # fmt: skip
    if mirror.is_parked:
        text = parked[bool(extra)]
    above = str(len(mirror.guest))
    if not mirror.is_whole:
        above = translate("Mirror", "over {count}").format(count=above)
    return text.format(
        above=above, below=len(mirror.shadow), extra=extra, references=mirror.references, bare=mirror.bare
    )  # fmt: skip


def only_for_depth(mirror: Mirror) -> str:
    if mirror.nested is None:
        return translate("Mirror", "only because KVM needs this level")
    return translate("Mirror", "only because L0 needs this level")


def lacks(mirror: Mirror, level: Level) -> str:
    """In the place of a level that what is mirrored has not."""
    if mirror.nested is None:
        return translate("Mirror", "The guest has no {table}").format(table=level.name)
    return translate("Mirror", "L1 has no {table}").format(table=level.name)


def tags(mirror: Mirror, table: ShadowTable) -> tuple[str, ...]:
    """What is particular about a table, in a word or two, and in less; none where nothing is."""
    named = {
        TableKind.DIRECT: translate("Mirror", "direct"),
        TableKind.PASSTHROUGH: translate("Mirror", "passthrough"),
        TableKind.OTHER_LEVEL: translate("Mirror", "other level"),
        TableKind.EMPTY: translate("Mirror", "dummy root"),
    }
    if table.unsync:
        return (translate("Mirror", "out of sync"),)
    if table.kind.is_special:
        return (table.kind.value,)
    if table.kind in named:
        return (named[table.kind],)
    if len(mirror.above.levels) != 2 or table.role is None:
        return ()
    is_quarter = table.level.level == 2
    text = translate("Mirror", "quarter {part}") if is_quarter else translate("Mirror", "half {part}")
    part = f"{table.role.quadrant + 1}/{4 if is_quarter else 2}"
    return text.format(part=part), part


def table_sentence(mirror: Mirror, table: ShadowTable) -> str:
    """What a table of KVM's is for."""
    text = {
        TableKind.MIRROR: translate("Mirror", "The table mirrors the one at gfn {gfn}, role word {role}."),
        TableKind.DIRECT: translate(
            "Mirror", "A direct table from gfn {gfn} on, part of a large page, role word {role}."
        ),
        TableKind.PASSTHROUGH: translate(
            "Mirror", "A passthrough table, role word {role}: entry 0 leads to the mirror of the root, gfn {gfn}."
        ),
        TableKind.OTHER_LEVEL: translate(
            "Mirror", "Its record names gfn {gfn}, which holds a table of another level; role word {role}."
        ),
        TableKind.EMPTY: translate("Mirror", "A dummy root: no memslot holds what it would mirror."),
    }.get(table.kind, translate("Mirror", "{name} belongs to the vCPU's MMU: it has no record and no role."))
    word = f"{table.role.word:#x}" if table.role is not None else ""
    said = text.format(gfn=f"{table.gfn or 0:#x}", role=word, name=table.kind.value)
    if table.extra:
        said += " " + translate("Mirror", "It exists {reason}.").format(reason=only_for_depth(mirror))
    if table.unsync:
        said += " " + translate("Mirror", "It is out of sync: what it mirrors may be written without an exit.")
    return said


def status(link: Link) -> str:
    """How both entries compare, and why."""
    name = {
        Status.AGREES: translate("Mirror", "both agree"),
        Status.NARROWER: translate("Mirror", "KVM gives less"),
        Status.STALE: translate("Mirror", "out of date"),
        Status.UNKNOWN: translate("Mirror", "not known"),
    }[link.status]
    if link.why is Why.NONE:
        return name
    return translate("Mirror", "{status}: {why}").format(status=name, why=translate("engine", link.why.value))


MANY = 4
"""Counterparts that are named one by one."""


def sentences(found: Beside, name: Callable[[Counterpart, str], str] = lambda other, text: text) -> list[str]:
    """What is on the other side of an entry. ``name`` makes of a counterpart's name what is shown, such as a link."""
    mirror, said = found.mirror, []
    text = translate("Mirror", "Mirrors {entry}: {status}.")
    if found.shadow is None:
        text = translate("Mirror", "Mirrored by {entry}: {status}.")
        if not found.others:
            return [translate("Mirror", "No entry of KVM's mirrors it now.")]
    for other in found.others[:MANY]:
        entry = entry_name(mirror, found.shadow is not None, other.level, other.index)
        said.append(text.format(entry=name(other, entry), status=status(other.link)))
    if len(found.others) > MANY:
        said.append(translate("Mirror", "And {count} more.").format(count=len(found.others) - MANY))
    if found.shadow is not None:
        said.append(table_sentence(mirror, found.shadow))
    return said
