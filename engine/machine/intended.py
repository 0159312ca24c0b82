"""Where a guest-physical address ought to lead: what the memslots and the host's page table say, as KVM asks them."""

from engine.host import mm
from engine.host.world import Halt
from engine.kvm.memslots import find
from engine.machine.state import State


def intended(state: State, vm: int, gpa: int) -> int | None:
    """The host-physical byte address that belongs to ``gpa`` of VM ``vm``; None where no memory of it is there.

    That is the memslot's HVA looked up in the host's own tables at the depth its kernel was booted with. Where a
    nested walk gives another address, the guest reaches a page that is not its own (gfn_to_hva(), hva_to_pfn()).
    """
    found = state.vms[vm] if 0 <= vm < len(state.vms) else None
    slot = find(found.slots, gpa) if found else None
    if slot is None or state.host is None:
        return None
    hva = slot.to_hva(gpa)
    try:
        page = mm.lookup(state.memory, state.host.levels, state.host.root, hva)
    except Halt:
        return None  # the host's own tables were written over
    return page.hpa + hva - page.hva if page else None
