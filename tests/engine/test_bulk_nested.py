"""The array walker through a second stage says of every address what the two-dimensional walk says."""

from random import Random
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch import behind
from engine.arch.arrays import ON_ENTRY, ON_PAGE, Code, Right
from engine.arch.bits import bit
from engine.arch.bulk import CODES
from engine.arch.bulk_nested import translate_nested
from engine.arch.faults import EptMisconfiguration, EptViolation, NestedPageFault, Reason, Translated
from engine.arch.mappings import mappings
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import Paging, bind
from engine.arch.registers import CR0, CR3_LAM_U48, CR3_LAM_U57, CR4, EFER, Features, Mode, Registers, Vendor
from engine.arch.second_stage import EptCapabilities, NptControls, SecondStage, ept, npt
from engine.arch.walk import Stage, Walk
from engine.memory.physical import ZERO, SparseMemory
from tests.engine.spaces import SLOTS, TABLES, random_access, random_addresses, random_entry, random_registers
from tests.engine.test_bulk import row as row_of_one_stage
from tests.engine.test_bulk import rows
from tests.engine.test_mappings import listed, places

SEEDS = st.integers(0, 1 << 32)
GUEST, NESTED = 0x20_0000, 0x40_0000
"""The guest's frames lie at their guest-physical address + GUEST, the nested tables at NESTED: no frame is both, for
a walk that writes a flag into its own tables is not what is tested here."""
LONG = {"cr0": int(CR0.PE | CR0.PG), "efer": int(EFER.LME | EFER.LMA | EFER.NXE)}


class Nested(NamedTuple):
    memory: SparseMemory
    guest: Paging
    second: SecondStage


def random_second(rng: Random, vendor: Vendor) -> SecondStage:
    if vendor is Vendor.INTEL:
        eptp = NESTED | 6 | rng.choice((3, 4)) << 3 | rng.choice((0, 0x40)) | rng.choice((0, 0x80))
        capabilities = EptCapabilities(execute_only=rng.random() < 0.7, page1gb=rng.random() < 0.8)
        found = ept(eptp, 46, capabilities, mode_based_execute=rng.random() < 0.4)
    else:
        mode = rng.choice((CR4.PAE, CR4.PAE | CR4.LA57, CR4.PSE, CR4.PAE))
        efer = LONG["efer"] if mode != CR4.PSE and rng.random() < 0.8 else int(EFER.NXE)
        host = Registers(cr0=LONG["cr0"], cr4=int(mode), efer=efer)
        controls = NptControls(gmet=rng.random() < 0.3, supervisor_shadow_stack=rng.random() < 0.3)
        found = npt(host, Features(vendor=Vendor.AMD, maxphyaddr=46), NESTED, controls=controls)
    assert isinstance(found, SecondStage)
    return found


def nested_tables(rng: Random, second: SecondStage) -> dict[int, int]:
    """Tables that map guest frame n to its place, most of them well, with a large page and bad entries now and then."""
    table, leaf, large = (0x7, 0x37, 0xB7) if second.paging.format.rights.read else (0x67, 0x67, 0xE7)
    flaws = (0, 1, 2, 3, 4, 5, 6, 1 << 63 | leaf, 1 << 50 | leaf, leaf ^ 2, leaf ^ 4, leaf ^ 1, leaf ^ 8, leaf | 0x400)
    size = second.paging.levels[0].entry_shift
    words: dict[int, int] = {}

    def put(at: int, index: int, entry: int) -> None:
        entry = entry if rng.random() < 0.97 else rng.choice(flaws) | entry & ~0xFFF
        at += index << size
        words[at & ~7] = words.get(at & ~7, 0) | (entry if size == 3 else (entry & 0xFFFF_FFFF) << 8 * (at & 4))

    at = NESTED
    for lv in second.paging.levels[:-1]:
        entry = 1 if second.paging.mode is Mode.PAE and lv.level == 3 else table
        if lv.leaf and lv.span <= GUEST and rng.random() < 0.3:
            put(at, 0, GUEST | large)
            return words
        put(at, 0, at + 0x1000 | entry)
        at += 0x1000
    for pfn in range(TABLES + 4):
        where = GUEST + (pfn << 12) if rng.random() < 0.97 else 0x7777_0000
        put(at, pfn, where | (leaf if rng.random() < 0.9 else rng.choice(flaws)))
    return words


