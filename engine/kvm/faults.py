"""KVM's fault path: from an exit to the SPTEs written and a RET_PF_* value; and direct MMUs' part of it.

Every decision uses KVM's own walk at its own level; nothing compares with what the CPU walked. Sources:
kvm_mmu_page_fault(), kvm_mmu_write_protect_fault(), handle_mmio_page_fault(), kvm_tdp_page_fault(), fast_page_fault(),
kvm_tdp_mmu_map(), direct_map(), npf_interception(), pf_interception(), handle_ept_violation(), handle_ept_misconfig()
(reference page, section 5).
"""

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.basis import Basis, Ground, assumed
from engine.arch.bits import bit
from engine.arch.faults import EptMisconfiguration, EptViolation, NestedPageFault, PageFault
from engine.arch.formats import EPT4, EPT5, LEVEL4, LEVEL5, PAE, Setting
from engine.arch.registers import Vendor
from engine.arch.rights import READ, Access, Check
from engine.errors import InputError
from engine.host.machine import PcpuSetup
from engine.host.world import Halt, Oops, World
from engine.kvm import mmu, zap
from engine.kvm.actions import Action
from engine.kvm.guest_walk import Stopped, guest_fault
from engine.kvm.kernels import Spurious
from engine.kvm.memslots import Memslot, Space, fault_in, find
from engine.kvm.mirrored import mirrored
from engine.kvm.mmu import Spte
from engine.kvm.module import Module
from engine.kvm.nested import Reflected, reflect
from engine.kvm.role import PAE_LEVEL
from engine.kvm.shadow import ShadowMmu
from engine.kvm.shadow_faults import ShadowFault
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import LATER_COUNTERS, MmioInfo, Root, Vcpu, Vm

PRESENT, WRITE, USER, RSVD, FETCH = (bit(n) for n in range(5))
GUEST_PAGE = bit(33)
WRITES_GUEST_TABLE = GUEST_PAGE | WRITE | PRESENT

MemoryExit = NestedPageFault | EptViolation | EptMisconfiguration | PageFault
"""What KVM is asked about: exits of nested paging, and without it every #PF of the guest."""
RESUMING = ("RETRY", "FIXED", "SPURIOUS")


class Reaction(msgspec.Struct, frozen=True):
    """KVM's answer to an exit. ``result``: "RET_PF_FIXED" and so on, an errno, "oops", or "unknown"; ``value``: which
    number a RET_PF_* is in this version, None for the others.

    ``resumes``: the vCPU goes back into the guest and makes the same access again. Else the access ends here: the
    instruction is emulated (``emulates``; ``gpa``: where, if the exit told), somebody else gets the fault, or the VM
    cannot go on. ``injected``: the #PF that the guest gets; ``reflected``: the exit that a hypervisor inside it gets.
    """

    error_code: int
    result: str
    resumes: bool
    emulates: bool
    actions: tuple[Action, ...]
    basis: Basis
    gpa: int | None = None
    value: int | None = None
    injected: PageFault | None = None
    reflected: Reflected | None = None


def unpaged_check(error: int) -> Check:
    """What a fault of a guest without paging asks for: nothing of any table."""
    return Check(need=0, names=(), writes=bool(error & WRITE), fetch=bool(error & FETCH), user=bool(error & USER))


