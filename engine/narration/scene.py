"""One step of a replay, and what a stop looks at there: all that fields are about."""

from functools import cached_property

import msgspec

from engine.arch.rights import Access
from engine.arch.second_stage import SecondStage
from engine.arch.walk import Step, Walk
from engine.demo import Moment, Stop
from engine.effects.compare import Class, Side, effects, side
from engine.effects.findings import Finding, findings
from engine.effects.reaction import Answer, answer_of, react
from engine.errors import InputError
from engine.host.frames import Owner, Use
from engine.host.machine import Host, Pcpu
from engine.kvm.module import Module
from engine.kvm.nested import Reflected
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import NestedModule, Root, Vcpu, Vm
from engine.machine import Effect, Refusal, State
from engine.machine.look import HERE, Place, Stages, look, look_logical, stages
from engine.machine.mirror import Mirror, mirror
from engine.scenario import Replay


class Absent(Exception):
    """The field has no value at this moment; the message is why, the rest of a sentence."""


class Scene:
    """Parts are worked out when they are asked for; one that there is not raises `Absent`."""

    def __init__(self, replay: Replay, stop: Stop, moment: Moment | None = None) -> None:
        """``moment``: another one than the stop's own step."""
        self.replay, self.stop = replay, stop
        self.moment = self._real(moment or Moment(stop.step))

    def _real(self, moment: Moment) -> Moment:
        if moment.step > len(self.replay.scenario.events):
            raise InputError(f"Step {moment.step} is behind the last event of the scenario.")
        return moment

    @cached_property
    def state(self) -> State:
        """With the vCPU that is looked at on the moment's pCPU, as a look from there."""
        state = self.replay.state(self.moment.step)
        found = state.vcpu(self.place.vm, self.place.vcpu)
        if self.moment.pcpu is None or isinstance(found, Refusal):
            return state
        self.pcpu(self.moment.pcpu)  # there is one
        vm, vcpu = found
        return state.with_vm(vm.with_vcpu(msgspec.structs.replace(vcpu, pcpu=self.moment.pcpu)))

    @property
    def place(self) -> Place:
        return self.stop.look.place if self.stop.look else HERE

    @property
    def effect(self) -> Effect:
        return self.state.effect

    @property
    def refused(self) -> str:
        refusal = self.replay.refusal(self.moment.step) if self.moment.step else None
        return refusal.reason if refusal else ""

    # --- the walk

    @cached_property
    def walk(self) -> Walk:
        return self.walked(self.stop.logical)

    def walked(self, logical: bool) -> Walk:
        """The walk of the look, the logical one of a nested guest or the hardware's."""
        what = self.stop.look
        if what is None:
            raise Absent("nothing is walked at this stop")
        make = look_logical if logical else look
        found = make(self.state, what.address, Access(what.kind, what.size), what.place, what.cpl)
        if isinstance(found, Refusal):
            raise Absent(f"nothing can be walked: {found.reason}")
        return found

    @cached_property
    def stages(self) -> Stages:
        found = stages(self.state, self.place)
        if isinstance(found, Refusal):
            raise Absent(f"nothing can be walked: {found.reason}")
        return found

    @property
    def lit(self) -> Step:
        steps = self.walk.steps
        number = len(steps) - 1 if self.stop.reference is None else self.stop.reference
        if not 0 <= number < len(steps):
            raise Absent(f"the walk has no reference {number + 1}")
        return steps[number]

    @property
    def last_walk(self) -> Walk:
        """Of the access that the step's event makes: its last."""
        if not self.effect.walks:
            raise Absent("no access is made at this step")
        return self.effect.walks[-1]

    # --- the machine

    @property
    def host(self) -> Host:
        host = self.replay.state(self.moment.step).host
        if host is None:
            raise Absent("there is no host")
        return host

    def pcpu(self, index: int) -> Pcpu:
        if not 0 <= index < len(self.host.pcpus):
            raise Absent(f"there is no pCPU {index}")
        return self.host.pcpus[index]

    @property
    def module(self) -> Module:
        if self.state.module is None:
            raise Absent("KVM is not loaded")
        return self.state.module

    @property
    def vm(self) -> Vm:
        return self._owner[0]

    @property
    def vcpu(self) -> Vcpu:
        return self._owner[1]

    @property
    def _owner(self) -> tuple[Vm, Vcpu]:
        found = self.state.vcpu(self.place.vm, self.place.vcpu)
        if isinstance(found, Refusal):
            raise Absent(found.reason)
        return found

    @property
    def root(self) -> Root:
        """Of the vCPU's nested tables."""
        if self.vcpu.root is None:
            raise Absent("the vCPU has no nested tables yet")
        return self.vcpu.root

    @property
    def l1(self) -> SecondStage:
        """What the hypervisor inside the VM translates with, for the nested guest that runs."""
        found = self.state.l1_stage(self.vcpu)
        if found is None:
            raise Absent("no nested guest runs, or its hypervisor uses no nested paging")
        return found

    @property
    def hypervisor(self) -> NestedModule:
        if self.vm.nested is None:
            raise Absent("the VM has loaded no hypervisor")
        return self.vm.nested

    @cached_property
    def mirror(self) -> Mirror:
        found = mirror(self.state, self.place.vm, self.place.vcpu)
        if isinstance(found, Refusal):
            raise Absent(found.reason)
        return found

    @property
    def reflected(self) -> Reflected:
        if self.effect.reflected is None:
            raise Absent("the step's access does not end in an exit to a hypervisor inside the VM")
        return self.effect.reflected

    @property
    def special_roots(self) -> tuple[str, ...]:
        """The vCPU's special roots that its root leads through, from the top down."""
        tables = self.vcpu.special
        names = {getattr(tables, name): name for name in ("pml5_root", "pml4_root", "pae_root")}
        at, found = self.root.hpa, list[str]()
        while at and at in names and len(found) < len(names):
            found.append(names[at])
            at = (self.state.memory.word(at) or 0) & ADDRESS
        return tuple(found)

    @property
    def mirrored(self) -> int:
        found = self.state.vm(self.place.vm)
        return 0 if isinstance(found, Refusal) else len(found.shadow.pages)

    @property
    def kvm_tables(self) -> int:
        owners = (Owner.unpacked(word) for word in self.host.frames.taken.values())
        return sum(owner.use is Use.KVM_TABLE and owner.vm == self.place.vm for owner in owners)

    # --- findings and effects

    @cached_property
    def findings(self) -> list[Finding]:
        return findings(self.state)

    def _side(self, moment: Moment | None, name: str) -> Side:
        if moment is None:
            raise Absent(f"the stop does not say what {name} is")
        found = side(self.replay.state(self._real(moment).step), self.place.vm, self.place.vcpu, moment.pcpu)
        if isinstance(found, Refusal):
            raise Absent(f"on {name} nothing is translated: {found.reason}")
        return found

    @cached_property
    def pages(self) -> dict[Class, int]:
        """The 4-KiB pages of each class, from A to B."""
        return effects(self._side(self.stop.a, "A"), self._side(self.stop.b or Moment(self.stop.step), "B")).pages()

    @cached_property
    def answer(self) -> Answer:
        """KVM's answer to the access, or else to the look's guest-physical address."""
        if self.effect.walks:
            return answer_of(self.effect)
        if self.stop.look is None or not self.place.physical:
            raise Absent("no access is made, and no guest-physical address looked at")
        here = side(self.state, self.place.vm, self.place.vcpu)
        if isinstance(here, Refusal):
            raise Absent(here.reason)
        return react(here, self.stop.look.address, self.stop.look.kind).answer
