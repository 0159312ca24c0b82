"""What a scenario file holds, as one value. No database is needed to make or compare it.

``step`` counts events: 0 is before the first. `Json` is what the window keeps with a thing and nobody else reads.
"""

from typing import Any

import msgspec

from engine.events import ImageRef
from engine.scenario import Scenario

Json = dict[str, Any]
"""An object of JSON: strings, finite numbers, booleans, None, lists and objects by string."""


class _Texts(msgspec.Struct, frozen=True):
    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, str):
                value.encode()  # raises ValueError for half a surrogate pair, which no file can hold as text


class Pin(_Texts, frozen=True):
    """A step with a name, such as A and B of the views that compare; ``pcpu``: on which pCPU, None: on any."""

    name: str
    step: int
    pcpu: int | None = None


class Bookmark(_Texts, frozen=True):
    """A place worth coming back to. ``address``: unsigned 64 bits, of whatever ``view`` says."""

    name: str
    step: int
    address: int | None = None
    view: Json = {}


class Note(_Texts, frozen=True):
    """What somebody wrote about a step, or about the scenario (step 0)."""

    step: int
    text: str


class Embedding(msgspec.Struct, frozen=True):
    """What of a memory image travels in the file.

    ``frames``: frame number to the SHA-256 of its 4,096 bytes, a key of `Content.frames`. ``partial``: for frames of
    which only some bytes are known, the mask of one bit a byte (512 bytes, little-endian). ``machine``: e_machine of
    the core; ``notes``: its notes as they stand in an ELF file, compressed by zlib.
    """

    frames: dict[int, bytes]
    partial: dict[int, bytes] = {}
    machine: int = 0
    notes: bytes = b""


class ImageFile(msgspec.Struct, frozen=True):
    """A memory image, named by events with this ``path``. ``size`` in bytes, ``sha256`` of its file; None: unknown."""

    path: str
    size: int | None = None
    sha256: bytes | None = None
    format: str = ""
    embedded: Embedding | None = None


class Content(msgspec.Struct, frozen=True):
    """A document. ``frames``: SHA-256 of a frame to the frame, compressed by zlib. ``thumbnail``: a PNG, or nothing.

    A relative path of an image is relative to the file; an opened file has absolute ones.
    """

    scenario: Scenario = Scenario()
    pins: tuple[Pin, ...] = ()
    bookmarks: tuple[Bookmark, ...] = ()
    notes: tuple[Note, ...] = ()
    images: tuple[ImageFile, ...] = ()
    frames: dict[bytes, bytes] = {}
    view_state: Json = {}
    thumbnail: bytes = b""


__all__ = [
    "Bookmark", "Content", "Embedding", "ImageFile", "ImageRef", "Json", "Note", "Pin", "Scenario",
]  # fmt: skip
