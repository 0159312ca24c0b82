"""The tables of an address space, a level at a time, each read once however many entries point at it.

A *node* is a table at a level, with the rights that the entries above it leave. Entries that lead to the same table
with the same rights share a node: tables that many slots share, or that map themselves, do not multiply the work. The
leaves of a node become rows once: runs of slots that map one stretch of memory with one set of rights, or that are gaps
for one reason.
"""

import msgspec
import numpy as np

from engine.arch.arrays import (
    Code,
    Flags,
    Index,
    RightsColumn,
    Small,
    U,
    Words,
    classify,
    combined_rights,
    grants,
    page_base,
    pdpte_registers,
    read_tables,
)
from engine.arch.bits import U64, mask
from engine.arch.bulk import Progress
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging

CHUNK = 1 << 16
"""Entries read at a time: their columns stay in the second-level cache."""
MOST_ROWS = 1 << 25
"""Rows kept of one address space. What lies beyond them is not read, and reported so (`Code.LIMIT`)."""


class Rows(msgspec.Struct, frozen=True):
    """Runs of slots. ``start``: virtual address, or the byte offset in the range of a node; ``size`` in bytes.

    ``target``: the physical byte address of a page; of a gap that of its first entry, or (`Code.REPEATED`) the virtual
    address where the same tables are enumerated. ``shift``: log2 of the bytes that one entry covers.
    """

    start: Words
    size: Words
    target: Words
    shift: Small
    rights: RightsColumn
    code: Small

    def __len__(self) -> int:
        return len(self.start)

    def take(self, which: slice | Index | Flags) -> "Rows":
        return Rows(*(getattr(self, name)[which] for name in self.__struct_fields__))


