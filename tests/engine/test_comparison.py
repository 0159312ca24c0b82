"""A comparison as it is shown: figures, bands and runs agree with each other and with the pages one by one."""

from functools import cache

import numpy as np
import pytest

from engine.arch.rights import Kind
from engine.effects.compare import Class, effects, side
from engine.effects.comparison import compare
from engine.effects.reaction import Answer, react
from engine.events import BootHost, ChangeMode, CreateVcpu, CreateVm, LoadKvm, Populate, SetMemslot
from engine.host.mm import Placement
from engine.kvm.memslots import Backing, Pages
from engine.machine import Configuration
from engine.scenario import Replay, Scenario

BACKINGS = {
    "4K": Backing(),
    "4K contiguous": Backing(placement=Placement.CONTIGUOUS, at=1 << 30),
    "2M": Backing(pages=Pages.HUGE_2M),
}
ALL = [(five, backing) for five in (False, True) for backing in BACKINGS]
SIZE = 16 << 20


@cache
def sides(five, backing):
    """A populated VM of 16 MiB on a host whose pCPU 1 went to the other depth, as pCPU 0 and as pCPU 1 walk it."""
    events = (
        BootHost(five_level=five), LoadKvm(), CreateVm(), CreateVcpu(),
        SetMemslot(size=SIZE, backing=BACKINGS[backing]), Populate(), ChangeMode(pcpu=1, la57=not five),
    )  # fmt: skip
    replay = Replay(Scenario(Configuration(), events), lambda ref: None)
    state = replay.state(len(events))
    return side(state, pcpu=0), side(state, pcpu=1)


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_runs_cover_each_changed_page_once_and_in_order(five, backing):
    a, b = sides(five, backing)
    found = compare(a, b)
    expected = effects(a, b).changed()
    assert int(found.last[-1]) + 1 == len(found.changed) == int(expected.size.sum()) >> 12
    assert found.first[0] == 0
    assert (found.first[1:] == found.last[:-1] + 1).all()
    assert (np.diff(found.changed.start.astype(np.int64)) > 0).all()


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_bands_hold_the_pages_of_the_figures(five, backing):
    found = compare(*sides(five, backing))
    total = sum(found.pages.values())
    for band in (found.band_a, found.band_b):
        assert int(band.size.sum()) >> 12 == total


def test_side_a_is_as_mapped_where_kvm_and_hardware_agree():
    a, b = sides(True, "4K")
    band = compare(a, b).band_a
    assert [(int(s), int(n), Class(int(k))) for s, n, k in zip(band.start, band.size, band.kind, strict=True)] == [
        (0, SIZE, Class.SAME)
    ]


def test_going_to_four_levels_shows_the_guest_its_level_1_tables():
    """Reference 9.7, case B with 4-KiB pages: GPA 0 .. 0x7fff are KVM's eight level-1 tables of 16 MiB."""
    found = compare(*sides(True, "4K"))
    assert found.band_b.at(0x7123) == (0, 0x8000, Class.TABLE_PAGE)
    assert found.band_b.at(0x8000)[2] is Class.NOT_PRESENT
    assert found.band_b.at(SIZE) is None
    assert found.pages == {Class.TABLE_PAGE: 8, Class.NOT_PRESENT: (SIZE >> 12) - 8}


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_kvms_answer_is_that_to_any_page_of_the_run(five, backing):
    a, b = sides(five, backing)
    found = compare(a, b)
    for run in range(len(found)):
        for row in {int(found.first[run]), (int(found.first[run]) + int(found.last[run])) // 2, int(found.last[run])}:
            assert react(b, int(found.changed.start[row])).answer is found.answers[int(found.number[run])].answer


def test_the_access_asked_about_is_the_one_that_kvm_answers():
    a, b = sides(False, "4K")
    for kind in (Kind.READ, Kind.WRITE, Kind.FETCH):
        found = compare(a, b, kind)
        assert found.kind is kind
        assert {reacted.kind for reacted in found.answers.values()} == {kind}


def test_a_run_is_found_by_any_address_in_it():
    found = compare(*sides(True, "4K"))
    assert found.run_at(0x7FFF) == 0
    assert found.run_at(0x8000) == 1
    assert found.run_at(SIZE) is None


def test_scattered_frames_are_told_from_those_that_follow_one_another():
    scattered, contiguous = compare(*sides(True, "4K")), compare(*sides(True, "4K contiguous"))
    last = len(scattered) - 1
    assert scattered.last[last] > scattered.first[last]
    assert scattered.is_scattered(last, scattered.changed.a)
    assert contiguous.last[last] == scattered.last[last]
    assert not contiguous.is_scattered(last, contiguous.changed.a)


def test_a_side_against_itself_changes_nothing():
    a, _ = sides(False, "4K")
    found = compare(a, a)
    assert len(found) == 0
    assert found.pages == {Class.SAME: SIZE >> 12}
    assert found.run_at(0) is None
    assert all(reacted.answer is Answer.NEVER_ASKED for reacted in found.answers.values())
