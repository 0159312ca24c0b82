"""What an entry is by itself, and what a table holds, one table at a time and without arrays.

For pictures and inspectors that look at a few tables; `engine.arch.bulk` does it for whole address spaces.
"""

import msgspec

from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Level
from engine.arch.walk import Rule


class Run(msgspec.Struct, frozen=True):
    """Neighbouring slots ``first`` .. ``last`` (both included) of a table that are of one kind."""

    first: int
    last: int
    rule: Rule


def classify(level: Level, value: int | None) -> Rule:
    """What an entry is, no access considered (so never `Rule.DENIED`). ``value`` None: its bytes are unknown."""
    if value is None:
        return Rule.UNKNOWN
    if not value & level.present:
        return Rule.NOT_PRESENT
    is_leaf = value & level.leaf
    for illegal in level.page_illegal if is_leaf else level.table_illegal:
        if value & illegal.mask == illegal.value:
            return Rule.MISCONFIGURED
    if value & (level.page_reserved if is_leaf else level.table_reserved):
        return Rule.RESERVED
    return Rule.PAGE if is_leaf else Rule.TABLE


def entry_value(memory: PhysicalMemory, level: Level, address: int) -> int | None:
    """The entry of ``level`` at physical byte ``address``; None where the memory does not know its bytes."""
    word = memory.word(address & ~7)
    if word is None or level.entry_shift == 3:
        return word
    return (word >> ((address & 4) << 3)) & 0xFFFF_FFFF


def entries(memory: PhysicalMemory, level: Level, table: int) -> list[int | None]:
    """All entries of the table at physical byte address ``table``, by slot; None where bytes are unknown."""
    count, offset = level.entries, (table & 0xFFF) >> level.entry_shift
    frame = memory.frame(table >> 12)
    if frame is None:
        return [entry_value(memory, level, table + (n << level.entry_shift)) for n in range(count)]
    words = frame if level.entry_shift == 3 else frame.cast("B").cast("I")
    return list(words[offset : offset + count])


def runs(level: Level, values: list[int | None]) -> list[Run]:
    """``values`` of a table in runs of slots of one kind, from slot 0 up."""
    found: list[Run] = []
    first, kind = 0, classify(level, values[0])
    for index in range(1, len(values)):
        value = values[index]
        rule = Rule.NOT_PRESENT if value == 0 else classify(level, value)
        if rule is not kind:
            found.append(Run(first, index - 1, kind))
            first, kind = index, rule
    found.append(Run(first, len(values) - 1, kind))
    return found
