"""Mutated images: makes the one of a seed, opens it, and judges what came of it.

``python -m tests.engine.hostile FIRST COUNT FOLDER`` does so for a range of seeds with little memory to spare and
prints one JSON object a line: ``{"seed", "what", "outcome", "seconds"}``. Seconds are of processor time, so that a busy
machine does not count; ``outcome`` is "opened", the sentence of a refusal, or what went wrong.
"""

from __future__ import annotations

import gzip
import json
import lzma
import random
import resource
import struct
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from engine.arch.memory import read
from engine.errors import InputError
from engine.memory.image import Image, open_image
from tests.elfwriter import EM_386, PN_XNUM, Load, core, cpu_note, note

DUMPS = Path(__file__).parent.parent / "data" / "dumps"
MEMORY = 256 << 20
"""Bytes of address space a case may take beyond what the process has before it."""
EXTREMES = (0, 1, 2, 3, 7, 8, 0xFFF, 0x1000, 0x1001, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 51,
            1 << 52, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 0x1000, (1 << 64) - 1)  # fmt: skip


@cache
def originals() -> tuple[bytes, ...]:
    golden = [gzip.decompress(path.read_bytes()) for path in sorted(DUMPS.glob("*.core.gz"))]
    pages = [Load(n * 0x3000, bytes([n]) * 0x1800) for n in range(20)]
    notes = cpu_note(cr3=0x1000) + note("VMCOREINFO", b"OSRELEASE=6.1\n") + cpu_note(cr3=0x2000)
    return (
        *golden,
        core(pages, notes=notes, bits=32, machine=EM_386),
        core(pages, notes=notes, xnum=21),
        core([Load(0xFFC + 3 * n, bytes([n % 256, 1])) for n in range(3000)], notes=notes),
        bytes(0x4000),
    )


Table = tuple[int, int, int, bool]


def table_of(data: bytes) -> Table:
    """Where the program headers are, read by the book and unchecked: offset, size of one, count, whether 64 bits."""
    wide = data[4] == 2
    offset, sections = struct.unpack_from("<QQ" if wide else "<II", data, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    if count == PN_XNUM:
        count = struct.unpack_from("<I", data, sections + (44 if wide else 28))[0]
    return offset, size, count, wide


# --- mutations: each changes the data in place; the table is where the program headers were at first


def flip_anywhere(data: bytearray, r: random.Random, table: Table) -> None:
    for _ in range(r.choice([1, 8, 64])):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def flip_headers(data: bytearray, r: random.Random, table: Table) -> None:
    for _ in range(r.choice([1, 4, 16])):
        data[r.randrange(min(len(data), r.choice([64, 0x1000, 0x2000])))] ^= 1 << r.randrange(8)


def truncate(data: bytearray, r: random.Random, table: Table) -> None:
    del data[r.choice([r.randrange(1, len(data)), r.randrange(1, 256), len(data) - 1]) :]


def lie(data: bytearray, r: random.Random, table: Table) -> None:
    """Puts an extreme number into a field of a program header, or of the file's header."""
    offset, size, count, wide = table
    value = r.choice([*EXTREMES, len(data), len(data) - 1, len(data) + 1])
    if r.random() < 0.2:
        struct.pack_into("<H", data, r.randrange(16, 62, 2), value & 0xFFFF)
        return
    step = 8 if wide else 4
    field = offset + r.randrange(min(count, 4)) * size + r.randrange(step, size, step)
    struct.pack_into("<Q" if wide else "<I", data, field, value & ((1 << (8 * step)) - 1))


def overlap(data: bytearray, r: random.Random, table: Table) -> None:
    """Moves segments onto, or across, each other."""
    offset, size, count, wide = table
    code, at = ("<Q", 24) if wide else ("<I", 12)
    for _ in range(r.choice([1, 3])):
        here, there = (offset + r.randrange(1, count) * size + at for _ in "ab")
        shift = r.choice([0, 1, 8, 0x800, 0x1000, -0x1000])
        value = (struct.unpack_from(code, data, there)[0] + shift) & 0xFFFFFFFF
        struct.pack_into(code, data, here, value)


def make_all_notes(data: bytearray, r: random.Random, table: Table) -> None:
    offset, size, count, _ = table
    for row in range(count):
        struct.pack_into("<I", data, offset + row * size, r.choice([4, 4, 1]))


def splice(data: bytearray, r: random.Random, table: Table) -> None:
    at, length = r.randrange(len(data)), r.choice([1, 4, 0x1000])
    if r.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = r.randbytes(length)


Mutation = Callable[[bytearray, random.Random, Table], None]
MUTATIONS: tuple[Mutation, ...] = (
    flip_anywhere,
    flip_headers,
    flip_headers,
    truncate,
    lie,
    lie,
    lie,
    overlap,
    make_all_notes,
    splice,
)


def quick_xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)  # the others need more memory than a case may take


