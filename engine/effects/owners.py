"""Who owns each of many host frames, as arrays."""

from functools import lru_cache

import numpy as np

from engine.arch.arrays import Flags, U, Words
from engine.host.frames import USES, Frames, Use

FREE = np.uint64(0xF)
"""The packed owner of a frame of RAM that nobody owns."""
OUTSIDE = np.uint64(0xE)
"""The packed owner of what is not RAM."""


@lru_cache(maxsize=8)
def _columns(frames: Frames) -> tuple[Words, Words, Words, Words, Words]:
    """Frame numbers and packed owners of the frames taken one by one; first, end and packed owner of the regions."""
    count = len(frames.taken)
    pfns = np.fromiter(frames.taken, np.uint64, count)
    owners = np.fromiter(frames.taken.values(), np.uint64, count)
    order = np.argsort(pfns)
    regions = np.array([(r.first, r.end, r.owner.packed) for r in frames.regions], np.uint64).reshape(-1, 3)
    return pfns[order], owners[order], regions[:, 0], regions[:, 1], regions[:, 2]


def owners_of(frames: Frames, pfns: Words) -> Words:
    """The packed owner (`Owner.packed`) of each frame; FREE where nobody owns it, OUTSIDE where it is not RAM."""
    keys, owners, first, end, region_owner = _columns(frames)
    out = np.full(len(pfns), OUTSIDE, np.uint64)
    for start, stop in frames.ram:
        out[(pfns >= U(start >> 12)) & (pfns < U(stop >> 12))] = FREE
    if len(first):
        at = np.searchsorted(first, pfns, side="right").astype(np.intp) - 1
        inside = (at >= 0) & (pfns < end[at])
        hit = at[inside]
        out[inside] = region_owner[hit] + ((pfns[inside] - first[hit]) << U(24))
    if len(keys):
        at = np.minimum(np.searchsorted(keys, pfns), len(keys) - 1)
        found = keys[at] == pfns
        out[found] = owners[at[found]]
    return out


def use_is(packed: Words, use: Use) -> Flags:
    found: Flags = packed & U(0xF) == U(USES.index(use))
    return found


def vm_of(packed: Words) -> Words:
    """VM number + 1; 0 for none."""
    return packed >> U(8) & U(0xFFFF)


def gfn_of(packed: Words) -> Words:
    return packed >> U(24)
