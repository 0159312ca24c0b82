"""A report as plain text: at most 72 columns, ASCII only, so that it survives mail, quoting and any terminal."""

import string
import textwrap
import unicodedata
from collections.abc import Iterator

from engine.effects.compare import Class
from engine.report.model import Bands, Block, Entries, Fields, Grid, Items, Paragraph, Report, Row, Section, Table

WIDTH = 72
INDENT = 2
GAP = 2
LEAST_CELL = 6
"""Columns that a cell keeps however narrow its table must be."""
MOST_NAME = 26
"""Columns of the widest name of a field beside which its text begins; a longer one has a line of its own."""
BAND = WIDTH - 12
SPANS = string.ascii_lowercase
"""Names of the runs of addresses that a band shows."""
PLAIN = {
    "–": "-", "—": "-", "→": "->", "←": "<-", "×": "x", "…": "...", "“": '"', "”": '"', "‘": "'", "’": "'", "≤": "<=",
    "≥": ">=", "·": ".", "\u00a0": " ", "\t": " ",
}  # fmt: skip
"""What stands for the characters that our own texts use beyond ASCII."""
LETTERS = {
    Class.SAME: "=", Class.RESTORED: "=", Class.UNKNOWN: "?", Class.NOT_PRESENT: ".", Class.PERMISSION: "p",
    Class.RESERVED: "r", Class.ANOTHER_PAGE: "A", Class.OUTSIDE_RAM: "O", Class.OTHER_VM: "V", Class.HOST_PAGE: "H",
    Class.TABLE_PAGE: "#",
}  # fmt: skip
"""The classes of a band; capitals and # are pages that the guest should not reach there."""


def ascii_text(text: str) -> str:
    """``text`` in printable ASCII on one line; what cannot be said so is escaped, and accents are dropped."""
    return "".join(map(_ascii, text))


def _ascii(character: str) -> str:
    if " " <= character <= "~":
        return character
    if character in PLAIN:
        return PLAIN[character]
    base = unicodedata.normalize("NFKD", character)[:1]
    return base if " " < base <= "~" else character.encode("unicode_escape", "surrogatepass").decode()


def render(report: Report) -> str:
    """The whole report, ending with a line break."""
    lines = [*wrapped(report.title), "=" * min(WIDTH, len(ascii_text(report.title))), ""]
    lines += _blocks(report.lead, WIDTH)
    for number, section in enumerate(report.sections, 1):
        lines += ["", *_section(section, f"{number}. ", "-")]
        for part in section.parts:
            lines += ["", *_section(part, "", "")]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _section(section: Section, number: str, underline: str) -> Iterator[str]:
    mark = "" if underline or not section.marked else "! "
    title = wrapped(f"{mark}{number}{section.title}")
    yield from title
    if underline:
        yield underline * max(map(len, title))
    yield ""
    yield from _blocks(section.blocks, WIDTH)


