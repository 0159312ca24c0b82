"""Which frame of a VM's memory each guest-physical page should be: its own number, or, for a nested guest, what the
tables of its hypervisor say.

A table of KVM's that is out of sync with them may still give what they said before: that is right until the hypervisor
flushes, so what KVM noted when it made the SPTE counts there.
"""

from collections.abc import Iterator

import numpy as np

from engine.arch.addresses import FRAME_BITS
from engine.arch.arrays import OK, U, Words
from engine.arch.bulk_nested import translate_physical
from engine.arch.mappings import mappings
from engine.arch.second_stage import SecondStage
from engine.kvm.shadow_pages import ShadowPage
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import Vcpu, Vm
from engine.machine.guest_view import GuestView
from engine.machine.state import State

NONE = (1 << 64) - 1
"""In place of a frame number: no frame is right."""
ENTRIES = 512


def rightful(state: State, vm: Vm, vcpu: Vcpu, gfns: Words) -> Words:
    """The frame of ``vm`` that each of ``gfns``, in ascending order, should be for what runs on ``vcpu``; NONE where
    the hypervisor inside the VM gives none."""
    l1 = state.l1_stage(vcpu)
    if l1 is None:
        return gfns
    given = translate_physical(GuestView(state, vm), l1, gfns << U(FRAME_BITS))
    found = np.where(given.code == OK, given.physical >> U(FRAME_BITS), U(NONE))
    for gfn, frame in _out_of_sync(state, vm, vcpu):
        at = int(np.searchsorted(gfns, U(gfn)))
        if at < len(gfns) and int(gfns[at]) == gfn:
            found[at] = frame
    return found


def given_to(state: State, vm: Vm, l1: SecondStage) -> list[tuple[int, int]]:
    """The spans (start, end) of L2-physical bytes that L1's tables lead to memory of ``vm``."""
    found = mappings(GuestView(state, vm), l1.paging)
    spans = []
    for va, pa, size in zip(found.va.tolist(), found.pa.tolist(), found.size.tolist(), strict=True):
        for slot in vm.slots:
            start, end = max(pa, slot.gpa), min(pa + size, slot.gpa + slot.size)
            if start < end:
                spans.append((va + start - pa, va + end - pa))
    return spans


def _out_of_sync(state: State, vm: Vm, vcpu: Vcpu) -> Iterator[tuple[int, int]]:
    """(L2-physical frame number, frame of the VM) of each SPTE in a table that is out of sync, as KVM noted it."""
    for pfn in vm.shadow.unsync:
        page = vm.shadow.page(pfn << FRAME_BITS)
        if page is None:
            continue
        for base in set(_bases(state, vm, vcpu, page)):
            for n in range(ENTRIES):
                leaf = vm.shadow.leaf(page.table + n * 8)
                if leaf is not None:
                    yield (base >> FRAME_BITS) + n, leaf.gfn


def _bases(state: State, vm: Vm, vcpu: Vcpu, page: ShadowPage) -> Iterator[int]:
    """The first L2-physical addresses that ``page`` is for, under the root in use: by its parents, up to the root."""
    if vcpu.root is None:
        return
    if page.table == vcpu.root.hpa:
        yield 0
    for n in range(4) if vcpu.special.pae_root else ():
        if (state.memory.word(vcpu.special.pae_root + n * 8) or 0) & ADDRESS == page.table:
            yield n << 30
    for at in page.parents:
        above = vm.shadow.page(at)
        if above is not None:
            offset = (at & 0xFFF) >> 3 << (FRAME_BITS + 9 * page.role.level)
            for base in _bases(state, vm, vcpu, above):
                yield base + offset
