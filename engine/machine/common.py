"""What the handlers of events on a host share."""

import msgspec

from engine.host.world import World
from engine.kvm import contexts
from engine.kvm.actions import Action
from engine.kvm.memslots import Memslot, Space
from engine.kvm.mirrored import mirrored
from engine.kvm.shadow import ShadowMmu
from engine.kvm.vm import Vcpu, Vm
from engine.machine.state import NOTHING, Effect, Refusal, State

Result = State | Refusal


def world_of(state: State) -> World:
    assert state.host is not None
    return World(state.memory, state.host.frames)


def space_of(state: State) -> Space:
    assert state.host is not None
    return Space(state.host.levels, state.host.root)


def shadow_of(state: State, world: World, vm: Vm, vcpu: Vcpu) -> ShadowMmu:
    """The VM's mirror tables, to be worked on for ``vcpu``."""
    assert state.host is not None
    assert state.module is not None
    what = mirrored(state.module, vcpu, state.host.pcpus[vcpu.pcpu].setup)
    return ShadowMmu(world, state.module, space_of(state), vm, what)


def left(state: State, vm: Vm, vcpu: Vcpu) -> State:
    """The state in which the nested guest on ``vcpu`` has given way to its hypervisor; the effect stays."""
    assert state.host is not None
    assert state.module is not None
    return state.with_vm(vm.with_vcpu(contexts.leave(state.module, state.host, vcpu)))


def after(state: State, world: World, *, vm: Vm | None = None, effect: Effect = NOTHING) -> State:
    """``state`` with what ``world`` has become, and with this ``vm`` and this ``effect``."""
    state = state.with_vm(vm) if vm else state
    assert state.host is not None
    host = msgspec.structs.replace(state.host, frames=world.frames)
    return msgspec.structs.replace(state, memory=world.memory, host=host, effect=effect)


def did(*actions: tuple[str, str], assumed: tuple[str, ...] = ()) -> Effect:
    """The effect of (kernel function, what it did), each of them also a note."""
    notes = tuple(what for _, what in actions)
    return Effect(actions=tuple(Action(*action) for action in actions), notes=notes, assumed=assumed)


def slot_of(state: State, vm: int, slot: int) -> tuple[Vm, Memslot] | Refusal:
    found = state.vm(vm)
    if isinstance(found, Refusal):
        return found
    wanted = next((s for s in found.slots if s.id == slot), None)
    return (found, wanted) if wanted else Refusal(f"VM {vm} has no memslot {slot}.")
