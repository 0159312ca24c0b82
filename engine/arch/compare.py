"""Two address spaces side by side: which ranges are the same, which differ, which fault in one of them, and how.

Two processes, one guest at two moments, or one root that is read in two ways (as 4 and as 5 levels): whatever gives two
`Mappings`.
"""

import msgspec
import numpy as np

from engine.arch.arrays import Code, Flags, RightsColumn, Small, U, Words
from engine.arch.mappings import Mappings


class How:
    """Flags of a range; plain numbers, which arrays take. 0: the same in both."""

    ADDRESS, RIGHTS, PAGE_SIZE, ONLY_A, ONLY_B, REASON, OPEN = (1 << n for n in range(7))
    SAME = 0


class Side(msgspec.Struct, frozen=True):
    """One of the two spaces in each range: `Code`, and where that is `Code.OK` the page's address and rights.

    ``pa`` in bytes, of the first byte of the range; ``page_shift``: log2 of the page's bytes.
    """

    code: Small
    pa: Words
    rights: RightsColumn
    page_shift: Small

    def take(self, which: Flags) -> "Side":
        return Side(*(getattr(self, name)[which] for name in self.__struct_fields__))


class Comparison(msgspec.Struct, frozen=True):
    """Ranges that are mapped, or a gap, in at least one of two spaces. Columns, sorted by ``va``; bytes.

    ``how``: `How` flags. ONLY_A, ONLY_B: the other one faults there, for the reason in its ``code``; REASON: both
    fault, for different reasons; OPEN: one side cannot tell, for bytes are unknown or not enumerated there.
    """

    va: Words
    size: Words
    how: Small
    a: Side
    b: Side

    def __len__(self) -> int:
        return len(self.va)


def compare(a: Mappings, b: Mappings) -> Comparison:
    """The ranges of ``a`` and ``b``, cut where either changes, with what each has there."""
    cuts = np.unique(np.concatenate([edge for each in (a, b) for edge in _edges(each)]))
    size = np.diff(cuts, append=U(0))  # the last range ends at 2**64
    at_a, at_b = _side(a, cuts), _side(b, cuts)
    some = (at_a.code != Code.NOT_PRESENT) | (at_b.code != Code.NOT_PRESENT)
    cuts, size, at_a, at_b = cuts[some], size[some], at_a.take(some), at_b.take(some)
    how = _how(at_a, at_b)
    follows = (cuts[1:] == cuts[:-1] + size[:-1]) & (how[1:] == how[:-1])
    for side in (at_a, at_b):
        follows &= (side.code[1:] == side.code[:-1]) & (side.rights[1:] == side.rights[:-1])
        follows &= side.page_shift[1:] == side.page_shift[:-1]
        follows &= (side.code[1:] != Code.OK) | (side.pa[1:] == side.pa[:-1] + size[:-1])
    first = np.concatenate([np.ones(len(cuts[:1]), np.bool_), ~follows])
    total = np.add.reduceat(size, np.flatnonzero(first)) if len(cuts) else size
    return Comparison(cuts[first], total, how[first], at_a.take(first), at_b.take(first))


def _edges(space: Mappings) -> list[Words]:
    gaps = space.gaps
    return [space.va, space.va + space.size, gaps.va, gaps.va + gaps.size]


def _side(space: Mappings, at: Words) -> Side:
    """What ``space`` has at each address."""
    code = np.full(len(at), Code.NOT_PRESENT, np.uint8)
    row, gap = _lookup(space.gaps.va, space.gaps.size, at)
    code[gap] = space.gaps.code[row]
    row, page = _lookup(space.va, space.size, at)
    code[page] = Code.OK
    pa, rights, shift = np.zeros(len(at), np.uint64), np.zeros(len(at), np.uint16), np.zeros(len(at), np.uint8)
    pa[page] = space.pa[row] + (at[page] - space.va[row])
    rights[page], shift[page] = space.rights[row], space.page_shift[row]
    return Side(code, pa, rights, shift)


def _lookup(start: Words, size: Words, at: Words) -> tuple[np.ndarray, np.ndarray]:
    """The rows that hold some of the addresses ``at``, and which of these they are."""
    row = np.searchsorted(start, at, side="right") - 1
    found = np.flatnonzero(row >= 0)
    found = found[at[found] - start[row[found]] < size[row[found]]]
    return row[found], found


def _how(a: Side, b: Side) -> Small:
    ok_a, ok_b = a.code == Code.OK, b.code == Code.OK
    both = ok_a & ok_b
    how = np.zeros(len(a.code), np.uint8)
    for flag, where in (
        (How.ADDRESS, both & (a.pa != b.pa)),
        (How.RIGHTS, both & (a.rights != b.rights)),
        (How.PAGE_SIZE, both & (a.page_shift != b.page_shift)),
        (How.ONLY_A, ok_a & ~ok_b),
        (How.ONLY_B, ok_b & ~ok_a),
        (How.REASON, ~ok_a & ~ok_b & (a.code != b.code)),
    ):
        how[where] |= flag
    for side in (a, b):
        how[np.isin(side.code, (Code.UNKNOWN, Code.REPEATED, Code.LIMIT))] = How.OPEN
    return how
