"""What mirrors what: the tables of a guest, or of a hypervisor in it, beside those that KVM made of them.

Read from the bytes on both sides and from KVM's records; nothing is asked of KVM's fault path. Which guest entry an
SPTE stands for follows from the record of its table alone: guest frame, level, quadrant (reference page, 3.4 and 4.2).
"""

from __future__ import annotations

from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.faults import EntryFailure
from engine.arch.formats import EPT4, EPT5
from engine.arch.paging import BY_MODE, Level, Paging, bind_levels
from engine.arch.registers import Mode, Vendor
from engine.arch.tables import entries
from engine.kvm.guest_walk import rights_of
from engine.kvm.kernels import Kernel
from engine.kvm.memslots import find
from engine.kvm.mirrored import Mirrored, mirrored
from engine.kvm.role import ACC_EXEC, ACC_USER, ACC_WRITE, LEVELS, PAE_LEVEL, Role, is_four_byte
from engine.kvm.shadow import ShadowMmu, format_of
from engine.kvm.shadow_pages import ShadowPage
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import Nested, NestedPaging, Root, SpecialRoots, Vcpu, Vm
from engine.machine.common import shadow_of, world_of
from engine.machine.guest_view import GuestView
from engine.machine.state import Refusal, State

MOST = 256
"""Guest tables that are listed although no table of KVM's mirrors them (yet)."""
ENTRIES = 512


class TableKind(Enum):
    """What a table of KVM's is for."""

    MIRROR = "mirrors a table"
    DIRECT = "direct, below a large page"
    PASSTHROUGH = "passthrough"
    PAE_ROOT = "pae_root"
    PML4_ROOT = "pml4_root"
    PML5_ROOT = "pml5_root"
    OTHER_LEVEL = "keyed by a table of another level"
    """Its record names a guest frame that holds no table of its level: no entry of it mirrors anything (section 8.6,
    and a 4-level NPT on a 5-level host before 5.19)."""
    EMPTY = "dummy root"
    """What it would mirror lies in no memslot."""

    @property
    def is_special(self) -> bool:
        """It belongs to an MMU, and has no kvm_mmu_page."""
        return self in (TableKind.PAE_ROOT, TableKind.PML4_ROOT, TableKind.PML5_ROOT)


class Status(Enum):
    """How an SPTE compares with the entry that it mirrors, as both are now."""

    AGREES = "agrees"
    NARROWER = "gives less"
    STALE = "out of date"
    UNKNOWN = "unknown"


class Why(Enum):
    """The reason of a `Status`."""

    NONE = ""
    CHANGED = "the guest's entry says something else now"
    CLEAN = "W waits for the first write, which sets D in the guest's entry"
    TABLE = "W is withheld: the page holds a table that KVM mirrors, so writes to it must trap"
    PROTECTED = "W was withheld while the page held a table that KVM mirrored: the next write brings it back"
    READ_ONLY = "W is withheld: the host's page is read-only"
    DIRTY_LOG = "W is withheld: dirty logging wants to see the next write"
    NX_HUGE = "X is withheld from a large page (nx_huge_pages)"
    AGED = "all rights are withheld until the next access, which shows that the page is in use"
    NO_WP = "a supervisor writes to a read-only page (CR0.WP = 0): writable, and a supervisor's alone"
    NO_BYTES = "the guest's bytes are not known"


class GuestTable(msgspec.Struct, frozen=True):
    """A table on the guest's side, L1's where a hypervisor in the guest is mirrored. ``gpa``: guest-physical byte
    address; ``hpa``: where its bytes lie, None where no memory of the host is behind it yet. ``registers``: the four
    PDPTE registers, not bytes at ``gpa``."""

    level: Level
    gpa: int
    hpa: int | None
    values: tuple[int | None, ...]
    registers: bool = False

    @property
    def present(self) -> tuple[int, ...]:
        """The slots of present entries."""
        return tuple(n for n, value in enumerate(self.values) if value is not None and value & self.level.present)

    def is_leaf(self, slot: int) -> bool:
        """Whether the entry maps a page."""
        return bool((self.values[slot] or 0) & self.level.leaf)


