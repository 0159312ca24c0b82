"""KVM's tables that mirror a guest's: finding, linking, zapping them, write protection, unsync and sync.

A guest's directories are write-protected: each write to one traps, is emulated, and drops what was mirrored from it. A
guest's page tables may be written freely once KVM has let them go out of sync; they are read again when the guest
flushes its TLB. Both hold for a guest that has no nested paging, and for a hypervisor inside the guest, whose NPT or
EPT is what is mirrored. Sources: mmu.c, paging_tmpl.h (reference page, 4 and 5.6 - 5.7).
"""

from collections.abc import Iterator

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.paging import Level
from engine.host.world import Oops, World
from engine.kvm import mmu
from engine.kvm.actions import Action
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import rights_of
from engine.kvm.kernels import Bug
from engine.kvm.memslots import Memslot, Space, find
from engine.kvm.mirrored import Mirrored
from engine.kvm.mmu import ENTRIES, Spte, page_size
from engine.kvm.module import Module
from engine.kvm.role import ACC_EXEC, ACC_USER, ACC_WRITE, PAE_LEVEL, Role, can_sync, child_role, is_four_byte
from engine.kvm.shadow_pages import Leaf, MmuStats, ShadowPage, ShadowPages, Tracked
from engine.kvm.spte import ADDRESS, SpteFormat
from engine.kvm.vm import Root, Vm

FLOOD = 3
"""Writes to a directory without a use of its mirror, after which the mirror goes (detect_write_flooding())."""


def format_of(module: Module, role: Role) -> SpteFormat:
    """The SPTEs of a table with ``role``."""
    return module.spte.without_flags(module.kernel.ad_masks) if role.ad_disabled else module.spte


