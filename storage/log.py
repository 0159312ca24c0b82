"""The store of one session: the document as it was saved last, and every edit since, each durable at once.

An SQLite file in WAL mode; a commit is on the disk when it returns. Entry 1 is the document as it was opened or saved.
Any other entry is an edit, or the whole document where something else than events changed: of those only the last is
kept. A chain of checksums runs over the entries as in a scenario file; whole documents carry their own.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    insert,
    null,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from engine import codec
from engine.edits import Edit
from engine.errors import InputError
from storage import container, seal
from storage.content import Content
from storage.errors import Problem, StorageError, of_os, of_sqlite
from storage.rows import path_of_text, text_of_path

APPLICATION_ID = int.from_bytes(b"WScr", "big")
VERSION = 1
CREATE = (
    "CREATE TABLE session (number INTEGER PRIMARY KEY, path TEXT NOT NULL, sha256 BLOB) STRICT",
    "CREATE TABLE entry (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, text TEXT NOT NULL, edit TEXT,"
    " checksum BLOB NOT NULL, snapshot BLOB) STRICT",
)
_PRAGMAS = ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF")

_metadata = MetaData()
SESSION = Table(
    "session", _metadata,
    Column("number", Integer, primary_key=True), Column("path", Text), Column("sha256", LargeBinary),
)  # fmt: skip
ENTRY = Table(
    "entry", _metadata,
    Column("number", Integer, primary_key=True), Column("at", Integer), Column("text", Text), Column("edit", Text),
    Column("checksum", LargeBinary), Column("snapshot", LargeBinary),
)  # fmt: skip


class _Row(NamedTuple):
    number: int
    at: int
    text: str
    edit: str | None


class Entry(msgspec.Struct, frozen=True):
    """Something that was done: when, and what in words."""

    at: datetime
    text: str


class Logged(msgspec.Struct, frozen=True):
    """What a store holds. ``path`` ('': none yet) and ``sha256`` (None) are of the file as it was opened or saved.

    ``problem``: a sentence where only the first of the entries could be read; '' where all were.
    """

    path: str
    sha256: bytes | None
    base: Content
    content: Content
    entries: tuple[Entry, ...]
    problem: str


class Log:
    """May be used from any thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._engine: Engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
        self._lock = Lock()
        self._rows: list[_Row] = []  # without entry 1
        self._link = b""
        self._is_whole = True

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All since the document was opened or saved."""
        return tuple(map(_entry, self._rows))

    @classmethod
    def create(cls, path: str) -> Log:
        with keeping():
            connection = _connect(path)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                for statement in CREATE:
                    connection.execute(statement)
                connection.commit()
            except BaseException:
                connection.close()
                raise
        return cls(connection)

    @classmethod
    def reopen(cls, path: str) -> tuple[Log, Logged | None]:
        """The store that a session left behind; None where it died before it had anything to keep.

        Raises StorageError where something is in it that cannot be read.
        """
        with _reading():
            connection = _connect(path)
            try:
                log = cls(connection)
                return log, log._read() if log._has_entries() else None
            except BaseException:
                connection.close()
                raise

    def restart(self, content: Content, path: str, sha256: bytes | None, done: int | None = None) -> None:
        """``content`` is what the file at ``path`` holds, or a new document.

        The first ``done`` entries (None: all) have led to it, and need not be kept.
        """
        snapshot = container.pack(content)
        with self._lock:
            later = self._rows[done:] if done is not None else []
            rows = [_Row(1, _now(), "", None), *(row._replace(number=n) for n, row in enumerate(later, 2))]
            _, *links = seal.links("entry", rows)
            with keeping(), self._engine.begin() as run:
                snapshots = dict(iter(run.execute(select(ENTRY.c.number, ENTRY.c.snapshot))))
                kept = [snapshot, *(snapshots[row.number] for row in later)]
                run.execute(delete(SESSION))
                run.execute(insert(SESSION), {"number": 1, "path": text_of_path(path), "sha256": sha256})
                run.execute(delete(ENTRY))
                run.execute(insert(ENTRY), list(map(_values, rows, links, kept)))
            self._rows, self._link, self._is_whole = rows[1:], links[-1], self._is_whole or not later

    def append(self, content: Content, text: str, edit: Edit | None) -> None:
        with self._lock:
            body = codec.encode_edit(edit).decode() if edit is not None and self._is_whole else None
            snapshot = container.pack(content) if body is None else None
            row = _Row(len(self._rows) + 2, _now(), text, body)
            link = seal.next_link(self._link, row)
            self._is_whole = False  # until it is certain
            with keeping(), self._engine.begin() as run:
                if snapshot is not None:
                    older = ENTRY.c.snapshot.is_not(null()) & (ENTRY.c.number > 1)
                    run.execute(update(ENTRY).where(older).values(snapshot=None))
                run.execute(insert(ENTRY), _values(row, link, snapshot))
            self._rows.append(row)
            self._link, self._is_whole = link, True

    def close(self) -> None:
        self._connection.close()

    def _has_entries(self) -> bool:
        if self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            return False
        mark = [self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if mark != [APPLICATION_ID, VERSION]:
            raise StorageError(Problem.TOO_NEW, "another version of Walkscope made it; start that one")
        with self._engine.connect() as run:
            return run.execute(select(ENTRY.c.number)).first() is not None

    def _read(self) -> Logged:
        """What is in the store, as far as it is whole; the log goes on from there."""
        with self._engine.connect() as run:
            session = run.execute(select(SESSION)).one()
            found = run.execute(select(ENTRY).order_by(ENTRY.c.number)).all()
        rows = list(self._whole_ones(found))
        if not rows:
            raise StorageError(Problem.DAMAGED, "it is damaged")
        base = container.unpack(found[0].snapshot)[0]
        content, count = _replay(base, rows, [row.snapshot for row in found])
        self._rows = rows[1:]
        problem = ""
        if count < len(found):
            problem = f"Of {len(found) - 1} edits only the first {count - 1} could be read; the store is damaged."
        return Logged(path_of_text(session.path), session.sha256, base, content, self.entries[: count - 1], problem)

    def _whole_ones(self, found: Sequence[Any]) -> Iterator[_Row]:
        """The entries up to the first that is not as it was written."""
        self._link = seal.first_link("entry")
        for number, entry in enumerate(found, 1):
            row = _Row(entry.number, entry.at, entry.text, entry.edit)
            link = seal.next_link(self._link, row)
            if (entry.number, entry.checksum) != (number, link):
                return
            self._link = link
            yield row


def _replay(base: Content, rows: list[_Row], snapshots: list[bytes | None]) -> tuple[Content, int]:
    """The document after as many of the entries as can be told, and how many these are (with the first)."""
    start = max(n for n in range(len(rows)) if snapshots[n] is not None)
    content = base if start == 0 else container.unpack(snapshots[start] or b"")[0]
    for number, row in enumerate(rows[start + 1 :], start + 1):
        try:
            edit = codec.decode_edit((row.edit or "").encode())
            scenario = edit.apply(content.scenario)
        except InputError:
            return content, number
        content = msgspec.structs.replace(content, scenario=scenario)
    return content, len(rows)


def _values(row: _Row, link: bytes, snapshot: bytes | None) -> dict[str, Any]:
    return {**row._asdict(), "checksum": link, "snapshot": snapshot}


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _entry(row: _Row) -> Entry:
    return Entry(datetime.fromtimestamp(row.at / 1000, UTC), row.text)


@contextmanager
def keeping() -> Iterator[None]:
    """Says of whatever goes wrong inside what it means: an edit is not kept."""
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError, StorageError) as error:
        found = _understood(error)
        reason = str(found).partition(";")[0]
        raise StorageError(
            found.problem, f"What is not saved is not kept for recovery either, because {reason}; save soon."
        ) from error


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, OverflowError, UnicodeDecodeError) as error:
        raise _understood(error) from error


def _understood(error: Exception) -> StorageError:
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        error = error.orig
    if isinstance(error, StorageError):
        return error
    if isinstance(error, sqlite3.Error):
        return of_sqlite(error)
    if isinstance(error, OSError):
        return of_os(error, writing=True)
    return StorageError(Problem.DAMAGED, "it is damaged")
