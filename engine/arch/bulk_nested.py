"""The array walker through a second stage: guest-linear and guest-physical addresses, millions of them.

A property test holds it equal to `nested_walk`, address by address, faults included. One thing differs: accessed and
dirty flags are not written, so tables that hold each other's flags are read as they are in memory.
"""

import numpy as np

from engine.arch.arrays import OK, ON_ENTRY, ON_PAGE, UNKNOWN, Code, Right, Small, U, Words, pdpte_registers
from engine.arch.bulk import CODES, ArrayWalker, Progress, Translations, check_addresses, empty, spans
from engine.arch.faults import Reason
from engine.arch.memory import PhysicalMemory
from engine.arch.nested_walk import GuestPhysical
from engine.arch.paging import Paging
from engine.arch.rights import READ, Access, Check, compile_check
from engine.arch.second_stage import SecondStage, final_check
from engine.arch.upper import SPAN, Located, Registers, slices


class SecondWalker:
    """The second stage for blocks of guest-physical addresses, and (`Through`) for a guest's tables."""

    def __init__(self, memory: PhysicalMemory, second: SecondStage) -> None:
        self._walker = ArrayWalker(memory, second.paging)
        self._second = second

    def walk(self, addresses: Words, check: Check, out: Translations) -> None:
        """Walk at most `SPAN` addresses; rows of ``out`` that have a code already are left alone.

        Addresses out of reach are `Code.NOT_PRESENT` at level 0.
        """
        if self._second.reach < 64:
            beyond = addresses >> U(self._second.reach) != 0
            np.maximum(out.code, beyond * np.uint8(Code.NOT_PRESENT), out=out.code)
        self._walker.walk(addresses, check, out)

    def locate(self, tables: Words) -> Located:
        out = empty(len(tables))
        for block in slices(len(tables), SPAN):
            self.walk(tables[block], self._second.table, out.part(block))
        fixed = np.zeros(len(tables), np.uint8)
        if self._second.update_needs:
            fixed[:] = out.rights & np.uint16(Right.W) == 0
        return Located(out.physical, flagged(out.code, ON_ENTRY), fixed)


def flagged(code: Small, where: int) -> Small:
    """Codes of the second stage as those of a whole walk. Unknown bytes are that wherever they are."""
    stopped: Small = ((code != OK) & (code != UNKNOWN)) * np.uint8(where)
    return code + stopped


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
    out, walker = empty(len(addresses)), SecondWalker(memory, second)
    for block in spans(len(addresses), progress):
        walker.walk(addresses[block], wanted, out.part(block))
    return out


def translate_nested(
    memory: PhysicalMemory,
    guest: Paging,
    second: SecondStage,
    addresses: Words,
    access: Access = READ,
    *,
    progress: Progress | None = None,
) -> Translations:
    """Translate guest-linear ``addresses`` to host-physical ones: ``guest`` through ``second``, both in ``memory``.

    Codes of the second stage have `ON_ENTRY` or `ON_PAGE` added. ``rights`` are those of both stages, ``page_shift``
    that of the smaller page; ``level`` of what failed on the page itself, or went through, is the second stage's.
    """
    addresses = np.ascontiguousarray(addresses, np.uint64)
    out, through = empty(len(addresses)), SecondWalker(memory, second)
    walker = check = None
    if guest.format is not None:
        walker = ArrayWalker(memory, guest, through=through, pdptes=guest_pdptes(memory, guest, second))
        check = compile_check(guest, access)
    finals = [final_check(second, access, guest.registers.cpl, user) for user in (False, True)]
    for block in spans(len(addresses), progress):
        rows = out.part(block)
        linear = check_addresses(guest, addresses[block], access, rows.code)
        if walker is None or check is None:
            rows.physical[:], rows.rights[:], rows.page_shift[:] = linear, Right.ALL, 63
        else:
            walker.walk(linear, check, rows)
        if finals[0] == finals[1]:
            _finish(through, finals[0], rows)
        else:
            user = rows.rights & np.uint16(Right.U) != 0
            for final, lanes in zip(finals, (np.flatnonzero(~user), np.flatnonzero(user)), strict=True):
                some = rows.part(lanes)
                _finish(through, final, some)
                rows.put(lanes, some)
    return out


def _finish(through: SecondWalker, final: Check, rows: Translations) -> None:
    """Take ``rows`` from guest-physical addresses to host-physical ones, as far as the guest let them through."""
    page = empty(len(rows))
    page.code[:] = rows.code
    through.walk(rows.physical, final, page)
    walked = rows.code == OK
    gave = page.code == OK
    here = gave | (page.code == UNKNOWN) & walked
    np.add(rows.physical * ~here, page.physical, out=rows.physical)
    np.add(rows.level * ~walked, page.level, out=rows.level)
    np.add(rows.code, flagged(page.code, ON_PAGE) * walked, out=rows.code)
    np.multiply(np.minimum(rows.page_shift, page.page_shift), gave, out=rows.page_shift)
    np.multiply(rows.rights & (page.rights | np.uint16(GUEST_RIGHTS)), gave, out=rows.rights)


GUEST_RIGHTS = 0xFFFF & ~(Right.R | Right.W | Right.X)
"""Rights that are the guest's alone."""


def guest_pdptes(memory: PhysicalMemory, guest: Paging, second: SecondStage) -> Registers | None:
    """The PDPTE registers of a guest, loaded through the second stage where they are not given; None: it has none."""
    if not guest.pdptes_are_registers:
        return None
    physical = GuestPhysical(memory, second)
    values, code, at = pdpte_registers(physical, guest)
    stopped = physical.stopped
    if stopped is None:
        return values, code, at
    if stopped.reason is Reason.UNKNOWN:
        return values, code, np.full(4, stopped.address, np.uint64)
    return values, np.full(4, CODES[stopped.reason] | ON_ENTRY, np.uint8), np.full(4, stopped.target, np.uint64)
