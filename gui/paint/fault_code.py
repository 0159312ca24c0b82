"""The code of a fault, bit by bit: a cell, its name, and what its value says."""

from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter, QPen

from engine.arch.faults import CodeBit, decode_code
from gui.explain import engine_text, translate
from gui.paint.marks import CENTER, draw_text, line_height, text_width
from gui.theme import GAP, GRID, RADIUS, mono_font, theme, ui_font

TWO_COLUMNS_FROM = 130 * GRID


def _row_height() -> float:
    return line_height(ui_font()) + GRID / 2


def height(width: float, table: tuple[CodeBit, ...]) -> float:
    """What the painted code needs at this width."""
    columns = 2 if width >= TWO_COLUMNS_FROM else 1
    return -(-len(table) // columns) * _row_height()


def paint_fault_code(painter: QPainter, rect: QRectF, code: int, table: tuple[CodeBit, ...]) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    columns = 2 if rect.width() >= TWO_COLUMNS_FROM else 1
    rows = -(-len(table) // columns)
    width = rect.width() / columns
    names = max(text_width(bit.name, mono_font(bold=True)) for bit in table) + GAP
    for number, (bit, value, meaning) in enumerate(decode_code(code, table)):
        column, row = divmod(number, rows)
        left, top = rect.left() + column * width, rect.top() + row * _row_height()
        _bit(painter, QRectF(left, top, width - GAP, _row_height()), bit, value, meaning, names)


def _bit(painter: QPainter, rect: QRectF, bit: CodeBit, value: int, meaning: str, names: float) -> None:
    t = theme()
    cell = QRectF(rect.left() + 0.5, rect.top() + 1.5, 4 * GRID, rect.height() - 3)
    painter.setPen(QPen(t.hazard_mark if value else t.line, 1))
    painter.setBrush(t.hazard_ground if value else t.panel)
    painter.drawRoundedRect(cell, RADIUS / 2, RADIUS / 2)
    draw_text(painter, cell, str(value), mono_font(bold=True), t.hazard_text if value else t.muted, CENTER)
    name = QRectF(cell.right() + GAP, rect.top(), names, rect.height())
    draw_text(painter, name, bit.name, mono_font(bold=bool(value)), t.text if value else t.muted)
    rest = QRectF(name.right(), rect.top(), rect.right() - name.right(), rect.height())
    draw_text(painter, rest, engine_text(meaning), ui_font(), t.text if value else t.muted)


def code_lines(code: int, table: tuple[CodeBit, ...]) -> list[str]:
    """The same in words, a line a bit."""
    text = translate("Walk", "bit {bit}, {name} = {value}: {meaning}")
    return [
        text.format(bit=bit.bit, name=bit.name, value=value, meaning=engine_text(meaning))
        for bit, value, meaning in decode_code(code, table)
    ]
