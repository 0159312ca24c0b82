"""Events in which the VMM writes guest memory as a loader does: tables, data, a whole image. No nested faults occur."""

from collections.abc import Callable
from itertools import cycle, islice

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.formats import EPT4, EPT5, LEGACY, LEVEL4, LEVEL5, PAE, Format
from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.arch.rights import Check
from engine.arch.second_stage import Kind2, SecondStage, ept, npt
from engine.errors import InputError
from engine.host.world import World
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.guest_walk import Stopped
from engine.kvm.memslots import Memslot, hva_for
from engine.kvm.mirrored import translator
from engine.kvm.nested import l1_features
from engine.kvm.vm import Vm
from engine.machine.common import Result, after, space_of, world_of
from engine.machine.state import Effect, Images, Refusal, State
from engine.machine.vms import HANDLERS as VM_HANDLERS
from engine.machine.vms import add_slot
from engine.memory.image import Image
from engine.memory.physical import SparseMemory
from engine.memory.tables import Range, map_ranges

FORMATS: dict[str, Format] = {fmt.name: fmt for fmt in (LEGACY, PAE, LEVEL4, LEVEL5, EPT4, EPT5)}
MAX_PAGES = 1 << 18
MAX_FILL = 64 << 20
HOLE = 1 << 20
"""Holes of an image below this many bytes do not end a memslot: they are memory of which nothing is known."""


def placed(memory: GuestMemory) -> Callable[[int], int]:
    """GPA -> HPA as the VMM reaches guest memory: memslot, HVA, the host's page table. No nested walk."""

    def place(gpa: int) -> int:
        hpa = memory.place(gpa)
        if hpa is None:
            raise InputError(f"No memslot holds guest-physical {gpa:#x}: the VMM has no memory there to write.")
        return hpa

    return place


def _placed_for(state: State, vm: Vm, memory: GuestMemory, nested: bool) -> Callable[[int], int]:
    """As `placed`; for a ``nested`` guest from L2-physical addresses, by the tables of the hypervisor inside the VM."""
    place = placed(memory)
    if not nested:
        return place
    translate = translator(memory, _l1_tables(state, vm))

    def place_nested(l2: int) -> int:
        assert translate is not None
        gpa = translate(l2, READ_CHECK)
        if isinstance(gpa, Stopped):
            raise InputError(f"L1's tables do not map L2-physical {l2:#x}: map it there first.")
        return place(gpa)

    return place_nested


READ_CHECK = Check(need=0, names=())
"""A loader asks for no right."""


def _l1_tables(state: State, vm: Vm) -> SecondStage:
    """The tables that L1's hypervisor has built, in the format that it captured. Raises InputError where there is
    none."""
    module = vm.nested
    if module is None:
        raise InputError(f"VM {vm.index} has no hypervisor in it, so no nested guest: load one first.")
    assert state.host is not None
    vcpu = vm.vcpus[module.vcpu]
    features = l1_features(vcpu.cpuid, state.host.pcpus[vcpu.pcpu].features)
    fmt = FORMATS[module.captured]
    if module.kind is Kind2.EPT:
        found = ept(module.root | 6 | (len(fmt.levels) - 1) << 3, features.maxphyaddr)
    else:
        found = npt(REGISTERS[fmt.name], features, module.root)
    assert isinstance(found, SecondStage)
    return found


_LONG = EFER.LME | EFER.LMA | EFER.NXE
REGISTERS = {
    LEGACY.name: Registers(cr0=int(CR0.PG | CR0.PE), cr4=int(CR4.PSE)),
    PAE.name: Registers(cr0=int(CR0.PG | CR0.PE), cr4=int(CR4.PAE), efer=int(EFER.NXE)),
    LEVEL4.name: Registers(cr0=int(CR0.PG | CR0.PE), cr4=int(CR4.PAE), efer=int(_LONG)),
    LEVEL5.name: Registers(cr0=int(CR0.PG | CR0.PE), cr4=int(CR4.PAE | CR4.LA57), efer=int(_LONG)),
}
"""Registers that select a paging format."""


