"""Events on the host, on KVM and on its VMs, but for a guest's access (`access`)."""

from collections.abc import Callable
from itertools import cycle, islice

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS
from engine.arch.formats import LEGACY, LEVEL4, LEVEL5, PAE, Format
from engine.arch.registers import Vendor
from engine.errors import InputError
from engine.host import mm
from engine.host.frames import Owner, Use
from engine.host.machine import boot
from engine.host.mm import HostPage, Placement
from engine.host.modes import WAYS, Root, cannot, change_mode
from engine.host.world import World
from engine.kvm import mmu
from engine.kvm.kernels import KERNELS
from engine.kvm.memslots import Memslot, Space, check_slot, fault_in, find, hva_for
from engine.kvm.module import Refused, kvm_init
from engine.kvm.populate import populate
from engine.kvm.vm import RESET, Vcpu, Vm
from engine.machine.access import guest_access, loaded
from engine.machine.state import NOTHING, Effect, Images, Refusal, State
from engine.memory.tables import Range, map_ranges

MAX_PCPUS = 8
MAX_RAM = 1 << 46
FORMATS: dict[str, Format] = {fmt.name: fmt for fmt in (LEGACY, PAE, LEVEL4, LEVEL5)}

Result = State | Refusal


def _world(state: State) -> World:
    assert state.host is not None
    return World(state.memory, state.host.frames)


def _space(state: State) -> Space:
    assert state.host is not None
    return Space(state.host.levels, state.host.root)


def _after(state: State, world: World, *, vm: Vm | None = None, effect: Effect = NOTHING) -> State:
    state = state.with_vm(vm) if vm else state
    assert state.host is not None
    host = msgspec.structs.replace(state.host, frames=world.frames)
    return msgspec.structs.replace(state, memory=world.memory, host=host, effect=effect)


def _notes(*notes: str, assumed: tuple[str, ...] = ()) -> Effect:
    return Effect(notes=notes, assumed=assumed)


def _boot(state: State, event: ev.BootHost, images: Images) -> Result:
    if state.host is not None or state.image is not None:
        return Refusal("A scenario has one host, and no image beside it: this one has begun already.")
    if not 1 <= len(event.pcpus) <= MAX_PCPUS:
        return Refusal(f"A host has 1 to {MAX_PCPUS} pCPUs.")
    if len({p.features.vendor for p in event.pcpus}) > 1:
        return Refusal("All pCPUs of a host are of one vendor.")
    if event.ram_size % (2 << 20) or not 64 << 20 <= event.ram_size <= MAX_RAM:
        return Refusal("RAM is a multiple of 2 MiB, from 64 MiB to 64 TiB.")
    smallest = min(p.features.maxphyaddr for p in event.pcpus)
    if event.ram_size > 1 << smallest:
        return Refusal(f"A pCPU with MAXPHYADDR {smallest} cannot reach so much RAM.")
    host, memory = boot(event.pcpus, event.five_level, ((0, event.ram_size),), event.seed)
    notes = [f"the kernel runs with {host.levels}-level paging"]
    if event.five_level and host.levels == 4:
        notes.append("a pCPU lacks LA57, so the kernel stays with 4 levels")
    return msgspec.structs.replace(state, host=host, memory=memory, effect=_notes(*notes))


def _load_kvm(state: State, event: ev.LoadKvm, images: Images) -> Result:
    assert state.host is not None
    kernel = KERNELS.get(event.kernel)
    if kernel is None:
        return Refusal(f"There is no kernel “{event.kernel}”: choose one of {', '.join(KERNELS)}.")
    if state.module is not None:
        return Refusal("KVM is loaded already: unload it first.")
    if event.pcpu >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {event.pcpu}.")
    module = kvm_init(state.host, kernel, event.parameters, event.pcpu)
    if isinstance(module, Refused):
        return Refusal(f"kvm_init refuses: {module.reason}")
    level = f"captures max TDP level {module.max_tdp_level}"
    forced = f"forces level {module.tdp_root_level}" if module.tdp_root_level else "forces no level"
    return msgspec.structs.replace(state, module=module, effect=_notes(level, forced))


def _unload_kvm(state: State, event: ev.UnloadKvm, images: Images) -> Result:
    if any(vm is not None for vm in state.vms):
        return Refusal("KVM is in use: destroy its VMs first.")
    return msgspec.structs.replace(state, module=None, vms=())


