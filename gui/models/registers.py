"""The registers of the processor as a list: a row each, with the names of the flags that are set."""

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Any

import msgspec
from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from engine.arch.addresses import grouped
from engine.arch.registers import CR0, CR4, EFER, Registers
from gui.document import Change, Document

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()

FLAGS: dict[str, type[IntFlag]] = {"cr0": CR0, "cr4": CR4, "efer": EFER}
"""The registers that are made of named flags."""
DECIDING: dict[str, int] = {
    "cr0": CR0.PE | CR0.WP | CR0.NW | CR0.CD | CR0.PG,
    "cr4": CR4.PSE | CR4.PAE | CR4.PGE | CR4.LA57 | CR4.PCIDE | CR4.SMEP | CR4.SMAP | CR4.PKE | CR4.CET | CR4.PKS
    | CR4.LASS | CR4.LAM_SUP,
    "efer": EFER.LME | EFER.LMA | EFER.NXE,
}  # fmt: skip
"""The flags that translation depends on."""
NAMES = ("cr0", "cr2", "cr3", "cr4", "efer", "pkru", "pkrs", "pat", "rflags", "cpl")


class Row(msgspec.Struct, frozen=True):
    """``flags``: the names of those that are set. ``changed``: the event of this step changed the register."""

    name: str
    value: int
    flags: tuple[str, ...] = ()
    changed: bool = False

    @property
    def title(self) -> str:
        return self.name.upper()

    @property
    def text(self) -> str:
        """The value for the eye: a privilege is a digit, everything else 64 bits of hex."""
        return str(self.value) if self.name == "cpl" else grouped(self.value, 16)

    @property
    def short_text(self) -> str:
        """The value without leading zeros, for where there is little room."""
        return str(self.value) if self.name == "cpl" else grouped(self.value)

    @property
    def deciding(self) -> str:
        """The flags that translation depends on and that are set."""
        return " ".join(set_flags(self.name, self.value & DECIDING.get(self.name, 0)))


def set_flags(name: str, value: int) -> tuple[str, ...]:
    """The flags of register ``name`` that are set in ``value``, from the lowest bit up."""
    return tuple(str(flag.name) for flag in FLAGS.get(name, ()) if value & flag)


def rows(registers: Registers, before: Registers) -> tuple[Row, ...]:
    """``before``: the registers one step earlier."""
    return tuple(
        Row(name, value, set_flags(name, value), value != getattr(before, name))
        for name in NAMES
        for value in (getattr(registers, name),)
    )


class Role(IntEnum):
    ROW = Qt.ItemDataRole.UserRole
    """The `Row`, to be painted."""


class RegistersModel(QAbstractListModel):
    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._rows: Sequence[Row] = self._read()
        document.changed.connect(self._on_change)

    def row(self, index: Index) -> Row:
        return self._rows[index.row()]

    def _read(self) -> Sequence[Row]:
        document = self._document
        before = document.replay.state(document.step - 1) if document.step > 1 else document.state
        return rows(document.state.registers, before.registers)

    def _on_change(self, change: Change) -> None:
        if change & (Change.SCENARIO | Change.STATE):
            self._rows = self._read()
            self.dataChanged.emit(self.index(0), self.index(len(self._rows) - 1))

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        row = self.row(index)
        match role:
            case Role.ROW:
                return row
            case Qt.ItemDataRole.DisplayRole:
                return row.title
            case Qt.ItemDataRole.ToolTipRole:
                return self._told(row)
            case Qt.ItemDataRole.AccessibleTextRole:
                return self._told(row)
        return None

    def _told(self, row: Row) -> str:
        if not row.flags:
            return self.tr("{register}: {value}").format(register=row.title, value=row.text)
        text = self.tr("{register}: {value}, set are {flags}")
        return text.format(register=row.title, value=row.text, flags=", ".join(row.flags))
