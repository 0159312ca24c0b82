"""Guest memory as KVM itself reads and writes it: through memslots and HVA, and through the guest's own page tables.

KVM has a walker of its own for a guest's tables (FNAME(walk_addr_generic), paging_tmpl.h). It goes by the MAXPHYADDR
that the guest was told, while the hardware goes by its own; and it never asks nested tables.
"""

import msgspec

from engine.arch.addresses import FRAME_SIZE
from engine.arch.basis import Basis, Ground
from engine.arch.bits import mask
from engine.arch.faults import PageFault, Reason, Violation, pf_code
from engine.arch.paging import Level, Paging, bind
from engine.arch.registers import Features, Mode, Vendor
from engine.arch.rights import Access, Check, compile_check
from engine.host.world import UnknownBytes, World
from engine.kvm.memslots import Memslot, Space, fault_in, find
from engine.kvm.vm import Vcpu, Vm

BASIS = Basis(Ground.KERNEL, "FNAME(walk_addr_generic)(), paging_tmpl.h")


class GuestMemory:
    """``world`` is changed in place: a first touch brings in the host's page."""

    def __init__(self, world: World, space: Space, vm: Vm) -> None:
        self.world, self._space, self._vm = world, space, vm
        self._pages: dict[int, int] = {}

    def slot(self, gpa: int) -> Memslot | None:
        return find(self._vm.slots, gpa)

    def place(self, gpa: int) -> int | None:
        """Where ``gpa`` lies in host memory (byte address); None where no memslot holds it.

        Raises InputError where the host has no memory left.
        """
        start = gpa & -FRAME_SIZE
        found = self._pages.get(start)
        if found is None:
            slot = self.slot(gpa)
            if slot is None:
                return None
            page = fault_in(self.world, self._space, self._vm.index, slot, gpa)
            found = self._pages[start] = page.hpa + slot.to_hva(start) - page.hva
        return found + gpa - start

    def word(self, gpa: int) -> int | None:
        """The 8-byte word that contains ``gpa``; None where there is no memory."""
        hpa = self.place(gpa & ~7)
        return None if hpa is None else self.world.word(hpa)


class _Entry(msgspec.Struct, frozen=True):
    """An entry on the way: where it lies, what it says, whether the guest's memory may be written there."""

    level: Level
    gpa: int
    hpa: int
    value: int


def software_paging(vcpu: Vcpu, hardware: Features) -> Paging:
    """The guest's paging as KVM's walker takes it."""
    features = msgspec.structs.replace(hardware, maxphyaddr=min(hardware.maxphyaddr, vcpu.cpuid.maxphyaddr))
    return bind(vcpu.registers, features, pdptes_from_memory=features.vendor is Vendor.AMD)


def gva_to_gpa(memory: GuestMemory, paging: Paging, linear: int, access: Access) -> int | PageFault:
    """The guest-physical byte address of ``linear`` for ``access``, by KVM's own walk of the guest's tables.

    A and D are set in them where their memslot is writable. Raises UnknownBytes where an entry's bytes are not known.
    """
    if paging.format is None:
        return linear
    check = compile_check(paging, access)
    base, levels = paging.root, paging.levels
    every, some, tables = -1, 0, -1
    used: list[_Entry] = []
    if paging.mode is Mode.PAE and paging.registers.pdptes is not None:
        pdpte = paging.registers.pdptes[linear >> 30 & 3]
        if not pdpte & 1:
            return _fault(check, linear, Reason.NOT_PRESENT)
        base, levels = pdpte & levels[0].table_address, levels[1:]
    for lv in levels:
        entry = _read(memory, lv, base + ((linear >> lv.shift & lv.index_mask) << lv.entry_shift))
        if entry is None or not entry.value & lv.present:
            return _fault(check, linear, Reason.NOT_PRESENT)
        is_leaf = entry.value & lv.leaf
        if entry.value & (lv.page_reserved if is_leaf else lv.table_reserved):
            return _fault(check, linear, Reason.RESERVED)
        every &= entry.value | lv.neutral
        some |= entry.value
        used.append(entry)
        if is_leaf:
            break
        tables, base = every, entry.value & lv.table_address
    leaf = used[-1]
    if not check.allows(every, some, tables, leaf.value):
        return _fault(check, linear, Reason.RIGHTS, check.violations(every, some, tables, leaf.value))
    _set_flags(memory, used, check.writes)
    lv = leaf.level
    physical = leaf.value & lv.page_address | (leaf.value & lv.high) << lv.high_shift
    return physical | linear & mask(lv.page_shift - 1, 0)


def _read(memory: GuestMemory, level: Level, gpa: int) -> _Entry | None:
    hpa = memory.place(gpa)
    if hpa is None:
        return None
    word = memory.world.memory.word(hpa & ~7)
    if word is None:
        raise UnknownBytes(hpa)
    return _Entry(level, gpa, hpa, word if level.entry_shift == 3 else word >> (hpa & 4) * 8 & 0xFFFF_FFFF)


def _set_flags(memory: GuestMemory, used: list[_Entry], writes: bool) -> None:
    """update_accessed_dirty_bits(): what lies in a read-only slot stays as it is."""
    for entry in used:
        lv, slot = entry.level, memory.slot(entry.gpa)
        flags = lv.accessed | (lv.dirty if writes and entry is used[-1] else 0)
        if entry.value & flags != flags and slot is not None and not slot.read_only:
            data = (entry.value | flags).to_bytes(1 << lv.entry_shift, "little")
            memory.world.memory = memory.world.memory.write(entry.hpa, data)


def _fault(check: Check, linear: int, reason: Reason, violations: tuple[Violation, ...] = ()) -> PageFault:
    code = pf_code(
        reason, write=check.writes, user=check.user, fetch=check.reports_fetch,
        key=Violation.PROTECTION_KEY in violations, shadow_stack=check.shadow_stack,
    )  # fmt: skip
    return PageFault(code, linear, reason, BASIS, violations)
