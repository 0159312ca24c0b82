"""Every mapping of an address space: pages, and gaps with their reasons, as runs in arrays.

The tables are read once each (`layers`); placing them at their virtual addresses is done here, a bounded number of rows
at a time, in the order of addresses.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec
import numpy as np

from engine.arch.arrays import OK, Code, Index, Right, RightsColumn, Small, U, Words, pdpte_registers
from engine.arch.behind import Behind
from engine.arch.bulk import Progress
from engine.arch.bulk_nested import SecondWalker, guest_pdptes
from engine.arch.layers import NO_ROWS, Layer, Rows, joined, merged, read_layers, spread
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Paging
from engine.arch.second_stage import SecondStage
from engine.arch.upper import Registers, Through

BLOCK_ROWS = 1 << 18
"""Rows placed and sorted at a time."""
MOST_PLACED = 1 << 24
"""With more rows than this, tables that are used more than once are placed once and then referred to."""


class Gaps(msgspec.Struct, frozen=True):
    """Ranges that no page maps although they are not simply absent. Columns; sorted by ``va``, all in bytes.

    ``code`` tells why: the entry is `Code.UNKNOWN` or `Code.RESERVED` (``at``: its physical address), or its tables are
    `Code.REPEATED` (``at``: the virtual address where the same ones have been enumerated) or beyond `Code.LIMIT`. With
    `ON_ENTRY` or `ON_PAGE` added it is the second stage's, and ``at`` the guest-physical address that fails there.
    """

    va: Words
    size: Words
    code: Small
    at: Words
    shift: Small

    def __len__(self) -> int:
        return len(self.va)


class Mappings(msgspec.Struct, frozen=True):
    """Runs of pages with contiguous addresses, one page size and one set of rights. Columns, sorted by ``va``.

    ``va``, ``pa`` and ``size`` in bytes; ``page_shift``: log2 of the page's bytes, 0 without paging; ``rights``:
    `Right` bits over all entries used, register modifiers aside.
    """

    va: Words
    pa: Words
    size: Words
    page_shift: Small
    rights: RightsColumn
    gaps: Gaps

    def __len__(self) -> int:
        return len(self.va)

    @property
    def last(self) -> Words:
        """The last byte of each run; the end of the highest would not fit."""
        return self.va + (self.size - U(1))


def mappings(
    memory: PhysicalMemory, paging: Paging, second: SecondStage | None = None, *, progress: Progress | None = None
) -> Mappings:
    """Every page of the address space of ``paging``, and every gap.

    With a ``second`` stage the tables are a guest's, and ``pa`` and the rights are those that both stages give: what is
    mapped may be read as far as the guest goes, but for what has no R.
    """
    return _columns(joined([NO_ROWS, *_rows(memory, paging, second, progress)]))


def stream(
    memory: PhysicalMemory, paging: Paging, second: SecondStage | None = None, *, progress: Progress | None = None
) -> Iterator[Mappings]:
    """`mappings` in blocks, in the order of addresses."""
    return map(_columns, _rows(memory, paging, second, progress))


def nearest(found: Mappings, address: int) -> tuple[int | None, int | None]:
    """The runs just below and just above ``address``, as row numbers; both are the run that holds it, if one does."""
    above = int(np.searchsorted(found.va, U(address), side="right"))
    if above and int(found.last[above - 1]) >= address:
        return above - 1, above - 1
    return above - 1 if above else None, above if above < len(found) else None


def _columns(rows: Rows) -> Mappings:
    page = rows.code == OK
    pages, gaps = rows.take(page), rows.take(~page)
    return Mappings(
        va=pages.start,
        pa=pages.target,
        size=pages.size,
        page_shift=pages.shift,
        rights=pages.rights,
        gaps=Gaps(gaps.start, gaps.size, gaps.code, gaps.target, gaps.shift),
    )


def _rows(
    memory: PhysicalMemory, paging: Paging, second: SecondStage | None, progress: Progress | None
) -> Iterator[Rows]:
    """Pages and gaps in order of address, coalesced."""
    if second is None:
        pdptes = pdpte_registers(memory, paging) if paging.pdptes_are_registers else None
        return _joining(_tables(memory, paging, None, pdptes, progress))
    flattening, guest = _Share(progress, 0.0, 0.25), _Share(progress, 0.25, 0.75)
    through, pdptes = SecondWalker(memory, second), guest_pdptes(memory, paging, second)
    behind = Behind(second, joined([NO_ROWS, *_rows(memory, second.paging, None, flattening)]))
    return _joining(_seen(behind, _tables(memory, paging, through, pdptes, guest), guest))


def _seen(behind: Behind, blocks: Iterable[Rows], progress: "_Share") -> Iterator[Rows]:
    for block in blocks:
        for rows in behind.see(block):
            yield rows
            progress.again()


class _Share:
    """A part of the work, as a `Progress` that tells how much is done of all of it."""

    def __init__(self, progress: Progress | None, start: float, size: float) -> None:
        self._progress, self._start, self._size = progress, start, size
        self._told = start

    def __call__(self, done: float) -> None:
        self._told = self._start + self._size * done
        self.again()

    def again(self) -> None:
        """Nothing new, but it may be cancelled."""
        if self._progress is not None:
            self._progress(self._told)


def _tables(
    memory: PhysicalMemory,
    paging: Paging,
    through: Through | None,
    pdptes: Registers | None,
    progress: Progress | None,
) -> Iterator[Rows]:
    """What the tables of one stage hold, in order of address."""
    if paging.format is None:
        zero, size = np.zeros(1, np.uint64), np.full(1, 1 << paging.width, np.uint64)
        none = np.zeros(1, np.uint8)
        yield Rows(zero, size, zero, none, np.full(1, Right.ALL, np.uint16), none)
        return
    reading, placing = _Share(progress, 0.0, READING), _Share(progress, READING, 1 - READING)
    layers = read_layers(memory, paging, reading, through=through, pdptes=pdptes)
    weights = _weights(layers)
    total = int(weights[0][0])
    if total > MOST_PLACED:
        layers = _without_repeats(layers, weights)
        weights = _weights(layers)
        total = int(weights[0][0])
    placed = 0
    for block in _place(layers, weights, 0, np.zeros(1, np.int64), np.zeros(1, np.uint64)):
        yield block
        placed += len(block)
        placing(placed / total)


def _joining(blocks: Iterable[Rows]) -> Iterator[Rows]:
    """Blocks of rows with those coalesced that continue one another, across blocks too."""
    held = NO_ROWS
    for block in blocks:
        block = _coalesced(joined([held, block]))
        if len(block) > 1:
            yield block.take(slice(0, -1))
        held = block.take(slice(-1, None))
    yield held


READING = 0.75
"""The share of reading tables in all work."""


def _weights(layers: list[Layer]) -> list[Words]:
    """For each node of each layer how many rows it and all below it have when placed."""
    weights: list[Words] = []
    below = np.zeros(0, np.uint64)
    for layer in reversed(layers):
        own = np.diff(layer.first_row).astype(np.uint64)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(below[layer.child], dtype=np.uint64)])
        below = own + sums[layer.first_edge[1:]] - sums[layer.first_edge[:-1]]
        weights.append(below)
    return weights[::-1]


def _place(layers: list[Layer], weights: list[Words], depth: int, nodes: Index, at: Words) -> Iterator[Rows]:
    """The rows of ``nodes`` of layer ``depth``, which lie at increasing addresses ``at``, and of all below them."""
    if not len(nodes):
        return
    weight = weights[depth][nodes]
    heavy = weight > BLOCK_ROWS
    group = (np.cumsum(weight) - weight) // U(BLOCK_ROWS)
    new = (group[1:] != group[:-1]) | heavy[1:] | heavy[:-1]
    for start, stop in pairwise([0, *(np.flatnonzero(new) + 1).tolist(), len(nodes)]):
        if heavy[start]:
            own, children, below = _below(layers[depth], nodes[start:stop], at[start:stop])
            yield from merged(own, _place(layers, weights, depth + 1, children, below))
        elif weight[start:stop].any():
            yield _place_all(layers[depth:], nodes[start:stop], at[start:stop])


def _place_all(layers: list[Layer], nodes: Index, at: Words) -> Rows:
    parts = []
    for layer in layers:
        own, nodes, at = _below(layer, nodes, at)
        if len(own):
            parts.append(own)
    rows = joined(parts)
    return rows.take(np.argsort(rows.start, kind="stable")) if len(parts) > 1 else rows


def _below(layer: Layer, nodes: Index, at: Words) -> tuple[Rows, Index, Words]:
    """The own rows of nodes at addresses ``at``, and the nodes of the next layer with their addresses."""
    rows, owner = spread(layer.first_row[nodes], layer.first_row[nodes + 1])
    own = layer.rows.take(rows)
    edges, parent = spread(layer.first_edge[nodes], layer.first_edge[nodes + 1])
    placed = msgspec.structs.replace(own, start=own.start + at[owner])
    return placed, layer.child[edges], layer.offset[edges] + at[parent]


def _coalesced(rows: Rows) -> Rows:
    """Rows that continue the one before them made one with it."""
    new = np.ones(len(rows), np.bool_)
    follows = rows.start[1:] == rows.start[:-1] + rows.size[:-1]
    for name in ("code", "rights", "shift"):
        column = getattr(rows, name)
        follows &= column[1:] == column[:-1]
    code, target = rows.code[1:], rows.target
    follows &= np.where(code == OK, target[1:] == target[:-1] + rows.size[:-1], True)
    follows &= (code != Code.REPEATED) | (target[1:] == target[:-1])
    new[1:] = ~follows
    first = np.flatnonzero(new)
    size = np.add.reduceat(rows.size, first) if len(first) else rows.size
    return msgspec.structs.replace(rows.take(first), size=size)


def _without_repeats(layers: list[Layer], weights: list[Words]) -> list[Layer]:
    """The layers with each node placed once, at the lowest address that leads to it; other edges to it become gaps."""
    out: list[Layer] = []
    at = np.zeros(1, np.uint64)
    for layer, below in zip(layers, [*weights[1:], np.zeros(0, np.uint64)], strict=True):
        parent = np.repeat(np.arange(len(at)), np.diff(layer.first_edge))
        va = at[parent] + layer.offset
        order = np.argsort(va, kind="stable")
        _, first = np.unique(layer.child[order], return_index=True)
        again = np.ones(len(va), np.bool_)
        again[order[first]] = False
        again &= below[layer.child] > 1
        out.append(_cut(layer, parent, np.flatnonzero(again), va[order[first]]))
        at = va[order[first]]
    return out


def _cut(layer: Layer, parent: Index, edges: Index, seen_at: Words) -> Layer:
    """``layer`` with some edges made into rows that refer to where the node is placed."""
    count = len(edges)
    gaps = Rows(
        start=layer.offset[edges],
        size=np.full(count, layer.level.span, np.uint64),
        target=seen_at[layer.child[edges]],
        shift=np.full(count, layer.level.shift, np.uint8),
        rights=np.zeros(count, np.uint16),
        code=np.full(count, Code.REPEATED, np.uint8),
    )
    nodes = np.arange(len(layer.first_row) - 1)
    owner = np.concatenate([np.repeat(nodes, np.diff(layer.first_row)), parent[edges]])
    rows = joined([layer.rows, gaps])
    order = np.lexsort((rows.start, owner))
    kept = np.ones(len(parent), np.bool_)
    kept[edges] = False
    bounds = np.arange(len(nodes) + 1)
    return Layer(
        level=layer.level,
        rows=rows.take(order),
        first_row=np.searchsorted(owner[order], bounds),
        offset=layer.offset[kept],
        child=layer.child[kept],
        first_edge=np.searchsorted(parent[kept], bounds),
    )
