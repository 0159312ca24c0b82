"""Effects on guest-virtual addresses: every page that the guest's own tables map on either side.

The guest's tables lie in guest-physical memory, so a wrong nested table misleads their walk as well as the access.
"""

import numpy as np

from engine.arch.arrays import Words
from engine.arch.bulk import Progress, Translations, empty
from engine.arch.bulk_nested import translate_nested
from engine.arch.mappings import mappings
from engine.effects.compare import Effects, Side, compared
from engine.errors import InputError

MOST_PAGES = 1 << 23
"""Guest-virtual addresses of more 4-KiB pages than that (32 GiB) are not compared page by page."""


def virtual_effects(a: Side, b: Side, progress: Progress | None = None) -> Effects:
    """As `effects`, of guest-virtual pages: ``start`` is a GVA, and ``a_code``, ``b_code`` tell the stage too.

    Empty where the guest has no paging. Raises InputError where it maps more than `MOST_PAGES`.
    """
    addresses = _mapped(a, b)
    return compared(b, addresses, _translated(a, addresses), _translated(b, addresses, progress), None)


def _mapped(*sides: Side) -> Words:
    """The guest-virtual pages that a side's guest tables map, walked through its second stage, in order."""
    parts, total = [np.zeros(0, np.uint64)], 0
    for one in sides:
        if one.guest is None:
            continue
        found = mappings(one.state.memory, one.guest, one.second)
        count = found.size >> np.uint64(12)
        total = int(count.sum())
        if total > MOST_PAGES:
            raise InputError(f"The guest maps {total:,} pages, more than can be compared: compare its physical memory.")
        of_run = np.repeat(np.arange(len(found)), count.astype(np.int64))
        within = np.arange(total, dtype=np.uint64) - (np.cumsum(count) - count)[of_run]
        parts.append(found.va[of_run] + (within << np.uint64(12)))
    return np.unique(np.concatenate(parts))


def _translated(one: Side, addresses: Words, progress: Progress | None = None) -> Translations:
    if one.guest is None:
        return empty(len(addresses))
    return translate_nested(one.state.memory, one.guest, one.second, addresses, progress=progress)
