"""Ranges of guest-physical addresses seen through the second stage, whose own ranges cut and change them."""

from collections.abc import Iterator

import msgspec
import numpy as np

from engine.arch.arrays import OK, ON_PAGE, UNKNOWN, Code, Index, Right, U, Words
from engine.arch.bits import mask
from engine.arch.bulk_nested import GUEST_RIGHTS, flagged
from engine.arch.layers import MOST_ROWS, Rows, joined, merged, spread
from engine.arch.second_stage import Kind2, SecondStage
from engine.arch.upper import slices

PIECES = 1 << 18
"""Ranges given at a time."""


class Behind:
    """A second stage flattened: ``rows``, its pages and gaps, and between them what is absent, without a hole."""

    def __init__(self, second: SecondStage, rows: Rows) -> None:
        width = second.paging.width
        self._left = MOST_ROWS
        self._width = width if second.reach > width else 64  # beyond it the format ignores bits of an address
        none = np.zeros(1, np.uint64)
        small = none.astype(np.uint8)
        rows = joined([Rows(none, none, none, small, none.astype(np.uint16), small), rows])
        start = np.unique(np.concatenate([rows.start, rows.start + rows.size]))
        row = np.searchsorted(rows.start, start, side="right") - 1
        inside = start - rows.start[row] < rows.size[row]
        code = np.where(inside, rows.code[row], np.uint8(Code.NOT_PRESENT))
        page = code == OK
        if second.kind is Kind2.NPT and not second.gmet:  # every nested access is a user's
            code[page & (rows.rights[row] & np.uint16(Right.U) == 0)] = Code.RIGHTS
        self._parts = Rows(
            start=start,
            size=np.diff(start, append=U(0)),  # the last one ends at 2**64
            target=rows.target[row] + np.where(page, start - rows.start[row], U(0)),
            shift=rows.shift[row],
            rights=rows.rights[row],
            code=flagged(code, ON_PAGE),
        )

    def see(self, rows: Rows) -> Iterator[Rows]:
        """``rows`` of guest-linear ranges with host-physical targets, some at a time, all in order of address.

        What is a gap of the guest stays as it is.
        """
        page = rows.code == OK
        return merged(rows.take(~page), self._behind(self._within_reach(rows.take(page))))

    def _within_reach(self, pages: Rows) -> Rows:
        """Cut where an address has gone beyond the bits that are translated, and starts anew."""
        if self._width == 64:
            return pages
        last = pages.target + (pages.size - U(1))
        turn, end = ((at >> U(self._width)).view(np.int64) for at in (pages.target, last))
        number, owner = spread(turn, end + 1)
        low = number.view(np.uint64) << U(self._width)
        begin = np.maximum(pages.target[owner], low)
        size = np.minimum(last[owner], low + U(mask(self._width - 1, 0))) - begin + U(1)
        start = pages.start[owner] + (begin - pages.target[owner])
        return msgspec.structs.replace(pages.take(owner), start=start, size=size, target=begin)

    def _behind(self, pages: Rows) -> Iterator[Rows]:
        gpa = pages.target & U(mask(self._width - 1, 0))
        last = gpa + (pages.size - U(1))
        first, end = (np.searchsorted(self._parts.start, at, side="right") for at in (gpa, last))
        ends = np.cumsum(end - first + 1)  # of the pieces of each page, counted over all pages
        whole = int(np.searchsorted(ends, self._left, side="right"))  # pages that are not too many
        total = int(ends[whole - 1]) if whole else 0
        self._left -= total
        for piece in slices(total, PIECES):
            number = np.arange(piece.start, piece.stop)
            owner = np.searchsorted(ends, number, side="right")
            yield self._pieces(pages, gpa, last, owner, end[owner] - (ends[owner] - number))
        beyond = pages.take(slice(whole, None))
        if len(beyond):
            self._left = 0
            yield msgspec.structs.replace(
                beyond, code=np.full(len(beyond), Code.LIMIT | ON_PAGE, np.uint8), rights=beyond.rights * np.uint16(0)
            )

    def _pieces(self, pages: Rows, gpa: Words, last: Words, owner: Index, number: Index) -> Rows:
        """The pieces of pages ``owner`` that lie in parts ``number``."""
        pages, parts = pages.take(owner), self._parts.take(number)
        begin = np.maximum(gpa[owner], parts.start)
        ahead = begin - gpa[owner]
        ok = parts.code == OK
        host = parts.target + np.where(ok, begin - parts.start, U(0))
        smaller = np.where(pages.shift == 0, parts.shift, np.minimum(pages.shift, parts.shift))
        return Rows(
            start=pages.start + ahead,
            size=np.minimum(last[owner], parts.start + (parts.size - U(1))) - begin + U(1),
            target=np.where(ok | (parts.code == UNKNOWN), host, pages.target + ahead),
            shift=np.where(ok, smaller, pages.shift),
            rights=pages.rights & (parts.rights | np.uint16(GUEST_RIGHTS)) * ok,
            code=parts.code,
        )
