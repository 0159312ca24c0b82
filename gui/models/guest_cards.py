"""What the cards of VMs say: memory, the hypervisor inside, vCPUs, and the nested guests on these. Values only."""

from collections.abc import Collection, Iterator

from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped, size_name
from engine.arch.registers import Mode, Registers, Vendor
from engine.arch.second_stage import Kind2
from engine.host.machine import Host, Pcpu
from engine.kvm import mmu
from engine.kvm.kernels import Kernel
from engine.kvm.memslots import Memslot
from engine.kvm.module import Module
from engine.kvm.role import LEVELS, ROLE_FIELDS, Role, RoleField
from engine.kvm.vm import Mmu, Nested, NestedModule, NestedPaging, Root, Vcpu, Vm
from engine.machine import State
from engine.machine.nested import tables_of_another_mode
from gui.explain import engine_text
from gui.models.card import Card, Face, Row, level_name

translate = QCoreApplication.translate


def vm_cards(state: State, vm: Vm, unfolded: Collection[str]) -> list[Card]:
    """The VM, and in it its hypervisor and its vCPUs, and in these the nested guests that run there."""
    assert state.module is not None
    assert state.host is not None
    made = [vm_card(vm)]
    if vm.nested is not None:
        made.append(hypervisor_card(state, vm, vm.nested))
    for vcpu in vm.vcpus:
        made.append(vcpu_card(state.module, state.host, vm, vcpu, f"vcpu {vm.index} {vcpu.index}" in unfolded))
        if vcpu.nested is not None:
            made.append(nested_card(state, vm, vcpu, vcpu.nested, f"l2 {vm.index} {vcpu.index}" in unfolded))
    return made


# --- VMs


def vm_card(vm: Vm) -> Card:
    """The VM's memory, a row a slot; and what KVM mirrors of it."""
    if vm.slots:
        rows: tuple[Row, ...] = tuple(_slot_row(slot) for slot in vm.slots)
    else:
        rows = (Row((translate("HostCards", "no memory yet"),), Face.PROSE),)
    if vm.dead:
        text = translate("HostCards", "Dead: {reason}").format(reason=engine_text(vm.dead))
        rows = (Row((text,), Face.PROSE, marked=True), *rows)
    text = translate("HostCards", "1 memslot") if len(vm.slots) == 1 else translate("HostCards", "{count} memslots")
    return Card(
        key=f"vm {vm.index}",
        title=_vm_title(vm),
        side=text.format(count=len(vm.slots)) if vm.slots else "",
        rows=(*rows, *_mirrors(vm)),
        hazard=bool(vm.dead),
    )


def _vm_title(vm: Vm) -> str:
    is_l1 = vm.nested is not None or any(vcpu.nested is not None for vcpu in vm.vcpus)
    title = translate("HostCards", "VM {vm} (L1)") if is_l1 else translate("HostCards", "VM {vm}")
    return title.format(vm=vm.index)


def _slot_row(slot: Memslot) -> Row:
    pages = engine_text(slot.backing.pages.value)
    if slot.read_only:
        pages = translate("HostCards", "{pages}, read-only").format(pages=pages)
    tip = translate("HostCards", "Slot {slot}: guest-physical {gpa} is {hva} in the VMM, {placement} in the host.")
    tip = tip.format(
        slot=slot.id, gpa=grouped(slot.gpa), hva=grouped(slot.hva), placement=engine_text(slot.backing.placement.value)
    )
    return Row((grouped(slot.gpa), size_name(slot.size), pages), tip=tip)


def _mirrors(vm: Vm) -> Iterator[Row]:
    """How many tables mirror what, and the statistics that have counted."""
    pages = list(vm.shadow.pages.values())
    counts = (
        (
            translate("HostCards", "mirror tables"),
            sum(page.role.has_gptes for page in pages),
            translate("HostCards", "Tables of KVM's, each of which mirrors one of the guest's."),
        ),
        (
            translate("HostCards", "out of sync"),
            len(vm.shadow.unsync),
            translate("HostCards", "The guest may write what they mirror; they are read again when it flushes."),
        ),
        (
            translate("HostCards", "direct tables"),
            sum(page.role.direct for page in pages),
            translate("HostCards", "Tables with no guest table behind them, such as below a large page."),
        ),
        (
            translate("HostCards", "passthrough"),
            sum(page.role.passthrough for page in pages),
            translate("HostCards", "A level that the hypervisor in the VM does not have."),
        ),
    )
    yield from (Row((name, f"{count:,}"), tip=tip) for name, count, tip in counts if count)
    counted = {name: getattr(vm.stats, name) for name in vm.stats.__struct_fields__ if getattr(vm.stats, name)}
    yield from (Row((name, f"{count:,}")) for name, count in counted.items())


# --- the hypervisor inside


