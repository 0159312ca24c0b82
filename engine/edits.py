"""An edit of a scenario as a value with its inverse: undo is applying the inverse."""

import msgspec

from engine.events import Event
from engine.machine import Configuration
from engine.scenario import Scenario


def _with(scenario: Scenario, events: list[Event]) -> Scenario:
    return msgspec.structs.replace(scenario, events=tuple(events))


class Insert(msgspec.Struct, frozen=True, tag=True):
    """``event`` becomes event number ``at`` (from 0)."""

    at: int
    event: Event

    def apply(self, scenario: Scenario) -> Scenario:
        events = list(scenario.events)
        events.insert(self.at, self.event)
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        return Remove(self.at)


class Remove(msgspec.Struct, frozen=True, tag=True):
    at: int

    def apply(self, scenario: Scenario) -> Scenario:
        events = list(scenario.events)
        del events[self.at]
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        return Insert(self.at, before.events[self.at])


class Replace(msgspec.Struct, frozen=True, tag=True):
    at: int
    event: Event

    def apply(self, scenario: Scenario) -> Scenario:
        events = list(scenario.events)
        events[self.at] = self.event
        return _with(scenario, events)

    def inverse(self, before: Scenario) -> "Edit":
        return Replace(self.at, before.events[self.at])


class Move(msgspec.Struct, frozen=True, tag=True):
    """Event number ``at`` becomes event number ``to``, counted after it was taken out."""

    at: int
    to: int

    def apply(self, scenario: Scenario) -> Scenario:
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
