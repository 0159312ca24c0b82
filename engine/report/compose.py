"""The report of a scenario, section by section. Everything in it is computed anew from the scenario's events."""

from collections.abc import Iterator

import msgspec

from engine import events as ev
from engine.arch.addresses import plain
from engine.arch.faults import (
    EPT_VIOLATION_BITS,
    NPF_BITS,
    PF_BITS,
    CodeBit,
    EntryFailure,
    EptViolation,
    GeneralProtection,
    NestedPageFault,
    Outcome,
    PageFault,
    decode_code,
)
from engine.arch.walk import Update, Walk
from engine.effects.findings import Severity
from engine.machine import Images
from engine.report.effects import Moments, effects
from engine.report.events import counted, events, fault_line, outcome_line, result, said
from engine.report.findings import Held, all_findings, over_time, tally, titled
from engine.report.machine import captured, machine, vendor_name
from engine.report.model import Block, Fields, Items, Paragraph, Report, Row, Section, Table
from engine.report.pictures import grid
from engine.report.story import Progress, Story, tell
from engine.report.walks import flags, numbered, step_name, verdict
from engine.scenario import Scenario

MOST_WALKS = 24
"""Walks that are shown in full."""
FEW = 5
"""Events that went wrong that are told of at once."""


class Asked(msgspec.Struct, frozen=True):
    """``name``: of the scenario, as the reader knows it. ``moments``: A and B, None for the usual ones; ``vm`` and
    ``vcpu``: whose memory is compared."""

    name: str
    moments: Moments | None = None
    vm: int = 0
    vcpu: int = 0


def report(scenario: Scenario, images: Images, asked: Asked, progress: Progress = lambda share: None) -> Report:
    """Replay ``scenario`` and tell of it. Raises InputError where an image is not to be had."""

    def part(first: float, last: float) -> Progress:
        return lambda share: progress(first + (last - first) * min(1.0, share))

    story = tell(asked.name, scenario, images, part(0.0, 0.3))
    held = over_time(story, part(0.3, 0.7))
    sections = [machine(story)]
    sections += filter(None, (captured(story),))
    sections += [events(story), *_walks(story)]
    if story.states[-1].host is not None:
        sections.append(effects(story, asked.moments, asked.vm, asked.vcpu, part(0.7, 1.0)))
    sections.append(all_findings(held))
    return Report(f"Walkscope report: {asked.name}", tuple(_lead(story, held)), tuple(sections))


def _lead(story: Story, held: tuple[Held, ...]) -> Iterator[Block]:
    """What this is, and what is worst."""
    yield Paragraph(
        f"{counted(story.last, 'event')}, replayed. The hardware's walks follow the manuals, KVM's tables and answers "
        "its source; every figure is computed from the bytes that one wrote and the other read. Step N is the state "
        "after event N."
    )
    about = _about(story)
    if about:
        yield Paragraph(about)
    news = list(_news(story))
    if news:
        yield Items(tuple(news[:FEW]))
    grave = [h for h in held if h.finding.severity is not Severity.NOTE]
    if not grave:
        yield Paragraph("No hazard is found at any step.")
        return
    yield Paragraph(f"In short, {tally(h.finding for h in grave)}:")
    yield Items(tuple(f"{titled(h.finding)} ({h.when}). {h.finding.sentence}" for h in grave))


def _news(story: Story) -> Iterator[str]:
    """Events that did not happen, or that the processor refused."""
    for number, _, state, refusal in story:
        fault = state.effect.fault
        if refusal is not None:
            yield f"Event {number} did not happen: {refusal.reason}"
        elif isinstance(fault, EntryFailure | GeneralProtection):
            yield f"Step {number}: {fault_line(fault)}."


def _about(story: Story) -> str:
    """The machine in a sentence; '' where there is no host."""
    state = next((s for s in reversed(story.states) if s.module is not None), story.states[-1])
    if state.host is None:
        return ""
    host = state.host
    text = f"{vendor_name(host.vendor)} host, {counted(len(host.pcpus), 'pCPU')}, a kernel of {host.levels} levels"
    if state.module is None:
        return f"{text}; KVM is not loaded."
    module = state.module
    if not module.tdp_enabled:
        return f"{text}; KVM of {module.kernel.label} without nested paging, so it mirrors the guests' tables."
    return f"{text}; KVM of {module.kernel.label} captured max_tdp_level {module.max_tdp_level} on pCPU {module.pcpu}."


# --- walks


class _Told(msgspec.Struct, frozen=True):
    """A walk that is worth showing: where it belongs."""

    step: int
    title: str
    walk: Walk


def _worth_telling(story: Story) -> Iterator[_Told]:
    """Of every access where it led in the end; of an endless one the exits that come again; of the rest what faults."""
    for step, event, state, refusal in story:
        effect = state.effect
        if refusal is not None:
            continue
        what = said(event, state)
        if effect.livelock is not None:
            for number, each in enumerate(effect.exits[effect.livelock.first :], effect.livelock.first + 1):
                yield _Told(step, f"Step {step}, exit {number}, again and again: {what}", each.walk)
            continue
        accesses = isinstance(event, ev.GuestAccess | ev.AccessMemory)
        for walk in effect.walks:
            if accesses or not walk.ok:
                yield _Told(step, f"Step {step}, {result(effect)}: {what}", walk)


