"""The logical walk of a nested guest: how many references, whose fault it is, and what is written at each stage."""

import msgspec
import pytest

from engine.arch.bits import bit
from engine.arch.faults import EptMisconfiguration, EptViolation, NestedPageFault, PageFault, Translated, Unknown
from engine.arch.memory_type import memory_type
from engine.arch.paging import bind
from engine.arch.rights import READ, WRITE, Access
from engine.arch.second_stage import EPT_W
from engine.arch.walk import Rule, Stage, Step
from engine.memory.physical import UNKNOWN, SparseMemory
from tests.engine.three_stages import L1_AT, L2_AT, MODES, PAGE, STAGES, System, system

BELOW = [name for name in STAGES if name[0] in "45"]
PAIRS = [(l1, l0) for l1 in STAGES for l0 in BELOW if l1[-3:] == l0[-3:]]
LEVELS = {"no paging": 0, "32-bit": 2, "PAE": 3, "4-level": 4, "5-level": 5}
MIB, GIB = 1 << 20, 1 << 30


def levels_of(name: str) -> int:
    return len(STAGES[name].levels)


@pytest.mark.parametrize(("l1", "l0"), PAIRS)
@pytest.mark.parametrize("l2", MODES)
def test_references(l2: str, l1: str, l0: str) -> None:
    made = system(l2, l1, l0)
    g = 2 if l2 == "PAE" and l1.endswith("EPT") else LEVELS[l2]  # on Intel the PDPTEs are registers
    n, h = levels_of(l1), levels_of(l0)
    walk = made.walk()
    assert walk.ok, walk.outcome
    assert walk.references == (g + 1) * (n + 1) * (h + 1) - 1
    assert made.hardware().references == (g + 1) * (h + 1) - 1
    assert made.hardware().outcome.address == walk.outcome.address  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("l2", "sizes", "count"),
    [
        ("4-level", (4096, 4096, 4096), 5 * 5 * 5 - 1),
        ("4-level", (2 * MIB, 4096, 4096), 4 * 5 * 5 - 1),
        ("4-level", (4096, 2 * MIB, 4096), 5 * 4 * 5 - 1),
        ("4-level", (4096, 4096, 2 * MIB), 5 * 5 * 4 - 1),
        ("4-level", (2 * MIB, GIB, 2 * MIB), 4 * 3 * 4 - 1),
        ("4-level", (GIB, GIB, GIB), 3 * 3 * 3 - 1),
        ("32-bit", (4 * MIB, 2 * MIB, GIB), 2 * 4 * 3 - 1),
    ],
)
def test_large_pages_shrink_it(l2: str, sizes: tuple[int, int, int], count: int) -> None:
    walk = system(l2, sizes=sizes).walk()
    assert walk.references == count
    assert walk.outcome.page_size == min(sizes)  # type: ignore[union-attr]


def test_each_reference_tells_what_it_serves() -> None:
    """124 of them: before each of L1's entries four of L0's, before each of L2's four of those fives and four more."""
    walk = system().walk()
    tell = [(step.stage, step.level.level, step.row, step.column) for step in walk.steps]
    host, nested, guest = Stage.HOST, Stage.NESTED, Stage.GUEST
    assert tell[:6] == [(host, level, 4, 4) for level in (4, 3, 2, 1)] + [(nested, 4, 4, 4), (host, 4, 4, 3)]
    assert tell[20:25] == [(host, level, 4, 0) for level in (4, 3, 2, 1)] + [(guest, 4, 4, 0)]
    assert tell[100:105] == [(host, level, 0, 4) for level in (4, 3, 2, 1)] + [(nested, 4, 0, 4)]
    assert tell[120:] == [(host, level, 0, 0) for level in (4, 3, 2, 1)]
    count = [sum(step.stage is stage for step in walk.steps) for stage in (guest, nested, host)]
    assert count == [4, 20, 100]


def test_targets_are_l2_physical_and_middles_l1_physical() -> None:
    walk = system().walk()
    for step in walk.steps:
        assert step.target is not None
        assert step.middle is not None
        if step.stage is Stage.GUEST:
            assert (step.middle, step.address) == (step.target + L2_AT, step.target + L2_AT + L1_AT)
        if step.stage is Stage.NESTED:
            assert step.address == step.middle + L1_AT
    assert walk.gpa == PAGE + 0xABC
    assert walk.outcome.address == PAGE + 0xABC + L2_AT + L1_AT  # type: ignore[union-attr]


def test_one_and_two_stages_know_of_no_third() -> None:
    made = system()
    walk = made.hardware()
    assert (walk.host, walk.stopped_by) == (None, None)
    assert {(step.column, step.middle) for step in walk.steps} == {(0, None)}


# --- whose fault it is


def last(made: System, stage: Stage, row: int, column: int = 0, access: Access = READ) -> Step:
    """The last step of ``stage`` that serves ``row`` and, for the host's, ``column``."""
    steps = made.walk(access).steps
    return [s for s in steps if s.stage is stage and s.row == row and (stage.depth < 3 or s.column == column)][-1]


