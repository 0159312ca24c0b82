"""The state of everything at one step, and the only way a state comes about: ``apply(state, event)``.

States share memory frames (copy on write). `apply` is pure but for opening an image, which goes through `Images`.
"""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.arch.faults import GeneralProtection, Unknown
from engine.arch.memory import read
from engine.arch.paging import Paging, bind
from engine.arch.registers import Features, Registers, mov_cr0, mov_cr3, mov_cr4, wrmsr_efer
from engine.arch.rights import Access, Kind
from engine.arch.rules import DEFAULT, Rules
from engine.arch.walk import Update, Walk, walk_access
from engine.errors import InputError
from engine.memory.image import Image
from engine.memory.physical import SparseMemory

Images = Callable[[ev.ImageRef], Image]
"""Gives the image that a reference names; raises InputError with a sentence where it cannot."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scenario starts from: the processor's features, and how open questions are settled."""

    features: Features = Features()
    rules: Rules = DEFAULT


class Refusal(msgspec.Struct, frozen=True):
    """The event cannot happen here; ``reason`` is one sentence. The state before it stays."""

    reason: str


class Effect(msgspec.Struct, frozen=True):
    """What the last event did. ``walks``: of an access, one a page. ``loaded``: what a load returned, None if unknown.

    ``fault``: a #GP that a register write raised.
    """

    walks: tuple[Walk, ...] = ()
    fault: GeneralProtection | Unknown | None = None
    loaded: int | None = None


NOTHING = Effect()


class State(msgspec.Struct, frozen=True):
    """Everything at one step. ``cpu``: the CPU of ``image`` whose registers were taken, None if none was."""

    features: Features
    rules: Rules
    memory: SparseMemory
    registers: Registers = Registers()
    image: Image | None = None
    cpu: int | None = None
    effect: Effect = NOTHING

    @property
    def paging(self) -> Paging:
        return bind(self.registers, self.features, self.rules)


def start(configuration: Configuration) -> State:
    """The state before the first event: a processor at reset and memory of which nothing is known."""
    return State(configuration.features, configuration.rules, SparseMemory())


def apply(state: State, event: ev.Event, images: Images) -> State | Refusal:
    """The state after ``event``, or why it cannot happen."""
    before = msgspec.structs.replace(state, effect=NOTHING)
    return _HANDLERS[type(event)](before, event, images)


def set_flags(memory: SparseMemory, updates: tuple[Update, ...]) -> SparseMemory:
    """``memory`` with the accessed and dirty flags of a walk written."""
    for update in updates:
        memory = memory.write(update.address, update.new.to_bytes(update.size, "little"))
    return memory


def _open_image(state: State, event: ev.OpenImage, images: Images) -> State | Refusal:
    try:
        image = images(event.image)
    except InputError as error:
        return Refusal(str(error))
    cpu = 0 if image.cpus else None
    registers = event.registers or (image.cpus[0].registers if image.cpus else None)
    if registers is None:
        return Refusal("This image holds no registers: give CR0, CR3, CR4 and EFER, so that its tables can be walked.")
    return msgspec.structs.replace(
        state, memory=SparseMemory(image), image=image, cpu=None if event.registers else cpu, registers=registers
    )


def _choose_cpu(state: State, event: ev.ChooseCpu, images: Images) -> State | Refusal:
    cpus = state.image.cpus if state.image else ()
    if event.cpu >= len(cpus):
        return Refusal(f"There is no CPU {event.cpu}: the image has the registers of {len(cpus)}.")
    return msgspec.structs.replace(state, cpu=event.cpu, registers=cpus[event.cpu].registers)


def _replace_register(state: State, name: str, value: int) -> State | Refusal:
    try:
        # The PDPTE registers follow CR3 and the mode; a debugger's change makes them be loaded anew.
        registers = msgspec.structs.replace(state.registers, pdptes=None, **{name: value})
        registers.__post_init__()  # replace() does not check ranges
    except ValueError as error:
        return Refusal(f"{error}.")
    return msgspec.structs.replace(state, registers=registers)


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


def _access(state: State, event: ev.AccessMemory, images: Images) -> State | Refusal:
    """Both pages of an access are checked before anything is stored (SDM vol. 3A, 4.7)."""
    access = Access(event.kind, event.size, implicit=event.implicit)
    walks = walk_access(state.memory, state.paging, event.address, access)
    memory = state.memory
    for walk in walks:
        memory = set_flags(memory, walk.updates)
    registers = state.registers
    fault = walks[-1].outcome
    if hasattr(fault, "cr2"):
        registers = msgspec.structs.replace(registers, cr2=fault.cr2)
    loaded = None
    if all(walk.ok for walk in walks):
        pieces = _pieces(walks, event.address, event.size)
        if event.kind in (Kind.WRITE, Kind.SHADOW_WRITE):
            data = (event.value & ((1 << 8 * event.size) - 1)).to_bytes(event.size, "little")
            for physical, at, length in pieces:
                memory = memory.write(physical, data[at : at + length])
        else:
            parts = [read(memory, physical, length) for physical, _, length in pieces]
            known = [part for part in parts if part is not None]
            loaded = int.from_bytes(b"".join(known), "little") if len(known) == len(parts) else None
    return msgspec.structs.replace(state, memory=memory, registers=registers, effect=Effect(walks=walks, loaded=loaded))


def _pieces(walks: tuple[Walk, ...], address: int, size: int) -> list[tuple[int, int, int]]:
    """(physical byte address, offset in the access, bytes) of each page that the access touches."""
    first = min(size, 0x1000 - (address & 0xFFF))
    parts = ((0, first), (first, size - first))
    return [(walk.outcome.address, at, n) for walk, (at, n) in zip(walks, parts, strict=False)]  # type: ignore[union-attr]


def _poke(state: State, event: ev.Poke, images: Images) -> State | Refusal:
    if event.address % event.size:
        return Refusal(f"An entry of {event.size} bytes lies at a multiple of {event.size}; {event.address:#x} is not.")
    if event.value >> (8 * event.size):
        return Refusal(f"{event.value:#x} does not fit into {event.size} bytes.")
    data = event.value.to_bytes(event.size, "little")
    return msgspec.structs.replace(state, memory=state.memory.write(event.address, data))


_HANDLERS: dict[type, Callable[..., State | Refusal]] = {
    ev.OpenImage: _open_image,
    ev.ChooseCpu: _choose_cpu,
    ev.ChooseRoot: _choose_root,
    ev.SetRegister: _set_register,
    ev.WriteRegister: _write_register,
    ev.AccessMemory: _access,
    ev.Poke: _poke,
}