class FaultPath:
    """One exit being handled. ``world`` is changed in place; ``vm`` and ``vcpu`` are the values afterwards."""

    def __init__(
        self, world: World, module: Module, space: Space, vm: Vm, vcpu: Vcpu, setup: PcpuSetup, access: Access = READ
    ) -> None:
        self.world, self.module, self.space = world, module, space
        self.vm, self.vcpu = vm.with_vcpu(vcpu), vcpu
        self._setup, self._access = setup, access
        self._actions: list[Action] = []
        self._stopped: Stopped | None = None
        assert vcpu.root is not None
        self._root: Root = vcpu.root

    def handle(self, exit_: MemoryExit) -> Reaction:
        """The exit handler, and kvm_mmu_page_fault()."""
        self.count("exits")
        address, error = self._entry(exit_)
        known_gpa = address if self.vcpu.role.direct and self.module.tdp_enabled else None
        basis = Basis(Ground.KERNEL, f"{self.module.kernel.label}: kvm_mmu_page_fault()")
        try:
            if self._is_beyond_guest(exit_, address):
                ret, known_gpa = "EMULATE", None
            else:
                ret = self._page_fault(address, error, exit_)
        except Oops as oops:
            self.did(oops.function, str(oops))
            self.vm = msgspec.structs.replace(self.vm, dead=f"{oops}; its mmu_lock is held for ever.")
            return Reaction(error, "oops", False, False, tuple(self._actions), basis)
        except Halt as halt:
            self.did("kvm_mmu_page_fault()", str(halt))
            return Reaction(error, "unknown", False, False, tuple(self._actions), assumed(str(halt)))
        if ret.startswith("-"):
            return Reaction(error, ret, False, False, tuple(self._actions), basis)
        if self._stopped is not None:
            return self._not_ours(self._stopped, exit_, address, error, basis)
        value = self.module.kernel.ret_pf.index(ret)
        resumes, emulates = ret in RESUMING, ret == "EMULATE"
        return Reaction(error, f"RET_PF_{ret}", resumes, emulates, tuple(self._actions), basis, known_gpa, value)

    def _not_ours(self, stopped: Stopped, exit_: MemoryExit, address: int, error: int, basis: Basis) -> Reaction:
        """kvm_inject_emulated_page_fault(): the guest gets a #PF, or L1 an exit. KVM returns RET_PF_RETRY."""
        value = self.module.kernel.ret_pf.index("RETRY")
        what = mirrored(self.module, self.vcpu, self._setup)
        assert what is not None
        fault = reflected = None
        if what.second is None:
            fault = guest_fault(stopped, address)
            self._invalidate(address, fault.error_code)
            self.did("kvm_inject_emulated_page_fault()", f"#PF, error code {fault.error_code:#x}, for the guest")
        else:
            reflected = reflect(stopped, what.second, None if isinstance(exit_, PageFault) else exit_, address)
            amd = self.module.vendor is Vendor.AMD
            name = "nested_svm_inject_npf_exit()" if amd else "nested_ept_inject_page_fault()"
            self.did(name, f"{reflected.name} for L2-physical {address:#x} goes to L1", "kvm_nested_vmexit_inject")
        return Reaction(
            error, "RET_PF_RETRY", False, False, tuple(self._actions), basis, None, value, fault, reflected
        )  # fmt: skip

    def _invalidate(self, address: int, error: int) -> None:
        """A fault on present entries is made sure of: the SPTE for ``address`` is read again, else it could repeat."""
        if error & PRESENT and not error & RSVD:
            shadow = self._shadow()
            shadow.invalidate(self._root, address)
            self._take(shadow)

    def prefault(self, gpa: int) -> str:
        """KVM_PRE_FAULT_MEMORY for one page, kvm_tdp_map_page(): as a read fault would map it; the RET_PF_* name."""
        return self._tdp_page_fault(gpa, USER)

    # --- helpers

    def did(self, function: str, did: str, tracepoint: str = "") -> None:
        self._actions.append(Action(function, did, tracepoint))

    def count(self, *names: str) -> None:
        known = [n for n in names if self.module.kernel.pf_counters or n not in LATER_COUNTERS]
        self.vcpu = msgspec.structs.replace(self.vcpu, counters=self.vcpu.counters.plus(*known))

    def _write(self, address: int, value: int) -> None:
        self.world.write_word(address, value)

    def _shadow(self) -> ShadowMmu:
        what = mirrored(self.module, self.vcpu, self._setup)
        vm = self.vm.with_vcpu(self.vcpu)
        return ShadowMmu(self.world, self.module, self.space, vm, what, self._actions)

    def _take(self, shadow: ShadowMmu) -> None:
        """What became of the mirror tables is the VM's; a root of this vCPU may have gone."""
        self.vm = shadow.vm
        left = self.vm.vcpus[self.vcpu.index]
        self.vcpu = msgspec.structs.replace(self.vcpu.with_mmu(left.mmu), parked=left.parked)

    # --- the exit

    def _entry(self, exit_: MemoryExit) -> tuple[int, int]:
        """(address, PFERR code) as the exit handler passes them on (reference page, 5.2). Of a #PF: linear, CR2.

        On VMX no kernel here tells guest tables from final pages (bits 32 and 33).
        """
        if isinstance(exit_, PageFault):
            name = "pf_interception()" if self.module.vendor is Vendor.AMD else "handle_exception_nmi()"
            self.did(name, f"#PF at {exit_.cr2:#x}, error code {exit_.error_code:#x}", "kvm_page_fault")
            return exit_.cr2, exit_.error_code
        if isinstance(exit_, NestedPageFault):
            error = exit_.exitinfo1
            if not self.module.kernel.keeps_error_code_high:
                error &= 0xFFFF_FFFF
            self.did("npf_interception()", f"GPA {exit_.exitinfo2:#x}, error {error:#x}", "kvm_page_fault")
            return exit_.exitinfo2, error
        if isinstance(exit_, EptMisconfiguration):
            self.did("handle_ept_misconfig()", f"GPA {exit_.gpa:#x}, error {RSVD:#x}")
            return exit_.gpa, RSVD
        q = exit_.qualification
        error = (q & 1) * USER | (q >> 1 & 1) * WRITE | (q >> 2 & 1) * FETCH | bool(q >> 3 & 7) * PRESENT
        self.did("handle_ept_violation()", f"GPA {exit_.gpa:#x}, error {error:#x}", "kvm_page_fault")
        return exit_.gpa, error

    def _is_beyond_guest(self, exit_: MemoryExit, gpa: int) -> bool:
        """allow_smaller_maxphyaddr: a GPA that the guest's MAXPHYADDR does not have is left to the emulator."""
        if not isinstance(exit_, EptViolation) or not self.module.smaller_maxphyaddr:
            return False
        if not gpa >> self.vcpu.cpuid.maxphyaddr:
            return False
        self.did("kvm_emulate_instruction()", f"GPA {gpa:#x} is beyond the guest's MAXPHYADDR")
        return True

    def _page_fault(self, address: int, error: int, exit_: MemoryExit) -> str:
        """kvm_mmu_page_fault(): RET_PF_* without its prefix, or an errno."""
        ret = "INVALID"
        if error & RSVD:
            ret = self._handle_mmio_page_fault(address)
        if ret == "INVALID":
            self.count("pf_taken")
            try:
                ret = self._do_page_fault(address, error)
            except InputError as full:
                self.did("mmu_topup_memory_caches()", str(full))
                return "-ENOMEM"
            if ret == "WRITE_PROTECTED":
                ret = self._write_protect_fault(address, exit_)
            statistic = {"FIXED": "pf_fixed", "EMULATE": "pf_emulate", "SPURIOUS": "pf_spurious"}.get(ret)
            if statistic:
                self.count(statistic)
        return ret

    def _do_page_fault(self, address: int, error: int) -> str:
        """mmu->page_fault."""
        if self.vcpu.role.direct and self.module.tdp_enabled:
            return self._tdp_page_fault(address, error)
        shadow = self._shadow()
        what = shadow.mirrored
        check = what.check(self._access, bool(error & WRITE), bool(error & FETCH)) if what else unpaged_check(error)
        fault = ShadowFault(self, shadow, self._root, address, check, present=bool(error & PRESENT))
        try:
            ret = fault.handle()
        finally:
            self._take(shadow)
        self._stopped = fault.stopped
        return ret

    def _write_protect_fault(self, address: int, exit_: MemoryExit) -> str:
        """kvm_mmu_write_protect_fault(): KVM itself took W away, for a guest table that it mirrors lies there.

        L1's own tables are no concern of KVM's: where hardware could not walk them, the mirrors go, once.
        """
        code = exit_.exitinfo1 if isinstance(exit_, NestedPageFault) else 0
        gfn = address >> FRAME_BITS
        if self.vcpu.role.direct and code & WRITES_GUEST_TABLE == WRITES_GUEST_TABLE and self.vm.retried != gfn:
            shadow = self._shadow()
            gone = shadow.unprotect(gfn)
            self._take(shadow)
            self.vm = msgspec.structs.replace(self.vm, retried=gfn)
            if gone:
                self.did("kvm_mmu_unprotect_gfn_and_retry()", f"what mirrored gfn {gfn:#x} is zapped")
                return "RETRY"
        self.did("kvm_mmu_write_protect_fault()", f"the write to gfn {gfn:#x} is emulated")
        return "EMULATE"

    # --- reserved bits: MMIO, or so KVM takes it

    def _handle_mmio_page_fault(self, address: int) -> str:
        if self._is_cached_mmio(address):
            self.did("mmio_info_in_cache()", "the vCPU remembers this frame as MMIO", "vcpu_match_mmio")
            return "EMULATE"
        direct = self.vcpu.role.direct and self.module.tdp_enabled
        walk = mmu.walk(self.world, self.module, self._root, address) if direct else None
        path = walk if walk is not None else self._shadow().walk(self._root, address)
        spte = self.module.spte
        where = f"KVM's walk from level {self._root.role.level}"
        for step in path:
            if spte.is_present(step.value) and self._is_reserved(step):
                self.did("handle_mmio_page_fault()", f"{where}: SPTE {step.value:#x} has reserved bits: WARN, -EINVAL")
                return "-EINVAL"
        if path and spte.is_mmio(path[-1].value):
            leaf = path[-1]
            generation = spte.generation_of(leaf.value)
            if generation != self.vm.generation & spte.generation_mask:
                did = "the MMIO SPTE is of an older generation of the memslots"
                self.did("check_mmio_spte()", did, "check_mmio_spte")
                return "INVALID"
            gfn = (leaf.value & ADDRESS) >> FRAME_BITS
            self.cache_mmio(gfn << FRAME_BITS, None if self.vcpu.role.direct else address)
            self.did("handle_mmio_page_fault()", f"{where}: an MMIO SPTE", "handle_mmio_page_fault")
            return "EMULATE"
        normal = path and spte.is_present(path[-1].value)
        found = f"a normal SPTE {path[-1].value:#x}" if normal else "nothing mapped"
        self.did("handle_mmio_page_fault()", f"{where}: {found}, so another CPU must have zapped it: try again")
        return "RETRY"

    def _is_cached_mmio(self, address: int) -> bool:
        """mmio_info_in_cache(): never for L2-physical addresses, which the cache knows nothing of."""
        known = self.vcpu.mmio
        if known is None or known.generation != self.vm.generation or self._is_nested:
            return False
        if self.vcpu.role.direct:
            return bool(known.gfn) and known.gfn == address >> FRAME_BITS
        return known.page == address >> FRAME_BITS

    @property
    def _is_nested(self) -> bool:
        """The address of a fault is L2-physical."""
        what = mirrored(self.module, self.vcpu, self._setup)
        return what is not None and what.second is not None

    def cache_mmio(self, gpa: int, linear: int | None) -> None:
        """vcpu_cache_mmio_info(). ``linear``: the address that led there, where guest tables are mirrored."""
        page = None if linear is None else linear >> FRAME_BITS
        self.vcpu = msgspec.structs.replace(self.vcpu, mmio=MmioInfo(gpa >> FRAME_BITS, self.vm.generation, page))

    def _is_reserved(self, step: Spte) -> bool:
        """is_rsvd_spte() by shadow_zero_check, which is built for the captured depth."""
        is_ept = self.module.tdp_enabled and self.module.vendor is Vendor.INTEL
        amd, root_level = self.module.vendor is Vendor.AMD, self._root.role.level
        legacy = PAE if root_level == PAE_LEVEL else LEVEL5 if root_level == 5 else LEVEL4
        fmt = legacy if not is_ept else EPT5 if root_level == 5 else EPT4
        lv = next(lv for lv in fmt.levels if lv.level == step.level)
        setting = Setting(
            maxphyaddr=self.module.maxphyaddr, nxe=True, amd_bit8=amd, page1gb=self.module.page1gb or is_ept,
            execute_only=False,
        )  # fmt: skip
        entry = lv.entry(bool(step.value & lv.leaf(setting)) or lv.table is None)
        illegal = any(step.value & rule.mask == rule.value for rule in entry.illegal if rule.when(setting))
        return illegal or bool(step.value & entry.reserved_bits(setting))

    # --- kvm_tdp_page_fault()

    def _tdp_page_fault(self, gpa: int, error: int) -> str:
        slot = find(self.vm.slots, gpa)
        if error & WRITE and error & PRESENT and self.vm.shadow.is_tracked(gpa >> FRAME_BITS):
            self.did("page_fault_handle_page_track()", f"GPA {gpa:#x} holds a guest table that KVM mirrors")
            return "WRITE_PROTECTED"
        ret = self._fast_page_fault(gpa, error, slot)
        if ret != "INVALID":
            return ret
        if slot is None:
            return self._no_slot(gpa, error)
        if slot.read_only and error & WRITE:
            self.did("kvm_handle_error_pfn()", "a write to a read-only memslot: KVM_PFN_ERR_RO_FAULT")
            return "EMULATE"
        try:
            page = fault_in(self.world, self.space, self.vm.index, slot, gpa)
        except InputError as full:
            self.did("kvm_handle_error_pfn()", f"KVM_PFN_ERR_FAULT: {full}")
            return "-EFAULT"
        self.did(
            "kvm_mmu_faultin_pfn()",
            f"GPA {gpa:#x} is HVA {slot.to_hva(gpa):#x} in slot {slot.id}; the host maps it to HPA "
            f"{page.hpa + slot.to_hva(gpa) - page.hva:#x} with a page of {page.size >> 10} KiB",
        )
        exec_fault = bool(error & FETCH)
        most = self._root.role.level - 1
        level, why = mmu.huge_level(self.module, self.vm, slot, page, gpa, most, exec_fault=exec_fault)
        self.did("kvm_mmu_hugepage_adjust()", f"level {level}: {why}", "kvm_mmu_spte_requested")
        target = self._map_path(gpa, level, no_huge=exec_fault and self.module.parameters.nx_huge_pages)
        hpa = page.hpa + slot.to_hva(gpa & ~(mmu.page_size(target.level) - 1)) - page.hva
        return self._set(target, gpa, error, slot, hpa, page.write and not slot.read_only)

    def _fast_page_fault(self, gpa: int, error: int, slot: Memslot | None) -> str:
        """Without mmu_lock: only where a present SPTE may simply be made writable, or tracked rights given back."""
        absent_without_ad = not error & PRESENT and not self.module.ad_bits
        write_to_present = error & PRESENT and error & WRITE
        if error & RSVD or not (absent_without_ad or write_to_present):
            return "INVALID"
        spte, last = self.module.spte, mmu.walk(self.world, self.module, self._root, gpa)[-1]
        if not spte.is_present(last.value):
            return "INVALID"
        mmu.page_of(self.world, last.address, "fast_page_fault()")
        if spte.allows(last.value, bool(error & WRITE), bool(error & FETCH)):
            self.count("pf_fast")
            self.did("fast_page_fault()", f"SPTE {last.value:#x} already allows the access", "fast_page_fault")
            return "SPURIOUS"
        new = spte.restored(last.value) if spte.is_tracked(last.value) else last.value
        if error & WRITE and last.value & spte.mmu_writable:
            new |= spte.write
            if last.level > 1 and slot is not None and slot.dirty_log:
                return "INVALID"
        if new == last.value or not spte.allows(new, bool(error & WRITE), bool(error & FETCH)):
            return "INVALID"
        self.count("pf_fast")
        self._write(last.address, new)
        self.did("fast_page_fault()", f"{last.value:#x} becomes {new:#x} at {last.address:#x}", "fast_page_fault")
        if slot is not None and new & spte.write:
            self._mark_dirty(slot, gpa)
        return "FIXED"

    def _no_slot(self, gpa: int, error: int) -> str:
        """kvm_handle_noslot_fault(), mark_mmio_spte(): no memory there, so a device of the VMM."""
        self.did("kvm_handle_noslot_fault()", f"no memslot holds GPA {gpa:#x}: MMIO")
        self.cache_mmio(gpa, None)
        spte = self.module.spte
        if not spte.mmio_mask or gpa >> self.module.maxphyaddr:
            return "EMULATE"
        target = self._map_path(gpa, 1)
        mmu.page_of(self.world, target.address, "mark_mmio_spte()")
        if self._is_spurious(target, error):
            return "SPURIOUS"
        value = spte.mmio(gpa >> FRAME_BITS, self.vm.generation)
        self._write(target.address, value)
        self.count("pf_mmio_spte_created")
        self.did("mark_mmio_spte()", f"MMIO SPTE {value:#x} at {target.address:#x}", "mark_mmio_spte")
        return "EMULATE"

    def _map_path(self, gpa: int, level: int, *, no_huge: bool = False) -> Spte:
        target, self.vm, done = mmu.map_path(
            self.world, self.module, self.vm, self._root, gpa, level, no_huge=no_huge
        )  # fmt: skip
        self._actions += done
        return target

    def _is_spurious(self, target: Spte, error: int) -> bool:
        """The early test of the TDP MMU: a leaf is there, and it allows the access."""
        spte = self.module.spte
        if not self.module.tdp_mmu or self.module.kernel.spurious is not Spurious.ALLOWED:
            return False
        is_leaf = spte.is_present(target.value) and spte.is_leaf(target.value, target.level)
        if not is_leaf or not spte.allows(target.value, bool(error & WRITE), bool(error & FETCH)):
            return False
        self.did(
            "tdp_mmu_map_handle_target_level()", f"SPTE {target.value:#x} is present and allows the access"
        )  # fmt: skip
        return True

    def _set(self, target: Spte, gpa: int, error: int, slot: Memslot, hpa: int, host_writable: bool) -> str:
        """tdp_mmu_map_handle_target_level(), or mmu_set_spte(): the SPTE of ``target`` shall map ``hpa``."""
        spte, tdp_mmu, old = self.module.spte, self.module.tdp_mmu, target.value
        function = "tdp_mmu_map_handle_target_level()" if tdp_mmu else "mmu_set_spte()"
        level = mmu.page_of(self.world, target.address, function).level
        if tdp_mmu and self.module.kernel.checks_level and level != target.level:
            self.did(function, f"WARN: the table is one of level {level}, the walk is at level {target.level}")
            return "RETRY"
        if self._is_spurious(target, error):
            return "SPURIOUS"
        executable = not (target.level > 1 and self.module.parameters.nx_huge_pages)
        had_write = spte.is_present(old) and spte.is_writable(old)
        withheld = host_writable and not had_write and not self._may_write(target, gpa)
        new = spte.leaf(
            hpa, target.level, host_writable=host_writable, writable=not withheld, executable=executable
        )  # fmt: skip
        if withheld and error & WRITE and new == old:
            return "WRITE_PROTECTED"
        if new == old:
            self.did(function, f"SPTE {old:#x} is what it should be")
            return "SPURIOUS"
        if spte.is_present(old) and not spte.is_leaf(old, target.level):
            self.vm, freed = zap.free_below(self.world, self.module, self.vm, target)
            self.did(
                "handle_removed_pt()" if tdp_mmu else "drop_parent_pte()",
                f"{freed} tables below give way to a larger page",
            )
        self._write(target.address, new)
        trace = "kvm_tdp_mmu_spte_changed" if tdp_mmu else "kvm_mmu_set_spte"
        self.did(function, f"level {target.level}: SPTE {new:#x} at {target.address:#x}", trace)
        if new & spte.write:
            self._mark_dirty(slot, gpa)
        return "WRITE_PROTECTED" if withheld and error & WRITE else "FIXED"

    def _may_write(self, target: Spte, gpa: int) -> bool:
        """Whether no mirrored guest table forbids it: those of one page may go out of sync, a larger page holds
        none."""
        if target.level > 1 or not self.vm.shadow.by_gfn:
            return True
        shadow = self._shadow()
        allowed = shadow.may_write(gpa >> FRAME_BITS)
        self._take(shadow)
        return allowed

    def _mark_dirty(self, slot: Memslot, gpa: int) -> None:
        if slot.dirty_log:
            self.did("mark_page_dirty_in_slot()", f"gfn {gpa >> FRAME_BITS:#x}")
