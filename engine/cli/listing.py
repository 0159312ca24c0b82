"""The list of mappings as rows: what a plain tool wants to know of each run of pages."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.arch.addresses import grouped, size_name

if TYPE_CHECKING:
    from engine.arch.mappings import Mappings


class Run(NamedTuple):
    """Contiguous pages with the same rights. ``va``, ``pa``, ``size`` and ``page_size`` in bytes (0: no paging)."""

    va: int
    pa: int
    size: int
    page_size: int
    w: bool
    u: bool
    nx: bool


def runs(blocks: Iterable["Mappings"], gaps: Counter[int]) -> Iterator[Run]:
    """The runs of ``blocks``, coalesced: keys and G are not told apart. ``gaps`` counts bytes left out, by `Code`."""
    last: Run | None = None
    for run in _rows(blocks, gaps):
        if last is None:
            last = run
        elif run[3:] == last[3:] and run.va - last.va == run.pa - last.pa == last.size:
            last = last._replace(size=last.size + run.size)
        else:
            yield last
            last = run
    if last is not None:
        yield last


def _rows(blocks: Iterable["Mappings"], gaps: Counter[int]) -> Iterator[Run]:
    from engine.arch.arrays import Right

    for block in blocks:
        for code, size in zip(block.gaps.code.tolist(), block.gaps.size.tolist(), strict=True):
            gaps[code] += size
        columns = (block.va, block.pa, block.size, block.page_shift, block.rights)
        for va, pa, size, shift, rights in zip(*(column.tolist() for column in columns), strict=True):
            w, u, x = (bool(rights & right) for right in (Right.W, Right.U, Right.X))
            yield Run(va, pa, size, 1 << shift if shift else 0, w, u, not x)


def run_json(run: Run) -> dict[str, Any]:
    return {**run._asdict(), "va": hex(run.va), "pa": hex(run.pa)}


def run_text(run: Run) -> str:
    """One line of at most 100 columns: the first and the last byte, where they lie, sizes, rights."""
    first, last = (grouped(address, 16) for address in (run.va, run.va + run.size - 1))
    rights = "".join(letter if on else "-" for on, letter in ((run.w, "W"), (run.u, "U"), (not run.nx, "X")))
    page = f"{size_name(run.page_size)} pages" if run.page_size else "no paging"
    return f"{first} {last} {grouped(run.pa, 13)} {rights} {size_name(run.size):>10} {page}"
