"""Frames of a memory image that travel in the scenario's file, so that it can be sent without the image.

What is needed is found out by replaying the scenario on images that note which frames they are asked for. Where the
image itself is not at hand, an ELF core of the embedded frames and of the image's notes takes its place: the engine
reads it as it reads any other, and what is not in it is unknown.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import msgspec

from engine.arch.memory import ALL_KNOWN, FRAME_SHIFT, FRAME_SIZE, Partial
from engine.errors import InputError
from engine.events import ImageRef
from engine.machine import Images
from engine.memory.elf import EM_X86_64, Note
from engine.memory.image import Image
from engine.memory.ranges import runs_of_ones
from engine.scenario import Replay, Scenario
from storage.content import Content, Embedding, ImageFile
from storage.errors import Problem, StorageError, named, printable
from storage.images import Permit
from storage.schema import MAX_NOTES

if TYPE_CHECKING:
    from numpy import bool_, uint64
    from numpy.typing import NDArray

MAX_PIECES = 65_000
"""Runs of known bytes in an embedded image; a core has no more headers than 65,535."""
_HEADER = struct.Struct("<16s HHIQQQI HHHHHH")
_PROGRAM = struct.Struct("<II6Q")
_IDENT = b"\x7fELF\x02\x01\x01"
_ET_CORE, _PT_LOAD, _PT_NOTE = 4, 1, 4


class _Watched(Image):
    """An image that notes which of its frames anybody looked at."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.looked_at: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image, name)

    def frame(self, pfn: int) -> memoryview | None:
        self.looked_at.add(pfn)
        return self._image.frame(pfn)

    def partial(self, pfn: int) -> Partial | None:
        self.looked_at.add(pfn)
        return self._image.partial(pfn)

    def gather(self, addresses: NDArray[uint64]) -> tuple[NDArray[uint64], NDArray[bool_]]:
        self.looked_at.update((addresses >> addresses.dtype.type(FRAME_SHIFT)).tolist())
        return self._image.gather(addresses)

    def runs(self, pfns: list[int]) -> Any:
        self.looked_at.update(pfns)
        return self._image.runs(pfns)


def needed(
    scenario: Scenario, images: Images, progress: Callable[[int, int], None] | None = None
) -> dict[str, set[int]]:
    """The frames of each image, by path, that a replay of all events reads.

    ``progress(done, total)`` is called after each event; what it raises ends the replay.
    """
    watched: dict[str, _Watched] = {}

    def watch(ref: ImageRef) -> Image:
        if ref.path not in watched:
            watched[ref.path] = _Watched(images(ref))
        return watched[ref.path]

    replay = Replay(scenario, watch)
    for step in range(1, len(scenario.events) + 1):
        replay.state(step)
        if progress is not None:
            progress(step, len(scenario.events))
    return {path: image.looked_at for path, image in watched.items()}


