"""The two-dimensional walk: a guest's tables through a second stage; and that through a third, where a guest nests.

Each reference is one Step, in the order hardware makes them: for each guest level from the top the nested references
that translate the address of the guest's entry, then that entry; at last those for the page itself. The walk is that of
`walk.descend`, once a stage. Sources: SDM vol. 3C, 29.3; AMD APM vol. 2, 15.25.

No processor walks three stages. The walk with a ``host`` is what L2 and L1 take for granted: L2's addresses go through
the second stage that L1 wrote, and L1's, those of that stage's own tables among them, through L0's. Each stage is to
the one below what a guest is to its second stage, with the same rules for rights and flags.
"""

import msgspec

from engine.arch.basis import Basis, manual
from engine.arch.bits import bit
from engine.arch.faults import (
    EptMisconfiguration,
    EptViolation,
    NestedPageFault,
    Outcome,
    Reason,
    Rights,
    Translated,
    Unknown,
)
from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Paging
from engine.arch.registers import CR4
from engine.arch.rights import READ, Access, Check, combined, compile_check
from engine.arch.rules import NpfId
from engine.arch.second_stage import (
    EPT_NAMES,
    EPT_R,
    EPT_SSS,
    EPT_XU,
    FETCH_BIT,
    HIGH_GPA,
    Kind2,
    SecondStage,
    final_check,
)
from engine.arch.walk import (
    Leaf,
    Stage,
    Stop,
    Trail,
    Walk,
    by_page,
    check_address,
    descend,
    flags_written,
    page_fault,
    pdpte_register,
)

_PDPTE_LOAD = Check(need=EPT_R, names=EPT_NAMES)
"""A PDPTE load by MOV to CR is a read even where EPT has A/D flags (SDM vol. 3C, 29.3.3.2)."""


class _Second:
    """A second stage as the walk above goes through it, and ``host``, the stage that it goes through itself."""

    def __init__(self, second: SecondStage, host: SecondStage | None = None, stage: Stage = Stage.NESTED) -> None:
        self._second = second
        self._levels, self._root, self._reach = second.paging.levels, second.paging.root, second.reach
        self._stage, self._late_flags = stage, second.late_flags
        self._host = _Second(host, stage=Stage.HOST) if host is not None else None
        self._table: tuple[Check, ...] = (second.table, host.table) if host is not None else (second.table,)

    def translate(
        self,
        trail: Trail,
        address: int,
        checks: tuple[Check, ...],
        row: int,
        target: int,
        column: int = 0,
        middle: int | None = None,
        final: bool = False,
    ) -> Leaf | Stop:
        """Where ``address`` lies, for an access that needs ``checks``: one of this stage, then of those below."""
        host = self._host
        if address >> self._reach:
            return Stop(Reason.OUT_OF_RANGE, nested=self._stage, target=address, check=checks[0], final=final)
        found = descend(
            trail, self._levels, self._root, address, checks[0], self._stage, row, target, host, self._late_flags,
            column, middle,
        )  # fmt: skip
        if isinstance(found, Stop):
            if found.nested is not None:
                return found
            return msgspec.structs.replace(found, nested=self._stage, target=address, check=checks[0], final=final)
        if host is None:
            return found
        below = host.translate(trail, found.address, checks[1:], row, target, 0, found.address, final)
        if isinstance(below, Stop):
            return below
        size = min(found.page_shift, below.page_shift)
        return msgspec.structs.replace(found, address=below.address, page_shift=size, middle=found.address, below=below)

    def entry(
        self, trail: Trail, address: int, row: int, target: int, column: int = 0, middle: int | None = None
    ) -> Leaf | Stop:
        return self.translate(trail, address, self._table, row, target, column, middle)

    def update(self, page: Leaf, address: int) -> Stop | None:
        missing = self._second.update_needs & ~page.every
        if missing:
            table = self._second.table
            writing = msgspec.structs.replace(table, need=table.need | missing, writes=True)
            return Stop(
                Reason.RIGHTS, page.every, writing.violations(page.every, page.some, page.tables, page.value),
                address=page.address, leaf=page.value, nested=self._stage, target=address, check=writing,
            )  # fmt: skip
        if self._host is None or page.below is None or page.middle is None:
            return None
        return self._host.update(page.below, page.middle)


