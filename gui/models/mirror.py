"""What KVM mirrors beside its own tables, as trees for the picture, with a wire from each SPTE to its guest entry."""

from collections.abc import Callable

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.paging import Level, Paging
from engine.arch.walk import Rule, Stage, Walk
from engine.machine.guest_view import GuestView
from engine.machine.mirror import GuestTable, Link, Mirror, ShadowTable, Status, TableKind
from engine.machine.state import State
from gui.document import Selection
from gui.models.hierarchy import ABOVE, Key, Node, Opened, Path, Tables, Tree, grow, identity

SPREAD = 24
"""Tables of each side that are open without being asked for; where the guest has more, only those that are mirrored."""


class Wire(msgspec.Struct, frozen=True):
    """From slot ``slot`` of the table at path ``below`` to ``above_slot`` of the one at ``above``."""

    below: Path
    slot: int
    above: Path
    above_slot: int
    level: int
    status: Status


class Bundle(msgspec.Struct, frozen=True):
    """Wires between the same two tables that lie beside each other: of slots ``first`` .. ``last``, to
    ``above_first`` .. ``above_last``."""

    below: Path
    first: int
    last: int
    above: Path
    above_first: int
    above_last: int
    level: int
    status: Status


class Pair(msgspec.Struct, frozen=True):
    """The picture: what is mirrored (none where the guest has no paging) and KVM's tables (none before it has any)."""

    mirror: Mirror
    trees: tuple[Tree, ...]
    wires: tuple[Wire, ...]

    def touching(self, is_above: bool, path: Path, slot: int | None = None) -> tuple[Wire, ...]:
        """The wires of a table, or of one slot of it."""
        if is_above:
            return tuple(w for w in self.wires if w.above == path and slot in (None, w.above_slot))
        return tuple(w for w in self.wires if w.below == path and slot in (None, w.slot))


def stages_of(mirror: Mirror) -> tuple[Stage, Stage]:
    """How the entries of the two sides are read: what is mirrored, and KVM's."""
    return (Stage.GUEST, Stage.ONE) if mirror.nested is None else (Stage.NESTED, Stage.NESTED)


def pair(
    tables: Tables, state: State, vm: int, mirror: Mirror, walk: Walk | None, reference: int | None, opened: Opened
) -> Pair:
    """``walk``: the hardware's, whose steps in KVM's tables are lit up to number ``reference``."""
    above, below = stages_of(mirror)
    trees: list[Tree] = []
    if mirror.above.format is not None:
        trees.append(_above(state, vm, mirror, above, opened))
    if mirror.shadow:
        steps = walk.steps if walk else ()
        row = steps[reference].row if reference is not None and below is Stage.NESTED else 0
        own = [
            (n, step) for n, step in enumerate(steps)
            if step.stage is below and (below is Stage.ONE or step.row == row)
        ]  # fmt: skip
        if mirror.is_parked or (own and own[0][1].level != mirror.below.levels[0]):
            own = []  # the processor walks other tables, or reads these in another depth
        wanted = opened | _spread(tables, mirror.below, below, lambda name, level: True)
        trees.append(grow(tables, mirror.below, below, own, reference, wanted, identity))
    shown = tuple(msgspec.structs.replace(tree, mirror=mirror) for tree in trees)
    return Pair(mirror, shown, _wires(mirror, shown))


def _above(state: State, vm: int, mirror: Mirror, stage: Stage, opened: Opened) -> Tree:
    """What is mirrored, read as the guest sees its memory; the address of a table is where its bytes lie now."""
    owner = state.vms[vm]
    assert owner is not None
    view = GuestView(state, owner)
    tables = Tables(view)
    mirrored = {(table.gfn, table.level.level) for table in mirror.shadow if table.kind is TableKind.MIRROR}
    is_small = len(mirror.guest) <= SPREAD

    def shows(name: int, level: int) -> bool:
        return is_small or (name >> FRAME_BITS, level) in mirrored

    wanted = opened | _spread(tables, mirror.above, ABOVE, shows)
    tree = grow(tables, mirror.above, stage, [], None, wanted, identity, key=ABOVE)

    def placed(node: Node) -> Node:
        frame = view.host_frame(node.name >> FRAME_BITS)
        address = None if frame is None else frame << FRAME_BITS | node.name & (FRAME_SIZE - 1)
        return msgspec.structs.replace(node, address=address)

    return msgspec.structs.replace(tree, nodes=tuple(map(placed, tree.nodes)))


