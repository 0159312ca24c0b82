"""What the host does to the VMM's memory underneath a guest: it moves, unmaps, collapses or ages a page.

KVM hears of it by its mmu_notifier. Sources: mm/migrate.c, mm/khugepaged.c, virt/kvm/kvm_main.c.
"""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.errors import InputError
from engine.host import mm
from engine.host.frames import Owner, Use
from engine.host.mm import HostPage, Placement
from engine.host.world import World
from engine.kvm import zap
from engine.kvm.memslots import Memslot, Space, find
from engine.kvm.vm import Vm
from engine.machine.common import Result, after, did, space_of, world_of
from engine.machine.state import Images, Refusal, State

LARGE = 2 << 20


def _host_memory(state: State, event: ev.HostMemory, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    slot = find(vm.slots, event.gpa)
    if slot is None:
        return Refusal(f"No memslot holds guest-physical {event.gpa:#x}.")
    if slot.backing.placement is Placement.CONTIGUOUS and event.action != "age":
        return Refusal("This slot's memory is pinned where it is: only scattered memory can be moved.")
    assert state.module is not None
    world, space = world_of(state), space_of(state)
    gpa, size, told = _CHANGES[event.action](world, space, vm, slot, event.gpa)
    if event.action == "age":
        count = zap.age(world, state.module, vm, gpa, gpa + size)
        notified = ("kvm_mmu_notifier_clear_flush_young()", f"{count} SPTEs are marked as not accessed")
    else:
        vm, count = zap.zap(world, state.module, vm, gpa, gpa + size)
        notified = ("kvm_mmu_notifier_invalidate_range_start()", f"{count} SPTEs are zapped")
    return after(state, world, vm=vm, effect=did(told, notified))


Told = tuple[str, str]
Changed = tuple[int, int, Told]
"""GPA and bytes of what the host changed, and which function did what."""


def _mapped(world: World, space: Space, slot: Memslot, gpa: int) -> HostPage:
    page = mm.lookup(world.memory, space.levels, space.root, slot.to_hva(gpa))
    if page is None:
        raise InputError(f"The host has no page behind guest-physical {gpa:#x} yet.")
    return page


def _move_page(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Changed:
    """Page migration: another frame with the same content, and the VMM's page table says so."""
    page = _mapped(world, space, slot, gpa)
    start = slot.to_gpa(page.hva)
    owner = Owner(Use.GUEST_PAGE, vm=vm.index, gfn=start >> FRAME_BITS)
    hpa = world.allocate(owner) if page.size == FRAME_SIZE else world.allocate_block(page.size, owner)
    _copy(world, page.hpa, hpa, page.size)
    mm.clear_page(world, space.levels, space.root, page.hva)
    mm.map_page(world, space.levels, space.root, msgspec.structs.replace(page, hpa=hpa))
    world.free(page.hpa, page.size)
    return start, page.size, ("migrate_pages()", f"HVA {page.hva:#x} moves from HPA {page.hpa:#x} to {hpa:#x}")


def _unmap_page(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Changed:
    """MADV_REMOVE: the content is lost; the next touch brings in a zero page."""
    page = _mapped(world, space, slot, gpa)
    mm.unmap(world, space.levels, space.root, page.hva, page.hva + page.size)
    world.free(page.hpa, page.size)
    return slot.to_gpa(page.hva), page.size, ("madvise_remove()", f"HVA {page.hva:#x} is unmapped and its content lost")


def _collapse_pages(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Changed:
    """khugepaged: 512 small pages become one of 2 MiB."""
    hva = slot.to_hva(gpa) & -LARGE
    if hva < slot.hva or hva + LARGE > slot.hva + slot.size:
        raise InputError("The slot does not hold the whole 2 MiB around this address.")
    if mm.lookup(world.memory, space.levels, space.root, slot.to_hva(gpa)) is None:
        raise InputError(f"The host has no page behind guest-physical {gpa:#x} yet.")
    start = slot.to_gpa(hva)
    old = mm.unmap(world, space.levels, space.root, hva, hva + LARGE)
    if any(page.size > FRAME_SIZE for page in old):
        raise InputError("A large page is mapped here already.")
    hpa = world.allocate_block(LARGE, Owner(Use.GUEST_PAGE, vm=vm.index, gfn=start >> FRAME_BITS))
    for page in old:
        _copy(world, page.hpa, hpa + page.hva - hva, FRAME_SIZE)
    world.free_each((page.hpa, FRAME_SIZE) for page in old)
    page = HostPage(hva=hva, hpa=hpa, size=LARGE, write=True, user=True, execute=False)
    mm.map_page(world, space.levels, space.root, page)
    return start, LARGE, ("collapse_huge_page()", f"HVA {hva:#x}: 2 MiB become one page at HPA {hpa:#x}")


def _age_page(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Changed:
    """Reclaim asks whether the page was used, and has the marks taken away."""
    page = _mapped(world, space, slot, gpa)
    start = max(slot.to_gpa(page.hva), slot.gpa)
    return start, page.size, ("folio_referenced()", f"the host asks whether HVA {page.hva:#x} was accessed")


_CHANGES: dict[str, Callable[[World, Space, Vm, Memslot, int], Changed]] = {
    "move": _move_page, "unmap": _unmap_page, "collapse": _collapse_pages, "age": _age_page,
}  # fmt: skip


def _copy(world: World, source: int, target: int, size: int) -> None:
    """What is known of each frame goes to the fresh, zero ``target``; what is not known is not known there either."""
    shift = (target - source) >> FRAME_BITS
    first = source >> FRAME_BITS
    for pfn in world.memory.held(first, first + (size >> FRAME_BITS)):
        world.memory = world.memory.copied(pfn, pfn + shift)


HANDLERS: dict[type, Callable[..., Result]] = {ev.HostMemory: _host_memory}