class ShadowMmu:
    """A VM's mirror tables being worked on. ``world`` is changed in place; `vm` has what they have become.

    ``actions``: where to note what is done; a list of its own without one.
    """

    def __init__(
        self,
        world: World,
        module: Module,
        space: Space,
        vm: Vm,
        mirrored: Mirrored | None = None,
        actions: list[Action] | None = None,
    ) -> None:
        self.world, self.module, self.space = world, module, space
        self._vm, self.mirrored = vm, mirrored
        self.pages: ShadowPages = vm.shadow
        self.stats: MmuStats = vm.stats
        self.actions: list[Action] = [] if actions is None else actions

    @property
    def vm(self) -> Vm:
        return msgspec.structs.replace(self._vm, shadow=self.pages, stats=self.stats)

    def did(self, function: str, did: str, tracepoint: str = "") -> None:
        self.actions.append(Action(function, did, tracepoint))

    # --- records

    def page_of(self, address: int, function: str) -> ShadowPage:
        """sptep_to_sp(): the record of the table that holds ``address``. Raises Oops where there is none."""
        found = self.pages.page(address)
        if found is None:
            raise Oops(function, f"the page at HPA {address & ADDRESS:#x} mirrors nothing and has no kvm_mmu_page")
        return found

    def _put(self, page: ShadowPage) -> None:
        pages = self.pages.pages.update({page.pfn: page})
        unsync = self.pages.unsync
        if page.unsync != (page.pfn in unsync):
            unsync = unsync | {page.pfn} if page.unsync else unsync - {page.pfn}
        self.pages = msgspec.structs.replace(self.pages, pages=pages, unsync=unsync)

    def _note_leaf(self, address: int, leaf: Leaf | None) -> None:
        """rmap_add(), or, with None, rmap_remove()."""
        old = self.pages.leaf(address)
        rmap = self.pages.rmap
        if old is not None and (leaf is None or leaf.gfn != old.gfn):
            rest = tuple(at for at in rmap.get(old.gfn) or () if at != address)
            rmap = rmap.update({old.gfn: rest or None})
        if leaf is not None and (old is None or leaf.gfn != old.gfn):
            rmap = rmap.update({leaf.gfn: (*(rmap.get(leaf.gfn) or ()), address)})
        leaves = self.pages.leaves.update({address >> 3: leaf})
        self.pages = msgspec.structs.replace(self.pages, leaves=leaves, rmap=rmap)

    # --- finding and making tables

    def get(self, gfn: int, role: Role) -> ShadowPage:
        """kvm_mmu_get_shadow_page(): the table of this guest frame and role, or a new one.

        A page table of the frame that is out of sync gives way where the frame is now a directory.
        """
        for page in self.pages.of_gfn(gfn):
            if page.role != role:
                if role.level > 1 and page.unsync:
                    self.zap_page(page, "kvm_mmu_find_shadow_page()")
                continue
            if page.role.has_gptes and page.unsync and not self.sync_page(page, role):
                break
            page = msgspec.structs.replace(self.page_of(page.table, "kvm_mmu_find_shadow_page()"), writes=0)
            self._put(page)
            self.did("kvm_mmu_find_shadow_page()", _told(page), "kvm_mmu_get_page")
            return page
        return self._allocate(gfn, role)

    def _allocate(self, gfn: int, role: Role) -> ShadowPage:
        """kvm_mmu_alloc_shadow_page(): with the write protection that its guest frame needs."""
        page = ShadowPage(mmu.allocate_table(self.world, self.module, self._vm.index, role.level, gfn), gfn, role)
        self.stats = self.stats.plus("mmu_cache_miss")
        by_gfn = self.pages.by_gfn.update({gfn: (*(self.pages.by_gfn.get(gfn) or ()), page.pfn)})
        self.pages = msgspec.structs.replace(self.pages, by_gfn=by_gfn)
        self._put(page)
        self.did("kvm_mmu_alloc_shadow_page()", _told(page), "kvm_mmu_get_page")
        if role.has_gptes and find(self._vm.slots, gfn << FRAME_BITS):
            count = self.write_protect(gfn)
            function = "__kvm_write_track_add_gfn()" if role.level > 1 else "account_shadowed()"
            self.did(function, f"gfn {gfn:#x} is write-protected, {count} SPTEs lose W")
        return page

    def child(self, at: Spte, parent: ShadowPage, gfn: int, *, direct: bool, access: int) -> ShadowPage | None:
        """kvm_mmu_get_child_sp(): the table for ``gfn`` below SPTE ``at``; None where a table is linked there
        already."""
        spte = self.module.spte
        if spte.is_present(at.value) and not spte.is_leaf(at.value, at.level):
            return None
        index = (at.address & 0xFFF) >> 3
        return self.get(gfn, child_role(self.module.kernel, parent.role, direct=direct, access=access, index=index))

    def link(self, at: Spte, page: ShadowPage) -> None:
        """link_shadow_page(): SPTE ``at`` points at ``page``; a large page that it maps goes."""
        if self.module.spte.is_present(at.value):
            self.drop_leaf(at.address)
        self.world.write_word(at.address, format_of(self.module, page.role).table(page.table))
        page = self.page_of(page.table, "link_shadow_page()")
        self._put(msgspec.structs.replace(page, parents=(*page.parents, at.address)))
        self.did("link_shadow_page()", f"the level-{page.role.level} table is linked at {at.address:#x}")

    # --- the way to an SPTE

    def note_no_huge(self, table: int) -> None:
        """account_nx_huge_page(): the table stands where a large page would, which could not be executed."""
        self._vm = msgspec.structs.replace(self._vm, no_huge=self._vm.no_huge | {table})

    def first_table(self, root: Root, address: int) -> tuple[int, int]:
        """shadow_walk_init_using_root(): the table where KVM's walk starts, and its level. (0, 0): none is there.

        Special roots are stepped over. With the bug of 5.15 a walk of five levels starts in them.
        """
        if root.dummy:
            return 0, 0
        level, table = root.role.level, root.hpa
        skips = level == 4 if Bug.WALK_START in self.module.parameters.bugs else level >= 4
        pae_root = root.hpa
        if skips and root.special:
            for _ in range(level - PAE_LEVEL):
                pae_root = self.world.word(pae_root) & ADDRESS
            level = PAE_LEVEL
        if level == PAE_LEVEL:
            table, level = self.world.word(pae_root + (address >> 30 & 3) * 8) & ADDRESS, 2
        return (table, level) if table else (0, 0)

    def walk(self, root: Root, address: int) -> list[Spte]:
        """KVM's own walk: the SPTEs for ``address`` from the first table down to a leaf, an absent or an MMIO one."""
        path: list[Spte] = []
        table, level = self.first_table(root, address)
        while level:
            at = table + mmu.index(address, level) * 8
            value = self.world.word(at)
            path.append(Spte(level, at, value))
            if not self.module.spte.is_present(value) or self.module.spte.is_leaf(value, level):
                break
            table, level = value & ADDRESS, level - 1
        return path

    # --- leaves

    def drop_leaf(self, address: int) -> None:
        """drop_spte(): the SPTE at ``address`` maps nothing any more."""
        self.world.write_word(address, self.module.spte.absent)
        self._note_leaf(address, None)

    def set_leaf(
        self,
        at: Spte,
        page: ShadowPage,
        slot: Memslot,
        hpa: int,
        gfn: int,
        access: int,
        *,
        host_writable: bool,
        prefetched: bool = False,
        synchronizing: bool = False,
    ) -> tuple[bool, bool]:
        """mmu_set_spte(), make_spte(): map ``hpa`` with ``access``: (SPTE changed, W was withheld for a guest
        table)."""
        spte, old = format_of(self.module, page.role), self.world.word(at.address)
        known = self.pages.leaf(at.address)
        if spte.is_present(old) and not spte.is_leaf(old, at.level):
            self._unlink(at.address)
        elif spte.is_present(old) and known is not None and (known.gfn != gfn or old & ADDRESS != hpa):
            self.drop_leaf(at.address)
        old = self.world.word(at.address)
        writes = bool(access & ACC_WRITE) and host_writable
        had_write = spte.is_present(old) and spte.is_writable(old)
        protected = (
            writes and not had_write and not self.may_write(gfn, synchronizing=synchronizing, prefetched=prefetched)
        )
        executable = bool(access & ACC_EXEC) and not (at.level > 1 and self.module.parameters.nx_huge_pages)
        new = spte.leaf(
            hpa, at.level, host_writable=host_writable, writable=writes and not protected, executable=executable,
            user=bool(access & ACC_USER), prefetched=prefetched,
        )  # fmt: skip
        if new != old:
            self.world.write_word(at.address, new)
        self._note_leaf(at.address, Leaf(gfn, access))
        return new != old, protected

    # --- zapping

    def _unlink(self, address: int) -> None:
        """drop_parent_pte(): the SPTE at ``address`` no longer points at its table."""
        child = self.pages.page(self.world.word(address) & ADDRESS)
        self.world.write_word(address, self.module.spte.absent)
        if child is not None:
            parents = tuple(at for at in child.parents if at != address)
            self._put(msgspec.structs.replace(child, parents=parents))

    def zap_entry(self, page: ShadowPage, address: int) -> None:
        """mmu_page_zap_pte(): whatever the SPTE at ``address`` of ``page`` is, it is absent now."""
        spte, value = self.module.spte, self.world.word(address)
        if spte.is_present(value) and not spte.is_leaf(value, page.role.level):
            self._unlink(address)
        elif spte.is_present(value):
            self.drop_leaf(address)
        elif spte.is_mmio(value):
            self.world.write_word(address, spte.absent)

    def zap_page(self, page: ShadowPage, function: str = "kvm_mmu_prepare_zap_page()") -> int:
        """kvm_mmu_prepare_zap_page(): the table, and those below it that are out of sync, are gone; how many."""
        count = 1
        for child in self.unsync_below(page):
            if self.pages.page(child.table) is not None:
                count += self.zap_page(child, function)
        for address in range(page.table, page.table + FRAME_SIZE, 8):
            self.zap_entry(page, address)
        for parent in self.page_of(page.table, function).parents:
            self._unlink(parent)
        rest = tuple(pfn for pfn in self.pages.by_gfn.get(page.gfn) or () if pfn != page.pfn)
        self.pages = msgspec.structs.replace(
            self.pages, pages=self.pages.pages.update({page.pfn: None}), unsync=self.pages.unsync - {page.pfn},
            by_gfn=self.pages.by_gfn.update({page.gfn: rest or None}),
        )  # fmt: skip
        self._forget_root(page.table)
        self.world.free(page.table)
        self.stats = self.stats.plus("mmu_shadow_zapped")
        self.did(function, _told(page), "kvm_mmu_prepare_zap_page")
        return count

    def _forget_root(self, table: int) -> None:
        """A root that is zapped is let go by every vCPU that has it, before it is entered again."""
        for vcpu in self._vm.vcpus:
            roots = [vcpu.root, *vcpu.previous]
            if vcpu.parked is not None:
                roots += [vcpu.parked.root, *vcpu.parked.previous]
            gone = {root for root in roots if root is not None and not root.role.direct
                    and table in self.root_tables(root)}  # fmt: skip
            if gone:
                self._vm = self._vm.with_vcpu(vcpu.without(gone))

    # --- write protection

    def may_write(self, gfn: int, *, synchronizing: bool = False, prefetched: bool = False) -> bool:
        """mmu_try_to_unsync_pages(): whether ``gfn`` may be mapped writable. Its page tables go out of sync for
        that."""
        if self.pages.is_tracked(gfn):
            return False
        for page in self.pages.of_gfn(gfn):
            if not page.role.has_gptes or page.unsync:
                continue
            if synchronizing or prefetched:
                return False
            self._put(msgspec.structs.replace(page, unsync=True))
            self.stats = self.stats.plus("mmu_unsync")
            self.did("kvm_unsync_page()", _told(page), "kvm_mmu_unsync_page")
        return True

    def write_protect(self, gfn: int) -> int:
        """kvm_mmu_slot_gfn_write_protect(): no SPTE maps ``gfn`` writable any more; how many did."""
        spte, count = self.module.spte, 0
        addresses = list(self._mapping(gfn))
        for root in self._vm.roots:
            last = mmu.walk(self.world, self.module, root, gfn << FRAME_BITS)[-1]
            if spte.is_present(last.value):
                addresses.append(last.address)
        for address in addresses:
            value = self.world.word(address)
            if value & (spte.write | spte.mmu_writable):
                count += spte.is_writable(value)
                self.world.write_word(address, value & ~(spte.write | spte.mmu_writable))
        return count

    def _mapping(self, gfn: int) -> Iterator[int]:
        """The leaf SPTEs of mirror tables that map ``gfn``, by pages of any size."""
        for level in range(1, self.module.max_huge_page_level + 1):
            first = gfn & ~((page_size(level) >> FRAME_BITS) - 1)
            for address in self.pages.rmap.get(first) or ():
                page = self.pages.page(address)
                if page is not None and page.role.level == level:
                    yield address

    # --- out of sync

    def unsync_below(self, page: ShadowPage) -> list[ShadowPage]:
        """mmu_unsync_walk(): the tables below ``page`` that are out of sync."""
        found = (self.pages.pages.get(pfn) for pfn in sorted(self.pages.unsync))
        return [child for child in found if child is not None and child.pfn != page.pfn and self._is_below(child, page)]

    def _is_below(self, page: ShadowPage, top: ShadowPage) -> bool:
        above = (self.pages.page(address) for address in page.parents)
        return any(p is not None and (p.pfn == top.pfn or self._is_below(p, top)) for p in above)

    def sync_children(self, page: ShadowPage, root: Role) -> int:
        """mmu_sync_children(): all below ``page`` is read again and write-protected; how many tables."""
        waiting = self.unsync_below(page)
        for child in waiting:
            self.write_protect(child.gfn)
        for child in waiting:
            self._put(msgspec.structs.replace(self.page_of(child.table, "mmu_sync_children()"), unsync=False))
            self.sync_page(child, root)
        return len(waiting)

    def sync_roots(self, root: Root) -> int:
        """kvm_mmu_sync_roots(): what a flush of the guest's TLB asks for; how many tables were read again."""
        if root.role.direct:
            return 0
        count = 0
        for table in self.root_tables(root):
            page = self.pages.page(table)
            if page is not None:
                count += self.sync_children(page, root.role)
        self.did("kvm_mmu_sync_roots()", f"{count} tables were out of sync and are read again")
        return count

    def root_tables(self, root: Root) -> list[int]:
        """The tables with records at the top: the root itself, or the four behind a special one."""
        if not root.special:
            return [root.hpa]
        found = (self.first_table(root, n << 30)[0] for n in range(4))
        return [table for table in found if table]

    def sync_page(self, page: ShadowPage, root: Role) -> bool:
        """kvm_sync_page(): each SPTE is made what the guest's entry says now. False: it could not, and the table is
        gone."""
        if page.role.direct or not can_sync(page.role, root):
            self.did("__kvm_sync_page()", f"WARN: {_told(page)} belongs to another MMU")
            self.zap_page(page)
            return False
        changed = 0
        for n in range(ENTRIES):
            synced = self.sync_entry(page, n)
            if synced is None:
                self.zap_page(page)
                return False
            changed += synced
        self.did("kvm_sync_page()", f"{_told(page)}: {changed} SPTEs change", "kvm_mmu_sync_page")
        return True

    def sync_entry(self, page: ShadowPage, n: int) -> bool | None:
        """FNAME(sync_spte)(): whether SPTE ``n`` of a page table changed; None where the guest's entry is out of
        reach."""
        at, spte = page.table + n * 8, self.module.spte
        value = self.world.word(at)
        if value == spte.absent:
            return False
        entry = self.guest_entry(page, n)
        if entry is None:
            return None
        lv, gpte = entry
        access = self.usable(page, lv, gpte)
        if access is None:
            self.zap_entry(page, at)
            return True
        gfn = (gpte & lv.page_address) >> FRAME_BITS
        if spte.is_mmio(value):
            # sync_mmio_spte(): a changed frame is dropped, else the mark is made anew.
            new = spte.mmio(gfn, self._vm.generation, access) if (value & ADDRESS) >> FRAME_BITS == gfn else spte.absent
            self.world.write_word(at, new)
            return new != value
        leaf = self.pages.leaf(at)
        if leaf is None or leaf.gfn != gfn or not (access or spte.present):
            self.zap_entry(page, at)
            return True
        slot = find(self._vm.slots, gfn << FRAME_BITS)
        if leaf.access == access or slot is None:
            return False
        changed, _ = self.set_leaf(
            Spte(1, at, value), page, slot, value & ADDRESS, gfn, access,
            host_writable=bool(value & spte.host_writable), synchronizing=True,
        )  # fmt: skip
        return changed

    def guest_entry(self, page: ShadowPage, n: int) -> tuple[Level, int] | None:
        """The guest's entry that SPTE ``n`` of a page table mirrors: its format and value; None without a memslot."""
        assert self.mirrored is not None
        lv = self.mirrored.paging.levels[-1]
        if is_four_byte(self.module.kernel, page.role):
            n += page.role.quadrant * ENTRIES
        gpa = (page.gfn << FRAME_BITS) + (n << lv.entry_shift)
        hpa = GuestMemory(self.world, self.space, self._vm).place(gpa)
        if hpa is None:
            return None
        word = self.world.word(hpa & ~7)
        return lv, word if lv.entry_shift == 3 else word >> (hpa & 4) * 8 & 0xFFFF_FFFF

    def usable(self, page: ShadowPage, lv: Level, gpte: int) -> int | None:
        """The rights (ACC_*) of a page table's entry for an SPTE that nobody has asked for; None where it gives none:
        FNAME(prefetch_invalid_gpte)()."""
        illegal = any(gpte & rule.mask == rule.value for rule in lv.page_illegal)
        if not gpte & lv.present or illegal or gpte & lv.page_reserved or (lv.accessed and not gpte & lv.accessed):
            return None
        assert self.mirrored is not None
        access = page.role.access & rights_of(self.mirrored.paging, gpte, gpte)
        return access & ~ACC_WRITE if lv.dirty and not gpte & lv.dirty else access

    def invalidate(self, root: Root, address: int) -> None:
        """__kvm_mmu_invalidate_addr(): INVLPG of ``address``, as far as ``root`` has mirrored it."""
        if root.role.direct:
            return
        for at in self.walk(root, address):
            page = self.pages.page(at.address)
            if page is not None and page.unsync:
                changed = self.sync_entry(page, (at.address & 0xFFF) >> 3)
                if changed is None:
                    self.zap_entry(page, at.address)
                self.did("kvm_mmu_invalidate_addr()", f"the SPTE at {at.address:#x} is made anew")

    # --- writes by the guest, emulated

    def track_write(self, gpa: int, size: int) -> Tracked | None:
        """kvm_mmu_track_write(): the guest has written ``size`` bytes at ``gpa``; what was mirrored from there is
        gone. None where nothing was."""
        if not self.pages.by_gfn:
            return None
        self.stats = self.stats.plus("mmu_pte_write")
        mirrors = [page for page in self.pages.of_gfn(gpa >> FRAME_BITS) if page.role.has_gptes]
        entries = tables = 0
        for page in mirrors:
            if self._is_misaligned(page, gpa, size) or self._is_flooded(page):
                self.stats = self.stats.plus("mmu_flooded")
                tables += self.zap_page(page, "kvm_mmu_track_write()")
                continue
            for address in self._written(page, gpa):
                present = self.world.word(address) != self.module.spte.absent
                self.zap_entry(page, address)
                if page.role.level > 1:
                    self.stats = self.stats.plus("mmu_pde_zapped")
                if present:
                    entries += 1
                    self.did("kvm_mmu_track_write()", f"the SPTE at {address:#x} is dropped")
        return Tracked(entries, tables) if mirrors else None

    def note_use(self, address: int) -> None:
        """clear_sp_write_flooding_count(): the table that holds ``address`` is used; writes are counted from here
        on."""
        page = self.pages.page(address)
        if page is not None and page.writes:
            self._put(msgspec.structs.replace(page, writes=0))

    def _is_misaligned(self, page: ShadowPage, gpa: int, size: int) -> bool:
        entry, offset = 4 if is_four_byte(self.module.kernel, page.role) else 8, gpa & 0xFFF
        if not offset & (entry - 1) and size == 1:
            return False
        return bool((offset ^ (offset + size - 1)) & ~(entry - 1)) or size < 4

    def _is_flooded(self, page: ShadowPage) -> bool:
        if page.role.level == 1:
            return False
        self._put(msgspec.structs.replace(page, writes=page.writes + 1))
        return page.writes + 1 >= FLOOD

    def _written(self, page: ShadowPage, gpa: int) -> range:
        """get_written_sptes(): the SPTEs that mirror the written entry; two for a 4-byte directory entry."""
        offset, count = gpa & 0xFFF, 1
        if is_four_byte(self.module.kernel, page.role):
            offset <<= 1
            if page.role.level == 2:
                offset, count = (offset & ~7) << 1, 2
            if offset >> FRAME_BITS != page.role.quadrant:
                return range(0)
        first = page.table + (offset & 0xFF8)
        return range(first, first + count * 8, 8)

    def unprotect(self, gfn: int) -> bool:
        """kvm_mmu_unprotect_gfn(): every mirror of ``gfn`` is zapped; whether there was one."""
        found = [page for page in self.pages.of_gfn(gfn) if page.role.has_gptes]
        for page in found:
            if self.pages.page(page.table) is not None:
                self.zap_page(page, "kvm_mmu_unprotect_gfn_and_retry()")
        return bool(found)


def _told(page: ShadowPage) -> str:
    kind = "direct" if page.role.direct else "passthrough" if page.role.passthrough else "mirrors"
    state = ", unsync" if page.unsync else ""
    return f"level {page.role.level}, {kind} gfn {page.gfn:#x}, role {page.role.word:#x}, at {page.table:#x}{state}"
