"""The bits of an entry to click: a click selects a field, a double-click or Space flips a bit."""

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QToolTip, QWidget

from gui.explain import engine_text
from gui.paint import bits
from gui.paint.bits import BitCells
from gui.theme import GRID, signals

MOVES = {Qt.Key.Key_Left: 1, Qt.Key.Key_Right: -1}
ROWS = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1}


class BitCellsWidget(QWidget):
    """Arrows move among the bits: left is the next higher one."""

    chosen = Signal(int)
    """A bit was selected by the user."""
    flip = Signal(int)
    """The user wants a bit flipped."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._cells: BitCells | None = None
        self._current: int | None = None
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("Bits of the entry"))
        signals().changed.connect(self.updateGeometry)

    def show_cells(self, cells: BitCells | None) -> None:
        self._cells = cells
        if cells is None or (self._current is not None and self._current >= cells.bits):
            self._current = None
        self._tell()
        self.update()

    @property
    def current(self) -> int | None:
        """The bit whose field is selected."""
        return self._current

    def select(self, bit: int | None) -> None:
        """Select a bit, without telling about it."""
        if bit != self._current:
            self._current = bit
            self._tell()
            self.update()

    def rect_of(self, bit: int) -> QRectF:
        """The place of a bit in this widget."""
        return bits.cell_rects(self._cells, self._area())[bit] if self._cells else QRectF()

    def sizeHint(self) -> QSize:
        return QSize(240, round(bits.height()))

    def minimumSizeHint(self) -> QSize:
        return QSize(160, round(bits.height()))

    def _area(self) -> QRectF:
        return QRectF(self.rect()).adjusted(2, 2, -2, 0)

    def _tell(self) -> None:
        told = self._describe(self._current) if self._cells and self._current is not None else ""
        self.setAccessibleDescription(told)

    def _describe(self, bit: int) -> str:
        assert self._cells is not None
        field = self._cells.field_of(bit)
        text = self.tr("bit {bit} is {value}: {field}")
        if field.meaning or field.why:
            text = self.tr("bit {bit} is {value}: {field}, {meaning}")
        meaning, name = engine_text(field.why or field.meaning), engine_text(field.name)
        return text.format(bit=bit, value=self._cells.value >> bit & 1, field=name, meaning=meaning)

    def _bit_at(self, point: QPointF) -> int | None:
        if self._cells is None:
            return None
        reach = bits.BETWEEN_FIELDS / 2
        places = bits.cell_rects(self._cells, self._area())
        return next((bit for bit, at in enumerate(places) if at.adjusted(-reach, -2, reach, 2).contains(point)), None)

    def _choose(self, bit: int) -> None:
        self.select(bit)
        self.chosen.emit(bit)

    # --- events

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._cells is not None:
            bits.paint_bits(QPainter(self), self._area(), self._cells, self._current, self.hasFocus())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if (bit := self._bit_at(event.position())) is not None:
            self._choose(bit)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if (bit := self._bit_at(event.position())) is not None:
            self.flip.emit(bit)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        bit = self._bit_at(event.position())
        if bit is None:
            QToolTip.hideText()
        else:
            below = event.globalPosition().toPoint()
            below.setY(below.y() + 3 * GRID)
            QToolTip.showText(below, self._describe(bit), self)

    def event(self, event: QEvent) -> bool:
        """The arrows and Space are the cells' own while they have the focus."""
        if event.type() is QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            own = Qt.Key(event.key()) in (*MOVES, *ROWS, Qt.Key.Key_Space)
            if own and not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
                event.accept()
                return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = Qt.Key(event.key())
        if self._cells is None:
            super().keyPressEvent(event)
            return
        current = self._current if self._current is not None else 0
        step = MOVES.get(key, 0) + ROWS.get(key, 0) * self._cells.bits // 2
        if step and 0 <= current + step < self._cells.bits:
            self._choose(current + step)
        elif key is Qt.Key.Key_Space:
            self.flip.emit(current)
        elif not step:
            super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        by_keyboard = event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        if by_keyboard and self._current is None and self._cells is not None:
            self._choose(0)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self.update()
