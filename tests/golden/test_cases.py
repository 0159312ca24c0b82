"""Single accesses and nested ones that QEMU or Bochs executed: the engine answers each as they did.

The outcome must agree, and the accessed and dirty flags where the access went through (which are set where it faults is
the processor's choice). Cases that an emulator gets wrong are marked by ``quirks`` and held against the manuals' rule;
KNOWN.md tells each.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cases import answer
from tests.golden.sample import GOLDEN, SAMPLE, SETS, draw, lines_of

Case = dict[str, Any]
NOT_ANSWERED = ("value", "qemu_error_code")
"""What the emulator's data say beyond the translation: the bytes read, and QEMU's own code where it was corrected."""

FILES = [path.relative_to(GOLDEN) for name in SETS for path in sorted((GOLDEN / name).glob("*.jsonl.gz"))]
ALL_FILES = pytest.mark.skipif(not FILES, reason="no ../shared/golden beside this checkout")


def cases_in(path: Path) -> list[Case]:
    return [json.loads(line) for line in lines_of(path)]


def told(case: Case) -> Case:
    return {key: value for key, value in case["expect"].items() if key not in NOT_ANSWERED}


def disagreements(cases: list[Case]) -> list[tuple[Case, Case]]:
    """Those cases that are not marked as quirks and are answered otherwise, with the answer."""
    found = []
    for case in cases:
        if case.get("quirks"):
            continue
        got = answer(case)
        same_flags = not got["expect"]["ok"] or sorted(got["ad_after"]) == sorted(case["ad_after"])
        if got["expect"] != told(case) or not same_flags or got["id"] != case["id"]:
            found.append((case, got))
    return found


def off_the_rule(cases: list[Case]) -> list[tuple[Case, Case]]:
    """Those cases that are marked as quirks and are not answered by the manuals' rule, with the answer."""
    pairs = [(case, answer(case)["expect"]) for case in cases if case.get("quirks")]
    return [(case, got) for case, got in pairs if not RULES[case["quirks"][-1]](case, got)]


# --- where the emulator is wrong, the manuals' rule


def general_protection_at_the_load(case: Case, got: Case) -> bool:
    return got == {"ok": False, "vector": 13, "error_code": 0, "cr2": None, "when": "pdpte load"}


def reserved_bits_reported(case: Case, got: Case) -> bool:
    return bool(got["vector"] == 14 and got["error_code"] & 0b1001 == 0b1001 and got["cr2"] == case["access"]["va"])


def flag_write_refused(case: Case, got: Case) -> bool:
    """The update of A or D is a write to a page without W: a violation, data read and write, of the entry's GPA."""
    if got == told(case):
        return True  # something that comes before it
    qualification = int(got["qualification"], 16)
    return got["kind"] == "ept_violation" and qualification & 0b11 == 0b11 and not qualification & (1 << 4 | 1 << 8)


def address_of_the_entry(case: Case, got: Case) -> bool:
    table, entry = int(case["expect"]["exitinfo2"], 16), int(got["exitinfo2"], 16)
    index = int(case["access"]["gva"], 16) >> 30 & 3
    return entry == table + 8 * index and got["exitinfo1"] == case["expect"]["exitinfo1"]


def as_the_host_is(case: Case, got: Case) -> bool:
    return got == told(case)


def no_fetch_bit_without_nxe(case: Case, got: Case) -> bool:
    code = int(case["expect"]["exitinfo1"], 16) & ~(1 << 4)
    return got == {**told(case), "exitinfo1": hex(code)}


RULES: dict[str, Callable[[Case, Case], bool]] = {
    "pae-pdpte-reserved": general_protection_at_the_load,
    "pse36-above-maxphyaddr": reserved_bits_reported,
    "bochs-ept-guest-ad-write": flag_write_refused,
    "bochs-npf-pdpte-address": address_of_the_entry,
    "bochs-npt-depth-from-guest-la57": as_the_host_is,
    "npf-id-without-nxe": no_fetch_bit_without_nxe,
}


# --- agreement


@pytest.mark.parametrize("name", SETS)
def test_every_case_of_the_sample_agrees_or_follows_the_manuals(name: str) -> None:
    sample = cases_in(SAMPLE / f"{name}.jsonl.gz")
    assert disagreements(sample) == []
    assert off_the_rule(sample) == []


@ALL_FILES
@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_case_agrees_or_follows_the_manuals(file: Path) -> None:
    cases = cases_in(GOLDEN / file)
    assert disagreements(cases) == []
    assert off_the_rule(cases) == []


def test_the_sample_holds_every_quirk_and_known_md_tells_it() -> None:
    cases = [case for name in SETS for case in cases_in(SAMPLE / f"{name}.jsonl.gz")]
    assert {case["quirks"][-1] for case in cases if case.get("quirks")} == set(RULES)
    known = (Path(__file__).parent / "KNOWN.md").read_text()
    assert [quirk for quirk in RULES if f"`{quirk}`" not in known] == []


@ALL_FILES
@pytest.mark.parametrize("name", SETS)
def test_the_sample_is_what_its_seed_draws(name: str) -> None:
    assert lines_of(SAMPLE / f"{name}.jsonl.gz") == draw(GOLDEN / name)
