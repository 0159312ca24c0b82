"""The tables of an address space, a level at a time, each read once however many entries point at it.

A *node* is a table at a level, with the rights that the entries above it leave. Entries that lead to the same table
with the same rights share a node: tables that many slots share, or that map themselves, do not multiply the work. The
leaves of a node become rows once: runs of slots that map one stretch of memory with one set of rights, or that are gaps
for one reason.
"""

from collections.abc import Iterator

import msgspec
import numpy as np

from engine.arch.arrays import (
    ALL_RIGHTS,
    NOT_PRESENT,
    OK,
    ON_ENTRY,
    UNKNOWN,
    Code,
    Flags,
    Index,
    RightsColumn,
    Small,
    U,
    Words,
    classify,
    combined_rights,
    packed,
    packed_rights,
    page_base,
    read_tables,
)
from engine.arch.bits import U64, mask
from engine.arch.bulk import Progress
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging
from engine.arch.upper import Registers, Through

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
    """The nodes of a level: byte addresses of tables and the rights above them, and where the tables lie (`Located`).

    ``rights``: the packed rights above.
    """

    tables: Words
    rights: Words
    host: Words
    code: Small
    fixed: Small

    def take(self, which: Index | slice) -> "_Frontier":
        return _Frontier(*(getattr(self, name)[which] for name in self.__struct_fields__))


def _frontier(tables: Words, rights: Words, through: Through | None) -> _Frontier:
    none = np.zeros(len(tables), np.uint8)
    return _Frontier(tables, rights, *(through.locate(tables) if through is not None else (tables, none, none)))


class _Part(msgspec.Struct, frozen=True):
    """What some nodes hold: rows and edges, both with their position among the slots of all nodes of the level.

    ``key``: the table that an edge leads to, with the rights down to it in the low 12 bits.
    """

    rows: Rows
    row_at: Index
    edge_at: Index
    key: Words


def read_layers(
    memory: PhysicalMemory,
    paging: Paging,
    progress: Progress | None = None,
    *,
    through: Through | None = None,
    pdptes: Registers | None = None,
) -> list[Layer]:
    """Every table that can be reached, from the root down; as many layers as levels are reached.

    ``through``: the second stage, where the tables are a guest's; ``pdptes``: the registers of PAE paging.
    """
    layers: list[Layer] = []
    root = np.array([paging.root], np.uint64)
    frontier = _frontier(root, np.array([ALL_RIGHTS], np.uint64), through if pdptes is None else None)
    kept = 0
    for number, lv in enumerate(paging.levels):
        registers = pdptes if number == 0 else None
        alive = _alive(memory, frontier)
        read = frontier.take(alive)
        nodes, step, parts = len(alive), CHUNK // lv.entries, [_EMPTY]
        for start in range(0, nodes, step):
            if kept > MOST_ROWS:
                parts.append(_unread(lv, read.take(slice(start, nodes)), start))
                break
            stop = min(start + step, nodes)
            parts.append(_read(memory, paging, lv, read.take(slice(start, stop)), start, registers))
            kept += len(parts[-1].rows)
            if progress is not None:
                # Each level is taken to have ten times the work of the one above it.
                progress((1 + 9 * stop / nodes) * 10.0 ** (number - len(paging.levels)))
        edges, child = np.unique(np.concatenate([part.key for part in parts]), return_inverse=True)
        layers.append(_layer(paging, lv, alive, len(frontier.tables), parts, child))
        if not len(edges):
            break
        frontier = _frontier(edges & U(U64 ^ 0xFFF), edges & U(0xFFF), through)
    return layers


WORTH_ASKING = 64
"""With fewer tables it is quicker to read them all."""


def _alive(memory: PhysicalMemory, nodes: _Frontier) -> Index:
    """The tables worth reading: memory that was never written is often taken for tables, and it holds nothing."""
    if len(nodes.tables) < WORTH_ASKING:
        return np.arange(len(nodes.tables))
    return np.flatnonzero(~memory.blank(nodes.host >> U(12)) | (nodes.code != OK))