def embed(content: Content, path: str, image: Image, pfns: Iterable[int]) -> Content:
    """``content`` with these frames of ``image``, which events name by ``path``, beside those embedded before.

    Raises StorageError where they are too many pieces.
    """
    before = _file(content, path)
    inside = before.embedded or Embedding({})
    frames, places, partial = dict(content.frames), dict(inside.frames), dict(inside.partial)
    for pfn in set(pfns):
        data, known = _bytes_of(image, pfn)
        if known:
            digest = sha256(data).digest()
            places[pfn] = digest
            if digest not in frames:
                frames[digest] = zlib.compress(data)
            if known != ALL_KNOWN:
                partial[pfn] = known.to_bytes(FRAME_SIZE // 8, "little")
    machine = image.core.machine if image.core else EM_X86_64
    notes = b"".join(map(_note, image.core.notes)) if image.core else b""
    embedded = Embedding(places, partial, machine, zlib.compress(notes))
    if len(_pieces(embedded)) > MAX_PIECES:
        raise StorageError(Problem.TOO_LARGE, f"{printable(path)}: these are too many pieces of it; embed fewer.")
    return _with(msgspec.structs.replace(content, frames=frames), before, embedded)


def remove(content: Content, path: str) -> Content:
    """``content`` without the embedded frames of the image that events name by ``path``."""
    kept = _with(content, _file(content, path), None)
    used = {digest for file in kept.images if file.embedded for digest in file.embedded.frames.values()}
    return msgspec.structs.replace(kept, frames={d: data for d, data in content.frames.items() if d in used})


def _file(content: Content, path: str) -> ImageFile:
    return next((file for file in content.images if file.path == path), ImageFile(path))


def _with(content: Content, file: ImageFile, embedded: Embedding | None) -> Content:
    changed = msgspec.structs.replace(file, embedded=embedded)
    known = file in content.images
    images = tuple(changed if other == file else other for other in content.images)
    return msgspec.structs.replace(content, images=images if known else (*images, changed))


def _bytes_of(image: Image, pfn: int) -> tuple[bytes, int]:
    """A frame's bytes (0 where unknown) and the mask of those that are known."""
    frame = image.frame(pfn)
    if frame is not None:
        return bytes(frame), ALL_KNOWN
    return image.partial(pfn) or (bytes(FRAME_SIZE), 0)


def _note(note: Note) -> bytes:
    name = note.name + b"\0"
    head = struct.pack("<III", len(name), len(note.data), note.kind)
    return b"".join((head, name, bytes(-len(name) % 4), note.data, bytes(-len(note.data) % 4)))


# --- an image made of what is embedded


class _Piece(NamedTuple):
    """Known bytes ``start`` .. ``end`` of frames ``first`` and those after it, counted from the first one's start."""

    first: int
    start: int
    end: int


def _pieces(embedded: Embedding) -> list[_Piece]:
    """What is known, whole frames that follow each other in one piece."""
    pieces: list[_Piece] = []
    for pfn in sorted(embedded.frames):
        known = embedded.partial.get(pfn)
        if known is not None:
            pieces.extend(_Piece(pfn, *run) for run in runs_of_ones(int.from_bytes(known, "little")))
        elif pieces and pieces[-1].start == 0 and pieces[-1].end == (pfn - pieces[-1].first) << FRAME_SHIFT:
            pieces[-1] = pieces[-1]._replace(end=pieces[-1].end + FRAME_SIZE)
        else:
            pieces.append(_Piece(pfn, 0, FRAME_SIZE))
    return pieces


def rebuild(content: Content, file: ImageFile) -> Image:
    """The image that the embedded frames of ``file`` make, in a file without a name. Raises StorageError."""
    assert file.embedded is not None
    with named(file.path, writing=True), ExitStack() as on_failure:
        core = cast(BinaryIO, on_failure.enter_context(tempfile.TemporaryFile(buffering=1 << 20)))
        try:
            _write_core(core, content.frames, file.embedded)
            core.flush()
            image = Image(core, file.path)
        except InputError as error:
            what = f"what the scenario holds of it is damaged ({error}); take a backup of the scenario"
            raise StorageError(Problem.DAMAGED, what) from error
        on_failure.pop_all()
        return image


def _write_core(core: BinaryIO, frames: Mapping[bytes, bytes], embedded: Embedding) -> None:
    notes = _unpacked(embedded.notes, MAX_NOTES) if embedded.notes else b""
    pieces = _pieces(embedded)
    at = _HEADER.size + (len(pieces) + 1) * _PROGRAM.size
    core.write(
        _HEADER.pack(
            _IDENT, _ET_CORE, embedded.machine, 1, 0, _HEADER.size, 0, 0, _HEADER.size, _PROGRAM.size, len(pieces) + 1,
            0, 0, 0,
        )
    )  # fmt: skip
    core.write(_PROGRAM.pack(_PT_NOTE, 0, at, 0, 0, len(notes), len(notes), 0))
    at += len(notes)
    for first, start, end in pieces:
        core.write(_PROGRAM.pack(_PT_LOAD, 0, at, 0, (first << FRAME_SHIFT) + start, end - start, end - start, 0))
        at += end - start
    core.write(notes)
    for first, start, end in pieces:
        for pfn in range(first, first + -(-end // FRAME_SIZE)):
            core.write(_frame(frames, embedded.frames[pfn])[start : min(end, FRAME_SIZE)])


def _frame(frames: Mapping[bytes, bytes], digest: bytes) -> bytes:
    data = _unpacked(frames[digest], FRAME_SIZE)
    if len(data) != FRAME_SIZE or sha256(data).digest() != digest:
        raise InputError("a frame is not the one that was embedded")
    return data


def _unpacked(packed: bytes, limit: int) -> bytes:
    """The bytes that zlib packed, never more than ``limit``."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, limit)
        # Where the limit is reached, the end may still be to come, but not another byte.
        more = b"" if unpacker.eof else unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error:
        raise InputError("what is compressed cannot be unpacked") from None
    if more or not unpacker.eof or unpacker.unused_data:
        raise InputError("what is compressed is larger than it can be")
    return data


class Shelf:
    """The images of an opened scenario, as a replay asks for them: the real one, if it may be opened and is there, else
    the one that is embedded."""

    def __init__(self, content: Content, permit: Permit, images: Images) -> None:
        self._content = content
        self._permit = permit
        self._images = images
        self._rebuilt: dict[str, Image] = {}

    def __call__(self, ref: ImageRef) -> Image:
        embedded = _file(self._content, ref.path).embedded
        if self._permit.allows(ref.path):
            try:
                return self._images(ref)
            except InputError:
                if embedded is None:
                    raise
        if embedded is None:
            raise StorageError(
                Problem.DENIED,
                f"{printable(ref.path)}: it lies outside the scenario's folder; allow it, or move the image there.",
            )
        if ref.path not in self._rebuilt:
            self._rebuilt[ref.path] = rebuild(self._content, _file(self._content, ref.path))
        return self._rebuilt[ref.path]

