"""What a card of the machine is, as a value."""

from enum import Enum

import msgspec
from PySide6.QtCore import QCoreApplication

translate = QCoreApplication.translate


class Face(Enum):
    """What a row is: a sentence, which may wrap; the head of columns; a name and its values; values alone."""

    PROSE = "prose"
    HEAD = "head"
    NAMED = "named"
    PLAIN = "plain"


class Row(msgspec.Struct, frozen=True):
    """A line of a card. Rows with as many cells as others stand in the same columns.

    ``marked``: this is where KVM and the hardware differ, or what is lost. ``tip``: a sentence on where it comes from.
    """

    cells: tuple[str, ...]
    face: Face = Face.NAMED
    marked: bool = False
    tip: str = ""


class Card(msgspec.Struct, frozen=True):
    """``chip``: a level, 1 .. 5, and its name; ``switch``: it can be changed. ``side``: what stands on the right of the
    title. ``fold``: what unfolds the card, or folds it again; '' where it cannot. ``hazard``: the card is bad news.
    ``depth``: in how many others it stands."""

    key: str
    title: str
    chip: tuple[int, str] | None = None
    switch: bool = False
    side: str = ""
    rows: tuple[Row, ...] = ()
    fold: str = ""
    unfolded: bool = False
    hazard: bool = False
    depth: int = 0

    def spoken(self) -> str:
        """All of it in one line, for those who hear it."""
        chip = (self.chip[1],) if self.chip else ()
        lines = (" ".join(filter(None, row.cells)) for row in self.rows)
        return ". ".join(filter(None, (self.title, *chip, self.side, *lines)))


def level_name(levels: int) -> str:
    """The depth of tables in a word."""
    return {
        2: translate("HostCards", "32-bit"),
        3: translate("HostCards", "PAE"),
        4: translate("HostCards", "4-level"),
        5: translate("HostCards", "5-level"),
    }[levels]
