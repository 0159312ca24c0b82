"""An address taken apart: which of its bits pick the slot at each level, and what the walk came to."""

from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QPainter

from engine.arch.addresses import grouped, size_name
from engine.arch.bits import field
from engine.arch.faults import Translated
from engine.arch.paging import Level
from engine.arch.walk import Walk
from gui.explain import index_bits, outcome_title, question, references, translate
from gui.paint.marks import RIGHT, SMALL, card, draw_text, line_height, text_width, warning
from gui.theme import GAP, GRID, PAD, mono_font, theme, ui_font

GROUND = 0.15
"""Strength of a level's colour in its box: quiet texts must be legible on it."""
RISES = 1.05
"""Scale of the address."""


def height() -> float:
    return 2 * PAD + line_height(mono_font(RISES)) + GAP + _box_height()


def _box_height() -> float:
    return line_height(ui_font(bold=True)) + line_height(mono_font()) + GAP


def used_levels(walk: Walk) -> tuple[tuple[Level, ...], int]:
    """The levels whose index the address holds, and how many bits below them are the offset in the page."""
    leaf = next((step for step in walk.steps if step.stage.depth == 1 and step.is_leaf), None)
    levels = walk.paging.levels
    bits = leaf.entry.page_shift if leaf is not None else levels[-1].shift if levels else 0
    return tuple(level for level in levels if level.shift >= bits), bits


def boxes(rect: QRectF, walk: Walk) -> list[QRectF]:
    """The boxes of the levels from the root down, and that of the offset."""
    count = len(used_levels(walk)[0]) + 1
    inner = rect.adjusted(PAD, PAD, -PAD, -PAD)
    width = (inner.width() - (count - 1) * GAP) / count
    top = inner.bottom() - _box_height()
    return [QRectF(inner.left() + n * (width + GAP), top, width, _box_height()) for n in range(count)]


def paint_breakdown(painter: QPainter, rect: QRectF, walk: Walk, lit: int | None) -> None:
    """``lit``: the level (0: the page) that the lit reference serves."""
    t = theme()
    card(painter, rect)
    head = QRectF(rect.left() + PAD, rect.top() + PAD, rect.width() - 2 * PAD, line_height(mono_font(RISES)))
    address = grouped(walk.linear, 12)
    draw_text(painter, head, address, mono_font(RISES, bold=True))
    _verdict(painter, head.adjusted(text_width(address, mono_font(RISES, bold=True)) + 2 * PAD, 0, 0, 0), walk)
    places = boxes(rect, walk)
    levels, low = used_levels(walk)
    for level, place in zip(levels, places, strict=False):
        index = (walk.linear >> level.shift) & level.index_mask
        _box(painter, place, level.level, level.name, index_bits(level), str(index), lit == level.level)
    if levels:
        offset = f"+{field(walk.linear, low - 1, 0):#x}"
        _box(painter, places[-1], 0, translate("Hierarchy", "offset"), f"{low - 1}:0", offset, lit == 0)
    else:
        draw_text(
            painter, places[-1], translate("Hierarchy", "Paging is off: linear addresses are physical."), None, t.muted
        )


def _box(painter: QPainter, rect: QRectF, level: int, name: str, bits: str, value: str, lit: bool) -> None:
    t = theme()
    ground = t.tint(t.level(level), GROUND)
    card(painter, rect, t.level(level) if lit else ground, 2 if lit else 1, ground)
    inner = rect.adjusted(GAP, GRID, -GAP, -GRID)
    half = inner.height() / 2
    top = QRectF(inner.left(), inner.top(), inner.width(), half)
    draw_text(painter, top, name, ui_font(bold=True))
    small = mono_font(SMALL)
    if text_width(name, ui_font(bold=True)) + GAP + text_width(bits, small) <= inner.width():
        draw_text(painter, top, bits, small, t.muted, RIGHT)
    draw_text(painter, QRectF(inner.left(), inner.top() + half, inner.width(), half), value, mono_font())


def _verdict(painter: QPainter, rect: QRectF, walk: Walk) -> None:
    """References and result, at the right end of ``rect``."""
    t, ok = theme(), walk.ok
    text = verdict(walk)
    draw_text(painter, rect, text, ui_font(), t.muted if ok else t.hazard_text, RIGHT)
    if not ok:
        left = rect.right() - text_width(text, ui_font()) - 3 * GRID
        if left > rect.left():
            warning(painter, QPointF(left, rect.center().y()))


def verdict(walk: Walk) -> str:
    """ "4 references · user read allowed · 4 KiB page"."""
    if isinstance(walk.outcome, Translated):
        text = translate("Hierarchy", "{references} · {access} allowed · {size} page")
        size = size_name(walk.outcome.page_size)
    else:
        text, size = translate("Hierarchy", "{references} · {access} · {outcome}"), ""
    return text.format(
        references=references(walk.references),
        access=question(walk),
        size=size,
        outcome=outcome_title(walk.outcome),
    )
