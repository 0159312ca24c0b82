"""Fields of host-mode-after-kvm-init.md. Every row of its tables is a scenario that is replayed.

A row is added by adding a `Case`, a kernel or a way to the lists below; what it says is read off the states.
"""

from collections.abc import Callable
from functools import cache

import msgspec
import numpy as np

from engine import events as ev
from engine.arch.addresses import plain, size_name
from engine.arch.bits import bit
from engine.arch.bulk_nested import translate_physical
from engine.arch.faults import EntryFailure, GeneralProtection, NestedPageFault, Translated
from engine.arch.rights import READ as LOOK
from engine.effects.compare import Class, Side, effects, side
from engine.effects.findings import findings
from engine.host.machine import KERNEL_HPA, PcpuSetup
from engine.host.modes import WAYS, Root, Way
from engine.kvm.kernels import KERNELS, LATEST, Kernel
from engine.kvm.memslots import Backing, Pages
from engine.kvm.module import Captured, Parameters, actual, would_capture
from engine.kvm.vm import GuestCpu
from engine.machine import Refusal, State
from engine.machine.look import Place, look
from engine.memory.library import Library
from engine.report.events import counted, result
from engine.report.machine import value_text
from engine.report.model import CLASS_NAMES
from engine.report.story import Story, tell
from engine.scenario import Scenario
from tests.docs.tables import table
from tests.engine.kvm_fixture import GIB, MIB, amd, guest, intel, to

ADDRESS, TARGET, DATA = 0x7F12_3456_7000, 0x200_0000, 0x0123_4567_89AB_CDEF
CR3, TABLES = 0x10_0000, 0x10_1000
SIZE = 64 * MIB
"""Bytes of the guest's memory."""
L1_CR3, L1_ROOT, L1_TABLES, L2_AT, L2_SIZE, L2_TARGET = 0x1000, 0x20_0000, 0x21_0000, 0x100_0000, 0x200_0000, 0x20_0000
"""Of a hypervisor in the guest: its own CR3, the tables for its guest, where that guest's memory is, and its data."""
DIRECTIONS = ((False, "4 to 5"), (True, "5 to 4"))
"""Whether the host boots with five levels, and what a change is then."""
KERNEL_KEYS = tuple(key for key in KERNELS if key != "unforced")
DERIVED = "GuestPhysBits"
"""Worked out from the captured level whenever user space asks, so the page has it in words."""
Events = tuple[ev.Event, ...]
USUAL = Parameters()
READS = ev.GuestAccess(ADDRESS, size=8)


# --- the machine of every row


def running(
    setup: PcpuSetup, five: bool, kernel: str = LATEST, bits: int = 48, parameters: Parameters = USUAL
) -> Events:
    """A host of two pCPUs, KVM, and a guest with 4-level paging whose vCPU has read its data on pCPU 0."""
    return (ev.BootHost((setup, setup), five), ev.LoadKvm(kernel, parameters), *virtual_machine(0, bits=bits), READS)


def virtual_machine(vm: int, pcpu: int = 0, bits: int = 48) -> Events:
    """``bits``: the guest's MAXPHYADDR."""
    return (
        ev.CreateVm(), ev.CreateVcpu(vm=vm, pcpu=pcpu, cpuid=GuestCpu(maxphyaddr=bits)),
        ev.SetMemslot(vm=vm, size=SIZE),
        ev.MapGuestPages(CR3, TABLES, ADDRESS, TARGET, 4096, vm=vm),
        ev.FillGuestPages(TARGET, (DATA,), 4096, vm=vm),
        ev.SetGuestRegisters(guest("4-level", CR3, cpl=3), vm=vm),
    )  # fmt: skip


FRESH = (*virtual_machine(1, 1), msgspec.structs.replace(READS, vm=1))
"""A VM that is made later, on pCPU 1, and reads its data."""


@cache
def told(events: Events) -> Story:
    return tell("", Scenario(events=events), Library(), lambda share: None)


def came_to_at(story: Story, step: int) -> str:
    return came_to(story.states[step], story.refusals[step])


def came_to(state: State, refusal: Refusal | None) -> str:
    """What an access came to, in a table's cell."""
    effect = state.effect
    if refusal is not None:
        return "cannot be made"
    if effect.livelock is not None:
        last = effect.exits[-1]
        answered = effect.livelock.first
        first = f" after {counted(answered, 'exit')} answered" if answered else ""
        return f"endless {last.reaction.result}{first}"
    if isinstance(effect.fault, EntryFailure):
        return "the guest cannot be entered"
    if effect.loaded is None and state.host is not None and any(pcpu.lost for pcpu in state.host.pcpus):
        return "the exit loses the pCPU"
    if effect.exits and not effect.exits[-1].reaction.resumes:
        return effect.exits[-1].reaction.result
    if effect.loaded is not None:
        right = effect.loaded == DATA
        return f"{'reads its data' if right else 'reads something else'}, {effect.walks[-1].references} references"
    return result(effect)


