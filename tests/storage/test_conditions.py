"""What other programs, disks and people do to a file: each in the real condition, with a sentence and a way on."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from engine import events as ev
from engine.scenario import Scenario
from storage import disk, files, recovery
from storage.content import Content
from storage.errors import Problem, StorageError

OLD = Content(Scenario(events=(ev.Poke(8, 1),)))
NEW = Content(Scenario(events=(ev.Poke(8, 2),)))
NOBODY = 65_534


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PATIENCE", 0.1)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.wscope")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KiB: room for a file of 52 KiB and its next version, and not for much more."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@contextmanager
def somebody() -> Iterator[None]:
    """Not root, for whom permissions mean nothing."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def refused(problem: Problem, act: object, *arguments: object) -> str:
    """The sentence that ``act`` is refused with."""
    with pytest.raises(StorageError) as caught:
        act(*arguments)  # type: ignore[operator]
    assert caught.value.problem is problem
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert "; " in sentence, "it should say what to do"
    return sentence


# --- the disk


def test_full_disk(small_disk: Path) -> None:
    file = files.save(OLD, str(small_disk / "a.wscope"))
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(1 << 20))
    assert "the disk is full" in refused(Problem.FULL, files.save, NEW, file.path, file)
    assert sorted(os.listdir(small_disk)) == ["a.wscope", "filler"]
    assert files.open_file(file.path) == files.Opened(OLD, file)
    filler.unlink()
    assert files.open_file(files.save(NEW, file.path, file).path).content == NEW


def test_full_disk_under_the_recovery_store(small_disk: Path) -> None:
    """What cannot be kept is said; once there is room, the next edit keeps everything."""
    session = recovery.begin(small_disk, Content())
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(1 << 20))
    assert "because the disk is full; save soon" in refused(Problem.FULL, session.record, OLD, "first")
    (small_disk / "filler").unlink()
    session.record(NEW, "second")
    session._log.close()
    session._claim.release()
    (lost,) = recovery.find(small_disk)
    assert lost.content == NEW
    lost.discard()


