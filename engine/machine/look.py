"""A look: an address walked in a state, without side effects. What the window shows of an address."""

import msgspec

from engine.arch.faults import EntryFailure
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import Paging, bind
from engine.arch.rights import READ, Access
from engine.arch.second_stage import SecondStage
from engine.arch.walk import Walk, walk
from engine.machine.state import Refusal, State, unpaged


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whose address it is.

    On an image: its processor. On a host: vCPU ``vcpu`` of VM ``vm``, or, where ``pcpu`` is set, the host itself on
    that pCPU. ``physical``: the address is guest-physical, so only the second stage is walked.
    """

    vm: int = 0
    vcpu: int = 0
    pcpu: int | None = None
    physical: bool = False


HERE = Place()


class Stages(msgspec.Struct, frozen=True):
    """What translates an address at a place: ``first``, and ``second`` where there are two stages."""

    first: Paging
    second: SecondStage | None = None


def stages(state: State, place: Place = HERE, cpl: int | None = None) -> Stages | Refusal:
    """The stages of translation at ``place`` for privilege ``cpl`` (None: the registers'), or why there are none."""
    second: SecondStage | EntryFailure | None = None
    if state.host is None:
        first, second = state.paging, state.second
    elif place.pcpu is not None:
        if not 0 <= place.pcpu < len(state.host.pcpus):
            return Refusal(f"There is no pCPU {place.pcpu}.")
        first = state.host_paging(place.pcpu)
    else:
        found = state.vcpu(place.vm, place.vcpu)
        if isinstance(found, Refusal):
            return found
        first, second = state.guest_paging(found[1]), state.second_stage(found[1])
        if second is None:
            return Refusal(f"vCPU {place.vcpu} has no nested tables before its first access: make one.")
    if isinstance(second, EntryFailure):
        return Refusal(f"The guest cannot be entered: {second.reason}.")
    if cpl is not None and cpl != first.registers.cpl:
        registers = msgspec.structs.replace(first.registers, cpl=cpl)
        first = bind(registers, first.features, first.rules, pdptes_from_memory=first.pdptes_from_memory)
    return Stages(unpaged(first) if place.physical and second is not None else first, second)


def look(
    state: State, address: int, access: Access = READ, place: Place = HERE, cpl: int | None = None
) -> Walk | Refusal:
    """The walk of ``address`` at ``place``; no flag is set and KVM is not asked."""
    found = stages(state, place, cpl)
    if isinstance(found, Refusal):
        return found
    if found.second is None:
        return walk(state.memory, found.first, address, access)
    return walk_nested(state.memory, found.first, found.second, address, access)
