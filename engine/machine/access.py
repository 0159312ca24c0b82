"""A guest's access: hardware walks, KVM answers the exits, until the access is done, cannot be done, or never ends.

There is no limit on the number of exits. An endless loop is proved: the same exit has come back, and no byte of memory
and nothing of KVM's state but counters has changed since. No translation cache is modelled: each try walks anew.
"""

from typing import Any

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS
from engine.arch.basis import Basis, Ground
from engine.arch.bits import bit
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    NestedPageFault,
    PageFault,
    Translated,
)
from engine.arch.nested_walk import walk_nested_access
from engine.arch.paging import Paging
from engine.arch.registers import CR4, Vendor
from engine.arch.rights import Access, Kind
from engine.arch.second_stage import HIGH_GPA, SecondStage
from engine.arch.walk import Walk, walk_access
from engine.host.machine import Pcpu
from engine.host.modes import settle
from engine.kvm import mmu, shadow_roots
from engine.kvm.emulate import Emulated, emulate
from engine.kvm.faults import FaultPath, Reaction
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import gva_to_gpa
from engine.kvm.mirrored import pdptes, pgd, software_paging
from engine.kvm.nested import Reflected, reflect
from engine.kvm.vm import Counters, Vcpu, Vm
from engine.machine.common import after, left, shadow_of, space_of, world_of
from engine.machine.image import perform
from engine.machine.state import Effect, Exit, Images, Livelock, Refusal, StaleHostCr4, State, set_flags, unpaged
from engine.memory.physical import SparseMemory, changed_frames

_EXITS = (NestedPageFault, EptViolation, EptMisconfiguration)
DEPTH = "npt_depth: NPT is walked as deep as CR4.LA57 of the pCPU says at VMRUN"
NO_RAM = "outside_ram: nothing answers at physical addresses outside RAM; stores there are lost"


def guest_access(state: State, event: ev.GuestAccess, images: Images) -> State | Refusal:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.host is not None
    pcpu = state.host.pcpus[vcpu.pcpu]
    if pcpu.unusable:
        return Refusal(f"vCPU {vcpu.index} is on pCPU {pcpu.index}, which {pcpu.unusable}")
    return _run(state, vm, vcpu, event)


def _run(state: State, vm: Vm, vcpu: Vcpu, event: ev.GuestAccess, *, physical: bool = False) -> State:
    try:
        return _Run(loaded(state, vm, vcpu), event, physical=physical).run()
    except shadow_roots.NoRoots as error:
        return _not_loaded(state, error)


def physical_access(state: State, vm: Vm, vcpu: Vcpu, gpa: int, kind: Kind) -> State:
    """What an access to guest-physical ``gpa`` comes to, whatever the guest's own tables: one byte, by a user."""
    return physical_store(state, vm, vcpu, ev.GuestAccess(address=gpa, kind=kind, size=1, vm=vm.index, vcpu=vcpu.index))


def physical_store(state: State, vm: Vm, vcpu: Vcpu, event: ev.GuestAccess) -> State:
    """``event`` with its address taken as guest-physical, under nested paging."""
    return _run(state, vm, vcpu, event, physical=True)


def loaded(state: State, vm: Vm, vcpu: Vcpu) -> State:
    """The state in which the vCPU has an MMU root: kvm_mmu_load() before the first entry, as its effect tells.

    Raises NoRoots where KVM cannot make one.
    """
    if vcpu.root is not None:
        return state
    assert state.module is not None
    assert state.host is not None
    world = world_of(state)
    if vcpu.role.direct and state.module.tdp_enabled:
        vm, root, action = mmu.load_root(world, state.module, vm, vcpu.role)
        vm = vm.with_vcpu(msgspec.structs.replace(vcpu, root=root))
        return after(state, world, vm=vm, effect=Effect(actions=(action,)))
    shadow = shadow_of(state, world, vm, vcpu)
    what, memory = shadow.mirrored, GuestMemory(world, space_of(state), vm)
    level = what.level if what is not None else 0
    made = shadow_roots.load(shadow, vcpu.mmu, level, pgd(vcpu), pdptes(memory, vcpu, what))
    vm = shadow.vm
    vm = vm.with_vcpu(vm.vcpus[vcpu.index].with_mmu(made))
    return after(state, world, vm=vm, effect=Effect(actions=tuple(shadow.actions)))


