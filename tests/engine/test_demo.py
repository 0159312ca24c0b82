"""Demos: stops follow the events, edits of them are undone, and what they say is what the engine computes."""

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import codec
from engine import events as ev
from engine.demo import Claim, Demo, Look, Moment, Stop
from engine.edits import Edit, Insert, Move, Narrate, Remove, Replace
from engine.errors import InputError
from engine.machine.look import Place
from engine.memory.library import Library
from engine.narration import claims
from engine.narration.fields import FIELDS
from engine.narration.narrator import Narrator
from engine.scenario import Replay, Scenario
from tests.conftest import ROOT, scaled
from tests.engine.kvm_fixture import MIB, VM, booted, guest, slot, to

OTHER = ev.FlushTlb()
ADDRESS = 0x1000
EVENTS = (
    *booted(), *VM, slot(0, 16 * MIB), ev.GuestAccess(ADDRESS), ev.GuestAccess(ADDRESS), to(True), ev.MoveVcpu(1),
    ev.GuestAccess(ADDRESS),
)  # fmt: skip
SOUND, CHANGED, MOVED, ENDLESS = 7, 8, 9, 10
HERE = Look(ADDRESS, cpl=0)
PAGE = (ROOT / "resources" / "docs" / "demos.md").read_text(encoding="utf-8")


def told(*stops: Stop) -> Narrator:
    return Narrator(Replay(Scenario(events=EVENTS, demo=Demo(stops=stops)), Library()))


def steps(scenario: Scenario) -> list[int]:
    return [stop.step for stop in scenario.demo.stops]


# --- stops follow events

FIVE = Scenario(events=(ev.BootHost(), OTHER, OTHER, OTHER, OTHER), demo=Demo("five", "", (Stop(1), Stop(3), Stop(4))))


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        (Insert(0, OTHER), [2, 4, 5]),
        (Insert(3, OTHER), [1, 3, 5]),
        (Insert(5, OTHER), [1, 3, 4]),
        (Remove(0), [0, 2, 3]),
        (Remove(2), [1, 2, 3]),
        (Remove(4), [1, 3, 4]),
        (Move(0, 4), [0, 2, 3]),
        (Move(4, 0), [2, 4, 5]),
        (Replace(2, OTHER), [1, 3, 4]),
    ],
)
def test_a_stop_stays_at_its_moment_when_events_come_and_go(edit: Edit, after: list[int]) -> None:
    changed = edit.apply(FIVE)
    assert steps(changed) == after
    assert edit.inverse(FIVE).apply(changed) == FIVE


def test_what_a_stop_compares_follows_as_well() -> None:
    scenario = Scenario(events=FIVE.events, demo=Demo(stops=(Stop(5, a=Moment(2, 1), b=Moment(4)),)))
    (stop,) = Insert(0, OTHER).apply(scenario).demo.stops
    assert (stop.a, stop.b) == (Moment(3, 1), Moment(5))


def test_two_stops_that_fell_together_are_apart_again_after_undo() -> None:
    """A removed event takes the difference between the steps around it along; undo brings it back."""
    scenario = Scenario(events=FIVE.events, demo=Demo(stops=(Stop(2), Stop(3))))
    edit = Remove(2)
    assert steps(edit.apply(scenario)) == [2, 2]
    assert edit.inverse(scenario).apply(edit.apply(scenario)) == scenario


def test_edits_of_stops_are_undone_as_those_of_events() -> None:
    demo = FIVE.demo.inserted(1, Stop(2, "new")).moved(0, 3).removed(0)
    edit = Narrate(demo)
    assert steps(edit.apply(FIVE)) == [3, 4, 1]
    assert edit.inverse(FIVE).apply(edit.apply(FIVE)) == FIVE
    assert codec.decode_edit(codec.encode_edit(edit)) == edit


def test_no_state_depends_on_what_is_said() -> None:
    replay = Replay(FIVE, Library())
    before = [replay.state(n) for n in range(6)]
    replay.edit(Narrate(Demo()).apply(FIVE))
    assert all(replay.state(n) is state for n, state in enumerate(before))


# --- as JSON