# --- what is captured


class _Taken(msgspec.Struct, frozen=True):
    captured: Captured
    stale: str


def captured(setup: PcpuSetup, five: bool) -> dict[str, _Taken]:
    """What kvm_init captures, and whether hardware goes by something else once all pCPUs have the other depth."""
    events = (*running(setup, five)[:2], to(not five, 1), to(not five, 0))
    story = told(events)
    module, host = story.states[2].module, story.states[-1].host
    assert module is not None
    assert host is not None
    now, again = actual(module, host, 0), would_capture(module, host, 0)
    found = {}
    for each in module.captured:
        hardware = now.get(each.name, each.value)
        if hardware == each.value:
            stale = "no"
        elif each.when == "every entry":
            stale = "no: read anew"
        else:
            loaded = value_text(again[each.name])
            stale = f"hardware: {value_text(hardware)}; a new load: {loaded}"
        found[each.name] = _Taken(each, stale)
    return found


def captured_table(setup: PcpuSetup) -> str:
    """Values on a 4-level host and on a 5-level one, who takes them, and what a later change makes of them."""
    four, five = captured(setup, False), captured(setup, True)
    rows = []
    for name, taken in four.items():
        if name == DERIVED:
            continue
        each = taken.captured
        values = [value_text(side_[name].captured.value) for side_ in (four, five)]
        rows.append([f"`{name}`", *values, each.function, each.when, taken.stale, five[name].stale])
    head = ["value", "4-level host", "5-level host", "read by", "when", "stale after 4 to 5", "stale after 5 to 4"]
    return table(head, rows)


# --- what happens


class Case(msgspec.Struct, frozen=True):
    """A kind of guest on a kind of host. ``start``: what happens, on a host booted with five levels or four, until the
    guest runs on pCPU 0; ``access``: what it then does again and again; ``fresh``: the same with a VM made later, on
    pCPU 1."""

    name: str
    start: Callable[[bool], Events]
    access: ev.Event
    fresh: Events


def plain_case(name: str, setup: PcpuSetup, bits: int = 48, parameters: Parameters = USUAL) -> Case:
    fresh = (*virtual_machine(1, 1, bits), msgspec.structs.replace(READS, vm=1))
    return Case(name, lambda five: running(setup, five, bits=bits, parameters=parameters), READS, fresh)


def nested_case(name: str, setup: PcpuSetup, l1: str) -> Case:
    """The guest is a hypervisor in mode ``l1``, and its guest does what the others do."""

    def start(five: bool) -> Events:
        return (
            ev.BootHost((setup, setup), five), ev.LoadKvm(), ev.CreateVm(), ev.CreateVcpu(), ev.SetMemslot(size=SIZE),
            ev.SetGuestRegisters(guest(l1, L1_CR3)), ev.LoadNestedKvm(L1_ROOT, L1_TABLES),
            ev.MapNestedPages(0, L2_AT, L2_SIZE), ev.MapL2Pages(CR3, TABLES, ADDRESS, L2_TARGET, 4096),
            ev.FillL2Pages(L2_TARGET, (DATA,), 4096), ev.EnterNested(guest("4-level", CR3, cpl=3)), READS,
        )  # fmt: skip

    return msgspec.structs.replace(plain_case(name, setup), start=start)


CASES = (
    plain_case("AMD, NPT", amd()),
    plain_case("AMD, `npt=0`", amd(), parameters=Parameters(npt=False)),
    plain_case("Intel, EPT", intel()),
    plain_case("Intel, EPT, guest with MAXPHYADDR 52", intel(), 52),
    plain_case("Intel, EPT of 4 levels only", intel(walk5=False)),
    plain_case("Intel, `ept=0`", intel(), parameters=Parameters(ept=False)),
    nested_case("AMD, a nested guest, L1 with 4 levels", amd(), "4-level"),
    nested_case("AMD, a nested guest, L1 32-bit", amd(), "32-bit"),
    nested_case("Intel, a nested guest", intel(), "4-level"),
)


def outcome_table() -> str:
    """Kind of host, direction and which pCPUs change, to what the guest meets."""
    rows = [
        [case.name, change, "every pCPU" if everywhere else "pCPU 1", *_met(case, five, everywhere)]
        for case in CASES
        for five, change in DIRECTIONS
        for everywhere in (False, True)
    ]
    head = [
        "host", "change", "of", "KVM's level", "walked with", "next read there", "back on pCPU 0",
        "a VM made afterwards, there",
    ]  # fmt: skip
    return table(head, merged(merged(rows, 2), 1))


