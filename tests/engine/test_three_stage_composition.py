"""The walk of three stages is the walk of two in L1's memory, each of whose words is found through L0's tables.

The composition is made of pieces that have tests of their own: L1-physical memory is a view that walks L0's tables for
each word, as an unpaged guest that uses a table; the walk of two stages knows nothing of it.
"""

from functools import reduce
from operator import and_, or_
from random import Random
from typing import NamedTuple

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.arch.faults import EptMisconfiguration, EptViolation, NestedPageFault, Outcome, Reason, Translated
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import Paging, bind
from engine.arch.registers import Registers
from engine.arch.rights import FETCH, READ, WRITE, Access
from engine.arch.second_stage import EPT_W, SecondStage
from engine.arch.walk import Stage, Update, Walk
from engine.memory.physical import SparseMemory
from tests.conftest import scaled
from tests.engine.three_stages import LARGE, MODES, STAGES, System, system

PAIRS = [(l1, l0) for l1 in STAGES for l0 in STAGES if l0[0] in "45" and l1[-3:] == l0[-3:]]


class L1Physical:
    """L1's memory, each word of which lies where L0's tables say. A word that L0 stops is unknown: `stopped` is why."""

    def __init__(self, memory: SparseMemory, host: SecondStage, guest: Paging) -> None:
        self.memory, self.host = memory, host
        unpaged = Registers(cpl=guest.registers.cpl)
        self.guest = bind(unpaged, guest.features)
        self.stopped: Walk | None = None
        self.updates: list[Update] = []
        self.table = WRITE if host.table.writes else READ

    def look(self, address: int, access: Access) -> Walk:
        # A guest without paging has addresses of 32 bits, L1-physical ones may have more.
        guest = msgspec.structs.replace(self.guest, width=64, low_end=1 << 64)
        return walk_nested(self.memory, guest, self.host, address, access)

    def translate(self, address: int, access: Access) -> int | None:
        walk = self.look(address, access)
        self.updates += walk.updates
        self.memory = self.memory.with_words({update.address: update.new for update in walk.updates})
        if isinstance(walk.outcome, Translated):
            return walk.outcome.address
        self.stopped = walk
        return None

    def frame(self, pfn: int) -> None:
        return None

    def word(self, address: int) -> int | None:
        found = self.translate(address, self.table)
        return None if found is None else self.memory.word(found)


class Composed(NamedTuple):
    stopped_by: Stage | None
    outcome: object
    flags: dict[int, int] | None
    """Set at each host-physical address; None where the order of the stages decides."""


def essence(outcome: Outcome) -> tuple[object, ...]:
    """What an exit says of the address and of L0's entries, without what it was for: that differs in the view.

    The view asks for words: an entry of 4 bytes is one half of one.
    """
    match outcome:
        case NestedPageFault():
            return "#NPF", outcome.exitinfo2 & ~7, outcome.exitinfo1 & 0b11011, outcome.reason, outcome.violations
        case EptViolation():
            return "EPT", outcome.gpa & ~7, outcome.qualification & 0b111_110, outcome.reason, outcome.violations
        case EptMisconfiguration():
            return "misconfigured", outcome.gpa & ~7, outcome.why
    return (outcome,)


def of_a_table_use(stopped: Walk, host: SecondStage) -> Outcome:
    """What the view's access came to, as a use of a table: where L0 has A/D flags that needs R as well as W, and the
    view could only ask for a write."""
    outcome = stopped.outcome
    if not isinstance(outcome, EptViolation) or outcome.reason is not Reason.RIGHTS:
        return outcome
    values = [step.value for step in stopped.steps if step.value is not None]
    every, some = reduce(and_, values), reduce(or_, values)
    lacks = host.table.violations(every, some, every, values[-1])
    assert set(outcome.violations) <= set(lacks)
    return msgspec.structs.replace(outcome, violations=lacks)


def flags_of(updates: list[Update]) -> dict[int, int]:
    flags: dict[int, int] = {}
    for update in updates:
        flags[update.address] = flags.get(update.address, 0) | (update.old ^ update.new)
    return flags


