"""What is written beside the tables of a hierarchy: the stages, and where their walks ended."""

import msgspec

from engine.arch.addresses import grouped, size_name
from engine.arch.faults import Outcome
from engine.arch.walk import Rule, Stage
from gui import mirror_texts
from gui.explain import outcome_title, step_verdict, translate
from gui.models.hierarchy import Tree


def stage_title(tree: Tree) -> str:
    if tree.mirror is not None:
        return mirror_texts.stage_title(tree.mirror, tree.is_above)
    return {
        Stage.ONE: translate("Hierarchy", "Page tables"),
        Stage.GUEST: translate("Hierarchy", "Guest tables"),
        Stage.NESTED: translate("Hierarchy", "Nested tables"),
    }[tree.stage]


def stage_note(tree: Tree) -> str:
    if tree.mirror is not None:
        return mirror_texts.stage_note(tree.mirror, tree.is_above)
    root, mode = grouped(tree.paging.root), tree.paging.name
    match tree.stage:
        case Stage.ONE:
            text = translate("Hierarchy", "linear → physical, {mode}, root {root}")
        case Stage.GUEST:
            text = translate("Hierarchy", "GVA → GPA, {mode}, root {root}")
        case _ if tree.target is None:
            text = translate("Hierarchy", "GPA → HPA, {mode}, root {root}")
        case _:
            text = translate("Hierarchy", "GPA {target} → HPA, {mode}, root {root}")
    return text.format(mode=mode, root=root, target=grouped(tree.target or 0))


class EndText(msgspec.Struct, frozen=True):
    title: str
    note: str
    bad: bool


def end_text(tree: Tree, outcome: Outcome | None) -> EndText | None:
    """What is written where the walk of ``tree`` ended; None where it goes on, or there is none."""
    if not tree.steps or tree.steps[-1].rule is Rule.TABLE or tree.mirror is not None:
        return None
    step = tree.steps[-1]
    if step.rule.stops:
        return EndText(outcome_title(outcome) if outcome else step_verdict(step), step_verdict(step), True)
    text = {
        Stage.ONE: translate("Hierarchy", "page, {size}"),
        Stage.GUEST: translate("Hierarchy", "GPA page, {size}"),
        Stage.NESTED: translate("Hierarchy", "HPA page, {size}"),
    }[tree.stage]
    return EndText(text.format(size=size_name(1 << step.entry.page_shift)), grouped(step.base or 0), False)
