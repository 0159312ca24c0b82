"""VMs and vCPUs as KVM keeps them: slots, roles, roots, counters. Values; every change gives the next one.

Sources: arch/x86/include/asm/kvm_host.h: struct kvm, struct kvm_vcpu_arch, union kvm_mmu_page_role.
"""

from collections.abc import Collection
from enum import Enum

import msgspec

from engine.arch.registers import Registers
from engine.arch.second_stage import Kind2
from engine.kvm.memslots import Memslot
from engine.kvm.role import Role
from engine.kvm.shadow_pages import EMPTY, MmuStats, ShadowPages

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


class Root(msgspec.Struct, frozen=True):
    """The root of KVM's tables: its byte address in host memory and its role, whose level is fixed for its life.

    ``pgd``: what it mirrors: the guest's CR3, or nCR3 or EPTP of a nested hypervisor; 0 for direct tables.
    ``special``: it is one of the vCPU's special roots, which have no record and no role of their own. ``dummy``: what
    it would mirror is in no memslot, so it stays empty (kvm_mmu_get_dummy_root()).
    """

    hpa: int
    role: Role
    pgd: int = 0
    special: bool = False
    dummy: bool = False


class SpecialRoots(msgspec.Struct, frozen=True):
    """Tables that belong to an MMU, not to a guest's frame (reference page, 4.1): their byte addresses, 0 for none.

    They stand in for levels that the guest's tables lack: four PDPTEs, and above them one entry a level.
    """

    pae_root: int = 0
    pml4_root: int = 0
    pml5_root: int = 0

    @property
    def tables(self) -> tuple[int, ...]:
        return tuple(at for at in (self.pae_root, self.pml4_root, self.pml5_root) if at)


class Mmu(msgspec.Struct, frozen=True):
    """struct kvm_mmu, as far as it has a state: role of its root, the root that is loaded, roots it had before."""

    role: Role
    root: Root | None = None
    previous: tuple[Root, ...] = ()
    special: SpecialRoots = SpecialRoots()

    def without(self, gone: Collection[Root]) -> "Mmu":
        root = None if self.root in gone else self.root
        return msgspec.structs.replace(self, root=root, previous=tuple(r for r in self.previous if r not in gone))

    def without_roots(self) -> "Mmu":
        return msgspec.structs.replace(self, root=None, previous=())


PREVIOUS_ROOTS = 3
"""KVM_MMU_NUM_PREV_ROOTS."""


class NestedPaging(Enum):
    """How a guest hypervisor (L1) translates for its guest (L2)."""

    NPT = "NPT"
    EPT = "EPT"
    NONE = "none"
    """L1 mirrors its guest's tables itself: what L2 runs on is a table of L1's."""


class Nested(msgspec.Struct, frozen=True):
    """A nested guest runs on a vCPU. ``l1``: the registers that its hypervisor had at VMRUN or VM entry, which its own
    paging mode is read from. ``root``: nCR3 or EPTP of the hypervisor, L1-physical; 0 without nested paging."""

    l1: Registers
    paging: NestedPaging
    root: int = 0


class NestedModule(msgspec.Struct, frozen=True):
    """The hypervisor inside a VM, as its own module initialisation left it.

    ``captured``: the format that it builds its guest's tables in (a key of `machine.guest.FORMATS`); ``vcpu``: whose
    mode that was; ``root``: the top table, and ``free``: where its next table goes, L1-physical byte addresses.
    """

    kind: Kind2
    captured: str
    vcpu: int
    root: int
    free: int


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
    """The vCPU's MMIO cache: the last guest frame that was MMIO, and the memslot generation then.

    ``page``: where KVM mirrors the guest's own tables, the linear address of the page that led there; None elsewhere.
    """

    gfn: int
    generation: int
    page: int | None = None


class Vcpu(msgspec.Struct, frozen=True):
    """``registers``: of what runs, a nested guest's while one does (``nested``).

    ``role``: of the root that its MMU uses, worked out when the MMU was last initialised; on series v1 with CR4 of
    the pCPU that did it. ``root`` None: no root is loaded. ``previous``, ``special``: as in `Mmu`; ``parked``: the
    other MMU, which is not in use now: that for nested guests (guest_mmu), or, while one runs, the vCPU's own
    (root_mmu). ``rip`` is not modelled: an access says its address.
    """

    index: int
    pcpu: int
    cpuid: GuestCpu
    registers: Registers
    role: Role
    root: Root | None = None
    mmio: MmioInfo | None = None
    counters: Counters = Counters()
    previous: tuple[Root, ...] = ()
    special: SpecialRoots = SpecialRoots()
    parked: Mmu | None = None
    nested: Nested | None = None

    @property
    def mmu(self) -> Mmu:
        """The MMU in use (arch.mmu)."""
        return Mmu(self.role, self.root, self.previous, self.special)

    def with_mmu(self, mmu: Mmu) -> "Vcpu":
        return msgspec.structs.replace(
            self, role=mmu.role, root=mmu.root, previous=mmu.previous, special=mmu.special
        )

    @property
    def all_special(self) -> tuple[int, ...]:
        """The special roots of both MMUs, byte addresses."""
        return (*self.special.tables, *(self.parked.special.tables if self.parked else ()))

    def without(self, gone: Collection[Root]) -> "Vcpu":
        """These roots are let go, in use or not."""
        parked = self.parked.without(gone) if self.parked else None
        return msgspec.structs.replace(self.with_mmu(self.mmu.without(gone)), parked=parked)

    def without_roots(self) -> "Vcpu":
        parked = self.parked.without_roots() if self.parked else None
        return msgspec.structs.replace(self.with_mmu(self.mmu.without_roots()), parked=parked)


class Vm(msgspec.Struct, frozen=True):
    """``roots``: live roots, shared by the vCPUs whose role they match. ``generation``: of the memslots.

    ``no_huge``: tables (byte addresses) that nx_huge_pages wanted in place of a large page
    (sp->nx_huge_page_disallowed). ``shadow``: the tables that mirror a guest's. ``nested``: the hypervisor inside it,
    if it has one. ``retried``: the guest frame whose mirrors were dropped last, so that its tables could be walked
    (last_retry_addr). ``dead``: why the VM does nothing any more; '' while it lives.
    """

    index: int
    slots: tuple[Memslot, ...] = ()
    vcpus: tuple[Vcpu, ...] = ()
    roots: tuple[Root, ...] = ()
    generation: int = 0
    no_huge: frozenset[int] = frozenset()
    shadow: ShadowPages = EMPTY
    stats: MmuStats = MmuStats()
    nested: NestedModule | None = None
    retried: int | None = None
    dead: str = ""

    def with_vcpu(self, vcpu: Vcpu) -> "Vm":
        return msgspec.structs.replace(self, vcpus=tuple(vcpu if v.index == vcpu.index else v for v in self.vcpus))

    def with_slot(self, slot: Memslot) -> "Vm":
        return msgspec.structs.replace(self, slots=tuple(slot if s.id == slot.id else s for s in self.slots))
