"""The instruction emulator, as far as one access goes: what KVM does itself instead of the hardware.

An access that ends here reaches memory through memslots and HVA, or a device of the VMM (KVM_EXIT_MMIO). The GPA that
the exit told is used for the page that it is in; for all else KVM walks the guest's tables. Sources:
x86_emulate_instruction(), emulator_read_write_onepage(), kvm_fetch_guest_virt() (arch/x86/kvm/x86.c).
"""

import msgspec

from engine.arch.addresses import FRAME_SIZE
from engine.arch.faults import PageFault
from engine.arch.memory import read
from engine.arch.paging import Paging
from engine.arch.rights import Access, Check, Kind
from engine.arch.second_stage import SecondStage, final_check
from engine.kvm.actions import Action
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import Stopped, gva_to_gpa
from engine.kvm.mirrored import translator
from engine.kvm.shadow_pages import Tracked

DEVICE = "KVM_EXIT_MMIO: a device of the VMM gets the access"


class Emulated(msgspec.Struct, frozen=True):
    """What the emulator came to. ``mmio``: a device gets the access. ``fault``: the guest gets it. ``failed``: KVM
    cannot emulate it (KVM_EXIT_INTERNAL_ERROR). ``loaded``: what a load from memory gave, None if unknown. ``stopped``:
    tables of a hypervisor inside the guest say no. ``stored``: (guest-physical address, bytes) of what was written;
    ``tracked``: what went with it, where that is a table that KVM mirrors."""

    actions: tuple[Action, ...]
    mmio: bool = False
    fault: PageFault | None = None
    failed: bool = False
    loaded: int | None = None
    stopped: Stopped | None = None
    stored: tuple[tuple[int, int], ...] = ()
    tracked: Tracked | None = None


def emulate(
    memory: GuestMemory, paging: Paging, linear: int, access: Access, value: int, gpa: int | None,
    second: SecondStage | None = None,
) -> Emulated:
    """Carry out ``access`` at ``linear``. ``gpa``: of the byte where the hardware gave up; None if it is unknown.

    ``second``: tables of a hypervisor inside the guest, which translate for its guest.
    """
    translate = translator(memory, second)

    def final(user: bool) -> Check:
        assert second is not None
        return final_check(second, access, paging.registers.cpl, user)

    parts: list[tuple[int, int]] = []
    at, end = linear, linear + access.size
    while at < end:
        length = min(end - at, FRAME_SIZE - at % FRAME_SIZE)
        known = gpa is not None and access.kind is not Kind.FETCH and (gpa - at) % FRAME_SIZE == 0
        found = gpa if known and gpa is not None else gva_to_gpa(
            memory, paging, at, access, translate, final if second else None
        )
        if isinstance(found, Stopped):
            return Emulated((Action("kvm_translate_gpa()", f"{found.reason.value} in L1's tables"),), stopped=found)
        if isinstance(found, PageFault):
            return Emulated((Action("kvm_inject_emulated_page_fault()", f"#PF at {at:#x} for the guest"),), fault=found)
        parts.append((found, length))
        at += length
    return _carry_out(memory, access, value, parts)


def _carry_out(memory: GuestMemory, access: Access, value: int, parts: list[tuple[int, int]]) -> Emulated:
    function = "x86_emulate_instruction()"
    slots = [memory.slot(gpa) for gpa, _ in parts]
    no_memory = any(slot is None or (access.kind.writes and slot.read_only) for slot in slots)
    if access.kind is Kind.FETCH and no_memory:
        why = "the instruction cannot be read: KVM_EXIT_INTERNAL_ERROR, emulation failed"
        return Emulated((Action("kvm_fetch_guest_virt()", why),), failed=True)
    if access.kind.is_shadow_stack:
        return Emulated((Action(function, "shadow-stack accesses are not emulated"),), failed=True)
    if no_memory:
        return Emulated((Action(function, DEVICE, "kvm_mmio"),), mmio=True)
    places = [(memory.place(gpa), length) for gpa, length in parts]
    where = ", ".join(f"GPA {gpa:#x}" for gpa, _ in parts)
    done = (Action(function, f"the access is carried out in memory at {where}", "kvm_emulate_insn"),)
    if access.kind.writes:
        data = (value & (1 << 8 * access.size) - 1).to_bytes(access.size, "little")
        for hpa, length in places:
            assert hpa is not None
            memory.world.memory = memory.world.memory.write(hpa, data[:length])
            data = data[length:]
        return Emulated(done, stored=tuple(parts))
    pieces = [read(memory.world.memory, hpa, length) for hpa, length in places if hpa is not None]
    known = [piece for piece in pieces if piece is not None]
    loaded = int.from_bytes(b"".join(known), "little") if len(known) == len(parts) else None
    return Emulated(done, loaded=loaded)