def mutant(seed: int) -> tuple[str, bytes]:
    """What was done, and the file."""
    r = random.Random(seed)
    number = r.randrange(len(originals()))
    data = bytearray(originals()[number])
    structured = data[:4] == b"\x7fELF"
    table = table_of(bytes(data)) if structured else (0, 0, 0, False)
    mutations = r.sample(MUTATIONS if structured else (flip_anywhere, truncate, splice), r.choice([1, 1, 2]))
    # Those that write into the table go first, while it is where it was.
    for mutation in sorted(mutations, key=lambda m: m not in (lie, overlap, make_all_notes)):
        mutation(data, r, table)
    what = f"original {number}: " + ", ".join(mutation.__name__ for mutation in mutations)
    if r.random() < 0.2:
        data = bytearray(r.choice([gzip.compress, quick_xz])(bytes(data)))
        what += ", packed"
        if r.random() < 0.8:
            after: Mutation = r.choice([flip_anywhere, flip_headers, truncate, splice])
            after(data, r, table)
            what += f", {after.__name__}"
    return what, bytes(data)


# --- judging


def declared(data: bytes) -> list[tuple[int, int, int]]:
    """(address, offset, size) of each PT_LOAD with bytes."""
    offset, size, count, wide = table_of(data)
    loads = []
    for row in range(offset, offset + count * size, size):
        if wide:
            kind, _, at, _, address, length = struct.unpack_from("<IIQQQQ", data, row)
        else:
            kind, at, _, address, length = struct.unpack_from("<5I", data, row)
        if kind == 1 and length:
            loads.append((address, at, length))
    return loads


def check_contents(image: Image, data: bytes) -> None:
    """Every byte that the headers declare is there, and not one more."""
    loads = declared(data) if image.format != "raw" else [(0, 0, len(data))]
    covered = 0
    end = -1
    for address, at, length in sorted(loads):
        assert read(image, address, length) == data[at : at + length], f"contents at {address:#x}"
        covered += max(0, address + length - max(end, address))
        end = max(end, address + length)
    assert sum(high - low for low, high in image.known()) == covered, "known bytes"
    starts = np.array([address & ~7 for address, _, _ in loads], np.uint64)
    probes = (starts.view(np.int64)[:, None] + np.arange(-8, 24, 8)).view(np.uint64).ravel()
    words, unknown = image.gather(probes)
    for address, word, is_unknown in zip(probes.tolist(), words.tolist(), unknown.tolist(), strict=True):
        assert image.word(address) == (None if is_unknown else word), f"gather at {address:#x}"


def unpacked(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return lzma.decompress(data) if data[:6] == b"\xfd7zXZ\0" else data


def judge(path: Path, data: bytes) -> str:
    try:
        with open_image(path) as image:
            check_contents(image, unpacked(data))
            return "opened"
    except InputError as error:
        return str(error)


def main(first: int, count: int, folder: Path) -> None:
    path = folder / f"mutant-{first}.core"
    originals()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for seed in range(first, first + count):
        what, data = mutant(seed)
        path.write_bytes(data)
        started = time.process_time()
        try:
            outcome = judge(path, data)
        except BaseException:  # whatever it is, it is the result
            outcome = "crash: " + traceback.format_exc()
        seconds = time.process_time() - started
        print(json.dumps({"seed": seed, "what": what, "outcome": outcome, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
