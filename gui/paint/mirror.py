"""The lines of a mirror: from each entry of KVM's tables to the guest's entry that it mirrors, and what is marked.

All lines are faint; those of the table or entry in question are lit and lie above the tables. Neighbours that lead to
neighbours are one band.
"""

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF

from engine.machine.mirror import Mirror, Status
from gui import mirror_texts
from gui.models.hierarchy import Node, Path, Tree
from gui.models.mirror import Bundle, Wire, bundles
from gui.paint.layout import Card, Layout
from gui.paint.marks import CENTER, SMALL, draw_text, text_width
from gui.paint.tables import PLAIN, Look, hatch, outline
from gui.theme import GRID, RADIUS, theme, ui_font

FAINT, BAND = 0.55, 0.1
"""Strength of lines, and of the ground of a band of them."""
ABOVE, BELOW = 0, 1
"""Numbers of the trees."""


class Wiring(msgspec.Struct, frozen=True):
    """``lit``: the wires in question; ``partners``: counterparts of the selected entry, as (tree, path, slot).
    ``reach``: slots that are so near each other that they are bundled."""

    mirror: Mirror
    bundles: tuple[Bundle, ...]
    lit: tuple[Wire, ...] = ()
    partners: tuple[tuple[int, Path, int], ...] = ()
    reach: int = 1


def look_of(tree: Tree, node: Node) -> Look:
    """What is marked at a table of KVM's."""
    if tree.mirror is None or tree.is_above or node.address is None:
        return PLAIN
    table = tree.mirror.shadow_at(node.address)
    if table is None:
        return PLAIN
    return Look(mirror_texts.tags(tree.mirror, table), table.unsync, table.extra)


def paint_gaps(painter: QPainter, layout: Layout, wiring: Wiring, exposed: QRectF) -> None:
    """The levels that what is mirrored has not: an empty frame that says so."""
    t, face = theme(), ui_font(SMALL)
    for gap in layout.gaps:
        if not gap.rect.intersects(exposed):
            continue
        painter.setPen(QPen(t.faint, 1, Qt.PenStyle.DashLine))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(gap.rect.adjusted(0.5, 0.5, -0.5, -0.5), RADIUS, RADIUS)
        if layout.has_text:
            painter.setFont(face)
            painter.setPen(t.muted)
            wrapped = CENTER | Qt.TextFlag.TextWordWrap
            text = mirror_texts.lacks(wiring.mirror, gap.level)
            painter.drawText(gap.rect.adjusted(GRID, 0, -GRID, 0), int(wrapped), text)


def paint_bundles(painter: QPainter, layout: Layout, wiring: Wiring, exposed: QRectF) -> None:
    """All lines, below the tables."""
    homes, inks = _homes(layout), {status: _ink(status) for status in Status}
    left, right = exposed.left() - 2, exposed.right() + 2
    spans: dict[tuple[Path, Path], tuple[float, float, float, float] | None] = {}
    for each in wiring.bundles:
        key = each.below, each.above
        if key not in spans:
            spans[key] = _span(homes, each, exposed)
        span = spans[key]
        if span is None:
            continue
        low, step, high, above_step = span
        ends = (
            low + each.first * step, low + each.last * step + step,
            high + each.above_first * above_step, high + each.above_last * above_step + above_step,
        )  # fmt: skip
        shape = _shape(homes, each) if max(ends) >= left and min(ends) <= right else None
        if shape is not None:
            _paint_band(painter, shape, *inks[each.status])


def _span(
    homes: dict[tuple[int, Path], Card], each: Bundle, exposed: QRectF
) -> tuple[float, float, float, float] | None:
    """Where the slots of both tables begin and how wide they are; None where no line between them is exposed."""
    below, above = homes.get((BELOW, each.below)), homes.get((ABOVE, each.above))
    if below is None or above is None or below.rect.top() < exposed.top() or above.rect.bottom() > exposed.bottom():
        return None
    return below.strip.left(), below.slot_width, above.strip.left(), above.slot_width