def random_nested(seed: int, vendor: Vendor, mode: Mode, *, pdptes: bool = False) -> Nested:
    rng = Random(seed)
    registers, features = random_registers(rng, mode, pdptes=pdptes)
    frames: dict[int, dict[int, int]] = {}
    for pfn in range(1, TABLES + 1):
        words = frames.setdefault(pfn, {})
        for slot in SLOTS if mode is not Mode.NONE else ():
            if rng.random() < 0.9:
                words[slot] = random_entry(rng, mode, features.maxphyaddr, 0.02)
                if mode is Mode.LEGACY:
                    words[slot] |= random_entry(rng, mode, features.maxphyaddr, 0.02) << 32
    if mode is Mode.PAE:
        frames[1] = {slot: rng.choice((2, 3, 4)) << 12 | (rng.random() < 0.9) for slot in range(512)}
    second = random_second(rng, vendor)
    memory = SparseMemory()
    for pfn, words in frames.items():
        place = GUEST + (pfn << 12)
        memory = memory.write(place, bytes(4096)).with_words({place + 8 * slot: word for slot, word in words.items()})
    for number in range(len(second.paging.levels)):
        memory = memory.write(NESTED + 0x1000 * number, bytes(4096))
    memory = memory.with_words(nested_tables(rng, second))
    guest = bind(registers, features, pdptes_from_memory=vendor is Vendor.AMD)
    return Nested(memory, guest, second)


def row(one: Walk) -> tuple[int, int, int, int, int]:
    """What a row of `Translations` must hold for a two-dimensional walk."""
    last = one.steps[-1] if one.steps else None
    match one.outcome:
        case NestedPageFault(exitinfo1=info, exitinfo2=gpa, reason=reason):
            final = bool(info & bit(32))
        case EptViolation(qualification=qualification, gpa=gpa, reason=reason):
            final = bool(qualification & bit(8))
        case EptMisconfiguration(gpa=gpa, why=why):
            final = last is not None and last.row == 0
            reason = Reason.RESERVED if "reserved" in why else Reason.MISCONFIGURED
        case Translated():
            assert last is not None
            return (*row_of_one_stage(one)[:4], last.level.level if one.second else 0)
        case _:
            plain = row_of_one_stage(one)
            return (*plain[:4], last.row or plain[4]) if last is not None and last.stage is Stage.NESTED else plain
    return gpa, 0, 0, CODES[reason] | (ON_PAGE if final else ON_ENTRY), expected_level(one, final, reason)


def expected_level(one: Walk, final: bool, reason: Reason) -> int:
    """The guest level whose entry could not be reached, or that of the nested entry which failed on the page."""
    last = one.steps[-1] if one.steps else None
    if reason is Reason.OUT_OF_RANGE and last is not None:
        return 0 if final else last.level.level - 1
    if last is None:  # of PDPTE registers that could not be loaded, 0; else of the root, if there is one
        loads = one.paging.pdptes_are_registers
        return 0 if final or loads or not one.paging.levels else one.paging.levels[0].level
    return last.level.level if final or last.stage is not Stage.NESTED else last.row


PAGED = [(mode, False) for mode in Mode] + [(Mode.PAE, True)]


@pytest.mark.parametrize("vendor", list(Vendor))
@pytest.mark.parametrize(("mode", "pdptes"), PAGED)
@given(seed=SEEDS)
def test_equal_to_the_two_dimensional_walk_faults_included(seed: int, mode: Mode, pdptes: bool, vendor: Vendor) -> None:
    case = random_nested(seed, vendor, mode, pdptes=pdptes)
    addresses, access = random_addresses(seed, case.guest, 60), random_access(seed)
    found = rows(translate_nested(*case, addresses, access))
    for address, got in zip(addresses.tolist(), found, strict=True):
        one = walk_nested(*case, address, access)
        assert got == row(one), (hex(address), one.outcome)


def without_denials(case: Nested) -> Nested:
    """The same tables under registers with which a guest's own rights never deny a read, and LAM and LASS are off."""
    old = case.guest.registers
    off = CR4.SMAP | CR4.PKE | CR4.PKS | CR4.LAM_SUP | CR4.LASS
    new = msgspec.structs.replace(old, cpl=0, cr4=int(old.cr4 & ~off), cr3=old.cr3 & ~(CR3_LAM_U48 | CR3_LAM_U57))
    guest = bind(new, case.guest.features, pdptes_from_memory=case.guest.pdptes_from_memory)
    return case._replace(guest=guest)


