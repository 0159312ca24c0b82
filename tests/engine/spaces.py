"""Random address spaces: a handful of tables that point at each other, with holes, large pages and bad entries."""

from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.arch.bits import U64, bit, mask
from engine.arch.paging import Paging, bind
from engine.arch.registers import CR0, CR3_LAM_U48, CR3_LAM_U57, CR4, EFER, RFLAGS_AC, Features, Mode, Registers, Vendor
from engine.arch.rights import Access, Kind
from engine.memory.physical import SparseMemory

TABLES = 12
"""Frames 1 .. 12 hold tables, the rest is data; frame 13 is not known at all."""
SLOTS = (0, 1, 2, 3, 255, 256, 510, 511)
"""Where tables have entries: few enough that random addresses meet."""


class Space(NamedTuple):
    memory: SparseMemory
    paging: Paging


def _some(rng: Random, flags: tuple[int, ...], odds: float = 0.5) -> int:
    return sum(flag for flag in flags if rng.random() < odds)


def random_registers(rng: Random, mode: Mode, *, pdptes: bool = False) -> tuple[Registers, Features]:
    features = Features(
        maxphyaddr=rng.choice((32, 36, 39, 40, 46, 52)),
        vendor=rng.choice(tuple(Vendor)),
        page1gb=rng.random() < 0.8,
        pse36=rng.random() < 0.8,
    )
    long = mode.is_long
    cr4 = _some(rng, (CR4.PGE, CR4.SMEP, CR4.SMAP, CR4.PSE))
    if mode is not Mode.LEGACY:
        cr4 |= CR4.PAE
    if long:
        cr4 |= _some(rng, (CR4.PKE, CR4.PKS)) | _some(rng, (CR4.LAM_SUP,)) | _some(rng, (CR4.LASS,), 0.2)
    if mode is Mode.LEVEL5:
        cr4 |= CR4.LA57
    registers = Registers(
        cr0=CR0.PE | CR0.PG | _some(rng, (CR0.WP,)) if mode is not Mode.NONE else CR0.PE,
        cr3=0x1000 | rng.choice((0, 0x18, 0x20, 0xFE0)) | (_some(rng, (CR3_LAM_U48, CR3_LAM_U57), 0.3) if long else 0),
        cr4=cr4,
        efer=(EFER.LME | EFER.LMA if long else 0) | _some(rng, (EFER.NXE,), 0.7),
        pkru=rng.getrandbits(32) & rng.getrandbits(32),
        pkrs=rng.getrandbits(32) & rng.getrandbits(32),
        rflags=2 | _some(rng, (RFLAGS_AC,)),
        cpl=rng.choice((0, 3)),
        pdptes=tuple(rng.choice((0, 0x2001, 0x3001, 0x4001)) for _ in range(4)) if pdptes else None,  # type: ignore[arg-type]
    )
    return registers, features


def random_entry(rng: Random, mode: Mode, maxphyaddr: int, worst: float) -> int:
    """An entry that most often points at another table, now and then at data, with a bad bit at odds ``worst``."""
    entry = rng.randint(1, TABLES + 2) << 12 | rng.getrandbits(12) & 0xE78 | _some(rng, (1, 2, 4), 0.95)
    if rng.random() < 0.15:
        entry = entry & ~mask(29, 13) | bit(7)
    if rng.random() < 0.05:
        entry |= rng.getrandbits(2) << 7
    if mode is Mode.LEGACY:
        return entry | (rng.getrandbits(9) << 13 if rng.random() < 0.1 else 0)
    if rng.random() < 0.1:
        entry |= rng.getrandbits(52) & mask(maxphyaddr - 1, 30)
    if mode.is_long:
        entry |= rng.getrandbits(11) << 52
    if rng.random() < worst:
        entry |= bit(63)
    if rng.random() < worst:
        entry |= 1 << rng.randint(6, 63)
    return entry


def random_space(seed: int, mode: Mode, *, pdptes: bool = False, bound: bool = True) -> Space:
    """Tables in ``mode`` in an overlaid memory with holes; ``pdptes``: PAE's registers are given, not loaded."""
    rng = Random(seed)
    registers, features = random_registers(rng, mode, pdptes=pdptes)
    worst, density = rng.choice((0.0, 0.05)), rng.choice((0.6, 0.95))
    frames = {}
    for pfn in range(1, TABLES + 1):
        words = [0] * 512
        for slot in SLOTS:
            if rng.random() < density:
                words[slot] = random_entry(rng, mode, features.maxphyaddr, worst)
                if mode is Mode.LEGACY:
                    words[slot] |= random_entry(rng, mode, features.maxphyaddr, worst) << 32
        frames[pfn] = words
    for slot in range(512 if mode is Mode.PAE and not pdptes else 0):  # the four PDPTEs, wherever CR3's low bits point
        frames[1][slot] &= mask(features.maxphyaddr - 1, 12) | (1 if rng.random() < 0.99 else U64)
    memory = SparseMemory()
    for pfn, words in frames.items():
        memory = memory.write(pfn << 12, b"".join(word.to_bytes(8, "little") for word in words))
    hole = rng.randint(2, TABLES)
    if rng.random() < 0.5:  # a frame known in part: its first 2 KiB and a few bytes more
        known = memory.frame(hole)
        assert known is not None
        rest = SparseMemory()
        for pfn in frames:
            frame = memory.frame(pfn)
            assert frame is not None
            rest = rest.write(pfn << 12, bytes(frame)[: 2053 if pfn == hole else 4096])
        memory = rest
    edits = {
        rng.randint(1, TABLES) << 12 | rng.choice(SLOTS) << 3: random_entry(rng, mode, features.maxphyaddr, worst)
        for _ in range(rng.randint(0, 5))
    }
    return Space(memory.with_words(edits), bind(registers, features))


def random_addresses(seed: int, paging: Paging, count: int) -> NDArray[np.uint64]:
    """Addresses that lead to the slots in use, a few of them tagged or not canonical."""
    rng = Random(seed)
    out = []
    for _ in range(count):
        address = rng.getrandbits(12)
        for lv in paging.levels:
            slot = rng.choice(SLOTS) if lv.entry_shift == 3 else 2 * rng.choice(SLOTS) + rng.getrandbits(1)
            address |= (slot & lv.index_mask) << lv.shift
        top = address >> (paging.width - 1) & 1 if paging.mode.is_long else 0
        if top:
            address |= U64 & ~mask(paging.width - 1, 0)
        if rng.random() < 0.1:
            address ^= rng.getrandbits(64) & mask(63, 40)
        if rng.random() < 0.1:
            address |= 0xFFC
        out.append(address)
    return np.array(out, np.uint64)


def random_access(seed: int) -> Access:
    rng = Random(seed)
    return Access(
        rng.choice(tuple(Kind)), rng.choice((1, 2, 4, 8)), rng.random() < 0.1, rng.random() < 0.1, rng.random() < 0.1
    )
