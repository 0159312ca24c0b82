"""The explaining walker: one address, every memory reference, as a value.

Four separate pieces make a walk: the check of an entry (present, reserved), the check of rights at the leaf, the
accessed and dirty flags, and the hook through which the address of an entry goes where there is a second stage. The
walk itself changes nothing: it returns the A/D updates that hardware would make. Every access walks: no translation
cache is modelled. Sources: SDM vol. 3A, 4.3 - 4.8; APM vol. 2, 5.3 - 5.6.
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import msgspec

from engine.arch.addresses import FRAME_SIZE, is_canonical
from engine.arch.basis import Basis, manual
from engine.arch.bits import U64, bit
from engine.arch.faults import (
    GeneralProtection,
    Outcome,
    PageFault,
    Reason,
    Rights,
    Translated,
    Unknown,
    Violation,
    pf_code,
)
from engine.arch.formats import Decoded, EntryFormat, decode
from engine.arch.memory import PhysicalMemory, Words
from engine.arch.paging import Level, Paging, unmask_lam
from engine.arch.registers import CR4, RFLAGS_AC, load_pdptes
from engine.arch.rights import READ, Access, Check, Kind, combined, compile_check
from engine.arch.rules import AdPolicy
from engine.arch.second_stage import SecondStage


class Stage(Enum):
    """Whose tables are read. Where three stages are walked: GUEST is L2's, NESTED is L1's, HOST is L0's."""

    ONE = "one-stage"
    GUEST = "guest"
    NESTED = "nested"
    HOST = "host"

    @property
    def depth(self) -> int:
        """The number of stages from the first down to this one."""
        return _DEPTH[self]


_DEPTH = {Stage.ONE: 1, Stage.GUEST: 1, Stage.NESTED: 2, Stage.HOST: 3}


class Rule(Enum):
    """What was decided at an entry."""

    TABLE = "points at the next table"
    PAGE = "maps the page, and the access is allowed"
    DENIED = "maps the page, but the access is not allowed"
    NOT_PRESENT = "is not present: nothing else in it counts"
    RESERVED = "has a bit set that must be 0"
    MISCONFIGURED = "is misconfigured"
    UNKNOWN = "is not in this memory: the walk cannot go on"

    @property
    def stops(self) -> bool:
        return self not in (Rule.TABLE, Rule.PAGE)

    @property
    def basis(self) -> Basis:
        return _BASIS[self]


_BASIS = {
    Rule.TABLE: manual("SDM vol. 3A, 4.5.4; APM vol. 2, 5.3"),
    Rule.PAGE: manual("SDM vol. 3A, 4.6.1; APM vol. 2, 5.6"),
    Rule.DENIED: manual("SDM vol. 3A, 4.6.1; APM vol. 2, 5.6"),
    Rule.NOT_PRESENT: manual("SDM vol. 3A, 4.7; APM vol. 2, 5.4.1"),
    Rule.RESERVED: manual("SDM vol. 3A, 4.7; APM vol. 2, 5.4.1"),
    Rule.MISCONFIGURED: manual("SDM vol. 3C, 29.3.3.1"),
    Rule.UNKNOWN: manual("none: the image does not hold these bytes"),
}


class Step(msgspec.Struct, frozen=True, gc=False):
    """One reference to an entry, in the order hardware makes them.

    ``index``: the slot. ``address``: the physical byte address the entry was read at; None for a PDPTE register, which
    costs no reference. ``value``: the entry as read, before A/D are set; None where the bytes are unknown. ``row``: the
    guest level that this reference serves, 0 for the page itself. ``target``: the guest-physical address that a nested
    reference translates, or at which a guest entry lies; None in a one-stage walk.

    In a walk of three stages the same holds one stage further down. ``column``: the level of the middle stage that the
    reference serves, 0 for the address that the middle stage gives. ``middle``: the address in the middle stage's
    memory (L1-physical) that a host reference translates, or at which a guest or nested entry lies. ``target`` is that
    of the row, in every stage. Elsewhere 0 and None.
    """

    stage: Stage
    level: Level
    index: int
    address: int | None
    value: int | None
    rule: Rule
    row: int
    target: int | None = None
    column: int = 0
    middle: int | None = None

    @property
    def descent(self) -> tuple[Stage | int, ...]:
        """What tells the descent that this step is part of from the others of its walk."""
        return (self.stage, self.row, self.column)[: self.stage.depth]

    @property
    def is_leaf(self) -> bool:
        return self.rule in (Rule.PAGE, Rule.DENIED) or bool(
            self.value is not None and self.rule is not Rule.NOT_PRESENT and self.value & self.level.leaf
        )

    @property
    def entry(self) -> EntryFormat:
        """The format the entry was read as."""
        fmt = self.level.format
        return fmt.entry(self.is_leaf or fmt.table is None)

    @property
    def table(self) -> int | None:
        """The physical byte address of the table that the entry is in."""
        if self.address is None:
            return None
        return self.address - (self.index << self.level.entry_shift)

    @property
    def base(self) -> int | None:
        """The physical byte address that the entry points at; None where it points nowhere."""
        if self.value is None or (self.rule.stops and self.rule is not Rule.DENIED):
            return None
        return self.entry.base(self.value)

    def decoded(self) -> list[Decoded]:
        """The fields of the entry, from bit 0 up; empty where the bytes are unknown."""
        return decode(self.entry, self.value, self.level.setting) if self.value is not None else []


