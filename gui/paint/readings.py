"""The same bytes read in two ways, side by side: a row a frame, joined where both sides read the same one."""

from collections.abc import Iterable

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen

from engine.arch.addresses import grouped
from engine.arch.faults import EptViolation, NestedPageFault, Outcome, Translated
from engine.arch.walk import Rule
from gui.explain import engine_text, outcome_title, translate
from gui.models.readings import Pair, Reading, Readings
from gui.paint.layout import Card
from gui.paint.marks import RIGHT, SMALL, card, draw_text, fill_rect, level_title, line_height, text_width, warning
from gui.paint.tables import paint_strip
from gui.theme import GAP, GRID, PAD, mono_font, theme, ui_font
from gui.theme import Outcome as Fills

MIDDLE = 14 * GRID
"""Width of the gap that the joining lines cross."""
TALLEST, LOWEST = 13 * GRID, 8 * GRID
"""Height of a card."""
SMALL_BELOW = 10 * GRID
"""Height below which the words on a card are small."""
ARROW = 4 * GRID
ROWS = 5
"""As many rows as the picture would like to have room for."""


class Place(msgspec.Struct, frozen=True):
    """Where a row is: the cards of both sides, and the line of words below them (empty where there are none)."""

    a: QRectF
    b: QRectF
    words: QRectF


def _line() -> float:
    return line_height(ui_font())


def preferred_height() -> float:
    return 2 * _line() + GRID + ROWS * (TALLEST + GAP) + _line()


def least_height() -> float:
    """Room for the most rows there are, and two with words."""
    return 2 * _line() + GRID + (ROWS + 1) * (LOWEST + GRID) + 2 * _line()


def columns(rect: QRectF) -> tuple[QRectF, QRectF]:
    """The two sides of ``rect``."""
    width = (rect.width() - MIDDLE) / 2
    return (
        QRectF(rect.left(), rect.top(), width, rect.height()),
        QRectF(rect.right() - width, rect.top(), width, rect.height()),
    )


def places(rect: QRectF, shown: Readings) -> list[Place]:
    """Where the rows of ``shown`` are; they get lower where there is little room."""
    left, right = columns(rect)
    speaking = sum(_has_words(pair) for pair in shown.pairs)
    top = rect.top() + 2 * _line() + GRID
    room = rect.bottom() - top - speaking * _line()
    pitch = min(TALLEST + GAP, room / max(1, len(shown.pairs)))
    high = max(LOWEST, pitch - (GAP if pitch >= LOWEST + GAP else GRID))
    found = []
    for pair in shown.pairs:
        words = _line() if _has_words(pair) else 0
        found.append(
            Place(
                QRectF(left.left(), top, left.width(), high),
                QRectF(right.left(), top, right.width(), high),
                QRectF(rect.left(), top + high, rect.width(), words),
            )
        )
        top += pitch + words
    return found


def _has_words(pair: Pair) -> bool:
    return any(reading is not None and reading.odd for reading in (pair.a, pair.b))


def paint_readings(painter: QPainter, rect: QRectF, shown: Readings, selected: tuple[int, int] | None = None) -> None:
    """``selected``: frame and slot of the entry that is selected, to be picked out on both sides."""
    left, right = columns(rect)
    _end(painter, left, shown.gpa, shown.end_a, shown.gpa == shown.gpa_a and _is_astray(pair.a for pair in shown.pairs))
    _end(painter, right, shown.gpa, shown.end_b, _is_astray(pair.b for pair in shown.pairs))
    below = QRectF(left.left(), rect.top() + _line(), left.width(), _line())
    if shown.gpa_a != shown.gpa:
        text = translate("Readings", "A reads the entries below for GPA {gpa}")
        draw_text(painter, below, text.format(gpa=grouped(shown.gpa_a)), ui_font(SMALL), theme().muted)
    for pair, place in zip(shown.pairs, places(rect, shown), strict=True):
        if pair.joined:
            _join(painter, place, _has_words(pair))
        for reading, area in ((pair.a, place.a), (pair.b, place.b)):
            if reading is not None:
                _paint(painter, area, reading, selected)
        if _has_words(pair):
            for reading, area in ((pair.a, place.a), (pair.b, place.b)):
                if reading is not None:
                    _words(painter, QRectF(area.left(), place.words.top(), area.width(), _line()), reading)


def _is_astray(readings: Iterable[Reading | None]) -> bool:
    """Whether the walk ends in a page that it should not reach."""
    return any(reading is not None and not reading.level and reading.odd for reading in readings)


def _end(painter: QPainter, column: QRectF, gpa: int, end: Outcome, astray: bool) -> None:
    """ "GPA 0x200_0abc  →  HPA 0x9_7bff_abc"; the result alone where there is too little room."""
    t, bold, small = theme(), mono_font(bold=True), ui_font(SMALL)
    line = QRectF(column.left(), column.top(), column.width(), _line())
    text, why = outcome_title(end), ""
    if isinstance(end, Translated):
        text = translate("Readings", "HPA {hpa}").format(hpa=grouped(end.address))
    elif isinstance(end, NestedPageFault | EptViolation):
        why = engine_text(end.reason.value)
    name = translate("Readings", "GPA {gpa}").format(gpa=grouped(gpa))
    before = text_width(name, mono_font()) + GAP
    if before + ARROW + GAP + text_width(text, bold) <= line.width():
        draw_text(painter, line, name, mono_font(), t.muted)
        _arrow(painter, QRectF(line.left() + before, line.top(), ARROW, line.height()))
        line.setLeft(line.left() + before + ARROW + GAP)
    good = isinstance(end, Translated) and not astray
    draw_text(painter, line, text, bold, t.text if good else t.hazard_text)
    line.setLeft(line.left() + text_width(text, bold) + GAP)
    if text_width(why, small) <= line.width():
        draw_text(painter, line, why, small, t.hazard_text)


