"""Events in which the VMM writes guest memory as a loader does: tables, data, a whole image. No nested faults occur."""

from collections.abc import Callable
from itertools import cycle, islice

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.formats import LEGACY, LEVEL4, LEVEL5, PAE, Format
from engine.errors import InputError
from engine.host.world import World
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.memslots import Memslot, hva_for
from engine.kvm.vm import Vm
from engine.machine.common import Result, after, space_of, world_of
from engine.machine.state import Effect, Images, Refusal, State
from engine.machine.vms import HANDLERS as VM_HANDLERS
from engine.machine.vms import add_slot
from engine.memory.image import Image
from engine.memory.tables import Range, map_ranges

FORMATS: dict[str, Format] = {fmt.name: fmt for fmt in (LEGACY, PAE, LEVEL4, LEVEL5)}
MAX_PAGES = 1 << 18
MAX_FILL = 64 << 20
HOLE = 1 << 20
"""Holes of an image below this many bytes do not end a memslot: they are memory of which nothing is known."""


def _place(memory: GuestMemory) -> Callable[[int], int]:
    """GPA -> HPA as the VMM reaches guest memory: memslot, HVA, the host's page table. No nested walk."""

    def place(gpa: int) -> int:
        hpa = memory.place(gpa)
        if hpa is None:
            raise InputError(f"No memslot holds guest-physical {gpa:#x}: the VMM has no memory there to write.")
        return hpa

    return place


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
    memory = GuestMemory(world, space_of(state), vm)
    place = _place(memory)
    while True:
        # Touching guest memory for the first time changes the host's tables: then what was built is out of date.
        before = world.memory
        tables = _empty_frames(world, place, event.tables)
        built = map_ranges(world.memory, fmt, event.root, [wanted], tables, place)
        if world.memory is before:
            break
    world.memory = built
    return after(state, world)


def _empty_frames(world: World, place: Callable[[int], int], first: int) -> Callable[[], int]:
    """Guest frames for new tables, from GPA ``first`` up. Raises InputError where one holds something."""
    following = iter(range(first & -FRAME_SIZE, 1 << 52, FRAME_SIZE))

    def allocate() -> int:
        gpa = next(following, 1 << 52)
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
    if size > MAX_FILL:
        return Refusal(f"At most {MAX_FILL >> 20} MiB are filled by one event.")
    world = world_of(state)
    place = _place(GuestMemory(world, space_of(state), vm))
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
    for start, end in _ranges(image):
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


def _ranges(image: Image) -> list[tuple[int, int]]:
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
    ev.RestoreGuest: _restore,
}
