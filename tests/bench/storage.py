"""Opening and saving a large scenario: 10,000 events and 10,000 frames like page tables, a tenth of them new.

The floor is sqlite3 with the same rows, frames compressed beforehand as ours are, and the same two fsyncs.
"""

import os
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec

from engine import events as ev
from engine.arch.rights import Kind
from engine.edits import Insert
from engine.scenario import Scenario
from storage import files, recovery, rows, schema, seal
from storage.content import Content, Embedding, ImageFile
from storage.seal import Rows
from tests.bench.lines import Line, best

COUNT = 10_000
RESOURCE = "resource:image"


def table(random: Random) -> bytes:
    """A page table as Linux leaves them: some runs of entries, the rest empty."""
    words = [0] * 512
    for _ in range(random.randrange(1, 6)):
        start, frame, bits = random.randrange(512), random.getrandbits(34), random.choice([0x67, 0x8000_0000_0000_0063])
        for n in range(start, min(512, start + random.randrange(1, 120))):
            frame = frame + 1 if random.random() < 0.8 else random.getrandbits(34)
            words[n] = frame << 12 | bits
    return struct.pack("<512Q", *words)


def content() -> Content:
    random = Random(7)
    events: list[ev.Event] = [ev.OpenImage(ev.ImageRef(RESOURCE))]
    while len(events) < COUNT:
        address = random.getrandbits(47)
        events.append(
            random.choice(
                [
                    ev.AccessMemory(address, Kind.WRITE, value=random.getrandbits(64)),
                    ev.GuestAccess(address),
                    ev.Poke(address & ~7, random.getrandbits(64)),
                    ev.SetRegister("cr3", address & ~0xFFF),
                ]
            )
        )
    pages = {random.getrandbits(36): table(random) for _ in range(COUNT)}
    frames = {sha256(page).digest(): zlib.compress(page) for page in pages.values()}
    embedded = Embedding({pfn: sha256(page).digest() for pfn, page in pages.items()})
    return Content(Scenario(events=tuple(events)), images=(ImageFile(RESOURCE, embedded=embedded),), frames=frames)


def without_a_tenth(full: Content) -> Content:
    """The document as it was saved last."""
    (file,) = full.images
    assert file.embedded is not None
    pfns = sorted(file.embedded.frames)[: COUNT * 9 // 10]
    places = {pfn: file.embedded.frames[pfn] for pfn in pfns}
    kept = set(places.values())
    return Content(
        Scenario(events=full.scenario.events[: COUNT * 9 // 10]),
        images=(msgspec.structs.replace(file, embedded=Embedding(places)),),
        frames={digest: data for digest, data in full.frames.items() if digest in kept},
    )


def all_rows(full: Content) -> dict[str, Rows]:
    made = rows.of_content(full)
    made["event"] = seal.with_links("event", made["event"])
    return {**made, "seal": seal.seals(made)}


def raw_save(made: dict[str, Rows], path: Path) -> None:
    part = path.with_suffix(".part")
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        for sql in schema.CREATE:
            connection.execute(sql)
        with connection:
            for name, found in made.items():
                if found:
                    connection.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(found[0]))})", found)
    sync(part)
    os.replace(part, path)
    sync(path.parent)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def raw_open(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for name in schema.TABLES:
            connection.execute(f"SELECT * FROM {name}").fetchall()


def lines() -> Iterator[Line]:
    full = content()
    before = without_a_tenth(full)
    made = all_rows(full)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path, raw = Path(folder) / "a.wscope", Path(folder) / "raw"
        old = files.save(before, str(path))

        def save() -> None:
            files.save(full, str(path))

        save_floor = best(lambda: raw_save(made, raw)) * 1e3
        files.save(full, str(path), old)
        saving = best(save) * 1e3
        opening, open_floor = best(lambda: files.open_file(str(path))) * 1e3, best(lambda: raw_open(raw)) * 1e3
        size = path.stat().st_size / (1 << 20)
        peeking = best(lambda: files.peek(str(path))) * 1e3
        yield Line(f"save 10,000 events and frames ({size:.0f} MiB)", saving, "ms", goal="<= 500")
        yield Line("the same, against sqlite3", saving, "ms", floor=save_floor)
        yield Line("open 10,000 events and frames", opening, "ms", goal="<= 300")
        yield Line("the same, against sqlite3", opening, "ms", floor=open_floor)
        yield Line("the thumbnail of that file", peeking, "ms")
        yield Line("an edit, kept for recovery", recording(Path(folder), before, full) * 1e3, "ms", goal="<= 16")


def recording(folder: Path, before: Content, full: Content) -> float:
    """Seconds until an edit of that document is on the disk."""
    session = recovery.begin(folder / "state", before)
    edit = Insert(len(before.scenario.events), full.scenario.events[-1])
    after = msgspec.structs.replace(before, scenario=edit.apply(before.scenario))
    seconds = best(lambda: session.record(after, "an edit", edit), runs=20)
    session.discard()
    return seconds


