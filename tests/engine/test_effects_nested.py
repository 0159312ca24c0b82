"""Effects and findings where a nested guest runs, or where KVM mirrors the guest's own tables.

While L2 runs, L1's tables say which frame of the VM each page should be: against a walk of its own here, page by page.
"""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events as ev
from engine.arch.faults import Translated
from engine.effects.axis import axis
from engine.effects.compare import Class, Side, comparable, effects, side
from engine.effects.comparison import compare
from engine.effects.findings import findings
from engine.effects.reaction import Answer, classes, react, reactions
from engine.host.frames import Use
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import GuestWalk, walk_guest
from engine.kvm.module import Parameters
from engine.machine import Refusal, State
from engine.machine.access import physical_store
from engine.machine.common import space_of, world_of
from engine.machine.intended import intended
from engine.machine.promised import astray
from tests.engine.kvm_fixture import (
    MIB,
    READ,
    VM,
    WRITE,
    after,
    amd,
    booted,
    guest,
    intel,
    play,
    slot,
    to,
    vcpu,
    vm,
    walked,
)

L1_ROOT, NPT_ROOT, NPT_TABLES = 0x1000, 0x20000, 0x40000
L2_BASE, PAGES, SIZE = 0x40_0000, 0x8000, 0x10_0000
"""L2's memory from L1-physical 4 MiB on; beyond it, at `PAGES`, its pages go on elsewhere in L1."""


