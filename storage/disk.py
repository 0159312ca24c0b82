"""Bytes of a file, read once as they are and written so that the old or the new ones are there, whatever happens.

Every call to the system is made here, in this order, so that each can fail in a test. What must work, works or raises
OSError or StorageError with the file as it was; what is good to have (an owner, an attribute, a lock) is let go
where a file system does not know it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

import msgspec

from storage.errors import Problem, StorageError
from storage.schema import MAX_FILE

Check = Callable[[bytes], None]
PATIENCE = 1.0
"""Seconds to wait for a lock that another program holds."""
PIECE = 1 << 20
_PART = re.compile(r"\.walkscope-[0-9a-f]{16}\.part")
_PART_AGE = 3600
"""Seconds after which a half-written copy is nobody's: its program was killed while it saved."""
_PENDING_BYTE = 1 << 30
_SHARED_FIRST, _SHARED_SIZE = _PENDING_BYTE + 2, 510
"""Where SQLite's locks lie in a file (sqlite.org, File Locking; os.h)."""
_UNKNOWN_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_HELD = (errno.EAGAIN, errno.EACCES)


class Stamp(msgspec.Struct, frozen=True):
    """Which file, in which state. Where all but ``sha256`` are the same, nobody looks at the bytes."""

    device: int
    inode: int
    size: int
    modified: int
    sha256: bytes

    def is_of(self, status: os.stat_result) -> bool:
        return (self.device, self.inode, self.size, self.modified) == _identity(status)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read(path: str, check: Callable[[bytes, int], object] | None = None) -> tuple[bytes, Stamp]:
    """All bytes of a regular file. ``check(head, size)`` may refuse it before more than its head is read."""
    descriptor = _open(path)
    try:
        return _read(descriptor, check)
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    # O_NONBLOCK: a FIFO would else wait for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        refuse_irregular(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_irregular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
        raise StorageError(Problem.NOT_A_FILE, f"this is {what}; choose a regular file")


