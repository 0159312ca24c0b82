"""An edit of a scenario as a value with its inverse: undo is applying the inverse.

``apply`` and ``inverse`` raise InputError with a sentence where the scenario has no such event. The stops of a demo
follow the events that come, go and move before them; since that loses which of two steps they were at, an inverse
says where they were.
"""

from typing import Annotated

import msgspec

from engine.demo import Demo, Moment, Stop
from engine.errors import InputError
from engine.events import Event
from engine.machine import Configuration
from engine.scenario import Scenario

Index = Annotated[int, msgspec.Meta(ge=0)]
"""The number of an event, from 0."""


def _check(scenario: Scenario, *places: int, room: int = 0) -> None:
    """``room``: how many places there are beyond the events."""
    count = len(scenario.events) + room
    for at in places:
        if not 0 <= at < count:
            raise InputError(f"This edit is about event {at + 1}, and the scenario has {len(scenario.events)}.")


def _with(scenario: Scenario, events: list[Event], demo: Demo | None) -> Scenario:
    return msgspec.structs.replace(scenario, events=tuple(events), demo=scenario.demo if demo is None else demo)


def moved(step: int, edit: "Edit") -> int:
    """Where the moment after ``step`` events is once ``edit`` is done: what comes or goes before it moves it."""
    match edit:
        case Insert(at=at):
            return step + (at < step)
        case Remove(at=at):
            return step - (at < step)
        case Move(at=at, to=to):
            left = step - (at < step)
            return left + (to < left + (at < step))
    return step


def _followed(demo: Demo, edit: "Edit") -> Demo | None:
    """``demo`` with the steps of its stops moved as ``edit`` moves events; None where none is."""

    def moment(pin: Moment | None) -> Moment | None:
        return pin and msgspec.structs.replace(pin, step=moved(pin.step, edit))

    def followed(stop: Stop) -> Stop:
        return msgspec.structs.replace(stop, step=moved(stop.step, edit), a=moment(stop.a), b=moment(stop.b))

    stops = tuple(map(followed, demo.stops))
    return None if stops == demo.stops else msgspec.structs.replace(demo, stops=stops)


def _given_back(demo: Demo) -> Demo | None:
    """What an inverse puts back of a demo."""
    return demo if demo.stops else None


class Insert(msgspec.Struct, frozen=True, tag=True):
    """``event`` becomes event number ``at`` (from 0). ``demo``: what the demo is then; None: its stops follow."""

    at: Index
    event: Event
    demo: Demo | None = None

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at, room=1)
        events = list(scenario.events)
        events.insert(self.at, self.event)
        return _with(scenario, events, self.demo or _followed(scenario.demo, self))

    def inverse(self, before: Scenario) -> "Edit":
        return Remove(self.at)


class Remove(msgspec.Struct, frozen=True, tag=True):
    at: Index

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at)
        events = list(scenario.events)
        del events[self.at]
        return _with(scenario, events, _followed(scenario.demo, self))

    def inverse(self, before: Scenario) -> "Edit":
        _check(before, self.at)
        return Insert(self.at, before.events[self.at], _given_back(before.demo))


class Replace(msgspec.Struct, frozen=True, tag=True):
    at: Index
    event: Event

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at)
        events = list(scenario.events)
        events[self.at] = self.event
        return _with(scenario, events, None)

    def inverse(self, before: Scenario) -> "Edit":
        _check(before, self.at)
        return Replace(self.at, before.events[self.at])


class Move(msgspec.Struct, frozen=True, tag=True):
    """Event number ``at`` becomes event number ``to``, counted after it was taken out. ``demo``: as of `Insert`."""

    at: Index
    to: Index
    demo: Demo | None = None

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at, self.to)
        events = list(scenario.events)
        events.insert(self.to, events.pop(self.at))
        return _with(scenario, events, self.demo or _followed(scenario.demo, self))

    def inverse(self, before: Scenario) -> "Edit":
        return Move(self.to, self.at, _given_back(before.demo))


class Configure(msgspec.Struct, frozen=True, tag=True):
    configuration: Configuration

    def apply(self, scenario: Scenario) -> Scenario:
        return msgspec.structs.replace(scenario, configuration=self.configuration)

    def inverse(self, before: Scenario) -> "Edit":
        return Configure(before.configuration)


class Narrate(msgspec.Struct, frozen=True, tag=True):
    """What is said is another: stops were recorded, written, put in another order or taken out."""

    demo: Demo

    def apply(self, scenario: Scenario) -> Scenario:
        return msgspec.structs.replace(scenario, demo=self.demo)

    def inverse(self, before: Scenario) -> "Edit":
        return Narrate(before.demo)


Edit = Insert | Remove | Replace | Move | Configure | Narrate