def hypervisor_card(state: State, vm: Vm, module: NestedModule) -> Card:
    """What it captured at its kvm_init beside the mode that its vCPU is in now."""
    vcpu = vm.vcpus[module.vcpu]
    l1 = vcpu.nested.l1 if vcpu.nested is not None else vcpu.registers
    other = tables_of_another_mode(state, vm, vcpu)
    now = engine_text(l1.mode.value)
    if module.kind is Kind2.EPT or now == engine_text(module.captured):
        now = translate("HostCards", "same")
    tip = translate(
        "HostCards",
        "It builds its guest's tables in the format that it captured at its kvm_init. On AMD L0 reads them in the mode "
        "that L1 is in at VMRUN; on Intel EPTP says how deep they are.",
    )
    head = Row(("", translate("HostCards", "captured"), translate("HostCards", "now")), Face.HEAD)
    captured = Row(
        (translate("HostCards", "its tables"), engine_text(module.captured), now), marked=other is not None, tip=tip
    )
    rows = [head, captured, Row((translate("HostCards", "root"), grouped(module.root)))]
    if other is not None:
        text = translate("HostCards", "Built as {built}, read as {read} at VMRUN: nothing checks it.")
        rows.insert(0, Row((text.format(built=other[0], read=other[1]),), Face.PROSE, marked=True))
    return Card(
        key=f"l1 {vm.index}",
        title=translate("HostCards", "Hypervisor"),
        side=translate("HostCards", "vCPU {vcpu}").format(vcpu=module.vcpu),
        rows=tuple(rows),
        hazard=other is not None,
        depth=1,
    )


# --- vCPUs


def vcpu_card(module: Module, host: Host, vm: Vm, vcpu: Vcpu, unfolded: bool) -> Card:
    """Its MMU, the guest's own mode, and the counters that have counted. While a nested guest runs: those of L1."""
    pcpu, shown = host.pcpus[vcpu.pcpu], _root_mmu(vcpu)
    own = vcpu.nested.l1 if vcpu.nested is not None else vcpu.registers
    level = vcpu.role.level if shown is None else shown.role.level
    rows = [Row((_guest_mode(own, vcpu),), Face.PROSE)]
    if shown is None:
        rows.append(Row((translate("HostCards", "The nested guest runs on its MMU."),), Face.PROSE))
    else:
        rows += _mmu_rows(module, pcpu, shown, LEVELS[own.mode])
        rows += _role_rows(module.kernel, shown.role, unfolded)
    counted = {n: getattr(vcpu.counters, n) for n in vcpu.counters.__struct_fields__ if getattr(vcpu.counters, n)}
    rows += [Row((name, f"{count:,}")) for name, count in counted.items()]
    return Card(
        key=f"vcpu {vm.index} {vcpu.index}",
        title=translate("HostCards", "vCPU {vcpu}").format(vcpu=vcpu.index),
        chip=(level, level_name(level)),
        side=translate("HostCards", "pCPU {pcpu}").format(pcpu=vcpu.pcpu),
        rows=tuple(rows),
        fold="" if shown is None else _role_fold(unfolded),
        unfolded=unfolded,
        hazard=shown is not None and _is_stale(module, pcpu, shown.role),
        depth=1,
    )


def _root_mmu(vcpu: Vcpu) -> Mmu | None:
    """The vCPU's own MMU, which waits while a nested guest runs on guest_mmu; None where that runs on root_mmu too."""
    if vcpu.nested is None:
        return vcpu.mmu
    return None if vcpu.nested.paging is NestedPaging.NONE else vcpu.parked


def _guest_mode(registers: Registers, vcpu: Vcpu) -> str:
    if registers.mode is Mode.NONE:
        text = translate("HostCards", "guest without paging, MAXPHYADDR {bits}")
    else:
        text = translate("HostCards", "guest: {mode} paging, MAXPHYADDR {bits}")
    if vcpu.nested is not None:
        text = translate("HostCards", "L1 at its entry: {mode} paging, MAXPHYADDR {bits}")
    return text.format(mode=engine_text(registers.mode.value), bits=vcpu.cpuid.maxphyaddr)


# --- nested guests