def changed(made: System, step: Step, value: int, access: Access = READ):  # type: ignore[no-untyped-def]
    assert step.address is not None
    return made.walk(access, {step.address: value})


NPT, EPT = ("4-level", "4-level NPT", "4-level NPT"), ("4-level", "4-level EPT", "5-level EPT")
FINAL, TABLE = bit(32), bit(33)


def test_a_fault_of_l2s_tables_is_l2s() -> None:
    made = system(*NPT)
    walk = changed(made, last(made, Stage.GUEST, 2), 0)
    assert walk.stopped_by is Stage.GUEST
    assert isinstance(walk.outcome, PageFault)
    assert (walk.outcome.error_code, walk.outcome.cr2) == (4, made.address)


@pytest.mark.parametrize(("row", "stage_bit"), [(3, TABLE), (0, FINAL)])
def test_a_fault_of_l1s_tables_is_an_exit_to_l1_with_an_l2_physical_address(row: int, stage_bit: int) -> None:
    made = system(*NPT)
    step = last(made, Stage.NESTED, row)
    walk = changed(made, step, 0)
    assert walk.stopped_by is Stage.NESTED
    assert isinstance(walk.outcome, NestedPageFault)
    assert walk.outcome.exitinfo2 == step.target
    assert walk.outcome.exitinfo1 & (FINAL | TABLE) == stage_bit
    assert walk.outcome.exitinfo1 & bit(1) == (bit(1) if row else 0)  # a table is used as for a write


@pytest.mark.parametrize(
    ("row", "column", "stage_bit"), [(3, 1, TABLE), (3, 0, TABLE), (0, 2, TABLE), (0, 0, FINAL)],
    ids=["L1's table, for L2's", "L2's table", "L1's table, for the page", "the page"],
)  # fmt: skip
def test_a_fault_of_l0s_tables_is_l0s_with_an_l1_physical_address(row: int, column: int, stage_bit: int) -> None:
    made = system(*NPT)
    step = last(made, Stage.HOST, row, column)
    walk = changed(made, step, 0)
    assert walk.stopped_by is Stage.HOST
    assert isinstance(walk.outcome, NestedPageFault)
    assert walk.outcome.exitinfo1 & (FINAL | TABLE) == stage_bit
    # One PT of L0's serves many addresses: the walk stops at the first that needs this entry.
    assert walk.outcome.exitinfo2 == walk.steps[-1].middle
    assert (walk.steps[-1].stage, walk.steps[-1].address) == (Stage.HOST, step.address)


def test_ept_exits_carry_the_address_of_the_stage_that_stopped() -> None:
    made = system(*EPT)
    for stage, given in ((Stage.NESTED, "target"), (Stage.HOST, "middle")):
        step = last(made, stage, 0)
        walk = changed(made, step, 0)
        assert isinstance(walk.outcome, EptViolation)
        assert (walk.stopped_by, walk.outcome.gpa, walk.outcome.gla) == (stage, getattr(step, given), made.address)
        assert walk.outcome.qualification & bit(8)
        walk = changed(made, step, 0b010)
        assert isinstance(walk.outcome, EptMisconfiguration)
        assert (walk.stopped_by, walk.outcome.gpa) == (stage, getattr(step, given))


def test_unknown_bytes_have_a_stage_too() -> None:
    made = system()
    step = last(made, Stage.NESTED, 2)
    assert step.address is not None
    assert step.base is not None
    hole = step.address >> 12
    known = {pfn: frame for pfn in range(made.host.paging.root >> 12, 0x200) if (frame := made.memory.frame(pfn))}
    known |= {pfn: frame for step in made.walk().steps for pfn in [step.address >> 12]  # type: ignore[operator]
              if (frame := made.memory.frame(pfn)) is not None}  # fmt: skip
    memory = SparseMemory(UNKNOWN)
    for pfn, frame in known.items():
        if pfn != hole:
            memory = memory.write(pfn << 12, bytes(frame))
    walk = System(memory, made.guest, made.second, made.host, made.collapsed, made.address).walk()
    assert isinstance(walk.outcome, Unknown)
    assert (walk.stopped_by, walk.steps[-1].stage, walk.steps[-1].rule) == (Stage.NESTED, Stage.NESTED, Rule.UNKNOWN)


@pytest.mark.parametrize(("stage", "stopped_by"), [(Stage.GUEST, Stage.NESTED), (Stage.NESTED, Stage.HOST)])
def test_an_address_beyond_the_reach_of_the_stage_below_stops_there(stage: Stage, stopped_by: Stage) -> None:
    """Bit 48 is beyond a 4-level EPT: no entry is to blame, so that only the walk tells whose fault it is."""
    made = system("4-level", "4-level EPT", "4-level EPT")
    step = last(made, stage, 1 if stage is Stage.GUEST else 0)
    assert step.value is not None
    walk = changed(made, step, step.value | bit(48))
    assert isinstance(walk.outcome, EptViolation)
    assert (walk.stopped_by, walk.steps[-1].stage) == (stopped_by, stage)
    assert walk.outcome.gpa & bit(48)


