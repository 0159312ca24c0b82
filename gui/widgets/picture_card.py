"""A card with a small picture, a title and a sentence, to press: a demo, or a file."""

from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QFontMetricsF, QKeyEvent, QPainter, QPainterPath, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QWidget

from gui.icons import pixmap
from gui.paint.marks import SMALL, card, draw_text, line_height
from gui.theme import GAP, GRID, PAD, RADIUS, signals, theme, ui_font

WIDTH = 76 * GRID
SHAPE = 0.56
"""Height of the picture to its width."""
ARROWS = (Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Up, Qt.Key.Key_Down)
LINES = 3
"""Of the sentence, at the most."""


class PictureCard(QAbstractButton):
    """``note`` stands small at the end: how many stops, or which folder. ``load`` gives the picture, which takes a
    while: it is called once the card has been seen without it."""

    def __init__(
        self, title: str, sentence: str, note: str, load: Callable[[], QPixmap], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._sentence, self._note, self._load = sentence, note, load
        self._picture: QPixmap | None = None
        self.setText(title)
        self.setAccessibleName(title)
        self.setAccessibleDescription(sentence)
        self.setToolTip(sentence)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        signals().changed.connect(self.updateGeometry)

    @property
    def picture(self) -> QPixmap | None:
        """None: not loaded yet."""
        return self._picture

    def load_again(self) -> None:
        """The picture is another now."""
        self._picture = None
        self.update()

    def _load_now(self) -> None:
        if self._picture is None:
            self._picture = self._load()
            self.update()

    def sizeHint(self) -> QSize:
        lines = LINES * line_height(ui_font(SMALL)) if self._sentence else 0
        text = line_height(ui_font(bold=True)) + lines + line_height(ui_font(SMALL))
        return QSize(WIDTH, round(WIDTH * SHAPE + text + 3 * GAP))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Return presses it, as it does links and items of lists; arrows are for whoever lays out the cards."""
        key = Qt.Key(event.key())
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        elif key in ARROWS:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        whole = QRectF(self.rect())
        card(painter, whole)
        picture = QRectF(1, 1, whole.width() - 2, WIDTH * SHAPE)
        self._paint_picture(painter, picture)
        left, width = float(PAD), whole.width() - 2 * PAD
        top = picture.bottom() + GAP
        title = QRectF(left, top, width, line_height(ui_font(bold=True)))
        draw_text(painter, title, self.text(), ui_font(bold=True))
        small, high = ui_font(SMALL), line_height(ui_font(SMALL))
        for number, line in enumerate(self._lines(width)):
            draw_text(painter, QRectF(left, title.bottom() + number * high, width, high), line, small)
        note = QRectF(left, whole.bottom() - GAP - high, width, high)
        draw_text(painter, note, self._note, small, theme().muted)
        if self.hasFocus() or self.underMouse():
            width = 2 if self.hasFocus() else 1
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme().accent, width))
            painter.drawRoundedRect(whole.adjusted(width / 2, width / 2, -width / 2, -width / 2), RADIUS, RADIUS)

    def _paint_picture(self, painter: QPainter, where: QRectF) -> None:
        if self._picture is None:
            QTimer.singleShot(0, self, self._load_now)
        elif not self._picture.isNull():
            size = self._picture.size().scaled(where.size().toSize(), Qt.AspectRatioMode.KeepAspectRatioByExpanding)
            path = QPainterPath()
            path.addRoundedRect(where, RADIUS, RADIUS)
            painter.save()
            painter.setClipPath(path)
            painter.drawPixmap(QRectF(where.topLeft(), size.toSizeF()), self._picture, QRectF(self._picture.rect()))
            painter.restore()
        else:
            side = 12 * GRID
            corner = where.center() - QPointF(side, side) / 2
            painter.drawPixmap(corner.toPoint(), pixmap("image", theme().faint, side))
        painter.fillRect(QRectF(where.left(), where.bottom(), where.width(), 1), theme().line)

    def _lines(self, width: float) -> list[str]:
        """The sentence broken into lines; the last one is cut where it is too long."""
        metrics = QFontMetricsF(ui_font(SMALL))
        lines: list[str] = []
        line = ""
        for word in self._sentence.split():
            longer = f"{line} {word}".strip()
            if line and metrics.horizontalAdvance(longer) > width and len(lines) < LINES - 1:
                lines.append(line)
                line = word
            else:
                line = longer
        return [*lines, line] if line else lines