def _read(descriptor: int, check: Callable[[bytes, int], object] | None) -> tuple[bytes, Stamp]:
    with _shared_lock(descriptor):
        before = os.fstat(descriptor)
        if check is not None:
            check(os.pread(descriptor, 4096, 0), before.st_size)
        if before.st_size > MAX_FILE:
            raise StorageError(Problem.TOO_LARGE, f"it has {before.st_size >> 20:,} MiB; choose another file")
        pieces = []
        wanted = before.st_size
        while wanted and (piece := os.pread(descriptor, min(wanted, 64 * PIECE), before.st_size - wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        after = os.fstat(descriptor)
    if wanted or _identity(after) != _identity(before):
        raise StorageError(Problem.BUSY, "another program is writing it; try again when that is done")
    data = b"".join(pieces)
    return data, Stamp(*_identity(after), sha256(data).digest())


def is_same(path: str, known: Stamp) -> bool:
    """Whether the file has the bytes it had. They are read only where its date or its place on the disk is another."""
    status = os.stat(path)
    refuse_irregular(status)
    if known.is_of(status) or status.st_size != known.size:
        return known.is_of(status)
    return read(path)[1].sha256 == known.sha256


def replace(path: str, data: bytes, known: Stamp | None, check: Check) -> tuple[Stamp, bool]:
    """Puts a file with ``data`` at ``path``, with the owner, permissions and attributes of the one there.

    A file that is not the ``known`` one (None: any) is not replaced. ``check(bytes)`` sees what was written before it
    takes the place of the old. Gives the new stamp, and whether it is sure to survive a power cut.
    """
    path = real(path)
    name = os.path.basename(path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _exclusive_lock(folder):
            old = _replaceable(path, known)
            _sweep(folder)
            part = f".walkscope-{secrets.token_hex(8)}.part"
            # A new file's permissions are for the umask to say; a copy of an old one is nobody else's until it has its.
            descriptor = os.open(
                part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if old else 0o666, dir_fd=folder
            )
            try:
                stamp = _write(descriptor, data, path if old else None, old, check)
                os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part, dir_fd=folder)
                raise
            finally:
                _close(descriptor)
            return stamp, _sync_folder(folder)
    finally:
        _close(folder)


def real(path: str) -> str:
    """Where a file lies, or would lie, without links on the way. Raises OSError where that cannot be told."""
    try:
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.join(os.path.realpath(os.path.dirname(path), strict=True), os.path.basename(path))


def _replaceable(path: str, known: Stamp | None) -> os.stat_result | None:
    """The file that is about to be replaced; None: there is none. Raises StorageError for one that must stay."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    refuse_irregular(status)
    if not os.access(path, os.W_OK, effective_ids=True):
        raise StorageError(
            Problem.READ_ONLY, "the file may only be read; save it under another name, or change its permissions"
        )
    if known is not None and not is_same(path, known):
        raise StorageError(
            Problem.CHANGED,
            "another program changed it since it was opened; save it under another name, or overwrite it",
        )
    descriptor = _open(path)
    try:
        with _shared_lock(descriptor):  # nobody is in the middle of it
            return status
    finally:
        os.close(descriptor)


def _write(
    descriptor: int, data: bytes, like: str | None, old: os.stat_result | None, check: Check
) -> Stamp:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest[:PIECE]) :]
    if like is not None and old is not None:
        _make_alike(descriptor, like, old)
    os.fsync(descriptor)
    written, stamp = _read(descriptor, None)
    check(written)
    return stamp


def _make_alike(descriptor: int, path: str, old: os.stat_result) -> None:
    """Owner, permissions and extended attributes of the old file, as far as we may give them."""
    mode = stat.S_IMODE(old.st_mode) & 0o777
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except PermissionError:
        try:
            os.fchown(descriptor, -1, old.st_gid)
        except PermissionError:
            mode = mode & ~0o070 | (mode & 0o007) << 3  # our group is not the one that the permissions are for
    for name in _attributes(path):
        try:
            os.setxattr(descriptor, name, os.getxattr(path, name))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENODATA, *_UNKNOWN_HERE):
                raise
    os.fchmod(descriptor, mode)


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError as error:
        if error.errno not in _UNKNOWN_HERE:
            raise
        return []


def _sweep(folder: int) -> None:
    """Removes copies that were cut short long ago. What was in them is in a recovery store, or was saved since."""
    with suppress(OSError):
        for name in filter(_PART.fullmatch, os.listdir(folder)):
            if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > _PART_AGE:
                os.unlink(name, dir_fd=folder)


def _sync_folder(folder: int) -> bool:
    try:
        os.fsync(folder)
    except OSError as error:
        return error.errno in _UNKNOWN_HERE  # a file system that needs none
    return True


def _close(descriptor: int) -> None:
    """After an fsync, closing has nothing left to say."""
    with suppress(OSError):
        os.close(descriptor)


@contextmanager
def _shared_lock(descriptor: int) -> Iterator[None]:
    """Keeps SQLite in other programs from writing the file meanwhile; raises StorageError where one is at it."""
    held = [(1, _PENDING_BYTE), (_SHARED_SIZE, _SHARED_FIRST)]

    def lock() -> None:
        for length, start in held:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)

    if not _wait_for(lock):
        raise StorageError(Problem.BUSY, "another program is using it; try again when that is done")
    try:
        yield
    finally:
        with suppress(OSError):
            for length, start in held:
                fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)


@contextmanager
def _exclusive_lock(folder: int) -> Iterator[None]:
    """One Walkscope at a time looks whether a file changed and replaces it. A folder that stays locked is not waited
    for: what is left to chance is then the moment between the two."""
    _wait_for(lambda: fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
    yield  # closing the folder unlocks it


def _wait_for(lock: Callable[[], None]) -> bool:
    """Whether nobody else has the lock; also where the file system knows no locks."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            lock()
        except OSError as error:
            if error.errno in _UNKNOWN_HERE or error.errno == errno.EBADF:
                return True
            if error.errno not in _HELD:
                raise
        else:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
