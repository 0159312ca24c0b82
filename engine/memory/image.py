"""A memory image in a file: never read whole, never written, and never trusted.

Formats: an ELF core as QEMU's dump-guest-memory writes it (32 and 64 bit), gzip or xz of one, and raw memory that
starts at address 0. Files are read with pread: a mapped one that shrinks would kill the process.
"""

from __future__ import annotations

import os
import stat
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from engine.arch.memory import ALL_KNOWN, FRAME_SHIFT, FRAME_SIZE, Partial, word_at
from engine.errors import InputError
from engine.memory.elf import MAGIC, Core, Segment, read_core
from engine.memory.foreign import HEAD, refuse_foreign
from engine.memory.qemu_notes import CpuState, cpu_states, vmcoreinfo
from engine.memory.ranges import Range, coalesce
from engine.memory.unpack import MAGICS, Packing, Progress, unpack

if TYPE_CHECKING:
    from numpy import bool_, uint64
    from numpy.typing import NDArray

    from engine.memory.pool import FramePool

CACHED = 2_048
"""Frames kept one by one (8 MiB); with the 56 MiB of a pool that is all an image keeps in memory."""
CACHED_INCOMPLETE = 256
"""Frames remembered not to be known wholly: one may be made of thousands of segments."""
RUN = 256
"""Neighbouring frames that are read at a time, for a pool."""


class Image:
    """The physical memory in a file. Unknown: what no segment holds, and what the file has lost since it was opened.

    ``size`` is that of the (unpacked) file in bytes, ``packing`` how it was packed. ``cpus`` is empty where the file
    holds no registers, and ``core`` None where it is raw memory. ``damaged`` becomes a sentence when a read fails that
    should not.
    """

    def __init__(self, file: BinaryIO, path: str, packing: Packing = "") -> None:
        """Takes ``file`` over: a regular file, open for reading."""
        self.path = path
        self.packing = packing
        self.damaged = ""
        self._file = file
        self._close = weakref.finalize(self, file.close)
        self._frames: dict[int, memoryview] = {}
        self._incomplete: dict[int, Partial] = {}
        self._pool: FramePool | None = None
        self.size = os.fstat(file.fileno()).st_size
        self.format: Literal["ELF64 core", "ELF32 core", "raw"] = "raw"
        self.segments: tuple[Segment, ...] = (Segment(0, self.size, 0),)
        self.core: Core | None = None
        self.cpus: tuple[CpuState, ...] = ()
        self.vmcoreinfo: dict[str, str] = {}
        if self._pread(0, len(MAGIC)) == MAGIC:
            core = self.core = read_core(self._pread, self.size)
            self.format = "ELF64 core" if core.bits == 64 else "ELF32 core"
            self.segments = core.segments
            self.cpus = cpu_states(core.notes, core.machine)
            self.vmcoreinfo = vmcoreinfo(core.notes)
        elif self.size % FRAME_SIZE:
            raise InputError(
                f"this is no ELF core, and with {self.size:,} bytes no raw memory either: that comes in pages of 4 KiB"
            )
        self._starts = [segment.start for segment in self.segments]

    def close(self) -> None:
        """Closes the file; what is read after that raises ValueError unless it is remembered."""
        self._close()
        self._pool = None

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # --- the protocol of physical memory

    def frame(self, pfn: int) -> memoryview | None:
        found = self._frames.get(pfn)
        if found is None:
            looked = self._look(pfn)
            return looked if isinstance(looked, memoryview) else None
        return found

    def partial(self, pfn: int) -> Partial | None:
        looked = self._look(pfn)
        return looked if isinstance(looked, Partial) and looked.known else None

    def word(self, address: int) -> int | None:
        return word_at(self, address)

    def _look(self, pfn: int) -> memoryview | Partial:
        """What the file has of a frame: remembered, or read."""
        found = self._frames.get(pfn) or self._incomplete.get(pfn)
        if found is not None:
            return found
        data, known = self._read_frame(pfn)
        if known == ALL_KNOWN:
            if len(self._frames) >= CACHED:
                self._frames.clear()
            frame = self._frames[pfn] = memoryview(data).cast("Q")
            return frame
        if len(self._incomplete) >= CACHED_INCOMPLETE:
            self._incomplete.clear()
        part = self._incomplete[pfn] = Partial(data, known)
        return part

    def blank(self, pfns: NDArray[uint64]) -> NDArray[bool_]:
        import numpy as np

        return np.zeros(pfns.size, np.bool_)

    def gather(self, addresses: NDArray[uint64]) -> tuple[NDArray[uint64], NDArray[bool_]]:
        if self._pool is None:
            from engine.memory.pool import FramePool

            frames = sum(end - start for start, end, _ in self.segments) >> FRAME_SHIFT
            span = (self.segments[-1].end >> FRAME_SHIFT) + 1
            self._pool = FramePool(span=span, frames=frames)
        return self._pool.gather(self, addresses)

    def known(self) -> list[Range]:
        return coalesce((start, end) for start, end, _ in self.segments)

    # --- the file

    def _read_frame(self, pfn: int) -> tuple[bytes, int]:
        """A frame's bytes, 0 where unknown, and the mask of the known ones."""
        base = pfn << FRAME_SHIFT
        at = bisect_right(self._starts, base) - 1
        if at >= 0 and self.segments[at].end >= base + FRAME_SIZE:
            data = self._pread(self.segments[at].offset + base - self.segments[at].start, FRAME_SIZE)
            if len(data) == FRAME_SIZE:
                return data, ALL_KNOWN
            return data.ljust(FRAME_SIZE, b"\0"), (1 << len(data)) - 1
        frame, known = bytearray(FRAME_SIZE), 0
        for segment in self.segments[max(at, 0) :]:
            if segment.start >= base + FRAME_SIZE:
                break
            start, end = max(segment.start, base), min(segment.end, base + FRAME_SIZE)
            if start < end:
                data = self._pread(segment.offset + start - segment.start, end - start)
                frame[start - base : start - base + len(data)] = data
                known |= ((1 << len(data)) - 1) << (start - base)
        return bytes(frame), known

    def runs(self, pfns: list[int]) -> Iterator[tuple[int, memoryview]]:
        """Those of the sorted frames that lie wholly in one segment, neighbours read at one go."""
        first = 0
        while first < len(pfns):
            base = pfns[first] << FRAME_SHIFT
            at = bisect_right(self._starts, base) - 1
            room = (self.segments[at].end - base) >> FRAME_SHIFT if at >= 0 else 0
            count = 1
            while count < min(RUN, room, len(pfns) - first) and pfns[first + count] == pfns[first] + count:
                count += 1
            if room > 0:
                data = self._pread(self.segments[at].offset + base - self.segments[at].start, count * FRAME_SIZE)
                whole = len(data) & -FRAME_SIZE
                if whole:
                    yield pfns[first], memoryview(data)[:whole].cast("Q")
            first += count

    def _pread(self, offset: int, size: int) -> bytes:
        """Bytes of the file. Fewer than there should be are noted in ``damaged``; none are made up."""
        try:
            data = os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            self.damaged = f"The image could not be read ({error.strerror}): the bytes are taken for unknown."
            return b""
        if len(data) < size:
            self.damaged = "The image's file became shorter while it was open: what is missing is taken for unknown."
        return data


