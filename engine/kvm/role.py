"""union kvm_mmu_page_role: what a table of KVM's is for, in one word (reference page, 3.1 - 3.4).

A table that mirrors a guest's is found again by its guest frame and this word, so two tables of one guest frame with
different words stand side by side. Sources: asm/kvm_host.h, kvm_calc_cpu_role(), kvm_init_shadow_npt_mmu(),
kvm_init_shadow_ept_mmu(), kvm_mmu_child_role() (mmu.c).
"""

import msgspec

from engine.arch.bits import bit
from engine.arch.registers import CR0, CR4, EFER, Mode, Registers
from engine.kvm.kernels import Kernel

ACC_EXEC, ACC_WRITE, ACC_USER = bit(0), bit(1), bit(2)
ACC_ALL = ACC_EXEC | ACC_WRITE | ACC_USER

PAE_LEVEL = 3
"""PT32E_ROOT_LEVEL: the depth of PAE tables, the least that KVM's own tables have."""
LEVELS = {Mode.NONE: 0, Mode.LEGACY: 2, Mode.PAE: PAE_LEVEL, Mode.LEVEL4: 4, Mode.LEVEL5: 5}
"""cpu_role.base.level: how deep a guest's tables are, by its paging mode."""


class RoleField(msgspec.Struct, frozen=True):
    """Bits ``hi`` .. ``lo`` of the role word; ``means``: what they say."""

    name: str
    hi: int
    lo: int
    means: str


ROLE_FIELDS = (
    RoleField("level", 3, 0, "the level of this table"),
    RoleField("bit4", 4, 4, "the size of the guest's entries: 1 for 4 bytes, up to 5.16 for 8 bytes"),
    RoleField("quadrant", 6, 5, "which part of a 32-bit guest's table this one mirrors"),
    RoleField("direct", 7, 7, "no guest table is behind it"),
    RoleField("access", 10, 8, "rights that the guest's entries above leave: 1 execute, 2 write, 4 user"),
    RoleField("invalid", 11, 11, "zapped, and only kept for whoever uses it as a root"),
    RoleField("efer_nx", 12, 12, "bit 63 of an entry is no-execute"),
    RoleField("cr0_wp", 13, 13, "CR0.WP of the guest"),
    RoleField("smep_andnot_wp", 14, 14, "CR4.SMEP while CR0.WP = 0"),
    RoleField("smap_andnot_wp", 15, 15, "CR4.SMAP while CR0.WP = 0"),
    RoleField("ad_disabled", 16, 16, "hardware sets no A and D here"),
    RoleField("guest_mode", 17, 17, "for a nested guest"),
    RoleField("passthrough", 18, 18, "a level that the nested guest's hypervisor does not have"),
    RoleField("smm", 31, 24, "the address space: 0 outside system-management mode"),
)
"""From bit 0 up; the others are not used."""


class Role(msgspec.Struct, frozen=True):
    """What of the word is modelled; ``invalid`` and ``smm`` are 0 here. ``bit4``: gpte_is_8_bytes up to 5.16,
    has_4_byte_gpte from 5.17 on (see `is_four_byte`)."""

    level: int
    bit4: int = 0
    efer_nx: bool = True
    cr0_wp: bool = True
    ad_disabled: bool = False
    quadrant: int = 0
    direct: bool = True
    access: int = ACC_ALL
    smep_andnot_wp: bool = False
    smap_andnot_wp: bool = False
    guest_mode: bool = False
    passthrough: bool = False

    @property
    def word(self) -> int:
        """The role word, 32 bits."""
        return sum(int(getattr(self, f.name, 0)) << f.lo for f in ROLE_FIELDS)

    @property
    def has_gptes(self) -> bool:
        """sp_has_gptes(): a guest's table is behind it, entry for entry."""
        return not self.direct and not self.passthrough


def is_four_byte(kernel: Kernel, role: Role) -> bool:
    """Whether the guest's entries behind the table have 4 bytes."""
    return role.bit4 != kernel.role_bit4


