"""Findings: each invariant holds on what KVM builds, and is told when somebody breaks it."""

import pytest

from engine.effects.compare import side
from engine.effects.findings import Severity, findings
from engine.effects.leaves import leaves
from engine.effects.reaction import own_walk
from engine.events import (
    BootHost,
    ChangeMode,
    CreateVcpu,
    CreateVm,
    GuestAccess,
    LoadKvm,
    MoveVcpu,
    Poke,
    Populate,
    SetMemslot,
)  # fmt: skip
from engine.machine import Configuration
from engine.scenario import Replay, Scenario

QUIET = (BootHost(), LoadKvm(), CreateVm(), CreateVcpu(), SetMemslot(size=4 << 20), Populate(), GuestAccess(0x1000))


def state_after(*events):
    replay = Replay(Scenario(Configuration(), events), lambda ref: None)
    assert not any(replay.refusal(n) for n in range(1, len(events) + 1))
    return replay.state(len(events))


def keys(state):
    return {finding.key: finding for finding in findings(state)}


def small_leaves(state):
    return leaves(state.memory, own_walk(side(state)).paging)[-1]


def test_a_vm_as_kvm_builds_it_has_no_findings():
    assert findings(state_after(*QUIET)) == []


def test_a_stale_level_exposes_and_never_ends():
    state = state_after(*QUIET, ChangeMode(pcpu=1, la57=True), MoveVcpu(pcpu=1), GuestAccess(0x2000))
    found = keys(state)
    assert {"stale-level", "mixed-modes", "livelock"} <= set(found)
    assert found["stale-level"].severity is Severity.HAZARD
    assert found["livelock"].evidence[0].value == "exits +1, pf_taken +1, pf_spurious +1"


def test_tables_that_a_guest_reaches_are_a_hazard():
    events = (BootHost(five_level=True), *QUIET[1:], ChangeMode(pcpu=1, la57=False), MoveVcpu(pcpu=1))
    found = keys(state_after(*events))
    assert found["exposed-table-page"].sentence.startswith("VM 0 on pCPU 1: 2 guest pages, 2 writable")


def test_one_page_with_two_memory_types_is_told():
    rows = small_leaves(state_after(*QUIET))
    first, second = int(rows.address[3]), int(rows.address[9])
    same_page_uncached = int(rows.value[3]) | 0b11000
    found = keys(state_after(*QUIET, Poke(second, same_page_uncached)))
    alias = found["memory-type-alias"]
    assert {e.address for e in alias.evidence} == {int(rows.page[3]), first, second}
    assert "memory-type-alias" not in keys(state_after(*QUIET, Poke(second, int(rows.value[3]))))


@pytest.mark.parametrize(("cleared", "told"), [(0x20, True), (0x40, False), (0x60, False)])
def test_dirty_without_accessed_is_noted(cleared, told):
    rows = small_leaves(state_after(*QUIET))
    found = keys(state_after(*QUIET, Poke(int(rows.address[5]), int(rows.value[5]) & ~cleared)))
    assert ("dirty-not-accessed" in found) == told
