"""A document to the bytes of its file and back. No file is touched here."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import msgspec
from sqlalchemy import Connection, MetaData, Table, create_engine, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from storage import guard, rows, schema, seal
from storage.content import Content
from storage.errors import Problem, StorageError
from storage.guard import Version
from storage.migrations import RELEASES
from storage.seal import Rows


class Peek(msgspec.Struct, frozen=True):
    """What a list of files shows of one. ``thumbnail``: a PNG, or nothing."""

    events: int
    thumbnail: bytes


def pack(content: Content) -> bytes:
    """The bytes of a file; the same for the same content. Raises StorageError where something in it is too large."""
    tables = rows.of_content(content)
    tables["event"] = seal.with_links("event", tables["event"])
    tables["seal"] = seal.seals(tables)
    rows.check(tables)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {schema.MAJOR << 16 | schema.MINOR}")
        for statement in schema.CREATE:
            connection.execute(statement)
        with core(connection) as run, run.begin():
            for name, found in tables.items():
                _insert(run, schema.TABLES[name], found)
        data: bytes = connection.serialize()
    if len(data) > schema.MAX_FILE:
        raise StorageError(Problem.TOO_LARGE, f"it would have {len(data) >> 20:,} MiB; embed fewer frames")
    return data


def unpack(data: bytes) -> tuple[Content, Version]:
    """The document in the bytes of a file, and their version. Raises StorageError for all that is amiss."""
    with _damage(), _opened(data) as (connection, version):
        with core(connection) as run:
            tables = read_tables(run, schema.TABLES.values())
        sealed = rows.typed("seal", tables.pop("seal"))
        seal.verify(tables, sealed)
        return rows.to_content(tables, version), version


def peek(data: bytes) -> Peek:
    """A file's thumbnail and number of events. Raises StorageError as `unpack` does, if not for everything."""
    with _damage(), _opened(data) as (connection, _):
        with core(connection) as run:
            tables = read_tables(run, [schema.TABLES["thumbnail"], schema.TABLES["seal"]])
        sealed = rows.typed("seal", tables.pop("seal"))
        seal.verify(tables, sealed)
        events = next((row.rows for row in sealed if row.part == "event"), 0)
        return Peek(events, rows.thumbnail(rows.typed("thumbnail", tables["thumbnail"])))


@contextmanager
def core(connection: sqlite3.Connection) -> Iterator[Connection]:
    """SQLAlchemy's way of talking to a connection that stays ours."""
    with create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool).connect() as run:
        yield run


def read_tables(run: Connection, tables: Iterable[Table]) -> dict[str, Rows]:
    return {
        table.name: [tuple(row) for row in run.execute(select(table).order_by(*table.primary_key))] for table in tables
    }


def _insert(run: Connection, table: Table, found: Rows) -> None:
    if found:
        names = table.columns.keys()
        run.execute(insert(table), [dict(zip(names, row, strict=True)) for row in found])


@contextmanager
def _damage() -> Iterator[None]:
    """What SQLite says of bytes that passed the guard, but not all the way, is that they are damaged."""
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, UnicodeDecodeError, OverflowError) as error:
        raise seal.damaged("SQLite cannot read it") from error


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[sqlite3.Connection, Version]]:
    """The database in ``data``, in the schema of today."""
    connection, version = guard.open_bytes(data)
    with closing(connection):
        if version >= (schema.MAJOR, schema.MINOR):
            yield connection, version
        else:
            with closing(_upgraded(connection, version.major)) as current:
                yield current, version


def _upgraded(old: sqlite3.Connection, major: int) -> sqlite3.Connection:
    """A copy of an older file's database in today's schema: its seals verified, migrated step by step, sealed anew.

    Tables that it cannot have, since a minor version brought them, are made: they are empty.
    """
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        old.backup(copy)
        with core(copy) as run:
            metadata = MetaData()
            metadata.reflect(run)
            tables = read_tables(run, metadata.tables.values())
        sealed = [schema.SealRow(*row) for row in tables.pop("seal")]
        seal.verify(tables, sealed)
        while (step := RELEASES[major].upgrade) is not None:
            step(copy)
            major += 1
        there = {name for (name,) in copy.execute("SELECT name FROM sqlite_schema")}
        for statement in schema.CREATE:
            if statement.split()[2] not in there:
                copy.execute(statement)
        with core(copy) as run, run.begin():
            tables = read_tables(run, (table for name, table in schema.TABLES.items() if name != "seal"))
            tables["event"] = seal.with_links("event", [row[:-1] for row in tables["event"]])
            for name in ("event", "seal"):
                run.execute(schema.TABLES[name].delete())
            _insert(run, schema.TABLES["event"], tables["event"])
            _insert(run, schema.TABLES["seal"], seal.seals(tables))
    except BaseException:
        copy.close()
        raise
    return copy
