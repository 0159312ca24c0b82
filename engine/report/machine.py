"""The machine of a report: pCPUs, VMs and images, and what kvm_init captured beside what there is now."""

from collections.abc import Iterator

from engine import events as ev
from engine.arch.addresses import plain, size_name
from engine.arch.registers import Vendor
from engine.host.machine import Host, Pcpu
from engine.kvm import mmu
from engine.kvm.module import Captured, Module, actual, would_capture
from engine.kvm.vm import Vcpu, Vm
from engine.machine import State
from engine.machine.nested import tables_of_another_mode
from engine.report.events import paging_name
from engine.report.model import Block, Fields, Items, Paragraph, Row, Section, Table
from engine.report.story import Story

Values = dict[str, int | str | bool]
FEW = 4
"""pCPUs that are told of one by one."""


def machine(story: Story) -> Section:
    """What there is after the last event, and how it was at boot."""
    state = story.states[-1]
    if state.host is not None:
        booted = next(s.host for s in story.states if s.host is not None)
        blocks = list(_host(booted, state.host, story))
        blocks += [block for vm in state.vms if vm is not None for block in _vm(state, vm)]
    elif state.image is not None:
        blocks = [_image(state)]
    else:
        blocks = [Paragraph("There is neither a host nor a memory image in it.")]
    return Section("machine", "Machine", tuple(blocks))


def _image(state: State) -> Fields:
    image = state.image
    assert image is not None
    rows = [("image", f"{image.path.rsplit('/', 1)[-1]}: {image.format}, {size_name(image.size)}")]
    if state.cpu is not None:
        rows.append(("registers", f"those of CPU {state.cpu} of the image"))
    rows.append(("paging", paging_name(state.registers)))
    registers = state.registers
    values = ", ".join(f"{name.upper()} {plain(getattr(registers, name))}" for name in ("cr0", "cr4", "efer"))
    rows.append(("", f"{values}, CPL {registers.cpl}, MAXPHYADDR {state.features.maxphyaddr}"))
    if state.second is not None:
        rows.append(("second stage", f"{state.second.name}, root {plain(state.second.paging.root)}"))
    return Fields(tuple(rows))


def _host(booted: Host, host: Host, story: Story) -> Iterator[Block]:
    boot = next(event for event in story.events if isinstance(event, ev.BootHost))
    size = sum(end - start for start, end in host.frames.ram)
    yield Fields((
        ("host", f"{vendor_name(host.vendor)}, {size_name(size)} of RAM, frame allocator seed {boot.seed}"),
        ("kernel", f"booted with {booted.levels}-level paging: pgtable_l5_enabled() is "
         f"{'true' if booted.levels == 5 else 'false'}"),
    ))  # fmt: skip
    head = ("pCPU", "can do LA57", "MAXPHYADDR", "CR4 at boot", "CR4 at the end")
    rows = tuple(_pcpu(before, pcpu) for before, pcpu in zip(booted.pcpus, host.pcpus, strict=True))
    yield Table("pCPUs at boot and after the last step", head, rows, frozenset({0}), titled=True)


def vendor_name(vendor: Vendor) -> str:
    return "AMD" if vendor is Vendor.AMD else "Intel"


def _pcpu(before: Pcpu, pcpu: Pcpu) -> Row:
    has = "yes" if pcpu.features.la57 else "no"
    then, now = (f"LA57 = {int(one.la57)}" if one.online else "offline" for one in (before, pcpu))
    if pcpu.lost:
        now += ", lost"
    return Row((str(pcpu.index), has, str(pcpu.features.maxphyaddr), then, now), marked=then != now)


def _vm(state: State, vm: Vm) -> Iterator[Block]:
    assert state.module is not None
    slots = tuple(
        Row((str(s.id), plain(s.gpa), size_name(s.size), f"{s.backing.pages.value}{', read-only' * s.read_only}"))
        for s in vm.slots
    )
    if vm.dead:
        yield Paragraph(f"VM {vm.index} hangs: {vm.dead}")
    if slots:
        head = ("slot", "GPA", "size", "pages")
        yield Table(f"Memslots of VM {vm.index}", head, slots, frozenset({0}), frozenset({1}), titled=True)
    if vm.vcpus:
        rows = tuple(_vcpu(state, state.module, vcpu) for vcpu in vm.vcpus)
        names = ("vCPU", "on pCPU", "its root", "KVM's level", "walked as", "the guest's own paging")
        yield Table(f"vCPUs of VM {vm.index}", names, rows, frozenset({0, 1}), frozenset({2}), titled=True)
    nested = tuple(_nested(state, vm))
    if nested:
        yield Items(nested)


