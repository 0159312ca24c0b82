"""What is saved is what is opened, exactly: documents made at random, and those that are hard on purpose."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.demo import Demo, Stop
from engine.scenario import Scenario
from storage import container, files, guard, images, schema
from storage.content import Bookmark, Content, ImageFile, Note, Pin
from storage.errors import Problem, StorageError
from tests.storage import strategies


@given(strategies.contents)
def test_a_document_survives_packing(content: Content) -> None:
    inside = images.relative(content, strategies.FOLDER)
    opened, version = container.unpack(container.pack(inside))
    assert images.resolved(opened, strategies.FOLDER) == images.resolved(content, strategies.FOLDER)
    assert version == (schema.MAJOR, schema.MINOR)


@given(strategies.scenarios)
def test_a_scenario_survives_json(scenario: Scenario) -> None:
    assert strategies.as_json(scenario) == scenario


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(strategies.contents, st.sampled_from(["a.wscope", "\udcff.wscope", "a file, “quoted”.wscope", "x" * 255]))
def test_a_document_survives_the_disk(tmp_path: Path, content: Content, name: str) -> None:
    path = str(tmp_path / name)
    saved = files.save(content, path)
    opened = files.open_file(path)
    os.unlink(path)
    assert opened.content == images.resolved(content, str(tmp_path))
    assert opened.file == saved
    assert os.listdir(tmp_path) == []


@given(strategies.contents)
def test_the_same_document_is_the_same_bytes(content: Content) -> None:
    assert container.pack(content) == container.pack(msgspec.structs.replace(content))


def test_numbers_of_64_bits_are_kept_whole(tmp_path: Path) -> None:
    values = (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    content = Content(
        Scenario(events=tuple(ev.Poke(address=8, value=value) for value in values)),
        bookmarks=tuple(Bookmark(hex(value), 0, value) for value in values),
    )
    path = str(tmp_path / "numbers.wscope")
    files.save(content, path)
    assert files.open_file(path).content == content


def test_relative_paths_follow_the_file(tmp_path: Path) -> None:
    """The folder with scenario and image is moved, and the scenario names the image in its new place."""
    (tmp_path / "before").mkdir()
    old, new = str(tmp_path / "before" / "x.core"), str(tmp_path / "after" / "x.core")
    content = Content(Scenario(events=(ev.OpenImage(ev.ImageRef(old)),)), images=(ImageFile(old),))
    files.save(content, str(tmp_path / "before" / "a.wscope"))
    assert str(tmp_path).encode() not in (tmp_path / "before" / "a.wscope").read_bytes()
    (tmp_path / "before").rename(tmp_path / "after")
    opened = files.open_file(str(tmp_path / "after" / "a.wscope")).content
    assert images.paths(opened) == {new}
    assert opened.images[0].path == new


def test_a_file_is_known_by_its_header(tmp_path: Path) -> None:
    files.save(Content(), str(tmp_path / "a.wscope"))
    head = (tmp_path / "a.wscope").read_bytes()[:100]
    assert head.startswith(b"SQLite format 3\0")
    assert head[68:72] == b"WScp"
    assert head[60:64] == bytes([0, 1, 0, 1])  # user_version: major, minor, of 16 bits each


def test_the_tables_are_what_was_released() -> None:
    """The row types, from which SQLAlchemy's tables follow, say the same as the frozen statements."""
    with sqlite3.connect(":memory:") as connection:
        for statement in schema.CREATE:
            connection.execute(statement)
        for name, table in schema.TABLES.items():
            found = connection.execute(f"PRAGMA table_info({name})").fetchall()
            expected = [
                (column.name, {"INTEGER": "INTEGER", "TEXT": "TEXT", "BLOB": "BLOB"}[str(column.type)])
                for column in table.columns
            ]
            assert [(column[1], column[2]) for column in found] == expected
            keys = tuple(column[1] for column in sorted(found, key=lambda column: column[5]) if column[5])
            assert keys == tuple(column.name for column in table.primary_key)
            required = {column[1] for column in found if column[3]}
            # An INTEGER PRIMARY KEY cannot be NULL, though it does not say so.
            assert required | {"number"} >= {column.name for column in table.columns if not column.nullable} >= required


def test_the_row_types_cover_every_table() -> None:
    assert [sql.split()[2] for sql in schema.CREATE] == list(schema.ROWS)
    assert len(guard._HEADER.unpack(bytes(guard.HEADER_SIZE))) == 22


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (Content(notes=(Note(1, "x" * (schema.MAX_TEXT + 1)),)), "note"),
        (Content(pins=(Pin("x" * 1025, 1),)), "pin"),
        (Content(Scenario(demo=Demo(stops=(Stop(schema.MAX_ROWS + 1),)))), "narration"),
        (Content(view_state={"x": "y" * schema.MAX_TEXT}), "view state"),
        (Content(thumbnail=strategies.PNG + bytes(schema.MAX_THUMBNAIL)), "thumbnail"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_opened_again_is_not_saved(tmp_path: Path, content: Content, what: str) -> None:
    path = str(tmp_path / "a.wscope")
    before = files.save(Content(), path)
    with pytest.raises(StorageError, match=f"cannot be saved, because of a {what} in it") as caught:
        files.save(content, path, before)
    assert caught.value.problem is Problem.TOO_LARGE
    assert files.status(before) is None


def test_text_that_no_file_can_hold_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        Note(1, "\ud800")
