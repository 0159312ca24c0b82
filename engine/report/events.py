"""What happened, step by step: each event in words, and how it turned out."""

from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from msgspec.structs import replace

from engine import events as ev
from engine.arch.addresses import plain, size_name
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    NestedPageFault,
    Outcome,
    PageFault,
    Translated,
    Unknown,
)
from engine.arch.registers import Mode, Registers
from engine.arch.rights import Kind
from engine.arch.walk import Walk
from engine.host.modes import WAYS, Way
from engine.kvm.emulate import Emulated
from engine.kvm.nested import Reflected
from engine.machine import Effect, Livelock, Refusal, State
from engine.machine.promised import astray
from engine.report.model import Block, Entries, Entry, Fields, Items, Paragraph, Row, Section, Table
from engine.report.story import Story
from engine.report.walks import outcome_text

MOST_EXITS = 12
"""Exits of one access that are listed."""

# --- events in words

Say = Callable[[Any, State], str]
VERBS = {
    Kind.READ: "reads", Kind.WRITE: "writes", Kind.FETCH: "fetches", Kind.SHADOW_READ: "shadow-stack-reads",
    Kind.SHADOW_WRITE: "shadow-stack-writes",
}  # fmt: skip


def counted(number: int, noun: str) -> str:
    """ "1 page", "2 pages"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _image(image: ev.ImageRef) -> str:
    return PurePath(image.path.removeprefix("resource:")).name


def paging_name(registers: Registers) -> str:
    """ "4-level paging, CR3 0x1000"."""
    if registers.mode is Mode.NONE:
        return "no paging"
    return f"{registers.mode.value} paging, CR3 {plain(registers.cr3)}"


def _who(event: ev.GuestAccess | ev.WriteGuestRegister | ev.InvalidatePage, state: State) -> str:
    nested = "the nested guest on " if state.is_nested(event.vm, event.vcpu) else ""
    return f"{nested}vCPU {event.vcpu} of VM {event.vm}"


def _access(event: ev.GuestAccess, state: State) -> str:
    found = state.vcpu(event.vm, event.vcpu)
    pcpu = f" on pCPU {found[1].pcpu}" if isinstance(found, tuple) else ""
    what = f"{VERBS[event.kind]} {counted(event.size, 'byte')} at GVA {plain(event.address)}"
    return f"{_who(event, state)}{pcpu} {what}"


def _memslot(e: ev.SetMemslot) -> str:
    holds = f", holding {_image(e.image)}" if e.image else ""
    read_only = ", read-only" if e.read_only else ""
    pages = f"{e.backing.pages.value} pages, {e.backing.placement.value}"
    return f"memslot of VM {e.vm}: {size_name(e.size)} at GPA {plain(e.gpa)}, {pages}{read_only}{holds}"


def _change(e: ev.ChangeMode) -> str:
    who = "every pCPU" if WAYS[e.way].all_pcpus else f"pCPU {e.pcpu}"
    loads = "" if e.way is Way.MOV_CR4 else f"; it then loads {e.root.value}"
    return f"{who} goes to CR4.LA57 = {int(e.la57)} by {e.way.value}{loads}"


def _zap(e: ev.ZapGuest) -> str:
    what = f"{size_name(e.size)} at GPA {plain(e.gpa)}" if e.size else "all tables"
    return f"KVM zaps {what} of VM {e.vm}"


def _map(e: ev.MapGuestPages) -> str:
    l2 = isinstance(e, ev.MapL2Pages)
    what = f"{size_name(e.size)} at GVA {plain(e.address)} to {'L2-physical' if l2 else 'GPA'} {plain(e.target)}"
    whose = f"the nested guest of VM {e.vm} gets" if l2 else f"VM {e.vm}'s memory gets"
    return f"{whose} {e.mode} tables (CR3 {plain(e.root)}) that map {what}"


def _map_nested(e: ev.MapNestedPages) -> str:
    what = f"{size_name(e.size)} of L2-physical {plain(e.address)} to L1-physical {plain(e.target)}"
    return f"the hypervisor in VM {e.vm} maps {what}"


def _enter(e: ev.EnterNested) -> str:
    root = f"its root is {plain(e.root)}" if e.root else "with the root of L1's own module"
    how = root if e.paging else "without nested paging"
    return f"VMRUN or VM entry by L1 on vCPU {e.vcpu} of VM {e.vm}, {how}: L2 has {paging_name(e.registers)}"


SAYINGS: dict[type, Say] = {
    ev.OpenImage: lambda e, s: f"memory image {_image(e.image)} is opened",
    ev.ChooseCpu: lambda e, s: f"the registers of CPU {e.cpu} of the image are taken",
    ev.ChooseRoot: lambda e, s: f"CR3 becomes {plain(e.cr3)}, as by a debugger",
    ev.SetRegister: lambda e, s: f"{e.name.upper()} becomes {plain(e.value)}, as by a debugger",
    ev.WriteRegister: lambda e, s: f"the processor writes {plain(e.value)} to {e.name.upper()}",
    ev.ChooseSecondStage: lambda e, s: f"second stage: {e.kind.upper()}, root {plain(e.value)}",
    ev.AccessMemory: lambda e, s: f"the processor {VERBS[e.kind]} {counted(e.size, 'byte')} at {plain(e.address)}",
    ev.Poke: lambda e, s: f"somebody writes {plain(e.value)} ({e.size} bytes) at physical {plain(e.address)}",
    ev.BootHost: lambda e, s: f"a host boots, {counted(len(e.pcpus), 'pCPU')}",
    ev.LoadKvm: lambda e, s: f"kvm_init runs on pCPU {e.pcpu}",
    ev.UnloadKvm: lambda e, s: "KVM is unloaded",
    ev.CreateVm: lambda e, s: f"KVM_CREATE_VM: VM {len(s.vms) - 1}",
    ev.DestroyVm: lambda e, s: f"VM {e.vm} is destroyed",
    ev.CreateVcpu: lambda e, s: (
        f"KVM_CREATE_VCPU for VM {e.vm}, on pCPU {e.pcpu}; guest MAXPHYADDR {e.cpuid.maxphyaddr}"
    ),
    ev.SetMemslot: lambda e, s: _memslot(e),
    ev.DeleteMemslot: lambda e, s: f"memslot {e.slot} of VM {e.vm} is deleted",
    ev.RestoreGuest: lambda e, s: f"a VM is made from memory image {_image(e.image)}, on pCPU {e.pcpu}",
    ev.SetGuestRegisters: lambda e, s: f"KVM_SET_SREGS, vCPU {e.vcpu} of VM {e.vm}: {paging_name(e.registers)}",
    ev.MapGuestPages: lambda e, s: _map(e),
    ev.FillGuestPages: lambda e, s: (
        f"VM {e.vm}'s memory at GPA {plain(e.gpa)} is filled, {size_name(e.size or 8 * len(e.words))}"
    ),
    ev.GuestAccess: _access,
    ev.WriteGuestRegister: lambda e, s: f"{_who(e, s)} writes {plain(e.value)} to {e.name.upper()}",
    ev.InvalidatePage: lambda e, s: f"{_who(e, s)} executes INVLPG {plain(e.address)}",
    ev.LoadNestedKvm: lambda e, s: (
        f"kvm_init of a hypervisor in VM {e.vm}, on vCPU {e.vcpu}; its tables for its guest start at {plain(e.root)}"
    ),
    ev.MapNestedPages: lambda e, s: _map_nested(e),
    ev.MapL2Pages: lambda e, s: _map(e),
    ev.FillL2Pages: lambda e, s: (
        f"the nested guest's memory at L2-physical {plain(e.gpa)} is filled, {size_name(e.size or 8 * len(e.words))}"
    ),
    ev.EnterNested: lambda e, s: _enter(e),
    ev.LeaveNested: lambda e, s: f"the nested guest on vCPU {e.vcpu} of VM {e.vm} exits to its hypervisor",
    ev.InvalidateNested: lambda e, s: f"the hypervisor in VM {e.vm} executes INVEPT, all contexts",
    ev.Populate: lambda e, s: f"KVM_PRE_FAULT_MEMORY over memslot {e.slot} of VM {e.vm}",
    ev.MoveVcpu: lambda e, s: f"vCPU {e.vcpu} of VM {e.vm} moves to pCPU {e.pcpu}",
    ev.ChangeMode: lambda e, s: _change(e),
    ev.ZapGuest: lambda e, s: _zap(e),
    ev.HostMemory: lambda e, s: f"the host: {e.action} of the page behind GPA {plain(e.gpa)} of VM {e.vm}",
    ev.DirtyLogging: lambda e, s: f"dirty logging of memslot {e.slot} of VM {e.vm}: {'on' if e.on else 'off'}",
    ev.FlushTlb: lambda e, s: f"the TLBs of VM {e.vm} are flushed",
}


def said(event: ev.Event, state: State) -> str:
    """``event`` in a few words; ``state`` is the one after it."""
    return SAYINGS[type(event)](event, state)


# --- outcomes in words


def result(effect: Effect, refusal: Refusal | None = None) -> str:
    """What an event came to, in one word or two."""
    if refusal is not None:
        return "refused"
    if effect.livelock is not None:
        return "endless"
    if isinstance(effect.fault, EntryFailure):
        return "entry failed"
    if effect.reflected is not None:
        return "reflected to L1"
    if effect.mmio:
        return "MMIO"
    if effect.emulated is not None and effect.fault is None:
        return "emulation failed" if effect.emulated.failed else "emulated"
    if effect.fault is not None:
        return "fault"
    if effect.exits and not effect.exits[-1].reaction.resumes:
        return effect.exits[-1].reaction.result
    return "fault" if effect.walks and not effect.walks[-1].ok else "done"


def outcome_line(outcome: Outcome) -> str:
    """What a translation came to, on one line, with addresses as kernels print them."""
    return outcome_text(outcome, plain)[0].removeprefix("-> ").replace("   ", ", ")


def reached(walk: Walk) -> str:
    """Where a walk came to, or the fault it ended in, and what it cost."""
    where = "HPA " if walk.second is not None and isinstance(walk.outcome, Translated) else ""
    cost = f"{counted(walk.references, 'reference')} to {counted(walk.cache_lines, 'cache line')}"
    return f"{where}{outcome_line(walk.outcome)}; {cost}"


def _wrong(walk: Walk, state: State, event: ev.GuestAccess) -> str:
    """Where a guest's access should have gone; '' where it did, or where there is nothing to compare with."""
    found = astray(state, event.vm, event.vcpu, walk)
    if found is None:
        return ""
    if found.right is None:
        return "no memory of this guest"
    if walk.second is None or state.is_nested(event.vm, event.vcpu):
        return f"not what the tables that KVM mirrors say, which is HPA {plain(found.right)}"
    return f"not the guest's page of that number, which is HPA {plain(found.right)}"


