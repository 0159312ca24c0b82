"""Findings: what is amiss at one step, with evidence, on what it rests, how a kernel could notice, and what would help.

Invariants are checked at every step, not only after a change. Each check is a function of the state; a finding is
computed from bytes and registers, never from the events that led there.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum

import msgspec
import numpy as np

from engine.arch.addresses import grouped, size_name
from engine.arch.arrays import Right, U
from engine.arch.basis import Basis, Ground, assumed, manual
from engine.arch.bulk_nested import translate_physical
from engine.arch.mappings import mappings
from engine.arch.memory_type import ENCODINGS
from engine.arch.paging import Paging
from engine.arch.registers import Vendor
from engine.effects.compare import Class, Side, classify_exposed, considered, side
from engine.effects.leaves import leaves, memory_types
from engine.effects.owners import owners_of
from engine.effects.reaction import own_walk
from engine.kvm.vm import Vcpu, Vm
from engine.machine.nested import tables_of_another_mode
from engine.machine.state import Refusal, State


class Severity(IntEnum):
    NOTE = 0
    WARNING = 1
    HAZARD = 2


class Evidence(msgspec.Struct, frozen=True):
    """``address``: host-physical or guest-physical as ``what`` says; None where the evidence is no address."""

    what: str
    value: str
    address: int | None = None


class Finding(msgspec.Struct, frozen=True):
    """``key`` names the kind. ``notice``: how a kernel could notice; ``remedy``: what would help."""

    key: str
    severity: Severity
    title: str
    sentence: str
    evidence: tuple[Evidence, ...]
    basis: Basis
    notice: str = ""
    remedy: str = ""
    vm: int = -1
    vcpu: int = -1
    pcpu: int = -1


def findings(state: State) -> list[Finding]:
    """All findings of ``state``, the gravest first."""
    found = [finding for check in _CHECKS for finding in check(state)]
    return sorted(found, key=lambda f: -f.severity)


def _vcpus(state: State) -> Iterator[tuple[Vm, Vcpu]]:
    for vm in state.vms:
        if vm is not None:
            for vcpu in vm.vcpus:
                yield vm, vcpu


# --- modes -----------------------------------------------------------------------------------------------------------


def _lost_pcpus(state: State) -> Iterator[Finding]:
    for pcpu in state.host.pcpus if state.host else ():
        if pcpu.lost:
            yield Finding(
                "lost-pcpu", Severity.HAZARD, f"pCPU {pcpu.index} is lost", f"On pCPU {pcpu.index} {pcpu.lost}",
                (Evidence("root", grouped(pcpu.registers.cr3), pcpu.registers.cr3),),
                manual("SDM vol. 3A, 4.5; 6.15 (triple fault)"),
                "It cannot: the processor resets before a handler runs.",
                "Load a root of the new depth before paging is switched on again.", pcpu=pcpu.index,
            )  # fmt: skip


def _mixed_modes(state: State) -> Iterator[Finding]:
    if state.host is None:
        return
    depths = {pcpu.index: pcpu.levels for pcpu in state.host.pcpus if not pcpu.lost}
    if len(set(depths.values())) > 1:
        yield Finding(
            "mixed-modes", Severity.WARNING, "pCPUs walk with different depths",
            "CR4.LA57 differs between pCPUs; the kernel assumes that it does not.",
            tuple(Evidence(f"pCPU {n}", f"{levels}-level") for n, levels in depths.items()),
            Basis(Ground.KERNEL, "pgtable_l5_enabled() is one value for the whole kernel"),
            "Compare CR4.LA57 with pgtable_l5_enabled() on each CPU as it comes online.",
            "Bring every pCPU back to the kernel's depth.",
        )  # fmt: skip


def _stale_level(state: State) -> Iterator[Finding]:
    """AMD: the depth of a vCPU's tables against the depth that its pCPU walks with."""
    if state.host is None or state.module is None or state.module.vendor is not Vendor.AMD:
        return
    if not state.module.tdp_enabled:
        return  # what the hardware walks is as deep as the guest's own mode
    for vm, vcpu in _vcpus(state):
        pcpu = state.host.pcpus[vcpu.pcpu]
        if vcpu.root is None or pcpu.lost or vcpu.root.role.level == pcpu.levels:
            continue
        built, walked = vcpu.root.role.level, pcpu.levels
        yield Finding(
            "stale-level", Severity.HAZARD, "KVM's level is not the hardware's",
            f"KVM built {built}-level tables for vCPU {vcpu.index} of VM {vm.index}; pCPU {pcpu.index} walks them with "
            f"{walked} levels, and no check can fail: nCR3 has no level field.",
            (
                Evidence("captured max TDP level", str(state.module.max_tdp_level)),
                Evidence(f"pCPU {pcpu.index}", f"CR4.LA57 = {int(pcpu.la57)}: {walked} levels"),
                Evidence("nCR3", grouped(vcpu.root.hpa), vcpu.root.hpa),
            ),
            Basis(Ground.KERNEL, f"{state.module.kernel.label}: kvm_configure_mmu() runs once"),
            "Compare the root's level with CR4.LA57 before VMRUN.",
            "Refuse to run the vCPU there, or rebuild its tables at the pCPU's depth.",
            vm=vm.index, vcpu=vcpu.index, pcpu=pcpu.index,
        )  # fmt: skip


