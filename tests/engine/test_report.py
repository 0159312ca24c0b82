"""A walk as text and as JSON: what is in the record is told, and the text fits a terminal."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.arch.bits import U64
from engine.arch.faults import (
    EptMisconfiguration,
    EptViolation,
    NestedPageFault,
    PageFault,
    Translated,
    Unknown,
)
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, EFER, Features, Mode, Registers
from engine.arch.rights import READ, WRITE, Access, Kind
from engine.arch.walk import Stage, walk
from engine.memory.physical import UNKNOWN, ZERO, SparseMemory
from engine.report import outcome_json, walk_json, walk_text
from tests.engine.nested_fixture import guest, pt, walk_ept, walk_npt
from tests.engine.spaces import random_space
from tests.engine.three_stages import system

LA = 0x7F12_3456_7890
LONG = bind(
    Registers(
        cr0=CR0.PE | CR0.WP | CR0.PG, cr3=0x1000, cr4=CR4.PAE | CR4.PKE, efer=EFER.LME | EFER.LMA | EFER.NXE, cpl=3
    ),
    Features(maxphyaddr=46),
)
MEMORY = SparseMemory(ZERO).with_words(
    {0x17F0: 0x2027, 0x2240: 0x3027, 0x3D10: 0x4007, 0x4B38: 0xA800_0000_ABCD_E067}
)  # fmt: skip


def test_a_walk_that_goes_through() -> None:
    assert walk_text(walk(MEMORY, LONG, LA, Access(Kind.WRITE, size=4))).splitlines() == [
        "write of 4 bytes at 0x7f12_3456_7890, user, CPL 3",
        "4-level, root 0x1000",
        "",
        "# entry      read at  value                  flags            verdict",
        "1 PML4[254]  0x17f0   0x0000_0000_0000_2027  RW US A          table",
        "2 PDPT[72]   0x2240   0x0000_0000_0000_3027  RW US A          table",
        "3 PD[418]    0x3d10   0x0000_0000_0000_4007  RW US            table",
        "4 PT[359]    0x4b38   0xa800_0000_abcd_e067  RW US A D K5 XD  4 KiB page",
        "",
        "-> 0xabcd_e890   4 KiB page   rights R W – U   key 5",
        "sets 0x3d10: 0x0000_0000_0000_4007 -> 0x0000_0000_0000_4027",
        "4 references to 4 cache lines",
    ]


def test_a_walk_that_faults_has_its_code_bit_by_bit_and_the_rule_that_was_broken() -> None:
    text = walk_text(walk(MEMORY.with_words({0x3D10: 0x4000_0000_4007}), LONG, LA, WRITE))
    assert "3 PD[418]    0x3d10   0x0000_4000_0000_4007  RW US    reserved" in text
    assert "#PF: reserved bit, error code 0xf, CR2 0x7f12_3456_7890" in text
    assert "reserved bits that are set: 46" in text
    assert "bits 51:MAXPHYADDR must be 0" in text
    assert "bit 3  RSVD = 1   a reserved bit was set in an entry" in text


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (walk(MEMORY, LONG, 1 << 50), "#GP(0): the address is not canonical: bits 63:47 are not all equal"),
        (walk(MEMORY, LONG, 1 << 50, Access(stack=True)), "#SS(0): the address is not canonical"),
        (walk(SparseMemory(UNKNOWN), LONG, LA), "unknown: the image does not hold the entry at 0x17f0"),
        (walk_npt({pt(5): 0}), "#NPF: not present, EXITINFO1 0x100000004, EXITINFO2 0x5890"),
        (
            walk_ept({pt(1): 0x201035}, "w"),
            "EPT violation: rights, qualification 0xab, GPA 0x17f0, GLA 0x7f12_3456_7890",
        ),
        (walk_ept({pt(5): 0x205032}), "EPT misconfiguration, GPA 0x5890\n   writable but not readable (W = 1, R = 0)"),
        (walk_npt({guest(0x4B38): 0x5065}, "w"), "write to a read-only page (R/W = 0)"),
    ],
)
def test_each_outcome_has_its_sentence(result, sentence):
    assert sentence in walk_text(result)


def test_two_dimensions_are_a_grid_with_the_references_numbered() -> None:
    text = walk_text(walk_npt()).splitlines()
    at = next(number for number, line in enumerate(text) if line.lstrip().startswith("for"))
    assert text[at : at + 6] == [
        "  for nPML4   nPDPT   nPD     nPT     guest entry",
        "gPML4  1 [0]   2 [0]   3 [0]   4 [1]   5 gPML4[254]",
        "gPDPT  6 [0]   7 [0]   8 [0]   9 [2]  10 gPDPT[72]",
        "  gPD 11 [0]  12 [0]  13 [0]  14 [3]  15 gPD[418]",
        "  gPT 16 [0]  17 [0]  18 [0]  19 [4]  20 gPT[359]",
        " page 21 [0]  22 [0]  23 [0]  24 [5]",
    ]
    assert "gPD entry at GPA 0x3d10" in text
    assert "page at GPA 0x5890" in text
    assert text[-1] == "24 references to 8 cache lines"


def test_the_cell_where_a_two_dimensional_walk_stops_is_marked() -> None:
    text = walk_text(walk_npt({pt(2): 0x202065}))
    assert "gPDPT  6 [0]   7 [0]   8 [0]   9 [2]!\n" in text
    assert text.count("!") == 1


def test_three_stages_are_a_grid_of_the_upper_two() -> None:
    text = walk_text(system().walk()).splitlines()
    assert text[1:11] == [
        "L2: 4-level, root 0x1000",
        "L1: 4-level NPT, root 0x1_0000",
        "L0: 4-level NPT, root 0x80_0000",
        "",
        "    for L1 PML4  L1 PDPT  L1 PD    L1 PT    L2 entry",
        "L2 PML4   5 [0]   10 [0]   15 [0]   20 [1]   25 L2 PML4[254]",
        "L2 PDPT  30 [0]   35 [0]   40 [0]   45 [2]   50 L2 PDPT[72]",
        "  L2 PD  55 [0]   60 [0]   65 [0]   70 [3]   75 L2 PD[418]",
        "  L2 PT  80 [0]   85 [0]   90 [0]   95 [4]  100 L2 PT[359]",
        "   page 105 [0]  110 [1]  115 [0]  120 [0]  124 L0 PT[0]",
    ]
    at = text.index("L2 PD entry at L2 GPA 0x3d10")
    assert text[at + 1] == "   L1 PML4 entry at L1 GPA 0x1_0000"
    assert "   which is at L1 GPA 0x8000_3d10" in text[at:]
    assert text[-1] == "124 references to 18 cache lines"


@pytest.mark.parametrize(
    ("stage", "mark", "sentence"),
    [
        (Stage.GUEST, "75 L2 PD[418]!", "L2's tables stopped it: a fault for L2"),
        (Stage.NESTED, "10 [0]!", "L1's tables stopped it: an exit to L1"),
        (Stage.HOST, "24 L0 PT[1]!", "L0's tables stopped it: an exit that L0 handles"),
    ],
)
def test_the_stage_that_stopped_a_walk_of_three_is_told(stage: Stage, mark: str, sentence: str) -> None:
    made = system()
    nth = {Stage.GUEST: 2, Stage.NESTED: 5, Stage.HOST: 19}[stage]
    step = [step for step in made.walk().steps if step.stage is stage][nth]
    assert step.address is not None
    walk = made.walk(READ, {step.address: 0})
    text = walk_text(walk)
    assert mark in text
    assert sentence in text
    assert walk_json(walk)["stopped_by"] == stage.value


@pytest.mark.parametrize("l0", ["5-level EPT", "5-level NPT"])
def test_three_stages_fit_100_columns(l0: str) -> None:
    text = walk_text(system("5-level", l0, l0).walk())
    assert max(map(len, text.splitlines())) <= 100


@given(
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(Mode),
    address=st.integers(0, U64),
    access=st.builds(Access, st.sampled_from(Kind)),
)
@example(seed=1, mode=Mode.LEVEL4, address=0x12_8000_0000_0000, access=Access(Kind.SHADOW_READ))
def test_any_walk_fits_100_columns_and_is_json(seed, mode, address, access):
    space = random_space(seed, mode)
    # Slots that have entries, so that walks get deep.
    near = address & 0x00C0_3018_0601_FFFF
    for at in (address, near):
        result = walk(space.memory, space.paging, at, access)
        text = walk_text(result)
        assert max(map(len, text.splitlines())) <= 100, text
        assert json.loads(json.dumps(walk_json(result))) == walk_json(result)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("walked", [walk_ept, walk_npt], ids=["EPT", "NPT"])
def test_two_dimensions_fit_100_columns(walked, levels):
    for changes in ({}, {pt(3): 0}, {guest(0x4B38): 0xF800_0000_0000_51FF}, {pt(5): 0x8000_0000_0020_51FF}):
        assert max(map(len, walk_text(walked(changes, levels=levels)).splitlines())) <= 100


# --- JSON


def test_the_json_of_a_walk_holds_every_step_field_by_field() -> None:
    told = walk_json(walk(MEMORY, LONG, LA))
    assert (told["address"], told["linear"], told["gpa"], told["second"]) == (hex(LA), hex(LA), None, None)
    assert told["access"] == {"kind": "read", "size": 1, "cpl": 3, "user": True, "implicit": False}
    assert (told["paging"]["mode"], told["paging"]["root"]) == ("4-level", "0x1000")
    assert (told["references"], told["cache_lines"]) == (4, 4)
    last = told["steps"][-1]
    assert {name: last[name] for name in ("number", "stage", "row", "level", "table", "table_address", "index")} == {
        "number": 4, "stage": "one-stage", "row": 1, "level": 1, "table": "PT", "table_address": "0x4000", "index": 359,
    }  # fmt: skip
    assert {name: last[name] for name in ("entry", "address", "target", "value", "base", "verdict")} == {
        "entry": "PTE", "address": "0x4b38", "target": None, "value": "0xa8000000abcde067", "base": "0xabcde000",
        "verdict": "page",
    }  # fmt: skip
    key = next(field for field in last["fields"] if field["name"] == "key")
    assert key == {
        "name": "key", "hi": 62, "lo": 59, "value": "0x5", "role": "key", "meaning": "protection key 5", "why": "",
    }  # fmt: skip
    assert told["updates"] == [{"address": "0x3d10", "size": 8, "old": "0x4007", "new": "0x4027"}]
    assert told["outcome"] == {
        "kind": "translated", "pa": "0xabcde890", "page_size": 4096,
        "rights": {"read": True, "write": True, "execute": False, "user": True, "key": 5, "global": False},
    }  # fmt: skip


def test_the_json_of_two_dimensions_names_stage_row_and_target() -> None:
    told = walk_json(walk_npt())
    assert told["second"] == {"kind": "NPT", "mode": "4-level", "root": "0x100000"}
    assert told["gpa"] == "0x5890"
    assert [(step["number"], step["stage"], step["row"], step["target"]) for step in told["steps"][3:6]] == [
        (4, "nested", 4, "0x17f0"), (5, "guest", 4, "0x17f0"), (6, "nested", 3, "0x2240"),
    ]  # fmt: skip


def test_the_json_of_three_stages_names_column_and_middle_too() -> None:
    told = walk_json(system().walk())
    assert (told["host"], told["stopped_by"]) == ({"kind": "NPT", "mode": "4-level", "root": "0x800000"}, None)
    assert [
        (step["number"], step["stage"], step["row"], step["target"], step["column"], step["middle"])
        for step in told["steps"][18:21]
    ] == [
        (19, "host", 4, "0x17f0", 1, "0x13008"), (20, "nested", 4, "0x17f0", 1, "0x13008"),
        (21, "host", 4, "0x17f0", 0, "0x800017f0"),
    ]  # fmt: skip


def test_a_register_costs_no_reference_and_has_no_number() -> None:
    paging = bind(Registers(cr0=CR0.PE | CR0.PG, cr4=CR4.PAE, pdptes=(0x5001, 0, 0, 0)), Features())
    steps = walk_json(walk(SparseMemory(ZERO).with_words({0x5000: 0xE7}), paging, 0x1234))["steps"]
    assert [(step["number"], step["address"], step["entry"]) for step in steps] == [
        (None, None, "PDPTE"), (1, "0x5000", "PDE, 2-MiB page"),
    ]  # fmt: skip


KINDS = {
    Translated: ("translated", {"pa", "page_size", "rights"}),
    PageFault: ("page fault", {"vector", "error_code", "cr2", "decoded", "reason", "violations", "reserved", "basis"}),
    NestedPageFault: (
        "nested page fault", {"exitinfo1", "exitinfo2", "decoded", "reason", "violations", "reserved", "basis"},
    ),
    EptViolation: ("EPT violation", {"qualification", "gpa", "gla", "decoded", "reason", "violations", "basis"}),
    EptMisconfiguration: ("EPT misconfiguration", {"gpa", "why", "basis"}),
    Unknown: ("unknown", {"address"}),
}  # fmt: skip
OUTCOMES = [
    walk(MEMORY, LONG, LA), walk(MEMORY, LONG, 0), walk(SparseMemory(UNKNOWN), LONG, LA), walk_npt({pt(5): 0}),
    walk_ept({pt(5): 0}), walk_ept({pt(5): 0x205032}),
]  # fmt: skip


@pytest.mark.parametrize("outcome", [result.outcome for result in OUTCOMES], ids=lambda o: KINDS[type(o)][0])
def test_the_json_of_each_outcome(outcome):
    told = outcome_json(outcome)
    kind, keys = KINDS[type(outcome)]
    assert told["kind"] == kind
    assert told.keys() == {"kind"} | keys


def test_codes_are_decoded_bit_by_bit() -> None:
    decoded = outcome_json(walk(MEMORY, LONG, 0, READ).outcome)["decoded"]
    assert [(bit["bit"], bit["name"], bit["value"]) for bit in decoded] == [
        (0, "P", 0), (1, "W/R", 0), (2, "U/S", 1), (3, "RSVD", 0), (4, "I/D", 0), (5, "PK", 0), (6, "SS", 0),
    ]  # fmt: skip
    assert decoded[2]["meaning"] == "a user access"
