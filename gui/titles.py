"""What an event is, in plain words: the two lines of text that the timeline has for it."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.addresses import grouped, size_name
from engine.arch.registers import Mode, Registers
from engine.arch.rights import Kind
from engine.host.modes import WAYS, Way
from engine.kvm.kernels import KERNELS
from engine.machine import Refusal, State
from gui.explain import engine_text

translate = QCoreApplication.translate

Said = tuple[str, str]
"""Title and subtitle."""
Say = Callable[[Any, State, int], Said]
"""Says it of an event and the state after it; the last is 1 where the event happened, 0 where it was refused."""


def short(address: int) -> str:
    """An address cut to its ends where it is long: 0x7f12…7abc."""
    digits = f"{address:x}"
    return f"0x{digits[:4]}…{digits[-4:]}" if len(digits) > 9 else grouped(address)


# --- a memory image


def _image_name(image: ev.ImageRef) -> str:
    return PurePosixPath(image.path.removeprefix("resource:")).name


def _paging(registers: Registers) -> str:
    """ "4-level paging, CR3 0x10_0000"."""
    if registers.mode is Mode.NONE:
        return translate("Titles", "paging is off")
    text = translate("Titles", "{mode} paging, CR3 {cr3}")
    return text.format(mode=registers.mode.value, cr3=grouped(registers.cr3))


def _open_image(event: ev.OpenImage, state: State, done: int) -> Said:
    title = translate("Titles", "{image} is opened").format(image=_image_name(event.image))
    return title, _paging(state.registers)


def _choose_cpu(event: ev.ChooseCpu, state: State, done: int) -> Said:
    return translate("Titles", "Registers of CPU {cpu} are taken").format(cpu=event.cpu), _paging(state.registers)


def _choose_root(event: ev.ChooseRoot, state: State, done: int) -> Said:
    title = translate("Titles", "Tables at {cr3} are walked").format(cr3=grouped(event.cr3))
    return title, translate("Titles", "CR3 set as by a debugger")


def _set_register(event: ev.SetRegister, state: State, done: int) -> Said:
    title = translate("Titles", "{register} is set to {value}")
    title = title.format(register=event.name.upper(), value=grouped(event.value))
    return title, translate("Titles", "as by a debugger, unchecked")


def _write_register(event: ev.WriteRegister, state: State, done: int) -> Said:
    title = translate("Titles", "{register} is written: {value}")
    return title.format(register=event.name.upper(), value=grouped(event.value)), _paging(state.registers)


def _second_stage(event: ev.ChooseSecondStage, state: State, done: int) -> Said:
    if event.kind == "none":
        return translate("Titles", "No second stage"), translate("Titles", "addresses are physical")
    text = {"npt": translate("Titles", "nCR3 {value}"), "ept": translate("Titles", "EPTP {value}")}[event.kind]
    title = translate("Titles", "{kind} translates further").format(kind=event.kind.upper())
    return title, text.format(value=grouped(event.value))


def _access(event: ev.AccessMemory, state: State, done: int) -> Said:
    title = {
        Kind.READ: translate("Titles", "Reads {address}"),
        Kind.WRITE: translate("Titles", "Writes {address}"),
        Kind.FETCH: translate("Titles", "Fetches {address}"),
        Kind.SHADOW_READ: translate("Titles", "Shadow stack: reads {address}"),
        Kind.SHADOW_WRITE: translate("Titles", "Shadow stack: writes {address}"),
    }[event.kind]
    return title.format(address=short(event.address)), ""


def _poke(event: ev.Poke, state: State, done: int) -> Said:
    title = translate("Titles", "Entry at {address} is overwritten").format(address=short(event.address))
    return title, translate("Titles", "now {value}").format(value=grouped(event.value))


# --- the host and KVM


def _boot(event: ev.BootHost, state: State, done: int) -> Said:
    title = translate("Titles", "Host boots, {count} pCPUs")
    if len(event.pcpus) == 1:
        title = translate("Titles", "Host boots, 1 pCPU")
    levels = state.host.levels if done and state.host else 4
    said = {4: translate("Titles", "4-level"), 5: translate("Titles", "5-level")}[levels]
    if event.five_level and levels == 4:
        said = translate("Titles", "4-level: pCPU 0 lacks LA57")
    return title.format(count=len(event.pcpus)), said


def _load(event: ev.LoadKvm, state: State, done: int) -> Said:
    kernel = KERNELS.get(event.kernel)
    title = translate("Titles", "kvm_init, {kernel}")
    title = title.format(kernel=engine_text(kernel.label) if kernel else event.kernel)
    if not state.module:
        return title, ""
    if not state.module.tdp_enabled:
        return title, translate("Titles", "shadow paging: nested paging is off")
    text = translate("Titles", "captures max TDP level {level}")
    return title, text.format(level=state.module.max_tdp_level)


def _unload(event: ev.UnloadKvm, state: State, done: int) -> Said:
    return translate("Titles", "KVM is unloaded"), translate("Titles", "the next load captures anew")


def _create_vm(event: ev.CreateVm, state: State, done: int) -> Said:
    return translate("Titles", "VM {vm} is created").format(vm=len(state.vms) - done), "KVM_CREATE_VM"


def _destroy_vm(event: ev.DestroyVm, state: State, done: int) -> Said:
    return translate("Titles", "VM {vm} is destroyed").format(vm=event.vm), _notes(state)


def _create_vcpu(event: ev.CreateVcpu, state: State, done: int) -> Said:
    title = translate("Titles", "vCPU {vcpu} on pCPU {pcpu}")
    vm = state.vms[event.vm] if event.vm < len(state.vms) else None
    text = (
        translate("Titles", "MAXPHYADDR {bits}, LA57")
        if event.cpuid.la57
        else translate("Titles", "MAXPHYADDR {bits}, no LA57")
    )
    number = len(vm.vcpus) - done if vm else 0
    return title.format(vcpu=number, pcpu=event.pcpu), text.format(bits=event.cpuid.maxphyaddr)


def _set_memslot(event: ev.SetMemslot, state: State, done: int) -> Said:
    title = translate("Titles", "Memslot of {size} at {gpa}")
    title = title.format(size=size_name(event.size), gpa=grouped(event.gpa))
    if event.image is not None:
        return title, translate("Titles", "holds {image}").format(image=_image_name(event.image))
    text = (
        translate("Titles", "read-only, {pages} pages, {placement}")
        if event.read_only
        else translate("Titles", "{pages} pages, {placement}")
    )
    pages, placement = event.backing.pages.value, event.backing.placement.value
    return title, text.format(pages=engine_text(pages), placement=engine_text(placement))


def _delete_memslot(event: ev.DeleteMemslot, state: State, done: int) -> Said:
    return translate("Titles", "Memslot {slot} is deleted").format(slot=event.slot), _notes(state)


def _restore(event: ev.RestoreGuest, state: State, done: int) -> Said:
    text = translate("Titles", "Guest from {image}")
    return text.format(image=_image_name(event.image)), _notes(state)


def _set_registers(event: ev.SetGuestRegisters, state: State, done: int) -> Said:
    title = translate("Titles", "Registers of vCPU {vcpu} are set").format(vcpu=event.vcpu)
    return title, _paging(event.registers)


def _map_guest(event: ev.MapGuestPages, state: State, done: int) -> Said:
    title = translate("Titles", "Guest maps {address}").format(address=short(event.address))
    text = translate("Titles", "{size} to {target}, {mode} tables")
    return title, text.format(size=size_name(event.size), target=grouped(event.target), mode=event.mode)


def _fill_guest(event: ev.FillGuestPages, state: State, done: int) -> Said:
    size = size_name(event.size or 8 * len(event.words))
    return translate("Titles", "Guest memory is filled"), translate("Titles", "{size} at {gpa}").format(
        size=size, gpa=grouped(event.gpa)
    )


def _populate(event: ev.Populate, state: State, done: int) -> Said:
    return translate("Titles", "Memslot {slot} is populated").format(slot=event.slot), _notes(state)


def _guest_access(event: ev.GuestAccess, state: State, done: int) -> Said:
    title = {
        Kind.READ: translate("Titles", "Guest reads {address}"),
        Kind.WRITE: translate("Titles", "Guest writes {address}"),
        Kind.FETCH: translate("Titles", "Guest fetches {address}"),
        Kind.SHADOW_READ: translate("Titles", "Guest shadow stack: reads {address}"),
        Kind.SHADOW_WRITE: translate("Titles", "Guest shadow stack: writes {address}"),
    }
    nested = {
        Kind.READ: translate("Titles", "L2 reads {address}"),
        Kind.WRITE: translate("Titles", "L2 writes {address}"),
        Kind.FETCH: translate("Titles", "L2 fetches {address}"),
        Kind.SHADOW_READ: translate("Titles", "L2 shadow stack: reads {address}"),
        Kind.SHADOW_WRITE: translate("Titles", "L2 shadow stack: writes {address}"),
    }
    said = nested if state.is_nested(event.vm, event.vcpu) else title
    return said[event.kind].format(address=short(event.address)), ""


def _write_guest(event: ev.WriteGuestRegister, state: State, done: int) -> Said:
    title = translate("Titles", "Guest writes {register}: {value}")
    if state.is_nested(event.vm, event.vcpu):
        title = translate("Titles", "L2 writes {register}: {value}")
    return title.format(register=event.name.upper(), value=grouped(event.value)), _notes(state)


def _invlpg(event: ev.InvalidatePage, state: State, done: int) -> Said:
    title = translate("Titles", "Guest executes INVLPG {address}")
    if state.is_nested(event.vm, event.vcpu):
        title = translate("Titles", "L2 executes INVLPG {address}")
    return title.format(address=short(event.address)), _notes(state)


# --- a hypervisor inside a VM


def _load_nested(event: ev.LoadNestedKvm, state: State, done: int) -> Said:
    title = translate("Titles", "kvm_init in VM {vm}").format(vm=event.vm)
    found = state.vm(event.vm)
    module = None if isinstance(found, Refusal) else found.nested
    if module is None:
        return title, ""
    text = translate("Titles", "captures {format}, on vCPU {vcpu}")
    return title, text.format(format=module.captured, vcpu=module.vcpu)


def _map_nested(event: ev.MapNestedPages, state: State, done: int) -> Said:
    title = translate("Titles", "L1 maps L2-physical {address}").format(address=short(event.address))
    text = translate("Titles", "{size} to L1-physical {target}")
    return title, text.format(size=size_name(event.size), target=grouped(event.target))


def _map_l2(event: ev.MapL2Pages, state: State, done: int) -> Said:
    title = translate("Titles", "L2 maps {address}").format(address=short(event.address))
    return title, _map_guest(event, state, done)[1]


def _fill_l2(event: ev.FillL2Pages, state: State, done: int) -> Said:
    return translate("Titles", "L2 memory is filled"), _fill_guest(event, state, done)[1]


def _enter(event: ev.EnterNested, state: State, done: int) -> Said:
    title = translate("Titles", "L2 is entered on vCPU {vcpu}").format(vcpu=event.vcpu)
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal) or found[1].nested is None:
        return title, ""
    second = state.l1_stage(found[1])
    if second is None:
        return title, translate("Titles", "no nested paging: {paging}").format(paging=_paging(event.registers))
    text = translate("Titles", "{format} of L1, {level} levels for L0")
    return title, text.format(format=second.name, level=found[1].role.level)


def _leave(event: ev.LeaveNested, state: State, done: int) -> Said:
    title = translate("Titles", "L2 exits to L1 on vCPU {vcpu}").format(vcpu=event.vcpu)
    return title, translate("Titles", "L1 goes on with its own registers")


def _invept(event: ev.InvalidateNested, state: State, done: int) -> Said:
    return translate("Titles", "L1 executes INVEPT"), _notes(state)


def _move_vcpu(event: ev.MoveVcpu, state: State, done: int) -> Said:
    title = translate("Titles", "vCPU {vcpu} moves to pCPU {pcpu}")
    return title.format(vcpu=event.vcpu, pcpu=event.pcpu), _notes(state)


def way_name(way: Way) -> str:
    """A way for a mode to change, in a word."""
    return {
        Way.MOV_CR4: translate("Titles", "MOV CR4"),
        Way.TRAMPOLINE: translate("Titles", "trampoline"),
        Way.HOTPLUG: translate("Titles", "hotplug"),
        Way.SUSPEND: translate("Titles", "suspend"),
        Way.KEXEC: translate("Titles", "kexec"),
        Way.PARENT: translate("Titles", "parent"),
    }[way]


def _change_mode(event: ev.ChangeMode, state: State, done: int) -> Said:
    if WAYS[event.way].all_pcpus:
        title = translate("Titles", "Host goes 5-level") if event.la57 else translate("Titles", "Host goes 4-level")
    elif event.la57:
        title = translate("Titles", "pCPU {pcpu} goes 5-level")
    else:
        title = translate("Titles", "pCPU {pcpu} goes 4-level")
    text = translate("Titles", "{way}: CR4.LA57 = {value}")
    return title.format(pcpu=event.pcpu), text.format(way=way_name(event.way), value=int(event.la57))


def _zap(event: ev.ZapGuest, state: State, done: int) -> Said:
    if not event.size:
        return translate("Titles", "KVM zaps VM {vm}").format(vm=event.vm), _notes(state)
    title = translate("Titles", "KVM zaps {size} at {gpa}")
    return title.format(size=size_name(event.size), gpa=grouped(event.gpa)), _notes(state)


def _host_memory(event: ev.HostMemory, state: State, done: int) -> Said:
    title = {
        "move": translate("Titles", "Host moves the page behind {gpa}"),
        "unmap": translate("Titles", "Host unmaps the page behind {gpa}"),
        "collapse": translate("Titles", "Host collapses 2 MiB behind {gpa}"),
        "age": translate("Titles", "Host asks whether the page behind {gpa} was used"),
    }[event.action]
    return title.format(gpa=grouped(event.gpa)), _notes(state)


def _dirty_logging(event: ev.DirtyLogging, state: State, done: int) -> Said:
    title = (
        translate("Titles", "Dirty logging of slot {slot}: on")
        if event.on
        else translate("Titles", "Dirty logging of slot {slot}: off")
    )
    return title.format(slot=event.slot), _notes(state)


def _flush(event: ev.FlushTlb, state: State, done: int) -> Said:
    return translate("Titles", "TLBs of VM {vm} are flushed").format(vm=event.vm), _notes(state)


def _notes(state: State) -> str:
    """What the engine noted last, the consequence that matters most."""
    return engine_text(state.effect.notes[-1]) if state.effect.notes else ""


TITLES: dict[type, tuple[str, Say]] = {
    ev.OpenImage: ("image", _open_image),
    ev.ChooseCpu: ("register", _choose_cpu),
    ev.ChooseRoot: ("table", _choose_root),
    ev.SetRegister: ("register", _set_register),
    ev.WriteRegister: ("register", _write_register),
    ev.ChooseSecondStage: ("table", _second_stage),
    ev.AccessMemory: ("access", _access),
    ev.Poke: ("poke", _poke),
    ev.BootHost: ("host", _boot),
    ev.LoadKvm: ("kvm", _load),
    ev.UnloadKvm: ("kvm", _unload),
    ev.CreateVm: ("vm", _create_vm),
    ev.DestroyVm: ("vm", _destroy_vm),
    ev.CreateVcpu: ("vcpu", _create_vcpu),
    ev.SetMemslot: ("memory", _set_memslot),
    ev.DeleteMemslot: ("memory", _delete_memslot),
    ev.RestoreGuest: ("vm", _restore),
    ev.SetGuestRegisters: ("register", _set_registers),
    ev.MapGuestPages: ("table", _map_guest),
    ev.FillGuestPages: ("memory", _fill_guest),
    ev.GuestAccess: ("access", _guest_access),
    ev.Populate: ("memory", _populate),
    ev.MoveVcpu: ("move", _move_vcpu),
    ev.ChangeMode: ("mode", _change_mode),
    ev.ZapGuest: ("zap", _zap),
    ev.HostMemory: ("memory", _host_memory),
    ev.DirtyLogging: ("log", _dirty_logging),
    ev.FlushTlb: ("zap", _flush),
    ev.WriteGuestRegister: ("register", _write_guest),
    ev.InvalidatePage: ("zap", _invlpg),
    ev.LoadNestedKvm: ("nested", _load_nested),
    ev.MapNestedPages: ("table", _map_nested),
    ev.MapL2Pages: ("table", _map_l2),
    ev.FillL2Pages: ("memory", _fill_l2),
    ev.EnterNested: ("enter", _enter),
    ev.LeaveNested: ("leave", _leave),
    ev.InvalidateNested: ("zap", _invept),
}
ICONS = frozenset(icon for icon, _ in TITLES.values())
"""The names of all icons that lines of the timeline have."""