def _read(
    memory: PhysicalMemory, paging: Paging, lv: Level, nodes: _Frontier, first: int, registers: Registers | None
) -> _Part:
    """Read and decode the tables of ``nodes``, which are number ``first`` and those that follow it."""
    at: Words | None = None
    if registers is not None:
        (values, code, at), leaf = registers, np.zeros(4, np.bool_)
    else:
        values, code, leaf = _entries(memory, lv, nodes)
    good = code == OK
    pages, edges = np.flatnonzero(good & leaf), np.flatnonzero(good & ~leaf)
    rights = combined_rights(paging, _granted(lv, nodes, values, pages), values[pages])
    half = lv.entries // 2 if lv is paging.levels[0] else lv.entries  # the halves of linear addresses do not touch
    rows, row_at = _runs(lv, pages, page_base(lv, values[pages]), rights, code[pages], half)
    gaps = np.flatnonzero(code > NOT_PRESENT)
    if len(gaps):
        where = at[gaps] if at is not None else _places(lv, nodes, gaps, code[gaps])
        gap_rows, gap_at = _runs(lv, gaps, where, np.zeros(len(gaps), np.uint16), code[gaps], half)
        order = np.argsort(np.concatenate([row_at, gap_at]), kind="stable")
        rows, row_at = joined([rows, gap_rows]).take(order), np.concatenate([row_at, gap_at])[order]
    below = _granted(lv, nodes, values, edges)
    base = first * lv.entries
    return _Part(rows, row_at + base, edges + base, values[edges] & U(lv.table_address) | below)


def _entries(memory: PhysicalMemory, lv: Level, nodes: _Frontier) -> tuple[Words, Small, Flags]:
    """All entries of the tables of ``nodes``, their codes, and which are leaves.

    The entries of a table that cannot be reached have the code of that.
    """
    values, unknown = read_tables(memory, lv, np.where(nodes.code == OK, nodes.host, nodes.host[0]))
    code, leaf = classify(lv, values, unknown)
    if nodes.fixed.any():
        unused = (code == OK) & (values & U(lv.accessed) != U(lv.accessed))
        code[unused & np.repeat(nodes.fixed != 0, lv.entries)] = Code.RIGHTS | ON_ENTRY
    if nodes.code.any():
        np.copyto(code.reshape(-1, lv.entries), nodes.code[:, None], where=(nodes.code != OK)[:, None])
    return values, code, leaf


def _places(lv: Level, nodes: _Frontier, slots: Index, code: Small) -> Words:
    """What gaps at some slots are about: the entry's place in memory where its bytes are unknown, else its address."""
    node, offset = slots // lv.entries, (slots % lv.entries).astype(np.uint64) << U(lv.entry_shift)
    of_table = nodes.code[node] == UNKNOWN  # then ``host`` is already where bytes are missing
    missing = nodes.host[node] + np.where(of_table, U(0), offset)
    return np.where(code == UNKNOWN, missing, nodes.tables[node] + offset)


def _granted(lv: Level, nodes: _Frontier, values: Words, slots: Index) -> Words:
    """The packed rights of all entries on the way to and at some slots."""
    return nodes.rights[slots // lv.entries] & (packed_rights(values[slots]) | U(packed(lv.neutral & U64)))


def _runs(lv: Level, slots: Index, target: Words, rights: RightsColumn, code: Small, half: int) -> tuple[Rows, Index]:
    """Neighbouring ``slots`` as rows, and the slot that each row starts at. Their ``start`` is not yet set."""
    if not len(slots):
        return NO_ROWS, slots
    new = np.ones(len(slots), np.bool_)
    gap = code[1:] != OK
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


def spread(first: Index, end: Index) -> tuple[Index, Index]:
    """The numbers ``first[n] .. end[n] - 1`` for each n, one after another, and the n that each belongs to."""
    counts = end - first
    owner = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return np.arange(len(owner)) + (first - before)[owner], owner


def merged(own: Rows, blocks: Iterator[Rows]) -> Iterator[Rows]:
    """``own`` rows among those of ``blocks``, all of them in order of address."""
    start = 0
    for block in blocks:
        stop = int(np.searchsorted(own.start, block.start[-1]))
        both = joined([own.take(slice(start, stop)), block])
        yield both.take(np.argsort(both.start, kind="stable")) if stop > start else block
        start = stop
    if start < len(own):
        yield own.take(slice(start, None))
