"""The explaining walker: what it records of each reference, what comes before a walk, and what it leaves behind.

Whether outcomes are right is held by the worked examples, the golden data and Unicorn; this is about the record.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.bits import bit
from engine.arch.faults import GeneralProtection, PageFault, Reason, Translated, Unknown, Violation
from engine.arch.paging import Paging, bind
from engine.arch.registers import (
    CR0,
    CR3_LAM_U48,
    CR3_LAM_U57,
    CR4,
    EFER,
    RFLAGS_AC,
    Features,
    Mode,
    Registers,
    Vendor,
)
from engine.arch.rights import FETCH, READ, WRITE, Access, Kind
from engine.arch.rules import AdPolicy, Rules
from engine.arch.walk import Rule, Stage, Update, walk, walk_access
from engine.memory.physical import UNKNOWN, ZERO, SparseMemory
from tests.engine.spaces import random_space

ON = CR0.PE | CR0.WP | CR0.PG
LA = 0x7F12_3456_7890
WORDS = {0x17F0: 0x2007, 0x2240: 0x3007, 0x3D10: 0x4007, 0x4B38: 0xABC_D007}
"""Indices 254, 72, 418, 359 of `LA`, each in a table of its own, none of them accessed yet."""
MEMORY = SparseMemory(ZERO).with_words(WORDS)


def long_mode(levels: int = 4, **values: int) -> Registers:
    cr4 = CR4.PAE | (CR4.LA57 if levels == 5 else 0) | values.pop("cr4", 0)
    efer = EFER.LME | EFER.LMA | values.pop("efer", EFER.NXE)
    return Registers(**{"cr0": ON, "cr3": 0x1000, "cpl": 3, **values, "cr4": cr4, "efer": efer})


def paging(levels: int = 4, rules: Rules | None = None, **values: int) -> Paging:
    return bind(long_mode(levels, **values), Features(), *([rules] if rules else []))


# --- the record


def test_each_reference_is_a_step_with_its_evidence() -> None:
    steps = walk(MEMORY, paging(), LA).steps
    assert [(step.level.name, step.index, step.address, step.value, step.rule) for step in steps] == [
        ("PML4", 254, 0x17F0, 0x2007, Rule.TABLE),
        ("PDPT", 72, 0x2240, 0x3007, Rule.TABLE),
        ("PD", 418, 0x3D10, 0x4007, Rule.TABLE),
        ("PT", 359, 0x4B38, 0xABC_D007, Rule.PAGE),
    ]
    assert [(step.table, step.base) for step in steps] == [
        (0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000), (0x4000, 0xABC_D000),
    ]  # fmt: skip
    assert {step.stage for step in steps} == {Stage.ONE}
    assert [step.row for step in steps] == [4, 3, 2, 1]
    assert [step.is_leaf for step in steps] == [False, False, False, True]


def test_the_last_step_of_a_walk_that_stops_tells_why() -> None:
    absent = walk(MEMORY.with_words({0x3D10: 0x4006}), paging(), LA)
    assert (absent.steps[-1].rule, absent.steps[-1].base, len(absent.steps)) == (Rule.NOT_PRESENT, None, 3)
    reserved = walk(MEMORY.with_words({0x17F0: 0x2087}), paging(), LA)
    assert (reserved.steps[-1].rule, reserved.steps[-1].base, len(reserved.steps)) == (Rule.RESERVED, None, 1)
    denied = walk(MEMORY.with_words({0x4B38: 0xABC_D005}), paging(), LA, WRITE)
    assert (denied.steps[-1].rule, denied.steps[-1].base) == (Rule.DENIED, 0xABC_D000)


def test_every_rule_rests_on_something() -> None:
    assert all(rule.basis.reference for rule in Rule)


def test_a_fault_has_its_reserved_bits_and_violations() -> None:
    reserved = walk(
        MEMORY.with_words({0x3D10: 0x4007 | bit(51) | bit(40)}), bind(long_mode(), Features(maxphyaddr=40)), LA
    )
    assert isinstance(reserved.outcome, PageFault)
    assert (reserved.outcome.reason, reserved.outcome.reserved) == (Reason.RESERVED, bit(51) | bit(40))
    rights = walk(MEMORY.with_words({0x4B38: 0xABC_D001}), paging(), LA, WRITE)
    assert isinstance(rights.outcome, PageFault)
    assert rights.outcome.violations == (Violation.SUPERVISOR_PAGE, Violation.READ_ONLY)


def test_rights_shrink_from_step_to_step() -> None:
    memory = MEMORY.with_words({0x2240: 0x3005, 0x3D10: 0x4007 | bit(63), 0x4B38: 0xABC_D003})
    result = walk(memory, paging(cpl=0), LA)
    assert [result.rights_after(n).letters() for n in range(4)] == ["R W X U", "R – X U", "R – – U", "R – – –"]
    assert isinstance(result.outcome, Translated)
    assert result.outcome.rights == result.rights_after(3)


def test_references_and_cache_lines_are_counted() -> None:
    """A root that points at itself is read three times; two of the slots share a line."""
    memory = SparseMemory(ZERO).with_words({0x1000: 0x1007, 0x1008: 0x2007, 0x2000: 0x9007})
    result = walk(memory, paging(), 0x20_0000)
    assert [step.address for step in result.steps] == [0x1000, 0x1000, 0x1008, 0x2000]
    assert (result.references, result.cache_lines) == (4, 2)


# --- accessed and dirty flags


def test_a_walk_changes_nothing_and_tells_what_hardware_would_write() -> None:
    result = walk(MEMORY, paging(), LA, WRITE)
    assert result.updates == (
        Update(0x17F0, 8, 0x2007, 0x2027),
        Update(0x2240, 8, 0x3007, 0x3027),
        Update(0x3D10, 8, 0x4007, 0x4027),
        Update(0x4B38, 8, 0xABC_D007, 0xABC_D067),
    )
    assert {address: MEMORY.word(address) for address in WORDS} == WORDS


def test_flags_set_early_are_seen_later_in_the_same_walk() -> None:
    """The root maps itself, so its entry is read at every level, and gets A at the first and D at the last."""
    memory = SparseMemory(ZERO).with_words({0x1000: 0x1007})
    result = walk(memory, paging(), 0, WRITE)
    assert [step.value for step in result.steps] == [0x1007, 0x1027, 0x1027, 0x1027]
    assert result.updates == (Update(0x1000, 8, 0x1007, 0x1067),)


def test_flags_of_a_walk_that_faults_are_a_choice() -> None:
    memory = MEMORY.with_words({0x4B38: 0})
    by_level = walk(memory, paging(), LA)
    at_the_end = walk(memory, paging(rules=Rules(ad_policy=AdPolicy.COMMIT)), LA)
    assert [update.address for update in by_level.updates] == [0x17F0, 0x2240, 0x3D10]
    assert at_the_end.updates == ()
    assert at_the_end.outcome == by_level.outcome
    assert (
        walk(MEMORY, paging(rules=Rules(ad_policy=AdPolicy.COMMIT)), LA).updates == walk(MEMORY, paging(), LA).updates
    )


@given(seed=st.integers(0, 2**32), mode=st.sampled_from(Mode))
def test_updates_set_flags_and_touch_nothing_else(seed, mode):
    space = random_space(seed, mode)
    for address in range(0, 1 << 32, 0x1234_5678):
        for update in walk(space.memory, space.paging, address, WRITE).updates:
            assert update.old & ~update.new == 0
            assert (update.old ^ update.new) & ~(bit(5) | bit(6)) == 0
            assert update.address % update.size == 0


# --- bytes that are not there


@pytest.mark.parametrize("missing", WORDS)
def test_bytes_that_are_unknown_are_an_outcome_of_their_own(missing: int) -> None:
    known = {address: word for address, word in WORDS.items() if address != missing}
    memory = SparseMemory(UNKNOWN).with_words(known)
    result = walk(memory, paging(), LA)
    assert result.outcome == Unknown(missing)
    assert (result.steps[-1].rule, result.steps[-1].value, result.steps[-1].decoded()) == (Rule.UNKNOWN, None, [])


def test_half_a_word_is_not_enough() -> None:
    memory = SparseMemory(UNKNOWN).write(0x17F0, b"\x07\x20\x00\x00")
    assert walk(memory, paging(), LA).outcome == Unknown(0x17F0)


# --- before the walk: canonical form, LAM, LASS


@pytest.mark.parametrize(
    ("levels", "address", "canonical"),
    [
        (4, 0x0000_7FFF_FFFF_FFFF, True), (4, 0x0000_8000_0000_0000, False),
        (4, 0xFFFF_8000_0000_0000, True), (4, 0xFFFF_7FFF_FFFF_FFFF, False),
        (5, 0x0000_8000_0000_0000, True), (5, 0x00FF_FFFF_FFFF_FFFF, True), (5, 0x0100_0000_0000_0000, False),
        (5, 0xFF00_0000_0000_0000, True), (5, 0xFEFF_FFFF_FFFF_FFFF, False),
    ],
)  # fmt: skip
def test_an_address_that_is_not_canonical_is_not_walked(levels: int, address: int, canonical: bool) -> None:
    result = walk(SparseMemory(ZERO), paging(levels), address)
    if canonical:
        assert isinstance(result.outcome, PageFault)
        assert result.outcome.cr2 == address
    else:
        assert isinstance(result.outcome, GeneralProtection)
        assert (result.outcome.vector, result.steps, result.updates) == (13, (), ())


def test_every_byte_of_an_access_must_be_canonical() -> None:
    last = 0x0000_7FFF_FFFF_FFFF
    assert isinstance(walk(SparseMemory(ZERO), paging(), last, Access(Kind.READ, size=1)).outcome, PageFault)
    assert isinstance(walk(SparseMemory(ZERO), paging(), last, Access(Kind.READ, size=2)).outcome, GeneralProtection)


def test_a_stack_access_raises_ss_instead_of_gp() -> None:
    outcome = walk(SparseMemory(ZERO), paging(), bit(50), Access(Kind.READ, stack=True)).outcome
    assert isinstance(outcome, GeneralProtection)
    assert outcome.vector == 12


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.LEGACY, Mode.PAE], ids=lambda mode: mode.value)
def test_outside_long_mode_an_address_has_32_bits(mode: Mode) -> None:
    space = random_space(7, mode)
    for address in range(0, 1 << 32, 0x0FED_CBA9):
        wide, narrow = (walk(space.memory, space.paging, a) for a in (address | 0xABCD_0000_0000_0000, address))
        assert (wide.steps, wide.outcome, wide.linear) == (narrow.steps, narrow.outcome, address)


TAGGED = LA | 0x2A << 57
KERNEL = 0xFFFF_8000_0000_1000
LAM = [  # what is accessed, bits of CR3 and CR4, the address that is walked
    ("user pointer, LAM_U57", READ, CR3_LAM_U57, 0, TAGGED, LA),
    ("user pointer, LAM_U48", READ, CR3_LAM_U48, 0, TAGGED | bit(50), LA),
    ("user pointer, both: U57 wins", READ, CR3_LAM_U57 | CR3_LAM_U48, 0, TAGGED, LA),
    ("supervisor pointer, LAM_SUP", READ, 0, CR4.LAM_SUP, KERNEL & ~bit(55), KERNEL),
    ("no LAM for fetches", FETCH, CR3_LAM_U57, 0, TAGGED, None),
    ("no LAM for implicit accesses", Access(Kind.READ, implicit=True), CR3_LAM_U57, 0, TAGGED, None),
    ("off", READ, 0, 0, TAGGED, None),
    ("user control, supervisor pointer", READ, CR3_LAM_U57, 0, bit(63) | LA, None),
    ("supervisor control, user pointer", READ, 0, CR4.LAM_SUP, TAGGED, None),
]  # fmt: skip


@pytest.mark.parametrize(("access", "cr3", "cr4", "address", "linear"), [r[1:] for r in LAM], ids=[r[0] for r in LAM])
def test_linear_address_masking(access: Access, cr3: int, cr4: int, address: int, linear: int | None) -> None:
    result = walk(MEMORY, paging(cr3=0x1000 | cr3, cr4=cr4, cpl=0), address, access)
    if linear is None:
        assert isinstance(result.outcome, GeneralProtection)
    else:
        assert (result.address, result.linear) == (address, linear)
        assert not isinstance(result.outcome, GeneralProtection)


UPPER, LOWER = 0xFFFF_8000_0000_0000, LA
LASS = [  # who, which half, CR4 beside LASS, RFLAGS, access, closed?
    ("user, upper half", 3, UPPER, 0, 0, READ, True),
    ("user, lower half", 3, LOWER, 0, 0, READ, False),
    ("supervisor fetch, lower half", 0, LOWER, 0, 0, FETCH, True),
    ("supervisor fetch, upper half", 0, UPPER, 0, 0, FETCH, False),
    ("supervisor read, lower half, no SMAP", 0, LOWER, 0, 0, READ, False),
    ("supervisor read, lower half, SMAP", 0, LOWER, CR4.SMAP, 0, READ, True),
    ("supervisor read, lower half, SMAP and AC", 0, LOWER, CR4.SMAP, RFLAGS_AC, READ, False),
    ("implicit read, lower half, SMAP and AC", 0, LOWER, CR4.SMAP, RFLAGS_AC, Access(Kind.READ, implicit=True), True),
]


@pytest.mark.parametrize(
    ("cpl", "address", "cr4", "rflags", "access", "closed"), [r[1:] for r in LASS], ids=[r[0] for r in LASS]
)
def test_lass(cpl: int, address: int, cr4: int, rflags: int, access: Access, closed: bool) -> None:
    result = walk(MEMORY, paging(cpl=cpl, cr4=CR4.LASS | cr4, rflags=2 | rflags), address, access)
    assert isinstance(result.outcome, GeneralProtection) == closed
    assert bool(result.steps) != closed


# --- accesses that cross a page


def test_an_access_across_a_page_is_two_walks() -> None:
    memory = MEMORY.with_words({0x4B40: 0x777_7007})
    first, second = walk_access(memory, paging(), 0x7F12_3456_7FFD, Access(Kind.READ, size=8))
    assert isinstance(first.outcome, Translated)
    assert isinstance(second.outcome, Translated)
    assert (first.outcome.address, second.outcome.address) == (0xABC_DFFD, 0x777_7000)


def test_its_second_page_faults_with_the_address_of_the_first_byte_there() -> None:
    first, second = walk_access(MEMORY, paging(), 0x7F12_3456_7FFD, Access(Kind.WRITE, size=8))
    assert first.ok
    assert isinstance(second.outcome, PageFault)
    assert second.outcome.cr2 == 0x7F12_3456_8000


def test_the_second_page_is_not_walked_where_the_first_faults() -> None:
    (only,) = walk_access(MEMORY.with_words({0x4B38: 0}), paging(), 0x7F12_3456_7FFD, Access(Kind.READ, size=8))
    assert isinstance(only.outcome, PageFault)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_access_up_to_the_last_byte_of_a_page_is_one_walk(size: int) -> None:
    assert len(walk_access(MEMORY, paging(), 0x7F12_3456_8000 - size, Access(Kind.READ, size=size))) == 1


# --- roots


@pytest.mark.parametrize(
    ("low", "cr4"), [(0x18, 0), (0xFE7, 0), (0xFFF, CR4.PCIDE)], ids=["PWT PCD", "ignored", "PCID"]
)
def test_the_low_bits_of_cr3_are_no_part_of_the_root(low: int, cr4: int) -> None:
    assert walk(MEMORY, paging(cr3=0x1000 | low, cr4=cr4), LA).outcome == walk(MEMORY, paging(), LA).outcome


def test_a_pae_root_is_32_bytes() -> None:
    memory = SparseMemory(ZERO).with_words({0x1028: 0x5001, 0x5000: 0x1E7})
    bound = bind(Registers(cr0=ON, cr3=0x1020, cr4=CR4.PAE, cpl=3), Features())
    result = walk(memory, bound, 0x4000_1234)
    assert isinstance(result.outcome, Translated)
    assert (result.outcome.address, result.outcome.page_size) == (0x1234, 1 << 21)
    assert [(step.index, step.address) for step in result.steps] == [(1, None), (0, 0x5000)]
    assert result.references == 1, "a PDPTE register costs no reference"


def test_pdpte_registers_do_not_see_later_edits() -> None:
    held = bind(Registers(cr0=ON, cr3=0x1020, cr4=CR4.PAE, cpl=3, pdptes=(0, 0x5001, 0, 0)), Features())
    memory = SparseMemory(ZERO).with_words({0x1028: 0, 0x5000: 0x1E7})
    assert isinstance(walk(memory, held, 0x4000_1234).outcome, Translated)


def test_a_bad_pdpte_stops_every_access_when_it_is_loaded() -> None:
    memory = SparseMemory(ZERO).with_words({0x1020: 0x5001, 0x1038: 0x5003})
    outcome = walk(memory, bind(Registers(cr0=ON, cr3=0x1020, cr4=CR4.PAE), Features()), 0).outcome
    assert isinstance(outcome, GeneralProtection)
    assert outcome.when == "pdpte load"


def test_without_paging_an_address_is_physical() -> None:
    result = walk(SparseMemory(UNKNOWN), bind(Registers(cr0=CR0.PE), Features()), 0xFFFF_FFF0, FETCH)
    assert isinstance(result.outcome, Translated)
    assert (result.outcome.address, result.outcome.page_size, result.references) == (0xFFFF_FFF0, 0, 0)


# --- vendors


def test_bit_8_of_a_top_entry_is_reserved_on_amd_unless_the_rule_is_off() -> None:
    memory = MEMORY.with_words({0x17F0: 0x2107})
    amd = Features(vendor=Vendor.AMD)
    assert walk(memory, bind(long_mode(), Features()), LA).ok
    assert not walk(memory, bind(long_mode(), amd), LA).ok
    assert walk(memory, bind(long_mode(), amd, Rules(amd_bit8=False)), LA).ok