def _l1_mode(state: State) -> Iterator[Finding]:
    """A hypervisor in a VM whose tables are read in another format than it built them in."""
    for vm in state.vms:
        if vm is None or vm.nested is None:
            continue
        module, vcpu = vm.nested, vm.vcpus[vm.nested.vcpu]
        formats = tables_of_another_mode(state, vm, vcpu)
        if formats is None:
            continue
        built, read = formats
        yield Finding(
            "l1-mode", Severity.HAZARD, "L1's tables are read in another format",
            f"The hypervisor in VM {vm.index} built {built} tables for its guest; L1 is in {read} mode now, and L0 "
            "reads them so at VMRUN: VMCB12 has no level field. What fails in that walk is an #NPF for L1.",
            (
                Evidence("captured by L1", f"{built}, on vCPU {module.vcpu}"),
                Evidence("L1 now", read),
                Evidence("L1's nCR3", grouped(module.root), module.root),
            ),
            Basis(Ground.KERNEL, "nested_svm_init_mmu_context(): L1's CR4 and EFER are read at each VMRUN"),
            "L1 could compare its own CR4.LA57 with what it captured before VMRUN; L0 cannot know.",
            "Rebuild L1's tables in the mode that L1 is in.", vm=vm.index, vcpu=vcpu.index,
        )  # fmt: skip


def _livelock(state: State) -> Iterator[Finding]:
    lock = state.effect.livelock
    if lock is None:
        return
    growth = ", ".join(f"{name} +{n}" for name, n in lock.growth.items())
    result = state.effect.exits[-1].reaction.result
    yield Finding(
        "livelock", Severity.HAZARD, "An access never ends",
        f"The same exit comes back {_rhythm(lock.period)} and KVM answers {result}; no byte of memory and nothing of "
        "KVM's state changes but counters.",
        (
            Evidence("counters, each round", growth),
            Evidence("trace of a round", ", ".join(lock.tracepoints)),
        ),
        Basis(Ground.ASSUMPTION, "no translation cache: every try walks anew"),
        "Count faults on one GPA that end as spurious without a change of the SPTE.",
        "Compare the hardware's depth with KVM's, and stop the vCPU with an error.",
    )  # fmt: skip


def _rhythm(period: int) -> str:
    return "each time" if period == 1 else f"every {period} exits"


# --- what guests reach -----------------------------------------------------------------------------------------------

_EXPOSED = {
    Class.TABLE_PAGE: ("A guest reaches a page table of KVM", Severity.HAZARD),
    Class.HOST_PAGE: ("A guest reaches memory of the host", Severity.HAZARD),
    Class.OTHER_VM: ("A guest reaches another VM's memory", Severity.HAZARD),
    Class.ANOTHER_PAGE: ("A guest's addresses lead to the wrong pages of its own", Severity.HAZARD),
    Class.OUTSIDE_RAM: ("A guest reaches addresses that are not RAM", Severity.HAZARD),
}


def _exposed(state: State) -> Iterator[Finding]:
    """Pages that a vCPU's hardware translates to something that is not the guest's own page of that number."""
    if state.host is None or state.module is None:
        return
    seen: set[tuple[object, ...]] = set()
    for vm, vcpu in _vcpus(state):
        here = side(state, vm.index, vcpu.index)
        if isinstance(here, Refusal) or state.host.pcpus[vcpu.pcpu].lost:
            continue
        key = (vm.index, here.second)
        if key not in seen:
            seen.add(key)
            yield from _exposed_to(here)


