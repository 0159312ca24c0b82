"""Cards of the machine as pictures: a title with its chip, rows in columns, and orange where something is wrong."""

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen

from gui.models.card import Card, Face, Row
from gui.paint.marks import RIGHT, SMALL, card, chip, chip_size, draw_text, line_height, text_width, warning
from gui.theme import GRID, PAD, RADIUS, mono_font, theme, ui_font

COLUMN_GAP = 2 * GRID
LEAST = 10 * GRID
"""Width that a column keeps."""
CHEVRON = 4 * GRID
"""Width of the arrow in a chip that opens a menu."""
INDENT = 3 * GRID
"""How far a card is drawn to the right for each other that it stands in."""
_WRAPPED = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap


def _title_height() -> float:
    return max(line_height(ui_font(bold=True)), chip_size("5-level").height())


def _row_font(row: Row) -> QFont:
    return ui_font(SMALL) if row.face in (Face.PROSE, Face.HEAD) else mono_font(SMALL)


def _row_height(row: Row, width: float) -> float:
    if row.face is not Face.PROSE:
        return line_height(mono_font(SMALL)) + GRID
    bounds = QFontMetricsF(_row_font(row)).boundingRect(QRectF(0, 0, width, 1e6), int(_WRAPPED), row.cells[0])
    return GRID * round(bounds.height() / GRID + 0.49) + GRID


def card_rect(rect: QRectF, shown: Card) -> QRectF:
    """Where the card itself is in the ``rect`` that it has."""
    return rect.adjusted(INDENT * shown.depth, 0, 0, 0)


def paint_guide(painter: QPainter, rect: QRectF, shown: Card) -> None:
    """The line that leads from the card above into this one, left of it."""
    if not shown.depth:
        return
    right = card_rect(rect, shown).left()
    left, middle = right - INDENT / 2, rect.top() + 2 * GRID + _title_height() / 2
    painter.setPen(QPen(theme().line, 1.5))
    painter.drawPolyline([QPointF(left, rect.top()), QPointF(left, middle), QPointF(right, middle)])


def card_height(shown: Card, width: float) -> float:
    """How high the card is when it is ``width`` wide, in device-independent pixels."""
    inner = width - 2 * PAD
    fold = _fold_height() if shown.fold else 0
    return _title_height() + sum(_row_height(row, inner) for row in shown.rows) + fold + 5 * GRID


def _fold_height() -> float:
    return line_height(ui_font(SMALL)) + GRID


def row_rects(rect: QRectF, shown: Card) -> list[QRectF]:
    """Where each row of the card in ``rect`` is."""
    left, width = rect.left() + PAD, rect.width() - 2 * PAD
    top = rect.top() + 3 * GRID + _title_height()
    rects = []
    for row in shown.rows:
        rects.append(QRectF(left, top, width, _row_height(row, width)))
        top = rects[-1].bottom()
    return rects


def chip_rect(rect: QRectF, shown: Card) -> QRectF:
    """Where the chip of the card in ``rect`` is; it has an arrow where it is a switch."""
    if shown.chip is None:
        return QRectF()
    size = chip_size(shown.chip[1])
    left = rect.left() + PAD + text_width(shown.title, ui_font(bold=True)) + 2 * GRID
    top = rect.top() + 2 * GRID + (_title_height() - size.height()) / 2
    return QRectF(left, top, size.width() + (CHEVRON if shown.switch else 0), size.height())


def fold_rect(rect: QRectF, shown: Card) -> QRectF:
    """Where the words that fold or unfold the card are."""
    if not shown.fold:
        return QRectF()
    width = text_width(shown.fold, ui_font(SMALL)) + CHEVRON + 3 * GRID
    top = row_rects(rect, shown)[-1].bottom()
    return QRectF(rect.left() + PAD - GRID, top, min(width, rect.width() - 2 * PAD + 2 * GRID), _fold_height())


