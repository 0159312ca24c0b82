"""Translation cases as JSON values: registers, memory and one access in; what the processor answers out.

The schema is that of the golden data that real emulators made, so that any walker can be fed the same cases. Answers
follow the rules that those emulators follow (`EMULATORS`). Memory that a case does not list reads as zero.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from engine.arch.bits import U64
from engine.arch.faults import (
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    NestedPageFault,
    Outcome,
    PageFault,
    Translated,
)
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import bind
from engine.arch.registers import RFLAGS_AC, Features, Registers, Vendor
from engine.arch.rights import Access, Kind
from engine.arch.rules import EMULATORS
from engine.arch.second_stage import EptCapabilities, Kind2, SecondStage, ept, npt
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
    """One access through one stage. Numbers are hex strings; ``memory``: 8-byte words at consecutive addresses."""

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


class HostSpec(msgspec.Struct, frozen=True):
    """The hypervisor's registers when it entered the guest."""

    cr0: str
    cr4: str
    efer: str
    maxphyaddr: int


class GuestSpec(msgspec.Struct, frozen=True):
    cr0: str
    cr3: str
    cr4: str
    efer: str
    cpl: int
    pdptes: tuple[str, str, str, str] | None = None


class NestedAccessSpec(msgspec.Struct, frozen=True):
    type: Literal["read", "write", "fetch"]
    gva: str


class NestedCase(msgspec.Struct, frozen=True, kw_only=True):
    """One access through two stages; ``memory`` is the host's. ``ncr3`` on AMD, ``eptp`` on Intel."""

    id: str
    vendor: Literal["amd", "intel"]
    host: HostSpec
    guest: GuestSpec
    memory: Memory
    access: NestedAccessSpec
    ncr3: str | None = None
    eptp: str | None = None
    advanced_info: bool = False


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
    if isinstance(case, dict) and "host" in case:
        return _answer_two_stages(msgspec.convert(case, NestedCase))
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
    return {"id": case.id, "expect": expect(result.outcome), "ad_after": ad_after(result)}


def _answer_two_stages(case: NestedCase) -> dict[str, Any]:
    second = _second_stage(case)
    if isinstance(second, EntryFailure):
        return {"id": case.id, "expect": {"ok": False, "kind": "entry_failure"}, "ad_after": []}
    g = case.guest
    guest = Registers(
        cr0=number(g.cr0), cr3=number(g.cr3), cr4=number(g.cr4), efer=number(g.efer), cpl=g.cpl, pdptes=_pdptes(g)
    )
    features = Features(vendor=Vendor(case.vendor), maxphyaddr=case.host.maxphyaddr)
    paging = bind(guest, features, EMULATORS, pdptes_from_memory=second.kind is Kind2.NPT)
    access = Access(KINDS[case.access.type])
    result = walk_nested(memory(case.memory), paging, second, number(case.access.gva), access)
    return {"id": case.id, "expect": expect_nested(result.outcome), "ad_after": ad_after(result)}


def _second_stage(case: NestedCase) -> SecondStage | EntryFailure:
    host = case.host
    if case.vendor == "intel":
        if case.eptp is None:
            raise ValueError("an Intel case with a host needs eptp")
        return ept(number(case.eptp), host.maxphyaddr, EptCapabilities(advanced_info=case.advanced_info), EMULATORS)
    if case.ncr3 is None:
        raise ValueError("an AMD case with a host needs ncr3")
    registers = Registers(cr0=number(host.cr0), cr4=number(host.cr4), efer=number(host.efer))
    features = Features(vendor=Vendor.AMD, maxphyaddr=host.maxphyaddr)
    return npt(registers, features, number(case.ncr3), EMULATORS)


def _pdptes(guest: GuestSpec) -> tuple[int, int, int, int] | None:
    if guest.pdptes is None:
        return None
    first, second, third, fourth = map(number, guest.pdptes)
    return first, second, third, fourth


def expect(outcome: Outcome) -> dict[str, Any]:
    """The outcome of a one-stage walk in the words of the schema."""
    match outcome:
        case Translated():
            return {"ok": True, "pa": hex(outcome.address)}
        case PageFault():
            return {"ok": False, "vector": 14, "error_code": outcome.error_code, "cr2": hex(outcome.cr2)}
        case GeneralProtection():
            when = {"when": outcome.when} if outcome.when else {}
            return {"ok": False, "vector": outcome.vector, "error_code": 0, "cr2": None, **when}
    raise AssertionError(f"not an outcome of one stage in known memory: {outcome}")


def expect_nested(outcome: Outcome) -> dict[str, Any]:
    """The outcome of a two-dimensional walk in the words of the schema."""
    match outcome:
        case Translated():
            return {"ok": True, "hpa": hex(outcome.address)}
        case PageFault():
            return {"ok": False, "kind": "guest_pf", "error_code": outcome.error_code, "cr2": hex(outcome.cr2)}
        case NestedPageFault():
            info = {"exitinfo1": hex(outcome.exitinfo1), "exitinfo2": hex(outcome.exitinfo2)}
            return {"ok": False, "kind": "npf", **info}
        case EptViolation():
            gla = None if outcome.gla is None else hex(outcome.gla)
            where = {"gpa": hex(outcome.gpa), "gla": gla}
            return {"ok": False, "kind": "ept_violation", "qualification": hex(outcome.qualification), **where}
        case EptMisconfiguration():
            return {"ok": False, "kind": "ept_misconfig", "gpa": hex(outcome.gpa)}
        case GeneralProtection():
            return {"ok": False, "kind": "guest_gp", "error_code": 0}
    raise AssertionError(f"all memory of a case is known: {outcome}")


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