# --- the section


def events(story: Story) -> Section:
    """Every event with what came of it."""
    entries = tuple(_entry(*step) for step in story)
    blocks: tuple[Block, ...] = (Entries(entries),) if entries else (Paragraph("Nothing happens in it."),)
    return Section("events", "Events", blocks)


def _entry(number: int, event: ev.Event, state: State, refusal: Refusal | None) -> Entry:
    if refusal is not None:
        state = replace(state, effect=Effect())  # that of the event before
        return Entry(number, said(event, state), (Paragraph(f"refused: {refusal.reason}"),), marked=True)
    effect = state.effect
    lines = list(_told(event, state))
    marked = effect.livelock is not None or bool(effect.fault or effect.reflected) or _lost(event, state)
    if isinstance(event, ev.GuestAccess) and effect.livelock is None:
        wrong = [f"that is {where}" for walk in effect.walks if (where := _wrong(walk, state, event))]
        lines += wrong
        marked |= bool(wrong)
    lines += [f"assumed: {what}" for what in effect.assumed]
    blocks: list[Block] = [Paragraph(line) for line in lines]
    if effect.exits:
        blocks.append(exits(effect))
    if effect.reflected is not None:
        blocks.append(reflected(effect.reflected))
    if effect.livelock is not None:
        blocks.append(endless(effect, effect.livelock))
    return Entry(number, said(event, state), tuple(_joined(blocks)), marked)


