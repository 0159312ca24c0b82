"""Register values that guests are commonly in: what a VMM sets for a kernel of each paging mode."""

import msgspec
from PySide6.QtCore import QCoreApplication

from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.kvm.vm import RESET

translate = QCoreApplication.translate

_PAGED = int(CR0.PG | CR0.WP | CR0.PE)
_LONG = int(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE)


class Preset(msgspec.Struct, frozen=True):
    """``registers``: everything but CR3, which is the caller's. ``name``: for the user."""

    key: str
    name: str
    registers: Registers

    def at(self, cr3: int, cpl: int = 0) -> Registers:
        """These registers with the tables at ``cr3`` and privilege ``cpl``."""
        return msgspec.structs.replace(self.registers, cr3=cr3, cpl=cpl)

    def fits(self, registers: Registers) -> bool:
        """Whether ``registers`` are these, whatever CR3 and privilege are."""
        return registers == self.at(registers.cr3, registers.cpl)


def presets() -> tuple[Preset, ...]:
    """All of them, in the user's language."""
    return (
        Preset("reset", translate("Presets", "Reset: real mode, no paging"), RESET),
        Preset("32-bit", translate("Presets", "32-bit paging"), Registers(cr0=_PAGED, cr4=int(CR4.PSE | CR4.PGE))),
        Preset(
            "PAE", translate("Presets", "PAE paging"),
            Registers(cr0=_PAGED, cr4=int(CR4.PAE | CR4.PGE), efer=int(EFER.NXE)),
        ),
        Preset(
            "4-level", translate("Presets", "4-level paging, 64-bit code"),
            Registers(cr0=_PAGED, cr4=int(CR4.PAE | CR4.PGE), efer=_LONG, cs_l=True),
        ),
        Preset(
            "5-level", translate("Presets", "5-level paging, 64-bit code"),
            Registers(cr0=_PAGED, cr4=int(CR4.PAE | CR4.PGE | CR4.LA57), efer=_LONG, cs_l=True),
        ),
        Preset(
            "compat", translate("Presets", "4-level paging, 32-bit code"),
            Registers(cr0=_PAGED, cr4=int(CR4.PAE | CR4.PGE), efer=_LONG),
        ),
    )  # fmt: skip


def preset(key: str) -> Preset:
    return next(p for p in presets() if p.key == key)