def _map_guest(state: State, event: ev.MapGuestPages, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    if event.size > MAX_PAGES * max(event.page_size, 1):
        return Refusal(f"At most {MAX_PAGES:,} pages are mapped by one event.")
    if event.key > 15:
        return Refusal("A protection key is 0 .. 15.")
    world, fmt = world_of(state), FORMATS[event.mode]
    if event.root & 0xFFF if fmt is not PAE else event.root & 0x1F:
        return Refusal(f"A {event.mode} root is aligned to its size: {event.root:#x} is not.")
    wanted = Range(
        address=event.address, target=event.target, size=event.size, page_size=event.page_size, write=event.write,
        user=event.user, execute=event.execute, key=event.key,
    )  # fmt: skip
    place = _placed_for(state, vm, GuestMemory(world, space_of(state), vm), isinstance(event, ev.MapL2Pages))
    world.memory, _ = built_in(world, fmt, event.root, wanted, event.tables, place)
    return after(state, world)


def built_in(
    world: World, fmt: Format, root: int, wanted: Range, tables: int, place: Callable[[int], int]
) -> tuple[SparseMemory, list[int]]:
    """The memory in which tables of ``fmt`` under ``root`` map ``wanted``, and the new tables, from ``tables``
    upwards."""
    while True:
        # Touching guest memory for the first time changes the host's, and gives a frame that somebody else had the
        # content it should have: then what was built, or what stopped it, is out of date.
        before, taken = world.memory, list[int]()
        try:
            built = map_ranges(world.memory, fmt, root, [wanted], _empty_frames(world, place, tables, taken), place)
        except InputError:
            if world.memory is before:
                raise
            continue
        if world.memory is before:
            return built, taken


def _empty_frames(
    world: World, place: Callable[[int], int], first: int, taken: list[int]
) -> Callable[[], int]:
    """Guest frames for new tables, from GPA ``first`` up; ``taken`` lists them. Raises InputError where one holds
    something."""
    following = iter(range(first & -FRAME_SIZE, 1 << 52, FRAME_SIZE))

    def allocate() -> int:
        gpa = next(following, 1 << 52)
        frame = world.memory.frame(place(gpa) >> FRAME_BITS)
        if frame is None or any(frame):
            raise InputError(f"Guest frame {gpa:#x}, where a new table would go, is not empty: name another place.")
        taken.append(gpa)
        return gpa

    return allocate


def _fill_guest(state: State, event: ev.FillGuestPages, images: Images) -> Result:
    vm = state.vm(event.vm)
    if isinstance(vm, Refusal):
        return vm
    size = event.size or 8 * len(event.words)
    if event.gpa % 8 or size % 8 or not event.words:
        return Refusal("Data is written in words of 8 bytes at a multiple of 8.")
    if size > MAX_FILL:
        return Refusal(f"At most {MAX_FILL >> 20} MiB are filled by one event.")
    world = world_of(state)
    place = _placed_for(state, vm, GuestMemory(world, space_of(state), vm), isinstance(event, ev.FillL2Pages))
    words = islice(cycle(event.words), size // 8)
    at, end = event.gpa, event.gpa + size
    while at < end:
        length = min(FRAME_SIZE - at % FRAME_SIZE, end - at)
        data = b"".join(word.to_bytes(8, "little") for word in islice(words, length // 8))
        hpa = place(at)
        world.memory = world.memory.write(hpa, data)
        at += length
    return after(state, world)


# --- an image as a guest


def _restore(state: State, event: ev.RestoreGuest, images: Images) -> Result:
    """A VM whose memory and vCPUs are those of an image, as a VMM restores a snapshot."""
    image = images(event.image)
    if not image.cpus:
        return Refusal("This image holds no registers, so its vCPUs cannot be restored.")
    made = VM_HANDLERS[ev.CreateVm](state, ev.CreateVm(), images)
    if isinstance(made, Refusal):
        return made
    number = len(made.vms) - 1
    for start, end in slot_ranges(image):
        made = _add(made, number, image, event, start, end)
    for index, cpu in enumerate(image.cpus):
        steps: tuple[ev.Event, ...] = (
            ev.CreateVcpu(vm=number, cpuid=event.cpuid, pcpu=event.pcpu),
            ev.SetGuestRegisters(registers=cpu.registers, vm=number, vcpu=index),
        )
        for step in steps:
            done = VM_HANDLERS[type(step)](made, step, images)
            if isinstance(done, Refusal):
                return done
            made = done
    vm = made.vms[number]
    assert vm is not None
    note = f"VM {number}: {len(vm.slots)} memslots, {len(vm.vcpus)} vCPUs"
    return msgspec.structs.replace(made, effect=Effect(notes=(note,)))


def slot_ranges(image: Image) -> list[tuple[int, int]]:
    """The stretches of guest memory (byte addresses) that get a memslot each."""
    found: list[tuple[int, int]] = []
    for start, end in image.known():
        start, end = start & -FRAME_SIZE, -(-end & -FRAME_SIZE)
        if found and start - found[-1][1] < HOLE:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _add(state: State, number: int, image: Image, event: ev.RestoreGuest, start: int, end: int) -> State:
    vm = state.vms[number]
    assert isinstance(vm, Vm)
    mapped = tuple(s for v in state.vms if v is not None for s in v.slots)
    at = event.backing.at + start
    slot = Memslot(
        id=len(vm.slots), gpa=start, size=end - start, hva=hva_for(mapped, start), image=image,
        backing=msgspec.structs.replace(event.backing, at=at),
    )  # fmt: skip
    return add_slot(state, world_of(state), vm, mapped, slot)


HANDLERS: dict[type, Callable[..., Result]] = {
    ev.MapGuestPages: _map_guest,
    ev.FillGuestPages: _fill_guest,
    ev.MapL2Pages: _map_guest,
    ev.FillL2Pages: _fill_guest,
    ev.RestoreGuest: _restore,
}
