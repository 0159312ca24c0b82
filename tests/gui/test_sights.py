"""The addresses worth seeing in the built-in image: every sentence is held to what the engine says."""

import pytest

from engine.arch.faults import PageFault, Reason, Translated, Violation
from engine.arch.rights import FETCH, WRITE
from engine.arch.walk import Rule, Walk
from engine.machine import State
from engine.machine.look import look
from engine.memory.library import Library
from engine.scenario import Replay
from gui.sights import Sight, opening, sights


@pytest.fixture(scope="module")
def state() -> State:
    return Replay(opening(), Library()).state(1)


def walked(state: State, sight: Sight, **other: object) -> Walk:
    asked = {"access": sight.access, "cpl": sight.cpl, **other}
    found = look(state, sight.address, **asked)  # type: ignore[arg-type]
    assert isinstance(found, Walk)
    return found


def field(walk: Walk, number: int, name: str) -> int:
    """The value of a field in the entry of step ``number``."""
    return next(f.value for f in walk.steps[number].decoded() if f.name == name)


def names(walk: Walk) -> list[str]:
    return [step.level.name for step in walk.steps]


def test_there_are_five(state: State) -> None:
    assert [sight.title for sight in sights()] == [
        "Write and execute", "Huge page", "PROT_NONE", "Device", "Kernel text",
    ]  # fmt: skip


def test_write_and_execute(state: State) -> None:
    """ "May be written and executed: every entry on the way has R/W = 1, and none has XD = 1." """
    sight = sights()[0]
    walk = walked(state, sight)
    assert len(walk.steps) == 4
    assert [field(walk, n, "R/W") for n in range(4)] == [1] * 4
    assert [field(walk, n, "XD") for n in range(4)] == [0] * 4
    assert walked(state, sight, access=WRITE).ok
    assert walked(state, sight, access=FETCH).ok


def test_huge_page(state: State) -> None:
    """ "One level early: the PD entry has PS = 1 and maps 2 MiB, so 21 bits of the address are offset." """
    sight = sights()[1]
    walk = walked(state, sight)
    assert names(walk) == ["PML4", "PDPT", "PD"]
    assert field(walk, 2, "PS") == 1
    assert isinstance(walk.outcome, Translated)
    assert walk.outcome.page_size == 2 << 20
    assert walk.outcome.address & 0x1F_FFFF == sight.address & 0x1F_FFFF
    assert walk.outcome.page_size == 1 << 21


def test_prot_none(state: State) -> None:
    """ "P is 0, yet the entry is not empty: [it holds] the page, with the bits of its address inverted." """
    walk = walked(state, sights()[2])
    last = walk.steps[-1]
    assert isinstance(walk.outcome, PageFault)
    assert walk.outcome.reason is Reason.NOT_PRESENT
    assert last.value is not None
    assert last.value & 1 == 0
    assert last.value != 0
    inverted = ~last.value & 0x000F_FFFF_FFFF_F000 & ~0x1F_FFFF
    # The huge page behind it follows, in physical memory, the one that its neighbour maps: it is in RAM (1 GiB).
    assert 0 < inverted < 1 << 30
    assert inverted % (2 << 20) == 0
    assert last.value & 0x000F_FFFF_FFFF_F000 > 1 << 50, "as it stands it would lie far outside of any RAM"


def test_device(state: State) -> None:
    """ "Physical 0xfec0_0000 is the I/O APIC, so the entry has PCD = 1 and PWT = 1." """
    sight = sights()[3]
    walk = walked(state, sight)
    assert isinstance(walk.outcome, Translated)
    assert walk.outcome.address == 0xFEC0_0000
    last = len(walk.steps) - 1
    assert (field(walk, last, "PCD"), field(walk, last, "PWT")) == (1, 1)
    assert state.image is not None
    assert all(not start <= 0xFEC0_0000 < end for start, end, _ in state.image.segments)


def test_kernel_text(state: State) -> None:
    """ "In every program's tables. A user fetch faults, since U/S is 0 in the PDPT and the PD entry." """
    sight = sights()[4]
    walk = walked(state, sight)
    assert state.image is not None
    assert state.image.vmcoreinfo["SYMBOL(_stext)"] == f"{sight.address:x}"
    assert walk.steps[-1].rule is Rule.DENIED
    assert isinstance(walk.outcome, PageFault)
    assert walk.outcome.violations == (Violation.SUPERVISOR_PAGE,)
    assert {name for n, name in enumerate(names(walk)) if field(walk, n, "U/S") == 0} == {"PDPT", "PD"}
    assert walked(state, sight, cpl=0).ok
