"""What was not saved when a program died: found, told, and recovered, copied or discarded, as somebody says."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from engine import events as ev
from engine.edits import Insert
from engine.scenario import Scenario
from storage import files, recovery
from storage.content import Content, Note
from storage.errors import StorageError
from storage.recovery import Lost, Session, Situation
from tests.storage.strategies import PNG

EVENTS = tuple(ev.Poke(8 * n, n) for n in range(10))


def document(length: int) -> Content:
    return Content(Scenario(events=EVENTS[:length]))


def edited(session: Session, first: int, last: int) -> Content:
    """The document after insertions that ``session`` recorded."""
    for n in range(first, last):
        session.record(document(n + 1), f"Poke {n}", Insert(n, EVENTS[n]))
    return document(last)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def die(session: Session, state: Path) -> Path:
    """The state folder as it is when the program of ``session`` dies now."""
    after = state.with_name(f"{state.name}-after")
    shutil.copytree(state, after)
    session.discard()
    return after


def found(state: Path) -> Lost:
    (lost,) = recovery.find(state)
    return lost


def test_nothing_is_lost_of_what_was_saved_though_the_picture_is_a_new_one(state: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "a.wscope")
    file = files.save(document(1), path)
    session = recovery.begin(state, document(1), file)
    content = edited(session, 1, 3)
    files.save(msgspec.structs.replace(content, thumbnail=PNG), path, file)
    assert recovery.find(die(session, state)) == []


def test_a_new_document_is_told_with_what_was_done_and_when(state: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    session = recovery.begin(state, Content())
    content = edited(session, 0, 3)
    lost = found(die(session, state))
    assert (lost.path, lost.situation, lost.problem) == ("", Situation.UNTITLED, "")
    assert [entry.text for entry in lost.entries] == ["Poke 0", "Poke 1", "Poke 2"]
    assert all(before < entry.at <= datetime.now(UTC) for entry in lost.entries)
    assert lost.content == content
    lost.discard()


def test_a_file_that_is_as_it_was(state: Path, tmp_path: Path) -> None:
    file = files.save(document(2), str(tmp_path / "a.wscope"))
    session = recovery.begin(state, document(2), file)
    edited(session, 2, 4)
    lost = found(die(session, state))
    assert (lost.path, lost.situation) == (file.path, Situation.AS_IT_WAS)
    session, content = lost.resume()
    assert content == document(4)
    session.saved(content, files.save(content, lost.path, file))
    session.close()
    assert recovery.find(state.with_name("state-after")) == []


@pytest.mark.parametrize(
    ("happen", "situation"),
    [
        (lambda path: files.save(document(9), path), Situation.CHANGED),
        (os.unlink, Situation.ABSENT),
        (lambda path: Path(path).write_bytes(b"garbage"), Situation.ABSENT),
    ],
    ids=["changed", "removed", "destroyed"],
)
def test_a_file_that_is_not(
    state: Path, tmp_path: Path, happen: Callable[[str], object], situation: Situation
) -> None:
    """Everything needed is in the store: nothing of the file."""
    file = files.save(document(2), str(tmp_path / "a.wscope"))
    session = recovery.begin(state, document(2), file)
    edited(session, 2, 4)
    happen(file.path)
    lost = found(die(session, state))
    assert lost.situation is situation
    assert lost.content == document(4)
    copy = files.save(lost.content, str(tmp_path / "copy.wscope"))
    lost.discard()
    assert files.open_file(copy.path).content == document(4)


def test_what_is_to_be_decided_later_is_offered_again(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    after = die(session, state)
    for _ in range(3):
        found(after).release()
    found(after).discard()
    assert list(after.iterdir()) == []


def test_what_one_window_offers_no_other_offers(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    after = die(session, state)
    lost = found(after)
    assert recovery.find(after) == []
    session, _ = lost.resume()
    assert recovery.find(after) == []
    session.discard()


def test_a_second_crash_loses_no_more(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 2)
    session, _ = found(die(session, state)).resume()
    assert len(session.unsaved) == 2
    edited(session, 2, 5)
    session.record(Content(document(5).scenario, notes=(Note(1, "!"),)), "A note")
    lost = found(die(session, state.with_name("state-after")))
    assert lost.content == Content(document(5).scenario, notes=(Note(1, "!"),))
    assert [entry.text for entry in lost.entries] == [*(f"Poke {n}" for n in range(5)), "A note"]
    lost.discard()


def test_a_living_session_is_not_offered(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    assert recovery.find(state) == []
    session.discard()


def test_edits_go_on_while_a_save_is_under_way(state: Path, tmp_path: Path) -> None:
    session = recovery.begin(state, Content())
    saved = edited(session, 0, 3)
    done = len(session.unsaved)
    edited(session, 3, 5)
    session.record(Content(document(5).scenario, notes=(Note(1, "!"),)), "A note")
    latest = Content(document(6).scenario, notes=(Note(1, "!"),))
    session.record(latest, "Poke 5", Insert(5, EVENTS[5]))
    session.saved(saved, files.save(saved, str(tmp_path / "a.wscope")), done)
    assert [entry.text for entry in session.unsaved] == ["Poke 3", "Poke 4", "A note", "Poke 5"]
    session.record(Content(document(7).scenario, notes=latest.notes), "Poke 6", Insert(6, EVENTS[6]))
    lost = found(die(session, state))
    assert (lost.situation, lost.problem) == (Situation.AS_IT_WAS, "")
    assert [entry.text for entry in lost.entries] == ["Poke 3", "Poke 4", "A note", "Poke 5", "Poke 6"]
    assert lost.content == Content(document(7).scenario, notes=latest.notes)
    lost.discard()


def test_a_save_in_another_thread_loses_no_edit(state: Path, tmp_path: Path) -> None:
    session = recovery.begin(state, Content())
    content, path = Content(), str(tmp_path / "a.wscope")
    for n, event in enumerate(EVENTS):
        done, taken = len(session.unsaved), content
        saving = threading.Thread(target=lambda c=taken, d=done: session.saved(c, files.save(c, path), d))  # type: ignore[misc]
        saving.start()
        content = document(n + 1)
        session.record(content, f"Poke {n}", Insert(n, event))
        saving.join()
    lost = found(die(session, state))
    assert lost.content == document(10)
    assert [entry.text for entry in lost.entries] == ["Poke 9"]
    lost.discard()


def test_closing_keeps_what_is_unsaved_unless_it_is_discarded(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    session.close()
    found(state).discard()
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    session.discard()
    assert list(state.iterdir()) == []


def test_where_nothing_is_unsaved_nothing_stays(state: Path, tmp_path: Path) -> None:
    """Nothing was done; or it was undone; or saved, and the program died before it could note that."""
    file = files.save(document(1), str(tmp_path / "a.wscope"))
    idle = recovery.begin(state, document(1), file)
    assert recovery.find(die(idle, state)) == []
    undone = recovery.begin(state, document(1), file)
    undone.record(document(2), "Poke", Insert(1, EVENTS[1]))
    undone.record(document(1), "Undo: Poke")
    shutil.rmtree(state.with_name("state-after"))
    assert recovery.find(die(undone, state)) == []
    saved = recovery.begin(state, document(1), file)
    content = edited(saved, 1, 3)
    files.save(content, file.path, file)
    shutil.rmtree(state.with_name("state-after"))
    after = die(saved, state)
    assert recovery.find(after) == []
    assert list(after.iterdir()) == []


def test_a_session_that_died_before_it_began_leaves_nothing_to_ask(state: Path) -> None:
    state.mkdir()
    (state / "20250101-120000-00000000.lock").touch()
    (state / "20250101-120001-00000000.lock").touch()
    (state / "20250101-120001-00000000.sqlite").touch()
    (state / "20250101-120002-00000000.sqlite").touch()
    (state / "something else").touch()
    assert recovery.find(state) == []
    assert [path.name for path in state.iterdir()] == ["something else"]


def test_a_folder_that_cannot_be_looked_through_is_a_sentence(state: Path) -> None:
    state.touch()
    with pytest.raises(StorageError, match=r"^state: "):
        recovery.find(state)


def store(state: Path) -> Path:
    (path,) = state.glob("*.sqlite")
    return path


def test_a_store_that_cannot_be_read_is_kept_and_told(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    after = die(session, state)
    store(after).write_bytes(b"garbage" * 1000)
    next(after.glob("*-wal")).unlink()
    lost = found(after)
    assert lost.content is None
    assert lost.problem == f"Unsaved work in {store(after)} cannot be read, because it is damaged; it is kept."
    lost.release()
    assert store(after).read_bytes() == b"garbage" * 1000
    found(after).discard()
    assert list(after.iterdir()) == []


def test_a_store_of_another_version_is_kept(state: Path) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 1)
    after = die(session, state)
    change(after, "PRAGMA user_version = 2")
    lost = found(after)
    assert "another version of Walkscope made it; start that one" in lost.problem
    lost.release()


def change(state: Path, sql: str) -> None:
    with closing(sqlite3.connect(store(state))) as connection, connection:
        connection.execute(sql)


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        ("UPDATE entry SET edit = replace(edit, '0x18', '0x10') WHERE number = 5", 3),
        ("UPDATE entry SET text = 'Nothing' WHERE number = 3", 1),
        ("DELETE FROM entry WHERE number = 4", 2),
    ],
)
def test_of_a_store_that_is_damaged_the_first_part_is_recovered(state: Path, damage: str, first: int) -> None:
    session = recovery.begin(state, Content())
    edited(session, 0, 6)
    after = die(session, state)
    change(after, damage)
    lost = found(after)
    assert lost.problem.startswith(f"Of {5 if 'DELETE' in damage else 6} edits only the first {first} could be read")
    assert len(lost.entries) == first
    assert lost.content == document(first)
    session, content = lost.resume()
    edited(session, first, 8)
    assert content == document(first)
    # The damaged store is still there, and what was recovered is in a store of its own.
    assert store_count(after) == 2
    again = found(after)
    assert again.problem
    again.discard()
    session.discard()
    assert store_count(after) == 0


def store_count(state: Path) -> int:
    return len(list(state.glob("*.sqlite")))


def test_only_the_last_whole_document_takes_room(state: Path) -> None:
    session = recovery.begin(state, Content())
    for n in range(20):
        session.record(Content(notes=(Note(0, "x" * 100_000 + str(n)),)), "A note")
    after = die(session, state)
    change(after, "VACUUM")
    assert store(after).stat().st_size < 500_000
    lost = found(after)
    assert len(lost.entries) == 20
    assert lost.content == Content(notes=(Note(0, "x" * 100_000 + "19"),))
    lost.discard()


def test_stores_are_nobody_elses(state: Path) -> None:
    session = recovery.begin(state, Content())
    assert state.stat().st_mode & 0o077 == 0
    session.close()


def test_the_state_folder_is_where_the_desktop_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert recovery.default_folder() == Path("/var/state/walkscope/recovery")
    monkeypatch.setenv("XDG_STATE_HOME", "not absolute")
    assert recovery.default_folder() == Path.home() / ".local/state/walkscope/recovery"