def wrapped(text: str, width: int = WIDTH, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most ``width`` columns, which begin with ``first`` and ``rest``; at least one."""
    return textwrap.wrap(
        ascii_text(text), width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first.rstrip()]


def _blocks(blocks: tuple[Block, ...], width: int) -> list[str]:
    """Blocks with an empty line between two of them."""
    lines: list[str] = []
    for number, block in enumerate(blocks):
        lines += [""] * (number > 0)
        lines += _block(block, width)
    return lines


def _block(block: Block, width: int) -> list[str]:
    match block:
        case Paragraph():
            return wrapped(block.text, width)
        case Items():
            return [line for item in block.items for line in wrapped(item, width, "- ", "  ")]
        case Fields():
            return list(_fields(block, width))
        case Table():
            return list(_table(block, width))
        case Grid():
            return list(_grid(block, width))
        case Bands():
            return list(_bands(block))
        case Entries():
            return list(_entries(block, width))


def _fields(block: Fields, width: int) -> Iterator[str]:
    names = [ascii_text(name) for name, _ in block.rows]
    widest = max((len(name) for name in names if len(name) <= MOST_NAME), default=0)
    rest = " " * (INDENT + widest + GAP)
    for name, (_, text) in zip(names, block.rows, strict=True):
        first = f"{' ' * INDENT}{name:<{widest + GAP}}"
        if len(name) > widest:
            yield from wrapped(name, width, " " * INDENT, " " * INDENT)
            first = rest
        yield from wrapped(text, width, first, rest)


# --- tables


def _table(block: Table, width: int) -> Iterator[str]:
    if block.titled:
        yield from (*wrapped(f"{block.title}:", width), "")
    indent = " " * INDENT
    rows = [Row(tuple(map(ascii_text, row.cells)), row.marked) for row in (Row(block.head), *block.rows)]
    full = [row.cells for row in rows if len(row.cells) > 1]
    widths = fitted(list(zip(*full, strict=True)), width - len(indent))
    for number, row in enumerate(rows):
        first = "! " if row.marked else indent
        if len(row.cells) == 1:
            yield from wrapped(row.cells[0], width, first, indent)
            continue
        for line in _cells(row.cells, widths, block.right):
            yield f"{first}{line}".rstrip()
            first = indent
        if number == 0:
            yield f"{indent}{(' ' * GAP).join('-' * width for width in widths)}"


def fitted(columns: list[tuple[str, ...]], room: int) -> list[int]:
    """The widths of ``columns`` with gaps between them in ``room``: those that have words to wrap give way first."""
    widths = [max(1, *map(len, column)) for column in columns]
    words = [max((len(word) for cell in column for word in cell.split()), default=1) for column in columns]
    for least in (words, [LEAST_CELL] * len(columns)):
        while sum(widths) + GAP * (len(widths) - 1) > room:
            slack = [(width, at) for at, width in enumerate(widths) if width > least[at]]
            if not slack:
                break
            widths[max(slack)[1]] -= 1
    return widths


def _cells(cells: tuple[str, ...], widths: list[int], right: frozenset[int]) -> Iterator[str]:
    """The lines of a row: cells are wrapped where they are wider than their column."""
    columns = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(1, *map(len, columns))):
        parts = [column[number] if number < len(column) else "" for column in columns]
        yield (" " * GAP).join(
            part.rjust(width) if at in right else part.ljust(width)
            for at, (part, width) in enumerate(zip(parts, widths, strict=True))
        )


# --- pictures


def _grid(grid: Grid, width: int) -> Iterator[str]:
    """Numbers of the references, with the slots that were read; an exclamation mark where the walk ended."""
    rows: list[list[str]] = [["for", *(head.title for head in grid.columns)]]
    rows += [[head.title, *[""] * len(grid.columns)] for head in grid.rows]
    for cell in grid.cells:
        rows[cell.row + 1][cell.column + 1] = f"{cell.number or '-':>2} {cell.entry}{'!' * cell.stops}"
    row, column, title, _ = grid.end
    if column + 1 < len(rows[0]):
        rows[row + 1][column + 1] = title
    if not any(head.title for head in grid.rows):
        rows = [row[1:] for row in rows]
    widths = [max(len(ascii_text(cell)) for cell in column) for column in zip(*rows, strict=True)]
    gap = " " * (GAP if sum(widths) + GAP * (len(widths) - 1) + INDENT <= width else 1)
    for cells in rows:
        line = gap.join(ascii_text(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield f"{' ' * INDENT}{line}"[:width].rstrip()


def _bands(bands: Bands) -> Iterator[str]:
    """A character for a stretch of addresses: the gravest that is in it. Letters above tell where addresses jump."""
    name = max((len(strip.name) for strip in bands.strips), default=0)
    ruler = [" "] * BAND
    for letter, span in zip(SPANS, bands.spans, strict=False):
        ruler[min(BAND - 1, int(span.left * BAND))] = letter
    yield f"{' ' * INDENT}{'':<{name}}  {''.join(ruler)}".rstrip()
    for strip in bands.strips:
        cells = [" "] * BAND
        for stretch in strip.stretches:
            first = min(BAND - 1, int(stretch.left * BAND))
            last = max(first, min(BAND - 1, int(stretch.right * BAND - 1e-6)))
            cells[first : last + 1] = LETTERS[stretch.kind] * (last - first + 1)
        yield f"{' ' * INDENT}{strip.name:<{name}}  {''.join(cells)}".rstrip()
    yield ""
    spans = (f"{letter}={span.first}-{span.last}" for letter, span in zip(SPANS, bands.spans, strict=False))
    yield from wrapped(f"GPA: {', '.join(spans)}", WIDTH, " " * INDENT, " " * (INDENT + 5))
    legend = dict.fromkeys(f"{LETTERS[kind]} {text}" for kind, text in bands.legend)
    yield from wrapped("; ".join([*legend, "blank: mapped on neither side"]), WIDTH, " " * INDENT, " " * INDENT)


def _entries(block: Entries, width: int) -> Iterator[str]:
    digits = max((len(str(entry.number)) for entry in block.entries), default=1)
    indent = " " * (digits + 3)
    for entry in block.entries:
        first = f"{'!' if entry.marked else ' '}{entry.number:>{digits}}. "
        yield from wrapped(entry.title, width, first, indent)
        for inner in entry.blocks:
            yield from (f"{indent}{line}".rstrip() for line in _block(inner, width - len(indent)))
