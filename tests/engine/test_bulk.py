"""The array walker says of every address what the explaining walker says."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch import bulk, upper
from engine.arch.arrays import Code, Right
from engine.arch.bulk import Translations, error_code, translate
from engine.arch.faults import GeneralProtection, PageFault, Reason, Translated, Unknown, Violation
from engine.arch.mappings import mappings
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR3_LAM_U48, CR4, EFER, Features, Mode, Registers
from engine.arch.walk import Walk, walk
from engine.memory.image import open_image
from engine.memory.physical import ZERO, SparseMemory
from tests.engine.spaces import random_access, random_addresses, random_space

SEEDS = st.integers(0, 1 << 32)
PAGED = [(mode, False) for mode in Mode] + [(Mode.PAE, True)]


def row(one: Walk) -> tuple[int, int, int, Code, int]:
    """What a row of `Translations` must hold for a walk: physical, page shift, rights, code, level."""
    level = one.steps[-1].level.level if one.steps else 0
    match one.outcome:
        case Translated(address, size, r):
            flags = Right.R * r.read | Right.W * r.write | Right.U * r.user | Right.X * r.execute | Right.G * r.global_
            return address, max(0, size.bit_length() - 1), flags | (r.key or 0) << Right.KEY_SHIFT, Code.OK, level
        case Unknown(address):
            return address, 0, 0, Code.UNKNOWN, level
        case GeneralProtection(reason=reason):
            code = Code.NON_CANONICAL if "canonical" in reason else Code.LASS if "LASS" in reason else Code.PDPTE_LOAD
            return 0, 0, 0, code, level
        case PageFault(reason=Reason.RIGHTS, violations=violations):
            return 0, 0, 0, Code.KEY if Violation.PROTECTION_KEY in violations else Code.RIGHTS, level
        case PageFault(reason=reason):
            return 0, 0, 0, {Reason.NOT_PRESENT: Code.NOT_PRESENT, Reason.RESERVED: Code.RESERVED}[reason], level


def rows(found: Translations) -> list[tuple[int, ...]]:
    columns = (getattr(found, name).tolist() for name in found.__struct_fields__)
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(("mode", "pdptes"), PAGED)
@given(seed=SEEDS)
def test_equal_to_the_explaining_walker_faults_included(seed: int, mode: Mode, pdptes: bool) -> None:
    space = random_space(seed, mode, pdptes=pdptes)
    addresses, access = random_addresses(seed, space.paging, 200), random_access(seed)
    walks = [walk(space.memory, space.paging, address, access) for address in addresses.tolist()]
    found = translate(space.memory, space.paging, addresses, access)
    assert rows(found) == [row(one) for one in walks]
    for code, one in zip(found.code.tolist(), walks, strict=True):
        expected = one.outcome.error_code if isinstance(one.outcome, PageFault) else None
        assert error_code(Code(code), space.paging, access) == expected


def test_presence_alone_ignores_rights_reserved_bits_and_tags() -> None:
    entries = {0x1000: 0x2001 | 1 << 63, 0x2000: 0x3001, 0x3000: 0x4001, 0x4028: 0x9001 | 1 << 63}
    memory = SparseMemory(ZERO).with_words(entries)
    registers = Registers(
        cr0=CR0.PE | CR0.PG, cr3=0x1000 | CR3_LAM_U48, cr4=int(CR4.PAE), efer=int(EFER.LME | EFER.LMA), cpl=3
    )
    paging = bind(registers, Features(maxphyaddr=40))
    addresses = np.array([0x5123, 0x6000, 0x7F00_0000_0000_5123], np.uint64)
    found = translate(memory, paging, addresses, access=None)
    assert found.code.tolist() == [Code.OK, Code.NOT_PRESENT, Code.NON_CANONICAL]
    assert found.physical.tolist() == [0x9123, 0, 0]
    assert translate(memory, paging, addresses).code.tolist() == [Code.RESERVED] * 3


def test_progress_never_goes_back_and_a_raise_cancels() -> None:
    space = random_space(1, Mode.LEVEL4)
    addresses = np.tile(random_addresses(1, space.paging, 1000), 500)
    told: list[float] = []
    translate(space.memory, space.paging, addresses, progress=told.append)
    assert len(told) > 3
    assert told == sorted(told)
    assert told[-1] == 1.0

    class Cancelled(Exception):
        pass

    def cancel(done: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        translate(space.memory, space.paging, addresses, progress=cancel)


@given(seed=SEEDS)
def test_what_was_seen_is_forgotten_without_harm(seed: int) -> None:
    """With little room and short spans the upper levels are read again and again: the answers stay the same."""
    space = random_space(seed, Mode.LEVEL5)
    addresses = random_addresses(seed, space.paging, 300)
    whole = translate(space.memory, space.paging, addresses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upper, "MOST_SEEN", 7)
        patch.setattr(upper, "ROOM", 8)
        patch.setattr(bulk, "SPAN", 10)
        patch.setattr(bulk, "BLOCK", 4)
        assert rows(translate(space.memory, space.paging, addresses)) == rows(whole)


def test_a_sparse_image_of_64_gib_is_walked_without_reading_it(tmp_path: Path) -> None:
    path, end = tmp_path / "sparse.raw", 64 << 30
    tables = {0x1000: end - 0x1000, end - 0x1000: 0x7_0000_0000, 0x7_0000_0000: 0x3_2100_0000, 0x3_2100_0000: 0x5000}
    with path.open("wb") as file:
        file.truncate(end)
        for at, target in tables.items():
            os.pwrite(file.fileno(), (target | 7).to_bytes(8, "little"), at)
    registers = Registers(cr0=CR0.PE | CR0.PG, cr3=0x1000, cr4=int(CR4.PAE), efer=int(EFER.LME | EFER.LMA))
    paging = bind(registers, Features())
    with open_image(path) as image:
        read: list[int] = []
        pread = image._pread
        image._pread = lambda offset, size: (read.append(size), pread(offset, size))[1]  # type: ignore[method-assign]
        found = translate(image, paging, np.array([0x123, 0x1000], np.uint64))
        listed = mappings(image, paging)
    assert (found.code.tolist(), found.physical.tolist()) == ([Code.OK, Code.NOT_PRESENT], [0x5123, 0])
    assert (listed.va.tolist(), listed.pa.tolist(), listed.size.tolist()) == ([0], [0x5000], [0x1000])
    assert sum(read) <= 2 * len(tables) * 4096
