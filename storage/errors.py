"""Errors of the environment: each one sentence that says what is wrong and what to do.

Anything else that is raised here is an error of ours, and is reported as one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from engine.errors import InputError


class Problem(Enum):
    """What kind of thing went wrong, for whoever offers ways out."""

    ABSENT = auto()
    """There is no such file, or its folder is gone."""
    DENIED = auto()
    READ_ONLY = auto()
    NOT_A_FILE = auto()
    EMPTY = auto()
    FOREIGN = auto()
    """It is not a scenario file."""
    TOO_NEW = auto()
    TOO_LARGE = auto()
    DAMAGED = auto()
    BUSY = auto()
    """Another program, or another window, is at it."""
    CHANGED = auto()
    """The file is not the one that was opened."""
    FULL = auto()
    FAILED = auto()
    """The disk or the system says no for some other reason."""


class StorageError(InputError):
    """A sentence for the user, and the `Problem` it is about."""

    def __init__(self, problem: Problem, sentence: str) -> None:
        super().__init__(sentence)
        self.problem = problem


_OS_ERRORS: dict[int, tuple[Problem, str, str]] = {
    # errno: problem, what to say when reading, when writing
    errno.ENOENT: (
        Problem.ABSENT,
        "there is no such file; check the name, or whether its disk is connected",
        "its folder is not there any more; save it in another one",
    ),
    errno.EACCES: (
        Problem.DENIED,
        "you may not read this file; ask its owner, or change its permissions",
        "you may not write here; save it in a folder of yours",
    ),
    errno.EROFS: (
        Problem.READ_ONLY,
        "this disk can only be read; copy the file to another one",
        "this disk can only be read; save it on another one",
    ),
    errno.ENOSPC: (
        Problem.FULL,
        "the disk is full; make room and try again",
        "the disk is full; make room and save again, or save it on another one",
    ),
    errno.EBUSY: (
        Problem.BUSY,
        "another program is using it; try again when that is done",
        "another program is using it; try again, or save it under another name",
    ),
    errno.ENAMETOOLONG: (
        Problem.ABSENT,
        "no file can have so long a name; check it",
        "no file can have so long a name; take a shorter one",
    ),
    errno.ELOOP: (
        Problem.ABSENT,
        "its symbolic links lead round in a circle; name the file itself",
        "its symbolic links lead round in a circle; save it under another name",
    ),
}
for _same, _as in {
    errno.ENOTDIR: errno.ENOENT, errno.EPERM: errno.EACCES, errno.EDQUOT: errno.ENOSPC, errno.EFBIG: errno.ENOSPC,
    errno.EAGAIN: errno.EBUSY, errno.ETXTBSY: errno.EBUSY,
}.items():  # fmt: skip
    _OS_ERRORS[_same] = _OS_ERRORS[_as]

_SQLITE_ERRORS: dict[int, int] = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}
"""The error of the system that an SQLite result code comes down to; others are failures of the disk."""


def of_os(error: OSError, *, writing: bool = False) -> StorageError:
    """The sentence, still without the file's name, for what the system refused."""
    problem, reading_text, writing_text = _OS_ERRORS.get(error.errno or 0, (Problem.FAILED, "", ""))
    if problem is Problem.FAILED:
        reason = (error.strerror or type(error).__name__).lower()
        reading_text = f"it could not be read ({reason}); try again, or copy it to another disk"
        writing_text = f"it could not be written ({reason}); save it on another disk"
    return StorageError(problem, writing_text if writing else reading_text)


def of_sqlite(error: sqlite3.Error) -> StorageError:
    """The same for a database that is being written."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(Problem.DAMAGED, "it is damaged")
    return of_os(OSError(_SQLITE_ERRORS.get(code, errno.EIO), str(error)), writing=True)


@contextmanager
def named(path: str, *, writing: bool = False) -> Iterator[None]:
    """Puts the file's name before the sentence of whatever goes wrong with it inside."""
    try:
        yield
    except StorageError as error:
        raise StorageError(error.problem, f"{printable(path)}: {error}.") from error
    except OSError as error:
        found = of_os(error, writing=writing)
        raise StorageError(found.problem, f"{printable(path)}: {found}.") from error
    except ValueError as error:
        if "\0" not in path and not isinstance(error, UnicodeEncodeError):
            raise
        said = f"{printable(path)}: no file can have such a name; check it."
        raise StorageError(Problem.ABSENT, said) from error


def printable(path: str) -> str:
    """The file's name for a sentence: on one line, whatever it is made of."""
    return plain(os.path.basename(path) or path or "the file")


def plain(text: str, limit: int = 200) -> str:
    """``text`` on one line and not longer than a sentence can bear."""
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:limit])
    return line + "…" if len(text) > limit else line