def _lost(event: ev.Event, state: State) -> bool:
    """Whether the event cost the host the pCPU that it is about."""
    if state.host is None:
        return False
    if isinstance(event, ev.GuestAccess):
        found = state.vcpu(event.vm, event.vcpu)
        return isinstance(found, tuple) and bool(state.host.pcpus[found[1].pcpu].lost)
    return isinstance(event, ev.ChangeMode) and bool(state.host.pcpus[event.pcpu].lost)


def _joined(blocks: list[Block]) -> Iterator[Block]:
    """Sentences that follow one another become a list."""
    sentences: list[str] = []
    for block in [*blocks, None]:
        if isinstance(block, Paragraph):
            sentences.append(block.text)
            continue
        if sentences:
            yield Items(tuple(sentences)) if len(sentences) > 1 else Paragraph(sentences[0])
            sentences = []
        if block is not None:
            yield block


def _told(event: ev.Event, state: State) -> Iterator[str]:
    effect = state.effect
    if isinstance(event, ev.LoadKvm) and state.module is not None:
        forced = state.module.tdp_root_level
        if not state.module.tdp_enabled:
            yield "nested paging is off: KVM mirrors the guest's own tables (shadow paging)"
        yield f"{state.module.kernel.label}: {state.module.kernel.note}"
        yield f"captures max_tdp_level = {state.module.max_tdp_level}, {'forced' if forced else 'not forced'}"
        return
    yield from effect.notes
    if isinstance(event, ev.ChangeMode):
        if effect.walks and effect.fault is None and not _lost(event, state):
            yield "the host goes on there: the next instruction and the stack are reached through the new root"
    elif effect.livelock is None:
        yield from (reached(walk) for walk in effect.walks)
    if effect.fault is not None:
        yield fault_line(effect.fault)
    if effect.reflected is not None:
        yield reflected_line(effect.reflected)
    if effect.mmio:
        yield "MMIO: a device of the VMM gets the access"
    if effect.emulated is not None:
        yield emulated_line(effect.emulated)
    if effect.loaded is not None:
        yield f"loads {plain(effect.loaded)}"
    if not effect.exits:
        yield from (f"{a.function}: {a.did}" for a in effect.actions if a.did not in effect.notes)


