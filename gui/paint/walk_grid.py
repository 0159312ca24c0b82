"""The walk as a picture: a cell a reference, numbered in the order hardware makes them."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPen

from engine.arch.addresses import grouped
from engine.arch.walk import Step, Walk
from gui.explain import entry_title, letters, outcome_name, outcome_title, step_verdict, translate
from gui.models.walk_grid import Cell, Grid, Head, end_texts, page_note
from gui.paint.marks import (
    CENTER,
    RIGHT,
    SMALL,
    card,
    draw_text,
    level_title,
    line_height,
    text_width,
    tick,
    warning,
)
from gui.paint.walk_layout import NESTED_LINES, GridLayout, text_line
from gui.theme import GAP, GRID, MARGIN, RADIUS, mono_font, theme, ui_font
from gui.three_stages import kind

VISITED, SPOT, LIT, LIT_WIDTH = 0.09, 0.16, 0.24, 3.0
"""Strength of the level's colour in cells, in places of strips, and in what is lit; stroke of the lit cell."""


def paint_grid(painter: QPainter, layout: GridLayout, walk: Walk, lit: int | None) -> None:
    """``lit``: the number (from 0) of the lit step; what comes after it is dimmed."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    grid = layout.grid
    if layout.strip:
        _legend(painter, QRectF(layout.left, 0, layout.size.width() - layout.left - MARGIN, text_line()), walk, grid)
    heads = line_height(ui_font(bold=True))
    for column, head in enumerate(grid.columns):
        above = layout.rect(0, column)
        _column_head(painter, QRectF(above.left(), layout.top - GRID - heads, above.width(), heads), head)
    for row, head in enumerate(grid.rows):
        if head.title:
            beside = layout.body(row, 0)
            _row_head(painter, QRectF(MARGIN, beside.top(), layout.left - MARGIN - GAP, beside.height()), head)
    for cell in grid.cells:
        if layout.strip:
            _strip(painter, layout, walk, cell, lit)
        rect = layout.body(cell.row, cell.column)
        if (cell.row, cell.column) == grid.end:
            continue
        if cell.last is None:
            _not_reached(painter, rect)
        elif cell.step is None:
            _stopped_below(painter, rect, layout, walk, cell, lit)
        else:
            _cell(painter, rect, layout, walk, cell, lit)
    _end(painter, layout, walk, lit)


def _legend(painter: QPainter, rect: QRectF, walk: Walk, grid: Grid) -> None:
    """What the strips are."""
    text = translate("Walk", "Above each entry, small: L0's {kind}01, read first")
    draw_text(painter, rect, text.format(kind=kind(walk)), ui_font(SMALL), theme().muted)
    left = rect.left() + text_width(text.format(kind=kind(walk)), ui_font(SMALL)) + 4 * GRID
    for head in grid.lowest:
        place = QRectF(left, rect.top(), rect.right() - left, rect.height())
        left = level_title(painter, place, head.level or 0, head.title, theme().muted, SMALL) + 3 * GRID


def _strip(painter: QPainter, layout: GridLayout, walk: Walk, cell: Cell, lit: int | None) -> None:
    """L0's references for one entry: quiet, since there are many, but each to be seen and to be pointed at."""
    t = theme()
    for number, spot in enumerate(cell.strip):
        rect, color = layout.spot(cell, number), t.level(spot.level)
        if spot.step is None:
            _not_reached(painter, rect)
            continue
        later, is_lit = lit is not None and spot.step > lit, spot.step == lit
        bad = walk.steps[spot.step].rule.stops and not later
        if later:
            card(painter, rect)
        elif bad:
            card(painter, rect, t.hazard_mark, LIT_WIDTH if is_lit else 1.5, t.hazard_ground)
        else:
            fill = t.tint(color, LIT if is_lit else SPOT)
            card(painter, rect, color if is_lit else fill, 2 if is_lit else 1, fill)
        ink = t.muted if later else t.hazard_text if bad else t.text
        draw_text(painter, rect, str(spot.reference), ui_font(SMALL), ink, CENTER)


