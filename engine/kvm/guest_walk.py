"""KVM's own walk of tables that it did not make: a guest's, or those of a hypervisor inside the guest.

It goes by the MAXPHYADDR that the guest was told, while the hardware goes by its own, and it asks memslots, never
tables of KVM's. Entries that lie in a nested guest's memory are found through a walk of its hypervisor's tables.
Sources: FNAME(walk_addr_generic)(), paging_tmpl.h; kvm_translate_gpa(), mmu.c (reference page, 5.6 and 8.3).
"""

from collections.abc import Callable

import msgspec

from engine.arch.basis import Basis, Ground
from engine.arch.bits import mask
from engine.arch.faults import PageFault, Reason, Violation, pf_code
from engine.arch.paging import Level, Paging
from engine.arch.rights import Access, Check, combined, compile_check
from engine.host.world import UnknownBytes
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.role import ACC_ALL, ACC_EXEC, ACC_USER, ACC_WRITE

BASIS = Basis(Ground.KERNEL, "FNAME(walk_addr_generic)(), paging_tmpl.h")


class GuestEntry(msgspec.Struct, frozen=True):
    """An entry on the way: where it lies (byte addresses), what it says. ``table``: guest-physical address of its
    table; ``above``: the rights (ACC_*) that the entries before it leave."""

    level: Level
    table: int
    gpa: int
    hpa: int
    value: int
    above: int


class GuestWalk(msgspec.Struct, frozen=True):
    """struct guest_walker, of a walk that reached a page. ``entries`` from the root down, without a PDPTE register.

    ``gpa``: the guest-physical byte address, in memory that memslots hold. ``access``: the rights (ACC_*) that may be
    used now: without write where the leaf is clean, so that the first write is seen. ``user``: the page is a user page.
    """

    entries: tuple[GuestEntry, ...]
    gpa: int
    access: int
    user: bool = True

    @property
    def level(self) -> int:
        """The level of the leaf."""
        return self.entries[-1].level.level

    def entry(self, level: int) -> GuestEntry:
        return next(entry for entry in self.entries if entry.level.level == level)


class Stopped(msgspec.Struct, frozen=True):
    """A walk that found no page, or one that may not be accessed so. ``every``: the AND of all entries as far as it
    came, the one where it stopped included. ``beyond``: a walk of the hypervisor's tables stopped it, at its guest's
    physical byte ``address``."""

    reason: Reason
    check: Check
    address: int
    every: int = 0
    violations: tuple[Violation, ...] = ()
    beyond: bool = False


Translate = Callable[[int, Check | None], int | Stopped]
"""kvm_translate_gpa(): where a guest-physical byte address lies; ``None`` for a check: an entry of the guest's
tables."""


def rights_of(paging: Paging, every: int, some: int) -> int:
    """FNAME(gpte_access)(): ACC_* of entries with this AND and OR. What is readable in EPT counts as user."""
    assert paging.format is not None
    is_ept = bool(paging.format.rights.read)
    rights = combined(paging, every, some, 0)
    user = rights.read if is_ept else rights.user
    return rights.execute * ACC_EXEC | rights.write * ACC_WRITE | user * ACC_USER


