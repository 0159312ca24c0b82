"""What the cards of the host say: a pCPU, KVM, a VM, a vCPU at one step, as values. Nothing is painted here."""

from enum import Enum

import msgspec
from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped, size_name
from engine.arch.registers import EFER, Mode, Vendor
from engine.host.machine import Host, Pcpu
from engine.kvm import mmu
from engine.kvm.memslots import Memslot
from engine.kvm.module import Captured, Module, actual, would_capture
from engine.kvm.vm import Vcpu, Vm
from engine.machine import State
from gui.explain import engine_text
from gui.outcomes import disagreeing

translate = QCoreApplication.translate
MAIN_VALUE = "max_tdp_level"
"""The captured value that the whole matter is about: always shown in full, and compared with every pCPU."""
_DEPTHS = (MAIN_VALUE, "tdp_root_level", "pgtable_l5_enabled()")


class Face(Enum):
    """What a row is: a sentence, which may wrap; the head of columns; a name and its values; values alone."""

    PROSE = "prose"
    HEAD = "head"
    NAMED = "named"
    PLAIN = "plain"


class Row(msgspec.Struct, frozen=True):
    """A line of a card. Rows with as many cells as others stand in the same columns.

    ``marked``: this is where KVM and the hardware differ, or what is lost. ``tip``: a sentence on where it comes from.
    """

    cells: tuple[str, ...]
    face: Face = Face.NAMED
    marked: bool = False
    tip: str = ""


class Card(msgspec.Struct, frozen=True):
    """``chip``: a level, 1 .. 5, and its name; ``switch``: it can be changed. ``side``: what stands on the right of the
    title. ``fold``: what unfolds the card, or folds it again; '' where it cannot. ``hazard``: the card is bad news."""

    key: str
    title: str
    chip: tuple[int, str] | None = None
    switch: bool = False
    side: str = ""
    rows: tuple[Row, ...] = ()
    fold: str = ""
    unfolded: bool = False
    hazard: bool = False

    def spoken(self) -> str:
        """All of it in one line, for those who hear it."""
        chip = (self.chip[1],) if self.chip else ()
        lines = (" ".join(filter(None, row.cells)) for row in self.rows)
        return ". ".join(filter(None, (self.title, *chip, self.side, *lines)))


def cards(state: State, unfolded: bool = False) -> tuple[Card, ...]:
    """Everything from the pCPUs to the vCPUs. ``unfolded``: KVM's card shows all that was captured."""
    if state.host is None:
        return ()
    made = [pcpu_card(state, state.host, pcpu) for pcpu in state.host.pcpus]
    if state.module is None:
        return tuple(made)
    made.append(kvm_card(state.module, state.host, unfolded))
    for vm in state.vms:
        if vm is not None:
            made.append(vm_card(vm))
            made += [vcpu_card(state.module, state.host, vm, vcpu) for vcpu in vm.vcpus]
    return tuple(made)


def level_name(levels: int) -> str:
    return translate("HostCards", "5-level") if levels == 5 else translate("HostCards", "4-level")


def vcpu_name(state: State, vm: Vm, vcpu: Vcpu) -> str:
    """ "vCPU 0", with its VM where there are several."""
    if sum(other is not None for other in state.vms) > 1:
        return translate("HostCards", "VM {vm} vCPU {vcpu}").format(vm=vm.index, vcpu=vcpu.index)
    return translate("HostCards", "vCPU {vcpu}").format(vcpu=vcpu.index)


# --- pCPUs


def pcpu_card(state: State, host: Host, pcpu: Pcpu) -> Card:
    """The pCPU's mode, and the vCPUs on it."""
    guests = [vcpu_name(state, vm, vcpu) for vm in state.vms if vm for vcpu in vm.vcpus if vcpu.pcpu == pcpu.index]
    long = bool(pcpu.registers.efer & EFER.LMA)
    rows = [Row((f"CR4.LA57 = {int(pcpu.la57)}", f"EFER.LMA = {int(long)}"), Face.PLAIN)]
    if pcpu.lost:
        text = translate("HostCards", "Lost: {reason}").format(reason=engine_text(pcpu.lost))
        rows.append(Row((text,), Face.PROSE, marked=True))
    elif not pcpu.online:
        rows.append(Row((translate("HostCards", "Offline: nothing runs here."),), Face.PROSE, marked=True))
    return Card(
        key=f"pcpu {pcpu.index}",
        title=translate("HostCards", "pCPU {pcpu}").format(pcpu=pcpu.index),
        chip=(pcpu.levels, level_name(pcpu.levels)),
        switch=not pcpu.lost,
        side=", ".join(guests),
        rows=tuple(rows),
        hazard=bool(pcpu.lost) or not pcpu.online,
    )


