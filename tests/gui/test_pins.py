"""A and B: the two moments that everything compares."""

import pytest

from engine import events as ev
from engine.edits import Insert, Move, Remove, Replace
from engine.scenario import Scenario
from gui.document import Change, Document
from gui.pins import Pin, Pins, before_change

CHANGE, OTHER = ev.ChangeMode(pcpu=1, la57=True), ev.CreateVm()
EVENTS = (ev.BootHost(), OTHER, CHANGE, OTHER, CHANGE, OTHER)


@pytest.mark.parametrize(
    ("step", "a"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 4), (6, 4)], ids=lambda value: str(value)
)
def test_a_follows_the_step_before_the_last_mode_change_or_else_the_step_before(step: int, a: int) -> None:
    assert before_change(EVENTS, step) == a
    assert Pins().resolve(EVENTS, step) == (Pin(a), Pin(step))


def test_a_pinned_b_decides_which_mode_change_a_follows() -> None:
    assert Pins(b=Pin(4)).resolve(EVENTS, 6) == (Pin(2), Pin(4))


@pytest.mark.parametrize(
    ("edit", "step"),
    [
        (Insert(4, OTHER), 4), (Insert(0, OTHER), 5), (Insert(3, OTHER), 5),
        (Remove(0), 3), (Remove(3), 3), (Remove(4), 4),
        (Replace(1, OTHER), 4),
        (Move(0, 5), 3), (Move(5, 0), 5), (Move(0, 2), 4), (Move(5, 4), 4), (Move(1, 3), 4),
    ],
    ids=str,
)  # fmt: skip
def test_a_pinned_moment_stays_the_same_when_events_come_and_go(edit: Insert, step: int) -> None:
    assert Pins(a=Pin(4, 1)).after(edit) == Pins(a=Pin(step, 1))


def test_the_document_tells_of_pins_and_forgets_them_with_the_scenario() -> None:
    document = Document(lambda reference: None)
    document.open(Scenario(events=EVENTS))
    told: list[Change] = []
    document.changed.connect(told.append)
    document.pin_a(1, 0)
    document.pin_b(3)
    assert told == [Change.PINS, Change.PINS]
    assert document.pins == (Pin(1, 0), Pin(3))
    document.pin_b(3)
    assert len(told) == 2, "nothing changed"
    document.pin_b(None)
    assert document.pins[1] == Pin(6)
    assert document.is_pinned
    document.unpin()
    assert not document.is_pinned
    document.pin_a(2)
    document.open(Scenario(events=EVENTS[:3]))
    assert document.pinned == Pins()


def test_pins_move_with_edits_and_back_with_undo() -> None:
    document = Document(lambda reference: None)
    document.open(Scenario(events=EVENTS))
    document.pin_a(4)
    document.edit(Insert(1, OTHER), "one more")
    assert document.pins[0] == Pin(5)
    document.undo_stack.undo()
    assert document.pins[0] == Pin(4)
