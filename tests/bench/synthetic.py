"""Large address spaces made for measuring: 3.9 M leaves of three sizes, tables and pages in random frames.

Their tables take 33 MB, as those of a real guest of 15 GiB do: more than the caches hold.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.arch.paging import Paging, bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.second_stage import SecondStage, npt

U = np.uint64
Words = NDArray[np.uint64]
MAXPHYADDR = 46
TABLES = {4: 12, 3: 24, 2: 96, 1: 8_000}
"""Tables of each level below the root."""
LARGE = {3: 300, 2: 12_000}
"""Large pages, by the level of their entry."""
FRAMES = 1 << 14
"""Of the image (64 MiB): tables lie anywhere in it, pages anywhere in physical memory."""
GUEST_BITS = 33
"""Of a guest-physical address: a guest of 8 GiB."""
PRESENT, WRITE, USER, PAGE, NO_EXECUTE = 1, 2, 4, 0x80, 1 << 63


class Synthetic(NamedTuple):
    frames: Words
    """The image's frame numbers, in which the rows of ``words`` lie; other frames are zero."""
    words: Words
    paging: Paging
    leaves: int
    addresses: Words
    """A million addresses, each in a leaf, but for some that are not mapped or not canonical."""
    second: SecondStage | None = None

    def save(self, folder: Path, frames: int = FRAMES) -> tuple[Path, Path]:
        """An image of so many ``frames``, with holes where nothing was written, and the addresses as words."""
        image, addresses = folder / "image.raw", folder / "addresses"
        with image.open("wb") as file:
            file.truncate(frames << 12)
            for frame, words in zip(self.frames.tolist(), self.words, strict=True):
                os.pwrite(file.fileno(), words.tobytes(), frame << 12)
        self.addresses.tofile(addresses)
        return image, addresses


def build(
    levels: int, *, bits: int = MAXPHYADDR, leaf_tables: int = TABLES[1], spread: int = 1, vendor: Vendor = Vendor.INTEL
) -> Synthetic:
    """``bits`` of physical addresses are in use; a table lies in every ``spread``-th frame."""
    rng = np.random.default_rng(levels)
    free = rng.permutation(np.arange(1, FRAMES)).astype(U) * U(spread)
    tables, free = free[:1], free[1:]
    root, bases = int(tables[0]), np.zeros(1, U)
    frames, contents, mapped = [], [], []
    for level in range(levels, 0, -1):
        shift = U(12 + 9 * (level - 1))
        children, free = np.split(free, [leaf_tables if level == 2 else TABLES.get(level - 1, 0)])
        words = _few(rng, len(tables), children, level, bits) if level > 1 else _leaves(rng, len(tables), bits)
        frames.append(tables)
        contents.append(words)
        va = bases[:, None] + (np.arange(512, dtype=U) << shift)
        if level == levels:
            va[:, 256:] |= U((1 << 64) - (1 << (12 + 9 * levels)))
        present = words & U(PRESENT) != 0
        leaf = present & ((words & U(PAGE) != 0) | (level == 1))
        mapped.append(va[leaf] + rng.integers(0, 1 << int(shift), np.count_nonzero(leaf), dtype=U))
        table = present & ~leaf
        tables, bases = words[table] >> U(12), va[table]
    addresses = np.concatenate(mapped)
    registers = Registers(
        cr0=int(CR0.PE | CR0.PG | CR0.WP),
        cr3=root << 12,
        cr4=int(CR4.PAE | CR4.LA57) if levels == 5 else int(CR4.PAE),
        efer=int(EFER.LME | EFER.LMA | EFER.NXE),
        cpl=3,
    )
    paging = bind(registers, Features(maxphyaddr=MAXPHYADDR, vendor=vendor))
    return Synthetic(np.concatenate(frames), np.concatenate(contents), paging, len(addresses), _picked(rng, addresses))


