"""``run``: a scenario replayed, each event with its outcome and the kernel functions involved, as text or JSON."""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine import codec
from engine.arch.faults import EntryFailure, GeneralProtection
from engine.arch.walk import Walk
from engine.errors import InputError
from engine.events import Event, ImageRef
from engine.kvm.actions import Action
from engine.kvm.nested import Reflected
from engine.machine import Effect, Exit, Images, Livelock, Refusal, State
from engine.memory.library import SCHEME, Library
from engine.report import outcome_json, outcome_text, walk_json, walk_text
from engine.report.events import emulated_line, reflected_line, result
from engine.scenario import Replay, Scenario

STANDARD = "-"
DATABASE = b"SQLite format 3\0"
"""How a scenario file of the window begins."""


def read_scenario(path: str) -> tuple[Scenario, Images]:
    """The scenario in the JSON file ``path``, and what gives its images: relative paths count from the file's folder.

    ``-`` is standard input, and there from the folder one is in. Raises InputError with one sentence where there is
    none.
    """
    file = Path(path)
    try:
        with nullcontext(sys.stdin.buffer) if path == STANDARD else file.open("rb") as stream:
            text = stream.read(codec.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "that is no name of a file"
        raise InputError(f"{file.name or path}: the scenario cannot be read ({why}).") from error
    if text.startswith(DATABASE):
        raise InputError(
            f"{file.name} is a scenario file of the window: python -m storage export makes JSON of it, which can be "
            "piped in here as -."
        )
    library = Library()

    def images(image: ImageRef) -> Any:
        named = image.path if image.path.startswith(SCHEME) else str(file.parent / image.path)
        return library.load(named, image.size)

    return codec.decode_scenario(text), images


def replayed(scenario: Scenario, images: Images) -> Iterator[tuple[int, Event, State, Refusal | None]]:
    """Number (from 1), event, the state after it, and why it did not happen, of every event."""
    replay = Replay(scenario, images)
    for number, event in enumerate(scenario.events, 1):
        yield number, event, replay.state(number), replay.refusal(number)


# --- JSON ------------------------------------------------------------------------------------------------------------


def event_json(number: int, event: Event, state: State, refusal: Refusal | None) -> dict[str, Any]:
    head = {"number": number, "event": codec.to_plain(event), "result": result(state.effect, refusal)}
    if refusal is not None:
        return {**head, "refusal": refusal.reason}
    effect = state.effect
    fault = effect.fault
    return {
        **head,
        "notes": list(effect.notes),
        "actions": [_action_json(action) for action in effect.actions],
        "exits": [_exit_json(each) for each in effect.exits],
        "walks": [walk_json(walk) for walk in effect.walks],
        "loaded": None if effect.loaded is None else hex(effect.loaded),
        "fault": _fault_json(fault) if fault else None,
        "reflected": _reflected_json(effect.reflected) if effect.reflected else None,
        "livelock": _livelock_json(effect.livelock) if effect.livelock else None,
        "assumed": list(effect.assumed),
    }


def _fault_json(fault: Any) -> dict[str, Any]:
    if isinstance(fault, EntryFailure):
        return {"kind": "entry failure", "reason": fault.reason, "basis": str(fault.basis)}
    return outcome_json(fault)


def _reflected_json(reflected: Reflected) -> dict[str, Any]:
    fields = [{"name": f.name, "value": hex(f.value), "source": f.source} for f in reflected.fields]
    return {"name": reflected.name, "exit": outcome_json(reflected.exit), "fields": fields}


def _action_json(action: Action) -> dict[str, str]:
    return {"function": action.function, "did": action.did, "tracepoint": action.tracepoint}


def _exit_json(each: Exit) -> dict[str, Any]:
    reaction = each.reaction
    return {
        "walk": walk_json(each.walk),
        "error_code": hex(reaction.error_code),
        "result": reaction.result,
        "value": reaction.value,
        "resumes": reaction.resumes,
        "basis": str(reaction.basis),
        "actions": [_action_json(action) for action in reaction.actions],
    }


def _livelock_json(livelock: Livelock) -> dict[str, Any]:
    return {
        "first": livelock.first,
        "period": livelock.period,
        "growth": livelock.growth,
        "tracepoints": list(livelock.tracepoints),
    }


# --- text ------------------------------------------------------------------------------------------------------------


def event_text(number: int, event: Event, state: State, refusal: Refusal | None, *, walks: bool) -> str:
    """``walks``: with every reference of the hardware's walks, not only what they came to."""
    lines = [f"{number} {_event_text(event)}: {result(state.effect, refusal)}"]
    lines += [f"   {refusal.reason}"] if refusal else list(_effect_text(state.effect, walks))
    return "\n".join(lines)


def _event_text(event: Event) -> str:
    """The event's name, and those of its fields that are not as they are by default."""
    plain = codec.to_plain(event)
    told = {name: value for name, value in _unlike_default(event, plain).items() if name != "type"}
    fields = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in told.items())
    return " ".join((plain["type"], *fields))


