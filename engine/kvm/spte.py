"""KVM's own page-table entries (SPTEs): which bits it uses in the formats that hardware defines.

Sources: arch/x86/kvm/mmu/spte.h and spte.c: make_spte(), make_nonleaf_spte(), make_mmio_spte(),
kvm_mmu_reset_all_pte_masks(), kvm_mmu_set_ept_masks() (reference page, sections 1.7 and 6). No pCPU here is affected by
L1TF or encrypts memory, so shadow_nonpresent_or_rsvd_mask and shadow_me_mask are 0.
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
TRACKED = 0b111
"""shadow_acc_track_mask: R, W and X of EPT, taken away to learn of the next access where there is no A flag."""
SAVED = 0b101
"""R and X, which are saved 54 bits higher meanwhile (SHADOW_ACC_TRACK_SAVED_BITS_MASK)."""
SAVED_SHIFT = 54


class SpteFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The masks captured at load. A leaf or table SPTE has ``present``; ``user`` is U/S (legacy) or R (EPT).

    ``software``: what marks an SPTE as KVM's own (bit 11). ``absent``: the value of an SPTE that maps nothing.
    ``mmio_value``/``mmio_mask``: what an MMIO SPTE looks like; both 0 where none are made. ``mmio_access``: the rights
    that it records. ``generation``: as in `Kernel`. ``tree_flags``: what marks SPTEs of a tree without A/D flags.
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
    mmio_access: int
    generation: tuple[tuple[int, int], ...]
    tree_flags: int

    # --- reading

    def is_mmio(self, spte: int) -> bool:
        return bool(self.mmio_mask) and spte & self.mmio_mask == self.mmio_value & self.mmio_mask

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

    def is_tracked(self, spte: int) -> bool:
        """is_access_track_spte()."""
        return bool(spte & AD_DISABLED) and not spte & TRACKED

    def allows(self, spte: int, write: bool, fetch: bool) -> bool:
        """is_access_allowed()."""
        if fetch:
            return self.is_executable(spte)
        return self.is_writable(spte) if write else bool(spte & bit(0))

    def generation_of(self, mmio_spte: int) -> int:
        """The memslot generation that an MMIO SPTE was made in, as far as it has room for it."""
        value = shift = 0
        for bits, low in self.generation:
            value |= (mmio_spte >> low & (1 << bits) - 1) << shift
            shift += bits
        return value

    @property
    def generation_mask(self) -> int:
        return (1 << sum(bits for bits, _ in self.generation)) - 1

    # --- making

    def table(self, address: int) -> int:
        """make_nonleaf_spte(): tables are writable and user; the rights are in the leaves."""
        flags = self.tree_flags or self.accessed
        return address | self.present | self.user | self.write | self.execute | flags | self.software

    def leaf(
        self, address: int, level: int, *, host_writable: bool, writable: bool, executable: bool, user: bool = True,
        prefetched: bool = False,
    ) -> int:
        """make_spte() for a page of ``level`` at ``address``. ``writable`` needs ``host_writable``.

        ``prefetched``: nobody has asked for it yet, so it is not accessed.
        """
        spte = address | self.present | self.software | self.memory_type | self.tree_flags
        spte |= self.execute if executable else self.no_execute
        spte |= self.user if user else 0
        spte |= 0 if prefetched else self.accessed
        if level > 1:
            spte |= PS
        if host_writable:
            spte |= self.host_writable
        if host_writable and writable:
            spte |= self.mmu_writable | self.write | self.dirty
        return spte

    def without_flags(self, keeps_masks: bool) -> "SpteFormat":
        """The format of a tree in which hardware sets no A and D; ``keeps_masks``: `Kernel.ad_masks`."""
        if self.tree_flags:
            return self
        bare = msgspec.structs.replace(self, tree_flags=AD_DISABLED)
        return bare if keeps_masks else msgspec.structs.replace(bare, accessed=0, dirty=0)

    def mmio(self, gfn: int, generation: int, access: int = 0b110) -> int:
        """make_mmio_spte(). ``access``: the rights (ACC_*) by the guest's tables."""
        spte = self.mmio_value | access & self.mmio_access | gfn << 12 & ADDRESS
        for bits, low in self.generation:
            spte |= (generation & (1 << bits) - 1) << low
            generation >>= bits
        return spte

    def part(self, spte: int, level: int, *, executable: bool) -> int:
        """make_small_spte(): the SPTE of ``level`` for the first part of the page that ``spte`` maps one level up.

        ``executable``: a 4-KiB part may be fetched from, whatever the larger page said.
        """
        if level > 1:
            return spte
        small = spte & ~PS
        return small & ~self.no_execute | self.execute if executable else small

    # --- access tracking

    def aged(self, spte: int) -> int:
        """The SPTE marked as not accessed: without A, or, where there is no A, without any right
        (mark_spte_for_access_track())."""
        if not self.tree_flags:
            return spte & ~self.accessed
        if self.is_tracked(spte):
            return spte
        return spte & ~TRACKED | (spte & SAVED) << SAVED_SHIFT

    def restored(self, spte: int) -> int:
        """The SPTE with the rights that tracking took (restore_acc_track_spte()); W comes back with a write."""
        saved = spte >> SAVED_SHIFT & SAVED
        return spte & ~(TRACKED | SAVED << SAVED_SHIFT) | saved | self.accessed


def legacy_format(kernel: Kernel, maxphyaddr: int, mmio_caching: bool) -> SpteFormat:
    """The legacy masks, which NPT and shadow paging use. The MMIO mark is P and bit 51, which must not be a real
    address bit.

    Where it is one, kernels with a mark of their own (``mmio_mark``) still make MMIO SPTEs, not present to hardware.
    """
    host, mmu = kernel.software
    stops = bit(51) | bit(0) if maxphyaddr < 52 else 0
    mmio = (stops | kernel.mmio_mark) if mmio_caching else 0
    return SpteFormat(
        present=bit(0), user=bit(2), write=bit(1), execute=0, no_execute=NX, accessed=bit(5), dirty=bit(6),
        memory_type=0, host_writable=bit(host), mmu_writable=bit(mmu), software=bit(11) if kernel.mmu_present else 0,
        absent=NX if kernel.suppress_ve else 0, mmio_value=mmio, mmio_mask=(kernel.mmio_mark or mmio) if mmio else 0,
        mmio_access=0b110 if mmio else 0, generation=kernel.generation, tree_flags=0,
    )  # fmt: skip


def ept_format(kernel: Kernel, ad: bool, execute_only: bool, mmio_caching: bool) -> SpteFormat:
    """EPT's masks. An MMIO SPTE is writable but not readable, which hardware calls a misconfiguration."""
    host, mmu = kernel.ept_software
    suppress = bit(63) if kernel.suppress_ve else 0
    flags = ad or kernel.ad_masks
    mmio = 0b110 | suppress | kernel.mmio_mark if mmio_caching else 0
    return SpteFormat(
        present=(0 if execute_only else bit(0)) | suppress, user=bit(0), write=bit(1), execute=bit(2), no_execute=0,
        accessed=bit(8) if flags else 0, dirty=bit(9) if flags else 0, memory_type=EPT_WRITE_BACK | EPT_IPAT,
        host_writable=bit(host), mmu_writable=bit(mmu), software=bit(11) if kernel.mmu_present else 0,
        absent=suppress, mmio_value=mmio, mmio_mask=(kernel.mmio_mark or (0b111 | suppress)) if mmio else 0,
        mmio_access=0, generation=kernel.generation, tree_flags=0 if ad else AD_DISABLED,
    )  # fmt: skip
