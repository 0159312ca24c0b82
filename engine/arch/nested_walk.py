"""The two-dimensional walk: a guest's tables through a second stage.

Each reference is one Step, in the order hardware makes them: for each guest level from the top the nested references
that translate the address of the guest's entry, then that entry; at last those for the page itself. The walk is that of
`walk.descend`, twice. Sources: SDM vol. 3C, 29.3; AMD APM vol. 2, 15.25.
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
    """The second stage as a guest walk goes through it."""

    def __init__(self, second: SecondStage) -> None:
        self._second = second
        self._gpa = 0

    def translate(self, trail: Trail, gpa: int, row: int, check: Check) -> Leaf | Stop:
        """Where guest-physical ``gpa`` lies, for an access that needs ``check``."""
        second = self._second
        if gpa >> second.reach:
            return Stop(Reason.OUT_OF_RANGE, nested=True, target=gpa, check=check)
        paging = second.paging
        found = descend(
            trail, paging.levels, paging.root, gpa, check, Stage.NESTED, row, gpa, late_flags=second.late_flags
        )
        if isinstance(found, Stop):
            return msgspec.structs.replace(found, nested=True, target=gpa, check=check)
        return found

    def entry(self, trail: Trail, gpa: int, row: int) -> Leaf | Stop:
        self._gpa = gpa
        return self.translate(trail, gpa, row, self._second.table)

    def update(self, page: Leaf) -> Stop | None:
        missing = self._second.update_needs & ~page.every
        if not missing:
            return None
        table = self._second.table
        writing = msgspec.structs.replace(table, need=table.need | missing, writes=True)
        return Stop(
            Reason.RIGHTS, page.every, writing.violations(page.every, page.some, page.tables, page.value),
            address=page.address, leaf=page.value, nested=True, target=self._gpa, check=writing,
        )  # fmt: skip


class GuestPhysical:
    """Guest-physical memory read through the second stage, for the loads of PDPTE registers.

    A load that the second stage stops gives unknown bytes; `stopped` tells why.
    """

    def __init__(self, memory: PhysicalMemory, second: SecondStage) -> None:
        self._memory = memory
        self._second = _Second(second)
        self.stopped: Stop | None = None

    def word(self, address: int) -> int | None:
        found = self._second.translate(Trail(self._memory), address, 0, _PDPTE_LOAD)
        if isinstance(found, Stop):
            self.stopped = found
            return None
        return self._memory.word(found.address & ~7)


def walk_nested(
    memory: PhysicalMemory, guest: Paging, second: SecondStage, address: int, access: Access = READ
) -> Walk:
    """Translate guest-linear ``address`` to host-physical: ``guest`` through ``second``, both read from ``memory``.

    ``guest`` is bound with ``pdptes_from_memory`` under NPT. Pure: apply `Walk.updates` for the flags of both stages.
    """
    refused, linear = check_address(guest, address, access)
    if refused is not None:
        return Walk(address, linear, access, guest, (), refused, (), second)
    trail, through = Trail(memory), _Second(second)
    outcome = _translate(trail, guest, second, through, linear, access)
    return Walk(
        address, linear, access, guest, tuple(trail.steps), outcome, flags_written(trail, guest, outcome), second
    )


def walk_nested_access(
    memory: PhysicalMemory, guest: Paging, second: SecondStage, address: int, access: Access = READ
) -> tuple[Walk, ...]:
    """The one or two walks of an access, as `walk.walk_access` has them, through two stages."""
    return by_page(lambda part: walk_nested(memory, guest, second, part, access), address, access.size)


def _translate(
    trail: Trail, guest: Paging, second: SecondStage, through: _Second, linear: int, access: Access
) -> Outcome:
    user_page, rights, page_shift, gpa = True, _ALL, 64, linear
    if guest.format is not None:
        check = compile_check(guest, access)
        levels, base = guest.levels, guest.root
        if guest.pdptes_are_registers:
            physical = GuestPhysical(trail.memory, second)
            stopped, base = pdpte_register(trail, guest, linear, Stage.GUEST, physical)
            if physical.stopped is not None:
                return _nested_fault(physical.stopped, second, None, None, access)
            if isinstance(stopped, Stop):
                return page_fault(stopped, check, linear)
            if stopped is not None:
                return stopped
            levels = levels[1:]
        end = descend(trail, levels, base, linear, check, Stage.GUEST, through=through)
        if isinstance(end, Stop):
            return _nested_fault(end, second, linear, None, access) if end.nested else page_fault(end, check, linear)
        rights = combined(guest, end.every, end.some, end.value)
        user_page, page_shift, gpa = rights.user, end.page_shift, end.address
    final = final_check(second, access, guest.registers.cpl, user_page)
    host = through.translate(trail, gpa, 0, final)
    if isinstance(host, Stop):
        return _nested_fault(host, second, linear, rights, access)
    nested = combined(second.paging, host.every, host.some, host.value)
    both = msgspec.structs.replace(
        rights,
        read=rights.read and nested.read,
        write=rights.write and nested.write,
        execute=rights.execute and nested.execute,
    )
    return Translated(host.address, 1 << min(page_shift, host.page_shift), both)


_ALL = Rights(read=True, write=True, execute=True, user=True)


def _nested_fault(stop: Stop, second: SecondStage, linear: int | None, page: Rights | None, access: Access) -> Outcome:
    """The exit that ``stop`` is. ``linear``: None where no linear address is valid. ``page``: the guest's rights on the
    page where the final address failed, None where it was the address of a guest's entry."""
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
