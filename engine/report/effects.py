"""What a change does to all of a guest's memory: two moments compared, in figures, ranges and a picture."""

from collections.abc import Iterator
from itertools import zip_longest

import msgspec
import numpy as np

from engine import events as ev
from engine.arch.addresses import plain
from engine.arch.arrays import Code, Right
from engine.arch.faults import Translated
from engine.arch.rights import READ, Kind
from engine.arch.second_stage import Kind2
from engine.arch.walk import Walk
from engine.effects.compare import EXPOSES, Class, Side, comparable, side
from engine.effects.comparison import Comparison, compare
from engine.effects.owners import FREE, OUTSIDE
from engine.effects.virtual import virtual_effects
from engine.errors import InputError
from engine.host.frames import Owner
from engine.host.modes import WAYS
from engine.machine import Refusal
from engine.machine.look import Place, look
from engine.report.events import counted
from engine.report.model import CLASS_NAMES, Block, Fields, Items, Paragraph, Row, Section, Table
from engine.report.pictures import bands
from engine.report.story import Progress, Story
from engine.report.walks import step_name, verdict

MOST_RANGES = 12
"""Ranges that are listed, the gravest and largest first."""


class Moment(msgspec.Struct, frozen=True):
    """The state after ``step`` events. ``pcpu``: whose hardware walks; None: the pCPU that the vCPU is on."""

    step: int
    pcpu: int | None = None


Moments = tuple[Moment, Moment]


# --- which moments


def moments(story: Story, vm: int, vcpu: int) -> Moments | None:
    """What is worth comparing where nobody said: before and after the last change of mode, as the pCPU that changed
    walks; else two pCPUs of different depth at the end; else the first and the last step with tables."""

    def walks(moment: Moment) -> bool:
        return isinstance(_side(story, moment, vm, vcpu), Side)

    changes = [n for n, event, _, refusal in story if isinstance(event, ev.ChangeMode) and refusal is None]
    for step in reversed(changes):
        event = story.events[step - 1]
        assert isinstance(event, ev.ChangeMode)
        before, after = Moment(step - 1), Moment(step, None if WAYS[event.way].all_pcpus else event.pcpu)
        if walks(before) and walks(after):
            return before, after
    there = [step for step in range(story.last + 1) if walks(Moment(step))]
    if not there:
        return None
    there = [step for step in there if _alike(story, step, there[-1], vm, vcpu)]
    last = _two_pcpus(story, there[-1], vm, vcpu)
    if last is not None:
        return last
    return (Moment(there[0]), Moment(there[-1])) if there[0] < there[-1] else None


def _alike(story: Story, step: int, last: int, vm: int, vcpu: int) -> bool:
    """Whether guest-physical addresses mean the same at both steps."""
    one, other = (_side(story, Moment(n), vm, vcpu) for n in (step, last))
    return isinstance(one, Side) and isinstance(other, Side) and comparable(one, other) is None


def _two_pcpus(story: Story, step: int, vm: int, vcpu: int) -> Moments | None:
    """The step as a pCPU walks it that has KVM's depth, and as one does that has another."""
    state = story.states[step]
    here = side(state, vm, vcpu)
    assert isinstance(here, Side)
    assert state.host is not None
    if here.second.kind is not Kind2.NPT or here.vcpu.root is None:
        return None
    usable = [pcpu for pcpu in state.host.pcpus if not pcpu.unusable]
    like = next((p.index for p in usable if p.levels == here.vcpu.root.role.level), None)
    other = next((p.index for p in usable if p.levels != here.vcpu.root.role.level), None)
    return None if like is None or other is None else (Moment(step, like), Moment(step, other))


def _side(story: Story, moment: Moment, vm: int, vcpu: int) -> Side | Refusal:
    state = story.states[min(moment.step, story.last)]
    if state.host is None:
        return Refusal("there is no host at this step")
    if moment.pcpu is not None and 0 <= moment.pcpu < len(state.host.pcpus):
        pcpu = state.host.pcpus[moment.pcpu]
        if pcpu.unusable:
            return Refusal(f"pCPU {pcpu.index} {pcpu.unusable}")
    found = side(state, vm, vcpu, moment.pcpu)
    if isinstance(found, Side) and state.host.pcpus[found.pcpu].lost:
        return Refusal(f"pCPU {found.pcpu} is lost: nothing is walked there any more")
    return found


