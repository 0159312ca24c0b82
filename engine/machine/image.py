"""Events on a memory image and on its processor: opening it, choosing and setting registers, accesses, pokes."""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.arch.faults import EntryFailure, PageFault, Translated
from engine.arch.memory import ADDRESS_END, read
from engine.arch.nested_walk import walk_nested_access
from engine.arch.registers import Registers, Vendor, mov_cr0, mov_cr3, mov_cr4, with_pdptes, wrmsr_efer
from engine.arch.rights import Access
from engine.arch.second_stage import SecondStage, ept, npt
from engine.arch.walk import Walk, walk_access
from engine.errors import InputError
from engine.machine.state import Effect, Images, Refusal, State, set_flags
from engine.memory.physical import SparseMemory


def _open_image(state: State, event: ev.OpenImage, images: Images) -> State | Refusal:
    try:
        image = images(event.image)
    except InputError as error:
        return Refusal(str(error))
    cpu = 0 if image.cpus else None
    registers = event.registers or (image.cpus[0].registers if image.cpus else None)
    if registers is None:
        return Refusal("This image holds no registers: give CR0, CR3, CR4 and EFER, so that its tables can be walked.")
    return _running(
        msgspec.structs.replace(
            state, memory=SparseMemory(image), image=image, cpu=None if event.registers else cpu, registers=registers
        )
    )


def _running(state: State) -> State:
    """``state`` with the PDPTE registers that its processor has, where they are not given.

    Under a second stage they lie in guest-physical memory: each walk loads them.
    """
    if state.second is not None:
        return state
    return msgspec.structs.replace(state, registers=with_pdptes(state.registers, state.memory))


def _choose_cpu(state: State, event: ev.ChooseCpu, images: Images) -> State | Refusal:
    cpus = state.image.cpus if state.image else ()
    if event.cpu >= len(cpus):
        return Refusal(f"There is no CPU {event.cpu}: the image has the registers of {len(cpus)}.")
    return _running(msgspec.structs.replace(state, cpu=event.cpu, registers=cpus[event.cpu].registers))


def _replace_register(state: State, name: str, value: int) -> State | Refusal:
    try:
        # The PDPTE registers follow CR3 and the mode; a debugger's change makes them be loaded anew.
        registers = msgspec.structs.replace(state.registers, pdptes=None, **{name: value})
        registers.__post_init__()  # replace() does not check ranges
    except ValueError as error:
        return Refusal(f"{error}.")
    return _running(msgspec.structs.replace(state, registers=registers))


def _choose_root(state: State, event: ev.ChooseRoot, images: Images) -> State | Refusal:
    return _replace_register(state, "cr3", event.cr3)


def _set_register(state: State, event: ev.SetRegister, images: Images) -> State | Refusal:
    return _replace_register(state, event.name, event.value)


def _write_register(state: State, event: ev.WriteRegister, images: Images) -> State | Refusal:
    if state.registers.cpl:
        reason = f"Only CPL 0 can write {event.name.upper()}; the CPL is {state.registers.cpl}."
        return Refusal(reason)
    if event.name == "efer":
        changed = wrmsr_efer(state.registers, event.value, state.features)
    else:
        mov = {"cr0": mov_cr0, "cr3": mov_cr3, "cr4": mov_cr4}[event.name]
        changed = mov(state.registers, event.value, state.features, state.memory)
    if isinstance(changed, Registers):
        return msgspec.structs.replace(state, registers=changed)
    return msgspec.structs.replace(state, effect=Effect(fault=changed))


def _choose_second_stage(state: State, event: ev.ChooseSecondStage, images: Images) -> State | Refusal:
    if event.kind == "none":
        return _through(state, None)
    if state.image is None:
        return Refusal("A second stage is walked in an image of host memory: open one first.")
    maxphyaddr = state.features.maxphyaddr
    if event.kind == "ept":
        second = ept(event.value, maxphyaddr, rules=state.rules)
    elif event.host is None:
        return Refusal("An NPT is walked in the host's mode: give the host's CR0, CR4 and EFER.")
    else:
        features = msgspec.structs.replace(state.features, vendor=Vendor.AMD)
        second = npt(event.host, features, event.value, state.rules)
    if isinstance(second, EntryFailure):
        return Refusal(f"The guest cannot be entered: {second.reason}.")
    return _through(state, second)


def _through(state: State, second: SecondStage | None) -> State:
    """``state`` with another second stage. PDPTE registers that came from memory came through the one before."""
    registers = msgspec.structs.replace(state.registers, pdptes=None)
    return _running(msgspec.structs.replace(state, second=second, registers=registers))


def _access(state: State, event: ev.AccessMemory, images: Images) -> State | Refusal:
    access = Access(event.kind, event.size, implicit=event.implicit)
    if state.second is None:
        walks = walk_access(state.memory, state.paging, event.address, access)
    else:
        walks = walk_nested_access(state.memory, state.paging, state.second, event.address, access)
    memory, loaded = perform(state.memory, walks, event.address, access, event.value)
    registers = state.registers
    fault = walks[-1].outcome
    if isinstance(fault, PageFault):
        registers = msgspec.structs.replace(registers, cr2=fault.cr2)
    return msgspec.structs.replace(state, memory=memory, registers=registers, effect=Effect(walks=walks, loaded=loaded))


def perform(
    memory: SparseMemory, walks: tuple[Walk, ...], address: int, access: Access, value: int
) -> tuple[SparseMemory, int | None]:
    """Set the flags of the walks, then store ``value`` or load: the memory after it, and what a load returned.

    Both pages of an access are checked before anything is stored (SDM vol. 3A, 4.7).
    """
    for walk in walks:
        memory = set_flags(memory, walk.updates)
    places = [walk.outcome for walk in walks if isinstance(walk.outcome, Translated)]
    if len(places) < len(walks):
        return memory, None
    first = min(access.size, 0x1000 - (address & 0xFFF))
    pieces = [
        (place.address, at, n)
        for place, (at, n) in zip(places, ((0, first), (first, access.size - first)), strict=False)
    ]
    if access.kind.writes:
        data = (value & ((1 << 8 * access.size) - 1)).to_bytes(access.size, "little")
        for physical, at, length in pieces:
            memory = memory.write(physical, data[at : at + length])
        return memory, None
    parts = [read(memory, physical, length) for physical, _, length in pieces]
    known = [part for part in parts if part is not None]
    return memory, int.from_bytes(b"".join(known), "little") if len(known) == len(parts) else None


def _poke(state: State, event: ev.Poke, images: Images) -> State | Refusal:
    if event.address % event.size:
        return Refusal(f"An entry of {event.size} bytes lies at a multiple of {event.size}; {event.address:#x} is not.")
    if event.value >> (8 * event.size):
        return Refusal(f"{event.value:#x} does not fit into {event.size} bytes.")
    if event.address + event.size > ADDRESS_END or (state.host and not state.host.frames.is_ram(event.address >> 12)):
        return Refusal(f"There is no memory at {event.address:#x}.")
    data = event.value.to_bytes(event.size, "little")
    return msgspec.structs.replace(state, memory=state.memory.write(event.address, data))


HANDLERS: dict[type, Callable[..., State | Refusal]] = {
    ev.OpenImage: _open_image,
    ev.ChooseCpu: _choose_cpu,
    ev.ChooseRoot: _choose_root,
    ev.SetRegister: _set_register,
    ev.WriteRegister: _write_register,
    ev.ChooseSecondStage: _choose_second_stage,
    ev.AccessMemory: _access,
    ev.Poke: _poke,
}
