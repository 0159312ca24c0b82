"""The small marks that all pictures are made of: cards, text, level chips, verdicts, hatching.

Painters take any QPainter, so the same picture goes to a window, a file or paper. Colours and faces come from the
theme; distances follow the font, so that everything grows with it.
"""

from PySide6.QtCore import QPointF, QRectF, QSizeF, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QFontMetricsF, QPainter, QPainterPath, QPen, QPolygonF

from gui.theme import GRID, RADIUS, Fill, theme, ui_font

SMALL = 0.88
"""Scale of notes beside the text they belong to."""
LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
CENTER = Qt.AlignmentFlag.AlignCenter


def line_height(font: QFont) -> float:
    """The height of a line of ``font``, on the grid."""
    return GRID * round(QFontMetricsF(font).height() / GRID + 0.49)


def text_width(text: str, font: QFont) -> float:
    return QFontMetricsF(font).horizontalAdvance(text)


def draw_text(
    painter: QPainter,
    rect: QRectF,
    text: str,
    font: QFont | None = None,
    color: QColor | None = None,
    align: Qt.AlignmentFlag = LEFT,
    elide: Qt.TextElideMode = Qt.TextElideMode.ElideRight,
) -> None:
    """``text`` on one line inside ``rect``, cut with an ellipsis where it is too long."""
    face = font or ui_font()
    painter.setFont(face)
    painter.setPen(color or theme().text)
    metrics = QFontMetricsF(face)
    if metrics.horizontalAdvance(text) > rect.width():
        text = metrics.elidedText(text, elide, rect.width())
    painter.drawText(rect, int(align), text)


def card(
    painter: QPainter, rect: QRectF, stroke: QColor | None = None, width: float = 1, fill: QColor | None = None
) -> None:
    """A rounded panel. Its stroke lies inside ``rect``."""
    painter.setPen(QPen(stroke or theme().line, width))
    painter.setBrush(fill or theme().panel)
    half = width / 2
    painter.drawRoundedRect(rect.adjusted(half, half, -half, -half), RADIUS, RADIUS)


def fill_rect(painter: QPainter, rect: QRectF, fill: Fill) -> None:
    """``rect`` in a colour, with its hatching over it."""
    painter.fillRect(rect, fill.color)
    if fill.hatch is not Qt.BrushStyle.NoBrush:
        painter.fillRect(rect, QBrush(theme().tint(theme().text, 0.6, fill.color), fill.hatch))


def level_square(painter: QPainter, left: float, middle: float, level: int, side: float = 2 * GRID) -> None:
    """The small square of a level's colour that stands before its name. ``middle``: its vertical centre."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme().level(level))
    painter.drawRoundedRect(QRectF(left, middle - side / 2, side, side), 2, 2)


def level_title(
    painter: QPainter, rect: QRectF, level: int, name: str, color: QColor | None = None, scale: float = 1.0
) -> float:
    """A level's square and its name in bold; gives the x after them."""
    font = ui_font(scale, bold=True)
    level_square(painter, rect.left(), rect.center().y(), level)
    left = rect.left() + 3 * GRID
    draw_text(painter, QRectF(left, rect.top(), rect.right() - left, rect.height()), name, font, color)
    return min(rect.right(), left + text_width(name, font))


def chip_size(name: str) -> QSizeF:
    font = ui_font(SMALL, bold=True)
    return QSizeF(text_width(name, font) + 7 * GRID, line_height(font))


def chip(painter: QPainter, rect: QRectF, level: int, name: str) -> None:
    """A pill that says what level something is of."""
    t = theme()
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(t.tint(t.level(level), 0.2))
    painter.drawRoundedRect(rect, rect.height() / 2, rect.height() / 2)
    level_square(painter, rect.left() + 2 * GRID, rect.center().y(), level)
    draw_text(painter, rect.adjusted(5 * GRID, 0, 0, 0), name, ui_font(SMALL, bold=True))


def tick(painter: QPainter, center: QPointF, color: QColor, size: float = 7) -> None:
    path = QPainterPath(center + QPointF(-size / 2, 0))
    path.lineTo(center + QPointF(-size / 8, size * 0.36))
    path.lineTo(center + QPointF(size / 2, -size * 0.4))
    painter.setPen(QPen(color, 1.6, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPath(path)


def warning(painter: QPainter, center: QPointF, size: float = 10) -> None:
    """The triangle that marks a fault or a hazard."""
    half = size / 2
    corners = [QPointF(0, -half), QPointF(half, half * 0.8), QPointF(-half, half * 0.8)]
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme().hazard_mark)
    painter.drawPolygon(QPolygonF([center + corner for corner in corners]))


def empty_state(painter: QPainter, rect: QRectF, title: str, advice: str) -> None:
    """What an empty view says instead of a picture: what is missing, and what to do next."""
    height = line_height(ui_font(1.2))
    top = rect.center().y() - height
    draw_text(painter, QRectF(rect.left(), top, rect.width(), height), title, ui_font(1.2, bold=True), None, CENTER)
    painter.setFont(ui_font())
    painter.setPen(theme().muted)
    below = QRectF(rect.left(), top + height + GRID, rect.width(), rect.height())
    wrapped = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap
    painter.drawText(below, int(wrapped), advice)