def paint_card(painter: QPainter, rect: QRectF, shown: Card, current: int = -1) -> None:
    """``current``: the row that is picked out, -1 for none."""
    t = theme()
    stroke, fill = (t.hazard_mark, t.hazard_ground) if shown.hazard else (t.line, t.window)
    card(painter, rect, stroke, fill=fill)
    title = QRectF(rect.left() + PAD, rect.top() + 2 * GRID, rect.width() - 2 * PAD, _title_height())
    draw_text(painter, title, shown.title, ui_font(bold=True))
    taken = title.left() + text_width(shown.title, ui_font(bold=True))
    if shown.chip is not None:
        place = chip_rect(rect, shown)
        chip(painter, place, *shown.chip)
        if shown.switch:
            _chevron(painter, QPointF(place.right() - 2.5 * GRID, place.center().y()), t.muted)
        taken = place.right()
    on_pcpu = shown.key.startswith("pcpu")
    side = title.adjusted(taken - title.left() + 2 * GRID, 0, 0, 0)
    draw_text(painter, side, shown.side, ui_font(SMALL, bold=on_pcpu), t.accent if on_pcpu else t.muted, RIGHT)
    widths = _columns(shown.rows, title.width())
    for number, (row, place) in enumerate(zip(shown.rows, row_rects(rect, shown), strict=True)):
        if number == current:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(t.accent_ground)
            painter.drawRoundedRect(place.adjusted(-GRID, 0, GRID, 0), RADIUS, RADIUS)
        _paint_row(painter, place, row, widths[len(row.cells)])
    if shown.fold:
        place = fold_rect(rect, shown)
        draw_text(painter, place.adjusted(GRID, 0, 0, 0), shown.fold, ui_font(SMALL), t.accent)
        _chevron(painter, QPointF(place.right() - 2.5 * GRID, place.center().y()), t.accent, up=shown.unfolded)


def _paint_row(painter: QPainter, rect: QRectF, row: Row, widths: list[float]) -> None:
    t = theme()
    if row.face is Face.PROSE:
        painter.setFont(_row_font(row))
        painter.setPen(t.hazard_text if row.marked else t.muted)
        painter.drawText(rect.adjusted(0, GRID / 2, 0, 0), int(_WRAPPED), row.cells[0])
        return
    left = rect.left()
    for number, (text, width) in enumerate(zip(row.cells, widths, strict=True)):
        last = number == len(row.cells) - 1
        font = mono_font(SMALL, bold=True) if row.marked and last else _row_font(row)
        draw_text(painter, QRectF(left, rect.top(), width, rect.height()), text, font, _color(row, number, last))
        left += width + COLUMN_GAP
    if row.marked:
        end = left - COLUMN_GAP - widths[-1] + text_width(row.cells[-1], mono_font(SMALL, bold=True))
        warning(painter, QPointF(min(end + 3 * GRID, rect.right() - 5), rect.center().y()))


def _color(row: Row, number: int, last: bool) -> QColor:
    t = theme()
    if row.marked and last:
        return t.hazard_text
    quiet = row.face in (Face.HEAD, Face.PLAIN) or number == 0
    return t.muted if quiet else t.text


def _columns(rows: tuple[Row, ...], width: float) -> dict[int, list[float]]:
    """The widths of the columns, by how many there are: as wide as their texts, the widest cut to fit."""
    found: dict[int, list[float]] = {}
    for count in {len(row.cells) for row in rows}:
        texts = [row for row in rows if len(row.cells) == count and row.face is not Face.PROSE]
        widths = [
            max((text_width(row.cells[n], _row_font(row)) for row in texts), default=0.0) + 1 for n in range(count)
        ]
        room = width - COLUMN_GAP * (count - 1) - (6 * GRID if any(row.marked for row in texts) else 0)
        found[count] = _cut(widths, room)
    return found


def _cut(widths: list[float], room: float) -> list[float]:
    """``widths``, cut so that together they fit into ``room``: names stay whole as long as their values show a bit."""
    name, *values = widths
    if not values:
        return [min(name, room)]
    name = min(name, max(LEAST, room - sum(min(value, LEAST) for value in values)))
    rest, left = room - name, len(values)
    for width in sorted(values):
        if width * left >= rest:
            return [name, *(min(value, max(LEAST, rest / left)) for value in values)]
        rest, left = rest - width, left - 1
    return [name, *values]


def _chevron(painter: QPainter, center: QPointF, color: QColor, up: bool = False) -> None:
    rise = -1.5 if up else 1.5
    painter.setPen(QPen(color, 1.4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawPolyline([center + QPointF(-3, -rise), center + QPointF(0, rise), center + QPointF(3, -rise)])
