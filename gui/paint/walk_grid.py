"""The walk as a picture: a cell a reference, numbered in the order hardware makes them."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, QSizeF, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPen

from engine.arch.addresses import grouped
from engine.arch.walk import Step, Walk
from gui.explain import entry_title, letters, outcome_name, outcome_title, step_verdict, translate
from gui.models.walk_grid import Cell, Grid, Head, end_texts, page_note
from gui.paint.marks import (
    SMALL,
    card,
    draw_text,
    level_title,
    line_height,
    text_width,
    tick,
    warning,
)
from gui.theme import GAP, GRID, MARGIN, RADIUS, mono_font, theme, ui_font

LEAST_WIDTH, MOST_WIDTH = 19 * GRID, 46 * GRID
"""Of a cell."""
VISITED, LIT, LIT_WIDTH = 0.09, 0.24, 3.0
"""Strength of the level's colour in cells; stroke of the lit one."""


class GridLayout(msgspec.Struct, frozen=True):
    """Where the cells stand. ``lines``: how many lines of text a cell has room for."""

    grid: Grid
    size: QSizeF
    cell: QSizeF
    left: float
    top: float
    lines: int

    def rect(self, row: int, column: int) -> QRectF:
        gap = float(GAP)
        x = self.left + column * (self.cell.width() + gap)
        return QRectF(x, self.top + row * (self.cell.height() + gap), self.cell.width(), self.cell.height())

    def cell_at(self, point: QPointF) -> Cell | None:
        return next((cell for cell in self.grid.cells if self.rect(cell.row, cell.column).contains(point)), None)


ONE_STAGE_LINES, NESTED_LINES, LEAST_LINES = 6, 4, 3


def _line() -> float:
    return line_height(ui_font())


def lay_out_grid(grid: Grid, width: float, height: float) -> GridLayout:
    """The grid in the given room, or as much larger as it must be."""
    heads = [head for head in grid.rows if head.title]
    notes = max((text_width(head.note or head.title, mono_font(SMALL)) for head in heads), default=0)
    titles = max((text_width(head.title, ui_font(bold=True)) + 3 * GRID for head in heads), default=0)
    left = MARGIN + max(notes, titles) + (2 * GAP if heads else 0)
    top = line_height(ui_font(bold=True)) + GRID
    columns, rows = len(grid.columns), len(grid.rows)
    room = (width - left - MARGIN - (columns - 1) * GAP) / columns
    cell_width = max(LEAST_WIDTH, min(room, MOST_WIDTH))
    most = NESTED_LINES if grid.two_stages else ONE_STAGE_LINES
    room_high = (height - top) / rows - GAP
    lines = max(LEAST_LINES, min(most, int((room_high - 2 * GRID) / _line() + 0.01)))
    cell_height = lines * _line() + max(2 * GRID, min(room_high - lines * _line(), 4 * GRID))
    size = QSizeF(left + columns * (cell_width + GAP) - GAP + MARGIN, top + rows * (cell_height + GAP))
    return GridLayout(grid, size, QSizeF(cell_width, cell_height), left, top, lines)


