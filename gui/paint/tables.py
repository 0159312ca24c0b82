"""Tables as strips of slots, so that occupancy is seen and not read."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QBrush, QPainter, QPen

from engine.arch.addresses import grouped
from engine.arch.walk import Rule
from gui.explain import translate
from gui.models.hierarchy import Node
from gui.paint.layout import Card
from gui.paint.marks import (
    CENTER,
    RIGHT,
    SMALL,
    card,
    draw_text,
    fill_rect,
    level_title,
    line_height,
    text_width,
    warning,
)
from gui.theme import GRID, Outcome, mono_font, theme, ui_font

SEPARATED = 5.0
"""The width of a slot from which neighbours are drawn apart."""
OCCUPIED, LONELY, DIMMED = 0.55, 0.9, 0.4
"""Strength of a level's colour: in occupied slots, in a few of them, and on the part of the walk yet to come."""


class Look(msgspec.Struct, frozen=True):
    """What is particular about a table: of ``tags``, longest first, the first that fits stands beside its name, as a
    warning where it ``warns``; ``extra``: it is hatched."""

    tags: tuple[str, ...] = ()
    warns: bool = False
    extra: bool = False


PLAIN = Look()


def paint_table(
    painter: QPainter, table: Card, exposed: QRectF, selected: int | None, with_text: bool, look: Look = PLAIN
) -> None:
    """One table. ``exposed``: what of the picture is to be painted. ``selected``: the selected slot, if it is here."""
    t, node = theme(), table.node
    level = node.level.level
    is_selected = selected is not None
    card(painter, table.rect, t.accent if is_selected else None, 1.5 if is_selected else 1)
    if look.extra:
        hatch(painter, table.rect.adjusted(2, 2, -2, -2))
    paint_strip(painter, table, exposed)
    if node.walked is not None:
        strength = 1.0 if node.lit else DIMMED
        mark = _mark(table, node.walked).adjusted(0, -0.5 * GRID, 0, 0.5 * GRID)
        painter.fillRect(mark, t.tint(t.level(level), strength))
        if node.rule(node.walked).stops and node.lit:
            painter.setPen(QPen(t.hazard_mark, 1.5))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(mark.adjusted(-1, -1, 1, 1))
    if selected is not None:
        outline(painter, table, selected)
    if with_text:
        _texts(painter, table, exposed, selected, look)


def hatch(painter: QPainter, rect: QRectF) -> None:
    """The ground of what exists for the depth of the tables alone."""
    painter.fillRect(rect, QBrush(theme().line, Qt.BrushStyle.BDiagPattern))


def paint_strip(painter: QPainter, table: Card, exposed: QRectF) -> None:
    """The slots of a table. An entry is never less than a pixel wide."""
    t, node, width = theme(), table.node, table.slot_width
    painter.fillRect(table.strip, t.tint(t.line, 0.55))
    apart = 1.0 if width >= SEPARATED else 0.0
    for run in node.runs:
        left = table.strip.left() + run.first * width
        right = table.strip.left() + (run.last + 1) * width
        if run.rule is Rule.NOT_PRESENT or right < exposed.left() or left > exposed.right():
            continue
        level, large = node.level.level, run.rule is Rule.PAGE and node.level.format.table is not None
        if apart:
            first = max(run.first, int((exposed.left() - table.strip.left()) / width))
            last = min(run.last, int((exposed.right() - table.strip.left()) / width))
            for slot in range(first, last + 1):
                fill_slot(painter, table.slot_rect(slot).adjusted(0, 0, -apart, 0), run.rule, level, large)
        else:
            rect = QRectF(left, table.strip.top(), max(1.5, right - left), table.strip.height())
            fill_slot(painter, rect, run.rule, level, large)


def fill_slot(painter: QPainter, rect: QRectF, rule: Rule, level: int, large: bool) -> None:
    """Entries in the level's colour; pages above the last level (``large``) low and in the page's colour."""
    t = theme()
    if rule is Rule.UNKNOWN:
        fill_rect(painter, rect, t.outcomes[Outcome.UNKNOWN])
    elif rule in (Rule.RESERVED, Rule.MISCONFIGURED):
        painter.fillRect(rect, t.hazard_mark)
    elif large:
        painter.fillRect(rect.adjusted(0, rect.height() / 2, 0, 0), t.tint(t.level(0), 0.9))
    else:
        strength = OCCUPIED if rect.width() >= 3 else LONELY
        painter.fillRect(rect, t.tint(t.level(level), strength))


def _mark(table: Card, slot: int) -> QRectF:
    """The place of a slot that must be seen: at least 3 pixels wide."""
    rect = table.slot_rect(slot)
    wide = max(3.0, rect.width())
    return QRectF(rect.center().x() - wide / 2, rect.top(), wide, rect.height())