def open_image(path: str | os.PathLike[str], *, progress: Progress | None = None) -> Image:
    """The image in a file; close it after use. Raises InputError with one sentence, and what ``progress`` raises.

    ``progress(done, total)``, in bytes of the file, is called while a packed image is unpacked.
    """
    path = os.fspath(path)
    try:
        with ExitStack() as on_failure:
            file = packed = on_failure.enter_context(_open_file(path))
            head = file.read(HEAD)
            packing = _packing(head)
            if packing:
                file.seek(0)
                file = on_failure.enter_context(unpack(packed, packing, _inspect_unpacked, progress))
                packed.close()
            else:
                refuse_foreign(head)
            image = Image(file, path, packing)
            on_failure.pop_all()
            return image
    except InputError as error:
        raise InputError(f"{_printable(path)}: {error}.") from error
    except OSError as error:
        raise InputError(f"{_printable(path)}: {_reason(error)}.") from error


def _open_file(path: str) -> BinaryIO:
    """A regular, non-empty file, open for reading without a buffer."""
    if "\0" in path:
        raise InputError("no file has a zero byte in its name")
    # O_NONBLOCK: a FIFO would else wait for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise InputError("the file is empty; open a memory image")
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
    raise InputError(f"this is {what}; open a memory image in a regular file")


def _packing(head: bytes) -> Packing:
    return next((packing for packing, magic in MAGICS.items() if head.startswith(magic)), "")


def _inspect_unpacked(head: bytes) -> None:
    if _packing(head):
        raise InputError("the file is packed twice; unpack it once first")
    refuse_foreign(head)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the name"
    if isinstance(error, PermissionError):
        return "you may not read this file; ask its owner or change its permissions"
    return f"the file cannot be read ({error.strerror})"


def _printable(path: str) -> str:
    """The file's name for a sentence: on one line, whatever it is made of."""
    name = os.path.basename(path) or path
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name) or "the image"
