"""A look: an address walked in a state, without side effects. What the window shows of an address."""

import msgspec

from engine.arch.faults import EntryFailure
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import Paging, bind
from engine.arch.rights import READ, Access
from engine.arch.second_stage import SecondStage, addresses_only
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
    second: SecondStage | None = None
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
        both = state.translation(found[1])
        if both is None:
            return Refusal(f"vCPU {place.vcpu} has no tables of KVM's before its first access: make one.")
        if isinstance(both, EntryFailure):
            return Refusal(f"The guest cannot be entered: {both.reason}.")
        first, second = both
        if place.physical and second is None:
            return Refusal("KVM mirrors this guest's own tables: none of its tables takes a guest-physical address.")
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


def look_logical(
    state: State, address: int, access: Access = READ, place: Place = HERE, cpl: int | None = None
) -> Walk | Refusal:
    """The walk of ``address`` as the nested guest at ``place`` and its hypervisor take it to be: through L2's tables,
    L1's and L0's for L1. The hardware makes another one (`look`), for L0 has folded L1's tables and its own into
    one.

    Of L0's tables for L1 only the addresses count: what L0 write-protects, to see L1's stores, L1 may write all the
    same.
    """
    found = stages(state, place, cpl)
    if isinstance(found, Refusal):
        return found
    owner = state.vcpu(place.vm, place.vcpu) if state.host is not None and place.pcpu is None else None
    if owner is None or isinstance(owner, Refusal) or owner[1].nested is None:
        return Refusal("No nested guest runs here.")
    vcpu = owner[1]
    second = state.l1_stage(vcpu)
    if second is None or vcpu.parked is None:
        return Refusal("This nested guest has no nested paging: its hypervisor mirrors its tables itself.")
    host = state.second_stage(vcpu.with_mmu(vcpu.parked))
    if host is None:
        return Refusal("KVM has dropped the tables of the hypervisor itself: they are made when it runs again.")
    if isinstance(host, EntryFailure):
        return Refusal(f"The hypervisor cannot be entered: {host.reason}.")
    return walk_nested(state.memory, found.first, second, address, access, addresses_only(host))