class GuestPhysical:
    """Guest-physical memory read through the stages below, for the loads of PDPTE registers.

    A load that one of them stops gives unknown bytes; `stopped` tells why.
    """

    def __init__(self, memory: PhysicalMemory, second: SecondStage, host: SecondStage | None = None) -> None:
        self._memory = memory
        self._second = _Second(second, host)
        self._checks = (_PDPTE_LOAD,) * (1 if host is None else 2)
        self.stopped: Stop | None = None

    def word(self, address: int) -> int | None:
        found = self._second.translate(Trail(self._memory), address, self._checks, 0, address)
        if isinstance(found, Stop):
            self.stopped = found
            return None
        return self._memory.word(found.address & ~7)


def walk_nested(
    memory: PhysicalMemory,
    guest: Paging,
    second: SecondStage,
    address: int,
    access: Access = READ,
    host: SecondStage | None = None,
) -> Walk:
    """Translate guest-linear ``address`` to host-physical: ``guest`` through ``second``, both read from ``memory``.

    ``host``: the third stage, of the same kind as ``second``, through which L1's memory is seen; ``second`` is then
    L1's and ``guest`` L2's. ``guest`` is bound with ``pdptes_from_memory`` under NPT. Pure: apply `Walk.updates` for
    the flags of all stages.
    """
    refused, linear = check_address(guest, address, access)
    if refused is not None:
        return Walk(address, linear, access, guest, (), refused, (), second, host, Stage.GUEST)
    trail = Trail(memory)
    outcome, stopped_by = _translate(trail, guest, second, host, linear, access)
    updates = flags_written(trail, guest, outcome)
    return Walk(address, linear, access, guest, tuple(trail.steps), outcome, updates, second, host, stopped_by)


def walk_nested_access(
    memory: PhysicalMemory,
    guest: Paging,
    second: SecondStage,
    address: int,
    access: Access = READ,
    host: SecondStage | None = None,
) -> tuple[Walk, ...]:
    """The one or two walks of an access, as `walk.walk_access` has them, through two or three stages."""
    return by_page(lambda part: walk_nested(memory, guest, second, part, access, host), address, access.size)


def _translate(
    trail: Trail, guest: Paging, second: SecondStage, host: SecondStage | None, linear: int, access: Access
) -> tuple[Outcome, Stage | None]:
    """The outcome, and the stage that stopped the walk."""
    through = _Second(second, host)
    user_page, rights, page_shift, gpa = True, _ALL, 64, linear
    if guest.format is not None:
        check = compile_check(guest, access)
        levels, base = guest.levels, guest.root
        if guest.pdptes_are_registers:
            physical = GuestPhysical(trail.memory, second, host)
            stopped, base = pdpte_register(trail, guest, linear, Stage.GUEST, physical)
            if physical.stopped is not None:
                return _nested_fault(physical.stopped, second, host, None, None, access), physical.stopped.nested
            if isinstance(stopped, Stop):
                return page_fault(stopped, check, linear), Stage.GUEST
            if stopped is not None:
                return stopped, Stage.GUEST
            levels = levels[1:]
        end = descend(trail, levels, base, linear, check, Stage.GUEST, through=through)
        if isinstance(end, Stop):
            if end.nested is not None:
                return _nested_fault(end, second, host, linear, None, access), end.nested
            return page_fault(end, check, linear), Stage.GUEST
        rights = combined(guest, end.every, end.some, end.value)
        user_page, page_shift, gpa = rights.user, end.page_shift, end.address
    cpl = guest.registers.cpl
    final: tuple[Check, ...] = (final_check(second, access, cpl, user_page),)
    if host is not None:
        final = (*final, final_check(host, access, cpl, user_page))
    page = through.translate(trail, gpa, final, 0, gpa, final=True)
    if isinstance(page, Stop):
        return _nested_fault(page, second, host, linear, rights if page.final else None, access), page.nested
    both = _both(rights, second, page)
    if host is not None and host.restricts and page.below is not None:
        both = _both(both, host, page.below)
    return Translated(page.address, 1 << min(page_shift, page.page_shift), both), None