def _picked(rng: np.random.Generator, addresses: Words, count: int = 1_000_000) -> Words:
    picked = addresses[rng.integers(0, len(addresses), count)]
    astray = rng.integers(0, count, count // 50)
    picked[astray] ^= rng.integers(1 << 12, 1 << 63, len(astray), dtype=U)
    return picked


def _leaves(rng: np.random.Generator, tables: int, bits: int) -> Words:
    """Page tables of which some 94 in 100 slots are mapped, in runs of some 20 pages with random frames and rights."""
    count = tables * 512
    starts = np.concatenate([[0], np.flatnonzero(rng.random(count) < 0.05)])
    lengths = np.diff(starts, append=count)
    first = rng.integers(0, 1 << (bits - 13), len(starts), dtype=U)
    flags = rng.choice(np.array([WRITE | NO_EXECUTE, 0, NO_EXECUTE], U), len(starts))
    flags |= (rng.random(len(starts)) < 0.9) * U(USER)
    flags |= (rng.random(len(starts)) < 0.94) * U(PRESENT)
    within = np.arange(count) - np.repeat(starts, lengths)
    return ((np.repeat(first, lengths) + within.astype(U)) << U(12) | np.repeat(flags, lengths)).reshape(tables, 512)


def _few(rng: np.random.Generator, tables: int, children: Words, level: int, bits: int) -> Words:
    """Tables with their ``children`` and large pages in random slots."""
    words = np.zeros(tables * 512, U)
    large = LARGE.get(level, 0)
    slots = rng.permutation(len(words))[: len(children) + large]
    words[slots[: len(children)]] = children << U(12) | U(PRESENT | WRITE | USER)
    frames = rng.integers(0, 1 << (bits - 30), large, dtype=U) << U(30)
    flags = U(PRESENT | PAGE | WRITE) | (rng.random(large) < 0.9) * U(USER)
    words[slots[len(children) :]] = frames | flags
    return words.reshape(tables, 512)


def build_nested() -> Synthetic:
    """A guest of 8 GiB under nested paging by AMD, 4 levels in both stages.

    Its first 512 MiB, in which its tables lie, are mapped by 4-KiB pages in random frames, the rest by 2-MiB and 1-GiB
    pages; one in a hundred of the small pages that hold no table is read-only or missing.
    """
    guest = build(4, bits=GUEST_BITS, vendor=Vendor.AMD)
    rng = np.random.default_rng(2)
    small = 1 << 17
    host = rng.permutation(FRAMES).astype(U) + U(512)
    pages = np.concatenate([host, rng.integers(FRAMES + 512, 1 << 26, small - FRAMES, dtype=U)])
    flags = np.full(small, PRESENT | WRITE | USER, U)
    flaw = FRAMES + np.flatnonzero(rng.random(small - FRAMES) < 0.01)
    flags[flaw] = rng.choice(np.array([0, PRESENT | USER], U), len(flaw))
    tables = np.zeros((1 + 1 + 6 + small // 512, 512), U)
    tables[8:] = (pages << U(12) | flags).reshape(-1, 512)
    link = U(PRESENT | WRITE | USER)
    tables[0, 0] = U(1 << 12) | link
    tables[1, :6] = np.arange(2, 8, dtype=U) << U(12) | link
    tables[1, 6:8] = rng.integers(0, 1 << 10, 2, dtype=U) << U(30) | link | U(PAGE)
    tables[2:8] = (rng.integers(0, 1 << 20, 6 * 512, dtype=U) << U(21) | link | U(PAGE)).reshape(6, 512)
    tables[2, : small // 512] = np.arange(8, 8 + small // 512, dtype=U) << U(12) | link
    registers = Registers(cr0=guest.paging.registers.cr0, cr4=int(CR4.PAE), efer=guest.paging.registers.efer)
    second = npt(registers, Features(maxphyaddr=MAXPHYADDR, vendor=Vendor.AMD), 0)
    assert isinstance(second, SecondStage)
    frames = np.concatenate([np.arange(len(tables), dtype=U), host[guest.frames.astype(np.int64)]])
    return guest._replace(frames=frames, words=np.concatenate([tables, guest.words]), second=second)
