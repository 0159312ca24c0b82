"""``effects``: what translates differently between two steps of a scenario, or on two pCPUs at one step."""

import argparse
import sys
from typing import Any

from engine.arch.addresses import grouped
from engine.arch.arrays import Code
from engine.arch.rights import Kind
from engine.arch.second_stage import Kind2
from engine.cli.run import read_scenario
from engine.effects.compare import Class, Side, comparable, side
from engine.effects.comparison import Comparison, compare
from engine.effects.reaction import Reacted
from engine.effects.virtual import virtual_effects
from engine.errors import InputError
from engine.machine.state import Refusal
from engine.report import outcome_json
from engine.report.effects import class_key, given, owner_text, rights_text
from engine.scenario import Replay, Scenario


def comparison(options: argparse.Namespace, kind: Kind) -> Comparison:
    """What ``options`` ask to be compared. Raises InputError where a step does not exist, or holds no such vCPU."""
    scenario, images = read_scenario(options.scenario)
    replay = Replay(scenario, images)
    a, b = (
        _side(options, replay, name, step, pcpu)
        for name, step, pcpu in (
            ("--from", options.from_step, options.from_pcpu),
            ("--to", options.to_step, options.to_pcpu),
        )
    )
    _warn(replay, scenario, max(options.from_step, options.to_step))
    differ = comparable(a, b)
    if differ is not None:
        raise InputError(differ.reason)
    return compare(a, b, kind)


def _side(options: argparse.Namespace, replay: Replay, name: str, step: int, pcpu: int | None) -> Side:
    last = len(replay.scenario.events)
    if step > last:
        raise InputError(f"{name} {step}: the scenario has steps 0 to {last}.")
    state = replay.state(step)
    if state.host is None:
        raise InputError(f"{name} {step}: there is no host at this step, so no VM to compare.")
    found = side(state, options.vm, options.vcpu, pcpu)
    if isinstance(found, Refusal):
        raise InputError(f"{name} {step}: {found.reason}")
    return found


def _warn(replay: Replay, scenario: Scenario, last: int) -> None:
    """Events that did not happen are told on standard error: what follows may not be what was meant."""
    for number in range(1, last + 1):
        refusal = replay.refusal(number)
        if refusal is not None:
            name = type(scenario.events[number - 1]).__name__
            print(f"Event {number} ({name}) did not happen: {refusal.reason}", file=sys.stderr)


# --- JSON ------------------------------------------------------------------------------------------------------------


def comparison_json(found: Comparison, options: argparse.Namespace) -> dict[str, Any]:
    """Sides, pages of each class, and the ranges that translate differently, each with KVM's answer."""
    return {
        "from": _side_json(found.a, options.from_step),
        "to": _side_json(found.b, options.to_step),
        "access": found.kind.value,
        "pages": {class_key(kind): count for kind, count in found.pages.items()},
        "virtual_pages": {class_key(kind): count for kind, count in _virtual(found).items()},
        "ranges": [_run_json(found, run) for run in range(len(found))],
    }


def _virtual(found: Comparison) -> dict[Class, int]:
    """The figures for guest-virtual pages; none where the guest has no paging."""
    return virtual_effects(found.a, found.b).pages()


def _side_json(one: Side, step: int) -> dict[str, Any]:
    return {
        "step": step,
        "vm": one.vm.index,
        "vcpu": one.vcpu.index,
        "pcpu": one.pcpu,
        "walked_as": one.second.name,
        "root": hex(one.second.paging.root),
    }


def _run_json(found: Comparison, run: int) -> dict[str, Any]:
    changed, first, last = found.changed, int(found.first[run]), int(found.last[run])
    number = int(found.number[run])
    fits_b = bool(changed.b_code[first] == Code.OK)
    return {
        "gpa": hex(int(changed.start[first])),
        "pages": last - first + 1,
        "class": class_key(Class(int(changed.kind[first]))),
        "a": given(changed.a_code[first], changed.a[first]),
        "b": given(changed.b_code[first], changed.b[first]),
        "a_scattered": bool(changed.a_code[first] == Code.OK) and found.is_scattered(run, changed.a),
        "b_scattered": fits_b and found.is_scattered(run, changed.b),
        "b_owner": owner_text(int(changed.b_owner[first])) if fits_b else None,
        "b_rights": rights_text(int(changed.rights[first])) if fits_b else None,
        "outcome": outcome_json(found.outcomes[number]),
        "kvm": _reacted_json(found.answers[number]),
    }


def _reacted_json(reacted: Reacted) -> dict[str, Any]:
    return {
        "answer": reacted.answer.name.lower().replace("_", "-"),
        "tried": hex(reacted.gpa),
        "exits": reacted.exits,
        "functions": list(reacted.functions),
        "each_round": reacted.livelock.growth if reacted.livelock else None,
    }


# --- text ------------------------------------------------------------------------------------------------------------


def comparison_text(found: Comparison, options: argparse.Namespace) -> str:
    """The same for reading: two lines of sides, the figures, a line for each range."""
    lines = [_side_text("A", found.a, options.from_step), _side_text("B", found.b, options.to_step), ""]
    lines += [f"{count:>10,} pages  {class_key(kind)}" for kind, count in found.pages.items()]
    if not found.pages:
        lines.append("Neither side translates any page.")
    lines += [f"{count:>10,} guest-virtual pages  {class_key(kind)}" for kind, count in _virtual(found).items()]
    if len(found):
        lines += ["", f"GPA range, pages, class: A -> B, what KVM does with a {found.kind.value}"]
        lines += [_run_text(found, run) for run in range(len(found))]
    return "\n".join(lines)


def _side_text(name: str, one: Side, step: int) -> str:
    register = "nCR3" if one.second.kind is Kind2.NPT else "EPTP root"
    where = f"step {step}, VM {one.vm.index} vCPU {one.vcpu.index} on pCPU {one.pcpu}"
    return f"{name}: {where}, {one.second.name}, {register} {grouped(one.second.paging.root)}"


def _run_text(found: Comparison, run: int) -> str:
    row = _run_json(found, run)
    first = int(row["gpa"], 16)
    span = f"{grouped(first, 8)} {grouped(first + row['pages'] * 4096 - 1, 8)}"
    a, b = (_side_of_run(row[side], row[f"{side}_scattered"]) for side in "ab")
    owner = f" ({row['b_owner']}, {row['b_rights']})" if row["b_owner"] else ""
    answer = found.answers[int(found.number[run])].answer.value
    return f"{span} {row['pages']:>8} {row['class']}: {a} -> {b}{owner}, {answer}"


def _side_of_run(given: str, scattered: bool) -> str:
    """An HPA in groups, with ... where only the first page lies there; else why there is none."""
    return f"{grouped(int(given, 16))}{'...' if scattered else ''}" if given.startswith("0x") else given