# --- in words, for whoever tells of a comparison


def class_key(kind: Class) -> str:
    return kind.name.lower().replace("_", "-")


def given(code: int, physical: int) -> str:
    """The HPA that a side gives, or why it gives none."""
    return plain(int(physical)) if code == Code.OK else Code(int(code)).name.lower().replace("_", "-")


def owner_text(packed: int) -> str:
    """Whose frame side B gives, in words."""
    if packed == FREE:
        return "nobody's"
    if packed == OUTSIDE:
        return "no RAM"
    owner = Owner.unpacked(packed)
    whose = f" of VM {owner.vm}" if owner.vm >= 0 else ""
    return f"{owner.use.value}{f', level {owner.level},' if owner.level else ''}{whose}"


def rights_text(rights: int) -> str:
    named = ((Right.R, "R"), (Right.W, "W"), (Right.X, "X"))
    return "".join(letter if rights & right else "-" for right, letter in named)


def side_text(one: Side) -> str:
    register = "nCR3" if one.second.kind is Kind2.NPT else "EPTP root"
    where = f"VM {one.vm.index} vCPU {one.vcpu.index} as pCPU {one.pcpu} walks it"
    return f"{where}: {one.second.name}, {register} {plain(one.second.paging.root)}"


# --- the section


def effects(story: Story, asked: Moments | None, vm: int, vcpu: int, progress: Progress) -> Section:
    """``asked``: the moments A and B to compare; None: those of `moments`."""
    chosen = asked or moments(story, vm, vcpu)
    if chosen is None:
        text = "No vCPU has nested tables at two moments that differ, so there is nothing to compare."
        return Section("effects", "Effects", (Paragraph(text),))
    sides = [_side(story, moment, vm, vcpu) for moment in chosen]
    for name, moment, one in zip("AB", chosen, sides, strict=True):
        if isinstance(one, Refusal):
            return Section("effects", "Effects", (Paragraph(f"{name} is step {moment.step}: {one.reason}."),))
    a, b = sides
    assert isinstance(a, Side)
    assert isinstance(b, Side)
    differ = comparable(a, b)
    if differ is not None:
        return Section("effects", "Effects", (Paragraph(differ.reason),))
    found = compare(a, b, Kind.READ, progress)
    return Section("effects", "Effects", _blocks(found, chosen), marked=bool(EXPOSES & set(found.pages)))


def _blocks(found: Comparison, chosen: Moments) -> tuple[Block, ...]:
    a, b = chosen
    blocks: list[Block] = [
        Paragraph("What guest-physical memory translates to on side A and on side B, page by page."),
        Fields((("A", f"step {a.step}, {side_text(found.a)}"), ("B", f"step {b.step}, {side_text(found.b)}"))),
    ]
    total = sum(found.pages.values())
    if not total:
        return (*blocks, Paragraph("Neither side translates any page."))
    if set(found.pages) == {Class.SAME}:
        return (*blocks, Paragraph(f"All {counted(total, 'page')} translate the same."))
    blocks.append(bands(found, "Guest-physical memory: what side A and side B make of it", ("A", "B")))
    blocks.append(_figures(found))
    virtual = _virtual(found)
    if virtual:
        blocks.append(Paragraph(virtual))
    blocks.append(_ranges(found))
    blocks += _readings(found)
    answers = _answers(found)
    if answers:
        blocks += [Paragraph("When such a page is read, KVM's own fault path, run on a copy of the state:"), answers]
    return tuple(blocks)


def _figures(found: Comparison) -> Table:
    rows = [
        Row((f"{count:,}", "the same on both sides" if kind is Class.SAME else CLASS_NAMES[kind]), kind in EXPOSES)
        for kind, count in found.pages.items()
    ]
    head = ("pages", "on side B")
    return Table("4-KiB pages by what becomes of them", head, tuple(rows), frozenset({0}), titled=True)


