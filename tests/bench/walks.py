"""The explaining walker against a bare loop of the same walk; the whole ``map`` of a real kernel's tables."""

from collections.abc import Iterator

import msgspec
import numpy as np

from engine.arch.mappings import mappings
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import bind
from engine.arch.registers import RFLAGS_AC, Features
from engine.arch.walk import walk
from engine.memory.image import open_image
from tests.bench.lines import Line, best
from tests.conftest import ROOT

CORE = ROOT / "resources" / "images" / "debian-6.1-4level.core.gz"
COUNT = 20_000


def bare(words: memoryview, root: int, addresses: list[int]) -> int:
    """The same walk with nothing kept: four indexed reads of a flat memory, present bits and large pages."""
    total = 0
    for va in addresses:
        base = root
        for shift in (39, 30, 21, 12):
            entry = words[(base + ((va >> shift & 511) << 3)) >> 3]
            if not entry & 1:
                break
            base = entry & 0x000F_FFFF_FFFF_F000
            if shift == 12 or (entry & 0x80 and shift < 39):
                total ^= base | va & ((1 << shift) - 1)
                break
    return total


def lines() -> Iterator[Line]:
    with open_image(str(CORE)) as image:
        # A supervisor that may touch user pages, so that every walk goes through, as those of the bare loop do.
        registers = msgspec.structs.replace(image.cpus[0].registers, cpl=0, rflags=int(RFLAGS_AC))
        paging = bind(registers, Features())
        found = mappings(image, paging)
        rng = np.random.default_rng(1)
        rows = rng.integers(0, len(found), COUNT)
        addresses = [int(va) + 0x123 for va in found.va[rows]]
        end = max(segment.end for segment in image.segments)
        flat = np.zeros(end >> 3, np.uint64)
        for segment in image.segments:
            for pfn in range(segment.start >> 12, segment.end >> 12):
                frame = image.frame(pfn)
                if frame is not None:
                    flat[pfn << 9 : (pfn + 1) << 9] = frame
        words = memoryview(flat)
        floor = COUNT / best(lambda: bare(words, paging.root, addresses), 3)
        ours = COUNT / best(lambda: [walk(image, paging, va) for va in addresses], 3)
        yield Line("explaining walks, all steps kept", ours, "walks/s", floor, ">= 0.15")
        yield Line("map of the 4-level dump", best(lambda: mappings(image, paging)) * 1e3, "ms")
    yield _two_dimensional()
    yield _three_stages()


def _two_dimensional() -> Line:
    from tests.engine.nested_fixture import LA, walk_npt

    made = walk_npt()
    assert made.second is not None
    from engine.memory.physical import ZERO, SparseMemory
    from tests.engine.nested_fixture import fixture

    memory, second = SparseMemory(ZERO).with_words(fixture("npt")), made.second
    seconds = best(lambda: [walk_nested(memory, made.paging, second, LA) for _ in range(2_000)], 3)
    return Line("explaining two-dimensional walks of 24 references", 2_000 / seconds, "walks/s")


def _three_stages() -> Line:
    from tests.engine.three_stages import system

    made = system()
    seconds = best(lambda: [made.walk() for _ in range(400)], 3)
    return Line("explaining walks of three stages, 124 references", 400 / seconds, "walks/s")
