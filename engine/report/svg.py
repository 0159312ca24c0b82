"""The pictures of a report as SVG: standing in a page, whose colours they take, or each by itself."""

from collections.abc import Callable, Iterator
from html import escape

from engine.effects.compare import Class
from engine.report.model import Bands, Cell, Grid
from engine.report.style import HATCHES, LEVELS, LIGHT, OUTCOMES

Ink = Callable[[str], str]
"""Gives what stands in the SVG for a colour of the style, by its name."""


def of_page(name: str) -> str:
    """The colour as the page has it, light or dark."""
    return f"var(--{name})"


def on_paper(name: str) -> str:
    """The light colour itself, for a picture that stands alone."""
    return LIGHT[name]


UNIT = 4
CELL_WIDTH, CELL_HEIGHT, GAP = 116, 56, 8
HEAD, SIDE = 24, 96
SMALL, NORMAL = 11, 13
NUMBER_WIDTH = 7.0
"""Of a digit in the monospaced face of size SMALL."""
BAND_WIDTH, BAND_HEIGHT = 720, 28
HATCH = 6


def picture(block: Grid | Bands, key: str, ink: Ink = of_page) -> str:
    """``key``: a name that no other picture of the page has."""
    return _grid(block, key, ink) if isinstance(block, Grid) else _bands(block, key, ink)


def _svg(key: str, width: float, height: float, title: str, description: str, body: Iterator[str]) -> str:
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="sans-serif" role="img" aria-labelledby="{key}-title {key}-desc">\n'
        f'<title id="{key}-title">{clean(title)}</title>\n<desc id="{key}-desc">{clean(description)}</desc>\n'
        f"{lines}\n</svg>"
    )


def printable(text: str) -> str:
    """``text`` on one line, without characters that cannot be printed or that turn text around."""
    return "".join(c if c.isprintable() else "\ufffd" if c != "\n" else " " for c in text)


def clean(text: str) -> str:
    """``text`` for SVG and HTML: printable, and escaped."""
    return escape(printable(text))


def _text(x: float, y: float, text: str, fill: str, size: float = NORMAL, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}"{more}>{clean(text)}</text>'


MONO = ' class="mono" font-family="monospace"'
BOLD = ' font-weight="600"'


# --- a walk


def _grid(grid: Grid, key: str, ink: Ink) -> str:
    side = SIDE if any(head.title for head in grid.rows) else 0
    cell = _cell_width(grid)
    width = side + len(grid.columns) * (cell + GAP)
    height = HEAD + len(grid.rows) * (CELL_HEIGHT + GAP)
    stopped = next((c for c in grid.cells if c.stops), None)
    count = sum(bool(c.number) for c in grid.cells)
    ending = f"It ends at {stopped.title}." if stopped else f"It ends at {grid.end[2]}."
    description = f"{count} references in {len(grid.rows)} rows and {len(grid.columns)} columns. {ending}"
    return _svg(key, width, height, grid.title, description, _grid_body(grid, side, cell, ink))


def _cell_width(grid: Grid) -> float:
    longest = max((max(len(c.address), len(c.entry), len(c.verdict)) for c in grid.cells), default=0)
    return max(CELL_WIDTH, longest * NUMBER_WIDTH + 4 * UNIT, len(grid.end[2]) * NUMBER_WIDTH + 4 * UNIT)


def _grid_body(grid: Grid, side: float, width: float, ink: Ink) -> Iterator[str]:
    for column, head in enumerate(grid.columns):
        x = side + column * (width + GAP)
        yield from _chip(x, 4, head.level)
        yield _text(x + (16 if head.level is not None else 0), 14, head.title, ink("text"), NORMAL, BOLD)
    for row, head in enumerate(grid.rows):
        y = HEAD + row * (CELL_HEIGHT + GAP)
        if head.title:
            yield from _chip(0, y + 8, head.level)
            yield _text(16, y + 18, head.title, ink("text"), NORMAL, BOLD)
            yield _text(0, y + 36, head.note, ink("muted"), SMALL, MONO)
    for row, column in _not_reached(grid):
        x, y = side + column * (width + GAP), HEAD + row * (CELL_HEIGHT + GAP)
        yield (
            f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{CELL_HEIGHT - 1}" rx="4" '
            f'fill="none" stroke="{ink("line")}" stroke-dasharray="4 4"/>'
        )
    for cell in grid.cells:
        yield from _cell(cell, side + cell.column * (width + GAP), HEAD + cell.row * (CELL_HEIGHT + GAP), width, ink)
    row, column, result, note = grid.end
    if result:
        x, y = side + column * (width + GAP), HEAD + row * (CELL_HEIGHT + GAP)
        yield (
            f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{CELL_HEIGHT - 1}" rx="4" '
            f'fill="{ink("accent-ground")}" stroke="{ink("accent")}"/>'
        )
        yield _text(x + 8, y + 20, note or "outcome", ink("text"), NORMAL, BOLD)
        yield _text(x + 8, y + 40, result, ink("text"), SMALL, MONO)


def _not_reached(grid: Grid) -> Iterator[tuple[int, int]]:
    """The places that a walk of these stages can come to, and this one did not."""
    reached = {(cell.row, cell.column) for cell in grid.cells}
    registers = {cell.row for cell in grid.cells if not cell.number}
    for row in range(len(grid.rows)):
        for column in range(len(grid.columns)):
            if (row, column) not in reached and (row, column) != grid.end[:2] and row not in registers:
                yield row, column


def _chip(x: float, y: float, level: int | None) -> Iterator[str]:
    if level is not None:
        yield f'<rect x="{x:g}" y="{y:g}" width="10" height="10" rx="2" fill="{LEVELS[level]}"/>'


