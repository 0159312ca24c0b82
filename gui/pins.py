"""The two moments that everything compares: A and B, each a step and, where that matters, a pCPU."""

from collections.abc import Sequence

import msgspec

from engine import events as ev
from engine.edits import Edit, moved


class Pin(msgspec.Struct, frozen=True):
    """The state after ``step`` events. ``pcpu``: whose hardware walks; None: the pCPU that the vCPU is on."""

    step: int
    pcpu: int | None = None


class Pins(msgspec.Struct, frozen=True):
    """What the user pinned. None follows: A the step before the last mode change, B the current step."""

    a: Pin | None = None
    b: Pin | None = None

    def resolve(self, events: Sequence[ev.Event], step: int) -> tuple[Pin, Pin]:
        """A and B while ``step`` is current."""
        b = self.b or Pin(step)
        return self.a or Pin(before_change(events, b.step)), b

    def after(self, edit: Edit) -> "Pins":
        """The same moments once ``edit`` has moved the steps."""
        return Pins(*(msgspec.structs.replace(pin, step=moved(pin.step, edit)) if pin else None
                      for pin in (self.a, self.b)))  # fmt: skip


def before_change(events: Sequence[ev.Event], step: int) -> int:
    """The step before the last mode change up to ``step``; where there is none, the step before it."""
    changes = (n for n in range(step - 1, -1, -1) if isinstance(events[n], ev.ChangeMode))
    return next(changes, max(0, step - 1))
