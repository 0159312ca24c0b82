"""Scenario files: opened as a whole, saved as a whole, and looked after in between.

A file on disk changes only when it is saved. Functions take the time that the disk takes; call them in a worker.
Everything that can go wrong outside this program is a `StorageError`.
"""

import os
import stat

import msgspec

from storage import container, disk, images
from storage.container import Peek
from storage.content import Content
from storage.disk import Stamp
from storage.errors import Problem, StorageError, named, printable
from storage.guard import Version, check_header
from storage.schema import MAJOR, MINOR

SUFFIX = ".wscope"


class File(msgspec.Struct, frozen=True):
    """A file as it was opened or saved. ``path`` is absolute; paths of images in it are relative to ``folder``.

    ``notice`` is a sentence for the user, or ''.
    """

    path: str
    folder: str
    stamp: Stamp
    version: Version
    notice: str = ""


class Opened(msgspec.Struct, frozen=True):
    content: Content
    file: File


def folder_of(path: str) -> str:
    """The folder that paths in the file at ``path`` are relative to: its own, not that of a link to it.

    Raises OSError where that cannot be told.
    """
    path = os.path.abspath(path)
    try:
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        is_link = False
    return os.path.dirname(disk.real(path) if is_link else path)


def open_file(path: str) -> Opened:
    """The document in the file at ``path``. Revert is this, on the path of an open one."""
    path = os.path.abspath(path)
    with named(path):
        data, stamp = disk.read(path, check_header)
        content, version = container.unpack(data)
        notice = ""
        if version.is_newer:
            notice = (
                f"{printable(path)} was saved by a newer Walkscope: what this one does not know of it is not "
                "shown, and to keep it, save under another name."
            )
        folder = folder_of(path)
        return Opened(images.resolved(content, folder), File(path, folder, stamp, version, notice))


def peek(path: str) -> Peek:
    """What a list of recent files shows of one, in a few milliseconds."""
    with named(path):
        return container.peek(disk.read(path, check_header)[0])


def save(content: Content, path: str, known: File | None = None) -> File:
    """Puts ``content`` into the file at ``path``: in the end the old file is there or the new one, and never less.

    Save gives the ``known`` file, and is refused with `Problem.CHANGED` where another program changed it since, and
    with `Problem.TOO_NEW` where a newer Walkscope wrote it. Save As and Save a Copy give none: whatever file is there
    is replaced. The file that was there stays as it was where this raises.
    """
    path = os.path.abspath(path)
    with named(path, writing=True):
        if known is not None and known.version.is_newer:
            raise StorageError(
                Problem.TOO_NEW,
                "it was saved by a newer Walkscope, and this one would lose what it does not know of it; save under "
                "another name",
            )
        folder = folder_of(path)
        inside = images.relative(content, folder)
        data = container.pack(inside)
        if container.unpack(data)[0] != inside:
            raise AssertionError("what was packed does not unpack to the same")
        stamp, durable = disk.replace(path, data, known.stamp if known is not None else None, same_as(data))
    notice = f"{printable(path)} is saved, but a power cut now might undo that; save it once more."
    return File(path, folder, stamp, Version(MAJOR, MINOR), "" if durable else notice)


def same_as(data: bytes) -> disk.Check:
    def check(written: bytes) -> None:
        if written != data:
            raise StorageError(Problem.FAILED, "the disk does not give back what was written; save it on another one")

    return check


def status(file: File) -> Problem | None:
    """What became of an open file: None (it is as it was), CHANGED, ABSENT, or why that cannot be told."""
    try:
        with named(file.path):
            return None if disk.is_same(file.path, file.stamp) else Problem.CHANGED
    except StorageError as error:
        return error.problem
