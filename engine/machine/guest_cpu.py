"""Instructions of a guest that its tables' meaning depends on: MOV to CRn, WRMSR to EFER, INVLPG.

Sources: kvm_set_cr0(), kvm_set_cr3(), kvm_set_cr4(), set_efer(), kvm_mmu_invlpg() (x86.c, mmu.c; reference page, 3.3,
4.5 and 5.7).
"""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.arch.addresses import is_canonical
from engine.arch.bits import bit
from engine.arch.faults import Unknown
from engine.arch.registers import CR4, Features, Registers, mov_cr0, mov_cr3, mov_cr4, wrmsr_efer
from engine.kvm import contexts
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.vm import Vcpu, Vm
from engine.machine.access import loaded
from engine.machine.common import Result, after, did, shadow_of, space_of, world_of
from engine.machine.guest_view import GuestView
from engine.machine.state import Effect, Images, Refusal, State
from engine.machine.vms import MMU_REGISTERS, guest_features, initialised, with_pdptes

_WRITES: dict[str, Callable[[Registers, int, Features, GuestView], object]] = {
    "cr0": mov_cr0, "cr3": mov_cr3, "cr4": mov_cr4, "efer": lambda r, value, f, memory: wrmsr_efer(r, value, f),
}  # fmt: skip
NO_FLUSH = bit(63)
"""Bit 63 of a value written to CR3 under PCID: the TLB is kept."""


def _write(state: State, event: ev.WriteGuestRegister, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.host is not None
    assert state.module is not None
    hardware, tdp = state.host.pcpus[vcpu.pcpu].features, state.module.tdp_enabled
    features = guest_features(vcpu.cpuid, hardware, tdp)
    features = msgspec.structs.replace(features, maxphyaddr=min(features.maxphyaddr, vcpu.cpuid.maxphyaddr))
    written = _WRITES[event.name](vcpu.registers, event.value, features, GuestView(state, vm))
    if isinstance(written, Unknown):
        return Refusal(f"The PDPTEs at {vcpu.registers.cr3:#x} are in no memslot: there is nothing to load.")
    if not isinstance(written, Registers):
        return msgspec.structs.replace(state, effect=Effect(fault=written))  # type: ignore[arg-type]
    world = world_of(state)
    if vcpu.nested is None:
        written = with_pdptes(GuestMemory(world, space_of(state), vm), written, hardware, tdp)
    new = msgspec.structs.replace(vcpu, registers=written)
    made = after(state, world, vm=vm.with_vcpu(new))
    if event.name == "cr3":
        flushes = not (event.value & NO_FLUSH and vcpu.registers.cr4 & CR4.PCIDE)
        return _new_cr3(made, vm.with_vcpu(new), new, flushes)
    if any(getattr(written, name) != getattr(vcpu.registers, name) for name in MMU_REGISTERS):
        return _changed_mode(made, vm.with_vcpu(new), new)
    return made


def _changed_mode(state: State, vm: Vm, vcpu: Vcpu) -> State:
    assert state.host is not None
    assert state.module is not None
    if contexts.role_of(state.module, state.host, vcpu) == vcpu.role and vcpu.role.direct:
        return state  # no bit that the role records has changed
    new = contexts.reset(state.module, state.host, vcpu)
    return msgspec.structs.replace(state.with_vm(vm.with_vcpu(new)), effect=did(initialised(new)))


def _new_cr3(state: State, vm: Vm, vcpu: Vcpu, flushes: bool) -> State:
    """kvm_mmu_new_pgd(), and kvm_mmu_sync_roots() where the TLB is flushed."""
    if not _mirrors_its_tables(state, vcpu):
        told = ("MOV to CR3", "not intercepted: KVM mirrors nothing of this guest's tables")
        return msgspec.structs.replace(state, effect=did(told))
    new = contexts.load_cr3(vcpu)
    if new.root is None:
        told = ("kvm_mmu_new_pgd()", "no root of this CR3 is kept: the next entry makes one")
        return msgspec.structs.replace(state.with_vm(vm.with_vcpu(new)), effect=did(told))
    world = world_of(state)
    shadow = shadow_of(state, world, vm.with_vcpu(new), new)
    if flushes:
        shadow.sync_roots(new.root)
    told = ("fast_pgd_switch()", f"the root at {new.root.hpa:#x}, which mirrored this CR3 before, is used again")
    effect = did(told, *((a.function, a.did) for a in shadow.actions))
    return after(state, world, vm=shadow.vm, effect=effect)


def _mirrors_its_tables(state: State, vcpu: Vcpu) -> bool:
    """Whether KVM mirrors the tables of what runs on ``vcpu``, and not none at all, or those of its hypervisor."""
    return not vcpu.role.direct and state.l1_stage(vcpu) is None


def _invlpg(state: State, event: ev.InvalidatePage, images: Images) -> Result:
    """kvm_mmu_invlpg(): in the root in use and in those that are kept."""
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    paging = state.guest_paging(vcpu)
    if not _mirrors_its_tables(state, vcpu):
        told = ("INVLPG", "not intercepted: KVM mirrors nothing of this guest's tables")
        return msgspec.structs.replace(state, effect=did(told))
    if paging.mode.is_long and not is_canonical(event.address, paging.width):
        told = ("kvm_mmu_invlpg()", "the address is not canonical: nothing happens")
        return msgspec.structs.replace(state, effect=did(told))
    state = loaded(state, vm, vcpu)
    vm = state.vms[vm.index] or vm
    vcpu = vm.vcpus[vcpu.index]
    world = world_of(state)
    shadow = shadow_of(state, world, vm, vcpu)
    for root in (vcpu.root, *vcpu.previous):
        if root is not None:
            shadow.invalidate(root, event.address)
    actions = [(a.function, a.did) for a in shadow.actions] or [("kvm_mmu_invlpg()", "nothing was out of sync there")]
    return after(state, world, vm=shadow.vm, effect=did(*actions))


HANDLERS: dict[type, Callable[..., Result]] = {ev.WriteGuestRegister: _write, ev.InvalidatePage: _invlpg}
