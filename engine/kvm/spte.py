"""KVM's own page-table entries (SPTEs): which bits it uses in the formats that hardware defines.

Sources: arch/x86/kvm/mmu/spte.h and spte.c: make_spte(), make_nonleaf_spte(), make_mmio_spte(),
kvm_mmu_reset_all_pte_masks(), kvm_mmu_set_ept_masks() (reference page, sections 1.7 and 6).
"""

import msgspec

from engine.arch.bits import bit, mask
from engine.kvm.kernels import Kernel

ADDRESS = mask(51, 12)
PS = bit(7)
NX = bit(63)
EPT_WRITE_BACK = 6 << 3
EPT_IPAT = bit(6)
AD_DISABLED = 1 << 52
"""SPTE_TDP_AD_DISABLED: the tree was built without A/D flags."""


class SpteFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The masks captured at load. A leaf or table SPTE has ``present``; ``user`` is U/S (NPT) or R (EPT).

    ``software``: what marks an SPTE as KVM's own (bit 11). ``absent``: the value of an SPTE that maps nothing.
    ``mmio_value``/``mmio_mask``: what an MMIO SPTE looks like; both 0 where none are made.
    """

    present: int
    user: int
    write: int
    execute: int
    no_execute: int
    accessed: int
    dirty: int
    memory_type: int
    host_writable: int
    mmu_writable: int
    software: int
    absent: int
    mmio_value: int
    mmio_mask: int
    tree_flags: int
    hardware_present: int
    """The bits by any of which hardware takes the entry for present."""

    def is_mmio(self, spte: int) -> bool:
        return bool(self.mmio_mask) and spte & self.mmio_mask == self.mmio_value

    def is_present(self, spte: int) -> bool:
        """is_shadow_present_pte(): before bit 11 existed, not zero and not MMIO."""
        if self.software:
            return bool(spte & self.software)
        return spte != self.absent and not self.is_mmio(spte)

    def is_leaf(self, spte: int, level: int) -> bool:
        """is_last_spte()."""
        return level == 1 or bool(spte & PS)

    def is_writable(self, spte: int) -> bool:
        return bool(spte & self.write)

    def is_executable(self, spte: int) -> bool:
        return bool(spte & self.execute) if self.execute else not spte & self.no_execute

    def allows(self, spte: int, write: bool, fetch: bool) -> bool:
        """is_access_allowed()."""
        return (not write or self.is_writable(spte)) and (not fetch or self.is_executable(spte))

    def table(self, address: int) -> int:
        """make_nonleaf_spte(): tables are writable and user; the rights are in the leaves."""
        entry = self.present | self.user | self.write | self.execute | self.accessed | self.software | self.tree_flags
        return address | entry

    def leaf(self, address: int, level: int, *, host_writable: bool, writable: bool, executable: bool) -> int:
        """make_spte() for a page of ``level`` at ``address``. ``writable`` needs ``host_writable``."""
        spte = address | self.present | self.user | self.accessed | self.software | self.memory_type | self.tree_flags
        spte |= self.execute if executable else self.no_execute
        if level > 1:
            spte |= PS
        if host_writable:
            spte |= self.host_writable
        if host_writable:
            spte |= self.mmu_writable
        if host_writable and writable:
            spte |= self.write | self.dirty
        return spte

    def mmio(self, gfn: int, generation: int, low_rights: int) -> int:
        """make_mmio_spte(): the generation's bits 7:0 at 10:3 and 18:8 at 62:52, the frame in between."""
        return (
            self.mmio_value
            | low_rights
            | (generation & 0xFF) << 3
            | (generation >> 8 & 0x7FF) << 52
            | (gfn << 12 & mask(50, 12))
        )


def npt_format(kernel: Kernel, maxphyaddr: int, mmio_caching: bool) -> SpteFormat:
    """The legacy masks, which NPT uses. The MMIO mark is P and bit 51, which must not be a real address bit."""
    host, mmu = kernel.software
    mmio = bit(51) | bit(0) if mmio_caching and maxphyaddr < 52 else 0
    return SpteFormat(
        present=bit(0), user=bit(2), write=bit(1), execute=0, no_execute=NX, accessed=bit(5), dirty=bit(6),
        memory_type=0, host_writable=bit(host), mmu_writable=bit(mmu), software=bit(11) if kernel.mmu_present else 0,
        absent=NX if kernel.suppress_ve else 0, mmio_value=mmio, mmio_mask=mmio, tree_flags=0, hardware_present=bit(0),
    )  # fmt: skip


def ept_format(kernel: Kernel, ad: bool, execute_only: bool, mmio_caching: bool) -> SpteFormat:
    """EPT's masks. An MMIO SPTE is writable but not readable, which hardware calls a misconfiguration."""
    host, mmu = kernel.ept_software
    suppress = bit(63) if kernel.suppress_ve else 0
    mmio = 0b110 | suppress if mmio_caching else 0
    return SpteFormat(
        present=(0 if execute_only else bit(0)) | suppress, user=bit(0), write=bit(1), execute=bit(2), no_execute=0,
        accessed=bit(8) if ad else 0, dirty=bit(9) if ad else 0, memory_type=EPT_WRITE_BACK | EPT_IPAT,
        host_writable=bit(host), mmu_writable=bit(mmu), software=bit(11) if kernel.mmu_present else 0,
        absent=suppress, mmio_value=mmio, mmio_mask=0b111 | suppress if mmio else 0,
        tree_flags=0 if ad else AD_DISABLED, hardware_present=0b111,
    )  # fmt: skip