def joined(parts: list[Rows]) -> Rows:
    """The rows of all parts, one after another."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__struct_fields__))


class Layer(msgspec.Struct, frozen=True):
    """All nodes of one level. Rows are sorted by node and offset, and so are the edges ``offset`` -> ``child``.

    Those of node n are ``first_row[n] .. first_row[n + 1]`` and ``first_edge[n] .. first_edge[n + 1]``; ``child``
    counts the nodes of the next layer.
    """

    level: Level
    rows: Rows
    first_row: Index
    offset: Words
    child: Index
    first_edge: Index


class _Frontier(msgspec.Struct, frozen=True):
    """The nodes of a level: byte addresses of tables, and the rights above them.

    ``rights``: the AND of the grants above, as `_packed` has it.
    """

    tables: Words
    rights: Words

    def take(self, which: Index) -> "_Frontier":
        return _Frontier(self.tables[which], self.rights[which])

    def part(self, start: int, stop: int) -> "_Frontier":
        return _Frontier(self.tables[start:stop], self.rights[start:stop])


LOW_RIGHTS = 0x407
"""R/W and U/S; or R, W, X and XU of EPT."""
ALL_RIGHTS = LOW_RIGHTS | 1 << 3


class _Part(msgspec.Struct, frozen=True):
    """What some nodes hold: rows and edges, both with their position among the slots of all nodes of the level.

    ``key``: the table that an edge leads to, with the rights down to it in the low 12 bits.
    """

    rows: Rows
    row_at: Index
    edge_at: Index
    key: Words


def read_layers(memory: PhysicalMemory, paging: Paging, progress: Progress | None = None) -> list[Layer]:
    """Every table that can be reached, from the root down; as many layers as levels are reached."""
    layers: list[Layer] = []
    frontier = _Frontier(np.array([paging.root], np.uint64), np.array([ALL_RIGHTS], np.uint64))
    kept = 0
    for number, lv in enumerate(paging.levels):
        alive = _alive(memory, frontier.tables)
        read = frontier.take(alive)
        nodes, step, parts = len(alive), CHUNK // lv.entries, [_EMPTY]
        for start in range(0, nodes, step):
            if kept > MOST_ROWS:
                parts.append(_unread(lv, read.part(start, nodes), start))
                break
            stop = min(start + step, nodes)
            parts.append(_read(memory, paging, lv, read.part(start, stop), start))
            kept += len(parts[-1].rows)
            if progress is not None:
                # Each level is taken to have ten times the work of the one above it.
                progress((1 + 9 * stop / nodes) * 10.0 ** (number - len(paging.levels)))
        edges, child = np.unique(np.concatenate([part.key for part in parts]), return_inverse=True)
        layers.append(_layer(paging, lv, alive, len(frontier.tables), parts, child))
        if not len(edges):
            break
        frontier = _Frontier(edges & U(U64 ^ 0xFFF), edges & U(0xFFF))
    return layers


WORTH_ASKING = 64
"""With fewer tables it is quicker to read them all."""


def _alive(memory: PhysicalMemory, tables: Words) -> Index:
    """The tables worth reading: memory that was never written is often taken for tables, and it holds nothing."""
    if len(tables) < WORTH_ASKING:
        return np.arange(len(tables))
    return np.flatnonzero(~memory.blank(tables >> U(12)))


def _read(memory: PhysicalMemory, paging: Paging, lv: Level, nodes: _Frontier, first: int) -> _Part:
    """Read and decode the tables of ``nodes``, which are number ``first`` and those that follow it."""
    is_root = lv is paging.levels[0]
    if is_root and paging.pdptes_are_registers:
        values, code, at = pdpte_registers(memory, paging)
        leaf = np.zeros(4, np.bool_)
    else:
        values, unknown = read_tables(memory, lv, nodes.tables)
        code, leaf = classify(lv, values, unknown)
        at = None
    good = code == Code.OK
    pages, edges = np.flatnonzero(good & leaf), np.flatnonzero(good & ~leaf)
    rights = combined_rights(paging, _granted(paging, lv, nodes, values, pages), values[pages])
    half = lv.entries // 2 if is_root else lv.entries  # the halves of a linear address space do not touch
    rows, row_at = _runs(lv, pages, page_base(lv, values[pages]), rights, code[pages], half)
    gaps = np.flatnonzero(code > Code.NOT_PRESENT)
    if len(gaps):
        if at is None:
            at = nodes.tables[:, None] + (np.arange(lv.entries, dtype=np.uint64) << U(lv.entry_shift))
        none = np.zeros(len(gaps), np.uint16)
        gap_rows, gap_at = _runs(lv, gaps, at.ravel()[gaps], none, code[gaps], half)
        order = np.argsort(np.concatenate([row_at, gap_at]), kind="stable")
        rows, row_at = joined([rows, gap_rows]).take(order), np.concatenate([row_at, gap_at])[order]
    below = _packed(_granted(paging, lv, nodes, values, edges))
    base = first * lv.entries
    return _Part(rows, row_at + base, edges + base, values[edges] & U(lv.table_address) | below)


def _granted(paging: Paging, lv: Level, nodes: _Frontier, values: Words, slots: Index) -> Words:
    """The AND of the grants of all entries on the way to and at some slots."""
    own = grants(paging, values[slots]) | U(lv.neutral & U64)
    above = nodes.rights[slots // lv.entries]
    return own & (above | (above & U(1 << 3)) << U(60))


def _packed(granted: Words) -> Words:
    """The bits of grants that are rights, below bit 12: those of bit 63 in bit 3, which is no right."""
    return granted & U(LOW_RIGHTS) | granted >> U(60) & U(1 << 3)


def _runs(lv: Level, slots: Index, target: Words, rights: RightsColumn, code: Small, half: int) -> tuple[Rows, Index]:
    """Neighbouring ``slots`` as rows, and the slot that each row starts at. Their ``start`` is not yet set."""
    if not len(slots):
        return NO_ROWS, slots
    new = np.ones(len(slots), np.bool_)
    gap = code[1:] != Code.OK
    new[1:] = (
        (slots[1:] != slots[:-1] + 1)
        | (slots[1:] % half == 0)
        | (code[1:] != code[:-1])
        | (rights[1:] != rights[:-1])
        | ~gap & (target[1:] != target[:-1] + U(lv.span))
    )
    first = np.flatnonzero(new)
    count = np.diff(first, append=len(slots)).astype(np.uint64)
    at = slots[first]
    shift = np.full(len(first), lv.shift, np.uint8)
    return Rows(count, count << U(lv.shift), target[first], shift, rights[first], code[first]), at


_NONE = np.zeros(0, np.uint64)
NO_ROWS = Rows(_NONE, _NONE, _NONE, _NONE.astype(np.uint8), _NONE.astype(np.uint16), _NONE.astype(np.uint8))


def _unread(lv: Level, nodes: _Frontier, first: int) -> _Part:
    """``nodes`` as gaps of their whole size."""
    count = len(nodes.tables)
    size = np.full(count, lv.entries << lv.shift, np.uint64)
    shift, rights = np.full(count, lv.shift, np.uint8), np.zeros(count, np.uint16)
    rows = Rows(size, size, nodes.tables, shift, rights, np.full(count, Code.LIMIT, np.uint8))
    none = np.zeros(0, np.int64)
    return _Part(rows, (np.arange(count) + first) * lv.entries, none, none.astype(np.uint64))


_EMPTY = _Part(NO_ROWS, np.zeros(0, np.int64), np.zeros(0, np.int64), _NONE)


def _layer(paging: Paging, lv: Level, alive: Index, nodes: int, parts: list[_Part], child: Index) -> Layer:
    """The layer of ``nodes`` nodes, of which ``parts`` count those that are ``alive`` alone."""

    def moved(at: Index) -> Index:
        return alive[at // lv.entries] * lv.entries + at % lv.entries

    row_at = moved(np.concatenate([part.row_at for part in parts]))
    edge_at = moved(np.concatenate([part.edge_at for part in parts]))
    bounds = np.arange(nodes + 1) * lv.entries
    rows = joined([part.rows for part in parts])
    return Layer(
        level=lv,
        rows=msgspec.structs.replace(rows, start=_offsets(paging, lv, row_at)),
        first_row=np.searchsorted(row_at, bounds),
        offset=_offsets(paging, lv, edge_at),
        child=child,
        first_edge=np.searchsorted(edge_at, bounds),
    )


def _offsets(paging: Paging, lv: Level, slots: Index) -> Words:
    """The byte offsets of slots in the range of their node; in a linear root, the canonical address."""
    offset = (slots % lv.entries).astype(np.uint64) << U(lv.shift)
    if lv is paging.levels[0] and paging.linear and paging.mode.is_long:
        offset[slots >= lv.entries // 2] |= U(U64 ^ mask(paging.width - 1, 0))
    return offset