def test_a_demo_is_a_stop_a_line_and_comes_back() -> None:
    look = Look(1 << 63, ev.Kind.FETCH, 4, 0, Place(vcpu=1, physical=True))
    stop = Stop(3, "“A”", "{references}", look=look, claims=(Claim("references", ">", 3),), b=Moment(2))
    scenario = Scenario(events=FIVE.events, demo=Demo("One", "address", (stop, Stop(0))))
    text = codec.encode_scenario(scenario)
    assert codec.decode_scenario(text) == scenario
    assert [line for line in text.splitlines() if '"step": 3' in line and '"0x8000000000000000"' in line]
    assert json.loads(text)["demo"]["stops"][1] == {"step": 0}, "what has its default is left out"
    assert "demo" not in codec.encode_scenario(Scenario(events=FIVE.events))


@pytest.mark.parametrize(
    ("stop", "says"),
    [
        ({}, "step"),
        ({"step": -1}, "step"),
        ({"step": 1, "view": "nowhere"}, "nowhere"),
        ({"step": 1, "extra": 1}, "extra"),
        ({"step": 1, "look": {"address": "0x0", "cpl": 4}}, "cpl"),
        ({"step": 1, "look": {"address": "0x0", "place": {"vmm": 1}}}, "vmm"),
        ({"step": 1, "text": "\ud800"}, "half a character"),
        ({"step": 1, "claims": [{"field": "references", "relation": "~"}]}, "relation"),
    ],
)
def test_a_damaged_stop_is_one_sentence(stop: object, says: str) -> None:
    text = json.dumps({"format": 1, "events": [], "demo": {"stops": [stop]}})
    with pytest.raises(InputError, match="cannot be read") as caught:
        codec.decode_scenario(text)
    assert says in str(caught.value)


# --- fields


@pytest.mark.parametrize(
    ("step", "text", "filled"),
    [
        (SOUND, "{references} of {nested-levels} levels", "4 of 4 levels"),
        (SOUND, "{ references }", "4"),
        (SOUND, "{{references}} {{}}", "{references} {}"),
        (SOUND, "no field", "no field"),
        (SOUND, "{address}, {page}", "0x1000, 4 KiB"),
        (MOVED, "{captured-level} captured, {pcpu-levels} walked", "4 captured, 5 walked"),
        (MOVED, "{a.outcome}, then {outcome}", "translated, then #NPF"),
        (MOVED, "{a.nested-levels} and {b.nested-levels}", "4 and 5"),
        (ENDLESS, "{result}: {endless}, {growth}", "RET_PF_SPURIOUS: yes, exits +1, pf_taken +1, pf_spurious +1"),
        (ENDLESS, "{sound.references}", "4"),
    ],
)
def test_a_text_is_filled_from_the_computed_state(step: int, text: str, filled: str) -> None:
    stop = Stop(step, look=HERE, a=Moment(SOUND), b=Moment(MOVED))
    assert told(stop, Stop(SOUND, look=HERE, name="sound")).fill(stop, text) == filled