def merged(rows: list[list[str]], column: int) -> list[list[str]]:
    """Two rows that differ in ``column`` alone become one that says so."""
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        groups.setdefault((*row[:column], *row[column + 1 :]), []).append(row)
    for group in groups.values():
        if len(group) > 1:
            group[0][column] = "either"
    return [group[0] for group in groups.values()]


def _met(case: Case, five: bool, everywhere: bool) -> list[str]:
    changes = [to(not five, 1), *[to(not five, 0)] * everywhere]
    before = (*case.start(five), *changes, ev.MoveVcpu(1))
    there = len(before) + 1
    story = told((*before, case.access, ev.MoveVcpu(0), case.access, *case.fresh))
    assert not any(story.refusals), [refusal for refusal in story.refusals if refusal]
    return [*depths(story.states[there]), *(came_to_at(story, step) for step in (there, there + 2, story.last))]


def depths(state: State) -> tuple[str, str]:
    """The level that KVM built vCPU 0's tables with, and the depth that hardware walks them with."""
    found = state.vcpu(0, 0)
    assert isinstance(found, tuple)
    stages = state.translation(found[1])
    if stages is None or isinstance(stages, EntryFailure):
        return str(found[1].role.level), "-"
    guest_paging, second = stages
    levels = (second.paging if second is not None else guest_paging).levels
    return str(found[1].role.level), str(len(levels))


# --- kernels


def kernel_table() -> str:
    """AMD: each version, what it captures on either host, and what a read on a changed pCPU comes to."""
    rows = [_kernel_row(KERNELS[key]) for key in KERNEL_KEYS]
    head = [
        "kernel", "the level comes from", "4-level host", "5-level host", "read on pCPU 1 after 4 to 5",
        "after 5 to 4", "a VM made there after 4 to 5", "after 5 to 4",
    ]  # fmt: skip
    return table(head, rows)


def _kernel_row(kernel: Kernel) -> list[str]:
    levels: list[str] = []
    there: list[str] = []
    fresh: list[str] = []
    for five, _ in DIRECTIONS:
        start = running(amd(), five, kernel.key)
        story = told((*start, to(not five), ev.MoveVcpu(1), READS, *FRESH))
        module = story.states[2].module
        if module is None:
            cells = ("does not load", "-", "-")
        else:
            right = module.max_tdp_level == (5 if five else 4)
            was_endless = story.states[len(start)].effect.livelock is not None
            first = f"{'endless before; ' * was_endless}{came_to_at(story, len(start) + 3)}"
            verdict = "right" if right else "wrong at once"
            cells = (f"{module.max_tdp_level}: {verdict}", first, came_to_at(story, story.last))
        for column, cell in zip((levels, there, fresh), cells, strict=True):
            column.append(cell)
    return [f"{kernel.label}, {kernel.released}", f"`{kernel.level_source.value}`", *levels, *there, *fresh]


# --- the host


def host_table(setup: PcpuSetup) -> str:
    """Each way to another depth, with the root that is loaded then: what becomes of the host, and of KVM's guests."""
    rows = [
        [_way(way), root.value, change, *_host_row(setup, way, root, five)]
        for way in Way
        for root in (Root if WAYS[way].keeps_kvm else (Root.REBUILT,))
        for five, change in DIRECTIONS
    ]
    head = [
        "way",
        "it then loads",
        "change",
        "what becomes of the host",
        "a guest's next read there",
        "a new VM's first",
    ]
    return table(head, merged(merged(rows, 2), 1))


def _way(way: Way) -> str:
    return f"{way.value} (all pCPUs)" if WAYS[way].all_pcpus else way.value


def _host_row(setup: PcpuSetup, way: Way, root: Root, five: bool) -> tuple[str, str, str]:
    start = running(setup, five)
    story = told((*start, to(not five, 1, way, root), ev.MoveVcpu(1), READS, *FRESH))
    step = len(start) + 1
    state = story.states[step]
    read, first = (_without_count(came_to_at(story, at)) for at in (step + 2, story.last))
    assert story.refusals[step] is None
    assert state.host is not None
    if isinstance(state.effect.fault, GeneralProtection):
        return f"#GP: {state.effect.fault.reason}; nothing changes", read, first
    if state.host.pcpus[1].lost:
        return "lost: its next fetch or push faults, and so does the handler (triple fault)", "-", "-"
    if state.module is None:
        return "a new kernel; KVM and its guests are gone", "-", "-"
    return "goes on", read, first


def _without_count(text: str) -> str:
    """How many references or exits it takes depends on the direction, and is not what that table is about."""
    return text.split(",")[0].split(" after")[0]


# --- what a guest reaches


