"""A finding as a card: a sign of its severity, a sentence, and, unfolded, what it rests on and what would help."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen, QPolygonF

from gui.explain import engine_text
from gui.models.findings import Shown, parts, translate
from gui.paint.marks import LEFT, card, line_height
from gui.paint.marks import SMALL as SCALE
from gui.theme import GAP, GRID, PAD, mono_font, theme, ui_font

SIGN = 3.5 * GRID
"""Side of the sign of severity."""
NOTE, WARNING, HAZARD = range(3)
_WRAPPED = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap
_ANYWHERE = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWrapAnywhere


class Block(msgspec.Struct, frozen=True):
    """A text in its place. ``role``: the token of its colour."""

    rect: QRectF
    text: str
    font: QFont
    role: str
    flags: Qt.AlignmentFlag | Qt.TextFlag = _WRAPPED


class Layout(msgspec.Struct, frozen=True):
    """``fold``: where the words are that unfold the card, or fold it again."""

    blocks: tuple[Block, ...]
    fold: QRectF
    fold_text: str
    height: float


def lay_out(shown: Shown, width: float, unfolded: bool) -> Layout:
    """The texts of a card that is ``width`` wide, from its upper left corner."""
    finding, inner = shown.finding, width - 2 * PAD
    blocks: list[Block] = []
    top = 2.0 * GRID
    small, bold = ui_font(SCALE), ui_font(bold=True)

    def add(text: str, font: QFont, role: str, left: float = 0, gap: float = 0, anywhere: bool = False) -> None:
        nonlocal top
        flags = _ANYWHERE if anywhere else _WRAPPED
        top += gap
        room = QRectF(PAD + left, top, inner - left, 1e5)
        high = QFontMetricsF(font).boundingRect(room, int(flags), text).height()
        blocks.append(Block(QRectF(room.left(), top, room.width(), high + 1), text, font, role, flags))
        top += high

    add(engine_text(finding.title), bold, "hazard_text" if finding.severity == HAZARD else "text", SIGN + GAP)
    add(engine_text(finding.sentence), small, "text", gap=GRID)
    if unfolded:
        for each in finding.evidence:
            add(engine_text(each.what), small, "muted", gap=GRID)
            add(each.value, mono_font(SCALE), "text", anywhere=True)
        for heading, text in parts(finding):
            add(heading, small, "muted", gap=GRID)
            add(text, small, "text")
    top += GRID
    foot = line_height(small)
    since = translate("Findings", "since step {step}").format(step=shown.since)
    blocks.append(Block(QRectF(PAD, top, inner, foot), since, small, "muted"))
    words = translate("Findings", "Less") if unfolded else translate("Findings", "More")
    wide = QFontMetricsF(small).horizontalAdvance(words) + 7 * GRID
    fold = QRectF(width - PAD - wide + 2 * GRID, top - 1, wide, foot)
    return Layout(tuple(blocks), fold, words, top + foot + 1.5 * GRID)


def paint_finding(painter: QPainter, rect: QRectF, shown: Shown, unfolded: bool, lit: bool = False) -> None:
    """``lit``: the card has the pointer or the focus."""
    t, severity = theme(), int(shown.finding.severity)
    stroke = t.hazard_mark if severity else t.line
    fill = t.hazard_ground if severity == HAZARD else t.window
    card(painter, rect, t.accent if lit else stroke, 1.5 if lit else 1, fill)
    layout = lay_out(shown, rect.width(), unfolded)
    title = layout.blocks[0].rect.translated(rect.topLeft())
    first_line = QFontMetricsF(layout.blocks[0].font).height()
    paint_sign(painter, QPointF(rect.left() + PAD + SIGN / 2, title.top() + first_line / 2), severity)
    for block in layout.blocks:
        painter.setFont(block.font)
        painter.setPen(getattr(t, block.role))
        painter.drawText(block.rect.translated(rect.topLeft()), int(block.flags), block.text)
    _paint_fold(painter, layout.fold.translated(rect.topLeft()), layout.fold_text, unfolded)


def _paint_fold(painter: QPainter, rect: QRectF, text: str, unfolded: bool) -> None:
    color = theme().accent
    painter.setFont(ui_font(SCALE))
    painter.setPen(color)
    painter.drawText(rect.adjusted(GAP, 0, 0, 0), int(LEFT), text)
    at, down = QPointF(rect.right() - 3 * GRID, rect.center().y()), -1.5 if unfolded else 1.5
    painter.setPen(QPen(color, 1.4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawPolyline([at + QPointF(-3, -down), at + QPointF(0, down), at + QPointF(3, -down)])


def paint_sign(painter: QPainter, center: QPointF, severity: int, side: float = SIGN) -> None:
    """A filled triangle for a hazard, an open one for a warning, a circle for a note: told apart without colour."""
    t, half = theme(), side / 2
    if severity == NOTE:
        painter.setPen(QPen(t.muted, 1.4))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawEllipse(center, half - 1, half - 1)
        _stroke(painter, center + QPointF(0, -half * 0.05), center + QPointF(0, half * 0.45), t.muted)
        _stroke(painter, center + QPointF(0, -half * 0.45), center + QPointF(0, -half * 0.44), t.muted)
        return
    corners = [QPointF(0, -half), QPointF(half, half * 0.8), QPointF(-half, half * 0.8)]
    filled = severity == HAZARD
    painter.setPen(QPen(t.hazard_mark, 1.4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
    painter.setBrush(t.hazard_mark if filled else Qt.BrushStyle.NoBrush)
    painter.drawPolygon(QPolygonF([center + corner for corner in corners]))
    mark = t.hazard_ground if filled else t.hazard_mark
    _stroke(painter, center + QPointF(0, -half * 0.3), center + QPointF(0, half * 0.2), mark)
    _stroke(painter, center + QPointF(0, half * 0.55), center + QPointF(0, half * 0.56), mark)


def _stroke(painter: QPainter, start: QPointF, end: QPointF, color: QColor) -> None:
    painter.setPen(QPen(color, 1.6, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawLine(start, end)
