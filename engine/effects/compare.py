"""The effects of going from one side to another: every guest-physical page, classified by what both really translate.

A side is a vCPU's second stage as the hardware of one pCPU walks it at one step. Nothing here knows why sides differ.
While a nested guest runs, guest-physical means L2-physical, and its hypervisor's tables say which page is which.
"""

from enum import IntEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.arch.arrays import ON_ENTRY, ON_PAGE, Code, Flags, Right, RightsColumn, Small, U, Words
from engine.arch.bulk import Progress, Translations
from engine.arch.bulk_nested import translate_physical
from engine.arch.mappings import mappings
from engine.arch.paging import Paging
from engine.arch.second_stage import SecondStage
from engine.effects.owners import OUTSIDE, gfn_of, owners_of, use_is, vm_of
from engine.effects.rightful import given_to, rightful
from engine.host.frames import Use
from engine.kvm.vm import Vcpu, Vm
from engine.machine.look import Place, stages
from engine.machine.state import Refusal, State


class Class(IntEnum):
    """What side B makes of a page, against side A."""

    SAME = 0
    NOT_PRESENT = 1
    RESERVED = 2
    PERMISSION = 3
    ANOTHER_PAGE = 4
    TABLE_PAGE = 5
    HOST_PAGE = 6
    OTHER_VM = 7
    OUTSIDE_RAM = 8
    UNKNOWN = 9
    RESTORED = 10
    """A faulted, B gives the page that the memslots say."""


EXPOSES = frozenset({Class.ANOTHER_PAGE, Class.TABLE_PAGE, Class.HOST_PAGE, Class.OTHER_VM, Class.OUTSIDE_RAM})
"""Classes in which the guest reaches what it should not, and nobody is asked."""

FAULTS = {
    Code.NOT_PRESENT: Class.NOT_PRESENT,
    Code.RESERVED: Class.RESERVED,
    Code.MISCONFIGURED: Class.RESERVED,
    Code.RIGHTS: Class.PERMISSION,
    Code.KEY: Class.PERMISSION,
    Code.UNKNOWN: Class.UNKNOWN,
}
"""The class of a page that does not translate."""


SHADOWED = "Nested paging is off, so KVM mirrors this guest's own tables: there is no second stage to compare."


class Side(msgspec.Struct, frozen=True):
    """``guest`` None: the guest has no paging. ``pcpu``: whose hardware walks."""

    state: State
    vm: Vm
    vcpu: Vcpu
    pcpu: int
    second: SecondStage
    guest: Paging | None

    @property
    def l1(self) -> SecondStage | None:
        """What a hypervisor inside the VM translates with, for the guest that runs on the vCPU; None without one."""
        return self.state.l1_stage(self.vcpu)

    def rightful(self, gfns: Words) -> Words:
        """The frame of the VM that each of ``gfns``, in ascending order, should be (`rightful.rightful`)."""
        return rightful(self.state, self.vm, self.vcpu, gfns)


def side(state: State, vm: int = 0, vcpu: int = 0, pcpu: int | None = None) -> Side | Refusal:
    """The side that vCPU ``vcpu`` sees in ``state``, on its own pCPU or as if it were on ``pcpu``."""
    found = state.vcpu(vm, vcpu)
    if isinstance(found, Refusal):
        return found
    owner, cpu = found
    if pcpu is not None:
        assert state.host is not None
        if not 0 <= pcpu < len(state.host.pcpus):
            return Refusal(f"There is no pCPU {pcpu}.")
        cpu = msgspec.structs.replace(cpu, pcpu=pcpu)
        owner = owner.with_vcpu(cpu)
        state = state.with_vm(owner)
    both = stages(state, Place(vm=vm, vcpu=vcpu))
    if isinstance(both, Refusal):
        return both
    if both.second is None:
        return Refusal(SHADOWED)
    guest = both.first if both.first.format is not None else None
    return Side(state, owner, cpu, cpu.pcpu, both.second, guest)