def _exposed_to(here: Side) -> Iterator[Finding]:
    gfns = considered(here)
    t = translate_physical(here.state.memory, here.second, gfns << U(12))
    assert here.state.host is not None
    owner = owners_of(here.state.host.frames, t.physical >> U(12))
    kind = classify_exposed(t, owner, here.vm.index, here.rightful(gfns))
    for what, (title, severity) in _EXPOSED.items():
        hit = np.flatnonzero(kind == what)
        if not len(hit):
            continue
        writable = int(np.count_nonzero(t.rights[hit] & np.uint16(Right.W)))
        gpa, hpa = int(gfns[hit[0]]) << 12, int(t.physical[hit[0]])
        yield Finding(
            f"exposed-{what.name.lower().replace('_', '-')}", severity, title,
            f"VM {here.vm.index} on pCPU {here.pcpu}: {_count(len(hit), 'guest page')}, {writable:,} writable, without "
            "an exit that KVM could see.",
            (Evidence("first: GPA", grouped(gpa), gpa), Evidence("leads to HPA", grouped(hpa), hpa)),
            manual("AMD APM vol. 2, 15.25.5" if here.second.kind.value == "NPT" else "Intel SDM vol. 3C, 29.3.2"),
            "It cannot, short of comparing the depths: nothing faults.",
            "As for KVM's level: do not enter the guest with another depth.",
            vm=here.vm.index, vcpu=here.vcpu.index, pcpu=here.pcpu,
        )  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _writable_and_executable(state: State) -> Iterator[Finding]:
    """W+X pages of an image's address space."""
    if state.image is None or state.second is not None:
        return
    found = mappings(state.memory, state.paging)
    both = np.uint16(Right.W | Right.X)
    hit = np.flatnonzero(found.rights & both == both)
    if len(hit):
        pages = int((found.size[hit]).sum()) >> 12
        va = int(found.va[hit[0]])
        yield Finding(
            "writable-executable", Severity.WARNING, "Pages are writable and executable",
            f"{_count(pages, 'page')} of 4 KiB, in {_count(len(hit), 'range')}, can be both written and executed.",
            (Evidence("first", grouped(va), va),), manual("SDM vol. 3A, 4.6.1"),
            "Linux with CONFIG_DEBUG_WX walks its own tables at boot and warns.",
            "Map code read-only, or data no-execute.",
        )  # fmt: skip


def _stages(state: State) -> Iterator[tuple[Paging, Vm | None]]:
    """The tables that are worth a look by themselves: an image's, and each root of a VM as KVM built it."""
    if state.image is not None and state.paging.format is not None:
        yield state.paging, None
    seen: set[int] = set()
    for vm, vcpu in _vcpus(state):
        if vcpu.root is None or vcpu.root.hpa in seen:
            continue
        seen.add(vcpu.root.hpa)
        here = side(state, vm.index, vcpu.index)
        if not isinstance(here, Refusal):
            yield own_walk(here).paging, vm


def _aliases(state: State) -> Iterator[Finding]:
    """One page mapped with two memory types: what a processor then does is undefined."""
    for paging, vm in _stages(state):
        for rows in leaves(state.memory, paging):
            named = memory_types(rows, paging.registers.pat)
            order = np.lexsort((named, rows.page))
            page, kind, address = rows.page[order], named[order], rows.address[order]
            hit = np.flatnonzero((page[1:] == page[:-1]) & (kind[1:] != kind[:-1]))
            if len(hit):
                first, second = int(address[hit[0]]), int(address[hit[0] + 1])
                one, other = (ENCODINGS.get(int(kind[hit[0] + n]), "reserved") for n in (0, 1))
                yield Finding(
                    "memory-type-alias", Severity.WARNING, "A page is mapped with different memory types",
                    f"{_count(len(np.unique(page[hit])), 'page')} of {size_name(1 << rows.level.page_shift)} can be "
                    f"reached by entries of different memory types, the first by {one} and by {other}.",
                    (
                        Evidence("page", grouped(int(page[hit[0]])), int(page[hit[0]])),
                        Evidence(f"{one} by the entry at", grouped(first), first),
                        Evidence(f"{other} by the entry at", grouped(second), second),
                    ),
                    manual("SDM vol. 3A, 12.12.4; APM vol. 2, 7.8.7"),
                    "Linux tracks memory types of physical ranges in its PAT code (memtype_reserve()).",
                    "Map all aliases of a page with one memory type.", vm=vm.index if vm else -1,
                )  # fmt: skip


def _dirty_not_accessed(state: State) -> Iterator[Finding]:
    """Hardware that sets D sets A too, so software cleared A (page aging), or wrote the entry so."""
    for paging, vm in _stages(state):
        found = [
            rows.address[(rows.value & U(rows.level.dirty) != 0) & (rows.value & U(rows.level.accessed) == 0)]
            for rows in leaves(state.memory, paging)
            if rows.level.accessed and rows.level.dirty
        ]
        hit = np.concatenate(found) if found else np.zeros(0, np.uint64)
        if len(hit):
            yield Finding(
                "dirty-not-accessed", Severity.NOTE, "Pages are dirty but not accessed",
                f"{_count(len(hit), 'page')} with D = 1 and A = 0 in the leaf entry: hardware never leaves it so; "
                "software cleared A, as page aging does, or wrote it.",
                (Evidence("first entry at", grouped(int(hit[0])), int(hit[0])),),
                manual("SDM vol. 3A, 4.8; APM vol. 2, 5.4.2"), vm=vm.index if vm else -1,
            )  # fmt: skip


def _assumptions(state: State) -> Iterator[Finding]:
    """Assumptions that decided what happened at this step are worth a note."""
    for name in state.effect.assumed:
        yield Finding(
            "assumption", Severity.NOTE, "An assumption decided this step", name, (), assumed(name.split(":")[0])
        )


_CHECKS: tuple[Callable[[State], Iterator[Finding]], ...] = (
    _lost_pcpus,
    _mixed_modes,
    _stale_level,
    _l1_mode,
    _livelock,
    _exposed,
    _writable_and_executable,
    _aliases,
    _dirty_not_accessed,
    _assumptions,
)
