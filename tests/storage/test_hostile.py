"""Files that are damaged, or that somebody made to do harm: the right scenario or one sentence, at once."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import InputError
from storage import container, files, guard
from storage.content import Content
from storage.errors import Problem, StorageError
from tests.conftest import scaled
from tests.mutants import verdicts
from tests.storage import hostile
from tests.storage.hostile import mutant


def test_mutated_files_give_the_right_scenario_or_a_sentence(tmp_path: Path) -> None:
    total = scaled(5000)
    found = verdicts("tests.storage.hostile", total, tmp_path)
    assert [verdict["seed"] for verdict in found] == list(range(total))
    for verdict in found:
        outcome = verdict["outcome"]
        if outcome != "opened":
            assert outcome.startswith(("mutant.wscope: ", "a.core: ")), verdict
            assert outcome.endswith("."), verdict
            assert "\n" not in outcome, verdict
            assert ". " not in outcome, verdict
            assert len(outcome) < 500, verdict
        assert verdict["seconds"] < 1, verdict
    opened = sum(verdict["outcome"] == "opened" for verdict in found)
    assert total // 20 < opened < total // 2, "the mutations should leave some files whole, and not too many"


def test_a_mutant_is_the_same_whenever_it_is_made() -> None:
    assert all(mutant(seed) == mutant(seed) for seed in range(10))


def made(*statements: str) -> bytes:
    """An empty scenario after somebody changed it with SQL."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(container.pack(Content()))
        connection.executescript(";".join(statements))
        return connection.serialize()


@pytest.mark.parametrize("sql", hostile.SCHEMAS)
def test_no_other_schema_is_opened(sql: str) -> None:
    with pytest.raises(StorageError):
        container.unpack(made(sql))


@pytest.mark.parametrize(
    "table",
    ["CREATE TABLE future (name TEXT NOT NULL, value BLOB) STRICT", "CREATE TABLE f (a INTEGER PRIMARY KEY) STRICT"],
)
def test_a_newer_minor_version_may_bring_plain_tables(tmp_path: Path, table: str) -> None:
    path = tmp_path / "a.wscope"
    path.write_bytes(made(table, "PRAGMA user_version = 65539"))
    opened = files.open_file(str(path))
    assert opened.content == Content()
    assert opened.file.version == (1, 3)
    assert "was saved by a newer Walkscope" in opened.file.notice
    with pytest.raises(StorageError, match="would lose what it does not know") as caught:
        files.save(Content(), str(path), opened.file)
    assert caught.value.problem is Problem.TOO_NEW
    assert files.save(Content(), str(tmp_path / "copy.wscope")).notice == ""


def test_a_newer_major_version_is_refused_by_name() -> None:
    with pytest.raises(StorageError, match=r"in version 2\.5 of the file format") as caught:
        container.unpack(made("PRAGMA user_version = 131077"))
    assert caught.value.problem is Problem.TOO_NEW


def test_only_our_tables_can_be_read_once_the_guard_has_let_a_file_in() -> None:
    connection, _ = guard.open_bytes(container.pack(Content()))
    with closing(connection):
        assert connection.execute("SELECT number FROM scenario").fetchall() == [(1,)]
        for sql in (
            "SELECT * FROM sqlite_schema", "SELECT hex(zeroblob(10)) FROM scenario", "DELETE FROM event",
            "ATTACH ':memory:' AS x", "PRAGMA query_only = OFF", "CREATE TABLE x (a)",
        ):  # fmt: skip
            with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
                connection.execute(sql)


def test_a_file_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.0)
    monkeypatch.setattr(guard, "BYTES_A_SECOND", 1 << 40)
    monkeypatch.setattr(guard, "_STEPS", 1)
    start = time.monotonic()
    with pytest.raises(StorageError, match="SQLite cannot read it"):
        container.unpack(hostile.originals()[0])
    assert time.monotonic() - start < 1


def test_a_number_that_changed_within_a_page_is_noticed() -> None:
    """SQLite finds nothing wrong with it."""
    data = hostile.originals()[0]
    at = data.index(b'"address":"0x') + len(b'"address":"0x')
    changed = data[:at] + (b"7" if data[at : at + 1] != b"7" else b"6") + data[at + 1 :]
    with pytest.raises(InputError, match=r"it is damaged \(event \d+ is not as it was saved\)"):
        container.unpack(changed)
