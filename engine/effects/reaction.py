"""What KVM does about it: the real fault path run on a throw-away copy of the state, for one address of each class.

A class is: what the hardware answers x what KVM's own walk finds x the kind of memslot. Other addresses of a class get
the same answer (a property test checks that).
"""

from enum import Enum

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.arch.arrays import Code, Right, U, Words
from engine.arch.bulk_nested import translate_physical
from engine.arch.faults import EntryFailure
from engine.arch.registers import CR4
from engine.arch.rights import READ, WRITE, Access, Kind
from engine.arch.second_stage import Kind2, SecondStage, npt
from engine.effects.compare import Side
from engine.kvm.memslots import Memslot
from engine.machine.access import physical_access
from engine.machine.guest_view import GuestView
from engine.machine.state import Effect, Livelock


class Answer(Enum):
    NEVER_ASKED = "never asked: no exit"
    MENDS = "maps the page, and the access goes on"
    SPURIOUS_LOOP = "finds it mapped already (RET_PF_SPURIOUS): endless"
    RETRY_LOOP = "takes it for a race (RET_PF_RETRY): endless"
    EMULATES = "emulates the access, for a device of the VMM mostly"
    REFLECTS = "finds that the hypervisor in the guest maps no such thing, and gives it the exit"
    FAILS = "gives up: KVM_RUN returns an error"


class Reacted(msgspec.Struct, frozen=True):
    """``gpa``: the address that was tried; ``exits``: how many it took until the access was done or proved endless."""

    answer: Answer
    gpa: int
    kind: Kind
    exits: int
    livelock: Livelock | None
    functions: tuple[str, ...]


def answer_of(effect: Effect) -> Answer:
    """The answer that an access came to."""
    if effect.livelock is not None:
        results = {e.reaction.result for e in effect.exits[effect.livelock.first :]}
        return Answer.RETRY_LOOP if results == {"RET_PF_RETRY"} else Answer.SPURIOUS_LOOP
    if effect.reflected is not None:
        return Answer.REFLECTS
    if not effect.walks:
        return Answer.FAILS  # the guest is not entered at all
    if not effect.exits:
        return Answer.NEVER_ASKED
    if effect.mmio or (effect.emulated is not None and not effect.emulated.failed):
        return Answer.EMULATES
    return Answer.MENDS if effect.walks[-1].ok else Answer.FAILS


def react(side: Side, gpa: int, kind: Kind = Kind.READ) -> Reacted:
    """Make one access of ``kind`` to guest-physical ``gpa`` on a copy of the state; KVM answers as it would."""
    effect = physical_access(side.state, side.vm, side.vcpu, gpa, kind).effect
    names = tuple(dict.fromkeys(a.function for e in effect.exits for a in e.reaction.actions))
    return Reacted(answer_of(effect), gpa, kind, len(effect.exits), effect.livelock, names)


def own_walk(side: Side) -> SecondStage:
    """KVM's own tables at the depth that KVM built them with: what its software walks find."""
    second, root = side.second, side.vcpu.root
    assert root is not None
    if second.kind is Kind2.EPT or len(second.paging.levels) == root.role.level:
        return second
    registers = second.paging.registers
    cr4 = registers.cr4 | CR4.LA57 if root.role.level == 5 else registers.cr4 & ~CR4.LA57
    built = npt(msgspec.structs.replace(registers, cr4=int(cr4)), second.paging.features, root.hpa, second.paging.rules)
    assert not isinstance(built, EntryFailure)
    return built


def _slot_kind(slot: Memslot | None) -> int:
    if slot is None:
        return 0
    return 1 + slot.read_only + 2 * slot.dirty_log


def classes(side: Side, addresses: Words, kind: Kind = Kind.READ) -> NDArray[np.uint32]:
    """The class of each guest-physical address, as a number: equal numbers, equal classes."""
    access = WRITE if kind is Kind.WRITE else READ
    hardware = translate_physical(side.state.memory, side.second, addresses, access)
    own = translate_physical(side.state.memory, own_walk(side), addresses, access)
    slots, places = np.zeros(len(addresses), np.uint32), side.rightful(addresses >> U(12)) << U(12)
    for slot in side.vm.slots:
        inside = (places >= U(slot.gpa)) & (places < U(slot.gpa + slot.size))
        slots[inside] = _slot_kind(slot)
    writable = (own.rights & np.uint16(Right.W)).astype(np.uint32)
    # Where the hardware stopped matters for the first answer: a table that KVM still links changes what it sees next.
    number = np.zeros(len(addresses), np.uint32)
    parts = ((hardware.code, 0), (hardware.level, 4), (own.code, 8), (own.level, 12), (writable, 16), (slots, 20))
    for column, shift in parts:
        number |= column.astype(np.uint32) << np.uint32(shift)
    return number | _by_l1(side, addresses, places, access)


def _by_l1(side: Side, addresses: Words, places: Words, access: Access) -> NDArray[np.uint32]:
    """What a hypervisor inside the VM has to say of the pages of its guest: its tables' answer and rights, and whether
    the page, at ``places`` in the VM, is a table that KVM mirrors. 0 without one."""
    number = np.zeros(len(addresses), np.uint32)
    if side.l1 is None:
        return number
    given = translate_physical(GuestView(side.state, side.vm), side.l1, addresses, access)
    number |= given.code.astype(np.uint32) << np.uint32(24)
    number |= (given.rights & np.uint16(Right.W | Right.X)).astype(np.uint32) // np.uint32(2) << np.uint32(28)
    tracked = np.array([gfn for gfn in side.vm.shadow.by_gfn if side.vm.shadow.is_tracked(gfn)], np.uint64)
    return number | np.isin(places >> U(12), tracked).astype(np.uint32) << np.uint32(31)


def reactions(side: Side, addresses: Words, kind: Kind = Kind.READ) -> tuple[NDArray[np.uint32], dict[int, Reacted]]:
    """The class of each address, and for each class the answer to its first address. Hardware successes ask nobody."""
    found = classes(side, addresses, kind)
    answers: dict[int, Reacted] = {}
    for number, at in zip(*np.unique(found, return_index=True), strict=True):
        gpa = int(addresses[at])
        if number & 0xF == Code.OK:
            answers[int(number)] = Reacted(Answer.NEVER_ASKED, gpa, kind, 0, None, ())
        else:
            answers[int(number)] = react(side, gpa, kind)
    return found, answers