class ShadowTable(msgspec.Struct, frozen=True):
    """A table of KVM's. ``hpa``: byte address; ``role`` and ``gfn`` by its record, None for special roots.

    ``extra``: it exists only because KVM's tables are deeper than what they mirror.
    """

    level: Level
    hpa: int
    kind: TableKind
    gfn: int | None = None
    role: Role | None = None
    unsync: bool = False
    extra: bool = False


class Link(msgspec.Struct, frozen=True):
    """SPTE ``index`` of the table at ``table`` (host-physical) mirrors ``guest_index`` of the guest's table at
    ``guest`` (guest-physical) and ``guest_level``. ``value``, ``guest_value``: their bytes."""

    table: int
    level: int
    index: int
    value: int
    guest: int
    guest_level: int
    guest_index: int
    guest_value: int | None
    status: Status = Status.AGREES
    why: Why = Why.NONE


class Mirror(msgspec.Struct, frozen=True):
    """``above``: the paging of the guest's side, as KVM reads it; without a format where that has no paging.

    ``below``: KVM's tables, at the depth that it gave them. ``nested``: whose tables are mirrored: L1's NPT or EPT, or
    the guest's own (None). ``guest`` and ``shadow``: from the roots down. ``is_whole``: no table of the guest's is
    left out. ``references``: of a walk to a 4-KiB page by the hardware, and ``bare``: were there no extra levels.
    ``is_parked``: the hypervisor in the guest runs itself, so that no processor walks these tables now: both are 0.
    """

    above: Paging
    below: Paging
    nested: NestedPaging | None
    guest: tuple[GuestTable, ...]
    shadow: tuple[ShadowTable, ...]
    links: tuple[Link, ...]
    is_whole: bool
    references: int
    bare: int
    is_parked: bool = False

    @property
    def extra(self) -> tuple[ShadowTable, ...]:
        """The tables that exist only because KVM's are deeper than what they mirror."""
        return tuple(table for table in self.shadow if table.extra)

    def shadow_at(self, hpa: int) -> ShadowTable | None:
        return next((table for table in self.shadow if table.hpa == hpa), None)

    def guest_at(self, gpa: int, level: int) -> GuestTable | None:
        return next((table for table in self.guest if table.gpa == gpa and table.level.level == level), None)

    def count(self, status: Status) -> int:
        return sum(link.status is status for link in self.links)


def mirror(state: State, vm: int = 0, vcpu: int = 0) -> Mirror | Refusal:
    """The tables that KVM mirrors for a vCPU beside those that it made of them; a Refusal where it mirrors none.

    While a hypervisor in the guest runs itself, the tables for its guest are shown, which are parked.
    """
    if state.host is None or state.module is None:
        return Refusal("Nothing is mirrored: there is no guest under KVM.")
    found = state.vcpu(vm, vcpu)
    if isinstance(found, Refusal):
        return found
    owner, running = found
    cpu = _mirroring(state, running)
    if cpu is None:
        if running.nested is None and running.parked is not None and not running.parked.role.direct:
            return Refusal("KVM has let go of the roots that mirror L1's tables: they come back when its guest runs.")
        return Refusal(
            "KVM mirrors nothing here: hardware walks the guest's own tables. Load KVM with npt=0 or ept=0, or a "
            "hypervisor in the guest."
        )
    what = mirrored(state.module, cpu, state.host.pcpus[cpu.pcpu].setup)
    nested = cpu.nested.paging if cpu.nested is not None and cpu.nested.paging is not NestedPaging.NONE else None
    if nested is not None and (what is None or what.second is None):
        return Refusal("L1's root cannot be used as it is: the entry of its guest fails.")
    above = what.paging if what is not None else state.guest_paging(cpu)
    below = _below(state, cpu)
    guest, is_whole = _guest_tables(GuestView(state, owner), owner, above)
    reader = _Reader(state, owner, cpu, what, guest)
    return Mirror(
        above, below, nested, guest, *reader.read(below.levels), is_whole,
        *(_references(state, cpu, len(above.levels), len(below.levels)) if cpu is running else (0, 0)),
        cpu is not running,
    )  # fmt: skip


