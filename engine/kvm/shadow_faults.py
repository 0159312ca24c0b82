"""The fault path where KVM's tables mirror a guest's: KVM walks what is mirrored, then makes its own tables agree.

What KVM's walk does not find is the guest's own fault, or, where a hypervisor's NPT or EPT is mirrored, that
hypervisor's. Sources: FNAME(page_fault)(), FNAME(fetch)(), FNAME(pte_prefetch)() (paging_tmpl.h),
nonpaging_page_fault(), direct_map() (mmu.c; reference page, 5.6).
"""

from typing import TYPE_CHECKING

from engine.arch.addresses import FRAME_BITS
from engine.arch.registers import CR0, CR4
from engine.arch.rights import Check
from engine.errors import InputError
from engine.host import mm
from engine.host.world import Halt
from engine.kvm import mmu
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import GuestWalk, Stopped, walk_guest
from engine.kvm.kernels import Bug
from engine.kvm.memslots import fault_in, find
from engine.kvm.mmu import Spte, page_size
from engine.kvm.role import ACC_ALL, ACC_EXEC, ACC_USER, ACC_WRITE
from engine.kvm.shadow import ShadowMmu
from engine.kvm.shadow_pages import ShadowPage
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import Root

if TYPE_CHECKING:
    from engine.kvm.faults import FaultPath

PREFETCH = 8
"""PTE_PREFETCH_NUM: SPTEs around the one that faulted."""


