"""The tables that the hierarchy shows, as values: a tree a stage, opened along the walk and wherever the user asked.

Tables are named by the slots that lead to them from the root, so shared and self-mapped tables are as many nodes as
there are ways to them, and never more levels than the format has.
"""

from collections.abc import Callable

import msgspec

from engine.arch.addresses import sign_extend
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging
from engine.arch.registers import Mode
from engine.arch.second_stage import SecondStage
from engine.arch.tables import Run, entries, runs
from engine.arch.walk import Leaf, Rule, Stage, Step, Trail, Walk, descend
from engine.machine.look import Stages
from engine.machine.mirror import Mirror

Path = tuple[int, ...]
"""Slots from the root down; () is the root table."""
Key = Stage | str
"""What tells the trees of a picture apart: their stage, or `ABOVE`."""
ABOVE = "above"
"""The tree of what KVM mirrors, where it stands above KVM's own."""
Opened = frozenset[tuple[Key, Path]]

Locate = Callable[[int], int | None]
"""Where in the memory at hand the table lies that an entry names; None where no stage maps it."""


class Node(msgspec.Struct, frozen=True):
    """One table. ``address``: the physical byte address of its bytes, None where they cannot be reached.

    ``name``: the address by which the entry above names it (guest-physical in a guest's tables). ``start``: the first
    input address that it translates. ``walked``: the slot that the walk used; None off the walk. ``lit``: the lit
    reference is this one or a later one. ``registers``: the slots are the PDPTE registers, not bytes at ``address``.
    """

    path: Path
    level: Level
    address: int | None
    name: int
    start: int
    values: tuple[int | None, ...]
    runs: tuple[Run, ...]
    walked: int | None = None
    lit: bool = False
    registers: bool = False

    def rule(self, slot: int) -> Rule:
        """What the entry is by itself."""
        return next(run.rule for run in self.runs if run.last >= slot)

    def input_address(self, slot: int) -> int:
        """The first input address that ``slot`` translates."""
        return self.start + (slot << self.level.shift)

    def occupied(self, slot: int, forward: bool) -> int | None:
        """The next slot after (or before) ``slot`` that is anything but not present; None at the end."""
        if forward:
            starts = (max(run.first, slot + 1) for run in self.runs if run.last > slot and _shows(run))
            return min(starts, default=None)
        ends = (min(run.last, slot - 1) for run in self.runs if run.first < slot and _shows(run))
        return max(ends, default=None)

    @property
    def present(self) -> int:
        """Slots that are known and anything but not present."""
        return sum(run.last - run.first + 1 for run in self.runs if _shows(run) and run.rule is not Rule.UNKNOWN)


