"""An edit of a scenario as a value with its inverse: undo is applying the inverse.

``apply`` and ``inverse`` raise InputError with a sentence where the scenario has no such event.
"""

from typing import Annotated

import msgspec

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


def _with(scenario: Scenario, events: list[Event]) -> Scenario:
    return msgspec.structs.replace(scenario, events=tuple(events))


class Insert(msgspec.Struct, frozen=True, tag=True):
    """``event`` becomes event number ``at`` (from 0)."""

    at: Index
    event: Event

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at, room=1)
        events = list(scenario.events)
        events.insert(self.at, self.event)
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        return Remove(self.at)


class Remove(msgspec.Struct, frozen=True, tag=True):
    at: Index

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at)
        events = list(scenario.events)
        del events[self.at]
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        _check(before, self.at)
        return Insert(self.at, before.events[self.at])


class Replace(msgspec.Struct, frozen=True, tag=True):
    at: Index
    event: Event

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at)
        events = list(scenario.events)
        events[self.at] = self.event
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        _check(before, self.at)
        return Replace(self.at, before.events[self.at])


class Move(msgspec.Struct, frozen=True, tag=True):
    """Event number ``at`` becomes event number ``to``, counted after it was taken out."""

    at: Index
    to: Index

    def apply(self, scenario: Scenario) -> Scenario:
        _check(scenario, self.at, self.to)
        events = list(scenario.events)
        events.insert(self.to, events.pop(self.at))
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        return Move(self.to, self.at)


class Configure(msgspec.Struct, frozen=True, tag=True):
    configuration: Configuration

    def apply(self, scenario: Scenario) -> Scenario:
        return msgspec.structs.replace(scenario, configuration=self.configuration)

    def inverse(self, before: Scenario) -> "Edit":
        return Configure(before.configuration)


Edit = Insert | Remove | Replace | Move | Configure
