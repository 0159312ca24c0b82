"""The state of everything at one step, and the only way a state comes about: ``apply(state, event)``.

`apply` is pure but for opening an image, which goes through `Images`.
"""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.machine import host, image
from engine.machine.state import (
    NOTHING,
    Configuration,
    Effect,
    Exit,
    Images,
    Livelock,
    Refusal,
    State,
    set_flags,
    start,
)

_HANDLERS: dict[type, Callable[..., State | Refusal]] = {**image.HANDLERS, **host.HANDLERS}


def apply(state: State, event: ev.Event, images: Images) -> State | Refusal:
    """The state after ``event``, or why it cannot happen."""
    before = msgspec.structs.replace(state, effect=NOTHING)
    return _HANDLERS[type(event)](before, event, images)


__all__ = [
    "Configuration", "Effect", "Exit", "Images", "Livelock", "Refusal", "State", "apply", "set_flags", "start",
]  # fmt: skip
