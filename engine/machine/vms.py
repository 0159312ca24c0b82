"""Events on VMs, vCPUs and memslots, as the VMM and the scheduler make them."""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS
from engine.arch.bits import mask
from engine.arch.registers import CR0, EFER, Features, Mode, Registers, Vendor, mov_cr4
from engine.errors import InputError
from engine.host import mm
from engine.host.frames import Owner, Use
from engine.host.mm import Placement
from engine.host.world import World
from engine.kvm import contexts, zap
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.memslots import Memslot, Pages, check_slot, contiguous, hva_for
from engine.kvm.populate import populate
from engine.kvm.role import Role
from engine.kvm.vm import RESET, GuestCpu, Vcpu, Vm
from engine.machine.access import loaded
from engine.machine.common import Result, after, did, slot_of, space_of, world_of
from engine.machine.state import Effect, Images, Refusal, State

MAX_VMS, MAX_VCPUS, MAX_SLOTS = 64, 288, 509
"""VMs are limited for the window's sake; the others are KVM's own: KVM_SOFT_MAX_VCPUS, KVM_USER_MEM_SLOTS."""


MAX_SMALL, MAX_LARGE = 1 << 22, 1 << 14


def _create_vm(state: State, event: ev.CreateVm, images: Images) -> Result:
    if len(state.vms) >= MAX_VMS:
        return Refusal(f"A scenario has at most {MAX_VMS} VMs.")
    return msgspec.structs.replace(state, vms=(*state.vms, Vm(index=len(state.vms))))


