"""What is typed into the filter of the mappings: words that all must hold, and what they leave.

``w``, ``x``, ``user``, ``global`` and ``w+x`` ask for rights, ``-x``, ``!user``, ``ro``, ``nx`` and ``kernel`` for
their absence; ``4K``, ``2M``, ``4M``, ``1G`` for pages of that size; ``> 2M``, ``<= 64K`` for ranges by their size; an
address for the range that holds it, virtual or (after ``pa:``) physical; ``0x1000-0x5000`` for all that touch these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import parse_address
from engine.errors import InputError
from gui.sizes import parse_size

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    from engine.arch.mappings import Mappings

    Test = Callable[[Mappings], NDArray[bool_]]

translate = QCoreApplication.translate

PAGES = {"4k": 12, "2m": 21, "4m": 22, "1g": 30}
RIGHTS = {"r": "R", "w": "W", "u": "U", "user": "U", "x": "X", "g": "G", "global": "G"}
OPPOSITES = {"ro": "W", "nx": "X", "kernel": "U", "supervisor": "U"}
_COMPARISON = re.compile(r"(>=|<=|>|<|=)\s*([0-9.]+\s*[kmgt]?(?:i?b)?)(?=\s|$)", re.IGNORECASE)
_COMPARE: dict[str, Callable[..., NDArray[bool_]]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
}


def compile_filter(text: str) -> list[Test]:
    """The tests that ``text`` asks for; none for an empty one. Raises InputError with a sentence for other words."""
    tests = [_by_size(match[1], parse_size(match[2])) for match in _COMPARISON.finditer(text)]
    for word in _COMPARISON.sub(" ", text).lower().split():
        tests.append(_test(word))
    return tests


def matches(mappings: Mappings, tests: list[Test]) -> NDArray[bool_]:
    """Which rows of ``mappings`` pass all of ``tests``."""
    import numpy as np

    kept = np.ones(len(mappings), np.bool_)
    for test in tests:
        kept &= test(mappings)
    return kept


def _test(word: str) -> Test:
    rights = _rights(word)
    if rights is not None:
        wanted, unwanted = rights
        return lambda m: (m.rights & (wanted | unwanted)) == wanted
    if word in PAGES:
        return lambda m: m.page_shift == PAGES[word]
    try:
        return _by_address(word)
    except InputError:
        text = translate("Mappings", "“{word}” is no filter: try w+x, user, -x, 2M, > 64K, or an address.")
        raise InputError(text.format(word=word[:40])) from None


def _rights(word: str) -> tuple[int, int] | None:
    """The rights that ``word`` asks for and those it rules out; None where it is about something else."""
    from engine.arch.arrays import Right

    wanted = unwanted = 0
    for negated, name in _signed(word):
        letter = RIGHTS.get(name) or OPPOSITES.get(name)
        if letter is None:
            return None
        if negated == (name in OPPOSITES):
            wanted |= getattr(Right, letter)
        else:
            unwanted |= getattr(Right, letter)
    return wanted, unwanted


def _signed(word: str) -> Iterator[tuple[bool, str]]:
    """ "w+x" and "-x" as names, each with whether it is ruled out."""
    for sign, name in re.findall(r"([-+!]?)([^-+!]+|$)", word):
        if sign or name:
            yield sign in ("-", "!"), name


def _by_size(sign: str, size: int) -> Test:
    return lambda m: _COMPARE[sign](m.size, size)


def _by_address(word: str) -> Test:
    physical = word.startswith("pa:")
    start, dash, end = word.removeprefix("pa:").removeprefix("va:").partition("-")
    low = parse_address(start)
    high = parse_address(end) if dash else low

    def test(m: Mappings) -> NDArray[bool_]:
        first = m.pa if physical else m.va
        last = first + (m.size - type(first[0])(1)) if len(m) else first
        return (first <= high) & (last >= low)

    return test
