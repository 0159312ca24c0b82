"""Fills that are told apart without their colour: bold hatching, for areas wide enough to show it."""

from PySide6.QtCore import QLineF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen

from gui.theme import Fill

PERIOD = 6.0
"""Pixels from one line of a hatching to the next."""
_STYLE = Qt.BrushStyle
_DIRECTIONS: dict[Qt.BrushStyle, str] = {
    _STYLE.BDiagPattern: "/",
    _STYLE.FDiagPattern: "\\",
    _STYLE.DiagCrossPattern: "/",
    _STYLE.HorPattern: "-",
    _STYLE.VerPattern: "|",
    _STYLE.CrossPattern: "-|",
    _STYLE.Dense6Pattern: ".",
}


def fill_hatched(painter: QPainter, rect: QRectF, fill: Fill) -> None:
    """``rect`` in the colour of ``fill`` with its hatching: lines darker than a light colour, lighter than a dark one.

    The lines lie on a grid of the whole picture, so neighbouring areas of one fill show no seam.
    """
    painter.fillRect(rect, fill.color)
    directions = _DIRECTIONS.get(fill.hatch, "")
    if not directions or rect.width() < 2:
        return
    painter.save()
    painter.setClipRect(rect, Qt.ClipOperation.IntersectClip)
    painter.setPen(
        QPen(_line_color(fill.color), 1.6, Qt.PenStyle.DotLine if directions == "." else Qt.PenStyle.SolidLine)
    )
    for direction in directions:
        painter.drawLines(_lines(rect, direction))
    painter.restore()


def _line_color(color: QColor) -> QColor:
    return color.lighter(190) if color.lightnessF() < 0.45 else color.darker(160)


def _lines(rect: QRectF, direction: str) -> list[QLineF]:
    left, top, right, bottom = rect.left(), rect.top(), rect.right(), rect.bottom()
    height = rect.height()
    if direction in "-.":
        return [QLineF(left, y, right, y) for y in _grid(top, bottom, PERIOD)]
    if direction == "|":
        return [QLineF(x, top, x, bottom) for x in _grid(left, right, PERIOD)]
    step = PERIOD * 1.4
    if direction == "/":  # x + y is the same along a line
        return [QLineF(c - bottom, bottom, c - top, top) for c in _grid(left + top, right + bottom, step)]
    return [QLineF(c + top, top, c + bottom, top + height) for c in _grid(left - bottom, right - top, step)]


def _grid(low: float, high: float, step: float) -> list[float]:
    first, last = int(low // step), int(high // step) + 1
    return [n * step for n in range(first, last + 1)]