def comparable(a: Side, b: Side) -> Refusal | None:
    """Why the guest-physical addresses of two sides do not mean the same; None where they do."""
    if (a.l1 is None) == (b.l1 is None):
        return None
    nested, other = ("A", "B") if b.l1 is None else ("B", "A")
    return Refusal(
        f"On {nested} a nested guest runs and on {other} its hypervisor: their physical addresses are not the same."
    )


class Effects(msgspec.Struct, frozen=True):
    """Ranges of guest-physical addresses, in order, as columns.

    ``start``, ``size`` in bytes; ``kind``: `Class`; ``a``, ``b``: HPA of the range's start on each side where that side
    translates it (``a_code``, ``b_code`` 0), else the `Code` tells why not; ``b_owner``: packed owner of what B gives;
    ``rights``: `Right` bits on side B.
    """

    start: Words
    size: Words
    kind: Small
    a: Words
    b: Words
    a_code: Small
    b_code: Small
    b_owner: Words
    rights: RightsColumn

    def __len__(self) -> int:
        return len(self.start)

    def pages(self, start: int = 0, end: int = 1 << 64) -> dict[Class, int]:
        """How many 4-KiB pages of addresses ``start`` .. ``end`` are of each class; classes without are left out."""
        first = np.maximum(self.start, U(start))
        last = np.minimum(self.start + (self.size - U(1)), U(end - 1))
        count_of = np.where(last >= first, (last - first + U(4096)) >> U(12), U(0))
        found = {}
        for kind in Class:
            count = int(count_of[self.kind == kind].sum())
            if count:
                found[kind] = count
        return found

    def changed(self) -> "Effects":
        """Without the ranges that translate the same."""
        return self.where(self.kind != Class.SAME)

    def where(self, which: Flags) -> "Effects":
        return Effects(*(getattr(self, name)[which] for name in self.__struct_fields__))


def effects(a: Side, b: Side, progress: Progress | None = None) -> Effects:
    """Every page of guest-physical memory that a memslot holds or that either side translates, classified."""
    gfns = considered(a, b)
    addresses = gfns << U(12)
    ta = translate_physical(a.state.memory, a.second, addresses)
    tb = translate_physical(b.state.memory, b.second, addresses, progress=progress)
    return compared(b, addresses, ta, tb, b.rightful(gfns))


def compared(b: Side, addresses: Words, ta: Translations, tb: Translations, frames: Words | None) -> Effects:
    """The effects on pages ``addresses`` that the sides translate to ``ta`` and ``tb``; ``frames`` as in `classify`."""
    assert b.state.host is not None
    owner = owners_of(b.state.host.frames, tb.physical >> U(12))
    kind = classify(ta, tb, owner, b.vm.index, frames)
    keep = np.flatnonzero((kind != Class.SAME) | (ta.code == Code.OK))
    return _ranges(addresses[keep], kind[keep], _rows(ta, keep), _rows(tb, keep), owner[keep])


def _rows(t: Translations, keep: NDArray[np.intp]) -> Translations:
    return Translations(*(getattr(t, name)[keep] for name in t.__struct_fields__))


def considered(*sides: Side) -> Words:
    """The guest frame numbers to look at, in order: those of the memslots, or that a hypervisor inside the VM has given
    its guest, and those that a side's tables map at all."""
    spans = [span for s in sides for span in memory_of(s)]
    for s in sides:
        found = mappings(s.state.memory, s.second.paging)
        beside = np.ones(len(found), np.bool_)
        for start, end in spans:
            beside &= (found.va < U(start)) | (found.va + found.size > U(end))
        spans += [(int(va), int(va) + int(n)) for va, n in zip(found.va[beside], found.size[beside], strict=True)]
    parts, reached = [np.zeros(0, np.uint64)], 0
    for start, end in sorted(spans):
        start = max(start, reached)
        if start < end:
            parts.append(np.arange(start >> 12, end >> 12, dtype=np.uint64))
            reached = end
    return np.concatenate(parts)