def fault_line(fault: EntryFailure | GeneralProtection | PageFault | Unknown) -> str:
    """What an event raised, beside what the walks of hardware did."""
    if isinstance(fault, EntryFailure):
        return f"the guest cannot be entered: {fault.reason}"
    whose = "by KVM's own walk: " if isinstance(fault, PageFault) else ""
    return f"{whose}{outcome_line(fault)}"


def reflected_line(found: Reflected) -> str:
    """What the hypervisor inside the VM gets."""
    return f"{found.name} goes to L1: {outcome_line(found.exit)}"


def reflected(found: Reflected) -> Table:
    rows = tuple(Row((field.name, plain(field.value), field.source)) for field in found.fields)
    return Table(f"{found.name}: what L1 finds", ("field", "value", "where KVM took it from"), rows, frozenset(),
                 frozenset({1}), titled=True)  # fmt: skip


def emulated_line(found: Emulated) -> str:
    if found.failed:
        return "KVM cannot emulate it"
    if found.tracked is None:
        return "KVM emulates it in memory"
    gone = f"{counted(found.tracked.entries, 'SPTE')} dropped"
    if found.tracked.tables:
        gone = f"{counted(found.tracked.tables, 'mirror table')} dropped whole"
    return f"KVM emulates it in memory, in a table that it mirrors: {gone}"


def exits(effect: Effect) -> Table:
    """The exits of an access; of very many, the first ones and the last."""
    shown = list(enumerate(effect.exits, 1))
    left_out = len(shown) - MOST_EXITS
    rows = []
    for number, each in shown:
        if left_out > 0 and number == MOST_EXITS:
            rows.append(Row((f"... {counted(left_out, 'exit')} between ...",)))
        if number < MOST_EXITS or number > len(shown) - 1 or left_out <= 0:
            reason, code, gpa = _exit(each.walk.outcome)
            value = "" if each.reaction.value is None else f" ({each.reaction.value})"
            rows.append(Row((str(number), reason, code, gpa, f"{each.reaction.result}{value}")))
    head = ("exit", "reason", "code", "GPA", "KVM's answer")
    return Table("Exits, and what KVM answered", head, tuple(rows), frozenset({0}), frozenset({2, 3, 4}))


def _exit(outcome: Outcome) -> tuple[str, str, str]:
    match outcome:
        case NestedPageFault():
            return f"#NPF, {outcome.reason.value}", plain(outcome.exitinfo1), plain(outcome.exitinfo2)
        case EptViolation():
            return f"EPT violation, {outcome.reason.value}", plain(outcome.qualification), plain(outcome.gpa)
        case EptMisconfiguration():
            return "EPT misconfiguration", "-", plain(outcome.gpa)
    return outcome_line(outcome), "-", "-"


def endless(effect: Effect, lock: Livelock) -> Fields:
    """The proof that an access never ends, and what one would see of it."""
    again, first = lock.first + lock.period + 1, lock.first + 1
    actions = [action for each in effect.exits[lock.first :] for action in each.reaction.actions]
    return Fields((
        ("endless", f"exit {again} is exit {first} again, and no byte of memory and nothing of KVM but counters has "
         "changed in between"),
        ("KVM's way", "; ".join(dict.fromkeys(f"{a.function}: {a.did}" for a in actions))),
        ("each round", ", ".join(f"{name} +{count}" for name, count in lock.growth.items())),
        ("in a trace", ", ".join(lock.tracepoints)),
    ))  # fmt: skip