def outline(painter: QPainter, table: Card, slot: int, dashed: bool = False) -> None:
    """The frame of the selected slot; ``dashed``, of its counterpart."""
    painter.setPen(QPen(theme().accent, 1.5, Qt.PenStyle.DashLine if dashed else Qt.PenStyle.SolidLine))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawRect(_mark(table, slot).adjusted(-2, -0.75 * GRID, 2, 0.75 * GRID))


def _texts(painter: QPainter, table: Card, exposed: QRectF, selected: int | None, look: Look) -> None:
    """Name, tag and frame above the strip, slot numbers below; in what is exposed of a card wider than the window."""
    t, node, strip = theme(), table.node, table.strip
    left, right = max(strip.left(), exposed.left() + 2 * GRID), min(strip.right(), exposed.right() - 2 * GRID)
    title = QRectF(left, table.rect.top() + GRID / 2, max(0.0, right - left), strip.top() - table.rect.top() - GRID / 2)
    scale = SMALL if strip.left() - table.rect.left() < 2 * GRID else 1.0
    after = level_title(painter, title, node.level.level, node.level.name, None, scale)
    note = _note(table)
    small = mono_font(SMALL)
    if look.tags:
        after = _tag(painter, title, after, look)
    if title.right() - after - GRID >= text_width(note, small):
        draw_text(
            painter, QRectF(after, title.top(), title.right() - after, title.height()), note, small, t.muted, RIGHT
        )
    taken = _numbers(painter, table, exposed, selected)
    if table.slot_width < text_width("000 ", small):
        count = _count(node)
        place = QRectF(strip.left(), strip.bottom() + GRID / 2, strip.width(), line_height(small))
        place.setLeft(place.right() - text_width(count, small) - 1)
        if place.left() > strip.left() and not any(place.adjusted(-GRID, 0, 0, 0).intersects(other) for other in taken):
            draw_text(painter, place, count, small, t.muted, RIGHT)


def _tag(painter: QPainter, title: QRectF, after: float, look: Look) -> float:
    """A table's tag from x ``after`` on, or the triangle of a warning that has no room; gives the x after it."""
    face, left = ui_font(SMALL), after + 1.5 * GRID
    text = next((tag for tag in look.tags if left + text_width(tag, face) <= title.right()), "")
    place = QRectF(left, title.top(), title.right() - left, title.height())
    if text:
        draw_text(painter, place, text, face, theme().hazard_text if look.warns else theme().muted)
        return left + text_width(text, face)
    if look.warns and place.width() > 2 * GRID:
        warning(painter, QPointF(left + GRID, title.center().y()))
        return left + 2 * GRID
    return after


def _numbers(painter: QPainter, table: Card, exposed: QRectF, selected: int | None) -> list[QRectF]:
    """The numbers of the selected and the walked slot, and of all where there is room; gives their places."""
    t, node, small = theme(), table.node, mono_font(SMALL)
    numbers = {node.walked: t.text, selected: t.accent} if selected != node.walked else {selected: t.text}
    taken: list[QRectF] = []
    for slot in (selected, node.walked):
        if slot is None or slot not in numbers:
            continue
        place = _number_place(table, slot)
        if not any(place.intersects(other) for other in taken):
            draw_text(painter, place, str(slot), mono_font(SMALL, bold=True), numbers[slot], CENTER)
            taken.append(place)
    if table.slot_width >= text_width("000 ", small):
        for slot in range(table.slot_at(exposed.left()), table.slot_at(exposed.right()) + 1):
            if slot not in (selected, node.walked):
                draw_text(painter, _number_place(table, slot), str(slot), small, t.muted, CENTER)
    return taken


def _count(node: Node) -> str:
    if all(run.rule is Rule.UNKNOWN for run in node.runs):
        is_nowhere = node.address is None
        return translate("Hierarchy", "not mapped") if is_nowhere else translate("Hierarchy", "not in image")
    return translate("Hierarchy", "{count} used").format(count=node.present)


def _note(table: Card) -> str:
    if table.node.registers:
        return translate("Hierarchy", "registers")
    if table.node.address is None:
        return ""
    if table.node.address & 0xFFF:
        return grouped(table.node.address)
    return f"{table.node.address >> 12:05x}"


def _number_place(table: Card, slot: int) -> QRectF:
    width = text_width(f"{slot}", mono_font(SMALL, bold=True)) + 2
    strip = table.strip
    middle = table.slot_rect(slot).center().x()
    low, high = table.rect.left() + GRID, table.rect.right() - GRID - width
    left = max(low, min(middle - width / 2, high))
    return QRectF(left, strip.bottom() + GRID / 2, width, line_height(mono_font(SMALL)))
