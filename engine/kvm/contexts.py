"""Which MMU a vCPU uses, and what changes it: registers, CR3, the entry of a nested guest and its exit.

Sources: kvm_init_mmu(), kvm_mmu_reset_context(), nested_svm_init_mmu_context(), nested_ept_init_mmu_context(),
nested_svm_transition_tlb_flush() (reference page, 3.3 and 8).
"""

import msgspec

from engine.arch.bits import bit, field
from engine.arch.registers import Registers, Vendor
from engine.host.machine import Host
from engine.kvm import shadow_roots
from engine.kvm.mirrored import pgd
from engine.kvm.module import Module, tdp_level
from engine.kvm.role import Role, direct_role, shadow_ept_role, shadow_npt_role, shadow_role
from engine.kvm.vm import Mmu, Nested, NestedPaging, Vcpu


def role_of(module: Module, host: Host, vcpu: Vcpu) -> Role:
    """kvm_init_mmu(): the role of the root that ``vcpu`` needs, worked out on the pCPU it is on."""
    kernel, nested = module.kernel, vcpu.nested
    level = tdp_level(module, host, host.pcpus[vcpu.pcpu], vcpu.cpuid.maxphyaddr)
    if nested is not None and nested.paging is NestedPaging.NPT:
        return shadow_npt_role(kernel, nested.l1, level)
    if nested is not None and nested.paging is NestedPaging.EPT:
        return shadow_ept_role(kernel, field(nested.root, 5, 3) + 1, ad=bool(nested.root & bit(6)))
    if module.tdp_enabled:
        return direct_role(kernel, level, vcpu.registers, ad=module.ad_bits, guest_mode=nested is not None)
    return shadow_role(kernel, vcpu.registers, guest_mode=nested is not None)


def reset(module: Module, host: Host, vcpu: Vcpu) -> Vcpu:
    """kvm_mmu_reset_context(): all roots are let go, the role is worked out anew."""
    vcpu = vcpu.without_roots()
    return msgspec.structs.replace(vcpu, role=role_of(module, host, vcpu))


def load_cr3(vcpu: Vcpu) -> Vcpu:
    """kvm_mmu_new_pgd() after a MOV to CR3: a root that was used before, or none yet."""
    return vcpu if vcpu.role.direct else vcpu.with_mmu(shadow_roots.switch(vcpu.mmu, pgd(vcpu)))


def enter(module: Module, host: Host, vcpu: Vcpu, nested: Nested, l2: Registers) -> Vcpu:
    """The vCPU goes into its nested guest: guest_mmu takes over where L1 has nested paging for it."""
    inside = msgspec.structs.replace(vcpu, nested=nested, registers=l2, mmio=None)
    role = role_of(module, host, inside)
    if nested.paging is NestedPaging.NONE:
        return _same_mmu(inside, role)
    other = msgspec.structs.replace(vcpu.parked or Mmu(role), role=role)
    inside = msgspec.structs.replace(inside.with_mmu(other), parked=vcpu.mmu)
    return inside.with_mmu(shadow_roots.switch(other, nested.root))


def leave(module: Module, host: Host, vcpu: Vcpu) -> Vcpu:
    """The vCPU goes back to L1, with the registers that it had at its entry."""
    assert vcpu.nested is not None
    outside = msgspec.structs.replace(vcpu, nested=None, registers=vcpu.nested.l1, mmio=None)
    if vcpu.nested.paging is NestedPaging.NONE:
        return _same_mmu(outside, role_of(module, host, outside))
    assert vcpu.parked is not None
    return msgspec.structs.replace(outside.with_mmu(vcpu.parked), parked=vcpu.mmu)


def _same_mmu(vcpu: Vcpu, role: Role) -> Vcpu:
    """root_mmu goes on with another role; direct roots are the VM's and are found again by theirs."""
    state = msgspec.structs.replace(vcpu.mmu, role=role)
    return vcpu.with_mmu(state.without_roots() if role.direct else shadow_roots.switch(state, pgd(vcpu)))


def syncs_at_transition(module: Module) -> bool:
    """nested_svm_transition_tlb_flush(): every VMRUN and #VMEXIT of L1 flushes; VMX only does where it must."""
    return module.vendor is Vendor.AMD