class ShadowFault:
    """One fault under mirror tables. ``path``: the exit that it is part of; ``address``: linear, or L2-physical."""

    def __init__(
        self, path: "FaultPath", shadow: ShadowMmu, root: Root, address: int, check: Check, *, present: bool
    ) -> None:
        self._path, self._shadow, self._root, self._module = path, shadow, root, shadow.module
        self._address, self._check, self._present = address, check, present
        self.stopped: Stopped | None = None
        """Why the fault is not KVM's, where it is not."""

    def handle(self) -> str:
        """The RET_PF_* name without its prefix, or an errno. `stopped` is set where the guest or L1 gets a fault."""
        if self._shadow.mirrored is None:
            return self._tracked(self._address) or self._map(None, self._address, ACC_ALL, 2)
        memory = GuestMemory(self._path.world, self._path.space, self._path.vm)
        walked = walk_guest(memory, self._shadow.mirrored.paging, self._address, self._check)
        if isinstance(walked, Stopped):
            self.stopped = walked
            self._path.did("FNAME(walk_addr)()", f"{walked.reason.value}: not KVM's fault")
            return "RETRY"
        self._path.did(
            "FNAME(walk_addr)()",
            f"{self._address:#x} is guest-physical {walked.gpa:#x}, a page of level {walked.level}",
            "kvm_mmu_pagetable_walk",
        )
        return self._tracked(walked.gpa) or self._map(walked, walked.gpa, walked.access, walked.level)

    def _tracked(self, gpa: int) -> str:
        """page_fault_handle_page_track(): a write that no SPTE may allow; '' where it is none."""
        if not self._present or not self._check.writes or not self._shadow.pages.is_tracked(gpa >> FRAME_BITS):
            return ""
        self._path.did("page_fault_handle_page_track()", f"GPA {gpa:#x} holds a guest table that KVM mirrors")
        for at in self._shadow.walk(self._root, self._address):
            self._shadow.note_use(at.address)  # shadow_page_table_clear_flood()
        return "WRITE_PROTECTED"

    def _map(self, walked: GuestWalk | None, gpa: int, access: int, most: int) -> str:
        """FNAME(fetch)(), or direct_map() where there are no guest tables: an SPTE for ``gpa`` with ``access``."""
        path, writes, fetch = self._path, self._check.writes, self._check.fetch
        slot = find(path.vm.slots, gpa)
        if slot is not None:
            if slot.read_only and writes:
                path.did("kvm_handle_error_pfn()", "a write to a read-only memslot: KVM_PFN_ERR_RO_FAULT")
                return "EMULATE"
            try:
                page = fault_in(path.world, path.space, path.vm.index, slot, gpa)
            except InputError as full:
                path.did("kvm_handle_error_pfn()", f"KVM_PFN_ERR_FAULT: {full}")
                return "-EFAULT"
            path.did("kvm_mmu_faultin_pfn()", f"GPA {gpa:#x} is in slot {slot.id}, HVA {slot.to_hva(gpa):#x}")
            access = self._supervisor_write(walked, access)
        at = self._down(walked) if walked else self._first()
        if at is None:
            path.did("FNAME(fetch)()", "WARN: the walk of KVM's own tables has no entry to set")
            return "-EFAULT"
        if slot is None:
            goal = 1
        else:
            goal, why = mmu.huge_level(
                self._module, self._shadow.vm, slot, page, gpa, min(most, at.level), exec_fault=fetch
            )
            path.did("kvm_mmu_hugepage_adjust()", f"level {goal}: {why}", "kvm_mmu_spte_requested")
        at = self._below(at, gpa, goal, access)
        table = self._shadow.page_of(at.address, "mmu_set_spte()")
        if slot is None:
            return self._mmio(at, gpa, access)
        size = page_size(at.level)
        base = gpa & ~(size - 1)
        hpa = page.hpa + slot.to_hva(base) - page.hva
        changed, withheld = self._shadow.set_leaf(
            at, table, slot, hpa, base >> FRAME_BITS, access, host_writable=page.write and not slot.read_only
        )
        value = path.world.word(at.address)
        path.did("mmu_set_spte()", f"level {at.level}: SPTE {value:#x} at {at.address:#x}", "kvm_mmu_set_spte")
        if withheld and writes:
            return "WRITE_PROTECTED"
        if not changed:
            return "SPURIOUS"
        if walked is not None and at.level == 1 and table.role.has_gptes:
            self._prefetch(at, table)
        return "FIXED"

    def _supervisor_write(self, walked: GuestWalk | None, access: int) -> int:
        """CR0.WP = 0: hardware always has WP on, so a supervisor's write to a read-only page gets a page that is
        writable and a supervisor's own, not executable where CR4.SMEP would have told user pages apart."""
        if walked is None or not self._check.writes or access & ACC_WRITE or self._check.user:
            return access
        registers = self._path.vcpu.registers
        assert not registers.cr0 & CR0.WP
        access = access & ~ACC_USER | ACC_WRITE
        return access & ~ACC_EXEC if registers.cr4 & CR4.SMEP else access

    # --- down the tables

    def _first(self) -> Spte | None:
        table, level = self._shadow.first_table(self._root, self._address)
        return self._at(table, level) if level else None

    def _at(self, table: int, level: int) -> Spte:
        address = table + mmu.index(self._address, level) * 8
        return Spte(level, address, self._path.world.word(address))

    def _next(self, at: Spte) -> Spte:
        value = self._path.world.word(at.address)
        return self._at(value & ADDRESS, at.level - 1)

    def _down(self, walked: GuestWalk) -> Spte | None:
        """The tables that mirror the guest's, as far as those reach, each written or checked against the guest's entry
        before it is linked; the SPTE of the guest's leaf level."""
        at = self._first()
        while at is not None and at.level > walked.level:
            self._shadow.note_use(at.address)
            parent = self._parent(at, walked)
            entry = walked.entry(at.level - 1)
            child = self._shadow.child(at, parent, entry.table >> FRAME_BITS, direct=False, access=entry.above)
            if child is not None:
                self._shadow.sync_children(child, self._root.role)
                self._shadow.link(at, child)
            at = self._next(at)
        return at

    def _parent(self, at: Spte, walked: GuestWalk) -> ShadowPage:
        if (
            self._root.special
            and self._shadow.pages.page(at.address) is None
            and (Bug.WALK_START in self._module.parameters.bugs)
        ):
            raise Halt(
                f"FNAME(fetch)() takes a special root for a level-{at.level} shadow page and reads gw->table_gfn"
                f"[{at.level - 2}], which a walk of {walked.entries[0].level.level} levels never set: what it writes "
                "there is not known"
            )
        return self._shadow.page_of(at.address, "FNAME(fetch)()")

    def _below(self, at: Spte, gpa: int, goal: int, access: int) -> Spte:
        """Direct tables where the guest's page is larger than what can be mapped."""
        spte, nx = self._module.spte, self._module.parameters.nx_huge_pages
        while True:
            is_table = spte.is_present(at.value) and not spte.is_leaf(at.value, at.level)
            if at.level == goal and goal > 1 and is_table and at.value & ADDRESS in self._shadow.vm.no_huge:
                goal -= 1
            if at.level == goal:
                return at
            self._shadow.note_use(at.address)
            if is_table:
                self._validate(at, access)
                at = Spte(at.level, at.address, self._path.world.word(at.address))
            parent = self._shadow.page_of(at.address, "kvm_mmu_get_child_sp()")
            base = (gpa & ~(page_size(at.level) - 1)) >> FRAME_BITS
            child = self._shadow.child(at, parent, base, direct=True, access=access)
            if child is not None:
                self._shadow.link(at, child)
                if nx and self._check.fetch:
                    self._shadow.note_no_huge(child.table)
            at = self._next(at)

    def _validate(self, at: Spte, access: int) -> None:
        """validate_direct_spte(): a direct table that was made for other rights is let go."""
        child = self._shadow.pages.page(at.value & ADDRESS)
        if child is not None and child.role.direct and child.role.access != access:
            self._shadow.zap_entry(self._shadow.page_of(at.address, "validate_direct_spte()"), at.address)
            self._path.did("validate_direct_spte()", f"the table at {child.table:#x} has other rights")

    # --- what is set

    def _mmio(self, at: Spte, gpa: int, access: int) -> str:
        """kvm_handle_noslot_fault(), mark_mmio_spte()."""
        path, spte = self._path, self._module.spte
        path.did("kvm_handle_noslot_fault()", f"no memslot holds GPA {gpa:#x}: MMIO")
        path.cache_mmio(gpa, None if self._root.role.direct else self._address)
        if not spte.mmio_mask or gpa >> 52:
            return "EMULATE"
        value = spte.mmio(gpa >> FRAME_BITS, path.vm.generation, access)
        if at.value != value:
            if spte.is_present(at.value):
                self._shadow.zap_entry(self._shadow.page_of(at.address, "mark_mmio_spte()"), at.address)
            path.world.write_word(at.address, value)
            path.count("pf_mmio_spte_created")
        path.did("mark_mmio_spte()", f"MMIO SPTE {value:#x} at {at.address:#x}", "mark_mmio_spte")
        return "EMULATE"

    def _prefetch(self, at: Spte, table: ShadowPage) -> None:
        """FNAME(pte_prefetch)(): neighbours whose pages the host has present, up to the first that cannot be mapped
        so."""
        path, spte = self._path, self._module.spte
        first = (at.address & 0xFFF) >> 3 & ~(PREFETCH - 1)
        count = 0
        for n in range(first, first + PREFETCH):
            address = table.table + n * 8
            value = path.world.word(address)
            if address == at.address or spte.is_present(value):
                continue
            if not self._prefetch_one(Spte(1, address, value), table, n):
                break
            count += 1
        if count:
            path.did("FNAME(pte_prefetch)()", f"{count} neighbours are mapped too")

    def _prefetch_one(self, at: Spte, table: ShadowPage, n: int) -> bool:
        """FNAME(prefetch_gpte)(): as far as the guest has used the page, and without a page to be fetched for it."""
        path = self._path
        entry = self._shadow.guest_entry(table, n)
        access = self._shadow.usable(table, *entry) if entry else None
        if entry is None or access is None:
            if entry is not None and at.value != self._module.spte.absent:
                self._shadow.zap_entry(table, at.address)  # prefetch_invalid_gpte() drops what is there, an MMIO mark
            return False
        lv, gpte = entry
        gpa = gpte & lv.page_address
        slot = find(path.vm.slots, gpa)
        if slot is None or slot.read_only or (slot.dirty_log and access & ACC_WRITE):
            return False
        found = mm.lookup(path.world.memory, path.space.levels, path.space.root, slot.to_hva(gpa))
        if found is None:
            return False
        hpa = found.hpa + slot.to_hva(gpa) - found.hva
        self._shadow.set_leaf(
            at, table, slot, hpa, gpa >> FRAME_BITS, access, host_writable=found.write, prefetched=True
        )
        return True
