"""Every event of a scenario, as a small frozen type, in one tagged union.

Values are checked in the types, so a damaged file gives a clear error and never half a scenario. Addresses, entries and
register values are unsigned 64-bit numbers (`U64`), written in hex in files.
"""

from typing import Annotated, Literal

import msgspec

from engine.arch.bits import U64 as MAX
from engine.arch.registers import Registers
from engine.arch.rights import Kind

U64 = Annotated[int, msgspec.Meta(ge=0, description="u64")]
RegisterName = Literal["cr0", "cr2", "cr3", "cr4", "efer", "pkru", "pkrs", "rflags", "cpl", "pat"]
WritableRegister = Literal["cr0", "cr3", "cr4", "efer"]
EntrySize = Literal[4, 8]
AccessSize = Literal[1, 2, 4, 8]


class ImageRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A memory image by name: a path, or ``resource:NAME`` for one that comes with the program.

    ``size`` (bytes, -1: not recorded) tells a changed file from the one that the scenario was made on.
    """

    path: str
    size: int = -1


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not 0 <= value <= MAX:
                raise ValueError(f"{name} must be an unsigned 64-bit number")


class OpenImage(_Event, frozen=True):
    """A memory image becomes physical memory. ``registers``: for an image that has none of its own, or over its own."""

    image: ImageRef
    registers: Registers | None = None


class ChooseCpu(_Event, frozen=True):
    """The registers of CPU ``cpu`` (from 0) of the image are taken."""

    cpu: int


class ChooseRoot(_Event, frozen=True):
    """Another top-level table is walked: CR3 is set as a debugger would, with no check."""

    cr3: U64


class SetRegister(_Event, frozen=True):
    """A register gets a value as a debugger would set it, with no check but its range."""

    name: RegisterName
    value: U64


class WriteRegister(_Event, frozen=True):
    """The processor executes MOV to CRn, or WRMSR to EFER: an illegal value raises #GP and nothing changes."""

    name: WritableRegister
    value: U64


class AccessMemory(_Event, frozen=True):
    """The processor accesses memory: accessed and dirty flags are set, and a store stores ``value``.

    ``size`` in bytes; a value of more bytes is cut to it.
    """

    address: U64
    kind: Kind = Kind.READ
    size: AccessSize = 8
    value: U64 = 0
    implicit: bool = False


class Poke(_Event, frozen=True):
    """Somebody writes ``size`` bytes at physical byte address ``address``, an entry of a table say."""

    address: U64
    value: U64
    size: EntrySize = 8


Event = OpenImage | ChooseCpu | ChooseRoot | SetRegister | WriteRegister | AccessMemory | Poke
