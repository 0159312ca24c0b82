"""Effects: what a change of the host's mode does to a whole VM.

Against a brute force written here, and against the algebra of the reference's sections 9.3, 9.6 and 9.7.
"""

from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.arrays import U
from engine.arch.faults import Translated
from engine.arch.registers import Features, Registers, Vendor
from engine.arch.rights import Kind
from engine.arch.second_stage import EptCapabilities
from engine.effects.compare import Class, effects, side
from engine.effects.reaction import Answer, classes, react, reactions
from engine.effects.virtual import virtual_effects
from engine.events import (
    Backing,
    BootHost,
    ChangeMode,
    CreateVcpu,
    CreateVm,
    FillGuestPages,
    GuestAccess,
    LoadKvm,
    MapGuestPages,
    MoveVcpu,
    Populate,
    SetGuestRegisters,
    SetMemslot,
)  # fmt: skip
from engine.host.frames import Use
from engine.host.machine import PcpuSetup
from engine.host.mm import Placement
from engine.kvm.memslots import Pages
from engine.machine import Configuration
from engine.machine.look import Place, look
from engine.scenario import Replay, Scenario

GIB = 1 << 30
INTEL = PcpuSetup(features=Features(vendor=Vendor.INTEL, maxphyaddr=48), npt=False, ept=EptCapabilities())
BACKINGS = {
    "4K": Backing(),
    "THP": Backing(pages=Pages.THP),
    "2M": Backing(pages=Pages.HUGE_2M),
    "2M contiguous": Backing(pages=Pages.HUGE_2M, placement=Placement.CONTIGUOUS, at=6 * GIB),
    "1G": Backing(pages=Pages.HUGE_1G),
}


@cache
def changed(five: bool, backing: str, size: int = 64 << 20, intel: bool = False):
    """A populated VM, after pCPU 1 went to the other depth: the state, and its two sides, pCPU 0 and pCPU 1."""
    pcpus = (INTEL, INTEL) if intel else (PcpuSetup(), PcpuSetup())
    events = (
        BootHost(pcpus=pcpus, five_level=five, ram_size=8 * GIB), LoadKvm(), CreateVm(), CreateVcpu(),
        SetMemslot(size=size, backing=BACKINGS[backing]), Populate(), ChangeMode(pcpu=1, la57=not five),
    )  # fmt: skip
    replay = Replay(Scenario(Configuration(), events), lambda ref: None)
    state = replay.state(len(events))
    assert not any(replay.refusal(n) for n in range(1, len(events) + 1))
    return state, side(state, pcpu=0), side(state, pcpu=1)


def size_of(backing):
    return GIB if backing == "1G" else 64 << 20


def brute_force(state, a, b, gpa):
    """The class of one page by two explaining walks and the owner of the frame, written independently."""
    seen = []
    for one in (a, b):
        walk = look(one.state, gpa, place=Place(physical=True))
        seen.append(walk.outcome)
    before, after = seen
    if isinstance(after, Translated):
        if isinstance(before, Translated) and before.address == after.address:
            had, has = before.rights, after.rights
            lost = had.write > has.write or had.execute > has.execute
            return Class.PERMISSION if lost else Class.SAME
        pfn = after.address >> 12
        owner = state.host.frames.owner(pfn)
        if owner is None:
            return Class.HOST_PAGE if state.host.frames.is_ram(pfn) else Class.OUTSIDE_RAM
        if owner.use is Use.KVM_TABLE:
            return Class.TABLE_PAGE
        if owner.use is not Use.GUEST_PAGE:
            return Class.HOST_PAGE
        if owner.vm != a.vm.index:
            return Class.OTHER_VM
        return Class.RESTORED if owner.gfn == gpa >> 12 else Class.ANOTHER_PAGE
    reason = after.reason.name
    if not isinstance(before, Translated) and before.reason is after.reason:
        return Class.SAME
    return {"NOT_PRESENT": Class.NOT_PRESENT, "RESERVED": Class.RESERVED, "RIGHTS": Class.PERMISSION}[reason]


