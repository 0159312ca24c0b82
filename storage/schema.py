"""The tables of a scenario file: one row type a table, from which the SQLAlchemy table follows.

The row types are the guard at the door: types, sizes and ranges of every value, checked when a file is written and
when it is read. Unsigned 64-bit numbers are hex text, as in JSON: SQLite's integers end at 2^63 - 1.
"""

from typing import Annotated, Any

import msgspec
from msgspec.inspect import BytesType, IntType, NoneType, StrType, type_info
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text

from engine import codec
from engine.arch.memory import FRAME_SIZE, FRAMES_END
from storage.migrations import RELEASES

APPLICATION_ID = int.from_bytes(b"WScp", "big")
MAJOR, MINOR = 1, 1
"""A program reads every minor version of its major version, and older major versions through `storage.migrations`."""
CREATE = RELEASES[MAJOR].schema(MINOR)

MAX_FILE = 256 << 20
"""Bytes of a file. Opening one takes about three times its size of memory."""
MAX_ROWS = 10_000_000
MAX_TEXT = 1 << 20
"""Bytes of a text that a person wrote, or of a value of the window's."""
MAX_THUMBNAIL = 1 << 18
MAX_NOTES = 16 << 20
"""Bytes of a core's notes, unpacked; the engine reads no more either."""
MAX_PACKED_FRAME = FRAME_SIZE + 64
"""zlib adds 11 bytes at most to a frame that cannot be compressed."""

Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_ROWS)]
One = Annotated[int, msgspec.Meta(ge=1, le=1)]
String = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]
Body = Annotated[str, msgspec.Meta(max_length=codec.MAX_BYTES)]
Path = Annotated[str, msgspec.Meta(max_length=3 * 4096, pattern=r"^[!-~]*$")]
"""Percent-encoded, so that every byte of a file's name finds its way."""
Address = Annotated[str, msgspec.Meta(pattern=r"^0x(0|[1-9a-f][0-9a-f]{0,15})$")]
Sha256 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Positive = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Row(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The columns in their order."""


class ScenarioRow(Row, frozen=True):
    number: One
    format: Number
    configuration: String


class EventRow(Row, frozen=True):
    number: Number
    body: Body
    checksum: Sha256


class PinRow(Row, frozen=True):
    number: Number
    name: Name
    step: Number
    pcpu: Number | None


class BookmarkRow(Row, frozen=True):
    number: Number
    name: Name
    step: Number
    address: Address | None
    view: String


class NoteRow(Row, frozen=True):
    number: Number
    step: Number
    text: String


class NarrationRow(Row, frozen=True):
    number: Number
    step: Number
    title: Name
    text: String
    view: String


class DemoRow(Row, frozen=True):
    number: One
    title: Name
    summary: String


class ImageRow(Row, frozen=True):
    """``machine`` is None where no frames of the image are embedded."""

    number: Number
    path: Path
    size: Positive | None
    sha256: Sha256 | None
    format: Name
    machine: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] | None
    notes: Annotated[bytes, msgspec.Meta(max_length=MAX_NOTES)] | None


class FrameRow(Row, frozen=True):
    number: Number
    sha256: Sha256
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_PACKED_FRAME)]


class ImageFrameRow(Row, frozen=True):
    image: Number
    pfn: Annotated[int, msgspec.Meta(ge=0, lt=FRAMES_END)]
    frame: Number
    known: Annotated[bytes, msgspec.Meta(min_length=FRAME_SIZE // 8, max_length=FRAME_SIZE // 8)] | None


class ViewStateRow(Row, frozen=True):
    name: Name
    value: String


class ThumbnailRow(Row, frozen=True):
    number: One
    png: Annotated[bytes, msgspec.Meta(max_length=MAX_THUMBNAIL)]


class SealRow(Row, frozen=True):
    part: Name
    rows: Number
    checksum: Sha256


ROWS: dict[str, type[Row]] = {
    "scenario": ScenarioRow, "event": EventRow, "pin": PinRow, "bookmark": BookmarkRow, "note": NoteRow,
    "narration": NarrationRow, "image": ImageRow, "frame": FrameRow, "image_frame": ImageFrameRow,
    "view_state": ViewStateRow, "thumbnail": ThumbnailRow, "seal": SealRow,
    "demo": DemoRow,
}  # fmt: skip
KEYS: dict[str, tuple[str, ...]] = {"image_frame": ("image", "pfn"), "view_state": ("name",), "seal": ("part",)}
"""Primary keys; that of other tables is ``number``. Rows are read, and sealed, in this order."""

_SQL_TYPES: dict[type, Any] = {IntType: Integer, StrType: Text, BytesType: LargeBinary}


def _table(name: str, row: type[Row], metadata: MetaData) -> Table:
    columns = []
    for field in type_info(row).fields:  # type: ignore[attr-defined]
        kinds = [type(kind) for kind in getattr(field.type, "types", (field.type,))]
        sql_type = next(_SQL_TYPES[kind] for kind in kinds if kind in _SQL_TYPES)
        is_key = field.name in KEYS.get(name, ("number",))
        columns.append(Column(field.name, sql_type, primary_key=is_key, nullable=NoneType in kinds))
    return Table(name, metadata, *columns)


METADATA = MetaData()
TABLES = {name: _table(name, row, METADATA) for name, row in ROWS.items()}
