"""The selected entry: its bits, its fields, why the walk went on or stopped there, and the bytes around it."""

from PySide6.QtCore import QModelIndex, QRectF, QSize, Qt
from PySide6.QtGui import QFont, QGuiApplication, QKeySequence, QPainter, QPaintEvent, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QStackedLayout,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from engine import events as ev
from engine.arch.addresses import grouped
from gui.document import Change, Document, Selection
from gui.explain import entry_title, why, why_entry
from gui.mirror_texts import entry_name, sentences
from gui.models.inspected import Inspected, inspected
from gui.models.mirror import Counterpart
from gui.paint.bits import BitCells
from gui.paint.marks import SMALL, empty_state, text_width
from gui.theme import GAP, GRID, MARGIN, mono_font, signals, ui_font
from gui.widgets.bit_cells import BitCellsWidget
from gui.widgets.entry_tables import FieldsTable, RawTable
from gui.widgets.level_chip import LevelChip
from gui.widgets.text_label import TextLabel

NARROWEST = 38
"""Digits that fit into the least width."""


class InspectorView(QWidget):
    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._entry: Inspected | None = None
        self.title, self.chip = TextLabel(lambda: ui_font(1.1, bold=True)), LevelChip()
        self.value = TextLabel(lambda: mono_font(1.05))
        self.address = TextLabel(lambda: mono_font(SMALL), "muted")
        self.note, self.why = TextLabel(role="hazard", wrap=True), TextLabel(wrap=True)
        self.beside = TextLabel(wrap=True)
        self.bits = BitCellsWidget()
        self.fields = FieldsTable()
        self.raw = RawTable()
        self._empty = _Empty()
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(self._filled())
        self.bits.chosen.connect(self._on_bit)
        self.bits.flip.connect(self.flip)
        self.fields.selectionModel().currentRowChanged.connect(self._on_field)
        self.raw.clicked.connect(self._on_raw)
        self.raw.activated.connect(self._on_raw)
        copy = QShortcut(QKeySequence.StandardKey.Copy, self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        copy.activated.connect(self.copy)
        signals().changed.connect(self._fit)
        document.changed.connect(self._on_change)
        self._fit()
        self._show()

    def _filled(self) -> QWidget:
        self.why.setAccessibleName(self.tr("Why"))
        self._why_heading, self._raw_heading = TextLabel(_quiet, "muted"), TextLabel(_quiet, "muted")
        self.beside.setAccessibleName(self.tr("Mirror"))
        self.beside.setTextFormat(Qt.TextFormat.RichText)
        self.beside.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.beside.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        # Queued: the label's text changes with the selection, and not while it is being clicked.
        self.beside.linkActivated.connect(self._on_beside, Qt.ConnectionType.QueuedConnection)
        self._why_heading.setText(self.tr("Why"))
        self._raw_heading.setText(self.tr("Bytes of the table"))
        head = QHBoxLayout()
        head.setSpacing(GAP)
        head.addWidget(self.title)
        head.addWidget(self.chip)
        head.addStretch()
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(MARGIN, GAP, MARGIN, MARGIN)
        column.setSpacing(GRID)
        column.addLayout(head)
        column.addWidget(self.value)
        column.addWidget(self.address)
        column.addWidget(self.beside)
        column.addSpacing(GRID)
        column.addWidget(self.bits)
        column.addWidget(self.note)
        column.addWidget(self.fields)
        column.addSpacing(GAP)
        column.addWidget(self._why_heading)
        column.addWidget(self.why)
        column.addSpacing(GAP)
        column.addWidget(self._raw_heading)
        column.addWidget(self.raw)
        column.addStretch()
        area = QScrollArea()
        area.setWidget(content)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        return area

    def sizeHint(self) -> QSize:
        return QSize(300, 560)

    def _fit(self) -> None:
        """Never narrower than the fields can be read."""
        self.setMinimumWidth(round(text_width("0" * NARROWEST, mono_font())))

    # --- what is shown

    def _on_change(self, change: Change) -> None:
        if change & (Change.STATE | Change.WALK | Change.REFERENCE | Change.SELECTION):
            self._show()

    def _show(self) -> None:
        entry = self._entry = inspected(self._document)
        self._stack.setCurrentIndex(0 if entry is None else 1)
        if entry is None:
            return
        step = entry.step
        self.title.setText(self._title(entry))
        self.chip.show_level(step.level.level, step.level.name)
        known = step.value is not None
        value = grouped(step.value or 0, entry.digits)
        self.value.setText(value if known else self.tr("its bytes are not in the image"))
        at = self.tr("at {address}").format(address=grouped(step.address)) if step.address is not None else ""
        self.address.setText(at or self.tr("in a register of the processor"))
        self.note.hide()
        fields = entry.fields()
        self.fields.fields.show(fields, step.level.level)
        self.fields.fit()
        self.fields.setVisible(known)
        self.bits.setVisible(known)
        if known:
            self.bits.show_cells(BitCells(step.value or 0, entry.bits, step.level.level, tuple(fields)))
            self._on_bit(self.bits.current)
        self.why.setText("\n".join(self._sentences(entry)))
        self._show_beside(entry)
        self._show_raw(entry)

    def _title(self, entry: Inspected) -> str:
        step = entry.step
        if entry.beside is not None:
            return entry_name(entry.beside.mirror, entry.beside.guest is not None, step.level, step.index)
        return entry_title(step.stage, step.level, step.index, self._document.walk)

    def _show_beside(self, entry: Inspected) -> None:
        """What the entry mirrors, or what mirrors it, with links to go there."""
        self.beside.setVisible(entry.beside is not None)
        if entry.beside is None:
            return
        others = entry.beside.others

        def link(other: Counterpart, name: str) -> str:
            return f'<a href="{others.index(other)}">{name}</a>' if other.selection is not None else name

        self.beside.setText("<br>".join(sentences(entry.beside, link)))

    def _on_beside(self, number: str) -> None:
        entry = self._entry
        if entry is not None and entry.beside is not None:
            self._document.select(entry.beside.others[int(number)].selection)

    def _sentences(self, entry: Inspected) -> list[str]:
        walk, step = self._document.walk, entry.step
        if walk is not None and entry.number is not None:
            return why(walk, entry.number)
        return why_entry(step.stage, step.level, step.value, step.rule)

    def _show_raw(self, entry: Inspected) -> None:
        step = entry.step
        self._raw_heading.setVisible(step.table is not None)
        self.raw.setVisible(step.table is not None)
        if step.table is not None:
            self.raw.show_entry(self._document.state.memory, step.level, step.table, step.index)

    # --- what the user does

    def _on_bit(self, bit: int | None) -> None:
        self.fields.choose(self.fields.fields.row_of(bit) if bit is not None else None)

    def _on_field(self, current: QModelIndex) -> None:
        if not current.isValid():
            return
        field, bit = self.fields.fields.fields[current.row()], self.bits.current
        if bit is None or not field.lo <= bit <= field.hi:
            self.bits.select(field.lo)

    def _on_raw(self, index: QModelIndex) -> None:
        entry = self._entry
        if entry is not None and entry.step.table is not None:
            self._document.select(Selection(entry.step.stage, entry.step.level, entry.step.table, index.row()))

    def flip(self, bit: int) -> None:
        """Overwrite the entry with one bit flipped: an event, which can be undone."""
        entry = self._entry
        if entry is None:
            return
        if not entry.writable:
            self._refuse(self.tr("A PDPTE register cannot be overwritten here: write CR3 to load it anew."))
            return
        step = entry.step
        assert step.address is not None
        assert step.value is not None
        text = self.tr("Flip bit {bit} of {entry}")
        text = text.format(bit=bit, entry=self._title(entry))
        poke = ev.Poke(step.address, step.value ^ (1 << bit), 1 << step.level.entry_shift)  # type: ignore[arg-type]
        self._refuse(self._document.append(poke, text) or "")

    def _refuse(self, sentence: str) -> None:
        self.note.setText(sentence)
        self.note.setVisible(bool(sentence))

    def copy(self) -> None:
        """What is selected in the part in focus, else the entry's value, to the clipboard."""
        focus = QApplication.focusWidget()
        text = ""
        if isinstance(focus, QLabel):
            text = focus.selectedText()
        elif isinstance(focus, QTableView):
            row = focus.currentIndex().row()
            model = focus.model()
            cells = (model.index(row, column).data() for column in range(model.columnCount()))
            text = "\t".join(str(cell) for cell in cells) if row >= 0 else ""
        if not text and self._entry is not None and self._entry.step.value is not None:
            text = f"{self._entry.step.value:#0{self._entry.digits + 2}x}"
        if text:
            QGuiApplication.clipboard().setText(text)


def _quiet() -> QFont:
    return ui_font(SMALL, bold=True)


class _Empty(QWidget):
    def paintEvent(self, event: QPaintEvent) -> None:
        advice = self.tr("Click a slot in the hierarchy, or a reference of the walk.")
        area = QRectF(self.rect()).adjusted(MARGIN, 0, -MARGIN, 0)
        empty_state(QPainter(self), area, self.tr("No entry selected"), advice)
