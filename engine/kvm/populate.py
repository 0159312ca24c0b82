"""A whole memslot made present at once, as KVM_PRE_FAULT_MEMORY does, in arrays.

It leaves exactly what one fault a page, in ascending order, would leave: the first page of each table goes through the
fault path, which links what is missing; where that maps a small page, the rest of the table is filled at once.
"""

from array import array

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.host import mm
from engine.host.frames import Owner, Use
from engine.host.machine import PcpuSetup
from engine.host.mm import Placement
from engine.host.world import World
from engine.kvm import mmu
from engine.kvm.faults import FaultPath
from engine.kvm.memslots import Memslot, Space, show_image
from engine.kvm.module import Module
from engine.kvm.vm import Vcpu, Vm

TABLE_SPAN = 512 * FRAME_SIZE
"""Bytes that one table of 4-KiB pages covers."""


class Populated(msgspec.Struct, frozen=True):
    """``pages``: how many of the slot's 4-KiB pages went one by one through the fault path, and how many in arrays."""

    vm: Vm
    vcpu: Vcpu
    faults: int
    filled: int


def populate(
    world: World, module: Module, space: Space, vm: Vm, vcpu: Vcpu, setup: PcpuSetup, slot: Memslot
) -> Populated:
    """Make all of ``slot`` present in the tables of ``vcpu``. Raises InputError where the host has no frames left."""
    path = FaultPath(world, module, space, vm, vcpu, setup)
    faults = filled = 0
    gpa, end = slot.gpa, slot.gpa + slot.size
    while gpa < end:
        path.prefault(gpa)
        faults += 1
        assert vcpu.root is not None
        leaf = mmu.walk(world, module, vcpu.root, gpa)[-1]
        size = mmu.page_size(leaf.level)
        if leaf.level > 1:
            gpa = (gpa & ~(size - 1)) + size
            continue
        stop = min(end, (gpa & ~(TABLE_SPAN - 1)) + TABLE_SPAN)
        gpa += FRAME_SIZE
        if vm.shadow.is_mirrored(gpa, stop - gpa):
            continue  # writes there are withheld page by page
        done = _fill(world, module, space, vm, slot, leaf, gpa, stop)
        filled += done
        gpa += done * FRAME_SIZE
    return Populated(path.vm, path.vcpu, faults, filled)


def _fill(
    world: World, module: Module, space: Space, vm: Vm, slot: Memslot, first: mmu.Spte, gpa: int, stop: int
) -> int:
    """Map the 4-KiB pages ``gpa`` .. ``stop`` behind the SPTE ``first``; how many. 0 where they are not all absent."""
    lv, host_at, host_entry = mm.path_to(world.memory, space.levels, space.root, slot.to_hva(gpa) - FRAME_SIZE)[-1]
    host, spte_slot = (host_at & 0xFFF) >> 3, (first.address & 0xFFF) >> 3
    # GPA and HVA may lie differently in their tables: only as far as both reach.
    count = min((stop - gpa) // FRAME_SIZE, mm.ENTRIES - 1 - host)
    if count <= 0 or lv.level != 1:
        return 0
    host_table, sptes = _table(world, host_at), _table(world, first.address)
    if any(value != module.spte.absent for value in sptes[spte_slot + 1 : spte_slot + 1 + count]):
        return 0
    there = host_table[host + 1 : host + 1 + count]
    flags = host_entry & ~mm.ADDRESS
    if all(entry & ~mm.ADDRESS == flags for entry in there):
        hpas = [entry & mm.ADDRESS for entry in there]  # the host has all of them already
    elif any(there):
        return 0
    else:
        hpas = _frames(world, vm, slot, gpa, count)
        show_image(world, slot, gpa, hpas)
    leaf = module.spte.leaf(0, 1, host_writable=not slot.read_only, writable=True, executable=True)
    for n, hpa in enumerate(hpas, 1):
        host_table[host + n] = hpa | flags
        sptes[spte_slot + n] = hpa | leaf
    world.memory = world.memory.write(host_at & ~0xFFF, host_table.tobytes())
    world.memory = world.memory.write(first.address & ~0xFFF, sptes.tobytes())
    return count


def _table(world: World, address: int) -> "array[int]":
    """A copy of the 512 entries of the table that ``address`` lies in."""
    frame = world.memory.frame(address >> FRAME_BITS)
    assert frame is not None
    return array("Q", frame)


def _frames(world: World, vm: Vm, slot: Memslot, gpa: int, count: int) -> list[int]:
    """The host frames (byte addresses) behind ``count`` pages from ``gpa``, taken as one fault after another would."""
    if slot.backing.placement is Placement.CONTIGUOUS:
        first = slot.backing.at + gpa - slot.gpa
        return [first + n * FRAME_SIZE for n in range(count)]
    gfn = gpa >> FRAME_BITS
    return world.allocate_each([Owner(Use.GUEST_PAGE, vm=vm.index, gfn=gfn + n) for n in range(count)])
