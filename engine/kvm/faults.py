"""KVM's fault path for direct MMUs: from an exit to the SPTEs written and a RET_PF_* value.

Every decision uses KVM's own walk at its own level; nothing compares with what the CPU walked. Sources:
kvm_mmu_page_fault(), handle_mmio_page_fault(), kvm_tdp_page_fault(), fast_page_fault(), kvm_tdp_mmu_map(),
npf_interception(), handle_ept_violation(), handle_ept_misconfig() (reference page, section 5).
"""

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.basis import Basis, Ground
from engine.arch.bits import bit
from engine.arch.faults import EptMisconfiguration, EptViolation, NestedPageFault
from engine.arch.formats import EPT4, EPT5, LEVEL4, LEVEL5, Setting
from engine.arch.registers import Vendor
from engine.errors import InputError
from engine.host.world import World
from engine.kvm import mmu
from engine.kvm.kernels import Spurious
from engine.kvm.memslots import Memslot, Space, fault_in, find
from engine.kvm.mmu import Spte
from engine.kvm.module import Module
from engine.kvm.vm import Root, Vcpu, Vm

PRESENT, WRITE, USER, RSVD, FETCH = (bit(n) for n in range(5))
GUEST_FINAL, GUEST_PAGE = bit(32), bit(33)

NestedExit = NestedPageFault | EptViolation | EptMisconfiguration


class Action(msgspec.Struct, frozen=True):
    """One thing KVM did: the kernel function, and what. ``tracepoint``: the event it would emit, '' for none."""

    function: str
    did: str
    tracepoint: str = ""


class Reaction(msgspec.Struct, frozen=True):
    """KVM's answer to an exit. ``result``: "RET_PF_FIXED" and so on, or an errno.

    ``resumes``: the vCPU goes back into the guest and makes the same access again. Else the access ends here: the
    instruction is emulated (``emulates``), or the VM cannot go on.
    """

    error_code: int
    result: str
    resumes: bool
    emulates: bool
    actions: tuple[Action, ...]
    basis: Basis


