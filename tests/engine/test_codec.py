"""Scenarios, events and edits as JSON: exact there and back, one event a line, and strict about all else."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import codec
from engine import events as ev
from engine.arch.registers import Registers
from engine.demo import Demo, Stop
from engine.edits import Configure, Edit, Insert, Move, Narrate, Remove, Replace
from engine.errors import InputError
from engine.machine import Configuration
from engine.scenario import Scenario
from tests.conftest import ROOT
from tests.engine.anything import EDITS, EVENTS, any_event

SCENARIO = Scenario(events=(ev.BootHost(), ev.LoadKvm("5.15"), ev.Poke(0x1000, (1 << 64) - 1)))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_comes_back(kind: type) -> None:
    @given(any_event(kind))
    def comes_back(event: ev.Event) -> None:
        assert codec.decode_event(codec.encode_event(event)) == event
        assert codec.decode_scenario(codec.encode_scenario(Scenario(events=(event,)))).events == (event,)

    comes_back()


EDIT = st.one_of(
    st.builds(Insert, st.integers(0, 99), any_event()),
    st.builds(Replace, st.integers(0, 99), any_event()),
    st.builds(Remove, st.integers(0, 99)),
    st.builds(Move, st.integers(0, 9), st.integers(0, 9)),
    st.just(Configure(Configuration())),
    st.builds(Narrate, st.builds(Demo, st.text(), st.text(), st.lists(st.builds(Stop, st.integers(0, 9))).map(tuple))),
)


@given(EDIT)
def test_edits_come_back(edit: Edit) -> None:
    assert type(edit) in EDITS
    assert codec.decode_edit(codec.encode_edit(edit)) == edit


def test_one_event_a_line_so_that_a_change_is_a_line() -> None:
    lines = codec.encode_scenario(SCENARIO).splitlines()
    assert [line for line in lines if '"type"' in line] == [line for line in lines if line.startswith('  {"type": ')]
    changed = Scenario(events=(*SCENARIO.events[:2], ev.Poke(0x1000, 0)))
    differing = [a for a, b in zip(lines, codec.encode_scenario(changed).splitlines(), strict=True) if a != b]
    assert len(differing) == 1
    assert differing[0].startswith('  {"type": "Poke"')


def test_addresses_entries_and_registers_are_hex() -> None:
    text = codec.encode_scenario(
        Scenario(events=(
            ev.Poke(0x1000, 0x8000_0000_0000_0003), ev.FillGuestPages(0x2000, (0x63,)),
            ev.SetGuestRegisters(Registers(cr3=0x5000)), ev.BootHost(ram=(ev.RamRange(0, 1 << 30),)),
        ))
    )  # fmt: skip
    for piece in ('"value": "0x8000000000000003"', '"words": ["0x63"]', '"cr3": "0x5000"', '"start": "0x0"'):
        assert piece in text


def test_the_form_is_what_it_was() -> None:
    """Format 1, held to the byte: other programs read it, and old files stay."""
    kept = (ROOT / "tests" / "data" / "scenario-format-1.json").read_text()
    assert codec.encode_scenario(codec.decode_scenario(kept)) == kept
    assert {type(event) for event in codec.decode_scenario(kept).events} == set(EVENTS)


def damaged(change: Any) -> str:
    plain = json.loads(codec.encode_scenario(SCENARIO))
    change(plain)
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        ("[]", "no format number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": 1, "events": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
        ('{"format": 1, "events": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"format": 2}', "get a newer one"),
        ('{"format": true}', "get a newer one"),
        (damaged(lambda p: p.update(format="1")), "get a newer one"),
        (damaged(lambda p: p.update(extra=1)), "extra"),
        (damaged(lambda p: p["events"][0].update(extra=1)), "extra"),
        (damaged(lambda p: p["events"][0]["pcpus"][0]["features"].update(extra=1)), "extra"),
        (damaged(lambda p: p["configuration"]["rules"].update(extra=1)), "extra"),
        (damaged(lambda p: p["events"][0].update(type="Explode")), "Explode"),
        (damaged(lambda p: p["events"][0].pop("type")), "type"),
        (damaged(lambda p: p["events"][0].update(seed=-1)), "seed must be an unsigned"),
        (damaged(lambda p: p["events"][0].update(seed=1.5)), "Expected `int`"),
        (damaged(lambda p: p["events"][1].update(pcpu="0")), "Expected `int`"),
        (damaged(lambda p: p["events"][1].update(pcpu=True)), "Expected `int`"),
        (damaged(lambda p: p["events"][2].update(address=4096)), "must be a hex string"),
        (damaged(lambda p: p["events"][2].update(address="0x" + "f" * 17)), "Expected `int`"),
        (damaged(lambda p: p["events"][2].update(address="0xyz")), "invalid literal"),
        (damaged(lambda p: p["events"][2].update(address="-0x1")), "Expected `int`"),
        (damaged(lambda p: p["events"][0]["pcpus"][0]["features"].update(maxphyaddr=99)), "MAXPHYADDR is 99"),
    ],
)
def test_what_is_no_scenario_is_one_sentence(text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read|is not JSON|This is not|has format") as caught:
        codec.decode_scenario(text)
    sentence = str(caught.value)
    assert says in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 400


def test_a_text_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BYTES", 1 << 20)
    with pytest.raises(InputError, match="larger than 1 MiB"):
        codec.decode_scenario(" " * ((1 << 20) + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["format", "events", "type", "address", "x"]), inner)
    ),
)


@given(JSON)
def test_any_json_is_a_scenario_or_one_sentence(value: Any) -> None:
    try:
        assert isinstance(codec.decode_scenario(json.dumps(value)), Scenario)
    except InputError as refused:
        sentence = str(refused)
        assert "\n" not in sentence


def test_the_union_of_events_is_complete() -> None:
    assert set(EVENTS) == set(get_args(ev.Event))