@pytest.mark.parametrize(
    ("stop", "text", "says"),
    [
        (Stop(SOUND, look=HERE), "{refs}", "There is no field “refs”"),
        (Stop(SOUND, look=HERE), "{__class__}", "There is no field"),
        (Stop(SOUND, look=HERE), "{references.real}", "There is no field"),
        (Stop(SOUND, look=HERE), "{0}", "There is no field"),
        (Stop(SOUND, look=HERE), "{}", "There is no field"),
        (Stop(SOUND, look=HERE), "a { b", "A brace stands alone"),
        (Stop(SOUND, look=HERE), "a } b", "A brace stands alone"),
        (Stop(SOUND, look=HERE), "{other.references}", "There is no stop “other”"),
        (Stop(SOUND, look=HERE), "{a.references}", "does not say what A is"),
        (Stop(SOUND, look=HERE), "{error-code}", "does not end in a fault"),
        (Stop(SOUND, look=HERE), "{pages-same}", "does not say what A is"),
        (Stop(SOUND), "{references}", "nothing is walked at this stop"),
        (Stop(0), "{host-levels}", "there is no host"),
        (Stop(1), "{captured-level}", "KVM is not loaded"),
        (Stop(4, look=HERE), "{references}", "no tables of KVM's before its first access"),
        (Stop(SOUND, look=HERE, reference=9), "{entry}", "no reference 10"),
        (Stop(99), "{findings}", "behind the last event"),
    ],
)
def test_a_field_without_a_value_is_one_sentence(stop: Stop, text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        told(stop).fill(stop, text)
    sentence = str(caught.value)
    assert says in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_a_moment_on_another_pcpu_is_walked_by_its_hardware() -> None:
    stop = Stop(CHANGED, look=HERE, a=Moment(CHANGED, 0), b=Moment(CHANGED, 1))
    assert told(stop).fill(stop, "{a.nested-levels} {b.nested-levels} {pages-changed}") == "4 5 1"


def test_the_page_on_demos_has_every_field_with_its_meaning() -> None:
    lines = [f"| `{field.name}` | {field.meaning} |" for field in FIELDS.values()]
    assert [line for line in lines if line not in PAGE] == []
    assert PAGE.count("\n| `") == len(lines)


# --- of what KVM mirrors

L1_ROOT, L1_TABLES = 0x20_0000, 0x21_0000
L2_PAGE = Look(0x4000_0000, cpl=0)
NESTED = (
    *booted(five=True), *VM, slot(0, 64 * MIB), ev.SetGuestRegisters(guest("4-level", 0x1000)), ev.Populate(),
    ev.LoadNestedKvm(L1_ROOT, L1_TABLES), ev.MapNestedPages(0, 16 * MIB, MIB),
    ev.MapNestedPages(MIB, 17 * MIB, 0x2000, write=False),
    ev.MapL2Pages(0x1000, 0x2000, L2_PAGE.address, 0x10_0000, 0x2000), ev.EnterNested(guest("4-level", 0x1000)),
    ev.GuestAccess(L2_PAGE.address), ev.GuestAccess(L2_PAGE.address + 0x1000, ev.Kind.WRITE),
)  # fmt: skip
READ_IT, WRITTEN = len(NESTED) - 1, len(NESTED)


@pytest.mark.parametrize(
    ("step", "text", "filled"),
    [
        (READ_IT, "{above-tables} {shadow-tables} {extra-tables} {mirrored-tables}", "4 5 1 5"),
        (READ_IT, "{special-roots} {role-word} {stale-entries} {unsync-tables}", "none 0x6_1705 0 0"),
        (READ_IT, "{l1-captured} {l1-levels} {l1-format} under {built-levels}", "4-level 4 4-level NPT under 5"),
        (READ_IT, "{logical-references} {hardware-references} {references}", "149 29 29"),
        (READ_IT, "{reflected}", "no"),
        (WRITTEN, "{reflected} {reflected-exit} {reflected-reason}", "yes #NPF rights"),
        (WRITTEN, "{access-code} {reflected-code} {reflected-address}", "0x1_0000_0006 0x1_0000_0007 0x10_1000"),
    ],
)
def test_a_text_tells_of_a_hypervisor_in_the_guest(step: int, text: str, filled: str) -> None:
    """At the end L2 writes to a page that L1 maps read-only, and L0 has not mirrored: L1 is told of the first alone."""
    stop = Stop(step, look=L2_PAGE)
    assert Narrator(Replay(Scenario(events=NESTED), Library()), Demo(stops=(stop,))).fill(stop, text) == filled


def test_the_logical_walk_counts_l0s_references_on_top() -> None:
    stop = Stop(READ_IT, look=L2_PAGE, logical=True)
    narrator = Narrator(Replay(Scenario(events=NESTED), Library()), Demo(stops=(stop,)))
    assert narrator.fill(stop, "{references} = {guest-references} + {nested-references} + {host-references}") == (
        "149 = 4 + 20 + 125"
    )


@pytest.mark.parametrize(
    ("stop", "field", "says"),
    [
        (Stop(SOUND, look=HERE), "above-tables", "KVM mirrors nothing here"),
        (Stop(SOUND, look=HERE), "dropped-entries", "writes to nothing that KVM mirrors"),
        (Stop(SOUND, look=HERE), "l1-captured", "has loaded no hypervisor"),
        (Stop(SOUND, look=HERE), "logical-references", "No nested guest runs here"),
        (Stop(SOUND, look=HERE), "reflected-code", "does not end in an exit to a hypervisor"),
    ],
)
def test_what_is_not_mirrored_is_told_so(stop: Stop, field: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        told(stop).value(stop, field)


# --- claims


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("references = 4", True),
        ("references != 4", False),
        ("references < 5", True),
        ("references <= 3", False),
        ("references >= 4", True),
        ("address = 0x1000", True),
        ("outcome = translated", True),
        ("rights contains W", True),
        ("rights contains Z", False),
        ("references > {sound.cache-lines}", False),
        ("references = {nested-references}", True),
        ("outcome = 4", False),
        ("nonsense = 4", False),
        ("error-code = 4", False),
    ],
)
def test_a_claim_holds_or_does_not_and_says_what_was_found(line: str, holds: bool) -> None:
    stop = Stop(SOUND, look=HERE, name="sound")
    claim = claims.claim_of(line)
    checked = told(stop).check(stop, claim)
    assert checked.holds is holds
    assert checked.sentence.endswith(".")
    assert claims.claims_of(claims.text_of((claim,))) == (claim,)


