"""The mappings of an address space as a table: a run of pages a row, filtered and sorted by row numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from engine.arch.addresses import grouped, size_name
from engine.arch.faults import Rights
from gui.theme import mono_font, signals, theme

if TYPE_CHECKING:
    from numpy import int64
    from numpy.typing import NDArray

    from engine.arch.mappings import Mappings

    Rows = NDArray[int64]

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
FIRST, SIZE, RIGHTS, PHYSICAL, PAGES, LAST = range(6)
RIGHT_ALIGNED = (SIZE, PAGES)


class MappingsModel(QAbstractTableModel):
    """Everything is given as text: addresses do not fit into Qt's numbers."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._mappings: Mappings | None = None
        self._rows: Rows | None = None
        signals().changed.connect(self.layoutChanged)

    def show(self, mappings: Mappings | None, rows: Rows | None) -> None:
        """Show some rows of ``mappings``, in the order given."""
        self.beginResetModel()
        self._mappings, self._rows = mappings, rows
        self.endResetModel()

    def start(self, row: int) -> int:
        """The first virtual byte address of a row."""
        assert self._mappings is not None
        assert self._rows is not None
        return int(self._mappings.va[self._rows[row]])

    def row_of(self, mapping: int) -> int | None:
        """The row that shows run number ``mapping``; None where it is filtered out."""
        if self._rows is None:
            return None
        found = (self._rows == mapping).nonzero()[0]
        return int(found[0]) if len(found) else None

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() or self._rows is None else len(self._rows)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else 6

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation is not Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(FIRST)
        if role == Qt.ItemDataRole.DisplayRole:
            return (
                self.tr("first address"), self.tr("size"), self.tr("rights"), self.tr("physical"), self.tr("pages"),
                self.tr("last address"),
            )[section]  # fmt: skip
        return None

    def data(self, index: Index, role: int = 0) -> Any:
        if not index.isValid() or self._rows is None or index.row() >= len(self._rows):
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(int(self._rows[index.row()]), index.column())
            case Qt.ItemDataRole.FontRole:
                return mono_font()
            case Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(index.column())
            case Qt.ItemDataRole.ForegroundRole:
                return self._color(int(self._rows[index.row()]), index.column())
        return None

    def _text(self, run: int, column: int) -> str:
        m = self._mappings
        assert m is not None
        size, shift = int(m.size[run]), int(m.page_shift[run])
        match column:
            case 0:
                return grouped(int(m.va[run]), 12)
            case 1:
                return size_name(size)
            case 2:
                return rights_text(int(m.rights[run]))
            case 3:
                return grouped(int(m.pa[run]))
            case 4:
                if not shift:
                    return ""
                return self.tr("{count} × {page}").format(count=f"{size >> shift:,}", page=size_name(1 << shift))
        return grouped(int(m.last[run]), 12)

    def _color(self, run: int, column: int) -> Any:
        """Pages that can be written and executed stand out."""
        assert self._mappings is not None
        if column == RIGHTS and _is_wx(int(self._mappings.rights[run])):
            return theme().hazard_text
        return theme().muted if column in (LAST, PAGES) else theme().text


def rights_text(rights: int) -> str:
    """A column of rights as letters, with a dash for each that is missing; G where the pages are global."""
    from engine.arch.arrays import Right

    named = Rights(
        read=bool(rights & Right.R),
        write=bool(rights & Right.W),
        execute=bool(rights & Right.X),
        user=bool(rights & Right.U),
    )
    return f"{named.letters()} G" if rights & Right.G else named.letters()


def _is_wx(rights: int) -> bool:
    from engine.arch.arrays import Right

    return bool(rights & Right.W and rights & Right.X)


def _alignment(column: int) -> int:
    side = Qt.AlignmentFlag.AlignRight if column in RIGHT_ALIGNED else Qt.AlignmentFlag.AlignLeft
    return int(side | Qt.AlignmentFlag.AlignVCenter)
