"""All there is to say of two sides: classes, figures, bands for the eye, runs for a table, and what KVM does then."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.arch.arrays import Code, Small, U, Words
from engine.arch.bulk import Progress, Translations
from engine.arch.faults import Outcome
from engine.arch.rights import Access, Kind
from engine.effects.compare import FAULTS, Class, Effects, Side, classify_exposed, effects
from engine.effects.owners import owners_of
from engine.effects.reaction import Reacted, reactions
from engine.machine.look import Place, look
from engine.machine.state import Refusal

PAGE = U(4096)
SHARED_OWNER = U(0xFFFFFF)
"""The bits of a packed owner that neighbours have in common: use, level, VM."""


class Band(msgspec.Struct, frozen=True):
    """Guest-physical ranges of one side, in order, as columns. ``start``, ``size`` in bytes; ``kind``: `Class`."""

    start: Words
    size: Words
    kind: Small

    def at(self, gpa: int) -> tuple[int, int, Class] | None:
        """First byte, bytes and class of the range that ``gpa`` is in; None where no side translates it."""
        row = int(np.searchsorted(self.start, U(gpa), side="right")) - 1
        if row < 0 or gpa - int(self.start[row]) >= int(self.size[row]):
            return None
        return int(self.start[row]), int(self.size[row]), Class(int(self.kind[row]))


class Comparison(msgspec.Struct, frozen=True):
    """``pages``: 4-KiB pages of each class. ``changed``: those that translate differently, a row a page.

    ``first``, ``last``: rows of ``changed`` between which all is alike, though the frames may lie scattered; ``number``
    the class of each of these runs for KVM, and ``answers`` what KVM comes to, by that number, with what the hardware
    says of the first page in ``outcomes``. ``kind``: of the access that both are about.
    """

    a: Side
    b: Side
    kind: Kind
    pages: dict[Class, int]
    band_a: Band
    band_b: Band
    changed: Effects
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    number: NDArray[np.uint32]
    answers: dict[int, Reacted]
    outcomes: dict[int, Outcome]

    def __len__(self) -> int:
        return len(self.first)

    def is_scattered(self, run: int, physical: Words) -> bool:
        """Whether the frames of a run do not follow one another in ``physical``, a column of ``changed``."""
        first, last = int(self.first[run]), int(self.last[run])
        return bool((physical[first + 1 : last + 1] - physical[first:last] != PAGE).any())

    def run_at(self, gpa: int) -> int | None:
        """The number of the run that ``gpa`` is in; None where it translates the same, or not at all."""
        starts = self.changed.start
        row = int(np.searchsorted(starts, U(gpa & ~0xFFF)))
        if row == len(starts) or int(starts[row]) != gpa & ~0xFFF:
            return None
        return int(np.searchsorted(self.first, row, side="right")) - 1


def compare(a: Side, b: Side, kind: Kind = Kind.READ, progress: Progress | None = None) -> Comparison:
    """Compare all of guest-physical memory, and have KVM answer an access of ``kind`` on side ``b``."""
    found = effects(a, b, progress)
    every = each_page(found, b)
    band_a, band_b = bands(every, a, b)
    changed = every.changed()
    number, answers = reactions(b, changed.start, kind)
    first = alike(changed, number)
    return Comparison(
        a=a,
        b=b,
        kind=kind,
        pages=found.pages(),
        band_a=band_a,
        band_b=band_b,
        changed=changed,
        first=first,
        last=np.append(first[1:], len(changed)) - 1 if len(first) else first,
        number=number[first],
        answers=answers,
        outcomes={key: _outcome(b, reacted.gpa, kind) for key, reacted in answers.items()},
    )


def _outcome(side: Side, gpa: int, kind: Kind) -> Outcome:
    place = Place(vm=side.vm.index, vcpu=side.vcpu.index, physical=True)
    walk = look(side.state, gpa, Access(kind, 1), place)
    assert not isinstance(walk, Refusal)
    return walk.outcome


def each_page(found: Effects, b: Side) -> Effects:
    """``found`` with a row a page. ``b``: the side whose owners ``b_owner`` names."""
    count = (found.size >> U(12)).astype(np.int64)
    row = np.repeat(np.arange(len(found)), count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    offset = nth.astype(np.uint64) << U(12)
    assert b.state.host is not None
    physical = found.b[row] + offset
    return Effects(
        start=found.start[row] + offset,
        size=np.full(len(row), PAGE),
        kind=found.kind[row],
        a=found.a[row] + offset,
        b=physical,
        a_code=found.a_code[row],
        b_code=found.b_code[row],
        b_owner=owners_of(b.state.host.frames, physical >> U(12)),
        rights=found.rights[row],
    )


def bands(every: Effects, a: Side, b: Side) -> tuple[Band, Band]:
    """What each side by itself makes of each page: `Class.SAME` where it is the VM's own page of that number.

    A page that side A gives with more rights is `Class.PERMISSION` on side B.
    """
    gfns = every.start >> U(12)
    assert a.state.host is not None
    owner_a = owners_of(a.state.host.frames, every.a >> U(12))
    kind_a = _one_sided(every.a, every.a_code, owner_a, a.vm.index, a.rightful(gfns))
    kind_b = _one_sided(every.b, every.b_code, every.b_owner, b.vm.index, b.rightful(gfns))
    kind_b[every.kind == Class.PERMISSION] = Class.PERMISSION
    return _band(every.start, kind_a), _band(every.start, kind_b)


def _one_sided(physical: Words, code: Small, owner: Words, vm: int, frames: Words) -> Small:
    blank = np.zeros(len(frames), np.uint8)
    kind = classify_exposed(Translations(physical, blank, blank.astype(np.uint16), code, blank), owner, vm, frames)
    for fault, found in FAULTS.items():
        kind[code == fault] = found
    return kind


def _band(start: Words, kind: Small) -> Band:
    if not len(start):
        return Band(start, start, kind)
    breaks = (start[1:] - start[:-1] != PAGE) | (kind[1:] != kind[:-1])
    first = np.flatnonzero(np.concatenate(([True], breaks)))
    last = np.append(first[1:], len(start)) - 1
    return Band(start[first], start[last] - start[first] + PAGE, kind[first])


def alike(pages: Effects, number: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The first row of each run of neighbouring pages of which the same is to be said, KVM's class included."""
    if not len(pages):
        return np.zeros(0, np.int64)
    same = pages.start[1:] - pages.start[:-1] == PAGE
    for column in (pages.kind, pages.a_code, pages.b_code, pages.rights, number):
        same &= column[1:] == column[:-1]
    owner = pages.b_owner & SHARED_OWNER
    same &= (pages.b_code[1:] != Code.OK) | (owner[1:] == owner[:-1])
    return np.flatnonzero(np.concatenate(([True], ~same)))