def _stopped_below(
    painter: QPainter, rect: QRectF, layout: GridLayout, walk: Walk, cell: Cell, lit: int | None
) -> None:
    """An entry that is not read, since a reference of its strip stopped the walk."""
    t = theme()
    assert cell.last is not None
    assert cell.led is not None
    step = walk.steps[cell.last]
    if lit is not None and cell.last > lit:
        _not_reached(painter, rect)
        return
    card(painter, rect, t.hazard_mark, LIT_WIDTH if cell.last == lit else 1.5, t.hazard_ground)
    inner, height = _inner(rect, layout), text_line()
    fault = _fault_verdict(outcome_name(walk.outcome), step)
    lines = (
        (translate("Walk", "{number} in L0").format(number=cell.led[1]), ui_font(bold=True), t.text),
        (entry_title(step.stage, step.level, step.index, walk), ui_font(SMALL), t.text),
        (fault, ui_font(SMALL, bold=True), t.hazard_text),
    )
    for number, (text, font, color) in enumerate(lines):
        draw_text(
            painter, QRectF(inner.left(), inner.top() + number * height, inner.width(), height), text, font, color
        )
    warning(painter, QPointF(inner.right() - 5, inner.top() + height / 2))


def _fault_verdict(fault: str, step: Step) -> str:
    return translate("Walk", "{fault}: {verdict}").format(fault=fault, verdict=step_verdict(step))


def _inner(rect: QRectF, layout: GridLayout) -> QRectF:
    """The room for a cell's lines of text."""
    slack = (rect.height() - layout.lines * text_line()) / 2
    return rect.adjusted(GAP, slack, -GAP, -slack)


def _column_head(painter: QPainter, rect: QRectF, head: Head) -> None:
    if head.level is None:
        draw_text(painter, rect, head.title, ui_font(bold=True), theme().muted)
    else:
        level_title(painter, rect, head.level, head.title)


def _row_head(painter: QPainter, rect: QRectF, head: Head) -> None:
    height = line_height(ui_font(bold=True))
    level_title(painter, QRectF(rect.left(), rect.top() + GRID, rect.width(), height), head.level or 0, head.title)
    below = QRectF(rect.left(), rect.top() + GRID + height, rect.width(), text_line())
    draw_text(painter, below, head.note, mono_font(SMALL), theme().muted)


def _is_lit(layout: GridLayout, cell: Cell, lit: int | None) -> bool:
    """Whether the lit reference is this entry, or one of L0's that are folded into it."""
    return lit is not None and (cell.step == lit or (not layout.strip and cell.spot_of(lit) is not None))


def _is_later(layout: GridLayout, cell: Cell, lit: int | None) -> bool:
    return lit is not None and cell.step is not None and cell.step > lit and not _is_lit(layout, cell, lit)


def _cell(painter: QPainter, rect: QRectF, layout: GridLayout, walk: Walk, cell: Cell, lit: int | None) -> None:
    t = theme()
    assert cell.step is not None
    step = walk.steps[cell.step]
    later, is_lit, bad = _is_later(layout, cell, lit), _is_lit(layout, cell, lit), step.rule.stops
    color = t.level(step.level.level)
    if later:
        card(painter, rect)
    elif bad:
        card(painter, rect, t.hazard_mark, LIT_WIDTH if is_lit else 1.5, t.hazard_ground)
    else:
        card(painter, rect, color, LIT_WIDTH if is_lit else 1.25, t.tint(color, LIT if is_lit else VISITED))
    inner = _inner(rect, layout)
    fault = outcome_title(walk.outcome)
    if layout.lines < NESTED_LINES or text_width(fault, ui_font(SMALL, bold=True)) > inner.width():
        fault = outcome_name(walk.outcome)
    _cell_text(painter, inner, layout, step, cell, fault, lit)


class _Ink(msgspec.Struct, frozen=True):
    """The colours of a cell's texts: quiet ones only where the ground lets them be read."""

    text: QColor
    quiet: QColor
    verdict: QColor


def _ink(step: Step, later: bool, is_lit: bool) -> _Ink:
    t = theme()
    if later:
        return _Ink(t.muted, t.muted, t.muted)
    if step.rule.stops:
        return _Ink(t.text, t.text, t.hazard_text)
    quiet = t.text if is_lit else t.muted
    return _Ink(t.text, quiet, quiet)


