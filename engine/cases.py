"""Translation cases as JSON values: registers, memory and one access in; what the processor answers out.

The schema is that of the golden data that real emulators made, so that any walker can be fed the same cases. Answers
follow the rules that those emulators follow (`EMULATORS`). Memory that a case does not list reads as zero.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from engine.arch.bits import U64
from engine.arch.faults import GeneralProtection, PageFault, Translated
from engine.arch.paging import bind
from engine.arch.registers import RFLAGS_AC, Features, Registers
from engine.arch.rights import Access, Kind
from engine.arch.rules import EMULATORS
from engine.arch.walk import Walk, walk
from engine.errors import InputError
from engine.memory.physical import ZERO, SparseMemory

Memory = list[tuple[str, list[str]]]
KINDS = {"read": Kind.READ, "write": Kind.WRITE, "fetch": Kind.FETCH}
PSE36_ADDRESS_BITS = 36
"""A CPU with narrower physical addresses has no PSE-36."""


class AccessSpec(msgspec.Struct, frozen=True):
    type: Literal["read", "write", "fetch"]
    va: str


class Case(msgspec.Struct, frozen=True):
    """One access under one stage. Numbers are hex strings; ``memory``: 8-byte words at consecutive addresses."""

    id: str
    cr0: str
    cr3: str
    cr4: str
    efer: str
    cpl: int
    maxphyaddr: int
    memory: Memory
    access: AccessSpec
    pkru: str = "0x0"
    eflags_ac: bool = False


def answers(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The answer to each line of JSON; blank lines have none. InputError names the first line that is no case."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield answer(msgspec.json.decode(line))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
            raise InputError(f"Line {number} is not a case: {error}.") from None


def answer(case: Any) -> dict[str, Any]:
    """The answer to one case: its ``id``, ``expect`` and ``ad_after``.

    Raises msgspec.ValidationError where ``case`` does not have the schema, and ValueError where a number is not one.
    """
    return _answer_one_stage(msgspec.convert(case, Case))


def _answer_one_stage(case: Case) -> dict[str, Any]:
    registers = Registers(
        cr0=number(case.cr0),
        cr3=number(case.cr3),
        cr4=number(case.cr4),
        efer=number(case.efer),
        pkru=number(case.pkru),
        rflags=Registers().rflags | (RFLAGS_AC if case.eflags_ac else 0),
        cpl=case.cpl,
    )
    features = Features(maxphyaddr=case.maxphyaddr, pse36=case.maxphyaddr >= PSE36_ADDRESS_BITS)
    paging = bind(registers, features, EMULATORS)
    result = walk(memory(case.memory), paging, number(case.access.va), Access(KINDS[case.access.type]))
    return {"id": case.id, "expect": expect(result), "ad_after": ad_after(result)}


def expect(result: Walk) -> dict[str, Any]:
    """The outcome of a one-stage walk in the words of the schema."""
    outcome = result.outcome
    if isinstance(outcome, Translated):
        return {"ok": True, "pa": hex(outcome.address)}
    if isinstance(outcome, PageFault):
        return {"ok": False, "vector": 14, "error_code": outcome.error_code, "cr2": hex(outcome.cr2)}
    assert isinstance(outcome, GeneralProtection), "all memory of a case is known"
    when = {"when": outcome.when} if outcome.when else {}
    return {"ok": False, "vector": outcome.vector, "error_code": 0, "cr2": None, **when}


def ad_after(result: Walk) -> list[list[str]]:
    """The entries that the walk changed and their new values, but for those that the access itself then overwrites."""
    outcome = result.outcome
    overwritten = outcome.address & ~7 if isinstance(outcome, Translated) and result.access.kind.writes else None
    return [[hex(u.address), hex(u.new)] for u in result.updates if u.address & ~7 != overwritten]


def memory(listed: Memory) -> SparseMemory:
    """Memory that holds the words listed and zero everywhere else."""
    words = {}
    for start, values in listed:
        address = number(start)
        for value in values:
            words[address] = number(value)
            address += 8
    return SparseMemory(ZERO).with_words(words)


def number(text: str) -> int:
    """The unsigned 64-bit number that ``text`` gives in hex."""
    value = int(text, 16)
    if not 0 <= value <= U64:
        raise ValueError(f"{text[:40]} is not an unsigned 64-bit number")
    return value