def _destroy_vm(state: State, event: ev.DestroyVm, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    assert state.module is not None
    world = world_of(state)
    tables = zap.destroy(world, state.module, vm)
    for slot in vm.slots:
        _release(state, world, slot)
    effect = did(("kvm_destroy_vm()", f"{tables} tables of KVM and the VM's memory are given back"))
    gone = after(state, world, effect=effect)
    return msgspec.structs.replace(gone, vms=tuple(None if v is vm else v for v in state.vms))


def _release(state: State, world: World, slot: Memslot) -> None:
    """The VMM unmaps a slot's memory; the host gives its frames back."""
    space = space_of(state)
    gone = mm.unmap(world, space.levels, space.root, *slot.mapping)
    if slot.backing.placement is Placement.CONTIGUOUS:
        world.free(*contiguous(slot))
    else:
        world.free_each((page.hpa, page.size) for page in gone)


# --- vCPUs


def _no_pcpu(state: State, index: int) -> Refusal | None:
    assert state.host is not None
    if index >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {index}.")
    unusable = state.host.pcpus[index].unusable
    return Refusal(f"Nothing can run on pCPU {index}: it {unusable}") if unusable else None


def _create_vcpu(state: State, event: ev.CreateVcpu, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    refused = _no_pcpu(state, event.pcpu)
    if refused is not None:
        return refused
    if len(vm.vcpus) >= MAX_VCPUS:
        return Refusal(f"KVM gives a VM at most {MAX_VCPUS} vCPUs.")
    assert state.module is not None
    assert state.host is not None
    vcpu = Vcpu(index=len(vm.vcpus), pcpu=event.pcpu, cpuid=event.cpuid, registers=RESET, role=Role(0))
    vcpu = msgspec.structs.replace(vcpu, role=contexts.role_of(state.module, state.host, vcpu))
    made = state.with_vm(msgspec.structs.replace(vm, vcpus=(*vm.vcpus, vcpu)))
    return msgspec.structs.replace(made, effect=did(initialised(vcpu)))


def initialised(vcpu: Vcpu) -> tuple[str, str]:
    role = vcpu.role
    return "kvm_init_mmu()", f"root_role.level = {role.level}, role word {role.word:#x}, on pCPU {vcpu.pcpu}"


def _set_registers(state: State, event: ev.SetGuestRegisters, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.host is not None
    hardware = state.host.pcpus[vcpu.pcpu].features
    assert state.module is not None
    refused = invalid(event.registers, vcpu.cpuid, hardware, state.module.tdp_enabled)
    if refused:
        return Refusal(f"KVM_SET_SREGS refuses these registers: {refused}.")
    world = world_of(state)
    memory = GuestMemory(world, space_of(state), vm)
    registers = with_pdptes(memory, event.registers, hardware, state.module.tdp_enabled)
    new = msgspec.structs.replace(vcpu, registers=registers)
    effect = Effect()
    if any(getattr(registers, name) != getattr(vcpu.registers, name) for name in MMU_REGISTERS):
        new = contexts.reset(state.module, state.host, new)
        effect = did(initialised(new))
    return after(state, world, vm=vm.with_vcpu(new), effect=effect)


MMU_REGISTERS = ("cr0", "cr3", "cr4", "efer")
"""A change of one of them resets the MMU (kvm_mmu_reset_context())."""


def invalid(registers: Registers, cpuid: GuestCpu, hardware: Features, tdp: bool) -> str:
    """kvm_is_valid_sregs(): why not; '' where they are valid.

    Without nested paging KVM offers no protection keys and no shadow stacks (kvm_set_cpu_caps()).
    """
    r = registers
    if r.cr0 >> 32 or (r.cr0 & CR0.NW and not r.cr0 & CR0.CD) or (r.cr0 & CR0.PG and not r.cr0 & CR0.PE):
        return "this CR0 can never be"
    if r.efer & EFER.LME and r.cr0 & CR0.PG:
        if not r.efer & EFER.LMA or r.mode not in (Mode.LEVEL4, Mode.LEVEL5):
            return "with EFER.LME and CR0.PG set, EFER.LMA and CR4.PAE must be set too"
        if r.cr3 & mask(60, cpuid.maxphyaddr):
            return f"CR3 has bits beyond the guest's MAXPHYADDR, {cpuid.maxphyaddr}"
    elif r.efer & EFER.LMA or r.cs_l:
        return "EFER.LMA and CS.L belong to long mode"
    known = guest_features(cpuid, hardware, tdp)
    checked = mov_cr4(msgspec.structs.replace(r, pdptes=(0, 0, 0, 0)), r.cr4, known, _NoMemory())
    return "" if isinstance(checked, Registers) else getattr(checked, "reason", "")


def guest_features(cpuid: GuestCpu, hardware: Features, tdp: bool) -> Features:
    """The processor as the guest knows it, as far as its control registers go."""
    known = msgspec.structs.replace(hardware, la57=hardware.la57 and cpuid.la57)
    return known if tdp else msgspec.structs.replace(known, pku=False, pks=False, cet=False)


class _NoMemory:
    def word(self, address: int) -> int | None:
        return None


def with_pdptes(memory: GuestMemory, registers: Registers, hardware: Features, tdp: bool) -> Registers:
    """KVM loads the PDPTE registers of a PAE guest itself (load_pdptrs()), on VMX and without nested paging; without
    memory there, later."""
    in_memory = tdp and hardware.vendor is Vendor.AMD
    if registers.mode is not Mode.PAE or in_memory or registers.pdptes is not None:
        return registers
    base = registers.cr3 & mask(31, 5)
    words = [memory.word(base + n * 8) for n in range(4)]
    loaded_now = [word for word in words if word is not None]
    if len(loaded_now) < 4 or any(w & 1 and w & (mask(63, hardware.maxphyaddr) | 0x1E6) for w in loaded_now):
        return registers
    first, second, third, fourth = loaded_now
    return msgspec.structs.replace(registers, pdptes=(first, second, third, fourth))


def _move_vcpu(state: State, event: ev.MoveVcpu, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    refused = _no_pcpu(state, event.pcpu)
    if refused is not None:
        return refused
    assert state.host is not None
    nested = state.module is not None and state.module.tdp_enabled
    if state.host.vendor is Vendor.AMD:
        how = ("pre_svm_run()", f"a new ASID; {'nCR3' if nested else 'CR3'} stays")
    else:
        how = ("vmx_vcpu_load_vmcs()", f"VMCLEAR, VMPTRLD; {'the EPTP' if nested else 'CR3'} stays")
    moved = state.with_vm(vm.with_vcpu(msgspec.structs.replace(vcpu, pcpu=event.pcpu)))
    return msgspec.structs.replace(moved, effect=did(how))


# --- memslots


def _set_memslot(state: State, event: ev.SetMemslot, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    mapped = tuple(s for v in state.vms if v is not None for s in v.slots)
    slot = Memslot(
        id=max((slot.id for slot in vm.slots), default=-1) + 1, gpa=event.gpa, size=event.size,
        hva=event.hva or hva_for(mapped, event.gpa), backing=event.backing, read_only=event.read_only,
        image=images(event.image) if event.image else None,
    )  # fmt: skip
    return add_slot(state, world_of(state), vm, mapped, slot)


def add_slot(state: State, world: World, vm: Vm, mapped: tuple[Memslot, ...], slot: Memslot) -> State:
    """``slot`` becomes one of ``vm``. Raises InputError with the reason where KVM or the host refuses it."""
    assert state.host is not None
    online = [p for p in state.host.pcpus if p.online]
    if slot.backing.pages is Pages.HUGE_1G and not all(p.features.page1gb for p in online):
        raise InputError("The host has no hugetlb pages of 1 GiB: a pCPU lacks them.")
    if len(vm.slots) >= MAX_SLOTS:
        raise InputError(f"KVM gives a VM at most {MAX_SLOTS} memslots.")
    refused = check_slot(vm.slots, mapped, slot, online[0].features.maxphyaddr)
    if refused:
        raise InputError(refused)
    if slot.backing.placement is Placement.CONTIGUOUS:
        start, size = contiguous(slot)
        gfn = (slot.gpa - (slot.backing.at - start)) >> FRAME_BITS
        world.reserve(start, size, Owner(Use.GUEST_PAGE, vm=vm.index, gfn=gfn))
    vm = msgspec.structs.replace(vm, slots=(*vm.slots, slot), generation=vm.generation + 2)
    return after(state, world, vm=vm, effect=did(("kvm_set_memory_region()", _slot_told(slot))))


def _slot_told(slot: Memslot) -> str:
    return f"slot {slot.id}: GPA {slot.gpa:#x}, {slot.size:#x} bytes at HVA {slot.hva:#x}"


def _delete_memslot(state: State, event: ev.DeleteMemslot, images: Images) -> Result:
    found = slot_of(state, event.vm, event.slot)
    if isinstance(found, Refusal):
        return found
    vm, slot = found
    assert state.module is not None
    world = world_of(state)
    vm, tables = zap.zap_all(world, state.module, vm)
    _release(state, world, slot)
    slots = tuple(s for s in vm.slots if s is not slot)
    vm = msgspec.structs.replace(vm, slots=slots, generation=vm.generation + 2)
    effect = did(
        ("kvm_set_memory_region()", f"slot {slot.id} is gone"),
        ("kvm_mmu_zap_all_fast()", f"all roots are invalid; {tables} tables are freed"),
    )
    return after(state, world, vm=vm, effect=effect)


def _dirty_logging(state: State, event: ev.DirtyLogging, images: Images) -> Result:
    """KVM_MEM_LOG_DIRTY_PAGES. PML is taken to be off, so that W is what tells of writes."""
    found = slot_of(state, event.vm, event.slot)
    if isinstance(found, Refusal):
        return found
    vm, slot = found
    module = state.module
    assert module is not None
    if slot.dirty_log == event.on:
        told = ("kvm_mmu_slot_apply_flags()", f"nothing changes: dirty logging is {'on' if event.on else 'off'}")
        return msgspec.structs.replace(state, effect=did(told))
    if slot.read_only and event.on:
        return Refusal("Nothing is written to a read-only memslot: there is nothing to log.")
    world, space = world_of(state), space_of(state)
    actions = []
    slot = msgspec.structs.replace(slot, dirty_log=event.on)
    vm = vm.with_slot(slot)
    if event.on:
        if module.kernel.eager_split:
            split = zap.split_all(world, module, vm, slot)
            actions.append(("kvm_mmu_slot_try_split_huge_pages()", f"{split} large pages are split"))
        count = zap.write_protect(world, module, vm, slot)
        actions.append(("kvm_mmu_slot_remove_write_access()", f"{count} SPTEs lose W"))
    else:

        def host_size(gpa: int) -> int:
            page = mm.lookup(world.memory, space.levels, space.root, slot.to_hva(gpa))
            return page.size if page else 0

        vm, count = zap.recover(world, module, vm, slot, host_size)
        actions.append(("kvm_mmu_zap_collapsible_sptes()", f"{count} tables give way to larger pages to come"))
    return after(state, world, vm=vm, effect=did(*actions))


# --- KVM's tables as a whole


def _zap(state: State, event: ev.ZapGuest, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    assert state.module is not None
    world = world_of(state)
    if event.size:
        vm, count = zap.zap(world, state.module, vm, event.gpa, event.gpa + event.size)
        told = ("kvm_unmap_gfn_range()", f"{count} SPTEs are zapped")
    else:
        vm, count = zap.zap_all(world, state.module, vm)
        told = ("kvm_mmu_zap_all_fast()", f"all roots are invalid; {count} tables are freed")
    return after(state, world, vm=vm, effect=did(told))


def _flush(state: State, event: ev.FlushTlb, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    told = ("kvm_flush_remote_tlbs()", "no translation cache is modelled: every access walks anew")
    return msgspec.structs.replace(state, effect=did(told))


def _populate(state: State, event: ev.Populate, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    assert state.module is not None
    assert state.host is not None
    if not state.module.tdp_enabled or not found[1].role.direct:
        return Refusal("KVM_PRE_FAULT_MEMORY gives -EOPNOTSUPP where KVM mirrors a guest's tables.")
    state = loaded(state, *found)
    chosen = slot_of(state, event.vm, event.slot)
    if isinstance(chosen, Refusal):
        return chosen
    assert state.module is not None
    assert state.host is not None
    vm, slot = chosen
    most = MAX_SMALL if slot.backing.pages is Pages.SMALL else MAX_LARGE
    if slot.size > most * slot.backing.pages.size:
        return Refusal(f"At most {most:,} of these pages are populated by one event.")
    world = world_of(state)
    vcpu = vm.vcpus[event.vcpu]
    done = populate(world, state.module, space_of(state), vm, vcpu, state.host.pcpus[vcpu.pcpu].setup, slot)
    told = ("kvm_vcpu_pre_fault_memory()", f"{done.faults} faults, {done.filled} further pages like them")
    return after(state, world, vm=done.vm.with_vcpu(done.vcpu), effect=did(told))


HANDLERS: dict[type, Callable[..., Result]] = {
    ev.CreateVm: _create_vm,
    ev.DestroyVm: _destroy_vm,
    ev.CreateVcpu: _create_vcpu,
    ev.SetMemslot: _set_memslot,
    ev.DeleteMemslot: _delete_memslot,
    ev.SetGuestRegisters: _set_registers,
    ev.MoveVcpu: _move_vcpu,
    ev.ZapGuest: _zap,
    ev.DirtyLogging: _dirty_logging,
    ev.FlushTlb: _flush,
    ev.Populate: _populate,
}
