"""Old files open for ever: those that were released, and how a file of an older version becomes one of today."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from engine.machine import Images
from engine.memory.library import Library
from engine.scenario import Replay
from storage import container, files, guard, migrations, schema, seal
from storage.content import Content, Note
from storage.errors import Problem, StorageError
from storage.guard import Version
from storage.migrations import Release
from tests.conftest import ROOT
from tests.storage import fixture

KEPT = ROOT / "tests" / "data" / "wscope"


def test_every_released_version_has_a_file() -> None:
    names = {path.stem for path in KEPT.glob("*.wscope")}
    assert names == {f"{major}.{n}" for major, it in migrations.RELEASES.items() for n in (0, *it.added)}
    assert f"{schema.MAJOR}.{schema.MINOR}" in names


def test_a_file_of_version_1_0_is_read_as_it_was_written() -> None:
    opened = files.open_file(str(KEPT / "1.0.wscope"))
    assert opened.content == fixture.document(fixture.DEMO_1_0)
    assert opened.file.version == Version(1, 0)
    assert opened.file.notice == ""
    assert Replay(opened.content.scenario, images()).state(3).effect.walks[0].outcome


def test_a_file_of_version_1_1_has_a_demo_too(tmp_path: Path) -> None:
    opened = files.open_file(str(KEPT / "1.1.wscope"))
    assert opened.content == fixture.document()
    assert opened.file.version == Version(1, 1)


def test_a_table_of_a_later_minor_version_does_not_belong_into_an_older_file(tmp_path: Path) -> None:
    """1.0 has no table of demos: what claims to be 1.0 and has one was tampered with."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(container.pack(fixture.document()))
        connection.execute(f"PRAGMA user_version = {1 << 16}")
        (tmp_path / "a.wscope").write_bytes(connection.serialize())
    with pytest.raises(StorageError, match="it holds other things than a scenario does"):
        files.open_file(str(tmp_path / "a.wscope"))


def test_saving_a_file_of_1_0_makes_it_one_of_today(tmp_path: Path) -> None:
    path = tmp_path / "a.wscope"
    path.write_bytes((KEPT / "1.0.wscope").read_bytes())
    assert files.peek(str(path)).events == len(fixture.EVENTS)
    opened = files.open_file(str(path))
    assert files.save(opened.content, str(path), opened.file).version == Version(schema.MAJOR, schema.MINOR)
    assert files.open_file(str(path)).content == opened.content


def images() -> Images:
    return Library()


# --- version 0, which never was: notes were lines of one text, and pins had no pCPU


OLD = tuple(
    {
        "note": "CREATE TABLE remarks (number INTEGER PRIMARY KEY, lines TEXT NOT NULL) STRICT",
        "pin": "CREATE TABLE pin (number INTEGER PRIMARY KEY, name TEXT NOT NULL, step INTEGER NOT NULL) STRICT",
    }.get(sql.split()[2], sql)
    for sql in migrations.RELEASES[1].create
)


def from_version_0(connection: sqlite3.Connection) -> None:
    ((lines,),) = connection.execute("SELECT lines FROM remarks").fetchall()
    connection.execute("DROP TABLE remarks")
    connection.execute(next(sql for sql in schema.CREATE if sql.startswith("CREATE TABLE note ")))
    connection.executemany("INSERT INTO note VALUES (?, 0, ?)", list(enumerate(lines.splitlines(), 1)))
    connection.execute("ALTER TABLE pin ADD COLUMN pcpu INTEGER")