def _cell_text(
    painter: QPainter, rect: QRectF, layout: GridLayout, step: Step, cell: Cell, fault: str, lit: int | None
) -> None:
    """The number and the verdict's mark, then as many lines as there is room for, the verdict last."""
    assert cell.step is not None
    is_lit, later = _is_lit(layout, cell, lit), _is_later(layout, cell, lit)
    ink = _ink(step, later, is_lit)
    to_come = lit is not None and cell.step > lit
    number = str(cell.reference) if cell.reference is not None else translate("Walk", "register")
    height = text_line()
    first = QRectF(rect.left(), rect.top(), rect.width(), height)
    draw_text(painter, first, number, ui_font(bold=True), ink.text)
    if cell.led is not None and not layout.strip:
        beside = first.adjusted(text_width(number, ui_font(bold=True)) + GRID, 0, -4 * GRID, 0)
        _folded(painter, beside, cell.led, is_lit and to_come, ink.quiet)
    mark = QPointF(first.right() - 5, first.center().y())
    if step.rule.stops and not to_come:
        warning(painter, mark)
    elif not to_come:
        tick(painter, mark, ink.quiet)
    for line, (content, font, color) in enumerate(_lines(step, layout, fault, ink), 1):
        place = QRectF(rect.left(), rect.top() + line * height, rect.width(), height)
        draw_text(painter, place, content, font, color, elide=Qt.TextElideMode.ElideMiddle)


def _folded(painter: QPainter, rect: QRectF, led: tuple[int, int], is_lit: bool, ink: QColor) -> None:
    """Which of L0's references are folded into an entry; ``is_lit``: the lit one is among them."""
    text = translate("Walk", "L0: {first}–{last}").format(first=led[0], last=led[1])
    draw_text(painter, rect, text, ui_font(SMALL, bold=is_lit), ink, RIGHT)


def _lines(step: Step, layout: GridLayout, fault: str, ink: _Ink) -> list[tuple[str, QFont, QColor]]:
    """The lines below the number: what is where, with its face and colour."""
    small = mono_font(SMALL)
    where = grouped(step.address) if step.address is not None else translate("Walk", "no reference")
    value = grouped(step.value, 2 << step.level.entry_shift) if step.value is not None else "?"
    address, verdict = (where, small, ink.text), (step_verdict(step), ui_font(SMALL), ink.verdict)
    flags = (letters(step), small, ink.quiet)
    if step.rule.stops:
        flags = (fault, ui_font(SMALL, bold=True), ink.verdict)
    if layout.grid.stages > 1 and layout.lines >= NESTED_LINES:
        return [address, flags, verdict]
    if layout.grid.stages > 1:
        return [address, (_fault_verdict(fault, step), flags[1], ink.verdict) if step.rule.stops else verdict]
    title = (entry_title(step.stage, step.level, step.index), ui_font(), ink.text)
    full = [title, address, (value, small, ink.text), flags, verdict]
    return [*full[: layout.lines - 2], verdict]


def _not_reached(painter: QPainter, rect: QRectF) -> None:
    painter.setPen(QPen(theme().line, 1, Qt.PenStyle.DashLine))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), RADIUS, RADIUS)


def _end(painter: QPainter, layout: GridLayout, walk: Walk, lit: int | None) -> None:
    """The page, or the name of the fault. Dimmed while the lit reference is not the last one."""
    t, rect = theme(), layout.body(*layout.grid.end)
    reached = lit is None or lit == len(walk.steps) - 1
    title, note = end_texts(walk)
    ok = walk.ok
    fault_here = not ok and not (walk.steps and walk.steps[-1].rule.stops)
    if reached and fault_here:
        card(painter, rect, t.hazard_mark, 2, t.hazard_ground)
    else:
        card(painter, rect, t.level(0) if reached and ok else t.line, 2 if reached and ok else 1)
    inner = rect.adjusted(GAP, 1.5 * GRID, -GAP, -GRID)
    height = text_line()
    places = [QRectF(inner.left(), inner.top() + n * height, inner.width(), height) for n in range(3)]
    text = t.hazard_text if reached and fault_here else t.text if reached and ok else t.muted
    draw_text(painter, places[0], title, ui_font(bold=True), text)
    draw_text(painter, places[1], note, mono_font(SMALL) if ok else ui_font(SMALL), text if ok else t.muted)
    draw_text(painter, places[2], page_note(walk), ui_font(SMALL), t.muted)
    last = layout.grid.cell_of(len(walk.steps) - 1) if walk.steps else None
    if last is not None and (last.row, last.column) == layout.grid.end and not ok:
        _stopped_below(painter, rect, layout, walk, last, lit)
    elif last is not None and last.led and not layout.strip and (last.row, last.column) == layout.grid.end:
        _folded(painter, places[2].translated(0, height), last.led, False, t.muted)