def test_an_address_that_is_not_canonical_is_l2s_own_fault() -> None:
    made = system()
    walk = System(made.memory, made.guest, made.second, made.host, made.collapsed, 1 << 50).walk()
    assert (walk.stopped_by, walk.references, walk.host) == (Stage.GUEST, 0, made.host)


def test_a_page_fault_of_l2_precedes_all_faults_below_its_page() -> None:
    made = system(cpl=3)
    page, below = last(made, Stage.GUEST, 1), last(made, Stage.HOST, 0)
    assert page.address is not None
    assert page.value is not None
    assert below.address is not None
    walk = made.walk(READ, {page.address: page.value & ~bit(2), below.address: 0})
    assert walk.stopped_by is Stage.GUEST


# --- rights and flags


def test_rights_are_those_of_all_three() -> None:
    made = system()
    nx = last(made, Stage.NESTED, 0)
    ro = last(made, Stage.HOST, 0)
    assert nx.address is not None
    assert nx.value is not None
    assert ro.address is not None
    assert ro.value is not None
    walk = made.walk(READ, {nx.address: nx.value | bit(63), ro.address: ro.value & ~bit(1)})
    assert isinstance(walk.outcome, Translated)
    assert walk.outcome.rights.letters() == "R – – U"
    assert walk.rights_after(len(walk.steps) - 1).letters() == "R – X U"
    number = max(n for n, step in enumerate(walk.steps) if step.stage is Stage.NESTED)
    assert walk.rights_after(number).letters() == "R W – U"


def test_all_three_stages_have_their_flags_set() -> None:
    """L0 sees every table of L1 and L2 as written, the page as the access is."""
    made = system()
    walk = made.walk(READ)
    flags = {update.address: update.old ^ update.new for update in walk.updates}
    for step in walk.steps:
        assert step.address is not None
        whole = bit(5)
        tables_page = step.is_leaf and step.stage is not Stage.GUEST and (step.row, step.column) != (0, 0)
        if step.stage is Stage.NESTED:
            tables_page = step.is_leaf and step.row != 0
        assert flags[step.address] == (whole | bit(6) if tables_page else whole), step


def test_a_write_dirties_the_page_in_all_three() -> None:
    made = system()
    updates = {update.address: update.old ^ update.new for update in made.walk(WRITE).updates}
    for stage, row in ((Stage.GUEST, 1), (Stage.NESTED, 0), (Stage.HOST, 0)):
        address = last(made, stage, row).address
        assert address is not None
        assert updates[address] == bit(5) | bit(6)


def test_nothing_is_written_where_all_flags_are_set() -> None:
    made = system()
    once = made.walk(WRITE)
    after = made.memory.with_words({update.address: update.new for update in once.updates})
    assert System(after, made.guest, made.second, made.host, made.collapsed, made.address).walk(WRITE).updates == ()


@pytest.mark.parametrize(("row", "column"), [(4, 4), (4, 1), (0, 2), (2, 0)])
def test_a_flag_of_l1_or_l2_needs_write_permission_in_l0(row: int, column: int) -> None:
    """L0's EPT without flags of its own lets tables be read; only where a flag is set in them W is needed."""
    made = system("4-level", "4-level EPT", "4-level EPT", flags=(True, False))
    step = last(made, Stage.HOST, row, column)
    assert step.value is not None
    walk = changed(made, step, step.value & ~EPT_W)
    assert walk.stopped_by is Stage.HOST
    assert isinstance(walk.outcome, EptViolation)
    assert [violation.name for violation in walk.outcome.violations] == ["EPT_WRITE"]
    assert walk.outcome.qualification & 0b111 == 0b011


def test_a_flag_of_l2_needs_write_permission_in_l1() -> None:
    made = system("4-level", "4-level EPT", "4-level EPT", flags=(False, True))
    step = last(made, Stage.NESTED, 4)
    assert step.value is not None
    walk = changed(made, step, step.value & ~EPT_W)
    assert walk.stopped_by is Stage.NESTED
    assert isinstance(walk.outcome, EptViolation)
    assert walk.outcome.gpa == step.target
    assert walk.steps[-1].stage is Stage.GUEST  # the entry was read; its flag cannot be set


def test_pdpte_registers_are_loaded_through_both_stages() -> None:
    made = system("PAE", "4-level EPT", "4-level EPT")
    registers = msgspec.structs.replace(made.guest.registers, pdptes=None)
    loaded = msgspec.structs.replace(made, guest=bind(registers, made.guest.features))
    assert loaded.walk() == msgspec.structs.replace(made.walk(), paging=loaded.guest)
    root = last(made, Stage.HOST, 0, 4).address  # maps the page of L1's root, which the load needs first
    assert root is not None
    walk = loaded.walk(READ, {root: 0})
    assert isinstance(walk.outcome, EptViolation)
    assert (walk.stopped_by, walk.outcome.gla, walk.steps) == (Stage.HOST, None, ())


def test_no_manual_gives_three_stages_a_memory_type() -> None:
    assert memory_type(system().walk()) is None
    assert memory_type(system().hardware()) is not None
