"""Walks of three stages in words: whose entry it is (L2's, L1's NPT12 or EPT12, L0's NPT01 or EPT01) and what for.

`explain` says the rest of them, and turns to this module where a walk has a third stage.
"""

from collections import Counter

from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped
from engine.arch.paging import Level
from engine.arch.walk import Stage, Step, Walk

translate = QCoreApplication.translate


def entry_name(walk: Walk, stage: Stage, level: Level) -> str:
    """An entry with whose it is: "L1's NPT12 PDE"."""
    text = {
        Stage.GUEST: translate("ThreeStages", "L2's {entry}"),
        Stage.NESTED: translate("ThreeStages", "L1's {kind}12 {entry}"),
        Stage.HOST: translate("ThreeStages", "L0's {kind}01 {entry}"),
    }[stage]
    return text.format(kind=kind(walk), entry=f"{level.name}E")


def kind(walk: Walk) -> str:
    """NPT or EPT: the two lower stages are of one kind."""
    return walk.second.kind.value if walk.second is not None else ""


def entry_title(walk: Walk, stage: Stage, level: Level, index: int) -> str:
    text = translate("ThreeStages", "{entry} {index}")
    return text.format(entry=entry_name(walk, stage, level), index=index)


def stage_kind(walk: Walk) -> str:
    """The three stages, as a heading names them."""
    assert walk.second is not None
    assert walk.host is not None
    text = translate("ThreeStages", "L2 {first} × L1 {second} × L0 {third}")
    return text.format(first=walk.paging.name, second=walk.second.name, third=walk.host.name)


def reference_title(walk: Walk, step: Step, number: int) -> str:
    """What reference ``number`` (from 1) is, and what for."""
    entry = entry_title(walk, step.stage, step.level, step.index)
    if step.stage is Stage.GUEST:
        return translate("ThreeStages", "Reference {number}: {entry}").format(number=number, entry=entry)
    space = translate("ThreeStages", "L1 GPA") if step.stage is Stage.HOST else translate("ThreeStages", "L2 GPA")
    address = step.middle if step.stage is Stage.HOST else step.target
    text = translate("ThreeStages", "Reference {number}: {entry}, for {what} at {space} {address}")
    return text.format(number=number, entry=entry, what=served(walk, step), space=space, address=grouped(address or 0))


def served(walk: Walk, step: Step) -> str:
    """The entry, or the page, that ``step`` of L1's or L0's tables is read for."""
    if step.stage is Stage.HOST and step.column:
        return _named(walk, Stage.NESTED, step.column)
    return _named(walk, Stage.GUEST, step.row) if step.row else translate("ThreeStages", "the page")


def _named(walk: Walk, stage: Stage, number: int) -> str:
    return entry_name(walk, stage, walk.stage(stage).level(number))


def origin(walk: Walk, step: Step) -> str:
    """Why the root of a stage is read now."""
    if step.stage is Stage.GUEST:
        text = translate("ThreeStages", "L2's CR3 names the {table} at L2-physical {address}.")
        return text.format(table=step.level.name, address=grouped(walk.paging.root))
    is_host, for_page = step.stage is Stage.HOST, not step.row
    if for_page and is_host and not step.column:
        text = translate(
            "ThreeStages",
            "L1's tables give L1-physical {address} for the page: L0's translate it for the access itself.",
        )
    elif for_page and not is_host:
        text = translate(
            "ThreeStages", "The page lies at L2-physical {address}: L1's tables translate it for the access itself."
        )
    elif is_host:
        text = translate("ThreeStages", "{entry} lies at L1-physical {address}: L0's tables translate that first.")
    else:
        text = translate("ThreeStages", "{entry} lies at L2-physical {address}: L1's tables translate that first.")
    address = step.middle if is_host else step.target
    return text.format(entry=served(walk, step), address=grouped(address or 0))


def for_a_write(walk: Walk, step: Step) -> str:
    """That a table is used as for a write; '' where it is not, or where the page itself is translated."""
    below = walk.host if step.stage is Stage.HOST else walk.second
    for_table = step.row or (step.stage is Stage.HOST and step.column)
    if step.stage is Stage.GUEST or not for_table or below is None or not below.table.writes:
        return ""
    return translate("ThreeStages", "It counts as a write, since A or D may be set in that entry.")


def rights(walk: Walk) -> str:
    """What each stage leaves of the rights, for a walk that reached its page."""
    last = {step.stage: number for number, step in enumerate(walk.steps)}
    letters = {stage: walk.rights_after(number).letters() for stage, number in last.items()}
    both = walk.outcome.rights.letters()  # type: ignore[union-attr]
    if Stage.GUEST not in letters:
        text = translate("ThreeStages", "Rights: L1's tables give {l1}, L0's {l0}; together {all}.")
    else:
        text = translate("ThreeStages", "Rights: L2's tables give {l2}, L1's {l1}, L0's {l0}; together {all}.")
    return text.format(l2=letters.get(Stage.GUEST), l1=letters[Stage.NESTED], l0=letters[Stage.HOST], all=both)


def told(walk: Walk) -> str:
    """Who is told of the fault, since whose tables stopped the walk; '' where it went through."""
    if walk.stopped_by is None:
        return ""
    return {
        Stage.GUEST: translate("ThreeStages", "L2's own tables say so: the fault is delivered to L2."),
        Stage.NESTED: translate(
            "ThreeStages", "L1's tables say so, of an L2-physical address: the exit goes to L1, by way of L0."
        ),
        Stage.HOST: translate(
            "ThreeStages", "L0's tables say so, of an L1-physical address: L0 handles it, L1 and L2 do not see it."
        ),
    }.get(walk.stopped_by, "")


def counts(walk: Walk) -> str:
    """The references by whose tables they read, and the lines of cache that they come to."""
    of = Counter(step.stage for step in walk.steps if step.address is not None)
    text = translate("ThreeStages", "{l2} in L2's tables, {l1} in L1's, {l0} in L0's; distinct 64-byte lines: {lines}")
    return text.format(l2=of[Stage.GUEST], l1=of[Stage.NESTED], l0=of[Stage.HOST], lines=walk.cache_lines)