@pytest.mark.parametrize("line", ["references", "references 4", "references ~ 4", "= 4"])
def test_a_line_that_is_no_claim_is_one_sentence(line: str) -> None:
    with pytest.raises(InputError, match="is no claim: write a field, a relation"):
        claims.claim_of(line)


def test_what_is_wrong_with_a_stop_is_all_told() -> None:
    stop = Stop(SOUND, "{no}", "{references}", question="{gone}", look=HERE, claims=(Claim("references", "=", 5),))
    assert [sentence.partition(":")[0] for sentence in told(stop).problems(stop)] == [
        "There is no field “no”", "There is no field “gone”", "references = 5 does not hold",
    ]  # fmt: skip


NUMBERS = st.sampled_from([-1, 0, 0, 1, 300])
MOMENTS = st.none() | st.builds(Moment, st.integers(0, 11), st.none() | st.integers(0, 2))
LOOKS = st.builds(
    Look,
    st.sampled_from([0, 0x1000, 16 * MIB, 1 << 47, (1 << 64) - 1]),
    st.sampled_from(list(ev.Kind)),
    st.sampled_from([1, 8]),
    st.integers(0, 3),
    st.builds(Place, NUMBERS, NUMBERS, st.none() | NUMBERS, st.booleans()),
)
STOPS = st.builds(
    Stop, st.integers(0, 11), look=st.none() | LOOKS, reference=st.none() | st.integers(0, 9), a=MOMENTS, b=MOMENTS
)


@given(STOPS)
@settings(max_examples=scaled(4000))
def test_any_field_at_any_stop_has_a_value_or_is_a_sentence(stop: Stop) -> None:
    narrator = told(stop)
    for field in FIELDS:
        for at in ("", "a.", "b."):
            with contextlib.suppress(InputError):
                assert isinstance(narrator.fill(stop, f"{{{at}{field}}}"), str)
    every = " ".join(f"{{{field}}}" for field in FIELDS)
    assert all(sentence.endswith(".") for sentence in narrator.problems(msgspec.structs.replace(stop, text=every)))


# --- the demos that come with the program

DEMOS = ROOT / "resources" / "demos"
NAMES: list[str] = json.loads((DEMOS / "order.json").read_text(encoding="utf-8"))
REFUSED = {"kernel-versions": [9]}
"""Events that are refused on purpose: a stop is about each of them."""


def test_every_demo_is_in_the_order_and_the_other_way_round() -> None:
    assert sorted(path.stem for path in DEMOS.glob("*.json")) == sorted([*NAMES, "order"])


@pytest.fixture(params=NAMES)
def shipped(request: pytest.FixtureRequest) -> Scenario:
    return codec.decode_scenario(Path(DEMOS / f"{request.param}.json").read_text(encoding="utf-8"))


def test_every_field_of_a_demo_has_a_value_and_every_claim_holds(shipped: Scenario) -> None:
    narrator = Narrator(Replay(shipped, Library()))
    problems = {n: list(narrator.problems(stop)) for n, stop in enumerate(shipped.demo.stops, 1)}
    assert {number: found for number, found in problems.items() if found} == {}


def test_every_stop_claims_something_and_says_something_computed(shipped: Scenario) -> None:
    assert shipped.demo.title
    assert shipped.demo.summary.endswith(".")
    assert 4 <= len(shipped.demo.stops) <= 8
    for stop in shipped.demo.stops:
        assert stop.title
        assert stop.claims
        assert "{" in stop.text + stop.title
        assert bool(stop.question) == bool(stop.answer)
        assert len(stop.text) < 700, "short: it is presented"


def test_no_event_of_a_demo_is_refused_unseen(shipped: Scenario, request: pytest.FixtureRequest) -> None:
    replay = Replay(shipped, Library())
    refused = [n for n in range(1, len(shipped.events) + 1) if replay.refusal(n)]
    assert refused == REFUSED.get(request.node.callspec.params["shipped"], [])
    assert set(refused) <= {stop.step for stop in shipped.demo.stops}
