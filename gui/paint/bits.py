"""An entry as cells, a bit each: two rows, the high half above; fields apart, and coloured by what they are for."""

import msgspec
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen

from engine.arch.formats import Decoded, Role
from gui.paint.marks import CENTER, SMALL, draw_text, line_height, text_width
from gui.theme import GRID, mono_font, theme

BETWEEN_FIELDS, BETWEEN_BITS = 3.0, 1.0
"""Gaps; bits of one field stand closer together."""
DIGITS_FROM = 9.0
"""The width of a cell from which 0 and 1 are written into it."""
MARKED_EVERY = 8
"""Bits between the numbers below a row."""


class BitCells(msgspec.Struct, frozen=True):
    """An entry to be painted. ``level``: its paging level; ``fields`` from bit 0 up, all bits of the entry."""

    value: int
    bits: int
    level: int
    fields: tuple[Decoded, ...]

    def field_of(self, bit: int) -> Decoded:
        return next(field for field in self.fields if field.lo <= bit <= field.hi)


def height() -> float:
    return 2 * (_cell_height() + line_height(mono_font(SMALL))) + GRID


def _cell_height() -> float:
    return line_height(mono_font()) + GRID / 2


def cell_rects(cells: BitCells, rect: QRectF) -> list[QRectF]:
    """The place of each bit, bit 0 first."""
    half = cells.bits // 2
    row = _cell_height() + line_height(mono_font(SMALL)) + GRID
    found = [QRectF()] * cells.bits
    for number in (0, 1):
        bits = range(half * (2 - number) - 1, half * (1 - number) - 1, -1)
        gaps = [_gap(cells, bit) for bit in bits][1:]
        width = (rect.width() - sum(gaps)) / half
        left = rect.left()
        for bit, gap in zip(bits, [*gaps, 0.0], strict=True):
            found[bit] = QRectF(left, rect.top() + number * row, width, _cell_height())
            left += width + gap
    return found


def _gap(cells: BitCells, bit: int) -> float:
    """The gap to the left of ``bit``."""
    return BETWEEN_FIELDS if cells.field_of(bit).hi == bit else BETWEEN_BITS


def role_color(role: Role, level: int) -> QColor:
    """Fields that translate are in the level's colour, rights in the accent, what must be 0 in the hazard's."""
    t = theme()
    match role:
        case Role.ADDRESS | Role.PRESENT | Role.SIZE:
            return t.level(level)
        case Role.RIGHT | Role.KEY:
            return t.accent
        case Role.RESERVED:
            return t.hazard_mark
        case Role.IGNORED:
            return t.faint
    return t.muted


def paint_bits(painter: QPainter, rect: QRectF, cells: BitCells, current: int | None, focused: bool) -> None:
    """``current``: the bit whose field is selected; with the keyboard's ``focused`` frame around it."""
    t = theme()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    rects = cell_rects(cells, rect)
    chosen = cells.field_of(current) if current is not None else None
    for bit, place in enumerate(rects):
        field = cells.field_of(bit)
        is_set = bool(cells.value >> bit & 1)
        color = role_color(field.role, cells.level)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(color if is_set else t.tint(color, 0.13 if field.role is Role.IGNORED else 0.2))
        painter.drawRoundedRect(place, 2, 2)
        if place.width() >= DIGITS_FROM:
            digit_color = _ink(color) if is_set else t.muted
            draw_text(painter, place.adjusted(-2, 0, 2, 0), str(int(is_set)), mono_font(SMALL), digit_color, CENTER)
    _numbers(painter, cells, rects)
    if chosen is not None:
        _frame(painter, rects, chosen, current if focused else None)


def _ink(color: QColor) -> QColor:
    """Black or white, whichever can be read on ``color``."""
    red, green, blue = _linear(color.redF()), _linear(color.greenF()), _linear(color.blueF())
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return QColor(Qt.GlobalColor.black) if luminance > 0.179 else QColor(Qt.GlobalColor.white)


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _numbers(painter: QPainter, cells: BitCells, rects: list[QRectF]) -> None:
    """The numbers of the first and last bit of each row, and of some between, below them."""
    font = mono_font(SMALL * 0.9)
    half = cells.bits // 2
    for bit, place in enumerate(rects):
        if bit % MARKED_EVERY == 0 or bit in (half - 1, cells.bits - 1):
            text = str(bit)
            width = text_width(text, font)
            left = max(rects[-1].left(), min(place.center().x() - width / 2, rects[0].right() - width))
            if bit in (half - 1, cells.bits - 1):
                left = place.left()
            below = QRectF(left, place.bottom() + 1, width + 1, line_height(font))
            draw_text(painter, below, text, font, theme().muted)


def _frame(painter: QPainter, rects: list[QRectF], field: Decoded, cursor: int | None) -> None:
    """A frame around the bits of ``field``, in each row that has some, and a heavier one around the cursor's bit."""
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(theme().accent, 1.5))
    half = len(rects) // 2
    for low, high in ((field.lo, min(field.hi, half - 1)), (max(field.lo, half), field.hi)):
        if low <= high:
            painter.drawRoundedRect(rects[high].united(rects[low]).adjusted(-1.5, -1.5, 1.5, 1.5), 3, 3)
    if cursor is not None:
        painter.setPen(QPen(theme().text, 1.5))
        painter.drawRoundedRect(rects[cursor].adjusted(-1, -1, 1, 1), 2, 2)