def _nested(state: State, vm: Vm) -> Iterator[str]:
    """What KVM mirrors, the hypervisor inside the VM, and the nested guests that run."""
    pages = list(vm.shadow.pages.values())
    if pages:
        mirrors = sum(page.role.has_gptes for page in pages)
        late = len(vm.shadow.unsync)
        yield f"{len(pages)} tables of KVM's, of which {mirrors} mirror guest tables, {late} out of sync"
    module = vm.nested
    if module is not None:
        other = tables_of_another_mode(state, vm, vm.vcpus[module.vcpu])
        read = f"; they are read as {other[1]} now" if other is not None else ""
        made = f"{module.captured} {module.kind.value} tables from L1-physical {plain(module.root)} on"
        yield f"a hypervisor in it, loaded on vCPU {module.vcpu}, builds {made}{read}"
    for vcpu in vm.vcpus:
        second = state.l1_stage(vcpu)
        if vcpu.nested is not None:
            through = "without nested paging of L1's"
            if second is not None:
                through = f"through L1's {second.name}, root {plain(second.paging.root)}, which L0 mirrors"
            yield f"vCPU {vcpu.index} runs a nested guest, {paging_name(vcpu.registers)}, {through}"


def _vcpu(state: State, module: Module, vcpu: Vcpu) -> Row:
    assert state.host is not None
    pcpu = state.host.pcpus[vcpu.pcpu]
    root = "none yet" if vcpu.root is None else " ".join(_root(module, vcpu))
    second = None if pcpu.lost else state.second_stage(vcpu)
    paging = getattr(second, "paging", None)
    walked = str(len(paging.levels)) if paging is not None else "-"
    cells = (str(vcpu.index), str(vcpu.pcpu), root, str(vcpu.role.level), walked, paging_name(vcpu.registers))
    return Row(cells, marked=walked not in ("-", cells[3]))


def _root(module: Module, vcpu: Vcpu) -> tuple[str, str]:
    assert vcpu.root is not None
    if not module.tdp_enabled:
        return "CR3", plain(vcpu.root.hpa)
    name, value = mmu.root_register(module, vcpu.root)
    return name, plain(value)


# --- what was captured


def captured(story: Story) -> Section | None:
    """Each value that kvm_init captured, beside what it would capture at the end, and what hardware goes by then."""
    states = [state for state in story.states if state.module is not None]
    if not states:
        return None
    state = states[-1]
    assert state.module is not None
    assert state.host is not None
    module, host = state.module, state.host
    again = would_capture(module, host, module.pcpu)
    hardware = [actual(module, host, p.index) for p in host.pcpus if p.online and not p.lost]
    head = ("value", "captured", "again now", "hardware")
    rows = tuple(_row(each, again, hardware) for each in module.captured)
    where = "after the last step" if state is story.states[-1] else "at the last step that has KVM"
    blocks = (
        Fields((("version", f"{module.kernel.label}, {module.kernel.released}: {module.kernel.note}"),
                ("loaded on", f"pCPU {module.pcpu}"))),
        Paragraph(f"Beside each value: what the same module would capture if it were loaded {where}, and what the "
                  "hardware really goes by then; pCPU by pCPU where they differ."),
        Table("What kvm_init captured", head, rows, code=frozenset({0, 1, 2, 3})),
        Paragraph("Who captured them, when and where, and what could change them:"),
        Items(tuple(_origins(module.captured))),
    )  # fmt: skip
    return Section("captured", "What kvm_init captured", blocks)


def _row(each: Captured, again: Values, hardware: list[Values]) -> Row:
    values = [found[each.name] for found in hardware if each.name in found]
    now = value_text(again[each.name]) if each.name in again else "-"
    differs = any(value != each.value for value in (*values, again.get(each.name, each.value)))
    return Row((each.name, value_text(each.value), now, _goes_by(values)), marked=differs)


def _goes_by(values: list[int | str | bool]) -> str:
    """ "4", "4 | 5" of two pCPUs that differ, "4 x7 | 5 x1" of many."""
    said = [value_text(value) for value in values]
    if len(set(said)) <= 1:
        return said[0] if said else "-"
    if len(said) <= FEW:
        return " | ".join(said)
    return " | ".join(f"{value} x{said.count(value)}" for value in sorted(set(said)))


def value_text(value: int | str | bool) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _origins(every: tuple[Captured, ...]) -> Iterator[str]:
    """The values by what they have in common: function, moment, pCPU, and what could change them."""
    groups: dict[tuple[str, str, int, str], list[str]] = {}
    for each in every:
        groups.setdefault((each.function, each.when, each.pcpu, each.depends), []).append(each.name)
    for (function, when, pcpu, depends), names in groups.items():
        moment = "" if function == when else f", at {when} on pCPU {pcpu}"
        changes = depends.replace("nothing", "nothing changes it", 1) if depends.startswith("nothing") else ""
        yield f"{', '.join(names)}: {function}{moment}; {changes or f'changes with {depends}'}"
