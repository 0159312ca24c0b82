"""A demo: a scenario with narration, as values. Ordered stops, each with what is shown and what is said.

A stop is about a moment (``step`` counts events, 0 is before the first), names the view that shows it, and what is lit
there. Its text is Markdown with fields in braces, filled by `engine.narration`; its claims are checked there too.
"""

from typing import Annotated, Literal

import msgspec

from engine.arch.bits import U64 as MAX
from engine.arch.rights import Kind
from engine.arch.walk import Stage
from engine.events import U64, AccessSize
from engine.machine.look import HERE, Place

View = Literal["hierarchy", "walk", "effects", "mappings", "machine", "inspector", "findings", "timeline"]
Relation = Literal["=", "!=", "<", "<=", ">", ">=", "contains"]
Step = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Short = Annotated[str, msgspec.Meta(max_length=1024)]
Text = Annotated[str, msgspec.Meta(max_length=1 << 18)]
WHOLE = 100


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not 0 <= value <= MAX:
                raise ValueError(f"{name} must be an unsigned 64-bit number")
            if isinstance(value, str):
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise ValueError(f"{name} has half a character in it") from None


class Look(_Value, frozen=True):
    """What is walked: an access of ``size`` bytes at ``address`` with privilege ``cpl``, at ``place``."""

    address: U64
    kind: Kind = Kind.READ
    size: AccessSize = 1
    cpl: Annotated[int, msgspec.Meta(ge=0, le=3)] = 3
    place: Place = HERE


class Entry(_Value, frozen=True):
    """Slot ``index`` of the table at physical byte address ``table``, read as level ``level`` of ``stage``."""

    stage: Stage
    level: Annotated[int, msgspec.Meta(ge=1, le=5)]
    table: U64
    index: Annotated[int, msgspec.Meta(ge=0, le=1023)]


class Moment(_Value, frozen=True):
    """A side of a comparison: the state after ``step`` events; ``pcpu``: whose hardware walks, None: the vCPU's."""

    step: Step
    pcpu: int | None = None


class Claim(_Value, frozen=True):
    """``field`` stands in ``relation`` to the value ``expected`` or, where that is given, to the field ``other``."""

    field: Short
    relation: Relation = "="
    expected: int | Short = ""
    other: Short = ""


class Stop(_Value, frozen=True):
    """``name``: what fields of other stops call this one. ``beside``: a second view; '' for none.

    ``logical``: of a nested guest the logical walk is looked at. ``walked``: where KVM mirrors tables, the hierarchy is
    of those that the hardware walks, not of both sides. ``reference``: the number (from 0) of the lit step of
    the walk, None: its last. ``entry``: what is selected, where that is not the lit reference. ``a``, ``b``: what is
    compared, None: what follows the step. ``zoom`` in percent of the whole picture, about what is selected. ``answer``
    is to ``question``; ``notes`` are for the speaker alone.
    """

    step: Step
    title: Short = ""
    text: Text = ""
    view: View = "walk"
    beside: View | Literal[""] = ""
    look: Look | None = None
    logical: bool = False
    walked: bool = False
    reference: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None
    entry: Entry | None = None
    a: Moment | None = None
    b: Moment | None = None
    zoom: Annotated[int, msgspec.Meta(ge=25, le=10_000)] = WHOLE
    question: Text = ""
    answer: Text = ""
    notes: Text = ""
    name: Short = ""
    claims: tuple[Claim, ...] = ()


class Demo(_Value, frozen=True):
    title: Short = ""
    summary: Text = ""
    stops: tuple[Stop, ...] = ()

    def inserted(self, at: int, stop: Stop) -> "Demo":
        """With ``stop`` as stop number ``at`` (from 0)."""
        return msgspec.structs.replace(self, stops=(*self.stops[:at], stop, *self.stops[at:]))

    def removed(self, at: int) -> "Demo":
        return msgspec.structs.replace(self, stops=self.stops[:at] + self.stops[at + 1 :])

    def replaced(self, at: int, stop: Stop) -> "Demo":
        return self.removed(at).inserted(at, stop)

    def moved(self, at: int, to: int) -> "Demo":
        """Stop ``at`` becomes stop ``to``, counted after it was taken out."""
        return self.removed(at).inserted(to, self.stops[at])
