"""What the window says of a step: names, verdicts, reasons, all from the Walk."""

from pathlib import Path

import pytest

from engine.arch.faults import PF_BITS, Reason
from engine.arch.rights import FETCH, READ, WRITE, Access
from engine.arch.tables import classify
from engine.arch.walk import Rule, Stage
from gui import explain
from tests.engine.nested_fixture import walk_ept, walk_npt
from tests.gui.tiny import PD2_BAD, tiny_document


def said(folder: Path, address: int, access: Access = READ, cpl: int = 3) -> list[str]:
    """The sentences on the last step of a walk in the small memory."""
    walk = tiny_document(folder, address, access, cpl).walk
    assert walk is not None
    return explain.why(walk, len(walk.steps) - 1)


def test_the_root_comes_from_cr3_and_the_slot_from_the_address(tmp_path: Path) -> None:
    walk = tiny_document(tmp_path).walk
    assert walk is not None
    assert explain.why(walk, 0) == [
        "CR3 names the PML4 at 0x1000.",
        "Bits 47:39 of the address pick entry 0.",
        "It is present and points at the PDPT at 0x2000.",
        "The processor sets A here.",
    ]


def test_a_write_sets_both_flags_of_the_page(tmp_path: Path) -> None:
    assert said(tmp_path, 0x1ABC, WRITE)[-1] == "The processor sets A + D here."


def test_a_page_says_its_size_and_where_it_is(tmp_path: Path) -> None:
    sentences = said(tmp_path, 0x20_0123)
    assert "It maps a 2 MiB page at 0x20_0000, and the access is allowed." in sentences
    assert "A is set already: nothing is written back." in sentences


def test_a_denied_access_names_the_entries_that_deny_it(tmp_path: Path) -> None:
    assert said(tmp_path, 0x2000, WRITE)[1:] == [
        "It maps a 4 KiB page at 0x6000, but the access is not allowed.",
        "Denied: user access to a supervisor page (U/S = 0).",
        "U/S is 0 in PT entry 2.",
        "Denied: write to a read-only page (R/W = 0).",
        "R/W is 0 in PT entry 2.",
    ]


def test_a_fetch_from_a_no_execute_page_names_xd(tmp_path: Path) -> None:
    assert "XD is 1 in PT entry 2." in said(tmp_path, 0x2000, FETCH, cpl=0)


def test_all_entries_that_withhold_a_right_are_named(tmp_path: Path) -> None:
    """Under PML4 256 the whole half is the supervisor's."""
    sentences = said(tmp_path, 0xFFFF_8000_0000_2000)
    assert "U/S is 0 in PML4 entry 256, PT entry 2." in sentences


def test_a_reserved_bit_is_named_with_its_rule(tmp_path: Path) -> None:
    assert said(tmp_path, 0x40_0000)[-1] == (
        "Set, but reserved: 13 (bits 20:13 must be 0: a 2-MiB page is aligned to its size)."
    )


def test_missing_bytes_are_no_zeros(tmp_path: Path) -> None:
    assert said(tmp_path, 0x60_0000)[-1] == "The image does not hold the bytes at 0x7f00_0000: the walk cannot go on."


@pytest.mark.parametrize(
    ("address", "title"),
    [(0x1ABC, "0x5abc"), (0x3000, "#PF 0x4"), (0x40_0000, "#PF 0xd"), (1 << 47, "#GP(0)"), (0x60_0000, "not in image")],
)
def test_an_outcome_in_a_few_characters(tmp_path: Path, address: int, title: str) -> None:
    walk = tiny_document(tmp_path, address).walk
    assert walk is not None
    assert explain.outcome_title(walk.outcome) == title


def test_letters_have_a_place_each(tmp_path: Path) -> None:
    walk = tiny_document(tmp_path).walk
    assert walk is not None
    assert [explain.letters(step) for step in walk.steps] == ["P W U · ·"] * 3 + ["P W U · · · ·"]


def test_letters_of_ept_entries() -> None:
    leaf = walk_ept().steps[3]
    assert explain.letters(leaf).startswith("R W X")


def test_a_nested_reference_says_whose_address_it_translates() -> None:
    walk = walk_npt()
    assert explain.reference_title(walk, 0) == (
        "Reference 1: Nested PML4 entry 0, for the guest's PML4 entry at GPA 0x17f0"
    )
    assert explain.reference_title(walk, 4) == "Reference 5: Guest PML4 entry 254"
    assert explain.reference_title(walk, 23) == "Reference 24: Nested PT entry 5, for the page at GPA 0x5890"
    assert explain.why(walk, 0)[0] == (
        "The guest's PML4 entry lies at guest-physical 0x17f0: that is translated first, as for a write, since the "
        "processor may set A or D in it."
    )


def test_without_ept_flags_a_guest_table_is_only_read() -> None:
    assert explain.why(walk_ept(ad=False), 0)[0] == (
        "The guest's PML4 entry lies at guest-physical 0x17f0: that is translated first."
    )


def test_both_stages_are_combined_at_the_end() -> None:
    assert explain.together(walk_ept()) == [
        "Rights: the guest's tables give R W X U, the nested ones R W X U; together R W X U.",
        "Memory type: WB by the guest's PAT, WB by the second stage: WB.",
    ]
    assert explain.together(walk_npt({0x100000: 0})) == []


def test_cost_counts_references_and_lines() -> None:
    walk = walk_npt()
    assert explain.so_far(walk, 0).endswith("Cost so far: 1 reference, 1 cache line.")
    assert f"{walk.references} references, {walk.cache_lines} cache lines" in explain.so_far(walk, 23)


def test_a_fault_code_comes_with_its_table(tmp_path: Path) -> None:
    walk = tiny_document(tmp_path, 0x3000).walk
    assert walk is not None
    assert explain.fault_code(walk.outcome) == (4, PF_BITS)
    ok = tiny_document(tmp_path).walk
    assert ok is not None
    assert explain.fault_code(ok.outcome) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (0, "It is empty: addresses below it fault."),
        (0xDEAD_0000, "It is not present: the processor ignores its other bits, they are software's."),
        (PD2_BAD, "Any access through it faults."),
        (None, "The image does not hold its bytes."),
        (0x6007, "It points at a table at 0x6000, for 2 MiB of addresses."),
        (0x20_0087, "It maps a 2 MiB page at 0x20_0000."),
    ],
)
def test_an_entry_off_the_walk_is_explained_too(tmp_path: Path, value: int | None, sentence: str) -> None:
    level = tiny_document(tmp_path).paging.levels[2]
    said = explain.why_entry(Stage.ONE, level, value, classify(level, value))
    assert said[0] == "The walk does not use this entry."
    assert said[-1] == sentence


def test_every_rule_has_a_verdict() -> None:
    verdicts = [explain.verdict(rule, 12) for rule in Rule]
    assert len(set(verdicts)) == len(list(Rule))
    assert explain.verdict(Rule.PAGE, 30) == "1 GiB page"


def test_a_reason_is_never_lost() -> None:
    """A nested fault without a violation says its reason."""
    walk = walk_npt({0x100000: 0})
    assert explain.outcome_sentence(walk.outcome) == (
        f"Nested page fault for guest-physical 0x17f0: {Reason.NOT_PRESENT.value}."
    )
