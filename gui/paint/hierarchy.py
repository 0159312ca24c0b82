"""The whole hierarchy as a picture: stages, tables, the ways between them, and where the walk ended."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPainterPath, QPen

from engine.arch.walk import Rule
from gui.explain import translate
from gui.models.hierarchy import Path, Tree
from gui.paint.hierarchy_texts import stage_note, stage_title
from gui.paint.layout import Edge, End, Layout
from gui.paint.marks import SMALL, card, draw_text, line_height, text_width, warning
from gui.paint.mirror import Wiring, look_of, paint_bundles, paint_gaps, paint_key, paint_lit
from gui.paint.tables import DIMMED, fill_slot, paint_table
from gui.theme import GAP, GRID, RADIUS, mono_font, theme, ui_font


class Marked(msgspec.Struct, frozen=True):
    """The selected slot: of the table at ``path`` in tree number ``tree``."""

    tree: int
    path: Path
    slot: int


def paint_hierarchy(
    painter: QPainter,
    layout: Layout,
    trees: tuple[Tree, ...],
    selected: Marked | None,
    exposed: QRectF,
    wiring: Wiring | None = None,
) -> None:
    """The part ``exposed`` of the picture. ``wiring``: between the two sides of a mirror."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if wiring is not None:
        paint_gaps(painter, layout, wiring, exposed)
        paint_bundles(painter, layout, wiring, exposed)
    for link in layout.links:
        _link(painter, link)
    for edge in sorted(layout.edges, key=lambda one: one.walked):
        if QRectF(edge.start, edge.end).normalized().adjusted(-2, -2, 2, 2).intersects(exposed):
            paint_edge(painter, edge)
    for table in layout.cards:
        if table.rect.intersects(exposed):
            here = selected is not None and selected.tree == table.tree and selected.path == table.node.path
            slot = selected.slot if here and selected is not None else None
            paint_table(painter, table, exposed, slot, layout.has_text, look_of(trees[table.tree], table.node))
    if wiring is not None:
        paint_lit(painter, layout, wiring, exposed)
    for number, tree in enumerate(trees):
        if layout.has_text:
            _heading(painter, layout, number, tree, exposed)
        end = layout.ends[number]
        if end is not None and end.rect.intersects(exposed):
            _end(painter, end, layout.has_text)


def paint_edge(painter: QPainter, edge: Edge) -> None:
    """A thin line; where the walk went, a thick one in the colour of the entry's level.

    Lines to many tables share their way down the middle of the gap.
    """
    t = theme()
    if edge.walked:
        color = t.level(edge.level) if edge.lit else t.tint(t.level(edge.level), DIMMED, t.window)
        pen = QPen(color, 2.5)
    else:
        pen = QPen(t.faint, 1)
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    start, end = edge.start, edge.end
    if start.y() == end.y():
        painter.drawLine(start, end)
        return
    middle, down = (start.x() + end.x()) / 2, RADIUS if end.y() > start.y() else -RADIUS
    path = QPainterPath(start)
    path.lineTo(middle - RADIUS, start.y())
    path.quadTo(middle, start.y(), middle, start.y() + down)
    path.lineTo(middle, end.y() - down)
    path.quadTo(middle, end.y(), middle + RADIUS, end.y())
    path.lineTo(end)
    painter.drawPath(path)


def _link(painter: QPainter, corners: tuple[QPointF, ...]) -> None:
    """From the guest's entry to the heading of the nested tables, which names its address."""
    painter.setPen(QPen(theme().muted, 1.2, Qt.PenStyle.DashLine))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPolyline(corners)


def _heading(painter: QPainter, layout: Layout, number: int, tree: Tree, exposed: QRectF) -> None:
    rect = layout.headings[number]
    bold = ui_font(bold=True)
    left = max(rect.left(), exposed.left() + 4 * GRID)
    line = QRectF(left, rect.top(), max(0.0, exposed.right() - 4 * GRID - left), line_height(bold))
    title = stage_title(tree)
    note_width = text_width(stage_note(tree), mono_font(SMALL))
    if tree.mirror is not None:  # lines pass behind
        words = text_width(title, bold) + 3 * GRID + note_width + GRID
        painter.fillRect(QRectF(left - GRID, rect.top(), words, rect.height()), theme().window)
    draw_text(painter, line, title, bold)
    rest = line.adjusted(text_width(title, bold) + 3 * GRID, 0, 0, 0)
    note = stage_note(tree)
    draw_text(painter, rest, note, mono_font(SMALL), theme().muted)
    rest = rest.adjusted(note_width + GRID, 0, 0, 0)
    if tree.mirror is not None and not tree.is_above:
        rest = paint_key(painter, rest, tree.mirror)
    _legend(painter, rest, layout, number)


def _legend(painter: QPainter, line: QRectF, layout: Layout, number: int) -> None:
    """What the uncommon fills of slots mean, at the right end of ``line``, as far as they occur."""
    t, small = theme(), ui_font(SMALL)
    nodes = [table.node for table in layout.cards if table.tree == number]
    rules = {run.rule for node in nodes for run in node.runs if not (run.rule is Rule.PAGE and node.level.level == 1)}
    for rule, text in (
        (Rule.UNKNOWN, translate("Hierarchy", "unreadable")),
        (Rule.RESERVED, translate("Hierarchy", "reserved bit")),
        (Rule.MISCONFIGURED, translate("Hierarchy", "misconfigured")),
        (Rule.PAGE, translate("Hierarchy", "large page")),
    ):
        width = text_width(text, small) + 5 * GRID
        if rule in rules and width < line.width():
            sample = QRectF(line.right() - width, line.center().y() - 1.5 * GRID, 2.5 * GRID, 3 * GRID)
            painter.fillRect(sample, t.tint(t.line, 0.55, t.window))
            fill_slot(painter, sample, rule, 2, large=rule is Rule.PAGE)
            draw_text(painter, line.adjusted(line.width() - width + 4 * GRID, 0, 0, 0), text, small, t.muted)
            line = line.adjusted(0, 0, -width - 2 * GRID, 0)


def _end(painter: QPainter, end: End, with_text: bool) -> None:
    """The page in a box, or the fault in one."""
    t = theme()
    card(painter, end.rect, t.hazard_mark if end.bad else t.level(0), 1.5, t.hazard_ground if end.bad else None)
    if not with_text:
        return
    inner = end.rect.adjusted(GAP, GRID, -GAP, -GRID)
    above, below = inner.adjusted(0, 0, 0, -inner.height() / 2), inner.adjusted(0, inner.height() / 2, 0, 0)
    if end.bad:
        warning(painter, QPointF(inner.left() + 5, above.center().y()))
        draw_text(painter, above.adjusted(4 * GRID, 0, 0, 0), end.title, ui_font(bold=True), t.hazard_text)
        draw_text(painter, below, end.note, None, t.hazard_text)
    else:
        draw_text(painter, above, end.title, ui_font(bold=True))
        draw_text(painter, below, end.note, mono_font())