def composed(made: System, memory: SparseMemory, access: Access) -> Composed:
    view = L1Physical(memory, made.host, made.guest)
    upper = walk_nested(view, made.guest, made.second, made.address, access)
    for update in upper.updates if made.host.update_needs else ():
        lies = view.look(update.address, READ)
        if not lies.rights_after(len(lies.steps) - 1).write:
            return Composed(Stage.HOST, ("no flag", update.address & ~7), None)
    lower = None if view.stopped or not upper.ok else view.look(upper.outcome.address, access)  # type: ignore[union-attr]
    written = [*view.updates, *(lower.updates if lower else ())]
    for update in upper.updates:
        found = view.look(update.address, READ).outcome
        assert isinstance(found, Translated)
        written.append(msgspec.structs.replace(update, address=found.address))
    flags = flags_of(written)
    if view.stopped is not None:
        return Composed(Stage.HOST, essence(of_a_table_use(view.stopped, made.host)), flags)
    if lower is None:
        return Composed(upper.stopped_by, upper.outcome, flags)
    if not isinstance(lower.outcome, Translated):
        return Composed(Stage.HOST, essence(lower.outcome), flags)
    assert isinstance(upper.outcome, Translated)
    a, b = upper.outcome.rights, lower.outcome.rights
    size = min(upper.outcome.page_size, lower.outcome.page_size)
    all_three = (a.read and b.read, a.write and b.write, a.execute and b.execute, a.user)
    return Composed(None, (lower.outcome.address, size, all_three), flags)


def direct(made: System, memory: SparseMemory, access: Access) -> Composed:
    walk = walk_nested(memory, made.guest, made.second, made.address, access, made.host)
    outcome: object = walk.outcome
    if isinstance(walk.outcome, Translated):
        r = walk.outcome.rights
        outcome = walk.outcome.address, walk.outcome.page_size, (r.read, r.write, r.execute, r.user)
    elif walk.stopped_by is Stage.HOST:
        outcome = essence(walk.outcome)
    return Composed(walk.stopped_by, outcome, flags_of(list(walk.updates)))


SMALL = {"32-bit": (4096, 4 << 20), "PAE": (4096, 2 << 20)}
ODD = (*[1] * 10, 0, 2, 3, 5, 6, 7, 8, 12, 21, 36, 51, 52, 62, 63)
"""Bits of entries that rights, sizes and reserved bits depend on; the right to write, by which flags are set, often."""


def spoilt(made: System, access: Access, count: int, random: Random) -> SparseMemory:
    """The memory with ``count`` bits turned over in what the walk reads: in any stage, some bits more often."""
    memory, steps = made.memory, [step for step in made.walk(access).steps if step.address is not None]
    stages = sorted({step.stage for step in steps}, key=lambda stage: stage.depth)
    for _ in range(count):
        stage, pages_only = random.choice(stages), random.random() < 0.4
        own = [step for step in steps if step.stage is stage]
        step = random.choice([step for step in own if step.is_leaf or not pages_only])
        bits = 8 << step.level.entry_shift
        bit = random.choice(ODD) % bits if random.random() < 0.7 else random.randrange(bits)
        assert step.address is not None
        at = step.address & ~7
        memory = memory.with_words({at: (memory.word(at) or 0) ^ 1 << bit + (step.address & 7) * 8})
    return memory


@example("32-bit", ("4-level EPT", "4-level EPT"), (0, 0, 1), (False, True), False, 0, READ, 2, 669634125)
@settings(max_examples=scaled(8000))
@given(
    l2=st.sampled_from(list(MODES)),
    pair=st.sampled_from(PAIRS),
    large=st.tuples(*[st.integers(0, 2)] * 3),
    flags=st.tuples(st.booleans(), st.booleans()),
    set_before=st.booleans(),
    cpl=st.sampled_from([0, 3]),
    access=st.sampled_from([READ, WRITE, FETCH]),
    count=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_three_stages_are_two_in_the_memory_that_the_third_gives(
    l2: str,
    pair: tuple[str, str],
    large: tuple[int, int, int],
    flags: tuple[bool, bool],
    set_before: bool,
    cpl: int,
    access: Access,
    count: int,
    seed: int,
) -> None:
    pages = [SMALL.get(name.split()[0], LARGE) for name in (l2, *pair)]
    size2, size1, size0 = (sizes[n % len(sizes)] for n, sizes in zip(large, pages, strict=True))
    made = system(l2, *pair, (size2, size1, size0), cpl, flags=flags, set_before=set_before)
    memory = spoilt(made, access, count, Random(seed))
    expected, found = composed(made, memory, access), direct(made, memory, access)
    assert found.stopped_by == expected.stopped_by
    if expected.flags is None:  # a flag of L1 or L2 that L0 does not let be written
        assert isinstance(expected.outcome, tuple)
        assert isinstance(found.outcome, tuple)
        assert found.outcome[1] == expected.outcome[1]
        assert found.outcome[2] & (0b010 | EPT_W << 3) == 0b010
        return
    assert found.outcome == expected.outcome
    assert found.flags == expected.flags
