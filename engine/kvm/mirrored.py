"""Whose tables KVM mirrors at the moment: the guest's own, or those of a hypervisor inside it, or nobody's."""

import msgspec

from engine.arch.bits import mask
from engine.arch.paging import Paging, bind
from engine.arch.registers import Mode, Vendor
from engine.arch.rights import Access, Check, Kind, compile_check
from engine.arch.second_stage import SecondStage, final_check
from engine.host.machine import PcpuSetup
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import Stopped, Translate, walk_guest
from engine.kvm.module import Module
from engine.kvm.nested import l1_features, l1_stage
from engine.kvm.role import LEVELS
from engine.kvm.vm import NestedPaging, Vcpu

PDPTES = 4


class Mirrored(msgspec.Struct, frozen=True):
    """``paging``: of the tables that are mirrored. ``second``: where they are L1's NPT or EPT, for its guest."""

    paging: Paging
    second: SecondStage | None = None

    @property
    def level(self) -> int:
        """cpu_role.base.level."""
        return LEVELS[self.paging.mode]

    def check(self, access: Access, write: bool, fetch: bool) -> Check:
        """What the mirrored tables must allow: for the guest's ``access``, or, where they are L1's, for the kind of
        access to L2's memory that the hardware told of."""
        if self.second is None:
            return compile_check(self.paging, access)
        kind = Kind.FETCH if fetch else Kind.WRITE if write else Kind.READ
        return final_check(self.second, Access(kind), 3, True)


def software_paging(module: Module, vcpu: Vcpu, setup: PcpuSetup) -> Paging:
    """The paging of what runs on ``vcpu``, as KVM's walker takes it: by the CPUID that the guest was given.

    Under TDP a guest has 1-GiB pages where the hardware has them (guest_can_use()).
    """
    features = l1_features(vcpu.cpuid, setup.features)
    in_memory = module.tdp_enabled and features.vendor is Vendor.AMD
    if module.tdp_enabled:
        features = msgspec.structs.replace(features, page1gb=setup.features.page1gb)
    return bind(vcpu.registers, features, pdptes_from_memory=in_memory)


def second_of(vcpu: Vcpu, setup: PcpuSetup) -> SecondStage | None:
    """L1's NPT or EPT, which a nested guest on ``vcpu`` runs on; None where there is none."""
    if vcpu.nested is None:
        return None
    found = l1_stage(vcpu.nested, vcpu.cpuid, setup.features, setup.ept)
    return found if isinstance(found, SecondStage) else None


def mirrored(module: Module, vcpu: Vcpu, setup: PcpuSetup) -> Mirrored | None:
    """What the tables of ``vcpu``'s MMU mirror; None for direct ones."""
    if vcpu.role.direct:
        return None
    second = second_of(vcpu, setup)
    if second is not None:
        return Mirrored(second.paging, second)
    return Mirrored(software_paging(module, vcpu, setup))


def pgd(vcpu: Vcpu) -> int:
    """kvm_mmu_get_guest_pgd(): CR3, or nCR3 or EPTP of L1."""
    nested = vcpu.nested
    return nested.root if nested is not None and nested.paging is not NestedPaging.NONE else vcpu.registers.cr3


def pdptes(memory: GuestMemory, vcpu: Vcpu, what: Mirrored | None) -> tuple[int, int, int, int] | None:
    """The PDPTEs of a PAE root: the vCPU's registers, or those that L1's nCR3 names, read as they are now."""
    if what is None or what.paging.mode is not Mode.PAE:
        return None
    if what.second is None and vcpu.registers.pdptes is not None:
        return vcpu.registers.pdptes
    base = pgd(vcpu) & mask(31, 5)
    words = [memory.word(base + n * 8) or 0 for n in range(PDPTES)]
    return words[0], words[1], words[2], words[3]


def translator(memory: GuestMemory, second: SecondStage | None) -> Translate | None:
    """kvm_translate_gpa() for a nested guest: KVM's walk of L1's tables; None where guest-physical is all there is."""
    if second is None:
        return None

    def translate(gpa: int, check: Check | None) -> int | Stopped:
        found = walk_guest(memory, second.paging, gpa, check or second.table)
        return msgspec.structs.replace(found, beyond=True) if isinstance(found, Stopped) else found.gpa

    return translate
