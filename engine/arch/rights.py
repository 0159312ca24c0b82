"""Combining rights over the entries of a walk and checking an access against them.

`Check` is the compiled form that both walkers use: three masks over the AND and the OR of all entries, and a bitmap of
denied protection keys. Sources: SDM vol. 3A, 4.6; APM vol. 2, 5.6.
"""

from enum import Enum
from functools import lru_cache

import msgspec

from engine.arch.bits import bit, field, mask
from engine.arch.faults import Rights, Violation
from engine.arch.paging import Paging
from engine.arch.registers import CR0, CR4, RFLAGS_AC

RW, US, DIRTY, XD = bit(1), bit(2), bit(6), bit(63)
KEY_HI, KEY_LO = 62, 59


class Kind(Enum):
    READ = "read"
    WRITE = "write"
    FETCH = "fetch"
    SHADOW_READ = "shadow-stack read"
    SHADOW_WRITE = "shadow-stack write"

    @property
    def writes(self) -> bool:
        return self in (Kind.WRITE, Kind.SHADOW_WRITE)

    @property
    def is_shadow_stack(self) -> bool:
        return self in (Kind.SHADOW_READ, Kind.SHADOW_WRITE)


class Access(msgspec.Struct, frozen=True, cache_hash=True):
    """One access. ``size`` in bytes; a read-modify-write counts as a write.

    ``implicit``: a supervisor access to a system structure at any CPL (GDT, TSS, ...). ``user_shadow``: WRUSS, a user
    access made at CPL 0. ``stack``: a fault of address form is #SS instead of #GP.
    """

    kind: Kind = Kind.READ
    size: int = 1
    implicit: bool = False
    user_shadow: bool = False
    stack: bool = False

    def is_user(self, cpl: int) -> bool:
        return (cpl == 3 and not self.implicit) or self.user_shadow


