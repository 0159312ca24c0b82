"""What the combo boxes of the event form offer: what exists in a state, kernels, and the values of types."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, get_args

from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped, size_name
from engine.arch.registers import Vendor
from engine.events import RegisterName
from engine.kvm.kernels import KERNELS, Bug
from engine.kvm.vm import Vm
from engine.machine import State
from gui.explain import engine_text

translate = QCoreApplication.translate
Choices = Sequence[tuple[str, Any]]

PICKERS = ("kernel", "pcpu", "vm", "vcpu", "slot")
PER_VM = ("vcpu", "slot")
"""Those that depend on which VM is chosen."""


def existing(picker: str, state: State, vm: int = 0) -> Choices:
    """What there is in ``state`` of the kind that ``picker`` names; ``vm``: whose vCPUs and slots."""
    found = state.vm(vm)
    machine = found if isinstance(found, Vm) else None
    match picker:
        case "kernel":
            return [(engine_text(kernel.label), key) for key, kernel in KERNELS.items()]
        case "pcpu":
            return [(_pcpu(p.index, p.levels, p.lost), p.index) for p in (state.host.pcpus if state.host else ())]
        case "vm":
            text = translate("Choices", "VM {vm}")
            return [(text.format(vm=v.index), v.index) for v in state.vms if v is not None]
        case "vcpu":
            text = translate("Choices", "vCPU {vcpu} on pCPU {pcpu}")
            return [(text.format(vcpu=v.index, pcpu=v.pcpu), v.index) for v in (machine.vcpus if machine else ())]
        case _:
            text = translate("Choices", "{slot}: {size} at {gpa}")
            return [
                (text.format(slot=slot.id, size=size_name(slot.size), gpa=grouped(slot.gpa)), slot.id)
                for slot in (machine.slots if machine else ())
            ]


def _pcpu(index: int, levels: int, lost: str) -> str:
    text = translate("Choices", "pCPU {pcpu}, {levels}-level")
    if lost:
        text = translate("Choices", "pCPU {pcpu}, lost")
    return text.format(pcpu=index, levels=levels)


def nothing(picker: str) -> str:
    """What stands in the box where there is nothing to choose."""
    return {
        "pcpu": translate("Choices", "no host yet"),
        "vm": translate("Choices", "no VM yet"),
        "vcpu": translate("Choices", "no vCPU yet"),
        "slot": translate("Choices", "no memslot yet"),
    }.get(picker, "")


def members(values: Sequence[Any]) -> Choices:
    """The values of an enumeration or a literal type, by the names that the engine has for them."""
    return [(_member(value), value) for value in values]


_NAMES: dict[Any, str] = {Vendor.AMD: "AMD", Vendor.INTEL: "Intel", "npt": "NPT", "ept": "EPT"}
_NAMES |= {name: name.upper() for name in get_args(RegisterName)}


def _member(value: Any) -> str:
    if isinstance(value, Bug):
        return {
            Bug.SPECIAL_ROOTS: translate("Choices", "mmu_alloc_special_roots() fails"),
            Bug.WALK_START: translate("Choices", "walks start in special roots"),
        }[value]
    return _NAMES.get(value) or engine_text(str(value.value if isinstance(value, Enum) else value))


def yes_no_default() -> Choices:
    """For a setting that may be left to the kernel's version."""
    return [
        (translate("Choices", "the version's default"), None),
        (translate("Choices", "on"), True),
        (translate("Choices", "off"), False),
    ]