@pytest.fixture
def version_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of it, and a program that knows how to read it."""
    releases = {0: Release(OLD, from_version_0), **migrations.RELEASES}
    monkeypatch.setattr(migrations, "RELEASES", releases)
    monkeypatch.setattr(container, "RELEASES", releases)
    path = tmp_path / "old.wscope"
    today = container.rows.of_content(
        msgspec.structs.replace(fixture.document(fixture.DEMO_1_0), notes=(), images=(), frames={})
    )
    today["event"] = seal.with_links("event", today["event"])
    today["remarks"] = [(1, "first\nsecond")]
    today["pin"] = [row[:3] for row in today["pin"]]
    del today["note"], today["demo"]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for sql in OLD:
            connection.execute(sql)
        for name, rows in {**today, "seal": seal.seals(today)}.items():
            for row in rows:
                connection.execute(f"INSERT INTO {name} VALUES ({','.join('?' * len(row))})", row)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 7")
        path.write_bytes(connection.serialize())
    return path


def test_an_older_file_is_migrated_on_a_copy(version_0: Path) -> None:
    before = version_0.read_bytes()
    opened = files.open_file(str(version_0))
    expected = msgspec.structs.replace(
        fixture.document(fixture.DEMO_1_0), notes=(Note(0, "first"), Note(0, "second")), images=(), frames={},
        pins=tuple(msgspec.structs.replace(pin, pcpu=None) for pin in fixture.document().pins),
    )  # fmt: skip
    assert opened.content == expected
    assert opened.file.version == Version(0, 7)
    assert version_0.read_bytes() == before


def test_saving_an_older_file_makes_it_one_of_today(version_0: Path) -> None:
    opened = files.open_file(str(version_0))
    files.save(opened.content, str(version_0), opened.file)
    again = files.open_file(str(version_0))
    assert again.content == opened.content
    assert again.file.version == Version(schema.MAJOR, schema.MINOR)


def test_an_older_file_is_guarded_like_any(version_0: Path) -> None:
    """Its schema is that of its version, and its rows are as they were sealed before anything is migrated."""
    data = version_0.read_bytes()
    version_0.write_bytes(data.replace(b"first\nsecond", b"first\nsecret"))
    with pytest.raises(StorageError, match="its table “remarks” is not as it was saved") as caught:
        files.open_file(str(version_0))
    assert caught.value.problem is Problem.DAMAGED
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(data)
        connection.execute("CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event; END")
        version_0.write_bytes(connection.serialize())
    with pytest.raises(StorageError, match="it holds other things than a scenario does"):
        files.open_file(str(version_0))


def test_releases_follow_each_other_up_to_today() -> None:
    assert list(migrations.RELEASES) == list(range(1, schema.MAJOR + 1))
    assert [major for major, release in migrations.RELEASES.items() if release.upgrade is None] == [schema.MAJOR]
    assert migrations.RELEASES[schema.MAJOR].schema(schema.MINOR) == schema.CREATE
    assert max(migrations.RELEASES[schema.MAJOR].added, default=0) == schema.MINOR


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("CREATE TABLE more (name TEXT NOT NULL, value BLOB) STRICT", True),
        ("CREATE TABLE more (name TEXT NOT NULL PRIMARY KEY, n REAL) STRICT, WITHOUT ROWID", True),
        ("CREATE TABLE more (a)", False),
        ("CREATE TABLE more (a INTEGER CHECK (a > 1)) STRICT", False),
        ("CREATE TABLE more (a INTEGER DEFAULT (random())) STRICT", False),
        ("CREATE TABLE more (a INTEGER AS (1)) STRICT", False),
        ("CREATE TABLE more (a INTEGER REFERENCES event) STRICT", False),
        ("CREATE TRIGGER t AFTER INSERT ON event BEGIN SELECT 1; END", False),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", False),
        ("CREATE TABLE more (a INTEGER) STRICT; DROP TABLE event", False),
    ],
)
def test_what_a_minor_version_may_add(sql: str, plain: bool) -> None:
    assert bool(migrations.PLAIN_TABLE.fullmatch(sql)) is plain


def test_version_numbers() -> None:
    assert not Version(schema.MAJOR, schema.MINOR).is_newer
    assert Version(schema.MAJOR, schema.MINOR + 1).is_newer
    assert guard.check_header(container.pack(Content())[:100], len(container.pack(Content()))) == (1, 1)


def test_the_page_on_the_format_is_enough_to_check_a_file() -> None:
    """A reader that knows no more than resources/docs/file-format.md: sqlite3, SHA-256 and MessagePack."""
    page = (ROOT / "resources" / "docs" / "file-format.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    with closing(sqlite3.connect(f"file:{KEPT / '1.1.wscope'}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        assert told.keys() == tables
        seals = {part: (rows, checksum) for part, rows, checksum in connection.execute("SELECT * FROM seal")}
        assert seals.keys() == tables - {"seal"}
        for name in seals:
            cursor = connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2")
            columns = [column[0] for column in cursor.description]
            assert [column for column in re.findall(r"`(\w+)`", told[name]) if column in columns] == columns
            rows = cursor.fetchall()
            link = sha256(b"walkscope " + name.encode()).digest()
            for row in rows:
                if name == "event":
                    *row, checksum = row
                link = sha256(link + msgspec.msgpack.encode(row)).digest()
                assert name != "event" or link == checksum
            assert seals[name] == (len(rows), link)