def reach_table() -> str:
    """A guest whose memory is all present and zero, by what backs it: its pages on the pCPU that changed."""
    shown = (
        Class.SAME, Class.NOT_PRESENT, Class.RESERVED, Class.ANOTHER_PAGE, Class.TABLE_PAGE, Class.HOST_PAGE,
    )  # fmt: skip
    rows = []
    for five, change in DIRECTIONS:
        for pages in Pages:
            size = 2 * GIB if pages is Pages.HUGE_1G else SIZE
            story = told((
                ev.BootHost((amd(), amd()), five, 8 * GIB), ev.LoadKvm(), ev.CreateVm(), ev.CreateVcpu(),
                ev.SetMemslot(size=size, backing=Backing(pages=pages)), ev.Populate(), to(not five),
            ))  # fmt: skip
            assert not any(story.refusals), story.refusals
            a, b = side(story.states[-1], pcpu=0), side(story.states[-1], pcpu=1)
            assert isinstance(a, Side)
            assert isinstance(b, Side)
            found = effects(a, b).pages(0, size)
            assert set(found) <= set(shown), found
            rows.append([change, pages.value, size_name(size), *(f"{found.get(kind, 0):,}" for kind in shown)])
    return table(["change", "backing", "memory", *(CLASS_NAMES[kind] for kind in shown)], rows, words=3)


ENTRY = KERNEL_HPA | bit(0) | bit(1) | bit(2) | bit(5) | bit(6)
"""What a guest would store to reach the host's kernel: P, W, U, A, D."""


def forged() -> dict[str, str]:
    """4 to 5: a guest that stores an entry of its own reaches what it names, 512 times as high."""
    story = told((
        ev.BootHost((amd(), amd())), ev.LoadKvm(), ev.CreateVm(), ev.CreateVcpu(), ev.SetMemslot(size=SIZE),
        ev.Populate(), ev.FillGuestPages(TARGET, (ENTRY,)), to(True), ev.MoveVcpu(1),
    ))  # fmt: skip
    state, gpa = story.states[-1], TARGET << 9
    walk = look(state, gpa, LOOK, Place(physical=True))
    assert not isinstance(walk, Refusal)
    assert isinstance(walk.outcome, Translated)
    assert walk.outcome.address == KERNEL_HPA
    assert "exposed-host-page" in {finding.key for finding in findings(state)}
    return {
        "forged_entry": plain(ENTRY),
        "forged_at": plain(TARGET),
        "forged_gpa": plain(gpa),
        "forged_hpa": plain(walk.outcome.address),
        "forged_rights": walk.outcome.rights.letters(),
    }


def table_reads() -> dict[str, str]:
    """5 to 4: a guest reads and replaces the SPTE of another of its pages."""
    story = told((
        ev.BootHost((amd(), amd()), True), ev.LoadKvm(), ev.CreateVm(), ev.CreateVcpu(), ev.SetMemslot(size=SIZE),
        ev.Populate(), to(False), ev.MoveVcpu(1), ev.GuestAccess(8, size=8),
    ))  # fmt: skip
    assert not any(story.refusals)
    last = story.states[-1]
    loaded = last.effect.loaded
    assert loaded is not None
    intact = side(story.states[6])
    assert isinstance(intact, Side)
    right = translate_physical(story.states[6].memory, intact.second, np.array([0x1000], np.uint64)).physical[0]
    assert loaded & ~0xFFF & (1 << 52) - 1 == int(right)
    return {"read_spte": plain(loaded), "read_spte_page": plain(int(right))}


# --- what one sees of it


def loop() -> dict[str, str]:
    """The endless read of the AMD case: what a trace and the counters show."""
    story = told((*running(amd(), False), to(True), ev.MoveVcpu(1), READS))
    effect = story.states[-1].effect
    assert effect.livelock is not None
    outcome = effect.exits[-1].walk.outcome
    assert isinstance(outcome, NestedPageFault)
    return {
        "loop_exit": f"EXITINFO1 {plain(outcome.exitinfo1)}, EXITINFO2 {plain(outcome.exitinfo2)}",
        "loop_counters": ", ".join(f"`{name}` +{count}" for name, count in effect.livelock.growth.items()),
        "loop_trace": ", ".join(f"`{name}`" for name in effect.livelock.tracepoints),
    }


# --- all of them


def fields() -> dict[str, str]:
    return {
        "captured_amd": captured_table(amd()),
        "captured_intel": captured_table(intel()),
        "outcomes": outcome_table(),
        "kernels": kernel_table(),
        "hosts_amd": host_table(amd()),
        "hosts_intel": host_table(intel()),
        "reach": reach_table(),
        **forged(),
        **table_reads(),
        **loop(),
    }
