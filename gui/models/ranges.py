"""The ranges that translate differently, as a table: rows are made when they are shown, from columns."""

from collections.abc import Collection
from typing import Any

import numpy as np
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont

from engine.arch.addresses import grouped
from engine.arch.arrays import Code
from engine.effects.compare import EXPOSES, Class
from engine.effects.comparison import Comparison
from gui.effect_texts import class_name, gives, happens, kvm_in_full, kvm_then
from gui.paint.marks import SMALL
from gui.theme import mono_font, theme, ui_font

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
RANGE, PAGES, A, B, HAPPENS, KVM = range(6)
KIND = Qt.ItemDataRole.UserRole
"""The role that gives a row's `Class`."""


class RangesModel(QAbstractTableModel):
    """Rows are the runs of a `Comparison`, those of some classes only where the user asked for that."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._comparison: Comparison | None = None
        self._only: frozenset[Class] = frozenset()
        self._runs = np.zeros(0, np.int64)

    def show_comparison(self, comparison: Comparison | None) -> None:
        self._reset(comparison, self._only)

    def show_only(self, kinds: Collection[Class]) -> None:
        """List the ranges of ``kinds`` only; all of them where that is empty."""
        self._reset(self._comparison, frozenset(kinds))

    def _reset(self, comparison: Comparison | None, only: frozenset[Class]) -> None:
        self.beginResetModel()
        self._comparison, self._only = comparison, only
        if comparison is None:
            self._runs = np.zeros(0, np.int64)
        else:
            kinds = comparison.changed.kind[comparison.first]
            self._runs = np.flatnonzero(np.isin(kinds, [int(kind) for kind in only]) if only else kinds >= 0)
        self.endResetModel()

    def gpa(self, row: int) -> int:
        """The first address of ``row``."""
        assert self._comparison is not None
        return int(self._comparison.changed.start[self._comparison.first[self._runs[row]]])

    def row_of(self, gpa: int) -> int | None:
        """The row that ``gpa`` is in; None where none is."""
        run = self._comparison.run_at(gpa) if self._comparison else None
        if run is None:
            return None
        row = int(np.searchsorted(self._runs, run))
        return row if row < len(self._runs) and self._runs[row] == run else None

    # --- the model

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._runs)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else 6

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation is Qt.Orientation.Vertical:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(_alignment(section))
        if role == Qt.ItemDataRole.FontRole:
            return ui_font(SMALL)
        if role == Qt.ItemDataRole.DisplayRole:
            return (
                self.tr("guest-physical"), self.tr("pages"), self.tr("A"), self.tr("B"), self.tr("what happens on B"),
                self.tr("KVM then"),
            )[section]  # fmt: skip
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or self._comparison is None:
            return None
        run, column = int(self._runs[index.row()]), index.column()
        kind = Class(int(self._comparison.changed.kind[self._comparison.first[run]]))
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(self._comparison, run, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(self._comparison, run, kind)
            case Qt.ItemDataRole.FontRole:
                return self._font(column, kind)
            case Qt.ItemDataRole.ForegroundRole:
                return theme().hazard_text if column == HAPPENS and kind in EXPOSES else None
            case Qt.ItemDataRole.TextAlignmentRole:
                return int(_alignment(column))
        return kind if role == KIND else None

    def _text(self, of: Comparison, run: int, column: int) -> str:
        changed, first, last = of.changed, int(of.first[run]), int(of.last[run])
        match column:
            case 0:
                start, end = int(changed.start[first]), int(changed.start[last]) + 0xFFF
                return f"{grouped(start, 8)} – {grouped(end, 8)}"
            case 1:
                return f"{last - first + 1:,}"
            case 2:
                return gives(int(changed.a_code[first]), int(changed.a[first]), of.is_scattered(run, changed.a))
            case 3:
                return gives(int(changed.b_code[first]), int(changed.b[first]), of.is_scattered(run, changed.b))
            case 4:
                return happens(of, run)
        return kvm_then(of.answers[int(of.number[run])])

    def _font(self, column: int, kind: Class) -> QFont:
        if column in (RANGE, PAGES, A, B):
            return mono_font(SMALL)
        return ui_font(SMALL, bold=column == HAPPENS and kind in EXPOSES)

    def _tip(self, of: Comparison, run: int, kind: Class) -> str:
        row = int(of.first[run])
        lines = [class_name(kind), kvm_in_full(of.answers[int(of.number[run])])]
        if of.changed.b_code[row] == Code.OK:
            lines.insert(1, self.tr("{first} on B").format(first=grouped(int(of.changed.b[row]))))
        return "\n".join(lines)


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column == PAGES else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