def memory_of(one: Side) -> list[tuple[int, int]]:
    """Spans (start, end) of guest-physical bytes that have memory: the memslots', or what L1 has given its guest."""
    if one.l1 is not None:
        return given_to(one.state, one.vm, one.l1)
    return [(slot.gpa, slot.gpa + slot.size) for slot in one.vm.slots]


def classify(a: Translations, b: Translations, owner: Words, vm: int, frames: Words | None) -> Small:
    """`Class` of each row. ``owner``: packed owners of what B gives.

    ``frames``: the VM's frame that each page should be (`Side.rightful`); None for guest-virtual pages, which have no
    frame of their own. A fault counts by its reason, whichever stage raised it.
    """
    kind = np.zeros(len(a), np.uint8)
    a_ok, b_ok = a.code == Code.OK, b.code == Code.OK
    reason = b.code & np.uint8(0xFF ^ (ON_ENTRY | ON_PAGE))
    for code, found in FAULTS.items():
        kind[(reason == code) & (a_ok | (a.code != b.code))] = found
    moved = b_ok & (~a_ok | (a.physical != b.physical))
    exposed = classify_exposed(b, owner, vm, frames)
    kind[moved] = np.where(exposed == Class.SAME, np.uint8(Class.RESTORED), exposed)[moved]
    lost = b_ok & a_ok & ~moved & (a.rights & ~b.rights & np.uint16(Right.ALL) != 0)
    kind[lost] = Class.PERMISSION
    return kind


def classify_exposed(t: Translations, owner: Words, vm: int, frames: Words | None) -> Small:
    """What each page that translates really gives: SAME for the frame of the VM that it should be, or for none."""
    kind = np.full(len(t), Class.HOST_PAGE, np.uint8)
    guest = use_is(owner, Use.GUEST_PAGE)
    mine = guest & (vm_of(owner) == U(vm + 1))
    kind[owner == OUTSIDE] = Class.OUTSIDE_RAM
    kind[use_is(owner, Use.KVM_TABLE)] = Class.TABLE_PAGE
    kind[guest] = Class.OTHER_VM
    kind[mine] = Class.ANOTHER_PAGE
    if frames is not None:
        kind[mine & (gfn_of(owner) == frames)] = Class.SAME
    kind[t.code != Code.OK] = Class.SAME
    return kind


def _ranges(address: Words, kind: Small, a: Translations, b: Translations, owner: Words) -> Effects:
    """Neighbouring pages of one class, alike on both sides and contiguous in both, become one range."""
    if not len(address):
        empty = np.zeros(0, np.uint64)
        small = np.zeros(0, np.uint8)
        return Effects(empty, empty, small, empty, empty, small, small, empty, np.zeros(0, np.uint16))

    def follows(column: Words, code: Small) -> Flags:
        step = column[1:] - column[:-1] == U(4096)
        alike: Flags = (code[1:] == code[:-1]) & (step | (code[1:] != Code.OK))
        return alike

    same = address[1:] - address[:-1] == U(4096)
    same &= (kind[1:] == kind[:-1]) & (b.rights[1:] == b.rights[:-1])
    same &= follows(a.physical, a.code) & follows(b.physical, b.code)
    same &= (b.code[1:] != Code.OK) | (owner[1:] & U(0xFFFFFF) == owner[:-1] & U(0xFFFFFF))
    first = np.flatnonzero(np.concatenate(([True], ~same)))
    last = np.append(first[1:], len(address)) - 1
    return Effects(
        start=address[first],
        size=address[last] - address[first] + U(4096),
        kind=kind[first],
        a=a.physical[first],
        b=b.physical[first],
        a_code=a.code[first],
        b_code=b.code[first],
        b_owner=owner[first],
        rights=b.rights[first],
    )
