"""What differs between kernel versions, as data. Everything else of `engine.kvm` is the same code for all.

Functions are called by the names they have in the newest tree. Sources: the kernel trees and patches named in each row
(reference page, sections 0.2, 1.3, 1.7, 3.1, 5.3, 5.5 and 6).
"""

from enum import Enum

import msgspec


class LevelSource(Enum):
    """Where kvm_amd takes its NPT depth from (svm.c)."""

    CONSTANT_4 = "get_max_npt_level(): the constant 4"
    CR4_PER_CALL = "svm_get_npt_level(): CR4 of the running pCPU, at every MMU initialisation"
    CR4_AT_LOAD = "get_max_npt_level(): CR4 of the pCPU that loads the module"
    KERNEL = "get_npt_level(): pgtable_l5_enabled(), the kernel's own depth"


class Spurious(Enum):
    """When a fault on a present leaf counts as spurious in the TDP MMU."""

    EQUAL = "the new SPTE equals the old one"
    ALLOWED = "the present SPTE already allows the access"


class Bug(Enum):
    """Faults that kernels of a label had before they were mended; they concern nested guests with 32-bit hosts."""

    SPECIAL_ROOTS = "mmu_alloc_special_roots() asks for a pml5_root on a 4-level host too: -EIO"
    WALK_START = "software walks of a 5-level root start in the special tables"


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One version (or series).

    ``forced``: the NPT level is forced for every vCPU (tdp_forced_root_level). ``refuses_5level``: has_svm() fails on a
    5-level kernel. ``ret_pf``: the enumeration's names in order, from 0. ``mmu_present``: SPTEs carry bit 11.
    ``software``, ``ept_software``: the bits of host-writable and MMU-writable. ``suppress_ve``: bit 63 is part of EPT's
    present mask and of every absent SPTE. ``mmio_mark``: bits that mark an MMIO SPTE beside the value that hardware
    stops at. ``generation``: the parts of a memslot generation in an MMIO SPTE, (bits, lowest bit) each, lowest first.
    ``guest_role``: a direct root's role follows the guest's CR0 and EFER, so that a guest's change of mode makes a new
    root. ``role_bit4``: what bit 4 of a role word is for 8-byte entries. ``ad_masks``: EPT SPTEs carry A and D also
    where hardware does not use them. ``splits``: a larger page in the way of a smaller is split, not dropped.
    ``eager_split``: dirty logging splits all large pages at once. ``checks_level``: a table whose role has another
    level than the walk is a WARN and a retry. ``pf_counters``: pf_taken, pf_emulate, pf_spurious, pf_fast and
    pf_mmio_spte_created exist. ``keeps_error_code_high``: bits 63:32 of EXITINFO1 reach the fault handlers.
    ``guest_phys_bits``: user space is told how many GPA bits the TDP level can map.
    """

    key: str
    label: str
    released: str
    level_source: LevelSource
    forced: bool
    refuses_5level: bool = False
    ret_pf: tuple[str, ...]
    mmu_present: bool = True
    software: tuple[int, int] = (9, 10)
    ept_software: tuple[int, int] = (57, 58)
    suppress_ve: bool = False
    mmio_mark: int = 0
    generation: tuple[tuple[int, int], ...] = ((8, 3), (11, 52))
    guest_role: bool = True
    role_bit4: int = 1
    ad_masks: bool = False
    spurious: Spurious = Spurious.EQUAL
    tdp_mmu_default: bool = True
    splits: bool = False
    eager_split: bool = False
    checks_level: bool = False
    pf_counters: bool = True
    keeps_error_code_high: bool = False
    guest_phys_bits: bool = False
    passthrough: bool = False
    switches: tuple[Bug, ...] = ()
    """Bugs that `Parameters.bugs` may turn on."""
    note: str = ""


_OLD_RET = ("RETRY", "EMULATE", "INVALID", "FIXED", "SPURIOUS")
_MID_RET = ("CONTINUE", "RETRY", "EMULATE", "INVALID", "FIXED", "SPURIOUS")
_NEW_RET = ("CONTINUE", "RETRY", "EMULATE", "WRITE_PROTECTED", "INVALID", "FIXED", "SPURIOUS")


_LATEST = Kernel(
    key="latest", label="Linux 7.0-era", released="2026",
    level_source=LevelSource.KERNEL, forced=True, ret_pf=_NEW_RET, suppress_ve=True, guest_role=False, role_bit4=0,
    ad_masks=True, spurious=Spurious.ALLOWED, splits=True, eager_split=True, checks_level=True,
    keeps_error_code_high=True, guest_phys_bits=True, passthrough=True, note="the newest tree that was read",
)  # fmt: skip

KERNELS: dict[str, Kernel] = {
    kernel.key: kernel
    for kernel in (
        Kernel(
            key="5.12", label="Linux 5.12 and before", released="up to April 2021",
            level_source=LevelSource.CONSTANT_4, forced=False, ret_pf=_OLD_RET, mmu_present=False,
            software=(10, 11), ept_software=(10, 11), mmio_mark=0b11 << 52, generation=((9, 3), (9, 54)),
            tdp_mmu_default=False, pf_counters=False,
            note="assumes a 4-level NPT and does not look at the host's mode",
        ),
        Kernel(
            key="5.13", label="Linux 5.13 and 5.14", released="June 2021",
            level_source=LevelSource.CONSTANT_4, forced=False, refuses_5level=True, ret_pf=_OLD_RET,
            tdp_mmu_default=False, pf_counters=False, note="kvm_amd refuses to load on a 5-level kernel",
        ),
        Kernel(
            key="series-v1", label="the series, version 1", released="August 2021, not merged",
            level_source=LevelSource.CR4_PER_CALL, forced=False, ret_pf=_OLD_RET, pf_counters=False,
            note="a vendor hook reads CR4 of the running pCPU at every call",
        ),
        Kernel(
            key="series-v2", label="the series, version 2", released="August 2021, not merged",
            level_source=LevelSource.CR4_AT_LOAD, forced=True, ret_pf=_OLD_RET, pf_counters=False,
            note="CR4 of the loading pCPU is read once",
        ),
        Kernel(
            key="5.15", label="Linux 5.15 to 5.18", released="October 2021",
            level_source=LevelSource.KERNEL, forced=True, ret_pf=_OLD_RET, pf_counters=False,
            switches=(Bug.SPECIAL_ROOTS, Bug.WALK_START), note="the series as merged: the host's depth is forced",
        ),
        Kernel(
            key="5.19", label="Linux 5.19 to 6.x", released="July 2022",
            level_source=LevelSource.KERNEL, forced=True, ret_pf=_MID_RET, guest_role=False, role_bit4=0,
            eager_split=True, checks_level=True, passthrough=True, note="role.passthrough; RET_PF_CONTINUE",
        ),
        _LATEST,
        msgspec.structs.replace(
            _LATEST, key="unforced", label="counterfactual: 5 levels, not forced", released="never", forced=False,
            note="what the patch prevents: a guest with MAXPHYADDR <= 48 gets a 4-level NPT on a 5-level host",
        ),
    )
}  # fmt: skip
LATEST = "latest"
