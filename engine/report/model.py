"""A report as a value: sections of paragraphs, lists, tables and pictures, which renderers turn into text or HTML.

Texts are plain: no markup, any character. Renderers escape or replace what their form cannot show.
"""

from __future__ import annotations

import msgspec

from engine.effects.compare import Class


class Paragraph(msgspec.Struct, frozen=True):
    text: str


class Items(msgspec.Struct, frozen=True):
    """A list of sentences."""

    items: tuple[str, ...]


class Fields(msgspec.Struct, frozen=True):
    """Names, each with what is said of it."""

    rows: tuple[tuple[str, str], ...]


class Row(msgspec.Struct, frozen=True):
    """A row of a table. ``marked``: it is bad news. A row of one cell is a heading for those below it."""

    cells: tuple[str, ...]
    marked: bool = False


class Table(msgspec.Struct, frozen=True):
    """``title``: what the table is, for those who hear it; ``titled``: it is for everybody.

    ``right``: numbers of the columns whose cells are flush right. ``code``: of those whose cells are addresses, values
    or names of a program.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    right: frozenset[int] = frozenset()
    code: frozenset[int] = frozenset()
    titled: bool = False


# --- pictures


class Head(msgspec.Struct, frozen=True):
    """The heading of a row or column of a grid. ``level``: the paging level whose colour it has; 0 is a page's, None:
    none. ``note``: the guest-physical address that a row is about."""

    title: str
    level: int | None = None
    note: str = ""


class Cell(msgspec.Struct, frozen=True):
    """A reference of a walk. ``number``: from 1, or '' for a register, which costs none; ``entry``: its slot or name.

    ``level``: of the table it was read from. ``stops``: the walk ended here. ``title``: all there is to say.
    """

    row: int
    column: int
    number: str
    entry: str
    address: str
    verdict: str
    level: int
    stops: bool
    title: str


class Grid(msgspec.Struct, frozen=True):
    """A walk as a picture: in two dimensions a row a guest level and a column a nested one, else a single row.

    ``end``: what came of it, with its place after the last reference.
    """

    title: str
    columns: tuple[Head, ...]
    rows: tuple[Head, ...]
    cells: tuple[Cell, ...]
    end: tuple[int, int, str, str]


class Stretch(msgspec.Struct, frozen=True):
    """A part of a band, ``left`` .. ``right`` as shares (0.0 .. 1.0) of its width. What comes later lies on top."""

    kind: Class
    left: float
    right: float


class Span(msgspec.Struct, frozen=True):
    """A run of addresses that is drawn ``left`` .. ``right`` (shares): its first and last byte in hex."""

    first: str
    last: str
    left: float
    right: float


class Strip(msgspec.Struct, frozen=True):
    """One side's band."""

    name: str
    stretches: tuple[Stretch, ...]


class Bands(msgspec.Struct, frozen=True):
    """Guest-physical memory as bands, one above the other, with what they show in words: class, name, pages."""

    title: str
    spans: tuple[Span, ...]
    strips: tuple[Strip, ...]
    legend: tuple[tuple[Class, str], ...]


# --- the whole


class Entry(msgspec.Struct, frozen=True):
    """A numbered step, and what is said of it."""

    number: int
    title: str
    blocks: tuple[Block, ...] = ()
    marked: bool = False


class Entries(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...]


Block = Paragraph | Items | Fields | Table | Grid | Bands | Entries


class Section(msgspec.Struct, frozen=True):
    """``key``: a short name, different for each section. ``parts`` have no parts themselves."""

    key: str
    title: str
    blocks: tuple[Block, ...] = ()
    parts: tuple[Section, ...] = ()
    marked: bool = False


class Report(msgspec.Struct, frozen=True):
    title: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]


CLASS_NAMES = {
    Class.SAME: "as mapped",
    Class.RESTORED: "as mapped",
    Class.UNKNOWN: "unknown bytes",
    Class.NOT_PRESENT: "faults: not present",
    Class.PERMISSION: "lacks rights",
    Class.RESERVED: "faults: reserved bit",
    Class.ANOTHER_PAGE: "another page of the guest",
    Class.OUTSIDE_RAM: "no RAM",
    Class.OTHER_VM: "another VM's page",
    Class.HOST_PAGE: "a page of the host",
    Class.TABLE_PAGE: "a page-table page",
}
"""What a side makes of a page, in a few words."""