class Update(msgspec.Struct, frozen=True, gc=False):
    """An accessed or dirty flag that the walk set: the entry of ``size`` bytes at physical ``address``."""

    address: int
    size: int
    old: int
    new: int


class Walk(msgspec.Struct, frozen=True, gc=False):
    """A translation and all its evidence. ``linear``: the address after LAM, which is what was walked.

    ``second``: the second stage, ``host``: the third, where there are that many. ``stopped_by``: the stage whose fault
    the outcome is, and so who is told of it; None where the access goes through.
    """

    address: int
    linear: int
    access: Access
    paging: Paging
    steps: tuple[Step, ...]
    outcome: Outcome
    updates: tuple[Update, ...]
    second: SecondStage | None = None
    host: SecondStage | None = None
    stopped_by: Stage | None = None

    def stage(self, stage: Stage) -> Paging:
        """What ``stage`` of this walk translates with."""
        below = {Stage.NESTED: self.second, Stage.HOST: self.host}.get(stage)
        return below.paging if below is not None else self.paging

    @property
    def gpa(self) -> int | None:
        """The guest-physical address that the guest's own tables give; None in one stage, or where they give none."""
        return next((step.target for step in self.steps if step.row == 0), None)

    @property
    def references(self) -> int:
        """Memory references made to paging-structure entries (A/D writes and the access itself not counted)."""
        return sum(step.address is not None for step in self.steps)

    @property
    def cache_lines(self) -> int:
        """Distinct 64-byte lines among the references."""
        return len({step.address >> 6 for step in self.steps if step.address is not None})

    @property
    def ok(self) -> bool:
        return isinstance(self.outcome, Translated)

    def rights_after(self, number: int) -> Rights:
        """The rights that the entries used so far leave, in the descent that step ``number`` (from 0) is part of.

        That is the whole walk in one stage; for a guest entry the guest's entries, for a nested one those read for the
        same guest-physical address.
        """
        last = self.steps[number]
        every, some, leaf = -1, 0, 0
        for step in self.steps[: number + 1]:
            if step.descent == last.descent and step.value is not None and step.rule not in _NO_RIGHTS:
                every &= step.value | step.level.neutral
                some |= step.value
                leaf = step.value
        return combined(self.stage(last.stage), every, some, leaf)


_NO_RIGHTS = (Rule.NOT_PRESENT, Rule.RESERVED, Rule.MISCONFIGURED, Rule.UNKNOWN)


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """A descent that reached a page. ``address``: physical byte address; the rest is evidence for the rights.

    ``below``: the same page in the stage below, where the addresses that this stage gives are translated further:
    ``middle`` is the one it gave, ``address`` and ``page_shift`` are what both make of it.
    """

    address: int
    page_shift: int
    every: int
    some: int
    tables: int
    value: int
    middle: int | None = None
    below: "Leaf | None" = None


class Stop(msgspec.Struct, frozen=True):
    """A descent that ended early at the entry at physical ``address``.

    ``every``: AND of the entries used where the leaf was reached, else 0; ``leaf``: that leaf. ``why``: the rule that a
    misconfigured entry breaks. ``nested``: the NESTED or HOST stage that stopped a walk through it, None otherwise, for
    its input address ``target`` and an access that needed ``check``; ``final``: the access itself, not one to a table.
    """

    reason: Reason
    every: int = 0
    violations: tuple[Violation, ...] = ()
    reserved: int = 0
    address: int = 0
    leaf: int = 0
    why: str = ""
    nested: Stage | None = None
    target: int = 0
    check: Check | None = None
    final: bool = False


