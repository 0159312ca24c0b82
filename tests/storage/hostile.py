"""Mutated scenario files: makes the one of a seed, opens it, and judges what came of it.

``python -m tests.storage.hostile FIRST COUNT FOLDER`` does so for a range of seeds with little memory to spare and
prints one JSON object a line: ``{"seed", "what", "outcome", "seconds"}``. Seconds are of processor time, so that a busy
machine does not count; ``outcome`` is "opened", the sentence of a refusal, or what went wrong.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sqlite3
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from engine import events as ev
from engine.arch.rights import Kind
from engine.demo import Demo, Stop
from engine.errors import InputError
from engine.scenario import Scenario
from storage import container, embedding, files, images, schema, seal
from storage.content import Bookmark, Content, Embedding, ImageFile, Note, Pin
from tests.storage import strategies

MEMORY = 256 << 20
"""Bytes of address space a case may take beyond what the process has before it."""
PATH = "/scenarios/here/a.core"


@cache
def document() -> Content:
    """One of everything."""
    r = random.Random(7)
    events: list[ev.Event] = [ev.OpenImage(ev.ImageRef(PATH, 4096)), ev.BootHost(), ev.LoadKvm(), ev.CreateVm()]
    for n in range(150):
        events.append(ev.Poke(address=8 * n, value=r.getrandbits(64)))
        events.append(ev.AccessMemory(r.getrandbits(64), r.choice(list(Kind))))
    places = {r.getrandbits(40): r.choice(sorted(strategies.FRAMES)) for _ in range(60)}
    embedded = Embedding(places, {min(places): b"\x0f" * 512}, 62, zlib.compress(b""))
    return Content(
        scenario=Scenario(
            events=tuple(events), demo=Demo("All", "✓", (Stop(1, "Boot", "Here it begins."), Stop(300, "End", "✓")))
        ),
        pins=(Pin("A", 1), Pin("B", 100, 1)),
        bookmarks=tuple(Bookmark(f"mark {n}", n, r.getrandbits(64), {"zoom": n / 3}) for n in range(20)),
        notes=tuple(Note(n, "Why is it so? " * n) for n in range(30)),
        images=(ImageFile(PATH, 4096, bytes(32), "raw", embedded),),
        frames=strategies.FRAMES,
        view_state={"docks": [1, 2, 3], "theme": "dark"},
        thumbnail=strategies.PNG,
    )


@cache
def originals() -> tuple[bytes, ...]:
    """The document as we write it, and as SQLite itself would: in smaller pages, and with free ones."""
    data = container.pack(images.relative(document(), strategies.FOLDER))
    small = in_sqlite(data, "PRAGMA page_size = 512", "VACUUM")
    return data, small, in_sqlite(small, "CREATE TABLE x AS SELECT * FROM event", "DROP TABLE x")


def in_sqlite(data: bytes, *statements: str) -> bytes:
    """What a file of ``data`` holds after some statements."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with closing(sqlite3.connect(file.name, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        return Path(file.name).read_bytes()


# --- mutations of bytes: what is opened after them must be the document


def flip_anywhere(data: bytearray, r: random.Random) -> None:
    for _ in range(r.choice([1, 1, 8, 64])):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def flip_header(data: bytearray, r: random.Random) -> None:
    for _ in range(r.choice([1, 2, 8])):
        data[r.randrange(r.choice([16, 100, 108, 4096]))] ^= 1 << r.randrange(8)


