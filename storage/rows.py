"""A document to the rows of its tables and back."""

import json
import os
from collections.abc import Iterable
from math import isinf
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from engine import codec
from engine.demo import Demo, Stop
from engine.errors import InputError
from engine.events import Event
from engine.machine import Configuration
from engine.scenario import Scenario
from storage import schema
from storage.content import Bookmark, Content, Embedding, ImageFile, Json, Note, Pin
from storage.errors import Problem, StorageError, plain
from storage.guard import Version
from storage.seal import Rows, damaged

MAX_DEPTH = 32
MAX_THUMBNAIL_SIDE = 1024
"""Pixels."""
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def text_of_path(path: str) -> str:
    """ASCII for a path, which can be of any bytes."""
    return quote(os.fsencode(path), safe="/")


def path_of_text(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


# --- to rows


def of_content(content: Content) -> dict[str, Rows]:
    """The rows of all tables but ``seal``; those of ``event`` are still without their links."""
    return {
        "scenario": [(1, codec.FORMAT, _to_json(codec.to_plain(content.scenario.configuration)))],
        "event": [(n, codec.encode_event(event).decode()) for n, event in enumerate(content.scenario.events, 1)],
        "pin": [(n, pin.name, pin.step, pin.pcpu) for n, pin in enumerate(content.pins, 1)],
        "bookmark": [
            (n, mark.name, mark.step, None if mark.address is None else hex(mark.address), _to_json(mark.view))
            for n, mark in enumerate(content.bookmarks, 1)
        ],
        "note": [(n, note.step, note.text) for n, note in enumerate(content.notes, 1)],
        "narration": [_of_stop(n, stop) for n, stop in enumerate(content.scenario.demo.stops, 1)],
        "image": [_of_image(n, image) for n, image in enumerate(content.images, 1)],
        "frame": [(n, digest, content.frames[digest]) for n, digest in enumerate(sorted(content.frames), 1)],
        "image_frame": list(_image_frames(content)),
        "view_state": [(name, _to_json(content.view_state[name])) for name in sorted(content.view_state)],
        "thumbnail": [(1, content.thumbnail)] if content.thumbnail else [],
        "demo": _of_demo(content.scenario.demo),
    }


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _of_demo(demo: Demo) -> Rows:
    return [(1, demo.title, demo.summary)] if demo.title or demo.summary else []


_COLUMNS = ("step", "title", "text")
"""Of a stop; all else of it is in the column ``view``."""


def _of_stop(number: int, stop: Stop) -> tuple[Any, ...]:
    view = {name: value for name, value in codec.to_plain(stop).items() if name not in _COLUMNS}
    return number, stop.step, stop.title, stop.text, _to_json(view)


def _of_image(number: int, image: ImageFile) -> tuple[Any, ...]:
    inside = image.embedded
    machine, notes = (None, None) if inside is None else (inside.machine, inside.notes)
    return number, text_of_path(image.path), image.size, image.sha256, image.format, machine, notes


def _image_frames(content: Content) -> Iterable[tuple[Any, ...]]:
    numbers = {digest: n for n, digest in enumerate(sorted(content.frames), 1)}
    for number, image in enumerate(content.images, 1):
        inside = image.embedded
        if inside is not None:
            for pfn in sorted(inside.frames):
                yield number, pfn, numbers[inside.frames[pfn]], inside.partial.get(pfn)


def check(tables: dict[str, Rows]) -> None:
    """Raises StorageError for what is too large, or cannot be, in a file."""
    for name, rows in tables.items():
        try:
            _converted(name, rows)
        except msgspec.ValidationError as error:
            what = f"it cannot be saved, because of a {name.replace('_', ' ')} in it: {plain(str(error))}"
            raise StorageError(Problem.TOO_LARGE, what) from None


def typed(name: str, rows: Rows) -> list[Any]:
    """The rows as values of their row type, checked. Raises StorageError."""
    try:
        return _converted(name, rows)
    except msgspec.ValidationError as error:
        raise damaged(f"a row of its table “{name}” cannot be: {plain(str(error))}") from None


def _converted(name: str, rows: Rows) -> list[Any]:
    kind = schema.ROWS[name]
    return msgspec.convert(rows, list[kind], builtin_types=(bytes,))  # type: ignore[valid-type]


# --- from rows


def to_content(tables: dict[str, Rows], version: Version) -> Content:
    """The document that the rows (all but those of ``seal``) of a file of ``version`` describe. Raises StorageError."""
    rows = {name: typed(name, found) for name, found in tables.items()}
    for name, found in rows.items():
        _check_numbers(name, found)
    frames = {row.sha256: row.data for row in rows["frame"]}
    if len(frames) < len(rows["frame"]):
        raise damaged("a frame is in it twice")
    return Content(
        scenario=_scenario(rows["scenario"], rows["event"], _demo(rows["demo"], rows["narration"], version)),
        pins=tuple(Pin(row.name, row.step, row.pcpu) for row in rows["pin"]),
        bookmarks=tuple(
            Bookmark(row.name, row.step, None if row.address is None else int(row.address, 16), _view(row.view))
            for row in rows["bookmark"]
        ),
        notes=tuple(Note(row.step, row.text) for row in rows["note"]),
        images=_images(rows["image"], rows["image_frame"], rows["frame"]),
        frames=frames,
        view_state={row.name: _from_json(row.value) for row in rows["view_state"]},
        thumbnail=thumbnail(rows["thumbnail"]),
    )


def _check_numbers(name: str, rows: list[Any]) -> None:
    if name not in schema.KEYS and [row.number for row in rows] != list(range(1, len(rows) + 1)):
        raise damaged(f"rows of its table “{name}” are missing")


def _demo(rows: list[schema.DemoRow], stops: list[schema.NarrationRow], version: Version) -> Demo:
    """Version 1.0 did not say what the view of a stop holds, so nothing of that is known."""
    known = version > (1, 0)
    title, summary = (rows[0].title, rows[0].summary) if rows else ("", "")
    return Demo(title, summary, tuple(_stop(row, _view(row.view) if known else {}) for row in stops))


def _stop(row: schema.NarrationRow, view: Json) -> Stop:
    plain = {**view, "step": row.step, "title": row.title, "text": row.text}
    try:
        return codec.from_plain(plain, Stop, "stop")
    except InputError as error:
        raise damaged(f"its stop {row.number} cannot be: {_reason(error)}") from None


def _scenario(rows: list[schema.ScenarioRow], events: list[schema.EventRow], demo: Demo) -> Scenario:
    if len(rows) != 1:
        raise damaged("what it starts from is missing")
    if rows[0].format != codec.FORMAT:
        raise StorageError(
            Problem.TOO_NEW,
            f"its events have format {rows[0].format} and this Walkscope reads format {codec.FORMAT}; get a newer one",
        )
    try:
        configuration = codec.from_plain(_from_json(rows[0].configuration), Configuration, "configuration")
    except StorageError:
        raise
    except InputError as error:
        raise damaged(f"its configuration: {_reason(error)}") from None
    return Scenario(configuration, _events([row.body for row in events]), demo)


def _events(bodies: list[str]) -> tuple[Event, ...]:
    """All at once, which is fast; one by one where that fails, to find the one to blame."""
    try:
        return codec.from_plain([json.loads(body) for body in bodies], tuple[Event, ...], "scenario")
    except (InputError, ValueError, RecursionError):
        return tuple(_event(number, body) for number, body in enumerate(bodies, 1))


def _event(number: int, body: str) -> Event:
    try:
        return codec.decode_event(body.encode())
    except InputError as error:
        raise StorageError(
            Problem.DAMAGED,
            f"its event {number} is damaged or newer than this Walkscope ({_reason(error)}); get a newer one, or a "
            "backup of the file",
        ) from None


def _reason(error: InputError) -> str:
    """What the codec found wrong, without its “This event cannot be read”."""
    text = str(error)
    return plain((text.partition(": ")[2] or text).rstrip(".").replace(". ", ", "))


def _from_json(text: str) -> Any:
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        _check_depth(value)
    except (ValueError, RecursionError):
        raise damaged("a value in it is not JSON") from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number) or number != number:
        raise ValueError("not a finite number")
    return number