@pytest.mark.parametrize("vendor", list(Vendor))
@pytest.mark.parametrize(("mode", "pdptes"), PAGED)
@given(seed=SEEDS)
def test_the_enumeration_through_two_stages_is_what_reads_find(
    seed: int, mode: Mode, pdptes: bool, vendor: Vendor
) -> None:
    case = without_denials(random_nested(seed, vendor, mode, pdptes=pdptes))
    found = mappings(*case)
    addresses = [*random_addresses(seed, case.guest, 40).tolist(), *list(places(found))[:60]]
    if not mode.is_long:
        addresses = [address & 0xFFFF_FFFF for address in addresses]
    walked = translate_nested(*case, np.array(addresses, np.uint64))
    for address, (pa, shift, rights, code, _) in zip(addresses, rows(walked), strict=True):
        if code == Code.NON_CANONICAL:
            continue
        listed_code, listed_pa, listed_shift, listed_rights = listed(found, address)
        if listed_code is Code.OK and not listed_rights & Right.R:
            assert code == Code.RIGHTS | ON_PAGE, hex(address)
        elif listed_code is Code.OK:
            assert (listed_pa, listed_shift, listed_rights, Code.OK) == (pa, shift, rights, code), hex(address)
        else:
            assert listed_code == code, hex(address)


def test_guest_frames_beyond_the_reach_of_32_bit_nested_tables_start_anew() -> None:
    """A 4-level guest maps 8 GiB in one run of 1-GiB pages; its host translates 32 bits of a guest-physical address."""
    large = {GUEST + 0x2000 + 8 * n: n << 30 | 0xE7 for n in range(8)}
    nested = {NESTED + 4 * n: n << 22 | 0xE7 for n in range(1024)}
    words = {GUEST + 0x1000: 0x2067, **large}
    for at, entry in nested.items():
        words[at & ~7] = words.get(at & ~7, 0) | entry << 8 * (at & 4)
    # The guest's tables lie at guest-physical GUEST + 1000h and the next page, which the host maps to themselves.
    words[GUEST + 0x1000] = GUEST + 0x2000 | 0x67
    registers = Registers(**LONG, cr3=GUEST + 0x1000, cr4=int(CR4.PAE))
    host = Registers(cr0=LONG["cr0"], cr4=int(CR4.PSE))
    second = npt(host, Features(vendor=Vendor.AMD), NESTED)
    assert isinstance(second, SecondStage)
    guest = bind(registers, Features(vendor=Vendor.AMD), pdptes_from_memory=True)
    found = mappings(SparseMemory(ZERO).with_words(words), guest, second)
    runs = zip(found.va.tolist(), found.pa.tolist(), found.size.tolist(), found.page_shift.tolist(), strict=True)
    assert list(runs) == [(0, 0, 4 << 30, 22), (4 << 30, 0, 4 << 30, 22)]


@given(seed=SEEDS)
def test_two_stages_in_pieces_of_any_size_and_with_a_limit(seed: int) -> None:
    case = without_denials(random_nested(seed, Vendor.AMD, Mode.LEVEL4))
    whole = mappings(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behind, "PIECES", 3)
        pieces = mappings(*case)
        patch.setattr(behind, "MOST_ROWS", 10)
        limited = mappings(*case)
    for name in ("va", "pa", "size", "page_shift", "rights"):
        assert getattr(pieces, name).tolist() == getattr(whole, name).tolist()
    assert pieces.gaps.va.tolist() == whole.gaps.va.tolist()
    for address in places(whole):
        assert listed(limited, address) in (listed(whole, address), (Code.LIMIT | ON_PAGE, 0, 0, 0)), hex(address)


def test_progress_through_two_stages_never_goes_back() -> None:
    case = random_nested(5, Vendor.AMD, Mode.LEVEL4)
    addresses = np.tile(random_addresses(5, case.guest, 1000), 500)
    for work in (
        lambda progress: mappings(*case, progress=progress),
        lambda progress: translate_nested(*case, addresses, progress=progress),
    ):
        told: list[float] = []
        work(told.append)
        assert told == sorted(told)
        assert told[-1] == 1.0
