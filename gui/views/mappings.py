"""Every mapping of the address space: filtered as one types, and a click walks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from PySide6.QtCore import QModelIndex, QRectF, Qt
from PySide6.QtGui import QGuiApplication, QKeySequence, QPainter, QPaintEvent, QPalette, QShortcut, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QStackedLayout,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from engine.arch.addresses import size_name
from engine.errors import InputError
from engine.machine import Refusal
from gui.document import Change, Document, Query
from gui.enumeration import Enumeration
from gui.jobs import WindowJobs
from gui.models.mapping_filter import compile_filter, matches
from gui.models.mappings import FIRST, PHYSICAL, RIGHTS, SIZE, MappingsModel
from gui.paint.marks import empty_state, line_height, text_width
from gui.theme import GAP, GRID, MARGIN, mono_font, signals
from gui.widgets.text_label import TextLabel

if TYPE_CHECKING:
    from numpy import int64
    from numpy.typing import NDArray

    from engine.arch.mappings import Mappings

SLOW = 1 << 19
"""Runs from which filtering and sorting is done in a worker."""
KEY = "filter mappings"
SAMPLES = ("0xffff_ffff_ffff_ffff", "1023.9 MiB", "R W X U G", "0x000f_ffff_f000", "262,144 × 4 KiB", "")
"""The widest texts of the columns."""


class MappingsView(QWidget):
    """Enumerates when it is first shown, and after every change of what it shows."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._jobs = WindowJobs.of(document)
        self._enumeration = Enumeration.of(document)
        self._mappings: Mappings | None = None
        self.filter = QLineEdit()
        self.filter.setPlaceholderText(self.tr("Filter: w+x, user, -x, 2M, > 64K, or an address"))
        self.filter.setClearButtonEnabled(True)
        self.filter.setAccessibleName(self.tr("Filter of the mappings"))
        self.summary, self.note = TextLabel(role="muted"), TextLabel(role="hazard", wrap=True)
        self.model = MappingsModel(self)
        self.table = _MappingsTable(self.model)
        self._message = _Message()
        self._stack = QStackedLayout()
        self._stack.addWidget(self._message)
        self._stack.addWidget(self.table)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.Base)
        self._arrange()
        self.filter.textChanged.connect(self._narrow)
        self.table.horizontalHeader().sortIndicatorChanged.connect(self._narrow)
        self.table.clicked.connect(self._walk)
        self.table.activated.connect(self._walk)
        copy = QShortcut(QKeySequence.StandardKey.Copy, self.table, context=Qt.ShortcutContext.WidgetShortcut)
        copy.activated.connect(self.copy)
        self._enumeration.ready.connect(self._show)
        self._enumeration.failed.connect(self._on_failure)
        document.changed.connect(self._on_change)

    def _arrange(self) -> None:
        bar = QHBoxLayout()
        bar.setContentsMargins(MARGIN, PAD_TOP, MARGIN, GAP)
        bar.setSpacing(MARGIN)
        bar.addWidget(self.filter, 1)
        bar.addWidget(self.summary)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(bar)
        self.note.setContentsMargins(MARGIN, 0, MARGIN, GAP)
        column.addWidget(self.note)
        below = QVBoxLayout()
        below.setContentsMargins(GAP, 0, 0, 0)
        below.addLayout(self._stack)
        column.addLayout(below, 1)
        self.note.hide()
        self.setFocusProxy(self.filter)

    # --- what is shown

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._ask()

    def _on_change(self, change: Change) -> None:
        if not self.isVisible():
            return
        if change & (Change.STATE | Change.SCENARIO | Change.WALK):
            self._ask()
        if change & Change.WALK:
            self._follow()

    def _ask(self) -> None:
        stages = self._document.stages
        if not self._document.last_step:
            self._say(self.tr("No memory yet"), self.tr("Open a memory image (Ctrl+O) or drop one on this window."))
        elif isinstance(stages, Refusal):
            self._say(self.tr("No mappings"), stages.reason)
        elif self._enumeration.mappings is None or self._enumeration.mappings is not self._mappings:
            if self._mappings is None:
                self._say(self.tr("Reading the page tables"), "")
            self._enumeration.ask()

    def _on_failure(self, sentence: str) -> None:
        self._say(self.tr("The tables cannot be read"), sentence)

    def _say(self, title: str, advice: str) -> None:
        self._mappings = None
        self.model.show(None, None)
        self.summary.setText("")
        self._message.say(title, advice)
        self._stack.setCurrentWidget(self._message)

    def _show(self, mappings: Mappings) -> None:
        self._mappings = mappings
        self._narrow()

    def _narrow(self) -> None:
        """Filter and sort, in a worker where that takes long; the rows shown stay until it is done."""
        mappings = self._mappings
        if mappings is None:
            return
        try:
            tests = compile_filter(self.filter.text())
        except InputError as error:
            self._note(str(error))
            return
        self._note("")
        header = self.table.horizontalHeader()
        column, descending = header.sortIndicatorSection(), header.sortIndicatorOrder() is Qt.SortOrder.DescendingOrder

        def rows() -> NDArray[int64]:
            return _sorted(mappings, matches(mappings, tests).nonzero()[0], column, descending)

        if len(mappings) < SLOW:
            self._show_rows(mappings, rows())
        else:
            text = self.tr("Filtering the mappings")
            self._jobs.start(text, lambda report: rows(), lambda found: self._show_rows(mappings, found), key=KEY)

    def _note(self, sentence: str) -> None:
        self.note.setText(sentence)
        self.note.setVisible(bool(sentence))

    def _show_rows(self, mappings: Mappings, rows: NDArray[int64]) -> None:
        self.model.show(mappings, rows)
        self.summary.setText(self._summary(mappings, rows))
        if len(rows):
            self._stack.setCurrentWidget(self.table)
        else:
            advice = self.tr("Clear the filter to see all of them.") if len(mappings) else ""
            title = self.tr("No range is like that") if len(mappings) else self.tr("Nothing is mapped")
            self._message.say(title, advice)
            self._stack.setCurrentWidget(self._message)
        self._follow()

    def _summary(self, mappings: Mappings, rows: NDArray[int64]) -> str:
        text = self.tr("{shown} of {count} ranges, {size}")
        if len(rows) == len(mappings):
            text = self.tr("{count} ranges, {size}")
        if len(mappings.gaps):
            text = self.tr("{shown} of {count} ranges, {size}; {gaps} ranges cannot be read")
        size = size_name(sum(map(int, mappings.size[rows])))
        counts = {"shown": len(rows), "count": len(mappings), "gaps": len(mappings.gaps)}
        return text.format(size=size, **{name: f"{count:,}" for name, count in counts.items()})

    def _follow(self) -> None:
        """Select the run that holds the address which is walked."""
        walk = self._document.walk
        if walk is None or self._mappings is None or not len(self._mappings):
            return
        from engine.arch.mappings import nearest

        below, above = nearest(self._mappings, walk.linear)
        row = self.model.row_of(below) if below is not None and below == above else None
        if row is None:
            self.table.clearSelection()
        elif row != self.table.currentIndex().row() or not self.table.selectionModel().isRowSelected(row):
            self.table.selectRow(row)

    # --- what the user does

    def _walk(self, index: QModelIndex) -> None:
        query = self._document.query or Query(0, cpl=self._document.state.registers.cpl)
        self._document.ask(msgspec.structs.replace(query, address=self.model.start(index.row())))

    def copy(self) -> None:
        """The selected row, with tabs between its cells, to the clipboard."""
        row = self.table.currentIndex().row()
        if row >= 0:
            cells = (str(self.model.index(row, column).data()) for column in range(self.model.columnCount()))
            QGuiApplication.clipboard().setText("\t".join(cells))