ALL = [(five, backing) for five in (False, True) for backing in BACKINGS]


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_the_figures_equal_a_brute_force_of_every_page(five, backing):
    state, a, b = changed(five, backing, size_of(backing))
    found = effects(a, b)
    sampled = Random(1).sample(range(size_of(backing) >> 12), 700)
    kind_at = dict.fromkeys(sampled)
    for start, size, kind in zip(found.start.tolist(), found.size.tolist(), found.kind.tolist(), strict=True):
        for page in sampled:
            if start <= page << 12 < start + size:
                kind_at[page] = Class(kind)
    for page in sampled:
        assert kind_at[page] == brute_force(state, a, b, page << 12), hex(page << 12)
    assert sum(found.pages().values()) >= size_of(backing) >> 12


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_a_side_against_itself_has_no_effects(five, backing):
    _, a, b = changed(five, backing, size_of(backing))
    for one in (a, b):
        assert len(effects(one, one).changed()) == 0


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_effects_there_and_back_mirror_each_other(five, backing):
    _, a, b = changed(five, backing, size_of(backing))
    there, back = effects(a, b), effects(b, a)

    def pages(found, one, other):
        rows = zip(found.start, found.size, getattr(found, one), getattr(found, other), strict=True)
        codes = zip(getattr(found, f"{one}_code"), getattr(found, f"{other}_code"), strict=True)
        return {
            (int(start) + at, int(x) + (at if not cx else 0), int(y) + (at if not cy else 0), int(cx), int(cy))
            for (start, size, x, y), (cx, cy) in zip(rows, codes, strict=True)
            for at in range(0, int(size), 2 << 20)
        }

    changed_there = there.where(there.kind != Class.SAME)
    changed_back = back.where(back.kind != Class.SAME)
    assert changed_there.size.sum() == changed_back.size.sum()
    both = there.where((there.a_code == 0) & (there.b_code == 0) & (there.kind != Class.SAME))
    mirrored = back.where((back.a_code == 0) & (back.b_code == 0) & (back.kind != Class.SAME))
    assert pages(both, "a", "b") == pages(mirrored, "b", "a")


# --- the algebra of 9.3 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpa", [0x0, 0x1000, 0x7000, 0x12345, 0x3FFFFF])
def test_built_for_4_walked_as_5_the_last_entry_is_the_guests_own_word(gpa):
    """Key formula of case A: the final entry for g lies at the memory that GPA (g >> 9) & ~7 maps."""
    _, a, b = changed(False, "4K")
    walk = look(b.state, gpa, place=Place(physical=True))
    own = look(a.state, (gpa >> 9) & ~7, place=Place(physical=True))
    assert walk.steps[-1].address == own.outcome.address
    assert walk.steps[-1].level.level == 1


@pytest.mark.parametrize("gpa", [0x0, 0x1008, 0x1FF8, 0x7123])
def test_built_for_5_walked_as_4_a_load_returns_the_spte_of_nine_bits_up(gpa):
    """Key formula of case B: a load at g returns the SPTE of GPA (g & ~7) << 9."""
    _, a, b = changed(True, "4K")
    reached = look(b.state, gpa & ~7, place=Place(physical=True))
    spte = look(a.state, ((gpa & ~7) << 9) & ((64 << 20) - 1), place=Place(physical=True)).steps[-1]
    assert ((gpa & ~7) << 9) < 64 << 20
    assert reached.outcome.address == spte.address


def test_built_for_4_walked_as_5_small_pages_all_fault_while_the_guests_memory_is_zero():
    _, a, b = changed(False, "4K")
    assert effects(a, b).pages() == {Class.NOT_PRESENT: 64 << 8}


def test_built_for_4_walked_as_5_guest_data_becomes_a_table():
    """The guest writes a word that looks like an entry; on pCPU 1 it maps host memory of its choice."""
    state, _, _ = changed(False, "4K")
    events = (
        BootHost(ram_size=8 * GIB), LoadKvm(), CreateVm(), CreateVcpu(), SetMemslot(), Populate(),
        FillGuestPages(gpa=0x3000, words=(0x100_0067,)), ChangeMode(pcpu=1, la57=True),
    )  # fmt: skip
    state = Replay(Scenario(Configuration(), events), lambda ref: None).state(len(events))
    found = effects(side(state, pcpu=0), side(state, pcpu=1))
    # The word at GPA 3000h is the entry for g with (g >> 9) & ~7 == 3000h: g = 60_0000h.
    row = int(np.flatnonzero(found.start == U(0x3000 << 9))[0])
    assert Class(found.kind[row]) is Class.HOST_PAGE
    assert int(found.b[row]) == 0x100_0000


def test_built_for_5_walked_as_4_the_first_pages_are_kvms_own_tables():
    """64 MiB of 4-KiB pages have 32 level-1 tables, which GPAs 0 .. 1_F000h then reach, writable (9.7)."""
    _, a, b = changed(True, "4K")
    found = effects(a, b)
    tables = found.where(found.kind == Class.TABLE_PAGE)
    assert int(tables.size.sum()) >> 12 == 32
    assert int(tables.start.min()) == 0
    assert (tables.rights & np.uint16(2)).all()


def test_large_pages_fault_or_mislead_as_the_reference_says():
    _, a, b = changed(False, "2M contiguous", 64 << 20)
    assert effects(a, b).pages()[Class.SAME] == 64 << 8  # the coincidence of 9.3: a 1-GiB aligned HPA
    _, a, b = changed(False, "1G", GIB)
    assert effects(a, b).pages() == {Class.RESERVED: GIB >> 12}
    _, a, b = changed(True, "1G", GIB)
    assert effects(a, b).pages() == {Class.SAME: 512, Class.NOT_PRESENT: (GIB >> 12) - 512}


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("backing", ["4K", "2M", "1G"])
def test_ept_is_not_affected(five, backing):
    """Row (b) of 9.6: the EPTP keeps its own depth."""
    _, a, b = changed(five, backing, size_of(backing), intel=True)
    assert set(effects(a, b).pages()) == {Class.SAME}


