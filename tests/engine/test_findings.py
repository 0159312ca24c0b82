"""Findings: each invariant holds on what KVM builds, and is told when somebody breaks it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.bits import U64
from engine.arch.memory_type import ENCODINGS, pat_type
from engine.effects.compare import side
from engine.effects.findings import Severity, findings
from engine.effects.leaves import Leaves, leaves, memory_types
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
from tests.engine.kvm_fixture import booted, intel

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


def aliased(events, bits, change):
    """What is found where a second entry maps the page of another, with ``bits`` of that entry replaced."""
    rows = small_leaves(state_after(*events))
    first, second, value = int(rows.address[3]), int(rows.address[9]), int(rows.value[3])
    found = keys(state_after(*events, Poke(second, value & ~bits | change)))
    return found.get("memory-type-alias"), {int(rows.page[3]), first, second}


def npt(cache_bits):
    return QUIET, 1 << 7 | 1 << 4 | 1 << 3, cache_bits


def ept(memory_type, ignore_pat):
    return (*booted(intel()), *QUIET[2:]), 0b1111 << 3, ignore_pat << 6 | memory_type << 3


@pytest.mark.parametrize("entry", [npt(1 << 3), npt(1 << 4), npt(1 << 4 | 1 << 3), ept(0, True), ept(4, False)])
def test_one_page_with_two_memory_types_is_told(entry):
    alias, addresses = aliased(*entry)
    assert {e.address for e in alias.evidence} == addresses
    assert "WB" in alias.sentence


# After reset, PA0 and PA4 are both WB; ignore-PAT names no type of its own.
@pytest.mark.parametrize("entry", [npt(0), npt(1 << 7), ept(6, True), ept(6, False)])
def test_one_page_mapped_twice_with_one_memory_type_is_well(entry):
    assert aliased(*entry)[0] is None


NPT_LEVELS = own_walk(side(state_after(*QUIET))).paging.levels
PATS = st.lists(st.sampled_from(list(ENCODINGS)), min_size=8, max_size=8).map(
    lambda types: int.from_bytes(types, "little")
)


@given(values=st.lists(st.integers(0, U64), min_size=1), pat=PATS, page_shift=st.sampled_from([12, 21, 30]))
def test_memory_types_of_many_leaves_are_those_of_each(values, pat, page_shift):
    level = next(lv for lv in NPT_LEVELS if lv.page_shift == page_shift)
    words = np.array(values, np.uint64)
    named = memory_types(Leaves(level, words, words, words), pat)
    assert [ENCODINGS[int(n)] for n in named] == [pat_type(pat, value, page_shift) for value in values]


@pytest.mark.parametrize(("cleared", "told"), [(0x20, True), (0x40, False), (0x60, False)])
def test_dirty_without_accessed_is_noted(cleared, told):
    rows = small_leaves(state_after(*QUIET))
    found = keys(state_after(*QUIET, Poke(int(rows.address[5]), int(rows.value[5]) & ~cleared)))
    assert ("dirty-not-accessed" in found) == told
