"""Sizes in bytes as people write them: "64 MiB", "4K", "0x1000"."""

import re

from engine.arch.bits import U64
from engine.errors import InputError

_SHIFTS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_PATTERN = re.compile(r"(0x[0-9a-f_]+|[0-9][0-9_,]*(?:\.[0-9]+)?)\s*(?:([kmgt])(?:ib|b)?|b|bytes?)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """The number of bytes that ``text`` gives; K, M, G and T are powers of 1024. Raises InputError with a sentence."""
    match = _PATTERN.fullmatch(text.strip())
    shown = text.strip()[:60]
    if match is None:
        raise InputError(f"“{shown}” is not a size: write a number and its unit, such as 64 MiB.")
    digits, unit = match[1].replace("_", "").replace(",", "").lower(), (match[2] or "").lower()
    if digits.startswith("0x"):
        size = int(digits, 16) << _SHIFTS[unit]
    else:
        exact = float(digits) * (1 << _SHIFTS[unit]) if "." in digits else int(digits) << _SHIFTS[unit]
        size = int(exact)
        if size != exact:
            raise InputError(f"“{shown}” is not a whole number of bytes.")
    if size > U64:
        raise InputError(f"“{shown}” has more than 64 bits.")
    return size


def exact_size(size: int) -> str:
    """``size`` in the largest unit that says it exactly: 64 MiB, 4 KiB, 5 B. `parse_size` reads it back."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} B"
