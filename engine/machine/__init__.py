"""The state of everything at one step, and the only way a state comes about: ``apply(state, event)``.

`apply` is pure but for opening an image, which goes through `Images`.
"""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.errors import InputError
from engine.host.world import Halt, Oops
from engine.kvm.actions import Action
from engine.machine import backing, guest, guest_cpu, host, image, nested, vms
from engine.machine.access import guest_access
from engine.machine.state import (
    NOTHING,
    Configuration,
    Effect,
    Exit,
    Images,
    Livelock,
    Refusal,
    StaleHostCr4,
    State,
    set_flags,
    start,
)

_HANDLERS: dict[type, Callable[..., State | Refusal]] = {
    **image.HANDLERS, **host.HANDLERS, **vms.HANDLERS, **guest.HANDLERS, **backing.HANDLERS, **guest_cpu.HANDLERS,
    **nested.HANDLERS,
    ev.GuestAccess: guest_access,
}  # fmt: skip
_ON_HOST = set(_HANDLERS) - set(image.HANDLERS) - {ev.BootHost}
_ON_KVM = _ON_HOST - {ev.LoadKvm, ev.ChangeMode}
_ON_IMAGE = set(image.HANDLERS) - {ev.Poke}


def apply(state: State, event: ev.Event, images: Images) -> State | Refusal:
    """The state after ``event``, or why it cannot happen."""
    before = msgspec.structs.replace(state, effect=NOTHING)
    refused = _misplaced(state, event)
    if refused is not None:
        return refused
    try:
        return _HANDLERS[type(event)](before, event, images)
    except Oops as oops:
        return _killed(before, event, oops)
    except (Halt, InputError) as halt:
        return Refusal(f"{str(halt)[0].upper()}{str(halt)[1:].rstrip('.')}.")


def _misplaced(state: State, event: ev.Event) -> Refusal | None:
    kind = type(event)
    if kind in _ON_HOST and state.host is None:
        return Refusal("There is no host yet: boot one first.")
    if kind in _ON_KVM and state.module is None:
        return Refusal("KVM is not loaded: load it first.")
    if kind in _ON_IMAGE and state.host is not None:
        return Refusal("This is for a memory image, and the scenario has a host: use the events of guests instead.")
    return None


def _killed(state: State, event: ev.Event, oops: Oops) -> State | Refusal:
    """The VM that ``event`` is about hangs: the kernel's thread died with its locks held (panic_on_oops=0)."""
    found = state.vm(getattr(event, "vm", -1))
    if isinstance(found, Refusal):
        return Refusal(f"The host's kernel cannot do it: {oops}.")
    after = state.with_vm(msgspec.structs.replace(found, dead=f"{oops}; its locks are held for ever."))
    effect = Effect(notes=(f"VM {found.index} hangs: {oops}",), actions=(Action(oops.function, str(oops)),))
    return msgspec.structs.replace(after, effect=effect)


__all__ = [
    "Configuration", "Effect", "Exit", "Images", "Livelock", "Refusal", "StaleHostCr4", "State", "apply", "set_flags",
    "start",
]  # fmt: skip