@cache
def nested(vendor: str = "amd", l1: str = "4-level", five: bool = True) -> State:
    """A nested guest without paging that has read every page that its hypervisor gave it."""
    state = play(*booted(amd() if vendor == "amd" else intel(48), five=five), *VM, slot(0, 16 * MIB))
    state = after(
        state, ev.SetGuestRegisters(guest(l1, L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES),
        ev.MapNestedPages(0, L2_BASE, PAGES), ev.MapNestedPages(PAGES, L2_BASE + SIZE, PAGES, write=False),
        ev.EnterNested(guest("none", 0)),
    )  # fmt: skip
    return after(state, *(ev.GuestAccess(gpa, READ, 1) for gpa in range(0, 2 * PAGES, 0x1000)))


def sides(state: State) -> tuple[Side, Side]:
    a, b = side(state, pcpu=0), side(state, pcpu=1)
    assert isinstance(a, Side)
    assert isinstance(b, Side)
    return a, b


def right_place(state: State, gpa: int) -> int | None:
    """Where L2-physical ``gpa`` belongs, by KVM's own walk of L1's tables and the memslots."""
    second = state.l1_stage(vcpu(state))
    assert second is not None
    memory = GuestMemory(world_of(state), space_of(state), vm(state))
    found = walk_guest(memory, second.paging, gpa, second.table)
    return intended(state, 0, found.gpa) if isinstance(found, GuestWalk) else None


SYSTEMS = [
    ("amd", l1, five) for l1 in ("32-bit", "PAE", "4-level", "5-level") for five in (False, True)
] + [("intel", "4-level", False), ("intel", "4-level", True)]  # fmt: skip


@pytest.mark.parametrize(("vendor", "l1", "five"), SYSTEMS)
def test_a_nested_guest_as_l0_builds_it_is_well(vendor: str, l1: str, five: bool) -> None:
    """No page of L2 has the number that it has in L1's memory, and each is its own."""
    state = nested(vendor, l1, five)
    assert findings(state) == []
    a, _ = sides(state)
    found = effects(a, a)
    assert found.pages() == {Class.SAME: 2 * PAGES >> 12}
    compared = compare(a, a)
    assert set(compared.band_a.kind) == {Class.SAME}
    assert [(span.start, span.end) for span in axis(compared).spans] == [(0, 2 * PAGES)]


@pytest.mark.parametrize(("l1", "five"), [(l1, five) for vendor, l1, five in SYSTEMS if vendor == "amd"])
def test_the_other_depth_under_a_nested_guest_shows_what_two_walks_show(l1: str, five: bool) -> None:
    """pCPU 1 goes to the other depth: each page of L2 by the hardware's walk there, and by where it belongs."""
    state = after(nested("amd", l1, five), to(not five))
    a, b = sides(state)
    found = effects(a, b)
    assert int(found.size.sum()) == 2 * PAGES
    for start, size, kind in zip(found.start.tolist(), found.size.tolist(), found.kind.tolist(), strict=True):
        for gpa in range(start, start + size, 0x1000):
            outcome = walked(b.state, gpa).outcome
            assert (kind in (Class.NOT_PRESENT, Class.RESERVED)) == (not isinstance(outcome, Translated))
            if not isinstance(outcome, Translated):
                continue
            assert state.host is not None
            owner = state.host.frames.owner(outcome.address >> 12)
            expected = {Use.GUEST_PAGE: Class.ANOTHER_PAGE, Use.KVM_TABLE: Class.TABLE_PAGE}[owner.use]  # type: ignore[union-attr]
            assert kind == (Class.SAME if outcome.address == right_place(state, gpa) else expected)
    assert set(found.kind.tolist()) & {Class.NOT_PRESENT, Class.RESERVED, Class.TABLE_PAGE}


def test_a_page_that_leads_elsewhere_is_found_at_its_l2_address() -> None:
    state = nested()
    leaf = walked(state, 0x3000).steps[-1]
    assert leaf.address is not None
    assert leaf.value is not None
    other = walked(state, 0x5000).steps[-1].value
    assert other is not None
    poked = after(state, ev.Poke(leaf.address, other))
    found = {f.key: f for f in findings(poked)}["exposed-another-page"]
    assert found.evidence[0].address == 0x3000
    assert "1 guest page" in found.sentence
    assert astray(poked, 0, 0, after(poked, ev.GuestAccess(0x3000)).effect.walks[-1]) is not None
    assert astray(poked, 0, 0, after(poked, ev.GuestAccess(0x5000)).effect.walks[-1]) is None


def l1_moves_a_page(state: State, gpa: int) -> State:
    """L1 lets L2-physical ``gpa`` be the page after its next, in a page table that L0 has let it write; L2 goes on."""
    second = state.l1_stage(vcpu(state))
    assert second is not None
    memory = GuestMemory(world_of(state), space_of(state), vm(state))
    entry = walk_guest(memory, second.paging, gpa, second.table)
    assert isinstance(entry, GuestWalk)
    at = (entry.entries[-1].table & ~0xFFF) + (gpa >> 12 & 511) * 8
    value = (memory.word(at) or 0) + 0x2000
    inside = vcpu(state).registers
    state = after(state, ev.LeaveNested())
    state = physical_store(state, vm(state), vcpu(state), ev.GuestAccess(at, WRITE, 8, value))
    return after(state, ev.EnterNested(inside))


def test_what_l1_has_not_flushed_is_right_as_it_was() -> None:
    """Nested EPT: until INVEPT the shadow EPT may be behind L1's. No finding, and no wrong page."""
    state = l1_moves_a_page(nested("intel", "4-level", False), 0x3000)
    assert vm(state).shadow.unsync
    read = after(state, ev.GuestAccess(0x3000))
    outcome = read.effect.walks[-1].outcome
    assert isinstance(outcome, Translated)
    assert outcome.address != right_place(state, 0x3000)
    assert astray(read, 0, 0, read.effect.walks[-1]) is None
    assert findings(read) == []
    enter = ev.EnterNested(guest("none", 0))
    flushed = after(read, ev.LeaveNested(), ev.InvalidateNested(), enter, ev.GuestAccess(0x3000))
    outcome = flushed.effect.walks[-1].outcome
    assert isinstance(outcome, Translated)
    assert outcome.address == right_place(flushed, 0x3000)
    assert findings(flushed) == []


def test_l1_and_its_guest_have_not_the_same_memory() -> None:
    inside = nested()
    outside = after(inside, ev.LeaveNested(), ev.GuestAccess(0))
    a, b = side(inside), side(outside)
    assert isinstance(a, Side)
    assert isinstance(b, Side)
    assert comparable(a, a) is None
    assert "On A a nested guest runs and on B its hypervisor" in comparable(a, b).reason  # type: ignore[union-attr]
    assert "On B a nested guest runs and on A its hypervisor" in comparable(b, a).reason  # type: ignore[union-attr]


# --- KVM's answers


def test_what_l1_does_not_map_is_an_exit_for_l1() -> None:
    a, _ = sides(nested())
    assert react(a, 4 * PAGES).answer is Answer.REFLECTS
    assert react(a, PAGES, WRITE).answer is Answer.REFLECTS  # L1 gave it read-only
    assert react(a, 0).answer is Answer.NEVER_ASKED


@pytest.mark.parametrize("five", [False, True])
@given(data=st.data())
def test_pages_of_a_class_get_the_same_answer(five: bool, data: st.DataObject) -> None:
    state = after(nested("amd", "4-level", five), ev.ZapGuest(L2_BASE, 0x4000), to(not five))
    _, b = sides(state)
    addresses = np.arange(0, 3 * PAGES, 0x1000, dtype=np.uint64)
    kind = data.draw(st.sampled_from((READ, WRITE)))
    number, answers = reactions(b, addresses, kind)
    at = data.draw(st.integers(0, len(addresses) - 1))
    if int(number[at]) & 0xF:
        assert react(b, int(addresses[at]), kind).answer is answers[int(number[at])].answer
    assert (classes(b, addresses, kind) == number).all()


# --- shadow paging


def shadowed(mode: str) -> State:
    state = play(*booted(npt=False), *VM, slot(0, 16 * MIB))
    if mode != "none":
        pages = ev.MapGuestPages(L1_ROOT, 0x2000, 0x4000_0000, 0x10_0000, 0x8000, mode=mode)  # type: ignore[arg-type]
        state = after(state, pages)
    base = 0 if mode == "none" else 0x4000_0000
    return after(
        state, ev.SetGuestRegisters(guest(mode, L1_ROOT)), ev.GuestAccess(base + 0x123), ev.GuestAccess(base, WRITE)
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["none", "32-bit", "PAE", "4-level", "5-level"])
def test_a_mirrored_guest_has_no_second_stage_to_compare(mode: str) -> None:
    state = shadowed(mode)
    found = side(state)
    assert isinstance(found, Refusal)
    assert found.reason.startswith("Nested paging is off")
    assert findings(state) == []
    assert findings(after(state, to(True), ev.MoveVcpu(1)))[0].key == "mixed-modes"
    for walk in state.effect.walks:
        assert astray(state, 0, 0, walk) is None


@pytest.mark.parametrize("mode", ["none", "32-bit", "PAE", "4-level", "5-level"])
def test_an_access_through_a_mirror_that_leads_elsewhere_is_astray(mode: str) -> None:
    state = shadowed(mode)
    leaf = state.effect.walks[-1].steps[-1]
    assert leaf.address is not None
    assert leaf.value is not None
    poked = after(state, ev.Poke(leaf.address, leaf.value ^ 0x1000))
    base = 0 if mode == "none" else 0x4000_0000
    found = astray(poked, 0, 0, after(poked, ev.GuestAccess(base)).effect.walks[-1])
    assert found is not None
    assert found.right == intended(poked, 0, 0 if mode == "none" else 0x10_0000)


def test_parameters_off_is_no_second_stage_for_intel_either() -> None:
    state = play(
        ev.BootHost((intel(),) * 2), ev.LoadKvm(parameters=Parameters(ept=False)), *VM, slot(0, 2 * MIB),
        ev.SetGuestRegisters(guest("none", 0)), ev.GuestAccess(0),
    )  # fmt: skip
    assert isinstance(side(state), Refusal)


# --- L1's own mode


def test_l1_that_changes_its_mode_after_its_kvm_init_is_a_hazard_until_it_changes_back() -> None:
    """L0 reads L1's tables in the mode that L1 is in at VMRUN, whatever they were built for (reference page, 8.7)."""
    outside = after(nested(), ev.LeaveNested())
    changed = after(outside, ev.SetGuestRegisters(guest("5-level", L1_ROOT)))
    found = {f.key: f for f in findings(changed)}["l1-mode"]
    assert "built 4-level tables" in found.sentence
    assert [evidence.value for evidence in found.evidence[:2]] == ["4-level, on vCPU 0", "5-level"]
    entered = after(changed, ev.EnterNested(guest("none", 0)))
    assert "l1-mode" in {f.key for f in findings(entered)}
    assert after(entered, ev.GuestAccess(0)).effect.reflected is not None
    back = after(changed, ev.SetGuestRegisters(guest("4-level", L1_ROOT)))
    assert "l1-mode" not in {f.key for f in findings(back)}


def test_eptp_says_its_depth_whatever_mode_l1_is_in() -> None:
    outside = after(nested("intel", "4-level", False), ev.LeaveNested())
    assert findings(after(outside, ev.SetGuestRegisters(guest("5-level", L1_ROOT)))) == []