def _not_loaded(state: State, error: shadow_roots.NoRoots) -> State:
    """kvm_mmu_load() fails at every KVM_RUN: the guest does not run, and nothing else happens."""
    basis = Basis(Ground.KERNEL, error.function)
    return msgspec.structs.replace(state, effect=Effect(fault=EntryFailure(str(error), basis)))


class _Run:
    """One access under way."""

    def __init__(self, state: State, event: ev.GuestAccess, *, physical: bool = False) -> None:
        self._state = state
        self._physical = physical
        self._event = event
        self._access = Access(event.kind, event.size)
        self._exits: list[Exit] = []
        self._counters: list[Counters] = []
        self._assumed: dict[str, None] = {}
        assert state.module is not None
        if self._is_amd and state.module.tdp_enabled and self._levels != self._pcpu.levels:
            self._assumed[DEPTH] = None

    # --- who is concerned

    @property
    def _vm(self) -> Vm:
        vm = self._state.vms[self._event.vm]
        assert vm is not None
        return vm

    @property
    def _vcpu(self) -> Vcpu:
        return self._vm.vcpus[self._event.vcpu]

    @property
    def _pcpu(self) -> Pcpu:
        assert self._state.host is not None
        return self._state.host.pcpus[self._vcpu.pcpu]

    @property
    def _is_amd(self) -> bool:
        return self._pcpu.features.vendor is Vendor.AMD

    @property
    def _levels(self) -> int:
        """How deep KVM built the tables."""
        root = self._vcpu.root
        assert root is not None
        return root.role.level

    # --- the loop

    def run(self) -> State:
        seen: dict[object, list[tuple[SparseMemory, object, int]]] = {}
        while True:
            stages = self._state.translation(self._vcpu)
            if isinstance(stages, EntryFailure):
                return self._done(fault=stages)
            if stages is None:  # a table of the root went: kvm_mmu_reload() before the next entry
                self._reload()
                continue
            walks = self._walks(*stages)
            outcome = walks[-1].outcome
            is_exit = isinstance(outcome, _EXITS) or (isinstance(outcome, PageFault) and stages[1] is None)
            if not is_exit:
                return self._finish(walks)
            self._flags(walks)
            before = seen.setdefault(outcome, [])
            now = self._without_counters()
            for memory, then, first in before:
                if then == now and not changed_frames(memory, self._state.memory):
                    return self._done(walks=walks, livelock=self._livelock(first))
            before.append((self._state.memory, now, len(self._exits)))
            reaction = self._answer(walks[-1])
            if self._pcpu.lost:
                return self._done(walks=walks, notes=(f"pCPU {self._pcpu.index} is lost: {self._pcpu.lost}",))
            if reaction.injected is not None:
                self._set_cr2(reaction.injected)
                return self._done(walks=walks, fault=reaction.injected)
            if reaction.reflected is not None:
                return self._reflect(walks, reaction.reflected)
            if reaction.emulates:
                return self._emulate(walks, reaction)
            if not reaction.resumes:
                return self._done(walks=walks)

    def _reload(self) -> None:
        actions = self._state.effect.actions
        self._state = loaded(self._state, self._vm, self._vcpu)
        effect = msgspec.structs.replace(self._state.effect, actions=(*actions, *self._state.effect.actions))
        self._state = msgspec.structs.replace(self._state, effect=effect)

    def _walks(self, guest: Paging, second: SecondStage | None) -> tuple[Walk, ...]:
        """The walk of the access, or two where it crosses a page; the second only if the first goes through."""
        if second is None:
            return walk_access(self._state.memory, guest, self._event.address, self._access)
        if self._physical:
            guest = unpaged(guest)
        walks = walk_nested_access(self._state.memory, guest, second, self._event.address, self._access)
        for walk in walks:
            high = any(step.target is not None and step.target >> 48 for step in walk.steps)
            if self._is_amd and high and len(second.paging.levels) == 4:
                self._assumed[HIGH_GPA.reference] = None
            basis = getattr(walk.outcome, "basis", None)
            if basis is not None and basis.ground is Ground.ASSUMPTION:
                self._assumed[basis.reference] = None
        return walks

    def _flags(self, walks: tuple[Walk, ...]) -> None:
        memory = self._state.memory
        for walk in walks:
            memory = set_flags(memory, walk.updates)
        self._state = msgspec.structs.replace(self._state, memory=memory)

    def _without_counters(self) -> object:
        """Everything of KVM's and the host's state that could make a difference to the next try."""
        vcpu = msgspec.structs.replace(self._vcpu, counters=Counters())
        assert self._state.host is not None
        frames, vm = self._state.host.frames, self._vm
        mmu_state = vm.roots, vm.no_huge, vm.generation, vm.shadow, vm.retried
        return vcpu, mmu_state, len(frames.taken), frames.cursor, frames.freed, frames.regions

    def _livelock(self, first: int) -> Livelock:
        """The loop that the exits from number ``first`` on make."""
        growth = self._vcpu.counters.growth(self._counters[first])
        names = [action.tracepoint for e in self._exits[first:] for action in e.reaction.actions if action.tracepoint]
        tracepoints = tuple(dict.fromkeys(("kvm_exit", *names, "kvm_entry")))
        return Livelock(first, len(self._exits) - first, growth, tracepoints)

    # --- KVM

    def _answer(self, walk: Walk) -> Reaction:
        """Let KVM handle the exit, once the host is back in its own mode."""
        assert isinstance(walk.outcome, (*_EXITS, PageFault))
        self._load_host_state()
        assert self._state.module is not None
        world = world_of(self._state)
        self._counters.append(self._vcpu.counters)
        path = FaultPath(
            world, self._state.module, space_of(self._state), self._vm, self._vcpu, self._pcpu.setup, self._access
        )
        reaction = path.handle(walk.outcome)
        if not self._pcpu.lost:
            self._exits.append(Exit(walk, reaction))
            effect = self._state.effect
            self._state = after(self._state, world, vm=path.vm.with_vcpu(path.vcpu), effect=effect)
        return reaction

    def _load_host_state(self) -> None:
        """VMX: the exit loads HOST_CR4, which the kernel fills in from its own copy of CR4 (cr4_read_shadow())."""
        pcpu = self._pcpu
        if self._is_amd or not (pcpu.cr4_shadow ^ pcpu.registers.cr4) & CR4.LA57:
            return
        how = self._state.stale_host_cr4
        self._assumed[f"stale_host_cr4: HOST_CR4 differs from CR4 in LA57, so {how.value}"] = None
        if how is StaleHostCr4.LOST:
            pcpu = msgspec.structs.replace(pcpu, lost="a VM exit loaded HOST_CR4 with another LA57.")
        else:
            registers = msgspec.structs.replace(pcpu.registers, cr4=pcpu.cr4_shadow)
            pcpu = settle(self._state.memory, msgspec.structs.replace(pcpu, registers=registers))
        assert self._state.host is not None
        self._state = msgspec.structs.replace(self._state, host=self._state.host.with_pcpu(pcpu))

    def _software_paging(self) -> Paging:
        assert self._state.module is not None
        paging = software_paging(self._state.module, self._vcpu, self._pcpu.setup)
        return unpaged(paging) if self._physical else paging

    def _reflect(self, walks: tuple[Walk, ...], reflected: Reflected) -> State:
        """The nested guest is left, and its hypervisor finds the exit."""
        self._state = left(self._state, self._vm, self._vcpu)
        return self._done(walks=walks, reflected=reflected)

    def _emulate(self, walks: tuple[Walk, ...], reaction: Reaction) -> State:
        world = world_of(self._state)
        memory = GuestMemory(world, space_of(self._state), self._vm)
        gpa = reaction.gpa if walks[-1].gpa is not None else None  # not that of a guest's table
        second = self._state.l1_stage(self._vcpu)
        done = emulate(memory, self._software_paging(), walks[0].linear, self._access, self._event.value, gpa, second)
        shadow = shadow_of(self._state, world, self._vm, self._vcpu)
        for stored, size in done.stored:
            tracked = shadow.track_write(stored, size)
            done = msgspec.structs.replace(done, tracked=tracked or done.tracked)
        last = self._exits[-1]
        actions = (*last.reaction.actions, *done.actions, *shadow.actions)
        self._exits[-1] = Exit(last.walk, msgspec.structs.replace(last.reaction, actions=actions))
        vm = shadow.vm
        if done.mmio:
            vcpu = vm.vcpus[self._vcpu.index]
            vm = vm.with_vcpu(msgspec.structs.replace(vcpu, counters=vcpu.counters.plus("mmio_exits")))
        self._state = after(self._state, world, vm=vm, effect=self._state.effect)
        if done.stopped is not None and second is not None:
            return self._reflect(walks, reflect(done.stopped, second, None, done.stopped.address))
        if done.fault is not None:
            self._set_cr2(done.fault)
        emulated: Emulated | None = None if done.mmio else done
        return self._done(walks=walks, mmio=done.mmio, emulated=emulated, fault=done.fault, loaded=done.loaded)

    # --- no exit

    def _finish(self, walks: tuple[Walk, ...]) -> State:
        """The access goes through, or the guest gets its own fault."""
        assert self._state.host is not None
        frames, outcome = self._state.host.frames, walks[-1].outcome
        places = [walk.outcome.address for walk in walks if isinstance(walk.outcome, Translated)]
        if all(frames.is_ram(place >> FRAME_BITS) for place in places):
            memory, value = perform(self._state.memory, walks, self._event.address, self._access, self._event.value)
            self._state = msgspec.structs.replace(self._state, memory=memory)
        else:
            self._flags(walks)
            self._assumed[NO_RAM] = None
            value = None
        fault = None
        if isinstance(outcome, PageFault):
            fault = self._fixed_up(outcome)
            self._set_cr2(outcome)
        return self._done(walks=walks, loaded=value, fault=fault)

    def _set_cr2(self, fault: PageFault) -> None:
        registers = msgspec.structs.replace(self._vcpu.registers, cr2=fault.cr2)
        vcpu = msgspec.structs.replace(self._vcpu, registers=registers)
        self._state = self._state.with_vm(self._vm.with_vcpu(vcpu))

    def _fixed_up(self, fault: PageFault) -> PageFault | None:
        """kvm_fixup_and_inject_pf_error(): with allow_smaller_maxphyaddr a #PF is intercepted, and KVM's own walk says
        whether it is one for a reserved bit by the MAXPHYADDR that the guest knows. None: the guest gets ``fault``."""
        module, pcpu = self._state.module, self._pcpu
        assert module is not None
        smaller = module.smaller_maxphyaddr and self._vcpu.cpuid.maxphyaddr < pcpu.features.maxphyaddr
        if not smaller or not fault.error_code & bit(0) or self._vcpu.nested is not None:
            return None
        world = world_of(self._state)
        memory = GuestMemory(world, space_of(self._state), self._vm)
        found = gva_to_gpa(memory, self._software_paging(), fault.cr2, self._access)
        self._state = after(self._state, world, effect=self._state.effect)
        return found if isinstance(found, PageFault) and found.error_code != fault.error_code else None

    def _done(self, **effect: Any) -> State:
        actions = self._state.effect.actions
        done = Effect(exits=tuple(self._exits), actions=actions, assumed=tuple(self._assumed), **effect)
        return msgspec.structs.replace(self._state, effect=done)
