"""The references of a walk as a grid: rows are guest levels, columns nested levels; one stage is a single row.

Of three stages rows are L2's levels and columns L1's; each place has, before its own entry, a strip of L0's references.
"""

import msgspec

from engine.arch.addresses import grouped, size_name
from engine.arch.faults import Translated
from engine.arch.paging import Level
from engine.arch.walk import Stage, Step, Walk
from gui.explain import outcome_title, translate


class Head(msgspec.Struct, frozen=True):
    """The heading of a row or a column. ``level``: its colour, None for none; ``note``: an address, for a row."""

    title: str
    level: int | None
    note: str = ""


class Spot(msgspec.Struct, frozen=True):
    """A place in a strip: one of L0's levels. ``step`` and ``reference`` as in a cell."""

    level: int
    step: int | None = None
    reference: int | None = None


class Cell(msgspec.Struct, frozen=True):
    """A place in the grid. ``step``: the number (from 0) of the walk's step there; None where the walk did not come.

    ``reference``: the number (from 1) of the memory reference; None for a PDPTE register, which costs none.
    ``strip``: L0's references that lead there, from its root down; empty with fewer than three stages.
    """

    row: int
    column: int
    step: int | None = None
    reference: int | None = None
    strip: tuple[Spot, ...] = ()

    @property
    def led(self) -> tuple[int, int] | None:
        """The first and the last of L0's references that the walk made in the strip; None for none."""
        numbers = [spot.reference for spot in self.strip if spot.reference is not None]
        return (numbers[0], numbers[-1]) if numbers else None

    @property
    def last(self) -> int | None:
        """The last step that the walk made here."""
        if self.step is not None:
            return self.step
        return max((spot.step for spot in self.strip if spot.step is not None), default=None)

    def spot_of(self, step: int) -> int | None:
        """The place in the strip that has ``step``."""
        return next((number for number, spot in enumerate(self.strip) if spot.step == step), None)


class Grid(msgspec.Struct, frozen=True):
    """``end``: the place of the result, after the last reference. In three stages its cell has only a strip.

    ``lowest``: L0's levels, as headings of the strips.
    """

    columns: tuple[Head, ...]
    rows: tuple[Head, ...]
    cells: tuple[Cell, ...]
    end: tuple[int, int]
    stages: int
    lowest: tuple[Head, ...] = ()

    def cell_of(self, step: int) -> Cell | None:
        """The cell that has ``step``, itself or in its strip."""
        return next((cell for cell in self.cells if cell.step == step or cell.spot_of(step) is not None), None)


def walk_grid(walk: Walk) -> Grid:
    """The grid of ``walk``: all places a walk of these stages could come to, with the steps in those it came to."""
    return _more_stages(walk) if walk.second is not None else _one_stage(walk)


def _one_stage(walk: Walk) -> Grid:
    columns = [Head(level.name, level.level) for level in walk.paging.levels]
    places = {level.level: (0, column) for column, level in enumerate(walk.paging.levels)}
    steps = {places[step.level.level]: number for number, step in enumerate(walk.steps)}
    end = (0, len(columns))
    columns.append(Head(translate("Walk", "page"), 0))
    return Grid(tuple(columns), (Head("", None),), _cells(walk, steps, list(places.values())), end, 1)


