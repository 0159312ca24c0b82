"""What differs between kernel versions, as data. Everything else of `engine.kvm` is the same code for all.

Sources: the kernel trees and patches named in each row (reference page, sections 0.2, 1.3, 5.3, 6).
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


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One version (or series). ``forced``: the NPT level is forced for every vCPU (tdp_forced_root_level).

    ``refuses_5level``: has_svm() fails on a 5-level kernel. ``ret_pf``: the enumeration's names in order, from 0.
    ``mmu_present``: SPTEs carry bit 11. ``software``, ``ept_software``: the bits of host-writable and MMU-writable.
    ``suppress_ve``: bit 63 is part of EPT's present mask and of every absent SPTE.
    ``write_protected``: RET_PF_WRITE_PROTECTED exists.
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
    spurious: Spurious = Spurious.EQUAL
    tdp_mmu_default: bool = True
    keeps_error_code_high: bool = False
    """Bits 63:32 of EXITINFO1 reach the fault handlers (from v6.10)."""
    passthrough: bool = False
    special_roots_bug: bool = False
    walk_start_bug: bool = False
    note: str = ""


_OLD_RET = ("RETRY", "EMULATE", "INVALID", "FIXED", "SPURIOUS")
_MID_RET = ("CONTINUE", "RETRY", "EMULATE", "INVALID", "FIXED", "SPURIOUS")
_NEW_RET = ("CONTINUE", "RETRY", "EMULATE", "WRITE_PROTECTED", "INVALID", "FIXED", "SPURIOUS")

KERNELS: dict[str, Kernel] = {
    kernel.key: kernel
    for kernel in (
        Kernel(
            key="5.12", label="Linux 5.12 and before", released="up to April 2021",
            level_source=LevelSource.CONSTANT_4, forced=False, ret_pf=_OLD_RET, mmu_present=False,
            software=(10, 11), ept_software=(10, 11), tdp_mmu_default=False,
            note="assumes a 4-level NPT and does not look at the host's mode",
        ),
        Kernel(
            key="5.13", label="Linux 5.13 and 5.14", released="June 2021",
            level_source=LevelSource.CONSTANT_4, forced=False, refuses_5level=True, ret_pf=_OLD_RET,
            tdp_mmu_default=False, note="kvm_amd refuses to load on a 5-level kernel",
        ),
        Kernel(
            key="series-v1", label="the series, version 1", released="August 2021, not merged",
            level_source=LevelSource.CR4_PER_CALL, forced=False, ret_pf=_OLD_RET,
            note="a vendor hook reads CR4 of the running pCPU at every call",
        ),
        Kernel(
            key="series-v2", label="the series, version 2", released="August 2021, not merged",
            level_source=LevelSource.CR4_AT_LOAD, forced=True, ret_pf=_OLD_RET,
            note="CR4 of the loading pCPU is read once",
        ),
        Kernel(
            key="5.15", label="Linux 5.15 to 5.18", released="October 2021",
            level_source=LevelSource.KERNEL, forced=True, ret_pf=_OLD_RET, special_roots_bug=True, walk_start_bug=True,
            note="the series as merged: the host's depth is forced",
        ),
        Kernel(
            key="5.19", label="Linux 5.19 to 6.x", released="July 2022",
            level_source=LevelSource.KERNEL, forced=True, ret_pf=_MID_RET, passthrough=True,
            note="role.passthrough; RET_PF_CONTINUE",
        ),
        Kernel(
            key="latest", label="Linux 7.0-era", released="2026",
            level_source=LevelSource.KERNEL, forced=True, ret_pf=_NEW_RET, suppress_ve=True,
            spurious=Spurious.ALLOWED, keeps_error_code_high=True, passthrough=True,
            note="the newest tree that was read",
        ),
        Kernel(
            key="unforced", label="counterfactual: 5 levels, not forced", released="never",
            level_source=LevelSource.KERNEL, forced=False, ret_pf=_NEW_RET, suppress_ve=True,
            spurious=Spurious.ALLOWED, keeps_error_code_high=True, passthrough=True,
            note="what the patch prevents: a guest with MAXPHYADDR <= 48 gets a 4-level NPT on a 5-level host",
        ),
    )
}  # fmt: skip
LATEST = "latest"