def _virtual(found: Comparison) -> str:
    """The figures for guest-virtual pages; '' where the guest has no paging, or maps too much."""
    try:
        pages = virtual_effects(found.a, found.b).pages()
    except InputError as error:
        return str(error)
    told = ", ".join(f"{count:,} {CLASS_NAMES[kind]}" for kind, count in pages.items() if kind is not Class.SAME)
    same = pages.get(Class.SAME, 0)
    if not pages:
        return ""
    total = counted(sum(pages.values()), "guest-virtual page")
    return f"Of {total} that the guest's own tables map, {same:,} translate the same{f'; {told}' if told else ''}."


def _ranges(found: Comparison) -> Table:
    """The runs that translate differently: the gravest first, then the largest."""
    changed = found.changed

    def gravity(run: int) -> tuple[bool, int]:
        first, last = int(found.first[run]), int(found.last[run])
        return Class(int(changed.kind[first])) not in EXPOSES, first - last

    order = sorted(range(len(found)), key=gravity)
    rows = [_range(found, run) for run in sorted(order[:MOST_RANGES])]
    if len(order) > MOST_RANGES:
        rows.append(Row((f"... and {counted(len(order) - MOST_RANGES, 'smaller range')}",)))
    head = ("GPA", "pages", "A", "B", "what B gives there")
    return Table(
        "Ranges that translate differently", head, tuple(rows), frozenset({1}), frozenset({0, 2, 3}), titled=True
    )


def _range(found: Comparison, run: int) -> Row:
    changed, first, last = found.changed, int(found.first[run]), int(found.last[run])
    kind = Class(int(changed.kind[first]))
    a, b = (
        given(code, physical[first]) + ("..." if code == Code.OK and found.is_scattered(run, physical) else "")
        for code, physical in ((changed.a_code[first], changed.a), (changed.b_code[first], changed.b))
    )
    what = ""
    if changed.b_code[first] == Code.OK:
        what = f"{owner_text(int(changed.b_owner[first]))}, {rights_text(int(changed.rights[first]))}"
    gpa = plain(int(changed.start[first]))
    return Row((gpa, f"{last - first + 1:,}", a, b, what or CLASS_NAMES[kind]), kind in EXPOSES)


def _readings(found: Comparison) -> Iterator[Table]:
    """The same tables read in both ways: for the first page that faults now, and the first that is exposed."""
    changed = found.changed
    exposed = np.isin(changed.kind, [int(kind) for kind in EXPOSES])
    for which in (~exposed & (changed.a_code == Code.OK), exposed):
        rows = np.flatnonzero(which)
        if len(rows):
            yield _reading(found, int(changed.start[rows[0]]))


def _reading(found: Comparison, gpa: int) -> Table:
    """The references to one page on side A and on side B, beside one another, and what they come to."""
    walks = [_looked(one, gpa) for one in (found.a, found.b)]
    columns = [[(step_name(step), plain(step.address or 0)) for step in walk.steps] for walk in walks]
    for column, walk in zip(columns, walks, strict=True):
        column.append(("comes to", _comes_to(walk)))
    pairs = zip_longest(*columns, fillvalue=("", ""))
    rows = tuple(Row((*a, *b)) for a, b in pairs)
    head = ("A reads", "at", "B reads", "at")
    title = f"The same tables, read for GPA {plain(gpa)} on both sides"
    return Table(title, head, rows, code=frozenset({0, 1, 2, 3}), titled=True)


def _looked(one: Side, gpa: int) -> Walk:
    walk = look(one.state, gpa, READ, Place(vm=one.vm.index, vcpu=one.vcpu.index, physical=True))
    assert not isinstance(walk, Refusal)
    return walk


def _comes_to(walk: Walk) -> str:
    if isinstance(walk.outcome, Translated):
        return f"HPA {plain(walk.outcome.address)}"
    return verdict(walk.steps[-1])


def _answers(found: Comparison) -> Items | None:
    """What KVM does about it, by answer, with the pages that get it."""
    counts: dict[str, int] = {}
    for run, number in enumerate(found.number.tolist()):
        reacted = found.answers[number]
        said = f"KVM {reacted.answer.value}" if reacted.exits else f"KVM is {reacted.answer.value}"
        counts[said] = counts.get(said, 0) + int(found.last[run] - found.first[run]) + 1
    return Items(tuple(f"{counted(count, 'page')}: {said}" for said, count in counts.items())) if counts else None
