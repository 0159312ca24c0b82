"""The two tables of the inspector: the fields of an entry, and the bytes of the table around it."""

from PySide6.QtCore import QItemSelectionModel, QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QFrame, QHeaderView, QTableView, QWidget

from engine.arch.paging import Level
from engine.memory.physical import SparseMemory
from gui.models.fields import LONG, MEANING, NAME, VALUE, FieldsModel, is_long
from gui.models.raw import RawModel
from gui.paint.marks import line_height, text_width
from gui.theme import GRID, mono_font, signals, ui_font

RAW_ROWS = 9
"""Rows of bytes that are seen at a time."""


class _PlainTable(QTableView):
    """Rows without grid, headings or frame; one can be selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.verticalHeader().hide()
        self.horizontalHeader().hide()
        self.horizontalHeader().setMinimumSectionSize(2 * GRID)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTabKeyNavigation(False)

    def choose(self, row: int | None) -> None:
        """Select ``row``, or none."""
        if row is None:
            self.clearSelection()
            self.setCurrentIndex(self.model().index(-1, -1))
        elif self.currentIndex().row() != row or not self.selectionModel().isRowSelected(row):
            flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
            self.selectionModel().setCurrentIndex(self.model().index(row, 0), flags)


class FieldsTable(_PlainTable):
    """As high as its rows."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fields = FieldsModel(self)
        self.setModel(self.fields)
        self.setWordWrap(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Fields of the entry"))
        header = self.horizontalHeader()
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(VALUE, QHeaderView.ResizeMode.Fixed)
        self.setIconSize(QSize(2 * GRID, 2 * GRID))
        header.setSectionResizeMode(MEANING, QHeaderView.ResizeMode.Stretch)
        signals().changed.connect(self.fit)

    def fit(self) -> None:
        """Take the height that the rows need."""
        self.clearSpans()
        for row, field in enumerate(self.fields.fields):
            if is_long(field):
                self.setSpan(row, VALUE, 1, 2)
        self.horizontalHeader().resizeSection(VALUE, round(text_width("0" * (LONG + 1), mono_font(bold=True))))
        least = int(line_height(ui_font())) + GRID
        self.verticalHeader().setMinimumSectionSize(least)
        for row in range(len(self.fields.fields)):
            self.setRowHeight(row, max(least, self.sizeHintForRow(row)))
        self.setFixedHeight(self.verticalHeader().length() + GRID)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.fit()


class RawTable(_PlainTable):
    """Some rows of the table's bytes, with the entry in the middle."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bytes = RawModel(self)
        self.setModel(self.bytes)
        self.setAccessibleName(self.tr("Bytes of the table"))
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Fixed)
        self.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        signals().changed.connect(self._dress)
        self._dress()

    def _dress(self) -> None:
        height = int(line_height(mono_font())) + GRID
        self.horizontalHeader().resizeSection(0, int(text_width("0000", mono_font())) + 2 * GRID)
        self.verticalHeader().setDefaultSectionSize(height)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.setFixedHeight(RAW_ROWS * height)

    def show_entry(self, memory: SparseMemory, level: Level, table: int, index: int) -> None:
        self.bytes.show(memory, level, table)
        self.choose(index)
        self._center()

    def _center(self) -> None:
        self.scrollTo(self.currentIndex(), QAbstractItemView.ScrollHint.PositionAtCenter)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._center()
