"""The walker against an independent MMU, on random tables: outcome, CR2, physical address, and every byte written.

Tables hold entries at the slots that the address uses at any level, point at each other and at themselves, and have
large pages, missing rights and reserved bits. Where Unicorn (QEMU 5.0) has a rule of its own it is applied as a rule:

- It raises #PF when a PDPTE with reserved bits is used, not #GP when it is loaded: random PDPTEs have none.
- It sets A in a PDPTE before it looks whether that maps 1 GiB: also where the page is misaligned or access is denied,
  which the manuals leave open (`a_of_a_refused_1gib_page`).
"""

from collections import Counter
from functools import cache
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.arch.bits import U64, bit, mask
from engine.arch.faults import GeneralProtection, PageFault, Translated
from engine.arch.formats import PDPTE_PAGE, Format
from engine.arch.memory import FRAME_SIZE
from engine.arch.paging import BY_MODE, bind
from engine.arch.registers import CR0, CR4, EFER, RFLAGS_AC, Features, Mode, Registers
from engine.arch.rights import Access, Kind
from engine.arch.walk import Rule, Walk, walk
from engine.memory.physical import ZERO, SparseMemory
from tests.conftest import SLOW
from tests.engine.unicorn_mmu import DATA, FRAMES, OURS, Seen, UnicornMmu, first_entry, harness, marker

EXAMPLES = 20_000 if SLOW else 500
FEATURES = Features(maxphyaddr=40)
MODES = [Mode.LEVEL4, Mode.LEVEL5, Mode.PAE, Mode.LEGACY]
TABLES = range(OURS, DATA.start)
ACCESSED = bit(5)


class Example(NamedTuple):
    registers: Registers
    memory: bytes
    address: int
    kind: Kind


def some(rng: Random, *flags: int, odds: float = 0.5) -> int:
    return sum(flag for flag in flags if rng.random() < odds)


def random_registers(rng: Random, mode: Mode) -> Registers:
    cr4 = some(rng, CR4.PGE, CR4.PSE, CR4.SMEP, CR4.SMAP)
    if mode is not Mode.LEGACY:
        cr4 |= CR4.PAE
    if mode.is_long:
        cr4 |= some(rng, CR4.PKE)
    if mode is Mode.LEVEL5:
        cr4 |= CR4.LA57
    root = rng.choice(TABLES) * FRAME_SIZE
    return Registers(
        cr0=CR0.PE | CR0.PG | some(rng, CR0.WP),
        cr3=root | rng.choice((0, 0x18, 0x20, 0xFE0)),
        cr4=cr4,
        efer=some(rng, EFER.NXE, odds=0.7) | (EFER.LME | EFER.LMA if mode.is_long else 0),
        pkru=rng.getrandbits(32) & rng.getrandbits(32),
        rflags=2 | some(rng, RFLAGS_AC),
        cpl=rng.choice((0, 3)),
    )


def random_address(rng: Random, fmt: Format, kind: Kind) -> int:
    """An address that does not go through the root's entry 0, which is the harness's; now and then not canonical."""
    address = rng.randrange(1, 1 << fmt.levels[0].bits) << fmt.levels[0].shift
    for level in fmt.levels[1:]:
        # Low slots where a large page at 0 would still be memory.
        address |= rng.choice((0, 0, rng.randrange(FRAMES), rng.getrandbits(level.bits))) << level.shift
    if fmt.width > 32 and address & bit(fmt.width - 1):
        address |= mask(63, fmt.width)
    if fmt.width > 32 and rng.random() < 0.03:
        address ^= bit(rng.randint(fmt.width - 1, 63))
    # A fetch stays clear of the page's end, for translation reads on.
    return address | (rng.randrange(0, 0x800, 8) if kind is Kind.FETCH else rng.getrandbits(12))


def random_entry(rng: Random, mode: Mode) -> int:
    frame = rng.choice((*TABLES, *TABLES, *TABLES, rng.choice(DATA), rng.randrange(FRAMES)))
    entry = frame << 12 | some(rng, bit(0), bit(1), bit(2), odds=0.93) | rng.getrandbits(12) & 0xF78
    if rng.random() < 0.15:  # a large page, mostly well aligned, at 0 or somewhere far
        entry = entry & 0xFFF | bit(7) | some(rng, bit(12)) | some(rng, bit(rng.randint(13, 29)), odds=0.2)
        entry |= rng.choice((0, 0, rng.getrandbits(10 if mode is not Mode.LEGACY else 2) << 30))
    if mode is Mode.LEGACY:
        return entry | (rng.getrandbits(9) << 13 if rng.random() < 0.1 else 0)
    if mode.is_long:
        entry |= rng.getrandbits(11) << 52
    return entry | some(rng, bit(63), odds=0.08) | some(rng, bit(rng.randint(36, 63)), odds=0.08)