# --- what KVM does ---------------------------------------------------------------------------------------------------


@given(
    case=st.sampled_from([(five, backing) for five in (False, True) for backing in ("4K", "THP", "2M")]),
    pages=st.lists(st.integers(0, (64 << 8) + 64), min_size=1, max_size=8),
)
def test_addresses_of_a_class_get_the_same_answer(case, pages):
    _, _, b = changed(*case)
    addresses = np.array([page << 12 for page in pages], np.uint64)
    found, answers = reactions(b, addresses)
    for gpa, number in zip(addresses.tolist(), found.tolist(), strict=True):
        assert react(b, gpa).answer is answers[number].answer


def test_the_answers_of_section_9_5():
    _, _, low = changed(False, "4K")
    _, _, large = changed(False, "2M")
    _, _, high = changed(True, "4K")
    assert react(low, 0x5000).answer is Answer.SPURIOUS_LOOP
    assert react(large, 0x5000).answer is Answer.RETRY_LOOP
    assert react(high, 0x5000).answer is Answer.NEVER_ASKED
    assert react(low, 0x1_0000_0000).answer is Answer.EMULATES
    assert len(classes(low, np.array([0, 0x1000], np.uint64))) == 2


def test_a_guest_that_stores_to_a_page_rewrites_its_own_nested_entry():
    events = (
        BootHost(five_level=True, ram_size=8 * GIB), LoadKvm(), CreateVm(), CreateVcpu(), SetMemslot(), Populate(),
        ChangeMode(pcpu=1, la57=False), MoveVcpu(pcpu=1),
    )  # fmt: skip
    replay = Replay(Scenario(Configuration(), events), lambda ref: None)
    before = replay.state(len(events))
    spte = before.memory.word(look(before, 0x8, place=Place(physical=True)).outcome.address)
    event = GuestAccess(address=0x8, kind=Kind.WRITE, value=0xDEAD_0007)
    after = Replay(Scenario(Configuration(), (*events, event)), lambda ref: None).state(len(events) + 1)
    assert after.effect.exits == ()
    written = after.memory.word(after.effect.walks[0].outcome.address)
    assert spte & 0xFFF not in (0, 7)  # one of KVM's own entries was there
    assert written == 0xDEAD_0007
    owner = after.host.frames.owner(after.effect.walks[0].outcome.address >> 12)
    assert owner.use is Use.KVM_TABLE


# --- guest-virtual addresses -----------------------------------------------------------------------------------------


@cache
def with_guest(five: bool, backing: str):
    """A VM whose guest has tables of 4 levels for 3 MiB, in pages of 4 KiB and 2 MiB; then pCPU 1 changes its mode."""
    registers = Registers(cr0=0x8001_0001, cr3=0x10_0000, cr4=0x20, efer=0xD00, cs_l=True)
    user = {"root": 0x10_0000, "tables": 0x10_1000}
    events = (
        BootHost(five_level=five, ram_size=8 * GIB), LoadKvm(), CreateVm(), CreateVcpu(),
        SetMemslot(size=size_of(backing), backing=BACKINGS[backing]),
        MapGuestPages(**user, address=0x7F00_0000_0000, target=0x40_0000, size=1 << 20),
        MapGuestPages(root=0x10_0000, tables=0x11_0000, address=0xFFFF_8000_0000_0000, target=0x80_0000, size=2 << 20,
                      page_size=2 << 20),
        SetGuestRegisters(registers=registers), Populate(), ChangeMode(pcpu=1, la57=not five),
    )  # fmt: skip
    replay = Replay(Scenario(Configuration(), events), lambda ref: None)
    state = replay.state(len(events))
    assert not any(replay.refusal(n) for n in range(1, len(events) + 1))
    return side(state, pcpu=0), side(state, pcpu=1)


@pytest.mark.parametrize(("five", "backing"), ALL)
def test_every_guest_virtual_page_is_looked_at_and_agrees_with_two_walks(five, backing):
    a, b = with_guest(five, backing)
    found = virtual_effects(a, b)
    assert sum(found.pages().values()) == (3 << 20) >> 12
    for row in range(0, len(found), max(1, len(found) // 20)):
        gva = int(found.start[row]) + int(found.size[row]) - 4096
        before, after = (look(one.state, gva, cpl=0).outcome for one in (a, b))
        offset = int(found.size[row]) - 4096
        assert isinstance(before, Translated) == (found.a_code[row] == 0)
        assert isinstance(after, Translated) == (found.b_code[row] == 0)
        if isinstance(before, Translated) and isinstance(after, Translated):
            assert int(found.a[row]) + offset == before.address
            assert int(found.b[row]) + offset == after.address
            assert (found.kind[row] == Class.SAME) == (before.address == after.address)
    for one in (a, b):
        assert len(virtual_effects(one, one).changed()) == 0


def test_a_guest_without_paging_has_no_virtual_pages():
    _, a, b = changed(False, "4K")
    assert len(virtual_effects(a, b)) == 0