def _spread(tables: Tables, paging: Paging, key: Key, shows: Callable[[int, int], bool]) -> Opened:
    """The first `SPREAD` tables from the root on, breadth first, of those that ``shows`` wants by name and level."""
    found: set[tuple[Key, Path]] = set()
    row: list[tuple[Path, int]] = [((), paging.root)]
    registers = paging.registers.pdptes if paging.pdptes_are_registers else None
    for lv in paging.levels[:-1]:
        below: list[tuple[Path, int]] = []
        for path, name in row:
            values, runs = tables.read(lv, name)
            slots = [n for run in runs if run.rule is Rule.TABLE for n in range(run.first, run.last + 1)]
            if registers is not None and not path:
                values, slots = registers, [n for n, value in enumerate(registers) if value & lv.present]
            for slot in slots:
                child = (values[slot] or 0) & lv.table_address
                if len(found) < SPREAD and shows(child, lv.level - 1):
                    found.add((key, (*path, slot)))
                    below.append(((*path, slot), child))
        row = below
    return frozenset(found)


def _wires(mirror: Mirror, trees: tuple[Tree, ...]) -> tuple[Wire, ...]:
    if len(trees) < 2:
        return ()
    above, below = trees
    by_table: dict[int, list[Link]] = {}
    for link in mirror.links:
        by_table.setdefault(link.table, []).append(link)
    homes: dict[tuple[int, int], list[Node]] = {}
    for node in above.nodes:
        homes.setdefault((node.name, node.level.level), []).append(node)
    found = []
    for node in below.nodes:
        for link in by_table.get(node.address or -1, ()):
            fits = homes.get((link.guest, link.guest_level), ())
            start = node.input_address(link.index)
            # A table that several entries name is several nodes: the one for the same addresses is meant.
            home = next((n for n in fits if n.input_address(link.guest_index) >> n.level.shift << n.level.shift
                         == start >> n.level.shift << n.level.shift), None)  # fmt: skip
            if home is not None:
                found.append(
                    Wire(node.path, link.index, home.path, link.guest_index, node.level.level, link.status)
                )  # fmt: skip
    return tuple(found)


def bundles(wires: tuple[Wire, ...], reach: int = 1) -> tuple[Bundle, ...]:
    """Neighbours of one status, between the same tables, together: slots that lie at most ``reach`` apart, which may be
    many where single slots cannot be seen."""
    made: list[list[int]] = []
    heads: list[Wire] = []
    latest: dict[tuple[Path, Path, Status], list[int]] = {}
    for wire in wires:
        key = wire.below, wire.above, wire.status
        last = latest.get(key)
        if last is not None and wire.slot - last[1] <= reach and 0 <= wire.above_slot - last[3] <= reach:
            last[1], last[3] = wire.slot, wire.above_slot
            continue
        latest[key] = [wire.slot, wire.slot, wire.above_slot, wire.above_slot]
        made.append(latest[key])
        heads.append(wire)
    return tuple(
        Bundle(w.below, first, last, w.above, above_first, above_last, w.level, w.status)
        for w, (first, last, above_first, above_last) in zip(heads, made, strict=True)
    )


# --- one entry and its counterparts


class Counterpart(msgspec.Struct, frozen=True):
    """The entry on the other side. ``selection`` is None where no memory holds its bytes."""

    link: Link
    level: Level
    index: int
    selection: Selection | None


class Beside(msgspec.Struct, frozen=True):
    """Whose an entry is, and what is on the other side. ``guest`` or ``shadow``: the table that it is in."""

    mirror: Mirror
    guest: GuestTable | None
    shadow: ShadowTable | None
    others: tuple[Counterpart, ...]


def beside(mirror: Mirror, selection: Selection) -> Beside | None:
    """None where the entry is in no table of either side."""
    above, below = stages_of(mirror)
    shadow = mirror.shadow_at(selection.table)
    if shadow is not None and shadow.level.level == selection.level.level:
        links = [each for each in mirror.links if (each.table, each.index) == (selection.table, selection.index)]
        return Beside(mirror, None, shadow, tuple(_in_mirrored(mirror, link, above) for link in links))
    guest = next(
        (t for t in mirror.guest if t.hpa == selection.table and t.level.level == selection.level.level), None
    )  # fmt: skip
    if guest is None:
        return None
    key = guest.gpa, guest.level.level, selection.index
    links = [each for each in mirror.links if (each.guest, each.guest_level, each.guest_index) == key]
    tables = {table.hpa: table for table in mirror.shadow}
    others = tuple(
        Counterpart(
            each, tables[each.table].level, each.index,
            Selection(below, tables[each.table].level, each.table, each.index),
        )
        for each in links
    )  # fmt: skip
    return Beside(mirror, guest, None, others)


def _in_mirrored(mirror: Mirror, link: Link, stage: Stage) -> Counterpart:
    table = mirror.guest_at(link.guest, link.guest_level)
    assert table is not None
    there = table.hpa is not None and not table.registers
    selection = Selection(stage, table.level, table.hpa or 0, link.guest_index) if there else None
    return Counterpart(link, table.level, link.guest_index, selection)
