"""Replay, edits and `apply`: what was visited stays, an edit replays what follows it, and nothing ever crashes."""

from time import perf_counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.demo import Demo, Moment, Stop
from engine.edits import Configure, Edit, Insert, Move, Narrate, Remove, Replace
from engine.errors import InputError
from engine.machine import Configuration, Refusal, State, apply, start
from engine.scenario import Replay, Scenario
from tests.conftest import scaled
from tests.engine.anything import any_event
from tests.engine.kvm_fixture import LIBRARY, MIB, VM, after, booted, fingerprint, play, slot, to

STEPS: tuple[ev.Event, ...] = (
    *booted(), *VM, slot(0, 16 * MIB), ev.GuestAccess(0x1000, ev.Kind.WRITE, value=7), to(True), ev.MoveVcpu(1),
    ev.GuestAccess(0x1000), ev.MoveVcpu(0), ev.GuestAccess(0x1000),
)  # fmt: skip


class Counting:
    """Images by name, and how often one was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, reference: ev.ImageRef) -> Any:
        self.asked += 1
        return LIBRARY(reference)


def test_replaying_n_events_is_the_state_at_step_n() -> None:
    replay = Replay(Scenario(events=STEPS), LIBRARY)
    for step in (len(STEPS), 3, 0, 7):
        assert fingerprint(replay.state(step)) == fingerprint(play(*STEPS[:step]))


def test_a_refused_event_changes_nothing_and_says_why() -> None:
    replay = Replay(Scenario(events=(ev.LoadKvm(), ev.BootHost(), ev.LoadKvm("none"))), LIBRARY)
    assert [replay.refusal(n).reason if replay.refusal(n) else "" for n in (1, 2, 3)] == [  # type: ignore[union-attr]
        "There is no host yet: boot one first.",
        "",
        "There is no kernel “none”: choose one of 5.12, 5.13, series-v1, series-v2, 5.15, 5.19, latest, unforced.",
    ]
    assert replay.state(3) is replay.state(2)


def test_a_visited_step_is_there_at_once_and_an_edit_keeps_what_is_before_it() -> None:
    replay = Replay(Scenario(events=STEPS), LIBRARY)
    states = [replay.state(n) for n in range(len(STEPS) + 1)]
    assert all(replay.state(n) is state for n, state in enumerate(states))
    replay.edit(Scenario(events=(*STEPS[:8], ev.FlushTlb(), *STEPS[8:])))
    assert all(replay.state(n) is states[n] for n in range(9))
    assert replay.state(9) is not states[9]
    replay.edit(msgspec.structs.replace(replay.scenario, configuration=Configuration()))
    assert replay.state(8) is states[8]  # equal, though another object


def test_states_share_their_frames() -> None:
    """A thousand steps on a VM of 64 MiB: each costs what it changed."""
    accesses = [ev.GuestAccess(n * 4096 % (64 * MIB), ev.Kind.WRITE, value=n) for n in range(990)]
    replay = Replay(Scenario(events=(*booted(), *VM, slot(0, 64 * MIB), *accesses)), LIBRARY)
    last = len(replay.scenario.events)
    replay.state(last)
    begun = perf_counter()
    for step in range(last, 0, -97):
        replay.state(step)
    assert perf_counter() - begun < 0.05


# --- edits

def demos() -> st.SearchStrategy[Demo]:
    stops = st.builds(Stop, st.integers(0, 12), a=st.none() | st.builds(Moment, st.integers(0, 12)))
    return st.builds(Demo, title=st.text(max_size=3), stops=st.lists(stops, max_size=4).map(tuple))


EDITS = st.lists(
    st.one_of(
        st.builds(Insert, st.integers(0, 12), any_event()),
        st.builds(Remove, st.integers(0, 12)),
        st.builds(Replace, st.integers(0, 12), any_event()),
        st.builds(Move, st.integers(0, 12), st.integers(0, 12)),
        st.just(Configure(Configuration(stale_host_cr4=Configuration().stale_host_cr4))),
        st.builds(Narrate, demos()),
    ),
    max_size=8,
)


@given(EDITS)
@settings(max_examples=scaled(1000))
def test_undoing_all_edits_gives_the_scenario_back(edits: list[Edit]) -> None:
    first = Scenario(events=STEPS, demo=Demo(stops=tuple(Stop(step, a=Moment(step // 2)) for step in range(12))))
    scenario, undo = first, list[tuple[Edit, Scenario]]()
    for edit in edits:
        try:
            after_it = edit.apply(scenario)
            undo.append((edit.inverse(scenario), scenario))
            scenario = after_it
        except InputError:
            continue
    for inverse, before in reversed(undo):
        scenario = inverse.apply(scenario)
        assert scenario == before
    assert scenario == first


@pytest.mark.parametrize(
    "edit", [Insert(99, ev.CreateVm()), Remove(12), Replace(12, ev.CreateVm()), Move(0, 12), Move(12, 0)]
)  # fmt: skip
def test_edits_that_do_not_fit_say_so(edit: Edit) -> None:
    with pytest.raises(InputError, match=r"This edit is about event \d+, and the scenario has 11"):
        edit.apply(Scenario(events=STEPS))


# --- whatever comes


@given(st.data())
@settings(max_examples=scaled(4000))
def test_any_event_in_any_state_is_a_state_or_a_refusal(data: Any) -> None:
    """Damaged files and slips of the hand: no event raises, none leaves half a change, each refusal is a sentence."""
    image = ev.OpenImage(ev.ImageRef("resource:debian-6.1-4level.core.gz"))
    state = data.draw(st.sampled_from([_EMPTY, _RUNNING, _CHANGED, after(_EMPTY, image)]))
    for _ in range(data.draw(st.integers(1, 6))):
        event = data.draw(any_event())
        reached = apply(state, event, LIBRARY)
        if isinstance(reached, Refusal):
            assert reached.reason.endswith(".")
            assert "\n" not in reached.reason
        else:
            assert isinstance(reached, State)
            state = reached


_EMPTY = start(Configuration())
_RUNNING = play(*STEPS[:6])
_CHANGED = play(*STEPS[:9])
