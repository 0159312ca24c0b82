"""Fills the texts of a demo's stops and checks their claims.

A text names fields in braces: ``{references}``; ``{{`` and ``}}`` are braces. A field has a value at a moment:
``{references}`` at the stop, ``{a.references}`` and ``{b.references}`` at the moments that the stop compares,
``{NAME.references}`` at the stop of that name. All fields are in `fields.FIELDS`, and nothing else is ever evaluated.
"""

import operator
import re
from collections.abc import Callable, Iterator

import msgspec

from engine.demo import Claim, Demo, Moment, Stop
from engine.errors import InputError
from engine.narration.fields import FIELDS, Field, Value
from engine.narration.scene import Absent, Scene
from engine.scenario import Replay

EXPRESSION = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"(?:([\w-]+)\.)?([a-z0-9-]+)")
_RELATIONS: dict[str, Callable[[Value, Value], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "contains": lambda mine, theirs: str(theirs) in str(mine),
}


class Checked(msgspec.Struct, frozen=True):
    """Whether a claim holds; ``sentence`` says what was found."""

    holds: bool
    sentence: str


class Narrator:
    """Fills the texts of a replay's demo and checks its claims. A moment is worked out once, however often asked."""

    def __init__(self, replay: Replay, demo: Demo | None = None) -> None:
        """``demo``: None: that of the scenario."""
        self._replay = replay
        self._demo = replay.scenario.demo if demo is None else demo
        self._scenes: dict[tuple[int, Moment | None], Scene] = {}

    def fill(self, stop: Stop, text: str) -> str:
        """``text`` with its fields filled. Raises InputError with a sentence where one cannot be."""

        def filled(found: re.Match[str]) -> str:
            if found[0] in ("{{", "}}"):
                return found[0][0]
            if found[1] is None:
                raise InputError(f"A brace stands alone in the text: write {found[0] * 2} where a brace is meant.")
            field, value = self._evaluate(stop, found[1])
            return field.show(value)

        return EXPRESSION.sub(filled, text)

    def value(self, stop: Stop, expression: str) -> Value:
        """The value of a field. Raises InputError with a sentence where it has none."""
        return self._evaluate(stop, expression)[1]

    def check(self, stop: Stop, claim: Claim) -> Checked:
        """Whether ``claim`` holds at ``stop``. What cannot be worked out does not hold."""
        try:
            field, mine = self._evaluate(stop, claim.field)
            theirs = self._evaluate(stop, claim.other)[1] if claim.other else claim.expected
            holds = self._compared(claim, mine, theirs)
        except InputError as error:
            return Checked(False, str(error))
        wanted = f"{claim.other} = {field.show(theirs)}" if claim.other else _shown(field, theirs)
        text = f"{claim.field} {claim.relation} {wanted}"
        return Checked(holds, f"{text} holds." if holds else f"{text} does not hold: it is {_shown(field, mine)}.")

    def problems(self, stop: Stop) -> Iterator[str]:
        """A sentence for each text that cannot be filled and each claim that does not hold."""
        for text in (stop.title, stop.text, stop.question, stop.answer, stop.notes):
            try:
                self.fill(stop, text)
            except InputError as error:
                yield str(error)
        yield from (checked.sentence for claim in stop.claims if not (checked := self.check(stop, claim)).holds)

    @staticmethod
    def _compared(claim: Claim, mine: Value, theirs: Value) -> bool:
        if claim.relation != "contains" and isinstance(mine, str) is not isinstance(theirs, str):
            kind = "text" if isinstance(mine, str) else "a number"
            raise InputError(f"{claim.field} is {kind}, and {theirs!r} is not: they cannot be compared.")
        return _RELATIONS[claim.relation](mine, theirs)

    def _evaluate(self, stop: Stop, expression: str) -> tuple[Field, Value]:
        found = _NAME.fullmatch(expression.strip())
        field = FIELDS.get(found[2]) if found else None
        if found is None or field is None:
            raise InputError(f"There is no field “{expression[:60]}”: the page on demos lists those that there are.")
        try:
            return field, field.of(self._scene(stop, found[1] or ""))
        except Absent as why:
            raise InputError(f"“{expression}” has no value here: {str(why).rstrip('.')}.") from None

    def _scene(self, stop: Stop, name: str) -> Scene:
        moment: Moment | None = None
        if name in ("a", "b"):
            moment = stop.a if name == "a" else stop.b
            if moment is None:
                raise Absent(f"the stop does not say what {name.upper()} is")
        elif name:
            other = next((one for one in self._demo.stops if one.name == name), None)
            if other is None:
                raise InputError(f"There is no stop “{name[:60]}”: give one of them that name.")
            stop = other
        key = id(stop), moment
        if key not in self._scenes:
            self._scenes[key] = Scene(self._replay, stop, moment)
        return self._scenes[key]


def _shown(field: Field, value: Value) -> str:
    return field.show(value) if isinstance(value, int) else f"“{value}”"
