"""Where a guest's access ought to have ended: what everybody's tables above KVM's own say, against where it ended.

Under nested paging that is the page of that guest-physical number; for a nested guest, of the number that its
hypervisor's tables give; where KVM mirrors a guest's own tables, what these say now.
"""

import msgspec

from engine.arch.faults import Translated
from engine.arch.nested_walk import walk_nested
from engine.arch.walk import Walk, walk
from engine.kvm.vm import Vcpu, Vm
from engine.machine.guest_view import GuestView
from engine.machine.intended import intended
from engine.machine.state import Refusal, State, unpaged


class Astray(msgspec.Struct, frozen=True):
    """An access ended at a wrong place. ``right``: the host-physical byte address that it should have reached; None
    where there is no memory for it at all."""

    right: int | None


def astray(state: State, vm: int, vcpu: int, made: Walk) -> Astray | None:
    """Whether ``made``, a walk of the hardware for vCPU ``vcpu`` in ``state``, ended where it should not.

    What a mirror table that is out of sync still gives is right until the guest flushes: None.
    """
    found = state.vcpu(vm, vcpu)
    if isinstance(found, Refusal) or not isinstance(made.outcome, Translated):
        return None
    owner, cpu = found
    last = made.steps[-1].address if made.steps else None
    page = owner.shadow.page(last) if last is not None else None
    if page is not None and page.unsync:
        return None
    gpa = _guest_physical(state, owner, cpu, made)
    right = None if gpa is None else intended(state, vm, gpa)
    return None if right == made.outcome.address else Astray(right)


def _guest_physical(state: State, vm: Vm, vcpu: Vcpu, made: Walk) -> int | None:
    """The address in the VM's own memory that ``made`` was for; None where nothing leads to one."""
    memory, guest = GuestView(state, vm), state.guest_paging(vcpu)
    if made.second is None:
        return _reached(walk(memory, guest, made.linear, made.access))
    second = state.l1_stage(vcpu)
    if second is None or made.gpa is None:
        return made.gpa
    return _reached(walk_nested(memory, unpaged(guest), second, made.gpa))


def _reached(logical: Walk) -> int | None:
    return logical.outcome.address if isinstance(logical.outcome, Translated) else None