class Through(Protocol):
    """The stage below, as the walk of the stage above uses it."""

    def entry(
        self, trail: "Trail", address: int, row: int, target: int, column: int = 0, middle: int | None = None
    ) -> Leaf | Stop:
        """Where the paging-structure entry at ``address`` of the stage above lies in memory, or why it cannot be read.

        ``row`` and what follows it as `Step` has them.
        """

    def update(self, page: Leaf, address: int) -> Stop | None:
        """Why an A/D flag cannot be written to the entry at ``address``, which lies in ``page``; None: it can."""


class Trail:
    """What a walk leaves behind while it is under way: its steps, and the A/D flags it set.

    Flags set earlier in the walk are seen by later reads, word by word, so that tables which map themselves, or two
    stages that share a page, behave as they do in hardware.
    """

    __slots__ = ("frame", "memory", "steps", "updates", "words")

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.frame = memory.frame
        self.steps: list[Step] = []
        self.words: dict[int, int] = {}
        self.updates: dict[int, Update] = {}

    def set_flags(self, address: int, entry_shift: int, old: int, flags: int) -> None:
        """Set ``flags`` in the entry of ``1 << entry_shift`` bytes at ``address``, which was read as ``old``."""
        at = address & ~7
        shift = (address & 7) * 8
        word = self.words.get(at)
        if word is None:
            word = self.memory.word(at) or 0
        self.words[at] = word = word | flags << shift
        before = self.updates.get(address)
        new = word >> shift & (1 << (8 << entry_shift)) - 1
        self.updates[address] = Update(address, 1 << entry_shift, before.old if before else old, new)


def descend(
    trail: Trail,
    levels: tuple[Level, ...],
    base: int,
    address: int,
    check: Check,
    stage: Stage,
    row: int = 0,
    target: int | None = None,
    through: Through | None = None,
    late_flags: bool = False,
    column: int = 0,
    middle: int | None = None,
) -> Leaf | Stop:
    """Walk ``address`` down ``levels`` from the table at ``base`` and check ``check`` at the leaf.

    ``row``, ``target``: what is served, for a nested descent (a guest's or one-stage descent numbers its own rows);
    ``column``, ``middle``: the same for a host's (a nested descent through a host numbers its own columns).
    ``late_flags``: A/D of all entries are set once the rights are known to suffice, not level by level.
    """
    frame_of, add, words = trail.frame, trail.steps.append, trail.words
    need, deny_all, deny_any = check.need, check.deny_all, check.deny_any
    every, some, tables = -1, 0, -1
    used: list[tuple[int, int, int, int, Leaf | None, int]] = []
    page: Leaf | None = None
    own_rows = stage is not _NESTED and stage is not _HOST
    lies = 0
    for lv in levels:
        (
            number, shift, index_mask, entry_shift, present, leaf, neutral, table_reserved, page_reserved, has_illegal,
            table_address, accessed,
        ) = lv.hot  # fmt: skip
        index = (address >> shift) & index_mask
        at = base + (index << entry_shift)
        if own_rows:
            row = number
        if through is not None:
            lies = at
            if own_rows:
                target = at
                found = through.entry(trail, at, row, at)
            else:
                column, middle = number, at
                found = through.entry(trail, at, row, target or 0, number, at)
            if isinstance(found, Stop):
                return found
            page, at = found, found.address
            if own_rows:
                middle = found.middle
        frame = frame_of(at >> 12)
        word = frame[(at & 0xFFF) >> 3] if frame is not None else trail.memory.word(at & ~7)
        if words and at & ~7 in words:
            word = words[at & ~7]
        if word is None:
            add(Step(stage, lv, index, at, None, Rule.UNKNOWN, row, target, column, middle))
            return Stop(Reason.UNKNOWN, address=at)
        value = word if entry_shift == 3 else (word >> ((at & 4) << 3)) & 0xFFFF_FFFF

        if not value & present:
            add(Step(stage, lv, index, at, value, Rule.NOT_PRESENT, row, target, column, middle))
            return Stop(Reason.NOT_PRESENT, address=at)
        is_leaf = value & leaf
        if has_illegal:
            for illegal in lv.page_illegal if is_leaf else lv.table_illegal:
                if value & illegal.mask == illegal.value:
                    add(Step(stage, lv, index, at, value, Rule.MISCONFIGURED, row, target, column, middle))
                    return Stop(Reason.MISCONFIGURED, address=at, why=illegal.why)
        reserved = value & (page_reserved if is_leaf else table_reserved)
        if reserved:
            add(Step(stage, lv, index, at, value, Rule.RESERVED, row, target, column, middle))
            return Stop(Reason.RESERVED, reserved=reserved, address=at)

        every &= value | neutral
        some |= value
        if is_leaf:
            plain = every & need == need and not every & deny_all and not some & deny_any
            if not plain or (check.is_special and not check.allows(every, some, tables, value)):
                add(Step(stage, lv, index, at, value, Rule.DENIED, row, target, column, middle))
                return Stop(Reason.RIGHTS, every, check.violations(every, some, tables, value), address=at, leaf=value)
            add(Step(stage, lv, index, at, value, _PAGE, row, target, column, middle))
            flags = (accessed | lv.dirty if check.writes else accessed) & ~value
        else:
            add(Step(stage, lv, index, at, value, _TABLE, row, target, column, middle))
            flags = accessed & ~value
        if flags:
            if late_flags:
                used.append((at, entry_shift, value, flags, page, lies))
            elif through is None:
                trail.set_flags(at, entry_shift, value, flags)
            elif (refused := _set_flags(trail, through, at, entry_shift, value, flags, page, lies)) is not None:
                return refused
        if is_leaf:
            for late in used:
                if (refused := _set_flags(trail, through, *late)) is not None:
                    return refused
            page_shift = lv.page_shift
            physical = (value & lv.page_address) | ((value & lv.high) << lv.high_shift)
            return Leaf(physical | address & ((1 << page_shift) - 1), page_shift, every, some, tables, value)
        tables = every
        base = value & table_address
    raise AssertionError("the last level always maps a page")


