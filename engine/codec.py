"""Scenarios, events and edits as JSON and back: strict, stable, with a format number. The only codec there is.

Addresses, entries and register values are hex strings ("0x..."), so that a scenario reads and diffs well; which fields
those are follows from their type (`events.U64`) and from `Registers`.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from engine import demo, events
from engine.arch.registers import Registers
from engine.edits import Edit
from engine.errors import InputError
from engine.scenario import Scenario

FORMAT = 1
MAX_BYTES = 64 << 20
"""Larger texts are refused before they are parsed."""
MAX_DEPTH = 32

T = TypeVar("T")


def _hex_fields() -> frozenset[str]:
    names = {f for f in Registers.__struct_fields__ if f not in ("cpl", "cs_l")} | {"at"}
    for struct in (*get_args(events.Event), events.RamRange, demo.Look, demo.Entry):
        kinds = get_type_hints(struct, include_extras=True)
        names |= {n for n, kind in kinds.items() if events.U64 in (kind, *get_args(kind))}
    return frozenset(names)


HEX_FIELDS = _hex_fields()


def _to_hex(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _to_hex(item, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_hex(item, name) for item in value]
    if name in HEX_FIELDS and isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    return value


def _from_hex(value: Any, name: str = "", depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        return {key: _from_hex(item, key, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_hex(item, name, depth + 1) for item in value]
    if name in HEX_FIELDS and isinstance(value, str) and value.startswith("0x") and len(value) <= 18:
        return int(value, 16)
    if name in HEX_FIELDS and isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"“{name}” must be a hex string, such as 0x1000, and is the number {value}")
    return value


def to_plain(value: msgspec.Struct) -> Any:
    """``value`` as plain dicts and lists, numbers in hex where they are addresses, entries or registers."""
    return _to_hex(msgspec.to_builtins(value))


def from_plain(plain: Any, kind: type[T], what: str) -> T:
    """The value of type ``kind`` that ``plain`` describes. Raises InputError with a sentence that names ``what``."""
    try:
        return msgspec.convert(_from_hex(plain), kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise InputError(f"This {what} cannot be read: {_plainly(error)}.") from None


def _plainly(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _parse(text: str | bytes, what: str) -> Any:
    if len(text) > MAX_BYTES:
        raise InputError(f"This {what} is larger than {MAX_BYTES >> 20} MiB, which no {what} of ours is.")
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"This {what} cannot be read: it is nested too deeply.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"This {what} is not JSON: {_plainly(error)}.") from None


def encode_scenario(scenario: Scenario) -> str:
    """One event a line, keys in a fixed order: stable, and a change of one event is a change of one line.

    So are the stops of a demo; a scenario without one says nothing of it.
    """
    configuration = json.dumps(to_plain(scenario.configuration))
    told = f' "demo": {_demo(scenario.demo)},\n' if scenario.demo != Scenario().demo else ""
    body = _lines(scenario.events, "  ")
    return f'{{\n "format": {FORMAT},\n "configuration": {configuration},\n{told} "events": {body}\n}}\n'


def _demo(told: demo.Demo) -> str:
    title, summary = json.dumps(told.title), json.dumps(told.summary)
    return f'{{\n  "title": {title},\n  "summary": {summary},\n  "stops": {_lines(told.stops, "   ")}\n }}'


def _lines(values: Sequence[msgspec.Struct], margin: str) -> str:
    lines = f",\n{margin}".join(json.dumps(to_plain(value)) for value in values)
    return f"[\n{margin}{lines}\n{margin[1:]}]" if lines else "[]"


def decode_scenario(text: str | bytes) -> Scenario:
    """Raises InputError with one sentence for anything that is not a scenario of this format."""
    plain = _parse(text, "scenario")
    if not isinstance(plain, dict) or "format" not in plain:
        raise InputError("This is not a Walkscope scenario: it has no format number.")
    number = plain["format"]
    if type(number) is not int or number != FORMAT:
        raise InputError(f"This scenario has format {number!r}; this program reads format {FORMAT}: get a newer one.")
    return from_plain({key: value for key, value in plain.items() if key != "format"}, Scenario, "scenario")


def encode_event(event: events.Event) -> bytes:
    return json.dumps(to_plain(event), separators=(",", ":")).encode()


def decode_event(text: bytes) -> events.Event:
    return from_plain(_parse(text, "event"), events.Event, "event")  # type: ignore[arg-type]


def encode_edit(edit: Edit) -> bytes:
    return json.dumps(to_plain(edit), separators=(",", ":")).encode()


def decode_edit(text: bytes) -> Edit:
    return from_plain(_parse(text, "edit"), Edit, "edit")  # type: ignore[arg-type]
