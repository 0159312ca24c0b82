"""The page tables of four Linux guests (4-level, 5-level, PAE, 32-bit), and what QEMU's monitor says of them.

``gva2gpa`` checks presence only; ``info tlb`` lists every mapped page with the flags of its last entry, ``info mem``
ranges with the rights of all entries. The walker, the array walker and the enumeration must each agree with all of it.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from engine.arch.arrays import Code
from engine.arch.bits import bit
from engine.arch.bulk import translate
from engine.arch.faults import GeneralProtection
from engine.arch.mappings import stream
from engine.arch.paging import Paging, bind
from engine.arch.registers import Features, with_pdptes
from engine.arch.rights import READ
from engine.arch.walk import Rule, walk
from engine.cli.listing import Run, runs
from engine.memory.image import Image, open_image

DUMPS = Path(__file__).parent.parent / "data" / "dumps"
FLAGS = {
    "X": bit(63),
    "G": bit(8),
    "P": bit(7),
    "D": bit(6),
    "A": bit(5),
    "C": bit(4),
    "T": bit(3),
    "U": bit(2),
    "W": bit(1),
}
"""The letters of ``info tlb``. P is bit 7: a large page, or PAT in a page table's entry."""


class Dump(NamedTuple):
    name: str
    image: Image
    paging: Paging
    pages: dict[int, tuple[int, str]]
    """``info tlb``: physical address and flags of each page, by virtual address."""


@pytest.fixture(scope="module", params=["4level", "5level", "686-pae", "686"])
def dump(request: pytest.FixtureRequest) -> Iterator[Dump]:
    name = f"debian-6.1-{request.param}"
    with open_image(DUMPS / f"{name}.core.gz") as image:
        registers = with_pdptes(image.cpus[0].registers, image)
        yield Dump(name, image, bind(registers, Features()), dict(_info_tlb(name)))


def _unpacked(name: str) -> str:
    return gzip.decompress((DUMPS / name).read_bytes()).decode()


def _info_tlb(name: str) -> Iterator[tuple[int, tuple[int, str]]]:
    for line in _unpacked(f"{name}.infotlb.txt.gz").splitlines():
        if line.strip():
            va, pa, flags = line.replace(":", "").split()
            # In PAE mode QEMU prints the physical address with the entry's NX bit.
            yield int(va, 16), (int(pa, 16) & ~bit(63), flags)


def test_every_answer_of_gva2gpa(dump: Dump) -> None:
    rows = json.loads(_unpacked(f"{dump.name}.gva2gpa.json.gz"))["rows"]
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) > 4_500
    assert kinds["mapped"] > 1_000
    addresses = [int(row["va"], 16) for row in rows]
    found = translate(dump.image, dump.paging, np.array(addresses, np.uint64), access=None)
    for row, pa, code in zip(rows, found.physical.tolist(), found.code.tolist(), strict=True):
        assert (hex(pa) if code == Code.OK else None) == row["pa"], row


def test_the_walker_reaches_what_gva2gpa_gives(dump: Dump) -> None:
    """Rights and reserved bits aside: where the walk ends at a page, allowed or denied."""
    for row in json.loads(_unpacked(f"{dump.name}.gva2gpa.json.gz"))["rows"]:
        result = walk(dump.image, dump.paging, int(row["va"], 16))
        last = result.steps[-1] if result.steps else None
        if row["pa"] is None:
            assert last is None or last.rule is Rule.NOT_PRESENT, row
            assert last is not None or isinstance(result.outcome, GeneralProtection), row
        else:
            assert last is not None, row
            offset = result.linear & ((1 << last.entry.page_shift) - 1)
            assert last.base is not None, row
            assert hex(last.base | offset) == row["pa"], row


def test_every_line_of_info_tlb_in_a_walk(dump: Dump) -> None:
    """Each page is reached, and its last entry has the flags that the line shows."""
    for va, (pa, flags) in dump.pages.items():
        leaf = walk(dump.image, dump.paging, va, READ).steps[-1]
        assert leaf.base == pa, hex(va)
        assert leaf.value is not None, hex(va)
        shown = "".join(letter if leaf.value & flag else "-" for letter, flag in FLAGS.items())
        assert shown == flags, hex(va)


def test_the_enumeration_is_info_tlb_page_by_page(dump: Dump) -> None:
    """No page more and none less, and the same sizes: what lies between two lines is not mapped."""
    gaps: Counter[int] = Counter()
    listed = {
        run.va + offset: run.pa + offset
        for run in runs(stream(dump.image, dump.paging), gaps)
        for offset in range(0, run.size, run.page_size)
    }
    assert list(listed.items()) == [(va, pa) for va, (pa, _) in dump.pages.items()]
    assert gaps == Counter()


def test_ranges_and_rights_are_those_of_info_mem(dump: Dump) -> None:
    path = DUMPS / f"{dump.name}.infomem.txt.gz"
    if not path.exists():
        pytest.skip("QEMU 7.2 prints nothing for 5 levels")
    said = []
    for line in _unpacked(path.name).splitlines():
        if line.strip():
            span, _, rights = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            said.append((start, end, rights))
    assert _merged(list(runs(stream(dump.image, dump.paging), Counter()))) == said


def _merged(found: list[Run]) -> list[tuple[int, int, str]]:
    """The runs as ``info mem`` merges them: by user and write, wherever they lie."""
    out: list[tuple[int, int, str]] = []
    for run in found:
        rights = f"{'u' if run.u else '-'}r{'w' if run.w else '-'}"
        if out and out[-1][1:] == (run.va, rights):
            out[-1] = (out[-1][0], run.va + run.size, rights)
        else:
            out.append((run.va, run.va + run.size, rights))
    return out
