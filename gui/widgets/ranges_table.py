"""The table of ranges: rows with a line between them, addresses in the face of numbers, a swatch before each class."""

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QKeyEvent, QKeySequence, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFrame,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from gui.models.ranges import HAPPENS, KIND, PAGES, RANGE, A, B, RangesModel
from gui.paint.bands import paint_swatch
from gui.paint.marks import CENTER, SMALL, draw_text, line_height
from gui.theme import GAP, GRID, mono_font, signals, theme, ui_font

LONGEST = {RANGE: "0x0000_0000 – 0x0000_0000", PAGES: "16,384", A: "0x0000_0000…", B: "0x0000_0000…"}
"""A text as long as those in a column usually are."""


class RangesTable(QTableView):
    """Up and Down go from range to range, Ctrl+C copies the row."""

    def __init__(self, model: RangesModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModel(model)
        self.setObjectName("ranges")
        self.setAccessibleName(self.tr("Ranges that translate differently"))
        self.setItemDelegate(_Delegate(self))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setStretchLastSection(True)
        signals().changed.connect(self._fit)
        model.modelReset.connect(self._fit)
        self._fit()

    def _fit(self) -> None:
        """Columns and rows as wide and high as the fonts need."""
        row = round(line_height(ui_font(SMALL)) + 2 * GRID)
        self.verticalHeader().setDefaultSectionSize(row)
        self.setMinimumHeight(4 * row)
        numbers, words = QFontMetricsF(mono_font(SMALL)), QFontMetricsF(ui_font(SMALL, bold=True))
        last = self.model().index(self.model().rowCount() - 1, RANGE).data() or ""
        for column, text in LONGEST.items():
            longest = max(text, last, key=len) if column == RANGE else text  # addresses grow from row to row
            self.setColumnWidth(column, round(numbers.horizontalAdvance(longest) + 2 * GAP + GRID))
        widest = words.horizontalAdvance(self.tr("reaches a free host frame"))
        self.setColumnWidth(HAPPENS, round(widest + 2 * GAP + 5 * GRID))

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self.model().rowCount():
            area = QRectF(self.viewport().rect())
            text = self.tr("No range translates differently.")
            draw_text(QPainter(self.viewport()), area, text, None, theme().muted, CENTER)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Copy) and self.currentIndex().isValid():
            row, model = self.currentIndex().row(), self.model()
            texts = (model.index(row, column).data() for column in range(model.columnCount()))
            QApplication.clipboard().setText("\t".join(texts))
        else:
            super().keyPressEvent(event)


class _Delegate(QStyledItemDelegate):
    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        t, rect = theme(), QRectF(option.rect)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.fillRect(rect, t.accent_ground)
        elif option.state & QStyle.StateFlag.State_MouseOver:
            painter.fillRect(rect, t.tint(t.text, 0.03))
        painter.fillRect(QRectF(rect.left(), rect.bottom() - 1, rect.width(), 1), t.line)
        inner = rect.adjusted(GAP, 0, -GAP, -1)
        if index.column() == HAPPENS:
            side = 2.5 * GRID
            paint_swatch(painter, QRectF(inner.left(), inner.center().y() - side / 2, side, side), index.data(KIND))
            inner.setLeft(inner.left() + 4 * GRID)
        color = index.data(Qt.ItemDataRole.ForegroundRole) or t.text
        align = Qt.AlignmentFlag(index.data(Qt.ItemDataRole.TextAlignmentRole))
        draw_text(painter, inner, index.data(), index.data(Qt.ItemDataRole.FontRole), color, align)