def random_example(seed: int, mode: Mode) -> Example:
    rng = Random(seed)
    registers, kind = random_registers(rng, mode), rng.choice((Kind.READ, Kind.WRITE, Kind.FETCH))
    fmt = BY_MODE[mode]
    address = random_address(rng, fmt, kind)
    memory = bytearray(harness(mode, registers.cpl).ljust(FRAMES * FRAME_SIZE, b"\0"))
    memory[DATA.start * FRAME_SIZE :] = markers()
    slots = {address >> level.shift & ((1 << level.bits) - 1) for level in fmt.levels}
    for table in TABLES:
        for slot in slots:
            at = table * FRAME_SIZE + slot * fmt.entry_bytes
            memory[at : at + fmt.entry_bytes] = random_entry(rng, mode).to_bytes(fmt.entry_bytes, "little")
    root = registers.cr3 & fmt.root
    if mode is Mode.PAE:
        for at in range(root, root + 32, 8):
            entry = rng.choice(TABLES) << 12 | some(rng, bit(0), odds=0.9) | rng.getrandbits(12) & 0xE18
            memory[at : at + 8] = entry.to_bytes(8, "little")
    memory[root : root + fmt.entry_bytes] = first_entry(mode).to_bytes(fmt.entry_bytes, "little")
    return Example(registers, bytes(memory), address, kind)


@cache
def markers() -> bytes:
    return b"".join(marker(word) for word in range(DATA.start * FRAME_SIZE // 8, FRAMES * FRAME_SIZE // 8))


@cache
def mmu(long: bool) -> UnicornMmu:
    return UnicornMmu(long)


def walked(example: Example) -> Walk:
    memory = SparseMemory(ZERO).write(0, example.memory)
    return walk(memory, bind(example.registers, FEATURES), example.address, Access(example.kind))


def a_of_a_refused_1gib_page(result: Walk) -> int | None:
    """The address of the PDPTE in which Unicorn sets A although the walk ends there."""
    last = result.steps[-1] if result.steps else None
    if last is None or last.entry is not PDPTE_PAGE or not isinstance(result.outcome, PageFault):
        return None
    misaligned = last.rule is Rule.RESERVED and not result.outcome.reserved & ~mask(29, 13)
    return last.address if misaligned or last.rule is Rule.DENIED else None


def expected(example: Example, result: Walk) -> Seen:
    """What the processor must show if ``result`` is right."""
    memory = bytearray(example.memory)
    for update in result.updates:
        memory[update.address : update.address + update.size] = update.new.to_bytes(update.size, "little")
    if (at := a_of_a_refused_1gib_page(result)) is not None:
        memory[at] |= ACCESSED
    match result.outcome:
        case Translated():
            address = result.outcome.address
            if example.kind is Kind.WRITE and address < len(memory):
                memory[address] = example.registers.pkru & 0xFF
            return Seen(None, None, address, bytes(memory))
        case PageFault():
            return Seen(14, result.outcome.cr2, None, bytes(memory))
        case GeneralProtection():
            return Seen(13, None, None, bytes(memory))
    raise AssertionError(result.outcome)


def agrees(seen: Seen, example: Example, result: Walk) -> bool:
    wanted = expected(example, result)
    if seen.address is None and wanted.address is not None and example.kind is Kind.FETCH:
        # Only instructions in frames of data tell where they are.
        told = wanted.address // FRAME_SIZE in DATA
        return not told and seen == wanted._replace(address=None)
    return seen == wanted


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_the_walker_is_an_independent_mmu(mode: Mode) -> None:
    @settings(max_examples=EXAMPLES)
    @given(st.integers(0, U64))
    def compare(seed: int) -> None:
        example = random_example(seed, mode)
        result = walked(example)
        seen = mmu(mode.is_long).access(example.registers, example.memory, example.address, example.kind)
        assert agrees(seen, example, result), (seen[:3], expected(example, result)[:3], result)

    compare()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_the_random_tables_bring_every_kind_of_outcome(mode: Mode) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(400):
        result = walked(random_example(seed, mode))
        outcome = result.outcome
        kinds[outcome.reason.value if isinstance(outcome, PageFault) else type(outcome).__name__] += 1
        kinds["large page"] += isinstance(outcome, Translated) and outcome.page_size > FRAME_SIZE
        kinds["flags set"] += bool(result.updates)
        kinds["a table twice"] += len({step.table for step in result.steps}) < len(result.steps)
    common = ("Translated", "not present", "rights", "flags set")
    assert all(kinds[kind] >= 40 for kind in common), kinds
    rare = ["a table twice", *(["reserved bit"] if mode is not Mode.LEGACY else []), "large page"]
    assert all(kinds[kind] >= 4 for kind in rare), kinds
    assert (kinds["GeneralProtection"] > 0) == mode.is_long, kinds
