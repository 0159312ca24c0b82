"""A report as one HTML page: its style and pictures are in it, and nothing else is asked for from anywhere."""

from collections.abc import Callable, Iterator
from itertools import count

from engine.report.model import (
    Bands,
    Block,
    Entries,
    Entry,
    Fields,
    Grid,
    Items,
    Paragraph,
    Report,
    Row,
    Section,
    Table,
)
from engine.report.style import SHEET
from engine.report.svg import clean, picture, sample

Draw = Callable[[Grid | Bands, str], str]
"""Gives what stands in the page for a picture; the second is a name that no other picture of the page has."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A browser loads nothing and runs nothing, whatever a scenario's names may be."""


def render(report: Report) -> str:
    """The whole page."""
    return "\n".join((
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{clean(report.title)}</title>",
        f"<style>{SHEET}</style>",
        "</head>",
        "<body>",
        "<main>",
        *body(report, picture),
        "</main>",
        "</body>",
        "</html>",
    )) + "\n"  # fmt: skip


def body(report: Report, draw: Draw) -> Iterator[str]:
    """What stands in the page. ``draw``: how pictures come into it."""
    page = _Page(draw)
    yield f"<h1>{clean(report.title)}</h1>"
    yield from page.blocks(report.lead)
    yield '<nav aria-label="Contents"><ol>'
    yield from (f'<li><a href="#{clean(each.key)}">{clean(each.title)}</a></li>' for each in report.sections)
    yield "</ol></nav>"
    for number, section in enumerate(report.sections, 1):
        yield from page.section(section, f"{number}. ", 2)


class _Page:
    """Numbers the pictures."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._numbers = count(1)

    def section(self, section: Section, number: str, depth: int) -> Iterator[str]:
        mark = ' class="hazard"' if section.marked and depth > 2 else ""
        yield f'<section id="{clean(section.key)}">'
        yield f"<h{depth}{mark}>{number}{clean(section.title)}</h{depth}>"
        yield from self.blocks(section.blocks)
        for part in section.parts:
            yield from self.section(part, "", depth + 1)
        yield "</section>"

    def blocks(self, blocks: tuple[Block, ...]) -> Iterator[str]:
        for block in blocks:
            yield from self._block(block)

    def _block(self, block: Block) -> Iterator[str]:
        match block:
            case Paragraph():
                yield f"<p>{clean(block.text)}</p>"
            case Items():
                yield f"<ul>{''.join(f'<li>{clean(item)}</li>' for item in block.items)}</ul>"
            case Fields():
                rows = (f"<dt>{clean(name)}</dt><dd>{clean(text)}</dd>" for name, text in block.rows)
                yield f"<dl>{''.join(rows)}</dl>"
            case Table():
                yield from _table(block)
            case Entries():
                yield '<ol class="steps">'
                for entry in block.entries:
                    yield from self._entry(entry)
                yield "</ol>"
            case Grid() | Bands():
                yield from self._figure(block)

    def _entry(self, entry: Entry) -> Iterator[str]:
        mark = ' class="marked"' if entry.marked else ""
        sign = "! " if entry.marked else ""
        yield f'<li{mark}><span class="number">{sign}{entry.number}</span><div><p>{clean(entry.title)}</p>'
        yield from self.blocks(entry.blocks)
        yield "</div></li>"

    def _figure(self, block: Grid | Bands) -> Iterator[str]:
        yield f"<figure><figcaption>{clean(block.title)}</figcaption>"
        yield self._draw(block, f"picture-{next(self._numbers)}")
        if isinstance(block, Bands):
            legend = {text: sample(kind) for kind, text in block.legend}
            items = "".join(f"<li>{drawn}{clean(text)}</li>" for text, drawn in legend.items())
            yield f'<ul class="legend">{items}<li>blank: mapped on neither side</li></ul>'
        yield "</figure>"


def _table(table: Table) -> Iterator[str]:
    label = "" if table.titled else f' aria-label="{clean(table.title)}"'
    yield f'<div class="scroll"><table{label}>'
    if table.titled:
        yield f"<caption>{clean(table.title)}</caption>"
    heads = "".join(
        f'<th scope="col"{_kind(table, at, False)}>{clean(text)}</th>' for at, text in enumerate(table.head)
    )
    yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    yield from (_row(table, row) for row in table.rows)
    yield "</tbody></table></div>"


def _row(table: Table, row: Row) -> str:
    mark = ' class="marked"' if row.marked else ""
    if len(row.cells) == 1:
        return f'<tr{mark}><th class="group" scope="row" colspan="{len(table.head)}">{clean(row.cells[0])}</th></tr>'
    sign = '<span class="hazard">!</span> ' * row.marked
    cells = "".join(
        f"<td{_kind(table, at, True)}>{'' if at else sign}{clean(text)}</td>" for at, text in enumerate(row.cells)
    )
    return f"<tr{mark}>{cells}</tr>"


def _kind(table: Table, column: int, code: bool) -> str:
    names = ["right"] * (column in table.right) + ["code"] * (code and column in table.code)
    return f' class="{" ".join(names)}"' if names else ""
