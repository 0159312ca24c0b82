"""What the pointer over an entry tells: which it is, its value, the addresses it translates, and what it maps."""

from engine.arch.addresses import grouped, size_name
from engine.arch.walk import Rule, Step
from gui import mirror_texts
from gui.document import Selection
from gui.explain import entry_title, letters, step_verdict, translate
from gui.models.hierarchy import Node, Tree
from gui.models.mirror import beside


def step_of(tree: Tree, node: Node, slot: int) -> Step:
    """The entry as a reference to it would read it, no access considered."""
    address = None if node.registers or node.address is None else node.address + (slot << node.level.entry_shift)
    return Step(tree.stage, node.level, slot, address, node.values[slot], node.rule(slot), node.level.level)


def name_of(tree: Tree, node: Node, slot: int) -> str:
    """The entry with whose it is."""
    if tree.mirror is not None:
        return mirror_texts.entry_name(tree.mirror, tree.is_above, node.level, slot)
    return entry_title(tree.stage, node.level, slot)


def peek(tree: Tree, node: Node, slot: int) -> str:
    """A few lines of plain text on ``slot`` of a table."""
    step = step_of(tree, node, slot)
    first = tree.shown_address(node.input_address(slot))
    last = tree.shown_address(node.input_address(slot) + node.level.span - 1)
    addresses = translate("Hierarchy", "{first} – {last} ({size})")
    lines = [
        translate("Hierarchy", "{entry}: {verdict}").format(
            entry=name_of(tree, node, slot), verdict=step_verdict(step)
        ),
        addresses.format(first=grouped(first), last=grouped(last), size=size_name(node.level.span)),
    ]
    if step.value:
        lines.insert(1, f"{grouped(step.value, 2 << node.level.entry_shift)}   {letters(step)}".rstrip())
    if step.base is not None:
        page = step.rule is Rule.PAGE
        to = translate("Hierarchy", "page {address}") if page else translate("Hierarchy", "table {address}")
        lines.append(to.format(address=grouped(step.base)))
    return "\n".join([*lines, *_beside(tree, node, slot)])


def _beside(tree: Tree, node: Node, slot: int) -> list[str]:
    """What is on the other side of a mirror."""
    if tree.mirror is None or node.address is None:
        return []
    found = beside(tree.mirror, Selection(tree.stage, node.level, node.address, slot))
    return mirror_texts.sentences(found) if found is not None else []
