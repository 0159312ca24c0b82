"""The pictures of a report, as values: a walk's references as a grid, two sides' translations as bands of addresses."""

from engine.arch.addresses import plain
from engine.arch.faults import Translated
from engine.arch.walk import Rule, Stage, Step, Walk
from engine.effects.axis import GRAVITY, Axis, axis, strips
from engine.effects.comparison import Band, Comparison
from engine.report.model import CLASS_NAMES, Bands, Cell, Grid, Head, Span, Stretch, Strip
from engine.report.walks import numbered, verdict

BAND_PIXELS = 640.0
"""How finely bands are drawn: no more stretches than that many pixels show."""
GRAVE_PIXELS = 3.0
PAGE_ROW = 0
"""The row number of a walk's steps that serve the page itself."""


# --- a walk


def grid(walk: Walk, title: str) -> Grid:
    """``title``: what is walked."""
    guest, nested = walk.paging.levels, walk.second.paging.levels if walk.second else ()
    one = walk.second is None
    if one:
        columns = [Head(level.name, level.level) for level in guest] + [Head("page", 0)]
        rows = [Head("")]
    else:
        columns = [Head(f"n{level.name}", level.level) for level in nested] + [Head("guest entry")]
        rows = [Head(f"g{level.name}", level.level, _target(walk, level.level)) for level in guest]
        rows.append(Head("page", 0, _target(walk, PAGE_ROW)))
    row_of = {level.level: row for row, level in enumerate(guest)} | {PAGE_ROW: len(guest)}
    column_of = {level.level: column for column, level in enumerate(guest if one else nested)}
    cells = []
    for number, step in numbered(walk):
        column = len(nested) if step.stage is Stage.GUEST else column_of[step.level.level]
        cells.append(_cell(step, number, 0 if one else row_of[step.row], column))
    result, note = _end(walk)
    return Grid(title, tuple(columns), tuple(rows), tuple(cells), (len(rows) - 1, len(columns) - 1, result, note))


def _target(walk: Walk, row: int) -> str:
    """The guest-physical address that a row translates; '' where the walk did not come there."""
    step = next((step for step in walk.steps if step.row == row and step.target is not None), None)
    return plain(step.target) if step is not None and step.target is not None else ""


def _cell(step: Step, number: int | None, row: int, column: int) -> Cell:
    name = f"g{step.level.name}[{step.index}]" if step.stage is Stage.GUEST else f"[{step.index}]"
    where = "a register" if step.address is None else f"read at {plain(step.address)}"
    value = "bytes that are not known" if step.value is None else plain(step.value)
    title = f"{step.level.name} entry {step.index}, {where}: {value}, {verdict(step)}"
    return Cell(
        row, column, str(number or ""), name, plain(step.address) if step.address is not None else "",
        verdict(step), step.level.level, step.rule.stops, title,
    )  # fmt: skip


def _end(walk: Walk) -> tuple[str, str]:
    """What stands after the last reference: an address, or that the walk did not come so far."""
    if isinstance(walk.outcome, Translated):
        return plain(walk.outcome.address), "HPA" if walk.second else "physical"
    stopped = walk.steps and walk.steps[-1].rule.stops and walk.steps[-1].rule is not Rule.DENIED
    return ("" if stopped else "no access"), ""


# --- two sides


def bands(comparison: Comparison, title: str, names: tuple[str, str]) -> Bands:
    """What side A and side B make of every guest-physical page."""
    along = axis(comparison)
    sides = (comparison.band_a, comparison.band_b)
    drawn = tuple(Strip(name, _stretches(band, along)) for name, band in zip(names, sides, strict=True))
    kinds = {stretch.kind for strip in drawn for stretch in strip.stretches}
    return Bands(
        title=title,
        spans=tuple(Span(plain(s.start), plain(s.end - 1), s.left, s.right) for s in along.spans),
        strips=drawn,
        legend=tuple((kind, CLASS_NAMES[kind]) for kind in GRAVITY if kind in kinds),
    )


def _stretches(band: Band, along: Axis) -> tuple[Stretch, ...]:
    if not len(band.start):
        return ()
    found = strips(band, along, 0.0, 1.0, BAND_PIXELS, GRAVE_PIXELS)
    return tuple(Stretch(s.kind, s.left / BAND_PIXELS, s.right / BAND_PIXELS) for s in found)
