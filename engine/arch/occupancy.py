"""What the slots of a table hold, as one array of flags a table: what the strips of the hierarchy are painted from."""

import numpy as np

from engine.arch.arrays import Code, RightsColumn, U, classify, read_tables
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level, Paging


class Slot:
    """Flags of a slot; plain numbers, which arrays take. Rights are those of the entry alone."""

    PRESENT, LEAF, WRITE, USER, EXEC, ACCESSED, DIRTY, RESERVED, UNKNOWN, CHANGED = (1 << n for n in range(10))
    WX = WRITE | EXEC
    """A leaf with both may be written and executed, as far as its own entry goes."""


def occupancy(
    memory: PhysicalMemory, paging: Paging, level: Level, table: int, before: PhysicalMemory | None = None
) -> RightsColumn:
    """`Slot` flags of all slots of the table of ``level`` at physical byte address ``table``.

    A slot with `Slot.RESERVED` (or misconfigured) is present and nothing else; with `Slot.UNKNOWN` nothing is known of
    it. `Slot.CHANGED`: the entry was another one, or not known, in ``before``.
    """
    assert paging.format is not None
    tables = np.array([table], np.uint64)
    values, unknown = read_tables(memory, level, tables)
    code, leaf = classify(level, values, unknown)
    good = code == Code.OK
    rights = paging.format.rights
    no_execute = rights.no_execute if paging.setting.nxe else 0
    flags = np.zeros(level.entries, np.uint16)
    for flag, where in (
        (Slot.PRESENT, good | (code == Code.RESERVED) | (code == Code.MISCONFIGURED)),
        (Slot.LEAF, good & leaf),
        (Slot.WRITE, good & (values & U(rights.write) == rights.write)),
        (Slot.USER, good & (values & U(rights.user) == rights.user)),
        (Slot.EXEC, good & (values & U(rights.execute | no_execute) == rights.execute)),
        (Slot.ACCESSED, good & (values & U(level.accessed) != 0)),
        (Slot.DIRTY, good & leaf & (values & U(level.dirty) != 0)),
        (Slot.RESERVED, (code == Code.RESERVED) | (code == Code.MISCONFIGURED)),
        (Slot.UNKNOWN, unknown),
    ):
        flags[where] |= flag
    if before is not None:
        old, old_unknown = read_tables(before, level, tables)
        flags[(old != values) | (old_unknown != unknown)] |= Slot.CHANGED
    return flags