_NESTED, _HOST = Stage.NESTED, Stage.HOST  # names of this module are found faster than members
_TABLE, _PAGE = Rule.TABLE, Rule.PAGE


def _set_flags(
    trail: Trail,
    through: Through | None,
    at: int,
    entry_shift: int,
    old: int,
    flags: int,
    page: Leaf | None,
    lies: int,
) -> Stop | None:
    """Set ``flags`` in the entry at ``at``, or say why not: it is at ``lies``, in ``page``, for the stage below."""
    if page is not None and through is not None:
        refused = through.update(page, lies)
        if refused is not None:
            return refused
    trail.set_flags(at, entry_shift, old, flags)
    return None


def walk(memory: PhysicalMemory, paging: Paging, address: int, access: Access = READ) -> Walk:
    """Translate linear ``address`` for ``access`` under ``paging``, one stage.

    Pure: apply `Walk.updates` to memory to have the accessed and dirty flags set.
    """
    linear, end_of_access = address, address + access.size
    if end_of_access > paging.low_end and not paging.high_start <= address < end_of_access <= _TOP:
        refused, linear = check_address(paging, address, access)
        if refused is not None:
            return Walk(address, linear, access, paging, (), refused, (), stopped_by=Stage.ONE)
    if paging.format is None:
        whole = Rights(read=True, write=True, execute=True, user=True)
        return Walk(address, linear, access, paging, (), Translated(linear, 0, whole), ())
    trail = Trail(memory)
    check = compile_check(paging, access)
    levels, base = paging.levels, paging.root
    end: Leaf | Stop | Outcome | None = None
    if paging.pdptes_are_registers:
        end, base = pdpte_register(trail, paging, linear, Stage.ONE)
        levels = levels[1:]
    if end is None:
        end = descend(trail, levels, base, linear, check, Stage.ONE)
    outcome: Outcome
    stopped_by: Stage | None = Stage.ONE
    if isinstance(end, Leaf):
        stopped_by = None
        outcome = Translated(end.address, 1 << end.page_shift, combined(paging, end.every, end.some, end.value))
    elif isinstance(end, Stop):
        outcome = page_fault(end, check, linear)
    else:
        outcome = end
    updates = flags_written(trail, paging, outcome) if trail.updates else ()
    steps = tuple(trail.steps)
    return Walk(address, linear, access, paging, steps, outcome, updates, None, None, stopped_by)


_TOP = U64 + 1