def _unlike_default(value: Any, plain: Any, default: Any = None) -> Any:
    """``plain``, the JSON form of ``value``, without the fields of structs that are as in ``default``, or as usual."""
    if isinstance(value, tuple):
        return [_unlike_default(item, form) for item, form in zip(value, plain, strict=True)]
    if not isinstance(value, Struct):
        return plain
    names, defaults = value.__struct_fields__, value.__struct_defaults__
    usual = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    if type(default) is type(value):
        usual = {name: getattr(default, name) for name in names}
    return {
        name: _unlike_default(getattr(value, name), plain[name], usual.get(name))
        for name in names
        if name not in usual or getattr(value, name) != usual[name]
    }


def _effect_text(effect: Effect, walks: bool) -> Iterator[str]:
    yield from (f"   {note}" for note in effect.notes)
    yield from (f"   {action.function}: {action.did}" for action in effect.actions if action.did not in effect.notes)
    for number, each in enumerate(effect.exits, 1):
        yield f"   exit {number}: {_outcome(each.walk)}"
        if walks:
            yield from (f"      {line}" for line in walk_text(each.walk).splitlines())
        yield from (f"      {action.function}: {action.did}" for action in each.reaction.actions)
        value = each.reaction.value
        yield f"      {each.reaction.result}{'' if value is None else f' ({value})'}"
    if effect.livelock is not None:
        yield from _livelock_text(effect.livelock)
    else:
        for walk in effect.walks:
            yield f"   {_outcome(walk)}"
            if walks:
                yield from (f"      {line}" for line in walk_text(walk).splitlines())
    if isinstance(effect.fault, EntryFailure):
        yield f"   the guest cannot be entered: {effect.fault.reason}"
    elif effect.fault is not None:
        whose = "" if isinstance(effect.fault, GeneralProtection) else "by KVM's own walk: "
        yield f"   {whose}{outcome_text(effect.fault)[0]}"
    if effect.reflected is not None:
        yield f"   {reflected_line(effect.reflected)}"
        yield from (f"      {f.name} = {f.value:#x}: {f.source}" for f in effect.reflected.fields)
    if effect.emulated is not None:
        yield f"   {emulated_line(effect.emulated)}"
    if effect.loaded is not None:
        yield f"   loaded {effect.loaded:#x}"
    yield from (f"   assumed: {assumption}" for assumption in effect.assumed)


def _outcome(walk: Walk) -> str:
    return f"{outcome_text(walk.outcome)[0].removeprefix('-> ')} after {walk.references} references"


def _livelock_text(livelock: Livelock) -> Iterator[str]:
    grows = ", ".join(f"{name} +{count}" for name, count in livelock.growth.items())
    again, first = livelock.first + livelock.period + 1, livelock.first + 1
    yield f"   endless: exit {again} is exit {first} again; no byte of memory, nothing of KVM but counters has changed"
    yield f"      each round: {grows}"
    yield f"      a trace shows: {', '.join(livelock.tracepoints)}"