# --- whose tables


def _mirroring(state: State, vcpu: Vcpu) -> Vcpu | None:
    """``vcpu`` with the MMU in use that mirrors something; None where neither of its MMUs does."""
    assert state.module is not None
    if not state.module.tdp_enabled or not vcpu.role.direct:
        return vcpu
    if vcpu.nested is not None or vcpu.parked is None or vcpu.parked.role.direct or vcpu.parked.root is None:
        return None
    kind = NestedPaging.NPT if state.module.vendor is Vendor.AMD else NestedPaging.EPT
    nested = Nested(vcpu.registers, kind, vcpu.parked.root.pgd)
    return msgspec.structs.replace(vcpu.with_mmu(vcpu.parked), nested=nested, parked=vcpu.mmu)


def _below(state: State, cpu: Vcpu) -> Paging:
    """KVM's tables as it built them; as the hardware reads them where that is the same."""
    assert state.host is not None
    assert state.module is not None
    level = cpu.role.level
    both = state.translation(cpu)
    if both is not None and not isinstance(both, EntryFailure):
        first, second = both
        found = second.paging if second is not None else first
        if found.levels and found.levels[0].level == level:
            return found
    host = state.host_paging(cpu.pcpu)
    mode = next(mode for mode, depth in LEVELS.items() if depth == level)
    fmt = BY_MODE[mode]
    if state.module.spte.execute:
        fmt = EPT5 if mode is Mode.LEVEL5 else EPT4
    return msgspec.structs.replace(
        host, mode=mode, format=fmt, levels=bind_levels(fmt, host.setting), root=cpu.root.hpa if cpu.root else 0,
        width=fmt.width, linear=not state.module.tdp_enabled,
    )  # fmt: skip


def _references(state: State, cpu: Vcpu, guest_levels: int, levels: int) -> tuple[int, int]:
    """Of a walk to a 4-KiB page: with KVM's levels, and with those that are mirrored alone."""
    assert state.module is not None
    if not state.module.tdp_enabled:
        read = levels - (levels == PAE_LEVEL)  # PAE's PDPTEs are registers
        return read, read
    inner = state.guest_paging(cpu)
    read = len(inner.levels) - inner.pdptes_are_registers
    bare = min(guest_levels, levels)
    return (read + 1) * (levels + 1) - 1, (read + 1) * (bare + 1) - 1


# --- the guest's side


def _guest_tables(view: GuestView, vm: Vm, paging: Paging) -> tuple[tuple[GuestTable, ...], bool]:
    """All tables that KVM mirrors, and others up to `MOST`; whether that is all of them."""
    made: list[GuestTable] = []
    bases, spare, is_whole = [paging.root], MOST, True
    registers = paging.registers.pdptes if paging.pdptes_are_registers else None
    for lv in paging.levels:
        below: dict[int, None] = {}
        for gpa in bases:
            if not vm.shadow.by_gfn.get(gpa >> FRAME_BITS) and lv is not paging.levels[0]:
                if not spare:
                    is_whole = False
                    continue
                spare -= 1
            by_registers = registers is not None and lv is paging.levels[0]
            frame = view.host_frame(gpa >> FRAME_BITS)
            hpa = None if frame is None else frame << FRAME_BITS | gpa & 0xFFF
            values: tuple[int | None, ...] = registers if by_registers and registers else tuple(entries(view, lv, gpa))
            table = GuestTable(lv, gpa, hpa, values, by_registers)
            made.append(table)
            below |= {(values[n] or 0) & lv.table_address: None for n in table.present if not table.is_leaf(n)}
        bases = list(below)
    return tuple(made), is_whole