def walk_access(memory: PhysicalMemory, paging: Paging, address: int, access: Access = READ) -> tuple[Walk, ...]:
    """The one or two one-stage walks of an access, as `by_page` has them."""
    return by_page(lambda part: walk(memory, paging, part, access), address, access.size)


def by_page(one: Callable[[int], Walk], address: int, size: int) -> tuple[Walk, ...]:
    """The walks of an access of ``size`` bytes, each by ``one``: an access that crosses a page is two walks.

    Both are checked before anything is stored; the second is missing where the first faults (SDM vol. 3A, 4.7).
    """
    first = one(address)
    last = (address + size - 1) & U64
    if not first.ok or last // FRAME_SIZE == address // FRAME_SIZE:
        return (first,)
    return first, one(last & ~(FRAME_SIZE - 1))


def check_address(paging: Paging, address: int, access: Access) -> tuple[GeneralProtection | None, int]:
    """Canonical form, LAM and LASS, which come before the walk; and the address that is walked.

    SDM vol. 1, 3.3.7.1; vol. 3A, 4.4 (LAM) and 4.6.3 (LASS). Outside long mode an address has 32 bits.
    """
    if not paging.mode.is_long:
        return None, address & ((1 << paging.width) - 1)
    vector = 12 if access.stack else 13
    linear = address
    if access.kind is not Kind.FETCH and not access.implicit:
        linear = unmask_lam(paging, address)
    if not all(is_canonical(end & U64, paging.width) for end in (linear, linear + access.size - 1)):
        reason = f"the address is not canonical: bits 63:{paging.width - 1} are not all equal"
        return GeneralProtection(reason=reason, vector=vector, basis=manual("SDM vol. 1, 3.3.7.1")), linear
    r = paging.registers
    if r.cr4 & CR4.LASS:
        user, upper = access.is_user(r.cpl), bool(linear & bit(63))
        wants_smap = r.cr4 & CR4.SMAP and (access.implicit or not r.rflags & RFLAGS_AC)
        if (user and upper) or (not user and not upper and (access.kind is Kind.FETCH or wants_smap)):
            reason = "LASS: this half of the address space is closed to the access"
            return GeneralProtection(reason=reason, vector=vector, basis=manual("SDM vol. 3A, 4.6.3")), linear
    return None, linear


def pdpte_register(
    trail: Trail, paging: Paging, linear: int, stage: Stage, memory: Words | None = None
) -> tuple[Stop | GeneralProtection | Unknown | None, int]:
    """The step through one of the four PDPTE registers: what stops it, if anything does, and the directory's address.

    Registers that were not loaded are loaded from ``memory`` (default: the trail's), as MOV to CR3 does
    (SDM vol. 3A, 4.4.1).
    """
    lv = paging.levels[0]
    pdptes = paging.registers.pdptes
    if pdptes is None:
        loaded = load_pdptes(memory or trail.memory, paging.registers.cr3, paging.features)
        if not isinstance(loaded, tuple):
            return loaded, 0
        pdptes = loaded
    index = (linear >> lv.shift) & lv.index_mask
    value = pdptes[index]
    present = bool(value & lv.present)
    rule = Rule.TABLE if present else Rule.NOT_PRESENT
    trail.steps.append(Step(stage, lv, index, None, value, rule, lv.level))
    return None if present else Stop(Reason.NOT_PRESENT), value & lv.table_address


def page_fault(stop: Stop, check: Check, linear: int) -> PageFault | Unknown:
    """The #PF (or missing bytes) that ``stop`` is to the one who made the access."""
    if stop.reason is Reason.UNKNOWN:
        return Unknown(stop.address)
    code = pf_code(
        stop.reason,
        write=check.writes,
        user=check.user,
        fetch=check.reports_fetch,
        key=Violation.PROTECTION_KEY in stop.violations,
        shadow_stack=check.shadow_stack,
    )
    basis = manual("SDM vol. 3A, 4.7; APM vol. 2, 8.4.2")
    return PageFault(code, linear, stop.reason, basis, stop.violations, stop.reserved)


def flags_written(trail: Trail, paging: Paging, outcome: Outcome) -> tuple[Update, ...]:
    """The A/D updates that stay, as the rule for walks that fault has it."""
    if not isinstance(outcome, Translated) and paging.rules.ad_policy is AdPolicy.COMMIT:
        return ()
    return tuple(trail.updates.values())
