"""Checksums that tie a file's rows together: each covers its row and all before it.

SQLite notices a broken page, but not a number that changed within one. Every table has a chain, whose end and length
are in the table ``seal``; events carry their links themselves, so that the first damaged one is known. They protect
against accidents and not against people: anybody can compute them.

link 0 is the SHA-256 of "walkscope " and the table's name; link n is the SHA-256 of link n-1 and of row n as a
MessagePack array of its columns (without ``checksum``), in the order of the primary key.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from storage.errors import Problem, StorageError
from storage.schema import SealRow

Rows = Sequence[tuple[Any, ...]]
_pack = msgspec.msgpack.Encoder().encode


def first_link(part: str) -> bytes:
    return sha256(b"walkscope " + part.encode()).digest()


def next_link(link: bytes, row: tuple[Any, ...]) -> bytes:
    return sha256(link + _pack(row)).digest()


def links(part: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """Link 0, and one link a row."""
    link = first_link(part)
    yield link
    for row in rows:
        link = next_link(link, row)
        yield link


def with_links(part: str, rows: Rows) -> list[tuple[Any, ...]]:
    """The rows, each with its link as a last column."""
    chain = links(part, rows)
    next(chain)
    return [(*row, link) for row, link in zip(rows, chain, strict=True)]


def end_of(part: str, rows: Rows) -> bytes:
    *_, end = links(part, rows)
    return end


def seals(tables: dict[str, Rows]) -> list[tuple[str, int, bytes]]:
    """The rows of ``seal`` for the rows of all other tables (those of ``event`` with their links)."""
    return sorted(
        (name, len(rows), rows[-1][-1] if name == "event" and rows else end_of(name, rows))
        for name, rows in tables.items()
    )


def verify(tables: dict[str, Rows], sealed: Iterable[SealRow]) -> None:
    """Raises StorageError where the rows are not those that were sealed. Seals of unknown tables are passed over."""
    expected = {seal.part: seal for seal in sealed}
    for name, rows in tables.items():
        seal = expected.get(name)
        end = _end_of_events(rows) if name == "event" else end_of(name, rows)
        if seal is None or (seal.rows, seal.checksum) != (len(rows), end):
            raise damaged(f"its table “{name}” is not as it was saved")


def _end_of_events(rows: Rows) -> bytes:
    chain = links("event", (row[:-1] for row in rows))
    end = next(chain)
    for row, end in zip(rows, chain, strict=True):
        if row[-1] != end:
            raise damaged(f"event {row[0]} is not as it was saved")
    return end


def damaged(what: str) -> StorageError:
    return StorageError(Problem.DAMAGED, f"it is damaged ({what}); take a backup, or ask its sender for it again")
