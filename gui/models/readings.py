"""The same bytes read in two ways: the tables that a walk of side B goes through, and what side A takes them for.

Side A is walked at the address for which it reads the same entries, so nothing here knows how the sides differ: the
indices that B used, one after another, are put together as A's levels take an address apart.
"""

import msgspec
import numpy as np
from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped, size_name
from engine.arch.faults import Outcome, Translated
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level
from engine.arch.rights import READ
from engine.arch.tables import Run
from engine.arch.walk import Rule, Stage, Walk
from engine.effects.compare import Side
from engine.effects.owners import FREE, OUTSIDE
from engine.host.frames import Owner, Use
from engine.machine.look import Place, look
from engine.machine.state import Refusal
from gui.document import Selection
from gui.effect_texts import TABLES
from gui.explain import step_verdict
from gui.models.hierarchy import Node, Tables

translate = QCoreApplication.translate
FRAME = 0xFFF


class Reading(msgspec.Struct, frozen=True):
    """A frame as one side reads it: ``node``, a table, or a page of data with ``words``, the runs of its words that are
    not 0. ``slot``: the entry, or the word, that is used. ``stop``: why the walk ends here, '' where it does not.

    ``about``: whose bytes these are; ``odd``: what is wrong with reading them so, '' for nothing.
    """

    frame: int
    name: str
    level: int
    slot: int
    about: str
    node: Node | None = None
    words: tuple[Run, ...] = ()
    stop: str = ""
    odd: str = ""


class Pair(msgspec.Struct, frozen=True):
    """A row of the picture; a side that has ended earlier has None."""

    a: Reading | None
    b: Reading | None

    @property
    def joined(self) -> bool:
        """Both read the same frame."""
        return self.a is not None and self.b is not None and self.a.frame == self.b.frame


class Readings(msgspec.Struct, frozen=True):
    """``gpa``: the selected address, and what each side makes of it. ``gpa_a``: the one for which A reads these
    entries."""

    gpa: int
    gpa_a: int
    end_a: Outcome
    end_b: Outcome
    pairs: tuple[Pair, ...]


def readings(a: Side, b: Side, gpa: int) -> Readings:
    walk_a, walk_b = _look(a, gpa), _look(b, gpa)
    gpa_a = _counterpart(a, walk_b)
    found_a = _of_walk(a, _look(a, gpa_a), gpa_a)
    found_b = _of_walk(b, walk_b, gpa)
    rows = max(len(found_a), len(found_b))
    found_a += [None] * (rows - len(found_a))
    found_b += [None] * (rows - len(found_b))
    pairs = tuple(_pair(one, other) for one, other in zip(found_a, found_b, strict=True))
    return Readings(gpa, gpa_a, walk_a.outcome, walk_b.outcome, pairs)


def _pair(a: Reading | None, b: Reading | None) -> Pair:
    """``a`` beside ``b``; an entry that is another one on side B is odd, but for its A and D flags."""
    pair = Pair(a, b)
    if pair.joined and a and b and a.node and b.node and not b.odd:
        old, new = a.node.values[a.slot], b.node.values[b.slot]
        flags = b.node.level.accessed | b.node.level.dirty
        if a.slot == b.slot and old is not None and new is not None and (old ^ new) & ~flags:
            text = translate("Readings", "entry {slot} is {new}, and was {old} on A")
            text = text.format(slot=b.slot, new=grouped(new), old=grouped(old))
            return Pair(a, msgspec.structs.replace(b, odd=text))
    return pair


def _look(side: Side, gpa: int) -> Walk:
    walk = look(side.state, gpa, READ, Place(vm=side.vm.index, vcpu=side.vcpu.index, physical=True))
    assert not isinstance(walk, Refusal)
    return walk


def _counterpart(a: Side, walk: Walk) -> int:
    """The address for which side ``a`` uses the entries that ``walk`` used, as far as it has levels for them."""
    levels, steps = a.second.paging.levels, walk.steps
    end = walk.outcome.address if isinstance(walk.outcome, Translated) else None
    address = 0
    for number, (level, step) in enumerate(zip(levels, steps, strict=False)):
        address |= step.index << level.shift
        if step.value is None or not step.value & level.present:
            return address
        if step.value & level.leaf:
            following = steps[number + 1].address if number + 1 < len(steps) else end
            inside = (following or 0) - level.format.entry(True).base(step.value)
            return address | (inside if 0 <= inside < level.span else walk.address & (level.span - 1))
    if end is not None and len(steps) < len(levels):
        level = levels[len(steps)]
        address |= (end & FRAME) >> level.entry_shift << level.shift
    return address


def _of_walk(side: Side, walk: Walk, gpa: int) -> list[Reading | None]:
    tables = Tables(side.state.memory)
    found: list[Reading | None] = []
    for step in walk.steps:
        assert step.table is not None
        values, runs = tables.read(step.level, step.table)
        node = Node((), step.level, step.table, step.table, 0, values, runs, step.index, True)
        about, odd = _as_table(side, step.table, step.level, step.rule.stops)
        stop = step_verdict(step) if step.rule.stops else ""
        found.append(
            Reading(step.table >> 12, step.level.name, step.level.level, step.index, about, node, stop=stop, odd=odd)
        )
    if isinstance(walk.outcome, Translated):
        end = walk.outcome
        name = translate("Readings", "page, {size}").format(size=size_name(end.page_size))
        about, odd = _as_page(side, end.address, gpa)
        words = _words(side.state.memory, end.address >> 12)
        slot = (end.address & FRAME) >> 3
        found.append(Reading(end.address >> 12, name, 0, slot, about, words=words, odd=odd))
    return found