class Tables:
    """What the tables in ``memory`` hold, each read once."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self._read: dict[tuple[Level, int], tuple[tuple[int | None, ...], tuple[Run, ...]]] = {}

    def read(self, level: Level, address: int | None) -> tuple[tuple[int | None, ...], tuple[Run, ...]]:
        """The entries by slot, and their runs; all unknown where there is no address."""
        if address is None:
            return (None,) * level.entries, (Run(0, level.entries - 1, Rule.UNKNOWN),)
        key = level, address
        if key not in self._read:
            values = entries(self.memory, level, address)
            self._read[key] = tuple(values), tuple(runs(level, values))
        return self._read[key]


def _shows(run: Run) -> bool:
    return run.rule is not Rule.NOT_PRESENT


class Tree(msgspec.Struct, frozen=True):
    """One stage. ``nodes``: parents before children, children by slot. ``steps``: the walk's, from the root down.

    ``target``: the guest-physical address that a nested stage translates. ``mirror``: the two trees of the picture are
    what KVM mirrors (``key`` is `ABOVE`) and its own tables.
    """

    stage: Stage
    paging: Paging
    nodes: tuple[Node, ...]
    steps: tuple[Step, ...] = ()
    target: int | None = None
    key: Key = Stage.ONE
    mirror: Mirror | None = None

    @property
    def is_above(self) -> bool:
        """The tables are those that KVM mirrors."""
        return self.key == ABOVE

    @property
    def walked(self) -> Path:
        return tuple(step.index for step in self.steps)

    def node(self, path: Path) -> Node | None:
        return next((node for node in self.nodes if node.path == path), None)

    def shown_address(self, address: int) -> int:
        """An input address as it is written: sign-extended where linear addresses are 64 bits wide."""
        linear_64 = self.paging.linear and self.paging.mode.is_long
        return sign_extend(address, self.paging.width) if linear_64 else address


def trees(tables: Tables, stages: Stages, walk: Walk | None, reference: int | None, opened: Opened) -> tuple[Tree, ...]:
    """The trees of ``stages``, the guest's first. Empty where paging is off and there is no second stage.

    ``reference``: the lit step of ``walk``. The nested stage shows the descent that this step belongs to. In a single
    stage the tables on either side of each walked entry are shown too, each with the first branch below it.
    """
    paging, second = stages.first, stages.second
    steps = walk.steps if walk else ()
    found = []
    if paging.format is not None:
        stage = Stage.GUEST if second else Stage.ONE
        locate: Locate = _through(tables.memory, second) if second else identity
        own = [(number, step) for number, step in enumerate(steps) if step.stage is stage]
        found.append(grow(tables, paging, stage, own, reference, opened, locate, neighbours=second is None))
    if second and second.paging.format is not None:
        row = steps[reference].row if reference is not None else 0
        own = [(n, step) for n, step in enumerate(steps) if step.stage is Stage.NESTED and step.row == row]
        found.append(grow(tables, second.paging, Stage.NESTED, own, reference, opened, identity))
    return tuple(found)


def grow(
    tables: Tables,
    paging: Paging,
    stage: Stage,
    numbered: list[tuple[int, Step]],
    reference: int | None,
    opened: Opened,
    locate: Locate,
    *,
    neighbours: bool = False,
    key: Key | None = None,
) -> Tree:
    """One tree: the tables of the walk (``numbered`` steps of it) and those below what is ``opened`` under ``key``
    (default: the stage). ``neighbours``: also those on either side of the walk."""
    steps = tuple(step for _, step in numbered)
    lit = sum(reference is None or number <= reference for number, _ in numbered)
    walked = tuple(step.index for step in steps)
    nodes: list[Node] = []
    asked: dict[Path, set[int]] = {}
    for at, (*above, slot) in opened:
        if at == (key or stage):
            asked.setdefault(tuple(above), set()).add(slot)

    def add(path: Path, name: int, start: int) -> None:
        depth = len(path)
        level = paging.levels[depth]
        on_walk = walked[:depth] == path and depth < len(walked)
        address = steps[depth].table if on_walk and steps[depth].table is not None else locate(name)
        registers = _pdptes(paging) if depth == 0 else None
        values, kinds = (registers, _register_runs(level, registers)) if registers else tables.read(level, address)
        slot_used = walked[depth] if on_walk else None
        in_light = on_walk and depth < lit
        node = Node(path, level, address, name, start, values, kinds, slot_used, in_light, registers is not None)
        nodes.append(node)
        if depth + 1 == len(paging.levels):
            return
        below = set(asked.get(path, ()))
        if on_walk:
            below |= {walked[depth]} if len(walked) > depth + 1 else set()
            below |= _beside(node) if neighbours else set()
        elif neighbours and walked and not below:
            below |= _first(node)
        for slot in sorted(below):
            value = values[slot]
            if value is not None and node.rule(slot) is Rule.TABLE:
                add((*path, slot), level.format.entry(False).base(value), start + (slot << level.shift))

    add((), paging.root, 0)
    target = steps[0].target if stage is Stage.NESTED and steps else None
    return Tree(stage, paging, tuple(nodes), steps, target, key or stage)


def _beside(node: Node) -> set[int]:
    """The nearest slots before and after the walked one that point at tables."""
    assert node.walked is not None
    tables = [run for run in node.runs if run.rule is Rule.TABLE]
    before = (min(run.last, node.walked - 1) for run in tables if run.first < node.walked)
    after = (max(run.first, node.walked + 1) for run in tables if run.last > node.walked)
    return {slot for slot in (max(before, default=None), min(after, default=None)) if slot is not None}


def _first(node: Node) -> set[int]:
    """The first slot that points at a table, if there is one."""
    return {run.first for run in [run for run in node.runs if run.rule is Rule.TABLE][:1]}


def _pdptes(paging: Paging) -> tuple[int, int, int, int] | None:
    """The four PDPTE registers, where the mode has them and they are loaded."""
    if paging.mode is not Mode.PAE or paging.pdptes_from_memory:
        return None
    return paging.registers.pdptes


def _register_runs(level: Level, values: tuple[int, ...]) -> tuple[Run, ...]:
    """PDPTE registers, which were checked when they were loaded and are not checked again."""
    rules = (Rule.TABLE if value & level.present else Rule.NOT_PRESENT for value in values)
    return tuple(Run(slot, slot, rule) for slot, rule in enumerate(rules))


def identity(address: int) -> int | None:
    """A `Locate` where addresses in entries are those of the memory at hand."""
    return address


def _through(memory: PhysicalMemory, second: SecondStage) -> Locate:
    def locate(gpa: int) -> int | None:
        if gpa >> second.reach:
            return None
        found = descend(
            Trail(memory), second.paging.levels, second.paging.root, gpa, second.table, Stage.NESTED, 0, gpa
        )
        return found.address if isinstance(found, Leaf) else None

    return locate
