"""Where the places of a walk's grid stand, and which of its steps is where."""

import msgspec
from PySide6.QtCore import QPointF, QRectF, QSizeF

from gui.models.walk_grid import Cell, Grid
from gui.paint.marks import SMALL, line_height, text_width
from gui.theme import GAP, GRID, MARGIN, mono_font, ui_font

LEAST_WIDTH, MOST_WIDTH = 19 * GRID, 46 * GRID
"""Of a cell."""
MOST_LINES, LEAST_LINES, NESTED_LINES = {1: 6, 2: 4, 3: 4}, 3, 4
"""By the number of stages; the most is what there is to say."""
SPOT_GAP = 2
"""Between the places of a strip, which are one thing."""


class GridLayout(msgspec.Struct, frozen=True):
    """Where the cells stand. ``lines``: how many lines of text a cell has room for, below its strip.

    ``strip``: the height that the strips take; 0 where there are none, or where they are folded away.
    """

    grid: Grid
    size: QSizeF
    cell: QSizeF
    left: float
    top: float
    lines: int
    strip: float = 0

    def rect(self, row: int, column: int) -> QRectF:
        gap = float(GAP)
        x = self.left + column * (self.cell.width() + gap)
        return QRectF(x, self.top + row * (self.cell.height() + gap), self.cell.width(), self.cell.height())

    def body(self, row: int, column: int) -> QRectF:
        """The place without its strip."""
        return self.rect(row, column).adjusted(0, self.strip, 0, 0)

    def spot(self, cell: Cell, number: int) -> QRectF:
        """Place ``number`` in the strip of ``cell``."""
        rect, count = self.rect(cell.row, cell.column), len(cell.strip)
        width = (rect.width() - (count - 1) * SPOT_GAP) / count
        return QRectF(rect.left() + number * (width + SPOT_GAP), rect.top(), width, self.strip - GRID)

    def place(self, step: int) -> QRectF | None:
        """Where ``step`` is shown: its own place, or the cell whose folded strip it is in."""
        cell = self.grid.cell_of(step)
        if cell is None:
            return None
        number = cell.spot_of(step)
        return self.spot(cell, number) if self.strip and number is not None else self.body(cell.row, cell.column)

    def cell_at(self, point: QPointF) -> Cell | None:
        return next((cell for cell in self.grid.cells if self.rect(cell.row, cell.column).contains(point)), None)

    def step_at(self, point: QPointF) -> int | None:
        """The step that is shown at ``point``."""
        cell = self.cell_at(point)
        if cell is None or self.body(cell.row, cell.column).contains(point):
            return cell.last if cell is not None else None
        spots = (spot.step for number, spot in enumerate(cell.strip) if self.spot(cell, number).contains(point))
        return next(spots, None)


def text_line() -> float:
    """The height of a line in a cell."""
    return line_height(ui_font())


def lay_out_grid(grid: Grid, width: float, height: float, folded: bool = False) -> GridLayout:
    """The grid in the given room, or as much larger as it must be. ``folded``: without its strips."""
    heads = [head for head in grid.rows if head.title]
    notes = max((text_width(head.note or head.title, mono_font(SMALL)) for head in heads), default=0)
    titles = max((text_width(head.title, ui_font(bold=True)) + 3 * GRID for head in heads), default=0)
    left = MARGIN + max(notes, titles) + (2 * GAP if heads else 0)
    strip = text_line() + 2 * GRID if grid.lowest and not folded else 0
    top = line_height(ui_font(bold=True)) + GRID + (text_line() + GRID if strip else 0)
    columns, rows = len(grid.columns), len(grid.rows)
    room = (width - left - MARGIN - (columns - 1) * GAP) / columns
    least = len(grid.lowest) * (text_width("888", ui_font(SMALL)) + 2 * SPOT_GAP) if strip else 0
    cell_width = max(LEAST_WIDTH, least, min(room, MOST_WIDTH))
    most = MOST_LINES[grid.stages]
    room_high = (height - top) / rows - GAP - strip
    lines = max(LEAST_LINES, min(most, int((room_high - 2 * GRID) / text_line() + 0.01)))
    cell_height = strip + lines * text_line() + max(2 * GRID, min(room_high - lines * text_line(), 4 * GRID))
    size = QSizeF(left + columns * (cell_width + GAP) - GAP + MARGIN, top + rows * (cell_height + GAP))
    return GridLayout(grid, size, QSizeF(cell_width, cell_height), left, top, lines, strip)