def _both(rights: Rights, second: SecondStage, page: Leaf) -> Rights:
    """What is left of the ``rights`` above in ``page`` of ``second``."""
    nested = combined(second.paging, page.every, page.some, page.value)
    return msgspec.structs.replace(
        rights,
        read=rights.read and nested.read,
        write=rights.write and nested.write,
        execute=rights.execute and nested.execute,
    )


_ALL = Rights(read=True, write=True, execute=True, user=True)


def _nested_fault(
    stop: Stop,
    second: SecondStage,
    host: SecondStage | None,
    linear: int | None,
    page: Rights | None,
    access: Access,
) -> Outcome:
    """The exit that ``stop`` is. ``linear``: None where no linear address is valid. ``page``: the guest's rights on the
    page where the final address failed, None where it was the address of an entry of the stages above."""
    if stop.nested is Stage.HOST and host is not None:
        second = host
    if stop.reason is Reason.UNKNOWN:
        return Unknown(stop.address)
    assert stop.check is not None
    if second.kind is Kind2.NPT:
        return _npf(stop, second, stop.check, page is not None, access)
    if stop.reason in (Reason.MISCONFIGURED, Reason.RESERVED):
        why = stop.why or "a reserved bit is set"
        return EptMisconfiguration(stop.target, why, manual("Intel SDM vol. 3C, 29.3.3.1"))
    qualification = _qualification(stop, second, stop.check, linear is not None, page)
    basis = manual("Intel SDM vol. 3C, 28.2.1, table 28-7; 29.3.3.2")
    return EptViolation(qualification, stop.target, linear, stop.reason, basis, stop.violations)


def _npf(stop: Stop, second: SecondStage, check: Check, final: bool, access: Access) -> NestedPageFault:
    """EXITINFO1 as the APM, 15.25.6, composes it; bit 4 as the rule ``npf_id`` has it."""
    paging = second.paging
    told = {
        NpfId.NXE_OR_SMEP: paging.setting.nxe or bool(paging.registers.cr4 & CR4.SMEP),
        NpfId.NXE: paging.setting.nxe,
        NpfId.ALWAYS: True,
    }[paging.rules.npf_id]
    shadow_stack = final and access.kind.is_shadow_stack
    on_shadow_page = check.shadow_stack and stop.leaf and not check.violations(stop.every, 0, stop.every, stop.leaf)
    info = (
        (stop.reason not in (Reason.NOT_PRESENT, Reason.OUT_OF_RANGE)) * bit(0)
        | check.writes * bit(1)
        | check.user * bit(2)
        | (stop.reason is Reason.RESERVED) * bit(3)
        | (check.fetch and told) * bit(4)
        | shadow_stack * bit(6)
        | (bit(32) if final else bit(33))
        | bool(on_shadow_page) * bit(37)
    )
    basis: Basis = manual("AMD APM vol. 2, 15.25.6")
    if stop.reason is Reason.OUT_OF_RANGE:
        basis = HIGH_GPA
    elif check.fetch and not paging.setting.nxe:
        basis = FETCH_BIT
    return NestedPageFault(info, stop.target, stop.reason, basis, stop.violations, stop.reserved)


def _qualification(stop: Stop, second: SecondStage, check: Check, linear: bool, page: Rights | None) -> int:
    """The exit qualification of an EPT violation (SDM vol. 3C, table 28-7).

    Bits 5:3 and 6 are the AND over all entries used, 0 where one was missing (``stop.every`` is 0 then). A use of a
    guest's entry that is a write counts as a read as well (table 28-7, note 1).
    """
    final = page is not None
    bits = (check.fetch * bit(2)) or (check.writes * bit(1)) or bit(0)
    if check.writes and not final:
        bits |= bit(0)
    bits |= (stop.every & 0b111) << 3
    if second.paging.setting.mbec and stop.every & EPT_XU:
        bits |= bit(6)
    if linear:
        bits |= bit(7) | final * bit(8)
    if page is not None and linear and second.advanced_info:
        bits |= page.user * bit(9) | page.write * bit(10) | (not page.execute) * bit(11)
    if check.shadow_stack:
        bits |= bit(13)
    if second.supervisor_shadow_stack and stop.leaf & EPT_SSS:
        bits |= bit(14)
    return bits