def _walks(story: Story) -> Iterator[Section]:
    """Every walk that is worth it once; where the same one is made again, a word that it is."""
    shown: list[_Told] = []
    parts: list[Section] = []
    left_out = 0
    for told in _worth_telling(story):
        same = next((other for other in shown if other.walk == told.walk), None)
        if same is None and len(shown) >= MOST_WALKS:
            left_out += 1
            continue
        key = f"walk-{len(parts) + 1}"
        if same is not None:
            text = f"The same references, entry by entry, with the same outcome as at step {same.step}."
            parts.append(Section(key, told.title, (Paragraph(text),)))
            continue
        shown.append(told)
        parts.append(Section(key, told.title, tuple(walk_blocks(told.walk)), marked=not told.walk.ok))
    if parts:
        text = (
            "Every memory reference in order, with the entry that was found. A cell of the picture is a reference: its "
            "number and the slot that was read."
        )
        if left_out:
            text += f" {counted(left_out, 'walk')} more {'is' if left_out == 1 else 'are'} left out."
        yield Section("walks", "Walks", (Paragraph(text),), tuple(parts))


def walk_blocks(walk: Walk) -> Iterator[Block]:
    """Who walks what, the picture, a row a reference, and the outcome with its codes decoded."""
    access, cpl = walk.access, walk.paging.registers.cpl
    who = "user" if access.is_user(cpl) else "supervisor"
    what = f"{access.kind.value} of {counted(access.size, 'byte')} at {plain(walk.address)}, {who}, CPL {cpl}"
    root = f", root {plain(walk.paging.root)}" if walk.paging.format else ""
    rows = [("access", what)]
    rows.append(("guest" if walk.second else "paging", f"{walk.paging.name}{root}"))
    if walk.second is not None:
        rows.append(("host", f"{walk.second.name}, root {plain(walk.second.paging.root)}"))
    rows.append(("outcome", outcome_line(walk.outcome)))
    rows.append(("cost", f"{counted(walk.references, 'reference')} to {counted(walk.cache_lines, 'cache line')}"))
    yield Fields(tuple(rows))
    if walk.steps:
        yield grid(walk, f"The walk of {plain(walk.address)} reference by reference")
        yield _steps(walk)
        why = tuple(field.why for field in walk.steps[-1].decoded() if field.why)
        if why:
            yield Items(why)
    yield from _code(walk.outcome)
    if walk.updates:
        yield Table("Flags that the walk set", ("sets", "from", "to"), tuple(map(_update, walk.updates)),
                    code=frozenset({0, 1, 2}), titled=True)  # fmt: skip


def _steps(walk: Walk) -> Table:
    rows: list[Row] = []
    target = None
    for number, step in numbered(walk):
        if step.target != target and step.target is not None:
            guest = next((level for level in walk.paging.levels if level.level == step.row), None)
            rows.append(Row((f"{f'g{guest.name} entry' if guest else 'page'} at GPA {plain(step.target)}",)))
        target = step.target
        value = "?" if step.value is None else f"{step.value:0{2 << step.level.entry_shift}x}"
        where = "register" if step.address is None else plain(step.address)
        cells = (str(number or "-"), step_name(step), where, value, " ".join(flags(step)), verdict(step))
        rows.append(Row(cells, marked=step.rule.stops))
    head = ("#", "entry", "read at", "value", "flags", "verdict")
    return Table("The references of the walk", head, tuple(rows), frozenset({0}), frozenset({1, 2, 3, 4}))


def _code(outcome: Outcome) -> Iterator[Block]:
    """The bits of a fault's code that are 1; and bit 0, whose 0 says the most."""
    if not isinstance(outcome, PageFault | NestedPageFault | EptViolation):
        return
    name, code, bits = _code_of(outcome)
    decoded = decode_code(code, bits)
    rows = tuple(
        Row((str(bit.bit), f"{bit.name} = {value}", meaning)) for bit, value, meaning in decoded if value or not bit.bit
    )
    title = f"{name} {plain(code)}; the other bits are 0"
    yield Table(title, ("bit", "is", "which says"), rows, frozenset({0}), titled=True)
    violations = tuple(violation.value for violation in outcome.violations)
    if violations:
        yield Items(violations)


def _code_of(outcome: PageFault | NestedPageFault | EptViolation) -> tuple[str, int, tuple[CodeBit, ...]]:
    match outcome:
        case PageFault():
            return "error code", outcome.error_code, PF_BITS
        case NestedPageFault():
            return "EXITINFO1", outcome.exitinfo1, NPF_BITS
        case EptViolation():
            return "exit qualification", outcome.qualification, EPT_VIOLATION_BITS


def _update(update: Update) -> Row:
    return Row((plain(update.address), plain(update.old, 2 * update.size), plain(update.new, 2 * update.size)))
