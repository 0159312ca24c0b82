"""Sparse memory against a model that is a plain dictionary of bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.memory import ADDRESS_END, FRAME_SIZE, FRAMES_END, PhysicalMemory, read
from engine.memory import pool
from engine.memory.physical import UNKNOWN, ZERO, SparseMemory, changed_frames

PFNS = (0, 1, 2, 0x1FF, 0x200, 0xFFFFF, FRAMES_END - 1)
"""Neighbours, frames of one bucket, and frames too far away for a table of all frame numbers."""


class Model(dict[int, int | None]):
    """Bytes by address, None where unknown; ``elsewhere`` is every address that is not listed."""

    elsewhere: int | None = None

    def at(self, address: int) -> int | None:
        return self.get(address, self.elsewhere)

    def bytes_at(self, address: int, size: int) -> bytes | None:
        data = [self.at(a) for a in range(address, address + size)]
        return None if None in data else bytes(byte for byte in data if byte is not None)

    def word(self, address: int) -> int | None:
        data = self.bytes_at(address & ~7, 8)
        return None if data is None else int.from_bytes(data, "little")

    def copy(self) -> Model:
        model = Model(self)
        model.elsewhere = self.elsewhere
        return model

    def differing(self, other: Model) -> set[int]:
        return {address for address in self.keys() | other.keys() if self.at(address) != other.at(address)}


Edit = Callable[[SparseMemory, Model], SparseMemory]

addresses = st.builds(
    lambda pfn, offset: pfn * FRAME_SIZE + offset, st.sampled_from(PFNS), st.integers(0, FRAME_SIZE - 1)
)
words = st.integers(0, 2**64 - 1)


def patchy() -> SparseMemory:
    """A memory with whole frames, parts of frames and holes: what an image with odd segments looks like."""
    return SparseMemory(UNKNOWN).write(0x0FFC, bytes(range(1, 100))).write(0x2000, b"\x5a" * (FRAME_SIZE + 7))


def known_bytes(memory: PhysicalMemory) -> Model:
    model = Model()
    for start, end in memory.known():
        data = read(memory, start, end - start)
        assert data is not None
        model.update(zip(range(start, end), data, strict=True))
    return model


@st.composite
def writes(draw: st.DrawFn) -> Edit:
    address = draw(addresses)
    size = draw(st.sampled_from([1, 4, 8, 13, FRAME_SIZE - 1, FRAME_SIZE, FRAME_SIZE + 9]))
    if draw(st.booleans()):
        address &= -FRAME_SIZE
    size = min(size, ADDRESS_END - address)
    data = bytes([draw(st.sampled_from([0, 0x5A, 0xFF]))]) * size

    def edit(memory: SparseMemory, model: Model) -> SparseMemory:
        model.update(zip(range(address, address + size), data, strict=True))
        return memory.write(address, data)

    return edit


@st.composite
def word_writes(draw: st.DrawFn) -> Edit:
    values = draw(st.dictionaries(addresses.map(lambda a: a & ~7), words, max_size=5))

    def edit(memory: SparseMemory, model: Model) -> SparseMemory:
        for address, value in values.items():
            model.update(zip(range(address, address + 8), value.to_bytes(8, "little"), strict=True))
        return memory.with_words(values)

    return edit


@st.composite
def mappings(draw: st.DrawFn) -> Edit:
    pairs = draw(st.dictionaries(st.sampled_from(PFNS), st.integers(0, 5), max_size=3))

    def edit(memory: SparseMemory, model: Model) -> SparseMemory:
        source = patchy()
        contents = known_bytes(source)
        for pfn, number in pairs.items():
            for offset in range(FRAME_SIZE):
                model[pfn * FRAME_SIZE + offset] = contents.at(number * FRAME_SIZE + offset)
        return memory.with_frames_of(source, pairs)

    return edit


edits = st.one_of(writes(), word_writes(), mappings())
bases = st.sampled_from(["unknown", "zero", "patchy"])


def start(base: str) -> tuple[SparseMemory, Model]:
    if base == "patchy":
        memory = patchy()
        return SparseMemory(memory), known_bytes(memory)
    model = Model()
    model.elsewhere = 0 if base == "zero" else None
    return SparseMemory(ZERO if base == "zero" else UNKNOWN), model


def history(base: str, steps: list[Edit]) -> list[tuple[SparseMemory, Model]]:
    versions = [start(base)]
    for edit in steps:
        memory, model = versions[-1]
        model = model.copy()
        versions.append((edit(memory, model), model))
    return versions


@given(bases, st.lists(edits, max_size=6), st.lists(addresses, max_size=20))
def test_every_version_reads_what_was_written_up_to_it(base: str, steps: list[Edit], probes: list[int]) -> None:
    for memory, model in history(base, steps):
        for pfn in PFNS:
            frame = memory.frame(pfn)
            assert (frame and bytes(frame)) == model.bytes_at(pfn * FRAME_SIZE, FRAME_SIZE)
        for address in probes:
            size = min(5, ADDRESS_END - address)
            assert memory.word(address) == model.word(address)
            assert read(memory, address, size) == model.bytes_at(address, size)


@given(bases, st.lists(edits, max_size=4), st.lists(addresses.map(lambda a: a & ~7), max_size=50))
def test_gather_gives_the_same_words_as_one_by_one(base: str, steps: list[Edit], probes: list[int]) -> None:
    lanes = np.array(probes, np.uint64)
    for memory, _ in history(base, steps):
        expected = [memory.word(address) for address in probes]
        for _again in range(2):
            values, unknown = memory.gather(lanes)
            assert values.dtype == np.uint64
            assert unknown.tolist() == [word is None for word in expected]
            assert values.tolist() == [word or 0 for word in expected]


@given(bases, st.lists(edits, max_size=4))
def test_known_lists_exactly_the_known_bytes(base: str, steps: list[Edit]) -> None:
    for memory, model in history(base, steps):
        ranges = list(memory.known())
        assert all(a < b for a, b in ranges)
        assert all(before[1] < after[0] for before, after in pairwise(ranges))
        starts = [start for start, _ in ranges]
        for address, byte in model.items():
            at = bisect_right(starts, address) - 1
            assert (at >= 0 and address < ranges[at][1]) == (byte is not None)
        unlisted = 0 if model.elsewhere is None else ADDRESS_END - len(model)
        assert sum(end - start for start, end in ranges) == sum(b is not None for b in model.values()) + unlisted


@given(bases, st.lists(edits, max_size=5), st.data())
def test_changed_frames_are_those_whose_bytes_differ(base: str, steps: list[Edit], data: st.DataObject) -> None:
    versions = history(base, steps)
    a, before = data.draw(st.sampled_from(versions))
    b, after = data.draw(st.sampled_from(versions))
    differing = {address // FRAME_SIZE for address in before.differing(after)}
    assert changed_frames(a, b) == changed_frames(b, a) == differing


@given(bases, st.lists(st.one_of(writes(), word_writes()), max_size=5), st.data())
def test_digests_are_equal_exactly_where_contents_are(base: str, steps: list[Edit], data: st.DataObject) -> None:
    versions = history(base, steps)
    a, before = data.draw(st.sampled_from(versions))
    b, after = data.draw(st.sampled_from(versions))
    assert (a.digest() == b.digest()) == (not before.differing(after))


def test_writing_back_what_was_there_gives_the_first_digest_again() -> None:
    first = SparseMemory(ZERO).with_words({0x1000: 7, 0x2000: 8})
    there = first.with_words({0x1000: 9, 0x5000: 1})
    back = there.with_words({0x5000: 0}).with_words({0x1000: 7})
    assert first.digest() != there.digest()
    assert first.digest() == back.digest()
    assert changed_frames(first, back) == set()


def test_four_bytes_in_a_hole_do_not_make_a_word_until_the_other_four_are_written() -> None:
    memory = SparseMemory(UNKNOWN).write(0x1004, b"\x01\x02\x03\x04")
    assert memory.word(0x1000) is None
    assert read(memory, 0x1004, 4) == b"\x01\x02\x03\x04"
    assert memory.write(0x1000, bytes(4)).word(0x1000) == 0x0403020100000000


def test_a_mapped_frame_is_copied_on_write_and_its_source_stays() -> None:
    source = SparseMemory(ZERO).with_words({0x3000: 0x11, 0x3008: 0x22})
    memory = SparseMemory(UNKNOWN).with_frames_of(source, {9: 3, 10: 3})
    changed = memory.with_words({0x9008: 0x33})
    assert [changed.word(a) for a in (0x9000, 0x9008, 0xA008)] == [0x11, 0x33, 0x22]
    assert source.word(0x3008) == memory.word(0x9008) == 0x22
    assert changed_frames(memory, changed) == {9}


def test_versions_share_all_frames_but_the_changed_one() -> None:
    memory = SparseMemory(ZERO).with_words({pfn * FRAME_SIZE: pfn + 1 for pfn in range(2000)})
    changed = memory.with_words({5 * FRAME_SIZE: 99})
    assert all(memory.frame(pfn) is changed.frame(pfn) for pfn in range(2000) if pfn != 5)


def test_all_of_a_thousand_versions_stay_readable() -> None:
    versions = [SparseMemory(ZERO)]
    for step in range(1000):
        versions.append(versions[-1].with_words({(step % 40) * FRAME_SIZE: step + 1}))
    for step in (0, 39, 40, 512, 999):
        assert versions[step + 1].word((step % 40) * FRAME_SIZE) == step + 1
    assert changed_frames(versions[100], versions[103]) == {100 % 40, 101 % 40, 102 % 40}


def test_a_pool_that_overflows_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FRAMES", 8)
    monkeypatch.setattr(pool, "BLOCK", 8)
    one_by_one = Mock(wraps=pool.fill)
    monkeypatch.setattr(pool, "fill", one_by_one)
    memory = SparseMemory(ZERO).with_words({pfn * FRAME_SIZE + 8 * pfn: pfn + 1 for pfn in range(64)})
    order = np.random.default_rng(2).permutation(np.arange(64, dtype=np.uint64))
    for _ in range(3):
        values, unknown = memory.gather(order * np.uint64(FRAME_SIZE + 8))
        assert values.tolist() == (order + np.uint64(1)).tolist()
        assert not unknown.any()
    assert one_by_one.call_args_list
    assert all(lanes.size == 0 for _, _, lanes, _, _ in (call.args for call in one_by_one.call_args_list))


def test_nothing_lies_beyond_52_bits() -> None:
    memory = SparseMemory(ZERO)
    assert memory.frame(FRAMES_END) is None
    assert memory.word(ADDRESS_END) is None
    lanes = np.array([0, ADDRESS_END - 8, ADDRESS_END, 2**64 - 8], np.uint64)
    assert memory.gather(lanes)[1].tolist() == [False, False, True, True]
    assert memory.with_words({0: 1}).gather(lanes)[1].tolist() == [False, False, True, True]


@pytest.mark.parametrize("address", [-8, 4, ADDRESS_END])
def test_a_word_that_is_not_one_is_misuse(address: int) -> None:
    with pytest.raises(ValueError, match="not the address of a word"):
        SparseMemory(ZERO).with_words({address: 1})


def test_a_write_beyond_the_end_is_misuse() -> None:
    with pytest.raises(ValueError, match="not physical memory"):
        SparseMemory(ZERO).write(ADDRESS_END - 4, bytes(8))


def test_versions_of_two_memories_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="only versions of one memory"):
        changed_frames(SparseMemory(ZERO), SparseMemory(UNKNOWN))
