"""The state of everything at one step, and what an event did. States share memory frames (copy on write)."""

from collections.abc import Callable
from enum import Enum

import msgspec

from engine import events as ev
from engine.arch.basis import manual
from engine.arch.faults import EntryFailure, GeneralProtection, PageFault, Unknown
from engine.arch.memory import ADDRESS_BITS
from engine.arch.paging import Paging, bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.rules import DEFAULT, Rules
from engine.arch.second_stage import Kind2, SecondStage, ept, npt
from engine.arch.walk import Update, Walk
from engine.host.machine import Host, Pcpu
from engine.kvm import mmu
from engine.kvm.actions import Action
from engine.kvm.emulate import Emulated
from engine.kvm.faults import Reaction
from engine.kvm.mirrored import second_of
from engine.kvm.module import Module
from engine.kvm.nested import Reflected, l1_features
from engine.kvm.vm import Root, Vcpu, Vm
from engine.memory.image import Image
from engine.memory.physical import SparseMemory

Images = Callable[[ev.ImageRef], Image]
"""Gives the image that a reference names; raises InputError with a sentence where it cannot."""


class StaleHostCr4(Enum):
    """What a VM exit does where HOST_CR4, which the kernel fills in from its copy of CR4, differs from CR4 in LA57."""

    LOST = "the pCPU is lost"
    LOADED = "LA57 changes back with the exit"


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scenario starts from: the features of an image's processor, and how open questions are settled."""

    features: Features = Features()
    rules: Rules = DEFAULT
    stale_host_cr4: StaleHostCr4 = StaleHostCr4.LOST


class Refusal(msgspec.Struct, frozen=True):
    """The event cannot happen here; ``reason`` is one sentence. The state before it stays."""

    reason: str


class Exit(msgspec.Struct, frozen=True):
    """A VM exit on the way: the hardware's walk that ended in it, and how KVM answered."""

    walk: Walk
    reaction: Reaction


class Livelock(msgspec.Struct, frozen=True):
    """Proof that an access never ends.

    After ``first`` exits the same exit came back ``period`` exits later, and no byte of memory and nothing of KVM's
    state had changed but counters. ``growth``: those counters, a round; ``tracepoints``: what a trace of a round shows.
    """

    first: int
    period: int
    growth: dict[str, int]
    tracepoints: tuple[str, ...]


class Effect(msgspec.Struct, frozen=True):
    """What the last event did.

    ``walks``: the walks of an access, one a page, or those a mode change caused. ``loaded``: what a load returned, None
    if unknown. ``fault``: the #GP that a register write raised, why a VM entry failed, or the #PF that KVM itself found
    for the guest where the hardware found none, or another. ``exits``: those of a guest's
    access, in order. ``mmio``: a device of the VMM got the access; ``emulated``: what KVM's emulator made of it, where
    it carried it out. ``actions``: what KVM did outside of exits. ``notes``: sentences for the timeline. ``assumed``:
    named assumptions that decided what happened.
    """

    walks: tuple[Walk, ...] = ()
    fault: GeneralProtection | Unknown | EntryFailure | PageFault | None = None
    loaded: int | None = None
    exits: tuple[Exit, ...] = ()
    livelock: Livelock | None = None
    mmio: bool = False
    emulated: Emulated | None = None
    reflected: Reflected | None = None
    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


NOTHING = Effect()


