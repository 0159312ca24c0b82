"""A table's bytes as they lie in memory, an entry a row."""

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from engine.arch.paging import Level
from engine.arch.tables import classify, entries
from engine.arch.walk import Rule
from engine.memory.physical import SparseMemory
from gui.theme import mono_font, signals, theme

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
SMALL = 0.9


class RawModel(QAbstractTableModel):
    """The slot's number, and its bytes in the order of their addresses."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._of: tuple[SparseMemory, Level, int] | None = None
        self._values: list[int | None] = []
        self._level: Level | None = None
        signals().changed.connect(self.layoutChanged)

    def show(self, memory: SparseMemory, level: Level, table: int) -> None:
        """Show the table at physical byte address ``table``; nothing is done where that is shown."""
        if self._of is not None and self._of[0] is memory and self._of[1:] == (level, table):
            return
        values = entries(memory, level, table)
        same_table = self._of is not None and self._of[1:] == (level, table)
        self._of, self._level = (memory, level, table), level
        if same_table:
            self._values = values
            self.dataChanged.emit(self.index(0, 0), self.index(len(values) - 1, 1))
        else:
            self.beginResetModel()
            self._values = values
            self.endResetModel()

    def clear(self) -> None:
        if self._of is not None:
            self.beginResetModel()
            self._of, self._values = None, []
            self.endResetModel()

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._values)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else 2

    def data(self, index: Index, role: int = 0) -> Any:
        if not index.isValid() or index.row() >= len(self._values) or self._level is None:
            return None
        value, number = self._values[index.row()], index.column() == 0
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return str(index.row()) if number else bytes_text(value, 1 << self._level.entry_shift)
            case Qt.ItemDataRole.FontRole:
                return mono_font(SMALL)
            case Qt.ItemDataRole.TextAlignmentRole if number:
                return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            case Qt.ItemDataRole.ForegroundRole:
                quiet = number or classify(self._level, value) in (Rule.NOT_PRESENT, Rule.UNKNOWN)
                return theme().muted if quiet else theme().text
        return None


def bytes_text(value: int | None, size: int) -> str:
    """The ``size`` bytes of an entry in the order of their addresses; "??" where they are unknown."""
    return "?? " * (size - 1) + "??" if value is None else value.to_bytes(size, "little").hex(" ")