READ, WRITE, FETCH = Access(Kind.READ), Access(Kind.WRITE), Access(Kind.FETCH)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the entries of a walk must say for an access to be allowed.

    Allowed iff ``AND & need == need``, ``AND & deny_all == 0``, ``OR & deny_any == 0``, the leaf's key is not in the
    16-bit bitmap for the page's U/S, and, where these are not 0 (shadow-stack accesses), the AND of the entries above
    the leaf has ``table_need``, the leaf has ``leaf_need`` and none of ``leaf_deny``.
    ``names`` tells which violation each bit of ``need`` stands for.
    """

    need: int
    names: tuple[tuple[int, Violation], ...]
    deny_all: int = 0
    denies: Violation = Violation.SMAP
    """What `deny_all` is called where it is not a matter of shadow stacks."""
    deny_any: int = 0
    denied_keys_user: int = 0
    denied_keys_supervisor: int = 0
    table_need: int = 0
    leaf_need: int = 0
    leaf_deny: int = 0
    writes: bool = False
    fetch: bool = False
    user: bool = False
    shadow_stack: bool = False
    reports_fetch: bool = False
    """The fault tells that it was a fetch (#PF: SMEP, or PAE with NXE)."""
    is_special: bool = False
    """More than the three masks decides; follows from the rest."""

    @property
    def keyed(self) -> bool:
        return bool(self.denied_keys_user | self.denied_keys_supervisor)

    def __post_init__(self) -> None:
        special = self.shadow_stack or bool(self.denied_keys_user | self.denied_keys_supervisor)
        msgspec.structs.force_setattr(self, "is_special", special)

    def allows(self, every: int, some: int, tables: int, leaf: int) -> bool:
        """``every``/``some``: AND/OR of all entries; ``tables``: AND of those above the leaf."""
        if every & self.need != self.need or every & self.deny_all or some & self.deny_any:
            return False
        if self.shadow_stack and (
            tables & self.table_need != self.table_need
            or leaf & self.leaf_need != self.leaf_need
            or leaf & self.leaf_deny
        ):
            return False
        denied = self.denied_keys_user if every & US else self.denied_keys_supervisor
        return not (denied and denied >> field(leaf, KEY_HI, KEY_LO) & 1)

    def violations(self, every: int, some: int, tables: int, leaf: int) -> tuple[Violation, ...]:
        """All rights that the access lacks; empty iff `allows`."""
        found = [violation for bits, violation in self.names if self.need & bits and not every & bits]
        if some & self.deny_any:
            found.append(Violation.NO_EXECUTE)
        if every & self.deny_all and not self.shadow_stack:
            found.append(self.denies)
        if self.shadow_stack and (
            every & self.deny_all
            or tables & self.table_need != self.table_need
            or leaf & self.leaf_need != self.leaf_need
            or leaf & self.leaf_deny
        ):
            found.append(Violation.NOT_SHADOW_STACK)
        denied = self.denied_keys_user if every & US else self.denied_keys_supervisor
        if denied >> field(leaf, KEY_HI, KEY_LO) & 1:
            found.append(Violation.PROTECTION_KEY)
        return tuple(found)


LINEAR_NAMES = ((US, Violation.SUPERVISOR_PAGE), (RW, Violation.READ_ONLY))


def _denied_keys(register: int, writes: bool, write_disable_counts: bool) -> int:
    """The bitmap of keys that deny: AD, or WD for a write where WD counts (SDM vol. 3A, 4.6.2)."""
    denied = 0
    for key in range(16):
        access_disable, write_disable = register >> (2 * key) & 1, register >> (2 * key + 1) & 1
        if access_disable or (writes and write_disable and write_disable_counts):
            denied |= 1 << key
    return denied


@lru_cache(maxsize=4096)
def compile_check(paging: Paging, access: Access) -> Check:
    """``access`` under the registers of ``paging`` (SDM vol. 3A, 4.6.1 and 4.6.2).

    A shadow-stack page has R/W = 0 and D = 1 in the leaf and R/W = 1 in every entry above it.
    """
    r, kind = paging.registers, access.kind
    user, fetch, writes = access.is_user(r.cpl), kind is Kind.FETCH, kind.writes
    wp = bool(r.cr0 & CR0.WP)
    need = US if user else 0
    if kind is Kind.WRITE and (user or wp):
        need |= RW
    deny_all = 0
    if not user:
        smep = fetch and r.cr4 & CR4.SMEP
        smap = kind in (Kind.READ, Kind.WRITE) and r.cr4 & CR4.SMAP and (access.implicit or not r.rflags & RFLAGS_AC)
        deny_all = US if smep or smap or kind.is_shadow_stack else 0
    keyed = paging.mode.is_long and not fetch
    nxe = paging.setting.nxe
    return Check(
        need=need,
        names=LINEAR_NAMES,
        deny_all=deny_all,
        denies=Violation.SMEP if fetch else Violation.SMAP,
        deny_any=XD if fetch and nxe else 0,
        denied_keys_user=_denied_keys(r.pkru, writes, user or wp) if keyed and r.cr4 & CR4.PKE else 0,
        denied_keys_supervisor=_denied_keys(r.pkrs, writes, wp) if keyed and r.cr4 & CR4.PKS and not user else 0,
        table_need=RW if kind.is_shadow_stack else 0,
        leaf_need=DIRTY if kind.is_shadow_stack else 0,
        leaf_deny=RW if kind.is_shadow_stack else 0,
        writes=writes,
        fetch=fetch,
        user=user,
        shadow_stack=kind.is_shadow_stack,
        reports_fetch=fetch and (bool(r.cr4 & CR4.SMEP) or nxe),
    )


def combined(paging: Paging, every: int, some: int, leaf: int) -> Rights:
    """The rights that the entries of one stage give, register modifiers aside. ``every``/``some``: their AND/OR."""
    return _combined(paging, every & _COUNTING, some & XD, leaf & _COUNTING_LEAF)


_COUNTING = 0b111
_COUNTING_LEAF = bit(8) | mask(KEY_HI, KEY_LO)
"""The bits of entries that rights depend on: there are few combinations, so that each is worked out once."""


@lru_cache(maxsize=4096)
def _combined(paging: Paging, every: int, some: int, leaf: int) -> Rights:
    assert paging.format is not None
    bits = paging.format.rights
    no_execute = bits.no_execute if paging.setting.nxe else 0
    return Rights(
        read=every & bits.read == bits.read,
        write=every & bits.write == bits.write,
        execute=every & bits.execute == bits.execute and not some & no_execute,
        user=every & bits.user == bits.user,
        key=field(leaf, KEY_HI, KEY_LO) if paging.setting.keys else None,
        global_=bool(leaf & bit(8)) and bool(paging.registers.cr4 & CR4.PGE),
    )