def walk_guest(
    memory: GuestMemory,
    paging: Paging,
    address: int,
    check: Check,
    translate: Translate | None = None,
    final: Callable[[bool], Check] | None = None,
) -> GuestWalk | Stopped:
    """Walk ``address`` down the guest's tables for an access that needs ``check``.

    A and D are set in them where their memslot is writable. ``translate``: of a nested guest's physical addresses;
    ``final`` gives what it must allow for the page itself, which is a user page or not. Raises UnknownBytes where an
    entry's bytes are not known.
    """
    every, some, tables = -1, 0, -1
    base, levels = paging.root, paging.levels
    used: list[GuestEntry] = []
    if paging.pdptes_are_registers and paging.registers.pdptes is not None:
        pdpte = paging.registers.pdptes[address >> 30 & 3]
        if not pdpte & 1:
            return Stopped(Reason.NOT_PRESENT, check, address)
        base, levels = pdpte & levels[0].table_address, levels[1:]
    for lv in levels:
        above = rights_of(paging, every, some) if used else ACC_ALL
        at = base + ((address >> lv.shift & lv.index_mask) << lv.entry_shift)
        gpa = translate(at, None) if translate else at
        if isinstance(gpa, Stopped):
            return gpa
        entry = _read(memory, lv, base, gpa, above)
        if entry is None:
            return Stopped(Reason.NOT_PRESENT, check, address)
        value = entry.value
        every &= value | lv.neutral
        if not value & lv.present:
            return Stopped(Reason.NOT_PRESENT, check, address)
        is_leaf = value & lv.leaf
        illegal = any(value & rule.mask == rule.value for rule in (lv.page_illegal if is_leaf else lv.table_illegal))
        reserved = 0 if lv.neutral else lv.page_reserved if is_leaf else lv.table_reserved
        if illegal or value & reserved:  # get_pdptr() asks only whether a PDPTE is present
            return Stopped(Reason.RESERVED, check, address, every)
        some |= value
        used.append(entry)
        if is_leaf:
            break
        tables, base = every, value & lv.table_address
    leaf = used[-1]
    if not check.allows(every, some, tables, leaf.value):
        return Stopped(Reason.RIGHTS, check, address, every, check.violations(every, some, tables, leaf.value))
    lv, access = leaf.level, rights_of(paging, every, some)
    physical = leaf.value & lv.page_address | (leaf.value & lv.high) << lv.high_shift
    physical |= address & mask(lv.page_shift - 1, 0)
    user = combined(paging, every, some, 0).user
    if translate:
        found = translate(physical, final(user) if final else None)
        if isinstance(found, Stopped):
            return found
        physical = found
    if not check.writes and lv.dirty and not leaf.value & lv.dirty:
        access &= ~ACC_WRITE  # protect_clean_gpte()
    _set_flags(memory, used, check.writes)
    return GuestWalk(tuple(used), physical, access, user)


def _read(memory: GuestMemory, level: Level, table: int, gpa: int, above: int) -> GuestEntry | None:
    hpa = memory.place(gpa)
    if hpa is None:
        return None
    word = memory.world.memory.word(hpa & ~7)
    if word is None:
        raise UnknownBytes(hpa)
    value = word if level.entry_shift == 3 else word >> (hpa & 4) * 8 & 0xFFFF_FFFF
    return GuestEntry(level, table, gpa, hpa, value, above)


def _set_flags(memory: GuestMemory, used: list[GuestEntry], writes: bool) -> None:
    """update_accessed_dirty_bits(): what lies in a read-only slot stays as it is."""
    for entry in used:
        lv, slot = entry.level, memory.slot(entry.gpa)
        flags = lv.accessed | (lv.dirty if writes and entry is used[-1] else 0)
        if entry.value & flags != flags and slot is not None and not slot.read_only:
            data = (entry.value | flags).to_bytes(1 << lv.entry_shift, "little")
            memory.world.memory = memory.world.memory.write(entry.hpa, data)


def gva_to_gpa(
    memory: GuestMemory,
    paging: Paging,
    linear: int,
    access: Access,
    translate: Translate | None = None,
    final: Callable[[bool], Check] | None = None,
) -> int | PageFault | Stopped:
    """The guest-physical byte address of ``linear`` for ``access``, by KVM's own walk of the guest's tables.

    `Stopped`: not the guest's tables, but those of the hypervisor that it runs on say no. Raises UnknownBytes.
    """
    if paging.format is None:
        found = translate(linear, final(True) if final else None) if translate else linear
        return found
    check = compile_check(paging, access)
    walked = walk_guest(memory, paging, linear, check, translate, final)
    if isinstance(walked, GuestWalk):
        return walked.gpa
    return walked if walked.beyond else guest_fault(walked, linear)


def guest_fault(stopped: Stopped, linear: int) -> PageFault:
    """The #PF that the guest gets."""
    check, keyed = stopped.check, Violation.PROTECTION_KEY in stopped.violations
    code = pf_code(
        stopped.reason, write=check.writes, user=check.user, fetch=check.reports_fetch, key=keyed,
        shadow_stack=check.shadow_stack,
    )  # fmt: skip
    return PageFault(code, linear, stopped.reason, BASIS, stopped.violations)
