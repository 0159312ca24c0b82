"""Address bands: what every guest-physical address translates to on side A and on side B, one above the other."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPen, QPolygonF

from engine.arch.addresses import grouped
from engine.effects.axis import Axis, strips
from gui.effect_texts import OUTCOMES
from gui.models.effects import Picture
from gui.paint.hatch import fill_hatched
from gui.paint.marks import LEFT, RIGHT, SMALL, draw_text, line_height, text_width
from gui.theme import GAP, GRID, mono_font, theme, ui_font

BAND, BETWEEN = 7 * GRID, 3 * GRID
"""Height of a band, and the gap between the two."""
HEAD = 2 * GRID
"""Height above the bands, for the head of the mark."""
NAME = 6 * GRID
"""Width of the column of names."""


class View(msgspec.Struct, frozen=True):
    """The part of the axis that is shown, 0.0 .. 1.0."""

    low: float = 0.0
    high: float = 1.0

    def zoomed(self, factor: float, around: float) -> "View":
        """``factor`` times as large, with ``around`` staying where it is."""
        span = min(1.0, max(1e-6, (self.high - self.low) / factor))
        share = (around - self.low) / (self.high - self.low)
        return View.of(around - share * span, span)

    def moved(self, by: float) -> "View":
        return View.of(self.low + by, self.high - self.low)

    @staticmethod
    def of(low: float, span: float) -> "View":
        low = min(max(0.0, low), 1.0 - span)
        return View(low, low + span)


class Frame(msgspec.Struct, frozen=True):
    """Where the bands are in the picture."""

    a: QRectF
    b: QRectF

    def place(self, x: float, view: View) -> float:
        """The place on the axis that is drawn at ``x``."""
        return view.low + (x - self.a.left()) / self.a.width() * (view.high - view.low)

    def x(self, place: float, view: View) -> float:
        return self.a.left() + (place - view.low) / (view.high - view.low) * self.a.width()


def height() -> float:
    """Of the whole picture: two bands, and the addresses below them."""
    return HEAD + 2 * BAND + BETWEEN + GAP + line_height(mono_font(SMALL))


def frame(rect: QRectF) -> Frame:
    a = QRectF(rect.left() + NAME, rect.top() + HEAD, rect.width() - NAME, BAND)
    return Frame(a, a.translated(0, BAND + BETWEEN))


def paint_bands(
    painter: QPainter, rect: QRectF, picture: Picture, view: View, selected: int | None, hovered: tuple[int, int] | None
) -> None:
    """``selected``: the address that is marked; ``hovered``: first byte and bytes of the range under the pointer."""
    t, places = theme(), frame(rect)
    for name, place, band in (
        ("A", places.a, picture.comparison.band_a),
        ("B", places.b, picture.comparison.band_b),
    ):
        draw_text(painter, QRectF(rect.left(), place.top(), NAME, BAND), name, ui_font(1.1, bold=True))
        _ground(painter, place, picture.axis, view)
        painter.save()
        painter.setClipRect(place, Qt.ClipOperation.IntersectClip)
        for strip in strips(band, picture.axis, view.low, view.high, place.width()):
            area = QRectF(place.left() + strip.left, place.top(), strip.right - strip.left, BAND)
            fill_hatched(painter, area, t.outcomes[OUTCOMES[strip.kind]])
        painter.restore()
    if hovered is not None:
        _outline(painter, places, picture.axis, view, hovered)
    _addresses(painter, rect, places, picture.axis, view)
    at = picture.axis.place(selected) if selected is not None else None
    if at is not None and view.low <= at <= view.high:
        _mark(painter, places, places.x(at, view))


def _ground(painter: QPainter, place: QRectF, axis: Axis, view: View) -> None:
    """What is there at all: empty ground for each span, nothing in the gaps."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme().tint(theme().line, 0.7, theme().window))
    for left, right in _visible(place, axis, view):
        painter.drawRect(QRectF(left, place.top(), right - left, place.height()))


def _visible(place: QRectF, axis: Axis, view: View) -> list[tuple[float, float]]:
    """Pixels from and to of each span that is in view."""
    scale = place.width() / (view.high - view.low)
    ends = [
        (place.left() + (s.left - view.low) * scale, place.left() + (s.right - view.low) * scale) for s in axis.spans
    ]
    return [(max(x, place.left()), min(y, place.right())) for x, y in ends if y > place.left() and x < place.right()]


def _outline(painter: QPainter, places: Frame, axis: Axis, view: View, hovered: tuple[int, int]) -> None:
    start, size = hovered
    first, last = axis.place(start), axis.place(start + size - 1)
    if first is None or last is None:
        return
    painter.setPen(QPen(theme().text, 1.5))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for place in (places.a, places.b):
        left = max(place.left(), places.x(first, view))
        right = min(place.right(), max(places.x(last, view), left + 3))
        if right > left:
            painter.drawRect(QRectF(left, place.top(), right - left, BAND))


def _mark(painter: QPainter, places: Frame, x: float) -> None:
    """The selected address: a line through both bands, with a head above and below."""
    color = theme().accent
    painter.setPen(QPen(color, 1.5))
    painter.drawLine(QPointF(x, places.a.top() - 1), QPointF(x, places.b.bottom() + 1))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(color)
    for y, up in ((places.a.top() - 1, -1), (places.b.bottom() + 1, 1)):
        painter.drawPolygon(QPolygonF([QPointF(x, y), QPointF(x - 4, y + 5 * up), QPointF(x + 4, y + 5 * up)]))


def _addresses(painter: QPainter, rect: QRectF, places: Frame, axis: Axis, view: View) -> None:
    """Where each span in view begins, as far as there is room, and where the last one ends."""
    font, t = mono_font(SMALL), theme()
    line = QRectF(places.b.left(), places.b.bottom() + GAP, places.b.width(), line_height(font))
    last = axis.address(min(view.high, 1.0) - 1e-9)
    end = grouped(last | 0xFFF) if last is not None else ""
    limit = line.right() - (text_width(end, font) + 2 * GAP if end else 0)
    right = line.left() - GAP
    for left, _ in _visible(places.b, axis, view):
        start = axis.address(places.place(left, view) + 1e-9)
        text = grouped(start) if start is not None else ""
        width = text_width(text, font) + 2
        if text and left >= right + GAP and left + width <= limit:
            draw_text(painter, QRectF(left, line.top(), width, line.height()), text, font, t.muted, LEFT)
            right = left + width
    draw_text(painter, line, end, font, t.muted, RIGHT)


def paint_swatch(painter: QPainter, rect: QRectF, kind: object) -> None:
    """The small square of a class before its name."""
    fill = theme().outcomes[OUTCOMES[kind]]  # type: ignore[index]
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    fill_hatched(painter, rect, fill)
    painter.restore()
