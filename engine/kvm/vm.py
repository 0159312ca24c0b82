"""VMs and vCPUs as KVM keeps them: slots, roots, counters. Values; every change gives the next one.

Sources: arch/x86/include/asm/kvm_host.h: struct kvm, struct kvm_vcpu_arch, union kvm_mmu_page_role.
"""

import msgspec

from engine.arch.bits import bit
from engine.arch.registers import Features, Registers
from engine.kvm.memslots import Memslot

RESET = Registers(cr0=0x6000_0010)
"""A processor after reset (SDM vol. 3A, 10.1.1): real mode, the first fetch at guest-physical FFFF_FFF0h."""
RESET_VECTOR = 0xFFFF_FFF0


class GuestCpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The CPUID that the VMM gives a vCPU, as far as translation depends on it. ``maxphyaddr`` in bits."""

    maxphyaddr: int = 48
    la57: bool = True
    page1gb: bool = True

    def __post_init__(self) -> None:
        if not 32 <= self.maxphyaddr <= 52:
            raise ValueError(f"the guest's MAXPHYADDR is {self.maxphyaddr}; it must be 32 .. 52")


class Role(msgspec.Struct, frozen=True):
    """union kvm_mmu_page_role of a direct MMU page (reference page, 3.1)."""

    level: int
    ad_disabled: bool = False

    @property
    def word(self) -> int:
        """The role word: level 3:0, direct bit 7, access 10:8, efer_nx bit 12, cr0_wp bit 13, ad_disabled bit 16."""
        return self.level | bit(7) | 0b111 << 8 | bit(12) | bit(13) | self.ad_disabled * bit(16)


class Root(msgspec.Struct, frozen=True):
    """A root of direct tables: its byte address in host memory and its role, whose level is fixed for its life."""

    hpa: int
    role: Role


class Counters(msgspec.Struct, frozen=True):
    """Statistics of a vCPU, by their names in debugfs."""

    exits: int = 0
    pf_taken: int = 0
    pf_fixed: int = 0
    pf_spurious: int = 0
    pf_fast: int = 0
    pf_emulate: int = 0
    pf_mmio_spte_created: int = 0
    mmio_exits: int = 0

    def plus(self, *names: str) -> "Counters":
        return msgspec.structs.replace(self, **{name: getattr(self, name) + 1 for name in names})

    def growth(self, before: "Counters") -> dict[str, int]:
        """What grew since ``before``, and by how much."""
        fields = self.__struct_fields__
        return {n: getattr(self, n) - getattr(before, n) for n in fields if getattr(self, n) != getattr(before, n)}


class Vcpu(msgspec.Struct, frozen=True):
    """``root`` None: no MMU root is loaded yet. ``rip`` is not modelled: an access says its address."""

    index: int
    pcpu: int
    cpuid: GuestCpu
    registers: Registers
    root: Root | None = None
    counters: Counters = Counters()

    def features(self, hardware: Features) -> Features:
        """What the guest's own walk depends on: hardware checks reserved bits with the pCPU's MAXPHYADDR."""
        return msgspec.structs.replace(hardware, page1gb=hardware.page1gb and self.cpuid.page1gb)


class Vm(msgspec.Struct, frozen=True):
    """``roots``: live roots, shared by the vCPUs whose role they match. ``generation``: of the memslots."""

    index: int
    slots: tuple[Memslot, ...] = ()
    vcpus: tuple[Vcpu, ...] = ()
    roots: tuple[Root, ...] = ()
    generation: int = 0

    def with_vcpu(self, vcpu: Vcpu) -> "Vm":
        return msgspec.structs.replace(self, vcpus=tuple(vcpu if v.index == vcpu.index else v for v in self.vcpus))

    def with_slot(self, slot: Memslot) -> "Vm":
        return msgspec.structs.replace(self, slots=tuple(slot if s.id == slot.id else s for s in self.slots))
