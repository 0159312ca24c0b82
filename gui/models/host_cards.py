"""What the cards of the machine say at one step, as values: those of the host, and below them its guests'."""

from collections.abc import Collection

from PySide6.QtCore import QCoreApplication

from engine.arch.registers import EFER, Vendor
from engine.host.machine import Host, Pcpu
from engine.kvm.module import Captured, Module, actual, would_capture
from engine.kvm.vm import Vcpu, Vm
from engine.machine import State
from gui.explain import engine_text
from gui.models.card import Card, Face, Row, level_name
from gui.models.guest_cards import vm_cards
from gui.outcomes import disagreeing

translate = QCoreApplication.translate
MAIN_VALUE = "max_tdp_level"
"""The captured value that the whole matter is about: always shown in full, and compared with every pCPU."""
_DEPTHS = (MAIN_VALUE, "tdp_root_level", "pgtable_l5_enabled()")


def cards(state: State, unfolded: Collection[str] = ()) -> tuple[Card, ...]:
    """Everything from the pCPUs to the nested guests. ``unfolded``: the keys of cards that show all they have."""
    if state.host is None:
        return ()
    made = [pcpu_card(state, state.host, pcpu) for pcpu in state.host.pcpus]
    if state.module is None:
        return tuple(made)
    made.append(kvm_card(state.module, state.host, "kvm" in unfolded))
    for vm in state.vms:
        if vm is not None:
            made += vm_cards(state, vm, unfolded)
    return tuple(made)


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
        rows=(Row((label,), Face.PROSE), *_without_nested_paging(module), head, *shown),
        fold=_fold(len(all_rows) - len(shown), unfolded),
        unfolded=unfolded,
        hazard=any(row.marked for row in shown),
    )


def _without_nested_paging(module: Module) -> tuple[Row, ...]:
    if module.tdp_enabled:
        return ()
    name = "ept=0" if module.vendor is Vendor.INTEL else "npt=0"
    text = translate("HostCards", "Shadow paging ({parameter}): it mirrors the guests' own tables.")
    return (Row((text.format(parameter=name),), Face.PROSE),)


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
