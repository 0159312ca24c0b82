"""A slot populated at once is a slot populated by one fault a page: the same bytes, the same frames taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.registers import Features, Vendor
from engine.arch.second_stage import EptCapabilities
from engine.events import Backing, BootHost, CreateVcpu, CreateVm, GuestAccess, LoadKvm, Populate, SetMemslot, ZapGuest
from engine.host.machine import PcpuSetup
from engine.host.mm import Placement
from engine.host.world import World
from engine.kvm.faults import FaultPath
from engine.kvm.memslots import Pages, Space
from engine.machine import Configuration
from engine.machine.access import loaded
from engine.scenario import Replay, Scenario

INTEL = PcpuSetup(features=Features(vendor=Vendor.INTEL, maxphyaddr=48), npt=False, ept=EptCapabilities())


def state_after(events):
    replay = Replay(Scenario(Configuration(), tuple(events)), lambda ref: None)
    state = replay.state(len(events))
    refused = [replay.refusal(n) for n in range(1, len(events) + 1)]
    assert not any(refused), refused
    return state


def one_by_one(state, slot):
    """The memory and frames after one fault for each page of the slot, in order."""
    state = loaded(state, *state.vcpu(0, 0))
    world = World(state.memory, state.host.frames)
    vm = state.vms[0]
    space, setup = Space(state.host.levels, state.host.root), state.host.pcpus[0].setup
    path = FaultPath(world, state.module, space, vm, vm.vcpus[0], setup)
    chosen = vm.slots[slot]
    for gpa in range(chosen.gpa, chosen.gpa + chosen.size, 4096):
        path.prefault(gpa)
    return world


@given(
    vendor=st.sampled_from(["amd", "intel"]),
    five=st.booleans(),
    pages=st.sampled_from(list(Pages)[:2]),
    contiguous=st.booleans(),
    first=st.integers(0, 1030),
    count=st.integers(1, 1100),
    touched=st.lists(st.integers(0, 1099), max_size=6),
    zapped=st.lists(st.integers(0, 1099), max_size=3),
)
def test_populate_equals_one_fault_a_page(vendor, five, pages, contiguous, first, count, touched, zapped):
    setup = (INTEL,) if vendor == "intel" else (PcpuSetup(),)
    gpa = first * 4096
    placement = Placement.CONTIGUOUS if contiguous else Placement.SCATTERED
    backing = Backing(pages=pages, placement=placement, at=(1 << 30) + gpa % (2 << 20))
    start = [
        BootHost(pcpus=setup, five_level=five, ram_size=2 << 30), LoadKvm(), CreateVm(), CreateVcpu(),
        SetMemslot(gpa=gpa, size=count * 4096, backing=backing),
    ]  # fmt: skip
    # Real mode: an address is its own GPA. Some pages are there before, some of them zapped again.
    start += [GuestAccess(address=gpa + page % count * 4096) for page in touched]
    start += [ZapGuest(gpa=gpa + page % count * 4096, size=4096) for page in zapped]
    before = state_after(start)
    at_once = state_after([*start, Populate()])
    world = one_by_one(before, 0)
    assert at_once.memory.digest() == world.memory.digest()
    assert at_once.host.frames.cursor == world.frames.cursor
    assert sorted(at_once.host.frames.taken) == sorted(world.frames.taken)
    assert all(at_once.host.frames.owner(pfn) == world.frames.owner(pfn) for pfn in world.frames.taken)


@pytest.mark.parametrize("pages", list(Pages), ids=lambda p: p.value)
def test_every_page_is_mapped_afterwards(pages):
    size = 1 << 30 if pages is Pages.HUGE_1G else 64 << 20
    slot = SetMemslot(size=size, backing=Backing(pages=pages))
    start = [BootHost(ram_size=8 << 30), LoadKvm(), CreateVm(), CreateVcpu(), slot, Populate()]
    for gpa in (0x12345, size // 3, size - 0x1000):
        state = state_after([*start, GuestAccess(address=gpa)])
        assert state.effect.exits == ()
        assert state.effect.walks[-1].ok
        assert state.vms[0].vcpus[0].counters.exits == 0