def _sorted(mappings: Mappings, rows: NDArray[int64], column: int, descending: bool) -> NDArray[int64]:
    """``rows``, which are in order of virtual addresses, sorted by another column."""
    import numpy as np

    keys: dict[int, Any] = {SIZE: mappings.size, RIGHTS: mappings.rights, PHYSICAL: mappings.pa}
    if column in keys:
        rows = rows[np.argsort(keys[column][rows], kind="stable")]
    return rows[::-1] if descending else rows


PAD_TOP = 3 * GRID


class _MappingsTable(QTableView):
    def __init__(self, model: MappingsModel) -> None:
        super().__init__()
        self.setModel(model)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setAccessibleName(self.tr("Mappings"))
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.setStyleSheet("QTableView::item { padding: 0 8px; }")
        header = self.horizontalHeader()
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(FIRST, Qt.SortOrder.AscendingOrder)
        header.setHighlightSections(False)
        header.setStretchLastSection(True)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        signals().changed.connect(self._dress)
        self._dress()

    def _dress(self) -> None:
        self.verticalHeader().setDefaultSectionSize(int(line_height(mono_font())) + 2 * GRID)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        for column, sample in enumerate(SAMPLES):
            self.setColumnWidth(column, round(text_width(sample, mono_font())) + 6 * GRID)


class _Message(QWidget):
    """What is shown instead of a table."""

    def __init__(self) -> None:
        super().__init__()
        self._title = self._advice = ""

    def say(self, title: str, advice: str) -> None:
        self._title, self._advice = title, advice
        self.setAccessibleName(title)
        self.setAccessibleDescription(advice)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        area = QRectF(self.rect()).adjusted(MARGIN, 0, -MARGIN, 0)
        empty_state(QPainter(self), area, self._title, self._advice)