def paint_grid(painter: QPainter, layout: GridLayout, walk: Walk, lit: int | None) -> None:
    """``lit``: the number (from 0) of the lit step; what comes after it is dimmed."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    grid = layout.grid
    for column, head in enumerate(grid.columns):
        above = layout.rect(0, column)
        _column_head(painter, QRectF(above.left(), 0, above.width(), layout.top - GRID), head)
    for row, head in enumerate(grid.rows):
        if head.title:
            beside = layout.rect(row, 0)
            _row_head(painter, QRectF(MARGIN, beside.top(), layout.left - MARGIN - GAP, beside.height()), head)
    for cell in grid.cells:
        rect = layout.rect(cell.row, cell.column)
        if cell.step is None:
            _not_reached(painter, rect)
        else:
            _cell(painter, rect, layout, walk, cell, lit)
    _end(painter, layout.rect(*grid.end), walk, lit is None or lit == len(walk.steps) - 1)


def _column_head(painter: QPainter, rect: QRectF, head: Head) -> None:
    if head.level is None:
        draw_text(painter, rect, head.title, ui_font(bold=True), theme().muted)
    else:
        level_title(painter, rect, head.level, head.title)


def _row_head(painter: QPainter, rect: QRectF, head: Head) -> None:
    line = line_height(ui_font(bold=True))
    level_title(painter, QRectF(rect.left(), rect.top() + GRID, rect.width(), line), head.level or 0, head.title)
    below = QRectF(rect.left(), rect.top() + GRID + line, rect.width(), _line())
    draw_text(painter, below, head.note, mono_font(SMALL), theme().muted)


def _cell(painter: QPainter, rect: QRectF, layout: GridLayout, walk: Walk, cell: Cell, lit: int | None) -> None:
    t = theme()
    assert cell.step is not None
    step = walk.steps[cell.step]
    later, is_lit, bad = lit is not None and cell.step > lit, cell.step == lit, step.rule.stops
    color = t.level(step.level.level)
    if later:
        card(painter, rect)
    elif bad:
        card(painter, rect, t.hazard_mark, LIT_WIDTH if is_lit else 1.5, t.hazard_ground)
    else:
        card(painter, rect, color, LIT_WIDTH if is_lit else 1.25, t.tint(color, LIT if is_lit else VISITED))
    slack = (rect.height() - layout.lines * _line()) / 2
    inner = rect.adjusted(GAP, slack, -GAP, -slack)
    fault = outcome_title(walk.outcome)
    if text_width(fault, ui_font(SMALL, bold=True)) > inner.width():
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
    later = lit is not None and cell.step > lit
    ink = _ink(step, later, cell.step == lit)
    number = str(cell.reference) if cell.reference is not None else translate("Walk", "register")
    height = _line()
    first = QRectF(rect.left(), rect.top(), rect.width(), height)
    draw_text(painter, first, number, ui_font(bold=True), ink.text)
    mark = QPointF(first.right() - 5, first.center().y())
    if step.rule.stops and not later:
        warning(painter, mark)
    elif not later:
        tick(painter, mark, ink.quiet)
    for line, (content, font, color) in enumerate(_lines(step, layout, fault, ink), 1):
        place = QRectF(rect.left(), rect.top() + line * height, rect.width(), height)
        draw_text(painter, place, content, font, color, elide=Qt.TextElideMode.ElideMiddle)


def _lines(step: Step, layout: GridLayout, fault: str, ink: _Ink) -> list[tuple[str, QFont, QColor]]:
    """The lines below the number: what is where, with its face and colour."""
    small = mono_font(SMALL)
    where = grouped(step.address) if step.address is not None else translate("Walk", "no reference")
    value = grouped(step.value, 2 << step.level.entry_shift) if step.value is not None else "?"
    address, verdict = (where, small, ink.text), (step_verdict(step), ui_font(SMALL), ink.verdict)
    flags = (letters(step), small, ink.quiet)
    if step.rule.stops:
        flags = (fault, ui_font(SMALL, bold=True), ink.verdict)
    if layout.grid.two_stages:
        return [address, flags, verdict] if layout.lines >= NESTED_LINES else [address, verdict]
    title = (entry_title(step.stage, step.level, step.index), ui_font(), ink.text)
    full = [title, address, (value, small, ink.text), flags, verdict]
    return [*full[: layout.lines - 2], verdict]


def _not_reached(painter: QPainter, rect: QRectF) -> None:
    painter.setPen(QPen(theme().line, 1, Qt.PenStyle.DashLine))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), RADIUS, RADIUS)


def _end(painter: QPainter, rect: QRectF, walk: Walk, reached: bool) -> None:
    """The page, or the name of the fault. Dimmed while the lit reference is not the last one."""
    t = theme()
    title, note = end_texts(walk)
    ok = walk.ok
    fault_here = not ok and not (walk.steps and walk.steps[-1].rule.stops)
    if reached and fault_here:
        card(painter, rect, t.hazard_mark, 2, t.hazard_ground)
    else:
        card(painter, rect, t.level(0) if reached and ok else t.line, 2 if reached and ok else 1)
    inner = rect.adjusted(GAP, 1.5 * GRID, -GAP, -GRID)
    height = _line()
    places = [QRectF(inner.left(), inner.top() + n * height, inner.width(), height) for n in range(3)]
    text = t.hazard_text if reached and fault_here else t.text if reached and ok else t.muted
    draw_text(painter, places[0], title, ui_font(bold=True), text)
    draw_text(painter, places[1], note, mono_font(SMALL) if ok else ui_font(SMALL), text if ok else t.muted)
    draw_text(painter, places[2], page_note(walk), ui_font(SMALL), t.muted)