def _create_vm(state: State, event: ev.CreateVm, images: Images) -> Result:
    return msgspec.structs.replace(state, vms=(*state.vms, Vm(index=len(state.vms))))


def _destroy_vm(state: State, event: ev.DestroyVm, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    assert state.module is not None
    world = _world(state)
    tables = sum(mmu.free_root(world, state.module, root) for root in vm.roots)
    for slot in vm.slots:
        _release(state, world, slot)
    after = _after(state, world, effect=_notes(f"{tables} tables of KVM and the VM's memory are given back"))
    return msgspec.structs.replace(after, vms=tuple(None if v is vm else v for v in state.vms))


def _release(state: State, world: World, slot: Memslot) -> None:
    """The VMM unmaps a slot's memory; the host gives its frames back."""
    assert state.host is not None
    space, hva = _space(state), slot.hva
    while hva < slot.hva + slot.size:
        page = mm.clear_page(world, space.levels, space.root, hva)
        if page is None:
            hva += 4096
            continue
        if slot.backing.placement is Placement.SCATTERED:
            for at in range(page.hpa, page.hpa + page.size, 4096):
                world.free(at)
        hva = page.hva + page.size
    if slot.backing.placement is Placement.CONTIGUOUS:
        for at in range(slot.backing.at, slot.backing.at + slot.size, 4096):
            world.free(at)


def _create_vcpu(state: State, event: ev.CreateVcpu, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    assert state.host is not None
    if event.pcpu >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {event.pcpu}.")
    hardware = state.host.pcpus[event.pcpu].features
    if event.cpuid.maxphyaddr > hardware.maxphyaddr:
        return Refusal(f"The guest's MAXPHYADDR {event.cpuid.maxphyaddr} is above the host's {hardware.maxphyaddr}.")
    vcpu = Vcpu(index=len(vm.vcpus), pcpu=event.pcpu, cpuid=event.cpuid, registers=RESET)
    return state.with_vm(msgspec.structs.replace(vm, vcpus=(*vm.vcpus, vcpu)))


def _set_memslot(state: State, event: ev.SetMemslot, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    assert state.host is not None
    try:
        image = images(event.image) if event.image else None
        number = max((slot.id for slot in vm.slots), default=-1) + 1
        hva = hva_for(tuple(s for v in state.vms if v is not None for s in v.slots), event.size)
        slot = Memslot(
            id=number, gpa=event.gpa, size=event.size, hva=hva + event.gpa % (1 << 30), backing=event.backing,
            read_only=event.read_only, image=image,
        )  # fmt: skip
        refused = check_slot(vm.slots, slot, state.host.pcpus[0].features.maxphyaddr)
        if refused:
            return Refusal(refused)
        world = _world(state)
        if event.backing.placement is Placement.CONTIGUOUS:
            owner = Owner(Use.GUEST_PAGE, vm=vm.index, gfn=event.gpa >> FRAME_BITS)
            world.frames = world.frames.reserve(event.backing.at, event.size, owner)
    except InputError as error:
        return Refusal(str(error))
    vm = msgspec.structs.replace(vm, slots=(*vm.slots, slot), generation=vm.generation + 2)
    return _after(state, world, vm=vm)


def _delete_memslot(state: State, event: ev.DeleteMemslot, images: Images) -> Result:
    found = _slot(state, event.vm, event.slot)
    if isinstance(found, Refusal):
        return found
    vm, slot = found
    assert state.module is not None
    world = _world(state)
    zapped = mmu.zap(world, state.module, vm, slot.gpa, slot.gpa + slot.size)
    _release(state, world, slot)
    slots = tuple(s for s in vm.slots if s is not slot)
    vm = msgspec.structs.replace(vm, slots=slots, generation=vm.generation + 2)
    return _after(state, world, vm=vm, effect=_notes(f"{zapped} SPTEs are zapped"))


def _slot(state: State, vm: int, slot: int) -> tuple[Vm, Memslot] | Refusal:
    found = state.vm(vm)
    if isinstance(found, Refusal):
        return found
    wanted = next((s for s in found.slots if s.id == slot), None)
    return (found, wanted) if wanted else Refusal(f"VM {vm} has no memslot {slot}.")


def _set_registers(state: State, event: ev.SetGuestRegisters, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    if event.registers.mode.value == "5-level" and not vcpu.cpuid.la57:
        return Refusal("The guest's CPUID has no LA57, so KVM_SET_SREGS refuses CR4.LA57.")
    return state.with_vm(vm.with_vcpu(msgspec.structs.replace(vcpu, registers=event.registers)))


def _place(state: State, world: World, vm: Vm) -> Callable[[int], int]:
    """GPA -> HPA as the VMM reaches guest memory: memslot, HVA, the host's page table. No nested walk."""
    space = _space(state)

    def place(gpa: int) -> int:
        slot = find(vm.slots, gpa)
        if slot is None:
            raise InputError(f"No memslot holds guest-physical {gpa:#x}: the VMM has no memory there to write.")
        page = fault_in(world, space, vm.index, slot, gpa)
        return page.hpa + slot.to_hva(gpa) - page.hva

    return place


def _map_guest(state: State, event: ev.MapGuestPages, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    world, fmt = _world(state), FORMATS[event.mode]
    wanted = Range(
        address=event.address, target=event.target, size=event.size, page_size=event.page_size, write=event.write,
        user=event.user, execute=event.execute, key=event.key,
    )  # fmt: skip
    place = _place(state, world, vm)

    try:
        # Touching guest memory for the first time changes the host's tables: a first build brings in what it touches.
        for _ in range(2):
            tables = _empty_frames(world, place, event.tables)
            built = map_ranges(world.memory, fmt, event.root, [wanted], tables, place)
        world.memory = built
    except InputError as error:
        return Refusal(str(error))
    return _after(state, world)


def _empty_frames(world: World, place: Callable[[int], int], first: int) -> Callable[[], int]:
    """Guest frames for new tables, from GPA ``first`` up. Raises InputError where one holds something."""
    following = iter(range(first, 1 << 52, 4096))

    def allocate() -> int:
        gpa = next(following)
        frame = world.memory.frame(place(gpa) >> FRAME_BITS)
        if frame is None or any(frame):
            raise InputError(f"Guest frame {gpa:#x}, where a new table would go, is not empty: name another place.")
        return gpa

    return allocate


def _fill_guest(state: State, event: ev.FillGuestPages, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    size = event.size or 8 * len(event.words)
    if event.gpa % 8 or size % 8 or not event.words:
        return Refusal("Data is written in words of 8 bytes at a multiple of 8.")
    if size > 256 << 20:
        return Refusal("At most 256 MiB are filled by one event.")
    world = _world(state)
    place = _place(state, world, vm)
    words = islice(cycle(event.words), size // 8)
    try:
        at, end = event.gpa, event.gpa + size
        while at < end:
            length = min(4096 - at % 4096, end - at)
            data = b"".join(word.to_bytes(8, "little") for word in islice(words, length // 8))
            hpa = place(at)
            world.memory = world.memory.write(hpa, data)
            at += length
    except InputError as error:
        return Refusal(str(error))
    return _after(state, world)


def _populate(state: State, event: ev.Populate, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    state = loaded(state, *found)
    chosen = _slot(state, event.vm, event.slot)
    if isinstance(chosen, Refusal):
        return chosen
    assert state.module is not None
    vm, slot = chosen
    world = _world(state)
    try:
        done = populate(world, state.module, _space(state), vm, vm.vcpus[event.vcpu], slot)
    except InputError as error:
        return Refusal(str(error))
    note = f"{done.faults} faults, {done.filled} further pages like them"
    return _after(state, world, vm=done.vm.with_vcpu(done.vcpu), effect=_notes(note))


def _move_vcpu(state: State, event: ev.MoveVcpu, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.host is not None
    if event.pcpu >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {event.pcpu}.")
    pcpu = state.host.pcpus[event.pcpu]
    if pcpu.lost or not pcpu.online:
        return Refusal(f"pCPU {event.pcpu} is {'lost' if pcpu.lost else 'offline'}: nothing can run there.")
    how = "a new ASID; nCR3 stays" if state.host.vendor is Vendor.AMD else "VMCLEAR, VMPTRLD; the EPTP stays"
    after = state.with_vm(vm.with_vcpu(msgspec.structs.replace(vcpu, pcpu=event.pcpu)))
    return msgspec.structs.replace(after, effect=_notes(how))


def _change_mode(state: State, event: ev.ChangeMode, images: Images) -> Result:
    assert state.host is not None
    if event.pcpu >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {event.pcpu}.")
    busy = any(v.pcpu == event.pcpu for vm in state.vms if vm for v in vm.vcpus)
    refused = cannot(state.host, event.pcpu, event.way, event.la57, busy)
    if refused:
        return Refusal(refused)
    changed = change_mode(state.host, state.memory, event.pcpu, event.way, event.la57, event.root)
    rule = WAYS[event.way]
    notes = [f"pCPU {p.index} is lost: {p.lost}" for p in changed.host.pcpus if p.lost]
    assumed = []
    if changed.fault is None:
        if event.root is Root.REBUILT:
            assumed.append("root: the host has tables of the new depth at hand, mapping the same")
        if rule.basis.ground.value == "assumption":
            assumed.append(rule.basis.reference)
    effect = Effect(walks=changed.walks, fault=changed.fault, notes=tuple(notes), assumed=tuple(assumed))
    after = msgspec.structs.replace(state, host=changed.host, memory=changed.memory, effect=effect)
    if rule.keeps_kvm:
        return after
    gone = msgspec.structs.replace(effect, notes=(*notes, "KVM and its VMs are gone with the old kernel"))
    return msgspec.structs.replace(after, module=None, vms=(), effect=gone)


def _zap(state: State, event: ev.ZapGuest, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    assert state.module is not None
    world = _world(state)
    end = event.gpa + event.size if event.size else 1 << 52
    count = mmu.zap(world, state.module, vm, event.gpa, end)
    return _after(state, world, effect=_notes(f"{count} SPTEs are zapped"))


def _host_memory(state: State, event: ev.HostMemory, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    slot = find(vm.slots, event.gpa)
    if slot is None:
        return Refusal(f"No memslot holds guest-physical {event.gpa:#x}.")
    if slot.backing.placement is Placement.CONTIGUOUS:
        return Refusal("This slot's memory is pinned where it is: only scattered memory can be moved.")
    assert state.module is not None
    world, space = _world(state), _space(state)
    try:
        change = {"move": _move_page, "unmap": _unmap_page, "collapse": _collapse_pages}[event.action]
        gpa, size, note = change(world, space, vm, slot, event.gpa)
    except InputError as error:
        return Refusal(str(error))
    count = mmu.zap(world, state.module, vm, gpa, gpa + size)
    return _after(state, world, effect=_notes(note, f"mmu_notifier: {count} SPTEs are zapped"))


Moved = tuple[int, int, str]
"""GPA and bytes of what the host changed, and a sentence about it."""


def _mapped(world: World, space: Space, slot: Memslot, gpa: int) -> HostPage:
    page = mm.lookup(world.memory, space.levels, space.root, slot.to_hva(gpa))
    if page is None:
        raise InputError(f"The host has no page behind guest-physical {gpa:#x} yet.")
    return page


def _move_page(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Moved:
    """Page migration: another frame with the same content, and the VMM's page table says so."""
    page = _mapped(world, space, slot, gpa)
    start = slot.to_gpa(page.hva)
    owner = Owner(Use.GUEST_PAGE, vm=vm.index, gfn=start >> FRAME_BITS)
    small = page.size == 4096
    hpa = world.allocate(owner) if small else world.allocate_block(page.size, owner)
    _copy(world, page.hpa, hpa, page.size)
    mm.clear_page(world, space.levels, space.root, page.hva)
    mm.map_page(world, space.levels, space.root, msgspec.structs.replace(page, hpa=hpa))
    _give_back(world, page)
    return start, page.size, f"HVA {page.hva:#x} moves from HPA {page.hpa:#x} to {hpa:#x}"


def _unmap_page(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Moved:
    """MADV_DONTNEED: the content is lost; the next touch brings in a zero page."""
    page = _mapped(world, space, slot, gpa)
    mm.clear_page(world, space.levels, space.root, page.hva)
    _give_back(world, page)
    return slot.to_gpa(page.hva), page.size, f"HVA {page.hva:#x} is unmapped"


def _collapse_pages(world: World, space: Space, vm: Vm, slot: Memslot, gpa: int) -> Moved:
    """khugepaged: 512 small pages become one of 2 MiB."""
    large = 2 << 20
    hva = slot.to_hva(gpa) & ~(large - 1)
    if hva < slot.hva or hva + large > slot.hva + slot.size:
        raise InputError("The slot does not hold the whole 2 MiB around this address.")
    old = [mm.lookup(world.memory, space.levels, space.root, at) for at in range(hva, hva + large, 4096)]
    if any(page is not None and page.size > 4096 for page in old):
        raise InputError("A large page is mapped here already.")
    start = slot.to_gpa(hva)
    hpa = world.allocate_block(large, Owner(Use.GUEST_PAGE, vm=vm.index, gfn=start >> FRAME_BITS))
    for n, page in enumerate(old):
        if page is not None:
            _copy(world, page.hpa, hpa + n * 4096, 4096)
            mm.clear_page(world, space.levels, space.root, page.hva)
            _give_back(world, page)
    mm.drop_table(world, space.levels, space.root, hva)
    page = HostPage(hva=hva, hpa=hpa, size=large, write=True, user=True, execute=False)
    mm.map_page(world, space.levels, space.root, page)
    return start, large, f"HVA {hva:#x}: 2 MiB collapse into one page at HPA {hpa:#x}"


def _copy(world: World, source: int, target: int, size: int) -> None:
    for offset in range(0, size, 4096):
        frame = world.memory.frame((source + offset) >> FRAME_BITS)
        if frame is not None and any(frame):
            world.memory = world.memory.write(target + offset, frame.tobytes())


def _give_back(world: World, page: HostPage) -> None:
    for at in range(page.hpa, page.hpa + page.size, 4096):
        world.free(at)


def _dirty_logging(state: State, event: ev.DirtyLogging, images: Images) -> Result:
    found = _slot(state, event.vm, event.slot)
    if isinstance(found, Refusal):
        return found
    vm, slot = found
    assert state.module is not None
    world = _world(state)
    slot = msgspec.structs.replace(slot, dirty_log=event.on)
    vm = vm.with_slot(slot)
    notes = "dirty logging is off"
    if event.on:
        count = mmu.write_protect(world, state.module, vm, slot)
        notes = f"kvm_mmu_slot_remove_write_access(): {count} SPTEs lose W"
    return _after(state, world, vm=vm, effect=_notes(notes))


def _flush(state: State, event: ev.FlushTlb, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    return msgspec.structs.replace(state, effect=_notes("no translation cache is modelled: every access walks anew"))


Handler = Callable[..., Result]


def _with(needs: str, handler: Handler) -> Handler:
    """``handler``, refused with a sentence while there is no host, or no KVM."""

    def guarded(state: State, event: ev.Event, images: Images) -> Result:
        if state.host is None:
            return Refusal("There is no host yet: boot one first.")
        if needs == "kvm" and state.module is None:
            return Refusal("KVM is not loaded: load it first.")
        return handler(state, event, images)

    return guarded


HANDLERS: dict[type, Handler] = {
    ev.BootHost: _boot,
    ev.LoadKvm: _with("host", _load_kvm),
    ev.ChangeMode: _with("host", _change_mode),
    ev.UnloadKvm: _with("kvm", _unload_kvm),
    ev.CreateVm: _with("kvm", _create_vm),
    ev.DestroyVm: _with("kvm", _destroy_vm),
    ev.CreateVcpu: _with("kvm", _create_vcpu),
    ev.SetMemslot: _with("kvm", _set_memslot),
    ev.DeleteMemslot: _with("kvm", _delete_memslot),
    ev.SetGuestRegisters: _with("kvm", _set_registers),
    ev.MapGuestPages: _with("kvm", _map_guest),
    ev.FillGuestPages: _with("kvm", _fill_guest),
    ev.GuestAccess: _with("kvm", guest_access),
    ev.Populate: _with("kvm", _populate),
    ev.MoveVcpu: _with("kvm", _move_vcpu),
    ev.ZapGuest: _with("kvm", _zap),
    ev.HostMemory: _with("kvm", _host_memory),
    ev.DirtyLogging: _with("kvm", _dirty_logging),
    ev.FlushTlb: _with("kvm", _flush),
}
