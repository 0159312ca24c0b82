"""What is amiss, over all steps of a scenario or at one: each finding with its evidence, and on what it rests."""

from collections.abc import Iterable

import msgspec

from engine.arch.addresses import plain
from engine.effects.findings import Finding, Severity, findings
from engine.report.events import counted
from engine.report.model import Fields, Items, Paragraph, Report, Section
from engine.report.story import Progress, Story

OF_THE_EVENT = ("livelock", "assumption")
"""Findings about what the last event did, rather than about what it left."""
NAMES = {Severity.HAZARD: "Hazard", Severity.WARNING: "Warning", Severity.NOTE: "Note"}


class Held(msgspec.Struct, frozen=True):
    """``finding`` as it was when it came, and the steps at which it held, as runs (first, last)."""

    finding: Finding
    runs: tuple[tuple[int, int], ...]

    @property
    def when(self) -> str:
        """ "steps 12 to 13, and step 20"."""
        return ", and ".join(f"step {a}" if a == b else f"steps {a} to {b}" for a, b in self.runs)


def identity(finding: Finding) -> tuple[object, ...]:
    """What makes findings of two steps the same one."""
    return finding.key, finding.vm, finding.vcpu, finding.pcpu, finding.basis


def over_time(story: Story, progress: Progress) -> tuple[Held, ...]:
    """The findings of all steps, the gravest first, then in the order in which they came."""
    held: dict[tuple[object, ...], Held] = {}
    for step, state in enumerate(story.states):
        refused = story.refusals[step] is not None
        for finding in findings(state):
            if refused and finding.key in OF_THE_EVENT:
                continue  # that was the event before: nothing happened at this step
            before = held.get(identity(finding))
            if before is None:
                held[identity(finding)] = Held(finding, ((step, step),))
                continue
            *runs, (first, last) = before.runs
            now = ((first, step),) if last == step - 1 else ((first, last), (step, step))
            held[identity(finding)] = msgspec.structs.replace(before, runs=(*runs, *now))
        progress(step / max(1, story.last))
    return tuple(sorted(held.values(), key=lambda each: -each.finding.severity))


def tally(every: Iterable[Finding]) -> str:
    """ "3 hazards, 1 warning"; '' for none."""
    found = list(every)
    counts = ((name, sum(f.severity is severity for f in found)) for severity, name in NAMES.items())
    return ", ".join(counted(count, name.lower()) for name, count in counts if count)


def titled(finding: Finding) -> str:
    return f"{NAMES[finding.severity]}: {finding.title}"


def section(finding: Finding, when: str, number: int) -> Section:
    """``when``: the steps at which it holds, or since when, as a sentence."""
    rows = [(each.what, each.value if each.address is None else plain(each.address)) for each in finding.evidence]
    said = (
        ("rests on", str(finding.basis)),
        ("could be noticed", finding.notice),
        ("would help", finding.remedy),
    )
    rows += [(name, text) for name, text in said if text]
    blocks = (Paragraph(f"{finding.sentence} {when}"), Fields(tuple(rows)))
    return Section(f"finding-{number}", titled(finding), blocks, marked=finding.severity is Severity.HAZARD)


def all_findings(held: tuple[Held, ...]) -> Section:
    """Each finding as it was when it came."""
    if not held:
        return Section("findings", "Findings", (Paragraph("No check finds anything at any step."),))
    parts = tuple(section(h.finding, f"Holds at {h.when}.", number) for number, h in enumerate(held, 1))
    text = f"{tally(h.finding for h in held)}, computed from bytes and registers at every step.".capitalize()
    return Section("findings", "Findings", (Paragraph(text),), parts)


def of_step(name: str, step: int, since: Iterable[tuple[Finding, int]]) -> Report:
    """The findings of one step as a report of their own; ``since``: each with the first step from which it holds."""
    found = tuple(since)
    sections = tuple(
        section(finding, f"Since step {first}.", number) for number, (finding, first) in enumerate(found, 1)
    )
    told = tally(finding for finding, _ in found)
    lead = Items((told,)) if told else Paragraph("No hazard.")
    return Report(f"Findings at step {step}: {name}" if name else f"Findings at step {step}", (lead,), sections)
