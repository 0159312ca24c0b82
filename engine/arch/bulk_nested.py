"""The array walker through a second stage: guest-physical addresses, millions of them.

A property test holds it equal to `nested_walk`, address by address, faults included.
"""

import numpy as np

from engine.arch.arrays import Code, U, Words
from engine.arch.bulk import ArrayWalker, Progress, Translations, blocks, empty
from engine.arch.memory import PhysicalMemory
from engine.arch.rights import READ, Access, Check
from engine.arch.second_stage import SecondStage, final_check


def translate_physical(
    memory: PhysicalMemory,
    second: SecondStage,
    addresses: Words,
    access: Access = READ,
    *,
    check: Check | None = None,
    progress: Progress | None = None,
) -> Translations:
    """Translate guest-physical ``addresses`` through ``second``, for an ``access`` of a user to a user page.

    ``check``: what the second stage must say, where it is not that access (``second.table``: a use of a guest's table).
    Rights are those of the second stage alone. Addresses out of its reach are `Code.NOT_PRESENT` at level 0.
    """
    addresses = np.ascontiguousarray(addresses, np.uint64)
    wanted = check or final_check(second, access, 3, True)
    out, walker = empty(len(addresses)), ArrayWalker(memory, second.paging)
    for block in blocks(len(addresses), progress):
        rows = out.part(block)
        if second.reach < 64:
            rows.code[addresses[block] >> U(second.reach) != 0] = Code.NOT_PRESENT
        walker.walk(addresses[block], wanted, rows)
    return out