def truncate(data: bytearray, r: random.Random) -> None:
    del data[r.choice([r.randrange(len(data)), r.randrange(200), len(data) - 1, len(data) // 4096 * 2048]) :]


def append(data: bytearray, r: random.Random) -> None:
    data += r.randbytes(r.choice([1, 512, 4096, 100_000]))


def page_size(data: bytearray) -> int:
    return int.from_bytes(data[16:18], "big")


def splice_pages(data: bytearray, r: random.Random) -> None:
    """Pages change places, or one is there twice."""
    size = page_size(data)
    one, other = (r.randrange(len(data) // size) * size for _ in "ab")
    first, second = data[one : one + size], data[other : other + size]
    data[one : one + size] = second
    if r.random() < 0.5:
        data[other : other + size] = first


def splice_bytes(data: bytearray, r: random.Random) -> None:
    at, length = r.randrange(len(data)), r.choice([1, 4, 512])
    if r.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = r.randbytes(length)


def lie_in_page(data: bytearray, r: random.Random) -> None:
    """An extreme number in the head of a page or among its pointers: cells elsewhere, children that are parents."""
    size = page_size(data)
    at = r.randrange(len(data) // size) * size + r.choice([*range(12), r.randrange(12, 200)])
    value = r.choice([0, 1, 2, 3, 0xFF, 0xFFFF, 0x7FFF_FFFF, r.randrange(len(data) // size)])
    width = r.choice([1, 2, 4])
    data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "big")


def zero_a_sector(data: bytearray, r: random.Random) -> None:
    at = r.randrange(len(data) // 512) * 512
    data[at : at + 512] = bytes(512)


# --- databases that somebody made: a scenario that can be saved again, or a sentence

Change = Callable[[sqlite3.Connection, random.Random], None]

SCHEMAS = (
    "CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event; END",
    "CREATE VIEW v AS SELECT * FROM event",
    "CREATE INDEX i ON event (body)",
    "CREATE TABLE more (a)",
    "CREATE TABLE evil (a INTEGER CHECK (length(randomblob(1000000000)) > a)) STRICT",
    "CREATE TABLE evil (a INTEGER, b TEXT GENERATED ALWAYS AS (hex(zeroblob(100000000)))) STRICT",
    "CREATE TABLE evil (a INTEGER DEFAULT (abs(-9223372036854775808))) STRICT",
    "CREATE VIRTUAL TABLE f USING fts5(a)",
    "ALTER TABLE pin ADD COLUMN x TEXT",
    "ALTER TABLE note RENAME TO notes",
    "DROP TABLE seal",
    "DROP TABLE event",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'pin'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'note'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'view' WHERE name = 'note'",
    "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'frame'",
    "PRAGMA application_id = 7",
    "PRAGMA user_version = 131072",
    "PRAGMA user_version = 7",
    "PRAGMA user_version = 65543; CREATE TABLE evil (a INTEGER CHECK (a > 1)) STRICT",
    "PRAGMA user_version = 65543; CREATE TRIGGER t AFTER INSERT ON pin BEGIN DELETE FROM event; END",
)


def change_schema(connection: sqlite3.Connection, r: random.Random) -> None:
    connection.executescript(r.choice(SCHEMAS))


BODIES = (
    "", "[]", "{}", "null", "{", '{"type":"Poke"}', '{"type":"Nothing"}', "[" * 100_000, '{"a":' * 50_000,
    '{"type":"Poke","address":"0x0","value":' + "9" * 5000 + ',"size":8}', '{"type":"ChooseCpu","cpu":1e400}',
    '{"type":"ChooseCpu","cpu":NaN}', '{"type":"ChooseCpu","cpu":18446744073709551616}',
    '{"type":"Poke","address":"0x10000000000000000","value":"0x0"}', '{"type":"ChooseCpu","cpu":1,"cpu":true}',
    '{"type":"LoadKvm","kernel":"\\ud800"}', '{"type":"OpenImage","image":{"path":"/etc/passwd"}}',
    '{"type":"OpenImage","image":{"path":"' + "../" * 3000 + '"}}', "\0", "💥",
    '{"type":"CreateVm"},{"type":"CreateVm"}', '{"type":"ChooseCpu","cpu":-1}',
    '{"type":"FillGuestPages","gpa":"0x0","words":[' + ",".join(['"0x1"'] * 100_000) + "]}", " " * 1_000_000,
)  # fmt: skip


def evil_event(connection: sqlite3.Connection, r: random.Random) -> None:
    number = r.randrange(1, 300)
    connection.execute("UPDATE event SET body = ? WHERE number = ?", (r.choice(BODIES), number))


VALUES = (
    "0", "-1", "9223372036854775807", "''", "'x'", "'{}'", "'[[[['", "'[1e999]'", "x''", "zeroblob(32)",
    "zeroblob(512)", "zeroblob(4000)", "'0x8000000000000000'", "'0x10000000000000000'", "'0X1'", "NULL", "'%00'",
    "printf('%.*c', 3000000, '[')", "printf('%.*c', 1000, '[')", "'\"' || printf('%.*c', 900000, 'x') || '\"'",
    "'resource:../x'", "'%2e%2e%2fx'", "CAST(x'ff' AS TEXT)", "'{\"a\":NaN}'",
)  # fmt: skip


def evil_value(connection: sqlite3.Connection, r: random.Random) -> None:
    """Any value in any column of one row."""
    table = r.choice(list(schema.TABLES.values()))
    column = r.choice(table.columns.keys())
    value = r.choice(VALUES)
    one = table.name not in schema.KEYS and ("printf" in value or r.random() < 0.7)
    where = f"number = {r.choice([1, 2, r.randrange(1, 300)])}" if one else "1"
    connection.execute(f"UPDATE OR IGNORE {table.name} SET {column} = {value} WHERE {where}")


def missing_rows(connection: sqlite3.Connection, r: random.Random) -> None:
    table = r.choice(list(schema.TABLES))
    connection.execute(f"DELETE FROM {table} WHERE {r.choice(['1', 'number % 3 = 0', 'number > 5'])}")


def bomb(connection: sqlite3.Connection, r: random.Random) -> None:
    """Frames and notes that unpack to far more than they may."""
    size = r.choice([4097, 1 << 20, 4 << 20])
    packed, digest = zlib.compress(bytes(size), 9), sha256(bytes(size)).digest()
    kind = r.randrange(3)
    if kind == 0:
        connection.execute("UPDATE frame SET data = ?", (packed[:4160],))
    elif kind == 1:
        connection.execute("UPDATE frame SET data = ?, sha256 = ? WHERE number = 1", (packed, digest))
    else:
        connection.execute("UPDATE image SET notes = ?", (zlib.compress(bytes(200 << 20), 1),))


def seal_again(connection: sqlite3.Connection) -> None:
    """Whoever tampers with a file can compute checksums too."""
    with container.core(connection) as run, run.begin():
        tables = container.read_tables(run, (table for name, table in schema.TABLES.items() if name != "seal"))
        tables["event"] = seal.with_links("event", [row[:-1] for row in tables["event"]])
        for name, found in {"event": tables["event"], "seal": seal.seals(tables)}.items():
            run.execute(schema.TABLES[name].delete())
            container._insert(run, schema.TABLES[name], found)


BYTES = (
    flip_anywhere, flip_anywhere, flip_header, truncate, append, splice_pages, splice_bytes, lie_in_page, zero_a_sector,
)  # fmt: skip
CHANGES: tuple[Change, ...] = (change_schema, evil_event, evil_value, evil_value, missing_rows, bomb)


def mutant(seed: int) -> tuple[bytes, str]:
    r = random.Random(seed)
    original = r.choice(originals())
    if r.random() < 0.6:
        mutate = r.choice(BYTES)
        data = bytearray(original)
        mutate(data, r)
        return bytes(data), mutate.__name__
    change = r.choice(CHANGES)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(original)
        while connection.total_changes == 0:
            with suppress(sqlite3.Error):  # what SQLite itself refuses is tried otherwise
                change(connection, r)
            if change is change_schema:
                return connection.serialize(), change.__name__
        with suppress(SQLAlchemyError, UnicodeError):  # rows that cannot even be read are left without a seal
            seal_again(connection)
        return connection.serialize(), change.__name__


# --- judging


def judge(path: Path, what: str) -> str:
    """What became of the file: "opened", a sentence, or something that must not be."""
    before = path.read_bytes()
    try:
        opened = files.open_file(str(path))
        files.peek(str(path))
        for image in opened.content.images:
            if image.embedded:
                embedding.rebuild(opened.content, image).close()
    except InputError as error:
        outcome = str(error)
    else:
        outcome = judge_opened(opened.content, what, path.parent)
    if path.read_bytes() != before or os.listdir(path.parent) != [path.name]:
        return "opening it wrote something"
    return outcome


def judge_opened(content: Content, what: str, folder: Path) -> str:
    if what in {mutation.__name__ for mutation in BYTES}:
        same = images.relative(content, str(folder)) == images.relative(document(), strategies.FOLDER)
        return "opened" if same else "silently changed"
    if what == change_schema.__name__:
        return "a foreign schema was opened"
    again, _ = container.unpack(container.pack(content))
    return "opened" if again == content else "cannot be saved as it was opened"


def main(first: str, count: str, folder: str) -> None:
    originals()
    place = Path(folder) / "mutant"
    place.mkdir(exist_ok=True)
    judge_first(place)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    for seed in range(int(first), int(first) + int(count)):
        data, what = mutant(seed)
        path = place / "mutant.wscope"
        path.write_bytes(data)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        start = time.process_time()
        try:
            outcome = judge(path, what)
        except BaseException:  # whatever it is, the test wants to see it
            outcome = traceback.format_exc()
        seconds = time.process_time() - start
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(json.dumps({"seed": seed, "what": what, "outcome": outcome, "seconds": seconds}), flush=True)


def judge_first(place: Path) -> None:
    """Opens the originals, so that what is imported and compiled only once is not charged to a mutant."""
    for data in originals():
        path = place / "mutant.wscope"
        path.write_bytes(data)
        assert judge(path, "flip_anywhere") == "opened"


if __name__ == "__main__":
    main(*sys.argv[1:])
