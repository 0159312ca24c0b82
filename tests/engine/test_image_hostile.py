"""Hostile images: each gives one sentence or the right image, at once and with little memory."""

from __future__ import annotations

import lzma
import os
import struct
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.memory.image import open_image
from tests.conftest import scaled
from tests.elfwriter import Load, core
from tests.engine.hostile import mutant
from tests.mutants import verdicts


def test_mutated_images_are_read_rightly_or_refused_with_a_sentence(tmp_path: Path) -> None:
    total = scaled(2000)
    found = verdicts("tests.engine.hostile", total, tmp_path)
    assert [v["seed"] for v in found] == list(range(total))
    for verdict in found:
        outcome = str(verdict["outcome"])
        if outcome != "opened":
            assert outcome.startswith("mutant-"), verdict
            assert outcome.endswith("."), verdict
            assert "\n" not in outcome, verdict
            assert ". " not in outcome, verdict
        assert float(str(verdict["seconds"])) < 1, verdict
    opened = sum(verdict["outcome"] == "opened" for verdict in found)
    assert total // 10 < opened < total // 2, "the mutations should leave some images whole, and not too many"


def test_a_mutant_is_the_same_whenever_it_is_made() -> None:
    assert all(mutant(seed) == mutant(seed) for seed in range(20))


@pytest.mark.parametrize(
    ("loads", "segments"),
    [
        ([Load(2 * n, b"\xaa") for n in range(65_534)], 65_534),
        ([Load(n << 36, b"\xaa" * 4096) for n in range(4000)], 4000),
    ],
    ids=["one byte each", "scattered over all of physical memory"],
)
def test_very_many_segments_are_still_read(tmp_path: Path, loads: list[Load], segments: int) -> None:
    path = tmp_path / "many.core"
    path.write_bytes(core(loads, xnum=len(loads) + 1))
    with open_image(path) as image:
        assert len(image.segments) == segments
        assert [image.partial(0) is not None, image.frame(0) is not None].count(True) == 1
        assert image.word(4 << 36) == (0xAAAAAAAAAAAAAAAA if segments == 4000 else None)


def test_more_headers_than_are_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.core"
    path.write_bytes(core([Load(2 * n, b"\xaa") for n in range(65_536)], xnum=65_537))
    with pytest.raises(InputError, match="claims 65,537 program headers"):
        open_image(path)


def test_a_bomb_of_zeros_takes_no_room(tmp_path: Path) -> None:
    """200 MiB in 30 KB: unpacked into a file of holes."""
    size = 200 << 20
    path = tmp_path / "bomb.xz"
    head = core([Load(0, b"", filesz=size, offset=0x1000)])
    packer = lzma.LZMACompressor(preset=0)
    with path.open("wb") as file:
        file.write(packer.compress(head.ljust(0x1000, b"\0")))
        for _ in range(size >> 20):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    assert path.stat().st_size < 100_000
    with open_image(path) as image:
        assert image.size == size + 0x1000
        assert os.fstat(image._file.fileno()).st_blocks * 512 < 1 << 20
        assert image.word(size - 8) == 0


def test_headers_that_all_point_at_the_same_place_are_one_segment(tmp_path: Path) -> None:
    path = tmp_path / "same.core"
    path.write_bytes(core([Load(0x1000, b"", offset=0, filesz=64)] * 5000))
    with open_image(path) as image:
        assert len(image.segments) == 1
        assert image.word(0x1000) == struct.unpack("<Q", path.read_bytes()[:8])[0]
