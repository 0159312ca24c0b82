"""A scenario: a starting configuration and an ordered list of events. The state at step n is the replay of n events.

It may carry a demo: what is said about some of its steps. No state depends on that.
"""

import msgspec

from engine.demo import Demo
from engine.events import Event
from engine.machine import Configuration, Images, Refusal, State, apply, start


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    configuration: Configuration = Configuration()
    events: tuple[Event, ...] = ()
    demo: Demo = Demo()


class Replay:
    """The states of a scenario, computed as they are asked for and kept.

    `edit` keeps the states before the first event that differs, so a change late in a long scenario costs little. An
    event that is refused leaves the state as it was; `refusal` tells why.
    """

    def __init__(self, scenario: Scenario, images: Images) -> None:
        self._images = images
        self._scenario = scenario
        self._states: list[State] = [start(scenario.configuration)]
        self._refusals: list[Refusal | None] = [None]

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    def copy(self) -> "Replay":
        """A replay of its own, for another thread say, that starts with the states which this one has by now."""
        other = Replay(self._scenario, self._images)
        other._states, other._refusals = list(self._states), list(self._refusals)
        return other

    def edit(self, scenario: Scenario) -> None:
        """Go on with ``scenario``; what it has in common with the one before is not replayed."""
        if scenario.configuration != self._scenario.configuration:
            self._states, self._refusals = [start(scenario.configuration)], [None]
        else:
            same = 0
            for old, new in zip(self._scenario.events, scenario.events, strict=False):
                if old is not new and old != new:
                    break
                same += 1
            del self._states[same + 1 :], self._refusals[same + 1 :]
        self._scenario = scenario

    def state(self, step: int) -> State:
        """The state after the first ``step`` events (0: before any)."""
        while len(self._states) <= step:
            event = self._scenario.events[len(self._states) - 1]
            after = apply(self._states[-1], event, self._images)
            self._refusals.append(after if isinstance(after, Refusal) else None)
            self._states.append(self._states[-1] if isinstance(after, Refusal) else after)
        return self._states[step]

    def refusal(self, step: int) -> Refusal | None:
        """Why event number ``step`` (from 1) did not happen; None where it did."""
        self.state(step)
        return self._refusals[step]
