"""The entry that the inspector shows: the selected one, read from the memory of the current state."""

import msgspec

from engine.arch.formats import Decoded
from engine.arch.tables import classify, entry_value
from engine.arch.walk import Step
from engine.machine.mirror import Mirror
from gui.document import Document
from gui.models.mirror import Beside, beside


class Inspected(msgspec.Struct, frozen=True):
    """``step``: the entry as a reference. ``number``: that of the walk's step which used it (from 0), None for none.

    ``beside``: what it mirrors or is mirrored by; None where it is in no table of a mirror.
    """

    step: Step
    number: int | None
    beside: Beside | None = None

    @property
    def bits(self) -> int:
        """How many bits the entry has."""
        return 8 << self.step.level.entry_shift

    @property
    def digits(self) -> int:
        """How many hex digits the entry has."""
        return 2 << self.step.level.entry_shift

    @property
    def writable(self) -> bool:
        """Whether the entry has bytes in memory that can be overwritten: a PDPTE register has none."""
        return self.step.address is not None and self.step.value is not None

    def fields(self) -> list[Decoded]:
        return self.step.decoded()


def inspected(document: Document) -> Inspected | None:
    """The selected entry; the lit PDPTE register where that is selected instead; None where nothing is."""
    walk, reference, selection = document.walk, document.reference, document.selection
    if selection is None:
        if walk is None or reference is None or walk.steps[reference].address is not None:
            return None
        return Inspected(walk.steps[reference], reference)
    found = beside(document.mirror, selection) if isinstance(document.mirror, Mirror) else None
    if walk is not None:
        numbers = range(len(walk.steps)) if reference is None else (reference, *range(len(walk.steps)))
        for number in numbers:
            step = walk.steps[number]
            if step.address == selection.address and step.level == selection.level and step.stage is selection.stage:
                return Inspected(step, number, found)
    value = entry_value(document.state.memory, selection.level, selection.address)
    rule, level = classify(selection.level, value), selection.level
    step = Step(selection.stage, level, selection.index, selection.address, value, rule, level.level)
    return Inspected(step, None, found)
