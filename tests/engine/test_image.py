"""Images in files: what is in them, what is not, and what is refused with which sentence."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from engine.arch.memory import FRAME_SIZE, read
from engine.arch.registers import Mode
from engine.errors import InputError
from engine.memory import pool, unpack
from engine.memory.image import Image, open_image
from engine.memory.physical import SparseMemory
from tests.elfwriter import EM_386, Load, core, cpu_note, note

DUMPS = Path(__file__).parent.parent / "data" / "dumps"
GOLDEN = ("debian-6.1-4level", "debian-6.1-5level", "debian-6.1-686-pae", "debian-6.1-686")
MODES = dict(zip(GOLDEN, (Mode.LEVEL4, Mode.LEVEL5, Mode.PAE, Mode.LEGACY), strict=True))
Make = Callable[[bytes], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes bytes into a file and gives its path."""

    def write(data: bytes) -> Path:
        path = tmp_path / "guest.core"
        path.write_bytes(data)
        return path

    return write


def page(byte: int) -> bytes:
    return bytes([byte]) * FRAME_SIZE


# --- the golden cores, with pyelftools as the oracle


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_core_holds_exactly_the_segments_that_pyelftools_finds(name: str) -> None:
    oracle = ELFFile(io.BytesIO(gzip.decompress((DUMPS / f"{name}.core.gz").read_bytes())))
    loads = [segment for segment in oracle.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert len(loads) > 10
    with open_image(DUMPS / f"{name}.core.gz") as image:
        assert image.known() == [(s["p_paddr"], s["p_paddr"] + s["p_filesz"]) for s in loads]
        for segment in loads:
            assert read(image, segment["p_paddr"], segment["p_filesz"]) == segment.data()
            words = np.frombuffer(segment.data(), np.uint64)
            addresses = np.arange(words.size, dtype=np.uint64) * np.uint64(8) + np.uint64(segment["p_paddr"])
            values, unknown = image.gather(addresses)
            assert np.array_equal(values, words)
            assert not unknown.any()


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_core_holds_the_registers_that_qemu_reported(name: str) -> None:
    meta = json.loads((DUMPS / f"{name}.meta.json").read_text())
    with open_image(DUMPS / f"{name}.core.gz") as image:
        (cpu,) = image.cpus
        registers = cpu.registers
        for register in ("cr0", "cr2", "cr3", "cr4"):
            assert getattr(registers, register) == int(meta[register], 16), register
        assert registers.cpl == meta["cpl"]
        assert registers.mode is MODES[name]
        assert registers.cs_l == registers.mode.is_long
        shown = 0x500 if registers.mode.is_long else 0  # LME and LMA are known, NXE is assumed, SCE does not matter
        assert registers.efer & 0x500 == int(meta["efer"], 16) & 0x500 == shown
        assert ("EFER.NXE" in cpu.assumed) == (registers.mode is not Mode.LEGACY)
        assert "EFER.LMA" not in cpu.assumed
        assert image.vmcoreinfo["OSRELEASE"] == meta["kernel"]
        assert (image.packing, image.format) == ("gzip", "ELF64 core")


@pytest.mark.parametrize("name", GOLDEN)
def test_every_table_page_of_a_golden_core_is_there(name: str) -> None:
    pages = json.loads(gzip.decompress((DUMPS / f"{name}.pages.json.gz").read_bytes()))
    with open_image(DUMPS / f"{name}.core.gz") as image:
        for address, _levels in pages["table_pages"]:
            assert image.frame(int(address, 16) >> 12 if isinstance(address, str) else address >> 12) is not None


# --- what is known and what is not


def test_bytes_that_only_the_memory_size_promises_are_unknown(make: Make) -> None:
    with open_image(make(core([Load(0x1000, page(1), memsz=0x3000)]))) as image:
        assert image.word(0x1FF8) == 0x0101010101010101
        assert image.frame(2) is None
        assert image.known() == [(0x1000, 0x2000)]


def test_a_segment_with_odd_ends_gives_partly_known_frames(make: Make) -> None:
    with open_image(make(core([Load(0x1FFC, bytes(range(12)))]))) as image:
        assert image.frame(1) is image.frame(2) is None
        assert image.word(0x1FF8) is None
        assert image.word(0x2000) == int.from_bytes(bytes(range(4, 12)), "little")
        assert image.word(0x2008) is None
        assert read(image, 0x1FFC, 12) == bytes(range(12))
        values, unknown = image.gather(np.array([0x1FF8, 0x2000, 0x2008, 0x9000], np.uint64))
        assert unknown.tolist() == [True, False, True, True]
        assert values[1] == image.word(0x2000)


def test_two_segments_that_meet_within_a_frame_make_it_whole(make: Make) -> None:
    with open_image(make(core([Load(0x1804, page(2)[:0x7FC]), Load(0x1000, page(1)[:0x804])]))) as image:
        frame = image.frame(1)
        assert frame is not None
        assert bytes(frame) == page(1)[:0x804] + page(2)[:0x7FC]
        assert image.gather(np.array([0x1800], np.uint64))[0].tolist() == [0x0202020201010101]


def test_the_same_bytes_named_twice_are_no_conflict(make: Make) -> None:
    """QEMU's dump with paging lists physical memory once for each place where it is mapped."""
    loads = [Load(0x1000, page(1) + page(2), vaddr=0x400000)]
    data = core(loads)
    at = data.index(page(1))
    at += 2 * 56  # there will be two headers more
    upper = Load(0x2000, b"", vaddr=0x800000, offset=at + FRAME_SIZE, filesz=FRAME_SIZE)
    inner = Load(0x1008, b"", vaddr=0xC00000, offset=at + 8, filesz=8)
    with open_image(make(core([*loads, upper, inner]))) as image:
        assert image.known() == [(0x1000, 0x3000)]
        assert image.word(0x2000) == 0x0202020202020202


def test_a_segment_without_bytes_may_have_any_offset(make: Make) -> None:
    """QEMU writes offset -1 for what it mapped but does not dump."""
    empty = Load(0xFEE00000, b"", offset=2**64 - 1, filesz=0, memsz=0x1000)
    with open_image(make(core([Load(0, page(1)), empty]))) as image:
        assert image.known() == [(0, 0x1000)]


def test_raw_memory_starts_at_address_0_and_has_no_registers(make: Make) -> None:
    with open_image(make(bytes(8) + b"\x07" + bytes(2 * FRAME_SIZE - 9))) as image:
        assert (image.format, image.cpus, image.packing) == ("raw", (), "")
        assert image.word(8) == 7
        assert image.known() == [(0, 2 * FRAME_SIZE)]
        assert image.frame(2) is None


def test_words_are_where_gather_finds_them_in_frames_read_in_runs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FRAMES", 40)
    monkeypatch.setattr(pool, "BLOCK", 32)
    words = np.random.default_rng(5).integers(0, 2**64, 100 * 512, np.uint64)
    low, high = words[: 60 * 512].tobytes(), words[60 * 512 :].tobytes()
    lanes = np.random.default_rng(6).permutation(words.size).astype(np.uint64)
    addresses = lanes * np.uint64(8) + np.uint64(0x10000)
    # Neighbours in memory, but not in the file.
    loads = [Load(0x10000, low), Load(0x900000, page(0xEE) * 50), Load(0x10000 + len(low), high)]
    with open_image(make(core(loads))) as image:
        for part in (slice(0, 300), slice(100, 2000), slice(0, 300)):
            values, unknown = image.gather(addresses[part])
            assert np.array_equal(values, words[lanes[part].astype(np.int64)])
            assert not unknown.any()


def test_edits_lie_over_an_image_and_never_reach_the_file(make: Make) -> None:
    path = make(core([Load(0x1000, page(1))]))
    before = path.read_bytes()
    with open_image(path) as image:
        edited = SparseMemory(image).with_words({0x1008: 5, 0x7000: 6})
        assert [edited.word(a) for a in (0x1000, 0x1008, 0x7000, 0x7008)] == [0x0101010101010101, 5, 6, None]
        assert image.word(0x1008) == 0x0101010101010101
        assert edited.known() == [(0x1000, 0x2000), (0x7000, 0x7008)]
    assert path.read_bytes() == before


# --- registers


def only_cpu(make: Make, note_of_cpu: bytes, **options: int) -> tuple[object, ...]:
    with open_image(make(core([Load(0, page(0))], notes=note_of_cpu, **options))) as image:
        (cpu,) = image.cpus
        r = cpu.registers
        return r.mode, r.cpl, r.cs_l, cpu.assumed


@pytest.mark.parametrize(
    ("cpu", "machine", "expected"),
    [
        ({}, 62, (Mode.LEVEL4, 0, True, ("EFER.NXE",))),
        ({"cr4": 0x1020, "cs": 0x33}, 62, (Mode.LEVEL5, 3, True, ("EFER.NXE",))),
        ({"cr4": 0x400020}, 62, (Mode.LEVEL4, 0, True, ("EFER.NXE", "PKRU"))),
        ({"cr4": 0x1000020}, 62, (Mode.LEVEL4, 0, True, ("EFER.NXE", "PKRS"))),
        ({"cs_flags": 0xC09B00}, 62, (Mode.LEVEL4, 0, False, ("EFER.NXE",))),
        ({}, EM_386, (Mode.PAE, 0, False, ("EFER.NXE",))),
        ({"cr4": 0}, EM_386, (Mode.LEGACY, 0, False, ())),
        ({"cr0": 0x11, "cs": 0xB}, EM_386, (Mode.NONE, 3, False, ())),
        ({"cr0": 0x10, "cs": 0xF003}, EM_386, (Mode.NONE, 0, False, ())),  # real mode: CS is no selector
        ({"cr4": 0, "cs": 0xF000, "rflags": 0x20002}, EM_386, (Mode.LEGACY, 3, False, ())),  # virtual-8086
    ],
)
def test_mode_and_privilege_follow_from_the_notes(
    make: Make, cpu: dict[str, int], machine: int, expected: tuple[object, ...]
) -> None:
    assert only_cpu(make, cpu_note(**cpu), machine=machine) == expected


def test_of_several_cpus_only_the_first_is_known_to_be_in_long_mode(make: Make) -> None:
    notes = cpu_note(cr3=0x1000) + cpu_note(cr3=0x2000, rip=0x1234)
    with open_image(make(core([Load(0, page(0))], notes=notes))) as image:
        assert [cpu.registers.cr3 for cpu in image.cpus] == [0x1000, 0x2000]
        assert ["EFER.LMA" in cpu.assumed for cpu in image.cpus] == [False, True]
        assert dict(image.cpus[1].pointers)["RIP"] == 0x1234


@pytest.mark.parametrize("bad", [cpu_note(version=2), note("QEMU", b"\1\0\0\0\x10\0\0\0" + bytes(8))])
def test_a_cpu_state_that_is_not_understood_leaves_the_memory_readable(make: Make, bad: bytes) -> None:
    with open_image(make(core([Load(0, page(3))], notes=cpu_note() + bad))) as image:
        assert image.cpus == ()
        assert image.word(0) == 0x0303030303030303


def test_a_32_bit_core_is_read_like_a_64_bit_one(make: Make) -> None:
    notes = cpu_note(cr3=0x5000, cr4=0x10) + note("VMCOREINFO", b"OSRELEASE=6.1\nNUMBER(x)=-1\nno equals sign\n")
    with open_image(make(core([Load(0xFFFF0000, page(9))], notes=notes, bits=32, machine=EM_386))) as image:
        assert image.format == "ELF32 core"
        assert image.cpus[0].registers.cr3 == 0x5000
        assert image.vmcoreinfo == {"OSRELEASE": "6.1", "NUMBER(x)": "-1"}
        assert image.word(0xFFFF0000) == 0x0909090909090909


@pytest.mark.parametrize("bits", [32, 64])
def test_a_count_of_headers_that_needs_more_than_16_bits_is_in_the_first_section_header(make: Make, bits: int) -> None:
    loads = [Load(n * 2 * FRAME_SIZE, page(n)) for n in range(5)]
    with open_image(make(core(loads, bits=bits, xnum=6))) as image:
        assert len(image.segments) == 5


# --- packed images


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_packed_image_is_unpacked_whatever_its_streams(make: Make, pack: Callable[[bytes], bytes]) -> None:
    data = core([Load(0, page(1) + bytes(3 << 20) + os.urandom(1 << 20) + page(2))], notes=cpu_note())
    middle = len(data) // 2
    steps: list[tuple[int, int]] = []
    path = make(pack(data[:middle]) + pack(data[middle:]) + bytes(512))
    with open_image(path, progress=lambda done, total: steps.append((done, total))) as image:
        assert image.size == len(data)
        assert read(image, 0, 4 << 20) == data[-(4 << 20) - 2 * FRAME_SIZE :][: 4 << 20]
    assert steps == sorted(steps)
    assert steps[-1] == (path.stat().st_size,) * 2


def test_unpacking_can_be_cancelled_from_its_progress(make: Make) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        open_image(make(gzip.compress(core([Load(0, page(1))]))), progress=cancel)


def huge_dictionary() -> bytes:
    """An xz stream whose header wants a dictionary of 4 GiB."""
    data = bytearray(lzma.compress(core([Load(0, page(1))])))
    end = 12 + (data[12] + 1) * 4
    data[12 + 4] = 40
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    return bytes(data)


PACKED = {
    "damaged gzip": (gzip.compress(page(1))[:-8] + bytes(8), "gzip data are damaged"),
    "cut gzip": (gzip.compress(os.urandom(FRAME_SIZE))[:-9], "gzip data are cut off"),
    "damaged xz": (lzma.compress(page(1))[:-20] + bytes(20), "xz data are damaged"),
    "cut xz": (lzma.compress(page(1))[:-13], "xz data are cut off"),
    "greedy xz": (huge_dictionary(), "Memory usage limit"),
    "only a magic": (b"\x1f\x8b", "gzip data are cut off"),
    "nothing inside": (gzip.compress(b""), "nothing comes out"),
    "packed twice": (gzip.compress(lzma.compress(page(1))), "packed twice"),
    "packed text": (gzip.compress(b"some text\n"), "text file"),
    "packed odd bytes": (gzip.compress(bytes(5000)), "no raw memory"),
}


@pytest.mark.parametrize(("data", "words"), PACKED.values(), ids=PACKED)
def test_a_packed_file_that_holds_no_image_is_refused(make: Make, data: bytes, words: str) -> None:
    refused(make(data), words)


def test_more_than_the_limit_does_not_come_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_UNPACKED", 4 << 20)
    refused(make(gzip.compress(bytes(5 << 20))), "more than 4 MiB come out")


def test_the_disk_is_not_filled_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "ROOM_LEFT", 1 << 62)
    refused(make(gzip.compress(page(1))), "not enough room")


