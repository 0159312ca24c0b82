"""What is not saved yet, kept so that a crash loses nothing: one store a session, in the state folder.

A session is an open document. Its store (`storage.log`) holds the document as it was opened or saved last, and every
edit since. A lock file says that the session lives, and which file it has open. The store of one that died is found by
`find`, and stays until somebody says what shall become of it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path

import msgspec

from engine.edits import Edit
from storage import files
from storage.content import Content
from storage.errors import Problem, StorageError, named
from storage.files import File
from storage.log import Entry, Log, Logged, keeping

_NAME = re.compile(r"(\d{8}-\d{6}-[0-9a-f]{8})\.(lock|sqlite)")
_TRIES = 10


def default_folder() -> Path:
    """Where the desktop wants such things (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "walkscope" / "recovery"


class Holder(msgspec.Struct, frozen=True):
    """A living session: its process, the file it has open ('': none yet), and since when (seconds since 1970)."""

    pid: int
    path: str
    since: int


class Situation(Enum):
    """How the file fares that unsaved edits belong to."""

    UNTITLED = auto()
    """It was never saved: recover, or save it."""
    AS_IT_WAS = auto()
    """It is as it was before the edits: recover, and save later."""
    CHANGED = auto()
    """It changed since: save a copy of what is recovered, or overwrite it."""
    ABSENT = auto()
    """It is not there, or cannot be read: recover, and save it anew."""


class Session:
    """The store of one open document. May be used from any thread: edits go on while a save is under way."""

    def __init__(self, claim: _Claim, log: Log) -> None:
        self._claim = claim
        self._log = log

    @property
    def unsaved(self) -> tuple[Entry, ...]:
        """What happened since the document was opened or saved."""
        return self._log.entries

    def record(self, content: Content, text: str, edit: Edit | None = None) -> None:
        """Keep that ``edit`` (None: something else than events) has led to ``content``; ``text`` says it to people.

        When this returns, it is on the disk. Raises StorageError where it cannot be kept; the next call then keeps the
        whole of ``content``, so that no later edit hangs in the air.
        """
        self._log.append(content, text, edit)

    def saved(self, content: Content, file: File, done: int | None = None) -> None:
        """``content`` is in ``file`` now, or was opened from it anew: nothing is unsaved any more.

        ``done``: how many of ``unsaved`` there were when ``content`` was taken to be saved; what came after stays
        unsaved.
        """
        self._log.restart(content, file.path, file.stamp.sha256, done)
        self._claim.write(file.path)

    def close(self) -> None:
        """The document is closed. What is not saved stays for the next start."""
        if self._log.entries:
            self._log.close()
            self._claim.release()
        else:
            self.discard()

    def discard(self) -> None:
        """The document is closed, and what is not saved is not wanted."""
        self._log.close()
        self._claim.remove()


class Lost:
    """What a session that died had not saved. Held until one of `resume`, `release` and `discard` is called.

    ``content`` is None where the store cannot be read. ``problem`` is a sentence then, and where only a part could be
    read; '' else. ``entries``: what was done since the document was opened or saved.
    """

    def __init__(
        self, claim: _Claim, log: Log | None, logged: Logged | None, situation: Situation, problem: str = ""
    ) -> None:
        self._claim = claim
        self._log = log
        self._logged = logged
        self.path = logged.path if logged else ""
        self.content = logged.content if logged else None
        self.entries = logged.entries if logged else ()
        self.situation = situation
        self.problem = logged.problem if logged else problem

    def resume(self) -> tuple[Session, Content]:
        """Recover: the session goes on with all that it had not saved. A damaged store is left, and offered again."""
        assert self._log is not None
        assert self._logged is not None
        content = self._logged.content
        if not self.problem:
            return Session(self._claim, self._log), content
        session = _begin(self._claim.folder, self._logged.base, self.path, self._logged.sha256)
        for entry in self.entries[-1:]:
            session.record(content, entry.text)
        self.release()
        return session, content

    def release(self) -> None:
        """Decide later: the next start offers it again."""
        self._close()
        self._claim.release()

    def discard(self) -> None:
        """Nobody wants it: it is gone after this."""
        self._close()
        self._claim.remove()

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()


def begin(folder: Path, content: Content, file: File | None = None) -> Session:
    """A session for a document that was opened from ``file``, or is new. Raises StorageError where none can be kept."""
    return _begin(folder, content, file.path if file else "", file.stamp.sha256 if file else None)


def _begin(folder: Path, content: Content, path: str, sha256: bytes | None) -> Session:
    with keeping():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        claim = _Claim.new(folder)
        try:
            log = Log.create(claim.store)
            claim.write(path)
        except BaseException:
            claim.remove()
            raise
    try:
        log.restart(content, path, sha256)
    except BaseException:
        log.close()
        claim.remove()
        raise
    return Session(claim, log)


def find(folder: Path) -> list[Lost]:
    """What sessions that died had not saved, the oldest first. Stores with nothing unsaved in them are cleared away.

    Each is held by us until it is resumed, released or discarded, so that no two windows offer the same. Raises
    StorageError where the folder cannot be looked through.
    """
    with named(str(folder)):
        claims = (claim for session in _sessions(folder) if (claim := _Claim.take(folder, session)) is not None)
        return [lost for claim in claims if (lost := _lost(claim)) is not None]


def holders(folder: Path, path: str) -> list[Holder]:
    """The living sessions, of any process, that have the file at ``path`` open; none where that cannot be told."""
    try:
        found = [_Claim.holder(folder, session) for session in _sessions(folder)]
    except OSError:
        return []
    wanted = os.path.realpath(path)
    return [holder for holder in found if holder and holder.path and os.path.realpath(holder.path) == wanted]


def _sessions(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted({match[1] for name in names if (match := _NAME.fullmatch(name))})


def _lost(claim: _Claim) -> Lost | None:
    try:
        log, logged = Log.reopen(claim.store) if os.path.exists(claim.store) else (None, None)
    except StorageError as error:
        problem = f"Unsaved work in {claim.store} cannot be read, because {error}; it is kept."
        return Lost(claim, None, None, Situation.UNTITLED, problem)
    now = _file_of(logged)
    lost = Lost(claim, log, logged, _situation(logged, now))
    if logged is None or _is_in(now, logged):
        lost.discard()
        return None
    return lost


def _file_of(logged: Logged | None) -> files.Opened | None:
    """The file that a store belongs to as it is now; None where there is none, or none that can be read."""
    try:
        return files.open_file(logged.path) if logged and logged.path else None
    except StorageError:
        return None


def _situation(logged: Logged | None, now: files.Opened | None) -> Situation:
    if logged is None or not logged.path:
        return Situation.UNTITLED
    if now is None:
        return Situation.ABSENT
    return Situation.AS_IT_WAS if now.file.stamp.sha256 == logged.sha256 else Situation.CHANGED


def _is_in(now: files.Opened | None, logged: Logged) -> bool:
    """Whether nothing is unsaved: nothing was done, or all was undone, or it was saved and that could not be noted.

    The thumbnail is taken when a document is saved, so edits do not know it.
    """
    if logged.problem:
        return False
    if not logged.entries or (logged.content == logged.base and not logged.path):
        return True
    return now is not None and now.content == msgspec.structs.replace(logged.content, thumbnail=now.content.thumbnail)


# --- lock files


class _Claim:
    """A lock file that is locked by us: the session is ours. The system unlocks it when we die, however."""

    def __init__(self, folder: Path, session: str, descriptor: int) -> None:
        self.folder = folder
        self.store = str(folder / f"{session}.sqlite")
        self._path = folder / f"{session}.lock"
        self._descriptor = descriptor

    @classmethod
    def new(cls, folder: Path) -> _Claim:
        for _ in range(_TRIES):
            session = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
            try:
                claim = cls.take(folder, session)
            except StorageError:
                (folder / f"{session}.lock").unlink(missing_ok=True)
                raise
            if claim is not None:  # `find` of another process may be quicker than we, and take it for a dead one
                return claim
        raise StorageError(Problem.BUSY, "other programs hold its locks")

    @classmethod
    def take(cls, folder: Path, session: str) -> _Claim | None:
        """None where the session lives, or somebody looks at it just now."""
        path = folder / f"{session}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return cls(folder, session, descriptor)
        except FileNotFoundError:
            pass  # it was cleared away in between
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    @classmethod
    def holder(cls, folder: Path, session: str) -> Holder | None:
        """Who has the session; None where it is dead, or has nothing to say yet."""
        try:
            descriptor = os.open(folder / f"{session}.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if _lock(descriptor):
                return None
            held = json.loads(os.pread(descriptor, 1 << 16, 0))
            return Holder(held["pid"], held["path"], held["since"])
        except (OSError, StorageError, ValueError, KeyError, TypeError):
            return None
        finally:
            os.close(descriptor)

    def write(self, path: str) -> None:
        """Tells other processes who we are and what we have open."""
        text = json.dumps({"pid": os.getpid(), "path": path, "since": int(time.time())}).encode()
        with keeping():
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        os.close(self._descriptor)

    def remove(self) -> None:
        """The lock goes last: what has one and no store is nothing."""
        try:
            with named(self.store, writing=True):
                for path in (self.store, f"{self.store}-wal", self._path):
                    with suppress(FileNotFoundError):
                        os.unlink(path)
        finally:
            os.close(self._descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise StorageError(Problem.FAILED, "locks do not work in the folder for it (XDG_STATE_HOME)") from None
    return True
