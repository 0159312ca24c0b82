"""VMs and vCPUs as KVM keeps them: slots, roles, roots, counters. Values; every change gives the next one.

Sources: arch/x86/include/asm/kvm_host.h: struct kvm, struct kvm_vcpu_arch, union kvm_mmu_page_role.
"""

import msgspec

from engine.arch.bits import bit
from engine.arch.registers import CR0, EFER, Registers
from engine.kvm.kernels import Kernel
from engine.kvm.memslots import Memslot

RESET = Registers(cr0=0x6000_0010)
"""A processor after reset (SDM vol. 3A, 10.1.1): real mode, the first fetch at guest-physical FFFF_FFF0h."""


class GuestCpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The CPUID that the VMM gives a vCPU, as far as translation depends on it. ``maxphyaddr`` in bits."""

    maxphyaddr: int = 48
    la57: bool = True
    page1gb: bool = True

    def __post_init__(self) -> None:
        if not 32 <= self.maxphyaddr <= 52:
            raise ValueError(f"the guest's MAXPHYADDR is {self.maxphyaddr}; it must be 32 .. 52")


class Role(msgspec.Struct, frozen=True):
    """union kvm_mmu_page_role of a direct MMU page (reference page, 3.1): what of it differs between roots.

    ``bit4``: gpte_is_8_bytes up to 5.16, has_4_byte_gpte (0 here) from 5.17 on.
    """

    level: int
    bit4: int = 0
    efer_nx: bool = True
    cr0_wp: bool = True
    ad_disabled: bool = False

    @property
    def word(self) -> int:
        """The role word: level 3:0, bit 4, direct 7, access 10:8, efer_nx 12, cr0_wp 13, ad_disabled 16."""
        word = self.level | self.bit4 << 4 | bit(7) | 0b111 << 8
        return word | self.efer_nx * bit(12) | self.cr0_wp * bit(13) | self.ad_disabled * bit(16)


def direct_role(kernel: Kernel, level: int, registers: Registers, *, ad: bool) -> Role:
    """kvm_calc_tdp_mmu_root_page_role(): up to 5.18 it follows the EFER.NX and CR0.WP of a guest with paging."""
    if not kernel.guest_role:
        return Role(level, kernel.role_bit4, ad_disabled=not ad)
    paging = bool(registers.cr0 & CR0.PG)
    nx, wp = paging and bool(registers.efer & EFER.NXE), paging and bool(registers.cr0 & CR0.WP)
    return Role(level, kernel.role_bit4, efer_nx=nx, cr0_wp=wp, ad_disabled=not ad)


class Root(msgspec.Struct, frozen=True):
    """A root of direct tables: its byte address in host memory and its role, whose level is fixed for its life."""

    hpa: int
    role: Role


class Counters(msgspec.Struct, frozen=True):
    """Statistics of a vCPU, by their names in debugfs. Those that a kernel does not have stay 0."""

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


LATER_COUNTERS = frozenset({"pf_taken", "pf_emulate", "pf_spurious", "pf_fast", "pf_mmio_spte_created"})
"""Counters that came with 5.19."""


class MmioInfo(msgspec.Struct, frozen=True):
    """The vCPU's MMIO cache: the last guest frame that was MMIO, and the memslot generation then."""

    gfn: int
    generation: int


class Vcpu(msgspec.Struct, frozen=True):
    """``role``: of the root that its MMU uses, worked out when the MMU was last initialised; on series v1 with CR4 of
    the pCPU that did it. ``root`` None: no root is loaded. ``rip`` is not modelled: an access says its address."""

    index: int
    pcpu: int
    cpuid: GuestCpu
    registers: Registers
    role: Role
    root: Root | None = None
    mmio: MmioInfo | None = None
    counters: Counters = Counters()


class Vm(msgspec.Struct, frozen=True):
    """``roots``: live roots, shared by the vCPUs whose role they match. ``generation``: of the memslots.

    ``no_huge``: tables (byte addresses) that nx_huge_pages wanted in place of a large page
    (sp->nx_huge_page_disallowed). ``dead``: why the VM does nothing any more; '' while it lives.
    """

    index: int
    slots: tuple[Memslot, ...] = ()
    vcpus: tuple[Vcpu, ...] = ()
    roots: tuple[Root, ...] = ()
    generation: int = 0
    no_huge: frozenset[int] = frozenset()
    dead: str = ""

    def with_vcpu(self, vcpu: Vcpu) -> "Vm":
        return msgspec.structs.replace(self, vcpus=tuple(vcpu if v.index == vcpu.index else v for v in self.vcpus))

    def with_slot(self, slot: Memslot) -> "Vm":
        return msgspec.structs.replace(self, slots=tuple(slot if s.id == slot.id else s for s in self.slots))
