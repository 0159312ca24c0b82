"""A guest's access: hardware walks, KVM answers the exits, until the access is done, cannot be done, or never ends.

There is no limit on the number of exits. An endless loop is proved: the same exit has come back, and no byte of memory
and nothing of KVM's state but counters has changed since. No translation cache is modelled: each try walks anew.
"""

import msgspec

from engine import events as ev
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    NestedPageFault,
    PageFault,
)
from engine.arch.nested_walk import walk_nested_access
from engine.arch.rights import Access, Kind
from engine.arch.second_stage import SecondStage
from engine.arch.walk import Walk
from engine.host.world import World
from engine.kvm import mmu
from engine.kvm.faults import FaultPath
from engine.kvm.memslots import Space
from engine.kvm.module import tdp_level
from engine.kvm.vm import Counters, Vcpu, Vm
from engine.machine.image import perform
from engine.machine.state import Effect, Exit, Images, Livelock, Refusal, State, set_flags, unpaged

_EXITS = (NestedPageFault, EptViolation, EptMisconfiguration)


def guest_access(state: State, event: ev.GuestAccess, images: Images) -> State | Refusal:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.host is not None
    pcpu = state.host.pcpus[vcpu.pcpu]
    if pcpu.lost or not pcpu.online:
        return Refusal(f"vCPU {vcpu.index} is on pCPU {pcpu.index}, which is {'lost' if pcpu.lost else 'offline'}.")
    return _Run(loaded(state, vm, vcpu), event).run()


def physical_access(state: State, vm: Vm, vcpu: Vcpu, gpa: int, kind: Kind) -> State:
    """What an access to guest-physical ``gpa`` comes to, whatever the guest's own tables: one byte, by a user."""
    event = ev.GuestAccess(address=gpa, kind=kind, size=1, vm=vm.index, vcpu=vcpu.index)
    return _Run(loaded(state, vm, vcpu), event, physical=True).run()


def loaded(state: State, vm: Vm, vcpu: Vcpu) -> State:
    """The state in which the vCPU has an MMU root: kvm_mmu_load() before the first entry."""
    if vcpu.root is not None:
        return state
    assert state.host is not None
    assert state.module is not None
    world = World(state.memory, state.host.frames)
    level = tdp_level(state.module, state.host, state.host.pcpus[vcpu.pcpu], vcpu.cpuid.maxphyaddr)
    vm, root = mmu.load_root(world, state.module, vm, level)
    return _after(state, world, vm.with_vcpu(msgspec.structs.replace(vcpu, root=root)))


def _after(state: State, world: World, vm: Vm) -> State:
    assert state.host is not None
    host = msgspec.structs.replace(state.host, frames=world.frames)
    return msgspec.structs.replace(state.with_vm(vm), memory=world.memory, host=host)


class _Run:
    """One access under way."""

    def __init__(self, state: State, event: ev.GuestAccess, *, physical: bool = False) -> None:
        self._state = state
        self._physical = physical
        self._event = event
        self._access = Access(event.kind, event.size)
        self._exits: list[Exit] = []
        self._counters: list[Counters] = []

    def run(self) -> State:
        seen: dict[object, int] = {}
        while True:
            second = self._state.second_stage(self._vcpu)
            if isinstance(second, EntryFailure):
                return self._done(fault=second)
            assert second is not None
            walks = self._walks(second)
            outcome = walks[-1].outcome
            if not isinstance(outcome, _EXITS):
                return self._finish(walks)
            self._flags(walks)
            key = (outcome, self._state.memory.digest(), self._without_counters())
            if key in seen:
                return self._done(walks=walks, livelock=self._livelock(seen[key]))
            seen[key] = len(self._exits)
            if not self._answer(walks[-1]):
                return self._done(walks=walks, mmio=self._exits[-1].reaction.emulates)

    @property
    def _vm(self) -> Vm:
        vm = self._state.vms[self._event.vm]
        assert vm is not None
        return vm

    @property
    def _vcpu(self) -> Vcpu:
        return self._vm.vcpus[self._event.vcpu]

    def _walks(self, second: SecondStage) -> tuple[Walk, ...]:
        """The walk of the access, or two where it crosses a page; the second only if the first goes through."""
        guest = self._state.guest_paging(self._vcpu)
        if self._physical:
            guest = unpaged(guest)
        return walk_nested_access(self._state.memory, guest, second, self._event.address, self._access)

    def _flags(self, walks: tuple[Walk, ...]) -> None:
        memory = self._state.memory
        for walk in walks:
            memory = set_flags(memory, walk.updates)
        self._state = msgspec.structs.replace(self._state, memory=memory)

    def _finish(self, walks: tuple[Walk, ...]) -> State:
        """No exit: the access goes through, or the guest gets its own fault."""
        memory, loaded = perform(self._state.memory, walks, self._event.address, self._access, self._event.value)
        self._state = msgspec.structs.replace(self._state, memory=memory)
        fault = walks[-1].outcome
        if isinstance(fault, PageFault):
            registers = msgspec.structs.replace(self._vcpu.registers, cr2=fault.cr2)
            self._state = self._state.with_vm(
                self._vm.with_vcpu(msgspec.structs.replace(self._vcpu, registers=registers))
            )
        return self._done(walks=walks, loaded=loaded)

    def _answer(self, walk: Walk) -> bool:
        """Let KVM handle the exit; whether the guest is entered again."""
        state = self._state
        assert state.host is not None
        assert state.module is not None
        world = World(state.memory, state.host.frames)
        self._counters.append(self._vcpu.counters)
        path = FaultPath(world, state.module, Space(state.host.levels, state.host.root), self._vm, self._vcpu)
        assert isinstance(walk.outcome, _EXITS)
        reaction = path.handle(walk.outcome)
        self._exits.append(Exit(walk, reaction))
        self._state = _after(state, world, path.vm.with_vcpu(path.vcpu))
        return reaction.resumes

    def _without_counters(self) -> object:
        """Everything of KVM's state that could make a difference to the next try."""
        vcpu = msgspec.structs.replace(self._vcpu, counters=Counters())
        assert self._state.host is not None
        frames = self._state.host.frames
        return vcpu, self._vm.roots, self._vm.generation, len(frames.taken), frames.cursor, frames.regions

    def _livelock(self, first: int) -> Livelock:
        """The loop that the exits from number ``first`` on make."""
        growth = self._vcpu.counters.growth(self._counters[first])
        names = [action.tracepoint for e in self._exits[first:] for action in e.reaction.actions if action.tracepoint]
        tracepoints = tuple(dict.fromkeys(("kvm_exit", *names, "kvm_entry")))
        return Livelock(first, len(self._exits) - first, growth, tracepoints)

    def _done(self, **effect: object) -> State:
        return msgspec.structs.replace(self._state, effect=Effect(exits=tuple(self._exits), **effect))  # type: ignore[arg-type]