# --- refusals


def refused(path: str | Path, words: str) -> None:
    """Opening fails with one sentence that starts with the file's name and contains ``words``."""
    with pytest.raises(InputError) as caught:
        open_image(path)
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.startswith(f"{Path(path).name}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert ". " not in sentence


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


ONE = core([Load(0x1000, page(1))], notes=cpu_note())
REFUSED = {
    "empty": (b"", "empty"),
    "text": ("Grüße\tfrom a log\r\n".encode() * 200, "text file"),
    "text, cut within a letter": (("x" * 4095 + "é").encode() + b"more", "text file"),
    "odd size": (bytes(5001), "no raw memory"),
    "PE": (b"MZ" + bytes(FRAME_SIZE - 2), "Windows or DOS program"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(FRAME_SIZE - 8), "PNG picture"),
    "flattened kdump": (b"makedumpfile\0\0\0\0" + bytes(FRAME_SIZE - 16), "flattened kdump"),
    "kdump": (b"KDUMP   " + bytes(FRAME_SIZE - 8), "compressed kdump"),
    "LiME": (b"EMiL" + bytes(FRAME_SIZE - 4), "LiME"),
    "scenario": (b"SQLite format 3\0" + bytes(FRAME_SIZE - 16), "scenario"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(FRAME_SIZE - 4), "zstd"),
    "first word damaged": (patched(ONE, 1, b"F"), "damaged first word"),
    "header cut": (ONE[:10], "header is cut off"),
    "header cut later": (ONE[:40], "header is cut off"),
    "class": (patched(ONE, 4, b"\x03"), "unknown class"),
    "version": (patched(ONE, 6, b"\x02"), "unknown class, byte order or version"),
    "big-endian": (patched(ONE, 5, b"\x02"), "big-endian"),
    "a program": (core([Load(0, page(1))], kind=2), "is a program"),
    "strange type": (core([Load(0, page(1))], kind=77), "unknown type 77"),
    "Arm": (core([Load(0, page(1))], machine=183), "of Arm"),
    "strange machine": (core([Load(0, page(1))], machine=999), "machine type 999"),
    "no memory": (core([]), "holds no memory"),
    "process": (core([Load(0, page(1), vaddr=0x400000), Load(0, page(2), vaddr=0x7F0000)]), "core of a process"),
    "truncated": (ONE[:-1], "cut off or damaged"),
    "headers cut": (ONE[:100], "program headers reach beyond"),
    "entry size": (patched(ONE, 54, b"\x20\0"), "program headers of 32 bytes"),
    "too many headers": (core([Load(0, page(1))], xnum=1 << 31), "claims 2,147,483,648"),
    "no section header": (
        patched(patched(ONE, 40, (1 << 40).to_bytes(8, "little")), 56, b"\xff\xff"), "section header beyond the end",
    ),
    "endless segment": (core([Load(0, page(1), filesz=1 << 63)]), "cut off or damaged"),
    "offset far away": (core([Load(0, page(1), offset=1 << 63)]), "cut off or damaged"),
    "more bytes than memory": (core([Load(0, page(1), memsz=8)]), "more bytes in the file"),
    "address beyond 52 bits": (core([Load((1 << 52) - 8, page(1))]), "beyond 52-bit"),
    "contradiction": (core([Load(0x1000, page(1)), Load(0x1800, page(2))]), "different contents to address 0x1800"),
    "note too long": (core([Load(0, page(1))], notes=b"\5\0\0\0\xff\xff\xff\xff" + bytes(44)), "a note is larger"),
    "notes without end": (core([Load(0, page(1))], notes=bytes(12) * 70_000), "no end of them"),
    "kernel info too long": (core([Load(0, page(1))], notes=note("VMCOREINFO", bytes(1 << 17))), "VMCOREINFO"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_refused_with_its_reason(make: Make, data: bytes, words: str) -> None:
    refused(make(data), words)


def test_notes_that_reach_beyond_the_file_are_refused(make: Make) -> None:
    row = 64  # the first program header is that of the notes
    refused(make(patched(ONE, row + 32, (1 << 20).to_bytes(8, "little"))), "notes reach beyond")
    refused(make(patched(ONE, row + 32, (1 << 40).to_bytes(8, "little"))), "16 MiB of notes")


def test_folders_pipes_devices_and_missing_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path, "a folder")
    refused(tmp_path / "pipe", "a device or a pipe")
    refused("/dev/zero", "a device or a pipe")
    refused(tmp_path / "none", "no such file")
    refused(tmp_path / ("x" * 300), "File name too long")
    with pytest.raises(InputError, match="zero byte"):
        open_image("a\0b")


def test_a_file_that_may_not_be_read_is_refused(make: Make) -> None:
    path = make(page(1))
    path.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read everything
    try:
        refused(path, "may not read")
    finally:
        os.seteuid(user)


def test_a_name_of_any_bytes_makes_a_sentence_of_one_line(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\nb\xff.core")
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value).startswith("a�b�.core: ")


# --- a file that changes or goes away while it is open


def test_a_file_that_shrinks_loses_bytes_and_says_so(make: Make) -> None:
    path = make(page(1) + page(2) + page(3))
    with open_image(path) as image:
        assert image.word(0x2000) == 0x0303030303030303
        os.truncate(path, 0x1808)
        assert image.frame(1) is None
        assert image.word(0x1800) == 0x0202020202020202
        assert image.word(0x1808) is None
        assert "became shorter" in image.damaged
        _, unknown = image.gather(np.array([0x0, 0x1800, 0x1808], np.uint64))
        assert unknown.tolist() == [False, False, True]


def test_reading_a_closed_image_is_misuse(make: Make) -> None:
    image = open_image(make(page(1)))
    image.close()
    with pytest.raises(ValueError, match="closed file"):
        image.frame(0)


def test_an_image_that_is_forgotten_closes_its_file(make: Make) -> None:
    before = len(os.listdir("/proc/self/fd"))
    image: Image | None = open_image(make(page(1)))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del image
    assert len(os.listdir("/proc/self/fd")) == before


def test_64_gib_with_holes_are_opened_and_gathered_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.raw"
    size = 64 << 30
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 8)
        file.write(b"\x2a" + bytes(7))
    with open_image(path) as image:
        lanes = np.array([0, size // 2, size - 8, size], np.uint64)
        values, unknown = image.gather(lanes)
        assert values.tolist() == [0, 0, 0x2A, 0]
        assert unknown.tolist() == [False, False, False, True]