def nested_card(state: State, vm: Vm, vcpu: Vcpu, nested: Nested, unfolded: bool) -> Card:
    """The nested guest: its mode, the tables of L1 that it runs on, and those of L0 that mirror them."""
    assert state.module is not None
    assert state.host is not None
    module, pcpu, level = state.module, state.host.pcpus[vcpu.pcpu], vcpu.role.level
    second = state.l1_stage(vcpu)
    mode = vcpu.registers.mode
    text = translate("HostCards", "nested guest: {mode} paging")
    if mode is Mode.NONE:
        text = translate("HostCards", "nested guest without paging")
    rows = [Row((text.format(mode=engine_text(mode.value)),), Face.PROSE)]
    other = tables_of_another_mode(state, vm, vcpu)
    guest_level = LEVELS[mode]
    if second is None:
        text = translate("HostCards", "L1 uses no nested paging: what L2 runs on is a table of L1's.")
        rows.append(Row((text,), Face.PROSE))
    else:
        guest_level = LEVELS[second.paging.mode]
        name = {
            NestedPaging.NPT: translate("HostCards", "L1's nCR3"), NestedPaging.EPT: translate("HostCards", "L1's EPTP")
        }[nested.paging]  # fmt: skip
        rows.append(Row((name, grouped(nested.root))))
        tip = translate("HostCards", "On AMD this is the mode that L1 was in at VMRUN; on Intel EPTP says it.")
        rows.append(Row((translate("HostCards", "read as"), second.name), marked=other is not None, tip=tip))
    rows += _mmu_rows(module, pcpu, vcpu.mmu, guest_level)
    rows += _role_rows(module.kernel, vcpu.role, unfolded)
    stale = _is_stale(module, pcpu, vcpu.role)
    return Card(
        key=f"l2 {vm.index} {vcpu.index}",
        title=translate("HostCards", "L2"),
        chip=(level, level_name(level)),
        side=translate("HostCards", "vCPU {vcpu}").format(vcpu=vcpu.index),
        rows=tuple(rows),
        fold=_role_fold(unfolded),
        unfolded=unfolded,
        hazard=stale or other is not None,
        depth=2,
    )


# --- MMUs


def _is_stale(module: Module, pcpu: Pcpu, role: Role) -> bool:
    """AMD: the hardware walks nested tables as deep as its own mode is, however deep they are."""
    walks = module.vendor is Vendor.AMD and module.tdp_enabled and pcpu.online and not pcpu.lost
    return walks and role.level != pcpu.levels


def _mmu_rows(module: Module, pcpu: Pcpu, shown: Mmu, guest_level: int) -> Iterator[Row]:
    """The root with its register, its depth, the special roots, and the roots that are kept for later.

    ``guest_level``: of what is mirrored, 0 where nothing is.
    """
    if shown.root is None:
        missing = translate("HostCards", "no tables of KVM's before its first access")
        yield Row((missing,), Face.PROSE)
    else:
        yield Row(_root_cells(module, shown.root))
    stale = _is_stale(module, pcpu, shown.role)
    depth = translate("HostCards", "{built}, walked as {walked}") if stale else "{built}"
    name = translate("HostCards", "TDP level") if module.tdp_enabled else translate("HostCards", "shadow level")
    yield Row((name, depth.format(built=shown.role.level, walked=pcpu.levels)), marked=stale)
    if not shown.role.direct:
        tip = translate("HostCards", "How deep the tables are that are mirrored: the guest's, or L1's for its guest.")
        yield Row((translate("HostCards", "mirrored level"), str(guest_level)), tip=tip)
    if shown.role.passthrough:
        tip = translate(
            "HostCards", "The top table has one entry and mirrors nothing: L0 needs a level that L1 has not."
        )
        yield Row((translate("HostCards", "passthrough"), translate("HostCards", "the root")), tip=tip)
    special = translate("HostCards", "A table above PAE directories; it belongs to the MMU and mirrors nothing.")
    for field in reversed(shown.special.__struct_fields__):
        at = getattr(shown.special, field)
        if at:
            yield Row((field, grouped(at)), tip=special)
    for root in shown.previous:
        tip = translate("HostCards", "KVM keeps three roots beside the one in use; this one mirrors {pgd}.")
        yield Row((translate("HostCards", "kept root"), grouped(root.hpa)), tip=tip.format(pgd=grouped(root.pgd)))


def _root_cells(module: Module, root: Root) -> tuple[str, str]:
    if not module.tdp_enabled:
        return translate("HostCards", "CR3 in use"), grouped(root.hpa)
    name, value = mmu.root_register(module, root)
    return name, grouped(value)


def _role_rows(kernel: Kernel, role: Role, unfolded: bool) -> Iterator[Row]:
    """The role word; unfolded, each of its fields."""
    yield Row((translate("HostCards", "role"), f"{role.word:#x}"))
    if not unfolded:
        return
    bits = translate("HostCards", "bits")
    yield Row((translate("HostCards", "field"), bits, translate("HostCards", "is")), Face.HEAD)
    for field in ROLE_FIELDS:
        value = role.word >> field.lo & (1 << field.hi - field.lo + 1) - 1
        place = str(field.lo) if field.hi == field.lo else f"{field.hi}:{field.lo}"
        said = str(value) if value < 10 else f"{value:#x}"
        yield Row((_field_name(kernel, field), place, said), tip=_field_tip(field))


def _field_name(kernel: Kernel, field: RoleField) -> str:
    """KVM's own name; that of bit 4 has changed with its meaning."""
    if field.name != "bit4":
        return field.name
    return "gpte_is_8_bytes" if kernel.role_bit4 else "has_4_byte_gpte"


def _field_tip(field: RoleField) -> str:
    text = engine_text(field.means)
    return f"{text[0].upper()}{text[1:]}."


def _role_fold(unfolded: bool) -> str:
    return translate("HostCards", "Role word only") if unfolded else translate("HostCards", "Role bit by bit")
