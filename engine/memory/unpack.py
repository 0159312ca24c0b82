"""gzip and xz: unpacked into a file that has no name, with bounds on memory, output and the room left on the disk."""

from __future__ import annotations

import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, Protocol

from engine.errors import InputError

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; may raise to cancel."""

Packing = Literal["", "gzip", "xz"]

MAGICS: dict[Packing, bytes] = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\0"}
MAX_UNPACKED = 256 << 30
ROOM_LEFT = 512 << 20
"""Bytes that stay free where the unpacked file lies."""
_MAX_MEMORY = 128 << 20  # for a decoder; xz -9 needs 65 MiB
_INPUT, _OUTPUT = 64 << 10, 1 << 20
_HOLE = bytes(64 << 10)


class _Decoder(Protocol):
    """One stream's decoder, in the manner of lzma's."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decoder of gzip as a ``_Decoder``."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length and not self._zlib.unconsumed_tail
        return piece


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_MEMORY)


_DECODERS: dict[Packing, Callable[[], _Decoder]] = {"gzip": _Gzip, "xz": _xz}


def unpack(packed: BinaryIO, packing: Packing, inspect: Callable[[bytes], None], progress: Progress | None) -> BinaryIO:
    """The contents of ``packed`` as an open file without a name. ``inspect`` sees its first bytes and may refuse them.

    Runs of zeros become holes of the file. Raises InputError, and whatever ``inspect`` and ``progress`` raise.
    """
    size = os.fstat(packed.fileno()).st_size
    out = _nameless()
    try:
        done = 0
        for piece in _pieces(packed, packing):
            if not done and piece:
                inspect(piece)
            done += len(piece)
            if done > MAX_UNPACKED:
                raise InputError(f"more than {MAX_UNPACKED >> 20:,} MiB come out of it; unpack it yourself first")
            _write(out, piece)
            if progress is not None:
                progress(min(packed.tell(), size), size)
        if not done:
            raise InputError("nothing comes out of the packed file; copy it again")
        out.truncate(done)
    except (zlib.error, lzma.LZMAError) as error:
        out.close()
        raise InputError(f"the {packing} data are damaged ({error}); copy the file again") from error
    except EOFError as error:
        out.close()
        raise InputError(f"the {packing} data are cut off; copy the file again") from error
    except OSError as error:
        out.close()
        raise InputError(f"it could not be unpacked ({error.strerror}); unpack it yourself first") from error
    except BaseException:
        out.close()
        raise
    return out


def _nameless() -> BinaryIO:
    """A temporary file; preferably where large ones belong, for /tmp is often kept in memory."""
    folder = os.environ.get("TMPDIR", "/var/tmp")
    usable = os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
    return tempfile.TemporaryFile(buffering=0, dir=folder if usable else None)


def _pieces(packed: BinaryIO, packing: Packing) -> Iterator[bytes]:
    """What comes out, at most 1 MiB at a time: all streams of the file, one after another (pigz writes several)."""
    data = packed.read(_INPUT)
    while data:
        decoder = _DECODERS[packing]()
        while not decoder.eof:
            yield decoder.decompress(data, _OUTPUT)
            data = packed.read(_INPUT) if decoder.needs_input and not decoder.eof else b""
            if not data and decoder.needs_input and not decoder.eof:
                raise EOFError
        data = (decoder.unused_data or packed.read(_INPUT)).lstrip(b"\0")  # zeros may fill up a block of tape or disk


def _write(out: BinaryIO, piece: bytes) -> None:
    """Appends; what is all zero is skipped and reads as zero all the same."""
    for at in range(0, len(piece), len(_HOLE)):
        part = piece[at : at + len(_HOLE)]
        if part == _HOLE:
            out.seek(len(part), os.SEEK_CUR)
        else:
            out.write(part)
    room = os.fstatvfs(out.fileno())
    if room.f_bavail * room.f_frsize < ROOM_LEFT:
        raise InputError(
            "there is not enough room on the disk to unpack it; make room, or set TMPDIR to a folder that has it"
        )
