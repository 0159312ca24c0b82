"""The timeline: one line an event, in plain words, with what came of it. The current row is the document's step."""

from PySide6.QtCore import QEvent, QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from gui.describe import Line
from gui.document import Change, Document
from gui.icons import pixmap
from gui.models.timeline import Role, TimelineModel
from gui.outcomes import Mark
from gui.paint.marks import CENTER, RIGHT, SMALL, draw_text, line_height, warning
from gui.theme import GRID, RADIUS, mono_font, signals, theme, ui_font

NUMBER = 8 * GRID
"""Width of the column of numbers."""


class TimelineView(QWidget):
    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.model = TimelineModel(document, self)
        self.list = _List(self)
        self.list.setModel(self.model)
        self.list.setAccessibleName(self.tr("Timeline"))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        self.setFocusProxy(self.list)
        self.list.selectionModel().currentChanged.connect(self._on_current)
        document.changed.connect(self._on_change)
        signals().changed.connect(self.list.doItemsLayout)
        self._show_step()

    @property
    def event_at_hand(self) -> int | None:
        """The number, from 0, of the event of the current row; None at the start."""
        return self._document.step - 1 if self._document.step else None

    def _on_change(self, change: Change) -> None:
        if change & (Change.SCENARIO | Change.STATE):
            self._show_step()
        if change & (Change.SCENARIO | Change.STATE | Change.PINS):
            self.list.viewport().update()

    def _show_step(self) -> None:
        index = self.model.index(self._document.step)
        if index != self.list.currentIndex():
            self.list.setCurrentIndex(index)
        self.list.scrollTo(index)

    def _on_current(self, current: QModelIndex) -> None:
        if current.isValid():
            self._document.go_to_step(current.row())


class _List(QListView):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setItemDelegate(_Delegate(self))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setDefaultDropAction(Qt.DropAction.MoveAction)
        self.setDropIndicatorShown(True)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self.doItemsLayout()


class _Delegate(QStyledItemDelegate):
    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(30 * GRID, round(line_height(ui_font()) + line_height(ui_font(SMALL)) + 2 * GRID))

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        line, step = index.data(Role.LINE), index.data(Role.STEP)
        if line is None:
            return
        state = option.state
        rect: QRect = option.rect
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        paint_row(
            painter,
            QRectF(rect),
            step,
            line,
            index.data(Role.PINS),
            selected=bool(state & QStyle.StateFlag.State_Selected),
            hovered=bool(state & QStyle.StateFlag.State_MouseOver),
        )
        painter.restore()


def paint_row(
    painter: QPainter,
    rect: QRectF,
    step: int,
    line: Line,
    pins: tuple[tuple[str, bool], ...] = (),
    *,
    selected: bool = False,
    hovered: bool = False,
) -> None:
    """One event: its number, what happened, and what came of it, with a triangle where that is bad news.

    ``pins``: the letters of the moments that are compared, filled where the user pinned them.
    """
    t = theme()
    ground = t.accent_ground if selected else t.tint(t.text, 0.04) if hovered else None
    card = rect.adjusted(2 * GRID, 1, -2 * GRID, -1)
    if ground is not None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ground)
        painter.drawRoundedRect(card, RADIUS, RADIUS)
    bad = line.mark in (Mark.REFUSED, Mark.FAULT, Mark.HAZARD)
    first, second = line_height(ui_font()), line_height(ui_font(SMALL))
    top = card.center().y() - (first + second) / 2
    number = QRectF(card.left(), top, NUMBER - 3 * GRID, first)
    draw_text(painter, number, str(step), mono_font(SMALL), t.muted, RIGHT)
    side = 4 * GRID
    picture = pixmap(line.icon, t.muted, side)
    at = QRectF(number.right() - side, top + first + (second - side) / 2, side, side)
    painter.drawPixmap(at, picture, QRectF(picture.rect()))
    right = card.right() - (6 * GRID if bad else 2 * GRID)
    left = card.left() + NUMBER
    end = right
    for name, own in reversed(pins):
        end -= _badge(painter, end, top + first / 2, name, own)
    title = QRectF(left, top, end - left, first)
    middle = Qt.TextElideMode.ElideMiddle
    draw_text(painter, title, line.title, ui_font(bold=selected), _color(line), elide=middle)
    below = QRectF(left, top + first, right - left, second)
    draw_text(painter, below, line.subtitle, ui_font(SMALL), t.hazard_text if bad else t.muted)
    if bad:
        warning(painter, QRectF(right, card.top(), card.right() - right, card.height()).center())


def _badge(painter: QPainter, right: float, middle: float, name: str, filled: bool) -> float:
    """A letter in a box, filled or not, that ends at ``right``; gives the room it takes."""
    t, side = theme(), 4.0 * GRID
    box = QRectF(right - side - GRID, middle - side / 2, side, side)
    painter.setPen(QPen(t.accent, 1.2))
    painter.setBrush(t.accent if filled else Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(box, RADIUS, RADIUS)
    draw_text(painter, box, name, ui_font(SMALL, bold=True), t.panel if filled else t.accent, CENTER)
    return side + 1.5 * GRID


def _color(line: Line) -> QColor:
    return theme().muted if line.mark is Mark.REFUSED else theme().text