def _arrow(painter: QPainter, rect: QRectF) -> None:
    painter.setPen(QPen(theme().muted, 1.2))
    tip = QPointF(rect.right(), rect.center().y())
    painter.drawLine(QPointF(rect.left(), tip.y()), tip)
    painter.drawPolyline([tip + QPointF(-3, -3), tip, tip + QPointF(-3, 3)])


def _join(painter: QPainter, place: Place, odd: bool) -> None:
    t = theme()
    pen = QPen(t.hazard_mark if odd else t.muted, 1.75 if odd else 1, Qt.PenStyle.CustomDashLine)
    pen.setDashPattern([2, 2])
    painter.setPen(pen)
    y = place.a.center().y()
    painter.drawLine(QPointF(place.a.right() + 2, y), QPointF(place.b.left() - 2, y))


def _paint(painter: QPainter, area: QRectF, reading: Reading, selected: tuple[int, int] | None) -> None:
    t = theme()
    card(painter, area, t.hazard_mark if reading.odd else None, 1.5 if reading.odd else 1)
    inner = area.adjusted(GAP, GRID, -GAP, -GRID - 1)
    title = QRectF(inner.left(), inner.top(), inner.width(), min(_line(), inner.height() * 0.65))
    frame = f"{reading.frame:05x}"
    after = level_title(
        painter, title, reading.level, reading.name, scale=1.0 if area.height() >= SMALL_BELOW else SMALL
    )
    place = translate("Readings", "entry {slot}") if reading.node else translate("Readings", "word {slot}")
    note = place.format(slot=reading.slot)
    small = ui_font(SMALL)
    stop = title.right() - text_width(frame, mono_font(SMALL)) - GAP
    if after + GAP + text_width(note, small) <= stop:
        draw_text(painter, QRectF(after + GAP, title.top(), stop - after, title.height()), note, small, t.muted)
        after += GAP + text_width(note, small)
    after += GAP
    if reading.stop and reading.odd:
        warning(painter, QPointF(after + 5, title.center().y()))
        after += PAD + 2
    rest = QRectF(after, title.top(), max(0.0, stop - after), title.height())
    stop_color = t.hazard_text if reading.odd else t.muted
    draw_text(painter, rest, reading.stop, ui_font(SMALL, bold=True), stop_color)
    draw_text(painter, title, frame, mono_font(SMALL), t.muted, RIGHT)
    strip = QRectF(inner.left(), title.bottom() + 1, inner.width(), inner.bottom() - title.bottom() - 1)
    _strip(painter, area, strip, reading)
    _mark(painter, strip, reading, selected == (reading.frame, reading.slot))


def _strip(painter: QPainter, area: QRectF, strip: QRectF, reading: Reading) -> None:
    if reading.node is not None:
        paint_strip(painter, Card(0, reading.node, area, strip), area)
        return
    t = theme()
    painter.fillRect(strip, t.tint(t.line, 0.55))
    for run in reading.words:
        width = strip.width() / 512
        place = QRectF(strip.left() + run.first * width, strip.top(), max(1.5, (run.last + 1 - run.first) * width),
                       strip.height())  # fmt: skip
        if run.rule is Rule.UNKNOWN:
            fill_rect(painter, place, t.outcomes[Fills.UNKNOWN])
        else:
            painter.fillRect(place, t.tint(t.level(0), 0.6))


def _mark(painter: QPainter, strip: QRectF, reading: Reading, selected: bool) -> None:
    """The entry or word that is used: full in its level's colour, framed where it is selected or ends the walk."""
    t = theme()
    count = reading.node.level.entries if reading.node else 512
    middle = strip.left() + (reading.slot + 0.5) * strip.width() / count
    wide = max(3.0, strip.width() / count)
    mark = QRectF(middle - wide / 2, strip.top() - 2, wide, strip.height() + 4)
    painter.fillRect(mark, _mark_color(reading))
    if selected:
        painter.setPen(QPen(t.accent, 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(mark.adjusted(-2, -1, 2, 1))


def _mark_color(reading: Reading) -> QColor:
    if reading.stop:
        return theme().hazard_mark if reading.odd else theme().muted
    return theme().level(reading.level)


def _words(painter: QPainter, line: QRectF, reading: Reading) -> None:
    t, inner = theme(), line.adjusted(GAP, 0, 0, 0)
    if reading.odd:
        draw_text(painter, inner, reading.odd, ui_font(SMALL, bold=True), t.hazard_text)
    else:
        draw_text(painter, inner, reading.about, ui_font(SMALL), t.muted)