# --- KVM


def kvm_card(module: Module, host: Host, unfolded: bool) -> Card:
    """Each captured value beside what there is now. Folded: the depth, and whatever differs."""
    now = _now(module, host)
    all_rows = [_captured_row(module, host, now, captured) for captured in _ordered(module.captured)]
    shown = [row for number, row in enumerate(all_rows) if unfolded or row.marked or number == 0]
    kernel = module.kernel
    label = engine_text(kernel.label)
    text = translate("HostCards", "KVM, Intel") if module.vendor is Vendor.INTEL else translate("HostCards", "KVM, AMD")
    where = translate("HostCards", "kvm_init on pCPU {pcpu}").format(pcpu=module.pcpu)
    head = Row(("", translate("HostCards", "captured"), translate("HostCards", "now")), Face.HEAD)
    return Card(
        key="kvm",
        title=text,
        side=where,
        rows=(Row((label,), Face.PROSE), head, *shown),
        fold=_fold(len(all_rows) - len(shown), unfolded),
        unfolded=unfolded,
        hazard=any(row.marked for row in shown),
    )


def _now(module: Module, host: Host) -> dict[str, int | str | bool]:
    """What there is instead of each captured value now: in the hardware, else in a KVM that would be loaded now.

    How deep tables are is not among the former, for that is told of every pCPU (`walked_depths`); nor is the kernel's
    own depth, which no pCPU can change.
    """
    hardware = actual(module, host, module.pcpu)
    hardware = {name: value for name, value in hardware.items() if name not in _DEPTHS}
    return would_capture(module, host, module.pcpu) | hardware


def _fold(hidden: int, unfolded: bool) -> str:
    if unfolded:
        return translate("HostCards", "Fewer values")
    return translate("HostCards", "{count} more values").format(count=hidden) if hidden else ""


def _ordered(captured: tuple[Captured, ...]) -> list[Captured]:
    return sorted(captured, key=lambda c: c.name != MAIN_VALUE)


def _captured_row(module: Module, host: Host, now: dict[str, int | str | bool], captured: Captured) -> Row:
    now_value = now.get(captured.name)
    differs = now_value is not None and now_value != captured.value
    said = "–" if now_value is None else translate("HostCards", "same")
    if differs and now_value is not None:
        said = value_text(captured.name, now_value)
    if captured.name == MAIN_VALUE:
        said = value_text(captured.name, now_value) if now_value is not None else "–"
        if module.vendor is Vendor.AMD:
            differs = any(disagreeing(module, host))
            said = walked_depths(host)
    tip = translate(
        "HostCards", "{name} = {value}, captured at {when} on pCPU {pcpu} by {function}. What changes it: {depends}."
    )
    return Row(
        (value_name(captured.name), value_text(captured.name, captured.value), said),
        marked=differs,
        tip=tip.format(
            name=captured.name,
            value=value_text(captured.name, captured.value),
            when=engine_text(captured.when),
            pcpu=captured.pcpu,
            function=engine_text(captured.function),
            depends=engine_text(captured.depends),
        ),
    )


def walked_depths(host: Host) -> str:
    """How deep each pCPU walks: "4 | 5", a dash for one that does not; of many, how many do: "4 ×7 | 5 ×1"."""
    levels = [pcpu.levels for pcpu in host.pcpus if pcpu.online and not pcpu.lost]
    if len(host.pcpus) <= 4:
        return " | ".join(str(pcpu.levels) if pcpu.online and not pcpu.lost else "–" for pcpu in host.pcpus)
    return " | ".join(f"{depth} ×{levels.count(depth)}" for depth in sorted(set(levels)))