def _cell(cell: Cell, x: float, y: float, width: float, ink: Ink) -> Iterator[str]:
    color = ink("hazard") if cell.stops else LEVELS[cell.level]
    ground = ink("hazard-ground") if cell.stops else LEVELS[cell.level]
    opacity = "" if cell.stops else ' fill-opacity="0.12"'
    verdict = ink("hazard-text") if cell.stops else ink("text")
    yield (
        f'<g><title>{clean(cell.title)}</title><rect x="{x + 0.75:g}" y="{y + 0.75:g}" width="{width - 1.5:g}" '
        f'height="{CELL_HEIGHT - 1.5:g}" rx="4" fill="{ground}"{opacity} stroke="{color}" stroke-width="1.5"/>'
    )
    yield _text(x + 8, y + 18, cell.number or "register", ink("text"), NORMAL, BOLD)
    yield _text(x + width - 8, y + 18, cell.entry, ink("text"), SMALL, f'{MONO} text-anchor="end"')
    yield _text(x + 8, y + 34, cell.address, ink("text"), SMALL, MONO)
    yield _text(x + 8, y + 49, f"{'! ' * cell.stops}{cell.verdict}", verdict, SMALL, BOLD * cell.stops)
    yield "</g>"


# --- bands


def hatched(kind: Class, x: float, y: float, width: float, height: float) -> Iterator[str]:
    """A rectangle in the colour of a class with its lines over it."""
    color = OUTCOMES[kind]
    yield f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:g}" fill="{color}"/>'
    if kind not in HATCHES or width < 2:
        return
    path = " ".join(_lines(HATCHES[kind], x, y, width, height))
    line = "#FFFFFF" if _is_dark(color) else "#000000"
    yield f'<path d="{path}" stroke="{line}" stroke-opacity="0.45" stroke-width="1.4" fill="none"/>'


def _is_dark(color: str) -> bool:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return 0.3 * red + 0.6 * green + 0.1 * blue < 128


def _lines(directions: str, x: float, y: float, width: float, height: float) -> Iterator[str]:
    """Lines across a rectangle as pieces of a path, cut at its edges."""
    right, bottom = x + width, y + height
    for direction in directions:
        if direction == "-":
            for at in _marks(y, bottom):
                yield f"M{x:.2f} {at:.2f}H{right:.2f}"
        elif direction == "|":
            for at in _marks(x, right):
                yield f"M{at:.2f} {y:.2f}V{bottom:.2f}"
        else:
            for at in _marks(x - height, right):
                first, last = max(x, at), min(right, at + height)
                if first < last:
                    up, down = first - at, last - at
                    y0, y1 = (bottom - up, bottom - down) if direction == "/" else (y + up, y + down)
                    yield f"M{first:.2f} {y0:.2f}L{last:.2f} {y1:.2f}"


def _marks(low: float, high: float) -> Iterator[float]:
    at = (low // HATCH + 1) * HATCH
    while at < high:
        yield at
        at += HATCH


def _bands(bands: Bands, key: str, ink: Ink) -> str:
    left = 24
    height = len(bands.strips) * (BAND_HEIGHT + GAP) + 20 * len(_rows_of_labels(bands))
    legend = "; ".join(dict.fromkeys(text for _, text in bands.legend))
    spans = ", ".join(f"{span.first} to {span.last}" for span in bands.spans)
    description = f"Guest-physical addresses {spans}. In order of gravity: {legend}."
    return _svg(key, left + BAND_WIDTH, height, bands.title, description, _bands_body(bands, left, ink))


def _bands_body(bands: Bands, left: float, ink: Ink) -> Iterator[str]:
    for row, strip in enumerate(bands.strips):
        y = row * (BAND_HEIGHT + GAP)
        yield _text(0, y + 19, strip.name, ink("text"), NORMAL, BOLD)
        for span in bands.spans:
            x, width = left + span.left * BAND_WIDTH, (span.right - span.left) * BAND_WIDTH
            yield (
                f'<rect x="{x + 0.5:.2f}" y="{y + 0.5:g}" width="{max(1, width - 1):.2f}" height="{BAND_HEIGHT - 1}" '
                f'fill="none" stroke="{ink("line")}"/>'
            )
        for stretch in strip.stretches:
            width = max(1.0, (stretch.right - stretch.left) * BAND_WIDTH)
            x = left + stretch.left * BAND_WIDTH
            yield from hatched(stretch.kind, x, y, width, BAND_HEIGHT)
    top = len(bands.strips) * (BAND_HEIGHT + GAP)
    for line, labels in enumerate(_rows_of_labels(bands)):
        for x, text in labels:
            yield _text(left + x, top + 12 + 20 * line, text, ink("muted"), SMALL, MONO)


def _rows_of_labels(bands: Bands) -> list[list[tuple[float, str]]]:
    """The first address of each span below its left edge, in as many lines as they need beside one another."""
    rows: list[list[tuple[float, str]]] = []
    ends: list[float] = []
    for span in bands.spans:
        wide = len(span.first) * NUMBER_WIDTH + 2 * UNIT
        x = min(span.left * BAND_WIDTH, BAND_WIDTH - wide)
        line = next((n for n, end in enumerate(ends) if end <= x), len(rows))
        if line == len(rows):
            rows.append([])
            ends.append(0.0)
        rows[line].append((x, span.first))
        ends[line] = x + wide
    return rows


def sample(kind: Class) -> str:
    """A small rectangle for a legend."""
    body = "".join(hatched(kind, 0, 0, 20, 12))
    return f'<svg viewBox="0 0 20 12" width="20" height="12" aria-hidden="true">{body}</svg>'