def _more_stages(walk: Walk) -> Grid:
    assert walk.second is not None
    nested, guest = walk.second.paging.levels, walk.paging.levels
    lowest = walk.host.paging.levels if walk.host is not None else ()
    row_of = {level.level: row for row, level in enumerate(guest)} | {0: len(guest)}
    column_of = {level.level: column for column, level in enumerate(nested)}
    steps: dict[tuple[int, int], int] = {}
    below: dict[tuple[int, int, int], int] = {}
    for number, step in enumerate(walk.steps):
        if step.stage is Stage.HOST:
            below[row_of[step.row], column_of.get(step.column, len(nested)), step.level.level] = number
        else:
            column = column_of[step.level.level] if step.stage is Stage.NESTED else len(nested)
            steps[row_of[step.row], column] = number
    end = (len(guest), len(nested))
    places = [(row, column) for row in range(end[0] + 1) for column in range(end[1] + 1)]
    if not lowest:
        places.remove(end)
    registers = _register_row(walk)
    if registers is not None:
        places = [(row, column) for row, column in places if row != registers or column == len(nested)]
    numbers = reference_numbers(walk.steps)

    def strip(row: int, column: int) -> tuple[Spot, ...]:
        found = [(level.level, below.get((row, column, level.level))) for level in lowest if row != registers]
        return tuple(Spot(level, n, numbers[n] if n is not None else None) for level, n in found)

    cells = tuple(
        msgspec.structs.replace(cell, strip=strip(cell.row, cell.column)) for cell in _cells(walk, steps, places)
    )
    columns, rows = _heads(walk, nested, guest)
    return Grid(columns, rows, cells, end, 3 if lowest else 2, tuple(Head(level.name, level.level) for level in lowest))


def _heads(
    walk: Walk, nested: tuple[Level, ...], guest: tuple[Level, ...]
) -> tuple[tuple[Head, ...], tuple[Head, ...]]:
    """The headings of the columns and of the rows."""
    over, beside, last = translate("Walk", "n{table}"), translate("Walk", "g{table}"), translate("Walk", "guest entry")
    if walk.host is not None:
        over, beside = translate("Walk", "L1 {table}"), translate("Walk", "L2 {table}")
        last = translate("Walk", "L2 entry")
    columns = [Head(over.format(table=level.name), level.level) for level in nested]
    rows = [Head(beside.format(table=level.name), level.level, _target(walk, level.level)) for level in guest]
    page = Head(translate("Walk", "page"), 0, _target(walk, 0))
    return (*columns, Head(last, None)), (*rows, page)


def _target(walk: Walk, row: int) -> str:
    """The guest-physical address that a row translates; '' where the walk did not come there."""
    step = next((step for step in walk.steps if step.row == row and step.target is not None), None)
    return grouped(step.target or 0) if step is not None else ""


def _register_row(walk: Walk) -> int | None:
    """The row of the PDPTE registers, which need no nested references; None where the guest has none."""
    step = walk.steps[0] if walk.steps else None
    return 0 if step is not None and step.stage is Stage.GUEST and step.address is None else None


def _cells(walk: Walk, steps: dict[tuple[int, int], int], places: list[tuple[int, int]]) -> tuple[Cell, ...]:
    numbers = reference_numbers(walk.steps)
    cells = []
    for row, column in places:
        step = steps.get((row, column))
        cells.append(Cell(row, column, step, numbers[step] if step is not None else None))
    return tuple(cells)


def reference_numbers(steps: tuple[Step, ...]) -> list[int | None]:
    """The number (from 1) of the memory reference that each step is; None for those that are none."""
    numbers: list[int | None] = []
    count = 0
    for step in steps:
        count += step.address is not None
        numbers.append(count if step.address is not None else None)
    return numbers


def end_texts(walk: Walk) -> tuple[str, str]:
    """What stands at the end of the grid: a title and a note."""
    if isinstance(walk.outcome, Translated):
        title = translate("Walk", "host-physical") if walk.second is not None else translate("Walk", "physical")
        return title, grouped(walk.outcome.address)
    if walk.steps and walk.steps[-1].rule.stops:
        return translate("Walk", "not reached"), ""
    return outcome_title(walk.outcome), "" if walk.steps else translate("Walk", "no table is read")


def page_note(walk: Walk) -> str:
    """The size and the rights of the page that was reached; '' where none was."""
    if not isinstance(walk.outcome, Translated) or not walk.outcome.page_size:
        return ""
    return translate("Walk", "{size}, {rights}").format(
        size=size_name(walk.outcome.page_size), rights=walk.outcome.rights.letters()
    )