def paint_lit(painter: QPainter, layout: Layout, wiring: Wiring, exposed: QRectF) -> None:
    """The lines in question and the counterparts, above the tables; and what is out of date, at all times."""
    t, homes = theme(), _homes(layout)
    for each in bundles(wiring.lit, wiring.reach):
        shape = _shape(homes, each)
        if shape is not None:
            color = t.hazard_mark if each.status is Status.STALE else t.accent
            _paint_band(painter, shape, color, Qt.PenStyle.SolidLine, 1.5)
    for tree, path, slot in wiring.partners:
        card = homes.get((tree, path))
        if card is not None:
            outline(painter, card, slot, dashed=True)
    for each in wiring.bundles:
        if each.status is Status.STALE:
            for tree, path, slot in ((BELOW, each.below, each.first), (ABOVE, each.above, each.above_first)):
                card = homes.get((tree, path))
                if card is not None and card.rect.intersects(exposed):
                    _flag(painter, card, slot)


def _ink(status: Status) -> tuple[QColor, Qt.PenStyle, float]:
    t = theme()
    match status:
        case Status.STALE:
            return t.hazard_mark, Qt.PenStyle.SolidLine, 1.5
        case Status.NARROWER:
            return t.muted, Qt.PenStyle.DashLine, 1
    return t.tint(t.muted, FAINT, t.window), Qt.PenStyle.SolidLine, 1


def _flag(painter: QPainter, card: Card, slot: int) -> None:
    """A small corner over a slot that is out of date."""
    at = QPointF(card.slot_rect(slot).center().x(), card.strip.top())
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme().hazard_mark)
    painter.drawPolygon(QPolygonF([at, at + QPointF(-GRID, -1.5 * GRID), at + QPointF(GRID, -1.5 * GRID)]))


def _homes(layout: Layout) -> dict[tuple[int, Path], Card]:
    return {(card.tree, card.node.path): card for card in layout.cards}


def _shape(homes: dict[tuple[int, Path], Card], each: Bundle) -> QPolygonF | None:
    """The four corners of a band; two of a single line."""
    below, above = homes.get((BELOW, each.below)), homes.get((ABOVE, each.above))
    if below is None or above is None:
        return None
    low, high = below.rect.top(), above.rect.bottom()
    first, last = below.slot_rect(each.first), below.slot_rect(each.last)
    upper_first, upper_last = above.slot_rect(each.above_first), above.slot_rect(each.above_last)
    if last.right() - first.left() < GRID and upper_last.right() - upper_first.left() < GRID:
        x, upper = (first.left() + last.right()) / 2, (upper_first.left() + upper_last.right()) / 2
        return QPolygonF([QPointF(x, low), QPointF(upper, high)])
    return QPolygonF(
        [QPointF(first.left(), low), QPointF(upper_first.left(), high), QPointF(upper_last.right(), high),
         QPointF(last.right(), low)]
    )  # fmt: skip


def _paint_band(painter: QPainter, shape: QPolygonF, color: QColor, style: Qt.PenStyle, width: float) -> None:
    corners = [shape.at(n) for n in range(shape.size())]
    if len(corners) == 4:
        ground = QColor(color)
        ground.setAlphaF(BAND)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ground)
        painter.drawPolygon(shape)
    painter.setPen(QPen(color, width, style))
    painter.drawLine(corners[0], corners[1])
    if len(corners) == 4:
        painter.drawLine(corners[2], corners[3])


def paint_key(painter: QPainter, line: QRectF, mirror: Mirror) -> QRectF:
    """What hatching means, at the right end of ``line``, where there is any; what is left of the line."""
    text, small = mirror_texts.only_for_depth(mirror), ui_font(SMALL)
    width = text_width(text, small) + 6 * GRID
    if not mirror.extra or width > line.width():
        return line
    sample = QRectF(line.right() - width, line.center().y() - 1.5 * GRID, 4 * GRID, 3 * GRID)
    painter.fillRect(QRectF(sample.left() - GRID, line.top(), width + GRID, line.height()), theme().window)
    painter.setPen(QPen(theme().line, 1))
    painter.setBrush(theme().panel)
    painter.drawRect(sample)
    hatch(painter, sample)
    draw_text(painter, line.adjusted(line.width() - width + 5 * GRID, 0, 0, 0), text, small, theme().muted)
    return line.adjusted(0, 0, -width - 2 * GRID, 0)