def test_quota_of_a_file(path: str) -> None:
    """A limit on the size of files is a full disk."""
    program = (
        "import resource, sys; from storage import files; from storage.content import Content\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: files.save(Content(), sys.argv[1])\n"
        "except files.StorageError as error: print(error.problem.name)"
    )
    command = [sys.executable, "-c", program, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("FULL\n", "")
    assert os.listdir(os.path.dirname(path)) == []


def test_disk_that_can_only_be_read(small_disk: Path) -> None:
    file = files.save(OLD, str(small_disk / "a.wscope"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert files.open_file(file.path).content == OLD
    assert "only be read" in refused(Problem.READ_ONLY, files.save, NEW, file.path, file)
    assert "this disk can only be read" in refused(Problem.READ_ONLY, files.save, NEW, str(small_disk / "b.wscope"))
    refused(Problem.READ_ONLY, recovery.begin, small_disk, Content())


def test_file_that_may_only_be_read(path: str) -> None:
    file = files.save(OLD, path)
    os.chmod(path, 0o444)
    os.chmod(os.path.dirname(path), 0o777)
    open_up(path)
    with somebody():
        assert files.open_file(path).content == OLD
        assert "may only be read; save it under another name" in refused(Problem.READ_ONLY, files.save, NEW, path, file)
        assert files.open_file(files.save(NEW, f"{path}-copy").path).content == NEW


def test_folder_that_may_not_be_written(path: str) -> None:
    file = files.save(OLD, path)
    os.chmod(path, 0o666)
    os.chmod(os.path.dirname(path), 0o555)
    open_up(path)
    with somebody():
        assert "you may not write here" in refused(Problem.DENIED, files.save, NEW, path, file)
        refused(Problem.DENIED, recovery.begin, Path(path).parent / "state", Content())
    os.chmod(os.path.dirname(path), 0o700)


def test_file_that_may_not_be_read(path: str) -> None:
    files.save(OLD, path)
    os.chmod(path, 0)
    open_up(path)
    with somebody():
        assert "you may not read this file" in refused(Problem.DENIED, files.open_file, path)


def open_up(path: str) -> None:
    """Lets others pass the folders that pytest made for us alone."""
    for folder in Path(path).parents:
        if folder.name.startswith(("pytest-", "test_")) and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)


# --- other programs


@contextmanager
def locked_by_another(path: str) -> Iterator[None]:
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.communicate()


def test_file_that_another_program_has_locked(path: str) -> None:
    file = files.save(OLD, path)
    with locked_by_another(path):
        assert "another program is using it; try again" in refused(Problem.BUSY, files.open_file, path)
        refused(Problem.BUSY, files.save, NEW, path, file)
    assert files.open_file(path).content == OLD
    files.save(NEW, path, file)


def test_file_that_another_program_wrote_with_sqlite(path: str) -> None:
    """Its pages are as SQLite likes them; what was changed does not carry our checksums."""
    file = files.save(OLD, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE event SET body = replace(body, '0x1', '0x3')")
    assert files.status(file) is Problem.CHANGED
    assert "event 1 is not as it was saved" in refused(Problem.DAMAGED, files.open_file, path)


def test_file_that_is_read_while_another_program_uses_its_journal(path: str) -> None:
    """A journal beside the file is nothing to us: nothing is rolled back, written or left."""
    files.save(OLD, path)
    Path(f"{path}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(1000))
    before = Path(path).read_bytes()
    assert files.open_file(path).content == OLD
    assert Path(path).read_bytes() == before
    assert sorted(os.listdir(os.path.dirname(path))) == ["a.wscope", "a.wscope-journal"]


def test_file_system_without_locks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened and saved without; where edits cannot be kept safely, that is said."""

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setattr("fcntl.lockf", no_locks)
    file = files.save(OLD, path)
    assert files.open_file(files.save(NEW, path, file).path).content == NEW
    said = refused(Problem.FAILED, recovery.begin, Path(path).parent / "state", Content())
    assert "locks do not work in the folder for it (XDG_STATE_HOME)" in said
    state = Path(path).parent / "state"
    assert list(state.iterdir()) == []
    (state / "20250101-120000-00000000.lock").touch()
    with pytest.raises(StorageError, match="locks do not work"):
        recovery.find(state)
    assert recovery.holders(state, path) == []


def test_vanished_file(path: str) -> None:
    file = files.save(OLD, path)
    os.unlink(path)
    assert files.status(file) is Problem.ABSENT
    assert "there is no such file" in refused(Problem.ABSENT, files.open_file, path)
    again = files.save(NEW, path, file)
    assert files.status(again) is None
    assert files.open_file(path).content == NEW


def test_vanished_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    file = files.save(OLD, str(tmp_path / "here" / "a.wscope"))
    (tmp_path / "here" / "a.wscope").unlink()
    (tmp_path / "here").rmdir()
    assert files.status(file) is Problem.ABSENT
    assert "its folder is not there any more" in refused(Problem.ABSENT, files.save, NEW, file.path, file)
    assert files.open_file(files.save(NEW, str(tmp_path / "b.wscope")).path).content == NEW


def test_replaced_file(path: str) -> None:
    """By another window, say. Nothing of theirs is lost without a question, and nothing of ours."""
    file = files.save(OLD, path)
    theirs = files.save(NEW, path)
    assert os.path.getsize(path) == file.stamp.size
    assert files.status(file) is Problem.CHANGED
    assert "another program changed it" in refused(Problem.CHANGED, files.save, OLD, path, file)
    assert files.open_file(path) == files.Opened(NEW, theirs)
    mine = files.save(OLD, path)
    assert files.open_file(path) == files.Opened(OLD, mine)


def test_replaced_by_something_else_altogether(path: str) -> None:
    file = files.save(OLD, path)
    os.truncate(path, 1 << 40)
    assert files.status(file) is Problem.CHANGED
    refused(Problem.CHANGED, files.save, NEW, path, file)
    os.unlink(path)
    os.mkdir(path)
    assert files.status(file) is Problem.NOT_A_FILE


def test_file_that_was_only_touched(path: str) -> None:
    """The same bytes under another date, or copied back from a backup, are the same file."""
    file = files.save(OLD, path)
    os.utime(path, (1, 1))
    assert files.status(file) is None
    data = Path(path).read_bytes()
    os.unlink(path)
    Path(path).write_bytes(data)
    assert files.status(file) is None
    assert files.open_file(files.save(NEW, path, file).path).content == NEW


def test_two_processes_on_one_file(path: str, tmp_path: Path) -> None:
    files.save(OLD, path)
    state = tmp_path / "state"
    program = (
        "import sys; from pathlib import Path; from storage import files, recovery\n"
        "opened = files.open_file(sys.argv[1])\n"
        "session = recovery.begin(Path(sys.argv[2]), opened.content, opened.file); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, path, str(state)]
    os.symlink(path, tmp_path / "link.wscope")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert [(holder.pid, holder.path) for holder in recovery.holders(state, path)] == [(other.pid, path)]
        assert recovery.holders(state, str(tmp_path / "link.wscope"))
        assert recovery.holders(state, str(tmp_path / "b.wscope")) == []
        assert recovery.find(state) == []
        other.communicate()
    assert recovery.holders(state, path) == []


# --- what is no scenario file


def test_fifo(path: str) -> None:
    os.mkfifo(path)
    start = time.monotonic()
    assert "a device or a pipe" in refused(Problem.NOT_A_FILE, files.open_file, path)
    refused(Problem.NOT_A_FILE, files.save, NEW, path)
    assert time.monotonic() - start < 1
    assert stat.S_ISFIFO(os.stat(path).st_mode)


def test_folder(tmp_path: Path) -> None:
    assert "a folder" in refused(Problem.NOT_A_FILE, files.open_file, str(tmp_path))
    refused(Problem.NOT_A_FILE, files.save, NEW, str(tmp_path))


def test_devices_and_sockets(tmp_path: Path) -> None:
    refused(Problem.NOT_A_FILE, files.open_file, "/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(StorageError):
            files.open_file(str(tmp_path / "socket"))


def test_empty_file(path: str) -> None:
    Path(path).touch()
    assert "the file is empty" in refused(Problem.EMPTY, files.open_file, path)


def test_foreign_sqlite_file(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    assert "a database of another program" in refused(Problem.FOREIGN, files.open_file, path)


def test_sqlite_file_in_another_form(path: str) -> None:
    """WAL needs files beside the file: a scenario is one file."""
    files.save(OLD, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert "another program changed the form of its pages" in refused(Problem.DAMAGED, files.open_file, path)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\x7fELF\x02\x01\x01", "it is a memory image; open it as one"),
        (b"\x1f\x8b\x08", "it is packed, perhaps a memory image"),
        (b'{\n "format": 1', "perhaps a scenario as JSON; import it"),
        (b"PK\x03\x04", "it was not saved by Walkscope; choose another file"),
    ],
    ids=["ELF", "gzip", "JSON", "zip"],
)
def test_other_files(path: str, head: bytes, what: str) -> None:
    Path(path).write_bytes(head + bytes(5000))
    assert what in refused(Problem.FOREIGN, files.open_file, path)


def test_huge_file_is_not_read(path: str) -> None:
    files.save(OLD, path)
    os.truncate(path, 1 << 40)
    start = time.monotonic()
    assert "1,048,576 MiB" in refused(Problem.TOO_LARGE, files.open_file, path)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800", "line\nbreak", "loop"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    os.symlink("loop", tmp_path / "loop")
    for act in (files.open_file, files.peek):
        said = refused(Problem.ABSENT, act, str(tmp_path / name))
        assert "\n" not in said
    if name != "line\nbreak":
        refused(Problem.ABSENT, files.save, NEW, str(tmp_path / name))


# --- what a file keeps when it is replaced


def test_permissions_owner_and_attributes_are_kept(path: str) -> None:
    file = files.save(OLD, path)
    os.chmod(path, 0o640)
    with_attributes = hasattr(os, "setxattr")
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:
        with_attributes = False
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    owner = os.stat(path).st_uid
    files.save(NEW, path, file)
    status = os.stat(path)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o640, owner)
    assert not with_attributes or os.getxattr(path, "user.note") == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two owners")
def test_a_group_that_we_cannot_give_loses_its_rights(path: str) -> None:
    """Else they would be those of our own group."""
    file = files.save(OLD, path)
    os.chmod(path, 0o664)
    os.chmod(os.path.dirname(path), 0o777)
    os.chown(path, NOBODY, 12_345)
    open_up(path)
    with somebody():
        files.save(NEW, path, file)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644


def test_a_new_file_has_the_permissions_that_new_files_have(path: str) -> None:
    before = os.umask(0o027)
    try:
        files.save(OLD, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.wscope"
    files.save(OLD, str(target))
    (tmp_path / "link.wscope").symlink_to(target)
    opened = files.open_file(str(tmp_path / "link.wscope"))
    assert opened.file.folder == str(tmp_path / "real")
    files.save(NEW, opened.file.path, opened.file)
    assert (tmp_path / "link.wscope").is_symlink()
    assert files.open_file(str(target)).content == NEW


def test_copies_that_were_cut_short_long_ago_are_cleared_away(path: str, tmp_path: Path) -> None:
    old, young, other = (tmp_path / f".walkscope-{c * 16}.part" for c in ("a", "b", "x"))
    for part in (old, young, other):
        part.touch()
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    files.save(OLD, path)
    assert {part.name for part in tmp_path.iterdir()} == {"a.wscope", young.name, other.name}
