"""Documents made at random, for hypothesis. Events follow from their types, so that a new kind is covered at once."""

from __future__ import annotations

import struct
import zlib
from hashlib import sha256
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect

from engine import codec
from engine.demo import Demo
from engine.events import Event
from engine.machine import Configuration
from engine.scenario import Scenario
from storage.content import Bookmark, Content, Embedding, ImageFile, Note, Pin

U64 = (1 << 64) - 1
FOLDER = "/scenarios/here"
"""Where documents lie; paths of images are in it, beside it, far from it, and not always tidy."""

names = st.text(max_size=12)
steps = st.integers(0, 1000)
addresses = st.integers(0, U64) | st.sampled_from([0, 1 << 63, U64])
paths = st.sampled_from([
    "/scenarios/here/a.core", "/scenarios/b.core", "/elsewhere/c.core", "/elsewhere/\udcff\udc80.raw",
    "resource:debian", "/scenarios/here/../d.core", "/scenarios/here/resource:no", "/scenarios/here/%41",
    "/", "/scenarios/here/\n“x”",
])  # fmt: skip
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
views = st.dictionaries(names, json, max_size=3)


def _numbers(kind: inspect.IntType) -> st.SearchStrategy[int]:
    low = 0 if kind.ge is None else kind.ge
    high = U64 if kind.le is None else kind.le
    return st.integers(low, high) | st.sampled_from([low, high, min(high, 1 << 63)])


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type, as msgspec describes it; those that a type's own checks refuse are not among them."""
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    match kind:
        case inspect.IntType():
            return _numbers(kind)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.StrType():
            return paths | st.text(max_size=8)
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.LiteralType():
            return st.sampled_from(list(kind.values))
        case inspect.UnionType():
            return st.one_of([_of(option) for option in kind.types])
        case inspect.VarTupleType():
            return st.lists(_of(kind.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*(_of(item) for item in kind.item_types))
        case inspect.StructType():
            return _structs(kind)
    raise NotImplementedError(f"a strategy for {kind}")


def _structs(kind: inspect.StructType) -> st.SearchStrategy[Any]:
    required = {field.name: _of(field.type) for field in kind.fields if field.required}
    optional = {field.name: _of(field.type) for field in kind.fields if not field.required}
    made = st.fixed_dictionaries(required, optional=optional)
    return made.map(lambda fields: _accepted(kind.cls, fields)).filter(lambda value: value is not None)


def _accepted(cls: type, fields: dict[str, Any]) -> Any:
    try:
        return cls(**fields)
    except ValueError:
        return None


events: st.SearchStrategy[Event] = _of(inspect.type_info(Event))


def _frame(seed: int) -> bytes:
    """A page that looks like a page table: mostly empty, else entries."""
    return b"".join(struct.pack("<Q", (seed * n) << 12 | 0x67 if n % 7 == 0 else 0) for n in range(512))


FRAMES = {sha256(page).digest(): zlib.compress(page) for page in map(_frame, range(6))}
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 64, 48) + bytes(20)

embeddings = st.builds(
    lambda places, half, notes: Embedding(
        places, dict.fromkeys(sorted(places)[: len(places) // 2], half), 62, zlib.compress(notes)
    ),
    st.dictionaries(st.integers(0, (1 << 40) - 1), st.sampled_from(sorted(FRAMES)), max_size=5),
    st.binary(min_size=512, max_size=512),
    st.binary(max_size=20),
)
image_files = st.builds(
    ImageFile,
    path=paths,
    size=st.none() | st.integers(0, (1 << 63) - 1),
    sha256=st.none() | st.binary(min_size=32, max_size=32),
    format=names,
    embedded=st.none() | embeddings,
)
configurations: st.SearchStrategy[Configuration] = _of(inspect.type_info(Configuration))
demos: st.SearchStrategy[Demo] = _of(inspect.type_info(Demo))
scenarios = st.builds(Scenario, configurations, st.lists(events, max_size=6).map(tuple), demos)


def tuples(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3).map(tuple)


contents = st.builds(
    Content,
    scenario=scenarios,
    pins=tuples(st.builds(Pin, names, steps, st.none() | st.integers(0, 7))),
    bookmarks=tuples(st.builds(Bookmark, names, steps, st.none() | addresses, views)),
    notes=tuples(st.builds(Note, steps, st.text())),
    images=tuples(image_files),
    frames=st.just(FRAMES),
    view_state=views,
    thumbnail=st.sampled_from([b"", PNG]),
)


def as_json(scenario: Scenario) -> Scenario:
    return codec.decode_scenario(codec.encode_scenario(scenario))