def _words(memory: PhysicalMemory, pfn: int) -> tuple[Run, ...]:
    """The words of a frame that are not 0, in runs; one unknown run where its bytes are not known."""
    frame = memory.frame(pfn)
    if frame is None:
        return (Run(0, 511, Rule.UNKNOWN),)
    runs: list[Run] = []
    for slot, word in enumerate(frame):
        if word and runs and runs[-1].last == slot - 1:
            runs[-1] = Run(runs[-1].first, slot, Rule.PAGE)
        elif word:
            runs.append(Run(slot, slot, Rule.PAGE))
    return tuple(runs)


def _owner(side: Side, physical: int) -> Owner | int:
    """The owner of a frame; FREE or OUTSIDE where it has none."""
    assert side.state.host is not None
    frames, pfn = side.state.host.frames, physical >> 12
    return frames.owner(pfn) or int(FREE if frames.is_ram(pfn) else OUTSIDE)


def _as_table(side: Side, physical: int, level: Level, stops: bool) -> tuple[str, str]:
    """Whose bytes these are, and what is wrong with reading them as a table of ``level``.

    A table of KVM that is taken for one of another level is worth a word where the walk ``stops``.
    """
    owner, vm = _owner(side, physical), side.vm.index
    about, name = _about(side, owner, physical), level.name
    match owner:
        case Owner(use=Use.KVM_TABLE, vm=own, level=made) if own == vm:
            if not stops or made == level.level:
                return about, ""
            odd = translate("Readings", "is read as a {table}, though KVM made it a {made}")
            return about, odd.format(table=name, made=TABLES[made])
        case Owner(use=Use.GUEST_PAGE, vm=own) if own == vm:
            odd = translate("Readings", "is read as a {table}: the guest writes its own nested entries")
            return about, odd.format(table=name)
    return about, translate("Readings", "is read as a {table}, which KVM never made").format(table=name)


def _as_page(side: Side, physical: int, gpa: int) -> tuple[str, str]:
    """Whose bytes these are, and what is wrong with giving them to the guest as its page at ``gpa``."""
    owner = _owner(side, physical)
    about = _about(side, owner, physical)
    if not isinstance(owner, Owner):
        return about, translate("Readings", "is the guest's page now, and nobody's memory")
    if owner.use is Use.KVM_TABLE:
        return about, translate("Readings", "is the guest's page now: it reads and writes KVM's table")
    if owner.use is not Use.GUEST_PAGE:
        return about, translate("Readings", "is the guest's page now, and the host's memory")
    if owner.vm != side.vm.index:
        return about, translate("Readings", "is the guest's page now, and another VM's memory")
    right = int(side.rightful(np.array([gpa >> 12], np.uint64))[0])
    if owner.gfn != right:
        text = translate("Readings", "is another page of the guest, that at GPA {gpa}")
        return about, text.format(gpa=grouped(owner.gfn << 12))
    return about, ""


def _about(side: Side, owner: Owner | int, physical: int) -> str:
    if not isinstance(owner, Owner):
        return translate("Readings", "a free frame") if owner == int(FREE) else translate("Readings", "no RAM")
    mirror = side.vm.shadow.page(physical)
    if mirror is not None and not mirror.role.direct:
        text = translate("Readings", "KVM made it a {table}, a mirror of that at L1-physical {gpa}")
        if mirror.role.passthrough:
            text = translate("Readings", "KVM made it a {table} over L1's top table at {gpa}: a level that L1 lacks")
        return text.format(table=TABLES[owner.level], gpa=grouped(mirror.gfn << 12))
    if physical & ~FRAME in side.vcpu.all_special:
        text = translate("Readings", "KVM made it a {table}, for a level that L1 lacks")
        return text.format(table=TABLES[owner.level])
    match owner.use:
        case Use.KVM_TABLE:
            text = translate("Readings", "KVM made it a {table}, for GPA {gpa} on")
            return text.format(table=TABLES[owner.level], gpa=grouped(owner.gfn << 12))
        case Use.GUEST_PAGE if owner.vm == side.vm.index:
            text = translate("Readings", "data of the guest, its page at GPA {gpa}")
            return text.format(gpa=grouped(owner.gfn << 12))
        case Use.GUEST_PAGE:
            return translate("Readings", "memory of VM {vm}").format(vm=owner.vm)
        case Use.HOST_TABLE:
            return translate("Readings", "a page table of the host")
    return translate("Readings", "the host's kernel")


def selection(reading: Reading) -> Selection | None:
    """The entry of ``reading``, to be selected; None for a page of data."""
    if reading.node is None or reading.node.address is None:
        return None
    return Selection(Stage.NESTED, reading.node.level, reading.node.address, reading.slot)