def value_name(name: str) -> str:
    """A captured value by the name that a reader knows it by; KVM's own name where there is no other."""
    return {
        "max_tdp_level": translate("HostCards", "max TDP level"),
        "tdp_root_level": translate("HostCards", "forced level"),
        "max_huge_page_level": translate("HostCards", "huge page level"),
        "pgtable_l5_enabled()": translate("HostCards", "5-level kernel"),
        "tdp_enabled": translate("HostCards", "TDP"),
        "shadow_present_mask": translate("HostCards", "present mask"),
        "shadow_mmio_value": translate("HostCards", "MMIO value"),
        "nx_huge_pages": translate("HostCards", "NX huge pages"),
        "allow_smaller_maxphyaddr": translate("HostCards", "smaller guests"),
        "tdp_mmu_enabled": translate("HostCards", "TDP MMU"),
    }.get(name, name)


def value_text(name: str, value: int | str | bool) -> str:
    if isinstance(value, bool):
        return translate("HostCards", "on") if value else translate("HostCards", "off")
    if name == "tdp_root_level" and not value:
        return translate("HostCards", "none")
    return str(value)


# --- VMs and vCPUs


def vm_card(vm: Vm) -> Card:
    """The VM's memory: a row a slot."""
    if vm.slots:
        rows: tuple[Row, ...] = tuple(_slot_row(slot) for slot in vm.slots)
    else:
        rows = (Row((translate("HostCards", "no memory yet"),), Face.PROSE),)
    if vm.dead:
        text = translate("HostCards", "Dead: {reason}").format(reason=engine_text(vm.dead))
        rows = (Row((text,), Face.PROSE, marked=True), *rows)
    text = translate("HostCards", "1 memslot") if len(vm.slots) == 1 else translate("HostCards", "{count} memslots")
    return Card(
        key=f"vm {vm.index}",
        title=translate("HostCards", "VM {vm}").format(vm=vm.index),
        side=text.format(count=len(vm.slots)) if vm.slots else "",
        rows=rows,
        hazard=bool(vm.dead),
    )


def _slot_row(slot: Memslot) -> Row:
    pages = engine_text(slot.backing.pages.value)
    if slot.read_only:
        pages = translate("HostCards", "{pages}, read-only").format(pages=pages)
    tip = translate("HostCards", "Slot {slot}: guest-physical {gpa} is {hva} in the VMM, {placement} in the host.")
    tip = tip.format(
        slot=slot.id, gpa=grouped(slot.gpa), hva=grouped(slot.hva), placement=engine_text(slot.backing.placement.value)
    )
    return Row((grouped(slot.gpa), size_name(slot.size), pages), tip=tip)


def vcpu_card(module: Module, host: Host, vm: Vm, vcpu: Vcpu) -> Card:
    """Its root and role, the guest's own mode, and the counters that have counted."""
    pcpu, level = host.pcpus[vcpu.pcpu], vcpu.role.level
    stale = module.vendor is Vendor.AMD and pcpu.online and not pcpu.lost and level != pcpu.levels
    depth = translate("HostCards", "{built}, walked as {walked}") if stale else "{built}"
    rows = [Row((_guest_mode(vcpu),), Face.PROSE)]
    if vcpu.root is None:
        rows.append(Row((translate("HostCards", "no nested tables before its first access"),), Face.PROSE))
    else:
        name, value = mmu.root_register(module, vcpu.root)
        rows.append(Row((name, grouped(value))))
    rows.append(Row((translate("HostCards", "TDP level"), depth.format(built=level, walked=pcpu.levels)), marked=stale))
    rows.append(Row((translate("HostCards", "role"), f"{vcpu.role.word:#x}")))
    counted = {n: getattr(vcpu.counters, n) for n in vcpu.counters.__struct_fields__ if getattr(vcpu.counters, n)}
    rows += [Row((name, f"{count:,}")) for name, count in counted.items()]
    return Card(
        key=f"vcpu {vm.index} {vcpu.index}",
        title=translate("HostCards", "vCPU {vcpu}").format(vcpu=vcpu.index),
        chip=(level, level_name(level)),
        side=translate("HostCards", "on pCPU {pcpu}").format(pcpu=vcpu.pcpu),
        rows=tuple(rows),
        hazard=stale,
    )


def _guest_mode(vcpu: Vcpu) -> str:
    mode = vcpu.registers.mode
    if mode is Mode.NONE:
        text = translate("HostCards", "guest without paging, MAXPHYADDR {bits}")
    else:
        text = translate("HostCards", "guest: {mode} paging, MAXPHYADDR {bits}")
    return text.format(mode=mode.value, bits=vcpu.cpuid.maxphyaddr)