def _check_depth(value: Any, room: int = MAX_DEPTH) -> None:
    if not room:
        raise ValueError("nested too deeply")
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, room - 1)


def _view(text: str) -> Json:
    value = _from_json(text)
    if not isinstance(value, dict):
        raise damaged("a view in it is not an object")
    return value


def _images(
    rows: list[schema.ImageRow], places: list[schema.ImageFrameRow], frames: list[schema.FrameRow]
) -> tuple[ImageFile, ...]:
    held: dict[int, dict[int, bytes]] = {row.number: {} for row in rows if row.machine is not None}
    partial: dict[int, dict[int, bytes]] = {number: {} for number in held}
    for place in places:
        if place.image not in held or not 1 <= place.frame <= len(frames):
            raise damaged("an embedded frame belongs to nothing")
        held[place.image][place.pfn] = frames[place.frame - 1].sha256
        if place.known is not None:
            partial[place.image][place.pfn] = place.known
    return tuple(
        ImageFile(
            path=path_of_text(row.path),
            size=row.size,
            sha256=row.sha256,
            format=row.format,
            embedded=None
            if row.machine is None
            else Embedding(held[row.number], partial[row.number], row.machine, row.notes or b""),
        )
        for row in rows
    )


def thumbnail(rows: list[schema.ThumbnailRow]) -> bytes:
    """The picture, if it is a PNG of a size that any reader of PNGs can take."""
    if not rows:
        return b""
    png = rows[0].png
    sides = (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big"))
    if not png.startswith(_PNG) or not all(0 < side <= MAX_THUMBNAIL_SIDE for side in sides):
        raise damaged("its thumbnail is none")
    return png
