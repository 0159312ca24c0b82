"""A scenario as it went: every event with the state after it, or why it did not happen. What a report is made from."""

from collections.abc import Callable, Iterator

import msgspec

from engine.events import Event
from engine.machine import Images, Refusal, State
from engine.scenario import Replay, Scenario

Progress = Callable[[float], None]
"""Is called with the share that is done, 0.0 .. 1.0; it may raise to stop the work."""


class Story(msgspec.Struct, frozen=True):
    """``states[n]`` is the state after ``n`` events, ``refusals[n]`` why event number ``n`` (from 1) did not happen."""

    name: str
    events: tuple[Event, ...]
    states: tuple[State, ...]
    refusals: tuple[Refusal | None, ...]

    def __iter__(self) -> Iterator[tuple[int, Event, State, Refusal | None]]:
        """Number (from 1), event, the state after it, and why it did not happen, of every event."""
        return zip(range(1, len(self.states)), self.events, self.states[1:], self.refusals[1:], strict=True)

    @property
    def last(self) -> int:
        return len(self.events)


def tell(name: str, scenario: Scenario, images: Images, progress: Progress) -> Story:
    """Replay all of ``scenario``."""
    replay, count = Replay(scenario, images), len(scenario.events)
    states, refusals = [], []
    for step in range(count + 1):
        states.append(replay.state(step))
        refusals.append(replay.refusal(step))
        progress(step / max(1, count))
    return Story(name, scenario.events, tuple(states), tuple(refusals))