class State(msgspec.Struct, frozen=True):
    """Everything at one step.

    Either a memory image or a ``host``, with KVM (``module``) and its ``vms``. ``memory`` is physical memory, the
    host's where there is one. ``cpu``: the CPU of the image whose registers were taken, None if none was; ``second``:
    the second stage that was named for the image.
    """

    features: Features
    rules: Rules
    memory: SparseMemory
    registers: Registers = Registers()
    image: Image | None = None
    cpu: int | None = None
    second: SecondStage | None = None
    host: Host | None = None
    module: Module | None = None
    vms: tuple[Vm | None, ...] = ()
    effect: Effect = NOTHING
    stale_host_cr4: StaleHostCr4 = StaleHostCr4.LOST

    @property
    def paging(self) -> Paging:
        """The first stage of the image's registers."""
        in_memory = self.second is not None and self.second.kind is Kind2.NPT
        return bind(self.registers, self.features, self.rules, pdptes_from_memory=in_memory)

    def vcpu(self, vm: int, vcpu: int) -> tuple[Vm, Vcpu] | Refusal:
        """The VM and vCPU of these numbers, or a sentence that there is none."""
        found = self.vm(vm)
        if isinstance(found, Refusal):
            return found
        if not 0 <= vcpu < len(found.vcpus):
            return Refusal(f"VM {vm} has no vCPU {vcpu}: it has {len(found.vcpus)}.")
        return found, found.vcpus[vcpu]

    def vm(self, vm: int) -> Vm | Refusal:
        """VM number ``vm``, or a sentence that there is none, or none that still lives."""
        found = self.vms[vm] if 0 <= vm < len(self.vms) else None
        if found is None:
            return Refusal(f"There is no VM {vm}.")
        return Refusal(f"VM {vm} does nothing any more: {found.dead}") if found.dead else found

    def is_nested(self, vm: int, vcpu: int) -> bool:
        """Whether a nested guest is what ran last on a vCPU: it runs still, or its hypervisor has just got an exit."""
        found = self.vcpu(vm, vcpu)
        if isinstance(found, Refusal):
            return False
        return found[1].nested is not None or self.effect.reflected is not None

    def with_vm(self, vm: Vm) -> "State":
        return msgspec.structs.replace(self, vms=tuple(vm if n == vm.index else v for n, v in enumerate(self.vms)))

    def guest_paging(self, vcpu: Vcpu) -> Paging:
        """The guest's own paging: its registers, on the pCPU it is on, or, without nested paging, as KVM plays it."""
        assert self.host is not None
        assert self.module is not None
        features = self.host.pcpus[vcpu.pcpu].features
        if not self.module.tdp_enabled:
            return bind(vcpu.registers, l1_features(vcpu.cpuid, features), self.rules)
        return bind(vcpu.registers, features, self.rules, pdptes_from_memory=self.host.vendor is Vendor.AMD)

    def l1_stage(self, vcpu: Vcpu) -> SecondStage | None:
        """What a hypervisor inside the VM translates its guest's physical addresses with, to its own."""
        assert self.host is not None
        return second_of(vcpu, self.host.pcpus[vcpu.pcpu].setup)

    def translation(self, vcpu: Vcpu) -> tuple[Paging, SecondStage | None] | EntryFailure | None:
        """What the hardware walks for a vCPU: its own tables through a second stage, or, without nested paging, tables
        of KVM's alone. None where the vCPU has no root yet."""
        assert self.host is not None
        assert self.module is not None
        if self.module.tdp_enabled:
            second = self.second_stage(vcpu)
            return (self.guest_paging(vcpu), second) if isinstance(second, SecondStage) else second
        if vcpu.root is None:
            return None
        pcpu = self.host.pcpus[vcpu.pcpu]
        lacking = _lacking(pcpu, vcpu, False)
        if lacking:
            return EntryFailure(f"pCPU {pcpu.index} has no {lacking}", _ENTRY)
        return bind(shadow_registers(vcpu, vcpu.root), pcpu.features, self.rules), None

    def host_paging(self, pcpu: int) -> Paging:
        """The paging of a pCPU for the host's own addresses."""
        assert self.host is not None
        return bind(self.host.pcpus[pcpu].registers, self.host.pcpus[pcpu].features, self.rules)

    def second_stage(self, vcpu: Vcpu) -> SecondStage | EntryFailure | None:
        """The second stage as the hardware of the vCPU's pCPU walks it; None where the vCPU has no root yet, or KVM
        uses none.

        AMD: in the mode the pCPU is in at VMRUN. Intel: as the EPTP says.
        """
        assert self.host is not None
        assert self.module is not None
        if vcpu.root is None or not self.module.tdp_enabled:
            return None
        pcpu = self.host.pcpus[vcpu.pcpu]
        lacking = _lacking(pcpu, vcpu, True)
        if lacking:
            return EntryFailure(f"pCPU {pcpu.index} has no {lacking}", _ENTRY)
        _, value = mmu.root_register(self.module, vcpu.root)
        if self.host.vendor is Vendor.AMD:
            return npt(pcpu.registers, pcpu.features, value, self.rules)
        assert pcpu.setup.ept is not None
        return ept(value, pcpu.features.maxphyaddr, pcpu.setup.ept, self.rules)


_ENTRY = manual("APM vol. 2, 15.5.1; SDM vol. 3C, 27.2.1")


def _lacking(pcpu: Pcpu, vcpu: Vcpu, nested_paging: bool) -> str:
    """What ``vcpu`` needs to be entered and ``pcpu`` does not have; '' where it has all."""
    setup = pcpu.setup
    amd = pcpu.features.vendor is Vendor.AMD
    if not setup.virtualization:
        return "SVM" if amd else "VMX"
    if nested_paging and (not setup.npt if amd else setup.ept is None):
        return "nested paging"
    return "LA57, which the guest's CR4 has set" if vcpu.registers.cr4 & CR4.LA57 and not pcpu.features.la57 else ""


def shadow_registers(vcpu: Vcpu, root: Root) -> Registers:
    """What the guest's registers really are without nested paging: paging is on, with WP, PAE and NX, and CR3 is KVM's.

    Where the guest has paging off, KVM keeps SMEP, SMAP and protection keys off too. Sources: svm_set_cr0(),
    svm_set_cr4(), svm_set_efer(); vmx_set_cr0(), vmx_set_cr4() (reference page, 7.1).
    """
    guest = vcpu.registers
    cr4 = guest.cr4 | CR4.PAE
    if not guest.cr0 & CR0.PG:
        cr4 &= ~(CR4.SMEP | CR4.SMAP | CR4.PKE | CR4.LA57)
    return msgspec.structs.replace(
        guest, cr0=int(guest.cr0 | CR0.PE | CR0.PG | CR0.WP), cr3=root.hpa, cr4=int(cr4),
        efer=int(guest.efer | EFER.NXE), pdptes=None,
    )  # fmt: skip


def unpaged(guest: Paging) -> Paging:
    """``guest`` with its paging off, for guest-physical addresses: as wide as they come, not 32 bits."""
    r = guest.registers
    off = msgspec.structs.replace(r, cr0=int(r.cr0 & ~CR0.PG), cr4=0, efer=0)
    bound = bind(off, guest.features, guest.rules, pdptes_from_memory=guest.pdptes_from_memory)
    return msgspec.structs.replace(bound, width=ADDRESS_BITS)


def start(configuration: Configuration) -> State:
    """The state before the first event: a processor at reset and memory of which nothing is known."""
    return State(
        configuration.features, configuration.rules, SparseMemory(), stale_host_cr4=configuration.stale_host_cr4
    )  # fmt: skip


def set_flags(memory: SparseMemory, updates: tuple[Update, ...]) -> SparseMemory:
    """``memory`` with the accessed and dirty flags of a walk written."""
    for update in updates:
        memory = memory.write(update.address, update.new.to_bytes(update.size, "little"))
    return memory