def direct_role(kernel: Kernel, level: int, registers: Registers, *, ad: bool, guest_mode: bool = False) -> Role:
    """kvm_calc_tdp_mmu_root_page_role(): up to 5.18 it follows the EFER.NX and CR0.WP of a guest with paging."""
    if not kernel.guest_role:
        return Role(level, kernel.role_bit4, ad_disabled=not ad, guest_mode=guest_mode)
    paging = bool(registers.cr0 & CR0.PG)
    nx, wp = paging and bool(registers.efer & EFER.NXE), paging and bool(registers.cr0 & CR0.WP)
    return Role(level, kernel.role_bit4, efer_nx=nx, cr0_wp=wp, ad_disabled=not ad, guest_mode=guest_mode)


def _cpu_role(kernel: Kernel, registers: Registers, guest_mode: bool) -> Role:
    """kvm_calc_cpu_role(), base: what of the guest's registers its tables' meaning depends on."""
    level = LEVELS[registers.mode]
    if not level:
        return Role(0, kernel.role_bit4, efer_nx=False, cr0_wp=False, guest_mode=guest_mode)
    wp = bool(registers.cr0 & CR0.WP)
    return Role(
        level, kernel.role_bit4 ^ (registers.mode is Mode.LEGACY), efer_nx=bool(registers.efer & EFER.NXE), cr0_wp=wp,
        direct=False, smep_andnot_wp=bool(registers.cr4 & CR4.SMEP) and not wp,
        smap_andnot_wp=bool(registers.cr4 & CR4.SMAP) and not wp, guest_mode=guest_mode,
    )  # fmt: skip


def shadow_role(kernel: Kernel, registers: Registers, *, guest_mode: bool) -> Role:
    """init_kvm_softmmu(): the root of tables that mirror those of a guest with ``registers``; NX is always on."""
    role = _cpu_role(kernel, registers, guest_mode)
    return msgspec.structs.replace(role, level=max(role.level, PAE_LEVEL), efer_nx=True)


def shadow_npt_role(kernel: Kernel, l1: Registers, level: int) -> Role:
    """kvm_init_shadow_npt_mmu(): the root of tables that mirror the NPT of a hypervisor with registers ``l1``.

    ``level``: what the host's mode forces. Of CR0 only PG counts, so WP is 0.
    """
    role = _cpu_role(kernel, msgspec.structs.replace(l1, cr0=int(CR0.PG | CR0.PE)), True)
    extra = kernel.passthrough and level == 5 and role.level == 4
    return msgspec.structs.replace(role, level=level, passthrough=extra)


def shadow_ept_role(kernel: Kernel, level: int, *, ad: bool) -> Role:
    """kvm_calc_shadow_ept_root_page_role(): as deep as the hypervisor's own EPTP says."""
    return Role(
        level, kernel.role_bit4, efer_nx=False, cr0_wp=False, ad_disabled=not ad, direct=False, guest_mode=True
    )  # fmt: skip


def child_role(kernel: Kernel, parent: Role, *, direct: bool, access: int, index: int) -> Role:
    """kvm_mmu_child_role(): of the table that entry ``index`` of a table with role ``parent`` points at.

    An 8-byte directory entry covers 2 MiB and a 4-byte one 4 MiB: two tables mirror the halves of one.
    """
    quadrant = index & 1 if is_four_byte(kernel, parent) else parent.quadrant
    return msgspec.structs.replace(
        parent, level=parent.level - 1, direct=direct, access=access, passthrough=False, quadrant=quadrant
    )


SYNC_IGNORES = ("level", "access", "quadrant", "passthrough")
"""sync_role_ign: fields in which a table may differ from the root under which it is synchronised."""


def can_sync(role: Role, root: Role) -> bool:
    return all(name in SYNC_IGNORES or getattr(role, name) == getattr(root, name) for name in role.__struct_fields__)