# --- KVM's side


class _Large(msgspec.Struct, frozen=True):
    """The guest's large page that a direct table is a part of. ``link``: to its entry; ``owner``: the mirror table
    above; ``gfn``: the first guest frame that the direct table ought to map."""

    link: Link
    level: Level
    owner: ShadowPage
    gfn: int


class _Reader:
    """KVM's tables of one vCPU, from the root down, each SPTE compared with what it mirrors."""

    def __init__(self, state: State, vm: Vm, cpu: Vcpu, what: Mirrored | None, guest: tuple[GuestTable, ...]) -> None:
        assert state.module is not None
        self._state, self._vm, self._cpu, self._what = state, vm, cpu, what
        self._module, self._kernel = state.module, state.module.kernel
        self._depth = what.level if what is not None else 0
        self._guest = {(table.gpa >> FRAME_BITS, table.level.level): table for table in guest}
        self._view = GuestView(state, vm)
        self._shadow: ShadowMmu = shadow_of(state, world_of(state), vm, cpu)
        self._tables: dict[int, ShadowTable] = {}
        self._links: list[Link] = []

    def read(self, levels: tuple[Level, ...]) -> tuple[tuple[ShadowTable, ...], tuple[Link, ...]]:
        root = self._cpu.root
        waiting: list[tuple[int, _Large | None]] = [(root.hpa, None)] if root is not None else []
        for lv in levels:
            seen: set[tuple[int, int]] = set()
            below: list[tuple[int, _Large | None]] = []
            for hpa, large in waiting:
                key = hpa, large.link.guest << 12 | large.link.guest_index if large else -1
                if key not in seen:
                    seen.add(key)
                    below += self._table(lv, hpa, large, root)
            waiting = below
        return tuple(self._tables.values()), tuple(self._links)

    def _table(self, lv: Level, hpa: int, large: _Large | None, root: Root | None) -> list[tuple[int, _Large | None]]:
        """Notes one table and the links of its SPTEs; what they point at."""
        kind = special_kind(self._cpu.special, hpa)
        page = self._vm.shadow.page(hpa) if kind is None else None
        above = self._mirrored_by(page) if page is not None else None
        if kind is None:
            kind = _kind_of(page, above, root is not None and root.dummy)
        extra = (kind.is_special or kind in (TableKind.PASSTHROUGH, TableKind.OTHER_LEVEL)) and (
            lv.level > self._depth or kind is TableKind.PASSTHROUGH
        )
        self._tables[hpa] = ShadowTable(
            lv, hpa, kind, page.gfn if page else None, page.role if page else None, page is not None and page.unsync,
            extra,
        )  # fmt: skip
        found: list[tuple[int, _Large | None]] = []
        for index, value in enumerate(entries(self._state.memory, lv, hpa)):
            if value is None or not self._is_present(kind, value):
                continue
            link, passed = self._link(kind, lv, hpa, index, value, page, above, large)
            if link is not None:
                self._links.append(link)
            if kind.is_special or not self._module.spte.is_leaf(value, lv.level):
                found.append((value & ADDRESS, passed))
        return found

    def _is_present(self, kind: TableKind, value: int) -> bool:
        return bool(value & 1) if kind.is_special else self._module.spte.is_present(value)

    def _mirrored_by(self, page: ShadowPage) -> GuestTable | None:
        """The guest's table behind a mirror table, None where it has none of that level."""
        return self._guest.get((page.gfn, page.role.level)) if page.role.has_gptes else None

    def _link(
        self, kind: TableKind, lv: Level, hpa: int, index: int, value: int, page: ShadowPage | None,
        above: GuestTable | None, large: _Large | None,
    ) -> tuple[Link | None, _Large | None]:  # fmt: skip
        """What one SPTE mirrors, and what a direct table below it is a part of."""
        if kind is TableKind.PAE_ROOT and self._depth == PAE_LEVEL:
            return self._pdpte(lv, hpa, index, value), None
        if page is not None and kind is TableKind.DIRECT and large is not None:
            gfn = large.gfn + (index << 9 * (lv.level - 1))
            link = msgspec.structs.replace(large.link, table=hpa, level=lv.level, index=index, value=value)
            status = self._leaf(link, large.level, large.owner, page.role, gfn) if self._maps(lv, value) else _FITS
            return _with(link, status), msgspec.structs.replace(large, gfn=gfn)
        if page is None or above is None:
            return None, None
        slot = guest_slot(self._kernel, page.role, index)
        link = Link(hpa, lv.level, index, value, above.gpa, lv.level, slot, above.values[slot])
        gfn = self._frame(above, slot, page.role, index)
        status = (
            self._leaf(link, above.level, page, page.role, gfn) if self._maps(lv, value)
            else self._directory(link, above, page, gfn)
        )  # fmt: skip
        link = _with(link, status)
        child = self._vm.shadow.page(value & ADDRESS)
        is_direct = child is not None and child.role.direct
        return link, _Large(link, above.level, page, gfn) if is_direct else None

    def _maps(self, lv: Level, value: int) -> bool:
        return self._module.spte.is_leaf(value, lv.level)

    def _frame(self, above: GuestTable, slot: int, role: Role, index: int) -> int:
        """The guest frame that the guest's entry names: of a table, or the first of the part that the SPTE maps."""
        value, lv = above.values[slot] or 0, above.level
        if not value & lv.leaf:
            return (value & lv.table_address) >> FRAME_BITS
        first = (value & lv.page_address | (value & lv.high) << lv.high_shift) >> FRAME_BITS
        half = lv.level == 2 and is_four_byte(self._kernel, role) and index & 1
        return first + (ENTRIES if half else 0)

    # --- comparing

    def _pdpte(self, lv: Level, hpa: int, index: int, value: int) -> Link | None:
        above = next((table for table in self._guest.values() if table.level.level == PAE_LEVEL), None)
        if above is None or index >= len(above.values):
            return None
        said, child = above.values[index], self._vm.shadow.page(value & ADDRESS)
        link = Link(hpa, lv.level, index, value, above.gpa, PAE_LEVEL, index, said)
        if said is None:
            return _with(link, (Status.UNKNOWN, Why.NO_BYTES))
        same = said & 1 and child is not None and child.gfn == (said & ADDRESS) >> FRAME_BITS
        return _with(link, _FITS if same else _CHANGED)

    def _directory(self, link: Link, above: GuestTable, page: ShadowPage, gfn: int) -> tuple[Status, Why]:
        """An SPTE that points at a table: that of the frame, and with the rights, that the guest's entry has now."""
        said, child, lv = link.guest_value, self._vm.shadow.page(link.value & ADDRESS), above.level
        if said is None:
            return Status.UNKNOWN, Why.NO_BYTES
        if child is None or not said & lv.present or bool(said & lv.leaf) != child.role.direct or child.gfn != gfn:
            return _CHANGED
        if child.role.direct:
            access = self._shadow.usable(page, lv, said)
            return _FITS if access is not None and not child.role.access & ~access else self._without_wp(page, _CHANGED)
        assert self._what is not None
        return _FITS if child.role.access == page.role.access & _rights(self._what.paging, lv, said) else _CHANGED

    def _leaf(self, link: Link, lv: Level, owner: ShadowPage, role: Role, gfn: int) -> tuple[Status, Why]:
        """An SPTE that maps a page: the frame and the rights that the guest's entry has now, or less."""
        said, spte = link.guest_value, format_of(self._module, role)
        if said is None:
            return Status.UNKNOWN, Why.NO_BYTES
        access = self._shadow.usable(owner, lv, said) if said & lv.leaf else None
        frame = self._view.host_frame(gfn)
        if access is None or frame is None or frame << FRAME_BITS != link.value & ADDRESS:
            return _CHANGED
        aged = spte.is_tracked(link.value)
        value = spte.restored(link.value) if aged else link.value
        gives = (
            spte.is_executable(value) * ACC_EXEC | spte.is_writable(value) * ACC_WRITE
            | bool(value & spte.user) * ACC_USER
        )  # fmt: skip
        known = self._vm.shadow.leaf(link.table + link.index * 8)
        if gives & ~access:
            return self._without_wp(owner, _CHANGED)
        lacks = access & ~gives
        if known is not None and lacks & ~known.access:
            return _CHANGED
        if lacks & ACC_WRITE:
            return Status.NARROWER, self._without_write(link, value, gfn)
        if lacks & ACC_EXEC and self._module.parameters.nx_huge_pages:
            return Status.NARROWER, Why.NX_HUGE
        if lacks and not aged:
            return _CHANGED
        if aged:
            return Status.NARROWER, Why.AGED
        assert self._what is not None
        could = owner.role.access & _rights(self._what.paging, lv, said) & ACC_WRITE
        return (Status.NARROWER, Why.CLEAN) if could & ~access else _FITS

    def _without_wp(self, owner: ShadowPage, otherwise: tuple[Status, Why]) -> tuple[Status, Why]:
        by_guest = self._what is not None and self._what.second is None
        return (Status.NARROWER, Why.NO_WP) if by_guest and not owner.role.cr0_wp else otherwise

    def _without_write(self, link: Link, value: int, gfn: int) -> Why:
        """Why KVM withholds W from what the guest may write."""
        slot = find(self._vm.slots, gfn << FRAME_BITS)
        if not value & self._module.spte.host_writable or (slot is not None and slot.read_only):
            return Why.READ_ONLY
        if self._vm.shadow.is_mirrored(gfn << FRAME_BITS, 1 << (FRAME_BITS + 9 * (link.level - 1))):
            return Why.TABLE
        return Why.DIRTY_LOG if slot is not None and slot.dirty_log else Why.PROTECTED


