"""A card as a widget: the picture, tool tips of its rows, and the two spots that can be pressed."""

from html import escape

from PySide6.QtCore import QEvent, QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QFocusEvent, QHelpEvent, QKeyEvent, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QToolTip, QWidget

from gui.models.card import Card
from gui.paint.cards import INDENT, card_height, card_rect, chip_rect, fold_rect, paint_card, paint_guide, row_rects
from gui.theme import GRID, signals, theme

WIDTH = 60 * GRID
"""What a card would like to have; it can do with less."""


class HotSpot(QAbstractButton):
    """A part of a picture that can be pressed: it paints nothing but that it has the focus, or the pointer."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Down):
            self.click()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self.isEnabled() or not (self.hasFocus() or self.underMouse()):
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(theme().accent, 1.5 if self.hasFocus() else 1))
        inside = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.drawRoundedRect(inside, inside.height() / 2, inside.height() / 2)


class CardWidget(QWidget):
    """Shows a `Card`. ``switch`` is its chip, ``fold`` the words that unfold it; both are hidden where it has none.

    With the focus, Up and Down go through the rows that have more to tell.
    """

    def __init__(self, card: Card, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._card = card
        self._current = -1
        self.switch, self.fold = HotSpot(self), HotSpot(self)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        signals().changed.connect(self._fit)
        self._say()

    @property
    def card(self) -> Card:
        return self._card

    def show_card(self, card: Card) -> None:
        """Show another one in place of this; nothing is repainted where it says the same."""
        if card != self._card:
            self._card = card
            self._current = -1
            self._say()
            self._fit()

    def _say(self) -> None:
        card = self._card
        self.setAccessibleName(card.title)
        self.setAccessibleDescription(card.spoken())
        self.switch.setVisible(card.switch)
        self.fold.setVisible(bool(card.fold))
        mode = card.chip[1] if card.chip else ""
        self.switch.setAccessibleName(self.tr("Mode of {name}: {mode}. Change it").format(name=card.title, mode=mode))
        self.switch.setToolTip(self.tr("Change the mode of {name}").format(name=card.title))
        self.fold.setAccessibleName(card.fold)

    # --- geometry

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return round(card_height(self._card, width - INDENT * self._card.depth))

    def sizeHint(self) -> QSize:
        return QSize(WIDTH, self.heightForWidth(WIDTH))

    def minimumSizeHint(self) -> QSize:
        return QSize(WIDTH // 2, self.heightForWidth(max(self.width(), WIDTH // 2)))

    def _fit(self) -> None:
        self.updateGeometry()
        self._place_spots()
        self.update()

    def _whole(self) -> QRectF:
        return card_rect(QRectF(self.rect()), self._card)

    def _place_spots(self) -> None:
        whole = self._whole()
        self.switch.setGeometry(_outside(chip_rect(whole, self._card)))
        self.fold.setGeometry(_outside(fold_rect(whole, self._card)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place_spots()

    # --- rows that tell more

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() is QEvent.Type.ToolTip:
            row = self._row_at(event.pos())
            QToolTip.showText(event.globalPos(), _wrapped(self._card.rows[row].tip) if row >= 0 else "", self)
            return True
        return super().event(event)

    def _row_at(self, place: QPoint) -> int:
        rects = row_rects(self._whole(), self._card)
        return next((n for n, rect in enumerate(rects) if rect.contains(place) and self._card.rows[n].tip), -1)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        move = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}.get(Qt.Key(event.key()), 0)
        telling = [number for number, row in enumerate(self._card.rows) if row.tip]
        beyond = [number for number in telling if move and (number - self._current) * move > 0]
        if not beyond:
            super().keyPressEvent(event)
            return
        self._current = beyond[0 if move > 0 else -1]
        row = self._card.rows[self._current]
        self.setAccessibleDescription(row.tip)
        below = row_rects(self._whole(), self._card)[self._current].bottomLeft().toPoint()
        QToolTip.showText(self.mapToGlobal(below), _wrapped(row.tip), self)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._current = -1
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        whole = self._whole()
        paint_guide(painter, QRectF(self.rect()), self._card)
        paint_card(painter, whole, self._card, self._current)
        if self.hasFocus():
            painter.setPen(QPen(theme().accent, 1.5))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(whole.adjusted(1, 1, -1, -1), GRID, GRID)


def _outside(rect: QRectF) -> QRect:
    return rect.toAlignedRect() if not rect.isNull() else QRect()


def _wrapped(text: str) -> str:
    """As rich text, which a tool tip breaks into lines."""
    return f"<p>{escape(text)}</p>"
