"""A hypervisor inside a guest (L1) and its guest (L2): what KVM (L0) checks at entry, walks for it, and hands it.

AMD: the format of L1's NPT is L1's own paging mode, read from its registers at each VMRUN, for neither the VMCB nor
nCR3 has a level. Intel: L1's EPTP says how many levels its EPT has. Sources: svm/nested.c, vmx/nested.c (reference
page, 8).
"""

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.basis import Basis, Ground, manual
from engine.arch.bits import bit, mask
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    NestedPageFault,
    Reason,
)
from engine.arch.registers import CR0, CR4, Features, Registers
from engine.arch.second_stage import EptCapabilities, Kind2, SecondStage, ept, npt
from engine.kvm.guest_walk import Stopped
from engine.kvm.vm import GuestCpu, Nested, NestedPaging

NestedExit = NestedPageFault | EptViolation | EptMisconfiguration


class ExitField(msgspec.Struct, frozen=True):
    """A field that L1 finds after the exit; ``source``: where KVM took it from."""

    name: str
    value: int
    source: str


class Reflected(msgspec.Struct, frozen=True):
    """An exit from L2 that L1 gets. ``exit``: as hardware would have given it to L1; ``fields``: what KVM wrote into
    VMCB12 or VMCS12, each with its source."""

    name: str
    exit: NestedExit
    fields: tuple[ExitField, ...]


def l1_features(cpuid: GuestCpu, hardware: Features) -> Features:
    """The processor as L1 was told it is."""
    return msgspec.structs.replace(
        hardware, maxphyaddr=min(hardware.maxphyaddr, cpuid.maxphyaddr), page1gb=hardware.page1gb and cpuid.page1gb,
        la57=hardware.la57 and cpuid.la57,
    )  # fmt: skip


def l1_stage(
    nested: Nested, cpuid: GuestCpu, hardware: Features, capabilities: EptCapabilities | None
) -> SecondStage | EntryFailure | None:
    """What translates L2's physical addresses to L1's, as KVM's walker and any processor read it; None without one.

    AMD: of L1's CR0 only PG counts (nested_svm_init_mmu_context()). ``capabilities``: what L1 was told of EPT.
    """
    features = l1_features(cpuid, hardware)
    if nested.paging is NestedPaging.NPT:
        if not nested.l1.cr0 & CR0.PG:
            reason = "VMRUN with nested paging needs L1's paging on: VMEXIT_INVALID"
            return EntryFailure(reason, manual("AMD APM vol. 2, 15.25.4"))
        if nested.root & mask(63, features.maxphyaddr):
            reason = f"nCR3 of VMCB12 has bits beyond L1's MAXPHYADDR, {features.maxphyaddr}: VMEXIT_INVALID"
            return EntryFailure(reason, Basis(Ground.KERNEL, "nested_vmcb_check_controls()"))
        return npt(_npt_registers(nested.l1), features, nested.root)
    if nested.paging is NestedPaging.EPT:
        assert capabilities is not None
        return ept(nested.root, features.maxphyaddr, capabilities)
    return None


def _npt_registers(l1: Registers) -> Registers:
    """kvm_init_shadow_npt_mmu(): L1's CR4 without PKE, its EFER, and of CR0 PG alone."""
    return msgspec.structs.replace(l1, cr0=int(CR0.PG | CR0.PE), cr4=int(l1.cr4 & ~CR4.PKE), pdptes=None)


_HARDWARE = "kept from the hardware's exit"
_WALKER = "KVM's walk of L1's tables"


def reflect(stopped: Stopped, second: SecondStage, hardware: NestedExit | None, l2_address: int) -> Reflected:
    """nested_svm_inject_npf_exit(), nested_ept_inject_page_fault(): the exit that L1 gets for what stopped KVM's walk.

    ``hardware``: the exit that led here, None where KVM emulated. ``l2_address``: L2-physical, in bytes.
    """
    if second.kind is Kind2.NPT:
        return _npf(stopped, second, hardware)
    if stopped.reason is Reason.RESERVED:
        basis = Basis(Ground.KERNEL, "nested_ept_inject_page_fault()")
        found = EptMisconfiguration(stopped.address, "an entry of L1's EPT is misconfigured", basis)
        fields = (
            ExitField("exit reason", 49, f"{_WALKER}: RSVD"),
            ExitField("exit qualification", 0, "always 0"),
            ExitField("guest-physical address", stopped.address, "the fault's address"),
        )
        return Reflected("EPT misconfiguration", found, fields)
    return _ept_violation(stopped, hardware, l2_address)


def _npf(stopped: Stopped, second: SecondStage, hardware: NestedExit | None) -> Reflected:
    check = stopped.check
    paging = second.paging
    told = paging.setting.nxe or bool(paging.registers.cr4 & CR4.SMEP)
    low = (
        (stopped.reason is not Reason.NOT_PRESENT) * bit(0) | check.writes * bit(1) | bit(2)
        | (stopped.reason is Reason.RESERVED) * bit(3) | (check.fetch and told) * bit(4)
    )  # fmt: skip
    if isinstance(hardware, NestedPageFault):
        high, address, source = hardware.exitinfo1 & mask(63, 32), hardware.exitinfo2, _HARDWARE
    else:
        high, address, source = bit(32), stopped.address, "set for an emulated access"
    basis = Basis(Ground.KERNEL, "nested_svm_inject_npf_exit()")
    found = NestedPageFault(high | low, address, stopped.reason, basis, stopped.violations)
    fields = (
        ExitField("exit_code", 0x400, "always SVM_EXIT_NPF"),
        ExitField("exit_info_1, bits 63:32", high >> 32, source),
        ExitField("exit_info_1, bits 31:0", low, _WALKER),
        ExitField("exit_info_2", address, source if isinstance(hardware, NestedPageFault) else "the fault's address"),
    )
    return Reflected("#NPF", found, fields)


def _ept_violation(stopped: Stopped, hardware: NestedExit | None, l2_address: int) -> Reflected:
    check = stopped.check
    access = check.fetch * bit(2) | check.writes * bit(1) | (not check.fetch and not check.writes) * bit(0)
    if isinstance(hardware, EptViolation):
        # Of an access to L2's tables the hardware tells read and write.
        access |= hardware.qualification & bit(0)
        valid, gla = hardware.qualification & (bit(7) | bit(8)), hardware.gla
    else:
        valid, gla = 0, None
    rights = (stopped.every & 0b111) << 3
    basis = Basis(Ground.KERNEL, "nested_ept_inject_page_fault()")
    found = EptViolation(
        access | rights | valid, stopped.address, gla, stopped.reason, basis, stopped.violations
    )  # fmt: skip
    fields = (
        ExitField("exit reason", 48, "always EPT violation"),
        ExitField("exit qualification, bits 2:0", access, "the access"),
        ExitField("exit qualification, bits 5:3", rights >> 3, _WALKER),
        ExitField("exit qualification, bits 8:7", valid >> 7, _HARDWARE if valid else "0 for an emulated access"),
        ExitField("guest-physical address", stopped.address, "the fault's address"),
    )
    return Reflected("EPT violation", found, fields)


def pgd_frame(root: int) -> int:
    """The guest frame that a CR3, nCR3 or EPTP names."""
    return (root & mask(51, 12)) >> FRAME_BITS