_FITS, _CHANGED = (Status.AGREES, Why.NONE), (Status.STALE, Why.CHANGED)


def _with(link: Link, status: tuple[Status, Why]) -> Link:
    return msgspec.structs.replace(link, status=status[0], why=status[1])


def _rights(paging: Paging, lv: Level, value: int) -> int:
    return rights_of(paging, value | lv.neutral, value)


def special_kind(special: SpecialRoots, hpa: int) -> TableKind | None:
    """Which special root the table at ``hpa`` is."""
    if not hpa:
        return None
    names = {
        special.pae_root: TableKind.PAE_ROOT, special.pml4_root: TableKind.PML4_ROOT,
        special.pml5_root: TableKind.PML5_ROOT,
    }  # fmt: skip
    return names.get(hpa)


def _kind_of(page: ShadowPage | None, above: GuestTable | None, dummy: bool) -> TableKind:
    if page is None:
        return TableKind.EMPTY if dummy else TableKind.DIRECT
    if page.role.direct:
        return TableKind.DIRECT
    if page.role.passthrough:
        return TableKind.PASSTHROUGH
    return TableKind.MIRROR if above is not None else TableKind.OTHER_LEVEL


def guest_slot(kernel: Kernel, role: Role, index: int) -> int:
    """The slot of the guest's table that SPTE ``index`` of a table with ``role`` mirrors.

    A table of 4-byte entries has 1,024: two tables mirror the halves of a page table, and four the quarters of a
    directory, each entry of which is two SPTEs.
    """
    if not is_four_byte(kernel, role):
        return index
    return role.quadrant * (ENTRIES // 2) + index // 2 if role.level == 2 else role.quadrant * ENTRIES + index