class FaultPath:
    """One exit being handled. ``world`` is changed in place; ``vm`` and ``vcpu`` are the values afterwards."""

    def __init__(self, world: World, module: Module, space: Space, vm: Vm, vcpu: Vcpu) -> None:
        self.world, self.module, self.space = world, module, space
        self.vm, self.vcpu = vm, vcpu
        self._actions: list[Action] = []
        assert vcpu.root is not None
        self._root: Root = vcpu.root

    def handle(self, exit_: NestedExit) -> Reaction:
        """The exit handler, and kvm_mmu_page_fault()."""
        self._count("exits")
        gpa, error = self._entry(exit_)
        ret = "INVALID"
        if error & RSVD:
            ret = self._handle_mmio_page_fault(gpa)
        if ret == "INVALID":
            self._count("pf_taken")
            try:
                ret = self._tdp_page_fault(gpa, error)
            except InputError as refused:
                self._did("hva_to_pfn()", f"no frame: {refused}")
                ret = "-ENOMEM"
            statistic = {"FIXED": "pf_fixed", "EMULATE": "pf_emulate", "SPURIOUS": "pf_spurious"}.get(ret)
            if statistic:
                self._count(statistic)
        if ret == "EMULATE":
            self._count("mmio_exits")
            self._did(
                "x86_emulate_instruction()", "the access is emulated: a device of the VMM gets it (KVM_EXIT_MMIO)"
            )
        kernel = self.module.kernel
        named = ret if ret.startswith("-") else f"RET_PF_{ret}"
        basis = Basis(Ground.KERNEL, f"{kernel.label}: kvm_mmu_page_fault()")
        resumes = ret in ("RETRY", "FIXED", "SPURIOUS", "CONTINUE")
        return Reaction(error, named, resumes, ret == "EMULATE", tuple(self._actions), basis)

    def prefault(self, gpa: int) -> str:
        """KVM_PRE_FAULT_MEMORY for one page, kvm_tdp_map_page(): as a read fault would map it; the RET_PF_* name."""
        return self._tdp_page_fault(gpa, USER)

    # --- helpers

    def _did(self, function: str, did: str, tracepoint: str = "") -> None:
        self._actions.append(Action(function, did, tracepoint))

    def _count(self, *names: str) -> None:
        self.vcpu = msgspec.structs.replace(self.vcpu, counters=self.vcpu.counters.plus(*names))

    def _entry(self, exit_: NestedExit) -> tuple[int, int]:
        """(GPA, PFERR code) as the exit handler passes them on (reference page, 5.2)."""
        if isinstance(exit_, NestedPageFault):
            error = exit_.exitinfo1
            if not self.module.kernel.keeps_error_code_high:
                error &= 0xFFFF_FFFF
            self._did("npf_interception()", f"GPA {exit_.exitinfo2:#x}, error {error:#x}", "kvm_page_fault")
            return exit_.exitinfo2, error
        if isinstance(exit_, EptMisconfiguration):
            self._did("handle_ept_misconfig()", f"GPA {exit_.gpa:#x}", "kvm_exit")
            return exit_.gpa, RSVD
        q = exit_.qualification
        error = (q & 1) * USER | (q >> 1 & 1) * WRITE | (q >> 2 & 1) * FETCH | bool(q >> 3 & 7) * PRESENT
        if q & bit(7) and self.module.kernel.keeps_error_code_high:
            error |= GUEST_FINAL if q & bit(8) else GUEST_PAGE
        self._did("handle_ept_violation()", f"GPA {exit_.gpa:#x}, error {error:#x}", "kvm_page_fault")
        return exit_.gpa, error

    # --- reserved bits: MMIO, or so KVM takes it

    def _handle_mmio_page_fault(self, gpa: int) -> str:
        path = mmu.walk(self.world, self.module, self._root, gpa)
        spte = self.module.spte
        where = f"KVM's walk from level {self._root.role.level}"
        for step in path:
            if spte.is_present(step.value) and self._reserved(step):
                self._did("handle_mmio_page_fault()", f"{where}: SPTE {step.value:#x} has reserved bits: WARN, -EINVAL")
                return "-EINVAL"
        leaf = path[-1]
        if spte.is_mmio(leaf.value):
            generation = (leaf.value >> 3 & 0xFF) | (leaf.value >> 52 & 0x7FF) << 8
            if self.module.vendor is Vendor.AMD and generation != self.vm.generation & 0x7FFFF:
                self._did("check_mmio_spte()", "the MMIO SPTE is of an older generation of the memslots")
                return "INVALID"
            self._did("handle_mmio_page_fault()", f"{where}: an MMIO SPTE", "handle_mmio_page_fault")
            return "EMULATE"
        found = f"a normal SPTE {leaf.value:#x}" if spte.is_present(leaf.value) else "nothing mapped"
        self._did("handle_mmio_page_fault()", f"{where}: {found}, so another CPU must have zapped it: try again")
        return "RETRY"

    def _reserved(self, step: Spte) -> int:
        """is_rsvd_spte() by shadow_zero_check, which is built for the captured depth."""
        if self.module.vendor is Vendor.AMD:
            fmt = LEVEL5 if self._root.role.level == 5 else LEVEL4
        else:
            fmt = EPT5 if self._root.role.level == 5 else EPT4
        lv = next(lv for lv in fmt.levels if lv.level == step.level)
        maxphyaddr = next(c.value for c in self.module.captured if c.name == "host MAXPHYADDR")
        setting = Setting(maxphyaddr=int(maxphyaddr), nxe=True, amd_bit8=self.module.vendor is Vendor.AMD)
        is_leaf = bool(step.value & lv.leaf(setting))
        return step.value & lv.entry(is_leaf or lv.table is None).reserved_bits(setting)

    # --- kvm_tdp_page_fault()

    def _tdp_page_fault(self, gpa: int, error: int) -> str:
        slot = find(self.vm.slots, gpa)
        ret = self._fast_page_fault(gpa, error, slot)
        if ret != "INVALID":
            return ret
        if slot is None:
            return self._no_slot(gpa)
        if slot.read_only and error & WRITE:
            self._did("kvm_handle_error_pfn()", "a write to a read-only memslot: KVM_PFN_ERR_RO_FAULT")
            return "EMULATE"
        page = fault_in(self.world, self.space, self.vm.index, slot, gpa)
        self._did(
            "kvm_mmu_faultin_pfn()",
            f"GPA {gpa:#x} is HVA {slot.to_hva(gpa):#x} in slot {slot.id}; the host maps it to HPA "
            f"{page.hpa + slot.to_hva(gpa) - page.hva:#x} with a page of {page.size >> 10} KiB",
        )
        level, why = mmu.huge_level(self.module, slot, page, gpa, self._root.role.level, exec_fault=bool(error & FETCH))
        self._did("kvm_mmu_hugepage_adjust()", f"level {level}: {why}", "kvm_mmu_spte_requested")
        size = mmu.page_size(level)
        hpa = page.hpa + slot.to_hva(gpa & ~(size - 1)) - page.hva
        return self._map_target(gpa, error, slot, level, hpa, page.write and not slot.read_only)

    def _fast_page_fault(self, gpa: int, error: int, slot: Memslot | None) -> str:
        """Without mmu_lock: only where a present SPTE may simply be made writable."""
        absent_without_ad = not error & PRESENT and not self.module.ad_bits
        write_to_present = error & PRESENT and error & WRITE
        if error & RSVD or not (absent_without_ad or write_to_present):
            return "INVALID"
        spte, last = self.module.spte, mmu.walk(self.world, self.module, self._root, gpa)[-1]
        if not spte.is_present(last.value):
            return "INVALID"
        if spte.allows(last.value, bool(error & WRITE), bool(error & FETCH)):
            self._count("pf_fast")
            self._did("fast_page_fault()", f"SPTE {last.value:#x} already allows the access", "fast_page_fault")
            return "SPURIOUS"
        if not error & WRITE or not last.value & spte.mmu_writable:
            return "INVALID"
        if last.level > 1 and slot is not None and slot.dirty_log:
            return "INVALID"
        self._count("pf_fast")
        self._write(last.address, last.value | spte.write | spte.dirty)
        self._did("fast_page_fault()", f"W is set in the SPTE at {last.address:#x}", "fast_page_fault")
        return "FIXED"

    def _no_slot(self, gpa: int) -> str:
        """kvm_handle_noslot_fault(), mark_mmio_spte(): no memory there, so a device of the VMM."""
        self._did("kvm_handle_noslot_fault()", f"no memslot holds GPA {gpa:#x}: MMIO")
        spte = self.module.spte
        if spte.mmio_mask:
            target, done = mmu.map_path(self.world, self.module, self.vm, self._root, gpa, 1)
            self._note(done)
            low = 0b110 if self.module.vendor is Vendor.AMD else 0
            value = spte.mmio(gpa >> FRAME_BITS, self.vm.generation, low)
            if target.value != value:
                self._write(target.address, value)
                self._count("pf_mmio_spte_created")
                self._did("mark_mmio_spte()", f"MMIO SPTE {value:#x} at {target.address:#x}", "mark_mmio_spte")
        return "EMULATE"

    def _map_target(self, gpa: int, error: int, slot: Memslot, level: int, hpa: int, host_writable: bool) -> str:
        """kvm_tdp_mmu_map() down to tdp_mmu_map_handle_target_level(), or direct_map() and mmu_set_spte()."""
        spte, tdp_mmu = self.module.spte, self.module.tdp_mmu
        target, done = mmu.map_path(self.world, self.module, self.vm, self._root, gpa, level)
        self._note(done)
        function = "tdp_mmu_map_handle_target_level()" if tdp_mmu else "mmu_set_spte()"
        old, is_leaf = target.value, spte.is_present(target.value) and spte.is_leaf(target.value, level)
        early = tdp_mmu and self.module.kernel.spurious is Spurious.ALLOWED
        if early and is_leaf and spte.allows(old, bool(error & WRITE), bool(error & FETCH)):
            self._did(function, f"SPTE {old:#x} is present and allows the access")
            return "SPURIOUS"
        executable = not (level > 1 and self.module.parameters.nx_huge_pages)
        new = spte.leaf(hpa, level, host_writable=host_writable, writable=True, executable=executable)
        if new == old:
            self._did(function, f"SPTE {old:#x} is what it should be")
            return "SPURIOUS"
        if spte.is_present(old) and not is_leaf:
            freed = mmu.free_below(self.world, self.module, target)
            self._did("handle_removed_pt()", f"{freed} tables below give way to a larger page")
        self._write(target.address, new)
        trace = "kvm_tdp_mmu_spte_changed" if tdp_mmu else "kvm_mmu_set_spte"
        self._did(function, f"level {level}: SPTE {new:#x} at {target.address:#x}", trace)
        if slot.dirty_log and new & spte.write:
            self._did("mark_page_dirty_in_slot()", f"gfn {gpa >> FRAME_BITS:#x}")
        return "FIXED"

    def _note(self, done: list[str]) -> None:
        for line in done:
            function, _, did = line.partition(": ")
            self._did(function, did, "kvm_tdp_mmu_spte_changed" if self.module.tdp_mmu else "kvm_mmu_get_page")

    def _write(self, address: int, value: int) -> None:
        self.world.write_word(address, value)
