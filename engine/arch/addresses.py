"""Kinds of address, canonical form, printing and reading.

Each kind is a type of its own: free at run time, and mypy stops the mix-up that is the classic fault of this
field. All are unsigned 64-bit byte addresses.
"""

from typing import NewType

from engine.arch.bits import U64
from engine.errors import InputError

Gva = NewType("Gva", int)
"""Guest-virtual (linear) address of the guest that runs; of the only system there is in a one-stage walk."""
Gpa = NewType("Gpa", int)
"""Guest-physical address: what the guest takes for physical."""
Hva = NewType("Hva", int)
"""Host-virtual address: of the VMM's process."""
Hpa = NewType("Hpa", int)
"""Host-physical address: of the memory that is really there."""
L2Gva = NewType("L2Gva", int)
L2Gpa = NewType("L2Gpa", int)

FRAME_BITS = 12
FRAME_SIZE = 1 << FRAME_BITS
"""Bytes of a frame."""


def is_canonical(address: int, width: int) -> bool:
    """True where bits 63 .. ``width - 1`` of ``address`` are all equal (SDM vol. 1, 3.3.7.1). Width 48 or 57 bits."""
    top = address >> (width - 1)
    return top == 0 or top == (1 << (65 - width)) - 1


def sign_extend(address: int, width: int) -> int:
    """``address`` with bits 63 .. ``width`` made equal to bit ``width - 1``."""
    low = address & ((1 << width) - 1)
    return low | (U64 & ~((1 << width) - 1)) if low >> (width - 1) else low


def grouped(value: int, digits: int = 0) -> str:
    """``value`` in hex, 0x and groups of four digits: 0x7f12_3456_7000. At least ``digits`` digits."""
    return f"0x{value:0{digits + max(0, digits - 1) // 4}_x}"


def plain(value: int, digits: int = 0) -> str:
    """``value`` in hex as kernels and their traces print it, of at least ``digits`` digits: 0x7f1234567000."""
    return f"0x{value:0{digits}x}"


def parse_address(text: str) -> int:
    """The unsigned 64-bit number that ``text`` gives in hex (with or without 0x, groups split by _ or ' or space).

    Raises InputError with a sentence for anything else.
    """
    plain = text.strip().lower().replace("_", "").replace("'", "").replace("`", "").replace(" ", "")
    try:
        if plain.startswith(("-", "+")):
            raise ValueError
        value = int(plain, 16)
    except ValueError:
        raise InputError(
            f"“{text.strip()[:60]}” is not an address: write it in hex, such as 0x7f12_3456_7000."
        ) from None
    if value > U64:
        raise InputError(f"{text.strip()[:60]} has more than 64 bits: an address has at most 16 hex digits.")
    return value


def size_name(size: int) -> str:
    """A number of bytes in the unit that suits it: 4 KiB, 2 MiB, 1 GiB, 12 B."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            whole = size / (1 << shift)
            return f"{whole:g} {unit}" if whole == int(whole) else f"{whole:.1f} {unit}"
    return f"{size} B"
