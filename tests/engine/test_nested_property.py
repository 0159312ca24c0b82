"""Whatever a hypervisor in a guest (L1) does to its NPT or EPT, its guest (L2) gets what the logical walk gives.

L2's tables, then L1's, then memslots: that is the promise. L0 keeps it with tables of its own, as deep as its own host
forces (NPT) or as L1 asked (EPT). A 5-level L1 on a 4-level host (reference page, 8.6) has a test of its own.
"""

from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.arch.rights import Access, Kind
from engine.machine import State
from engine.machine.access import physical_store
from engine.machine.guest_view import GuestView
from engine.machine.intended import intended
from tests.conftest import scaled
from tests.engine.kvm_fixture import (
    FETCH,
    MIB,
    READ,
    VM,
    WRITE,
    accessed,
    after,
    amd,
    booted,
    guest,
    intel,
    play,
    slot,
    vcpu,
    vm,
)
from tests.engine.shadow_model import Promise, agrees, came

L1_ROOT, L1_TABLES, NPT_ROOT, NPT_TABLES = 0x1000, 0x2000, 0x20000, 0x40000
L2_ROOT, L2_TABLES, L2_BASE = 0x1000, 0x2000, 0x40_0000
"""L2's memory from L1-physical 4 MiB on; its own tables are at the start of it."""
AREA = 0x4000_0000
PAGES = 0x10_0000
OFFSETS = (0x0, 0x1000, 0x5000, 0x9000)

SYSTEMS = [
    ("amd", l1, five) for five in (False, True) for l1 in ("32-bit", "PAE", "4-level", "5-level")
    if not (l1 == "5-level" and not five)
] + [("intel", "4", False), ("intel", "5", False)]  # fmt: skip
L2_MODES = ("none", "32-bit", "PAE", "4-level")


@cache
def started(vendor: str, l1: str, five: bool, l2: str) -> State:
    setup = amd() if vendor == "amd" else intel(48)
    state = play(*booted(setup, five=five), *VM, slot(0, 16 * MIB))
    mode, levels = (l1, 4) if vendor == "amd" else ("4-level", int(l1))
    state = after(
        state, ev.SetGuestRegisters(guest(mode, L1_ROOT)), ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES, levels=levels),  # type: ignore[arg-type]
        ev.MapNestedPages(0, L2_BASE, 0x20000), ev.MapNestedPages(PAGES, L2_BASE + PAGES, 0x10000),
    )  # fmt: skip
    if l2 != "none":
        pages = ev.MapL2Pages(
            root=L2_ROOT, tables=L2_TABLES, address=AREA, target=PAGES, size=0x10000, mode=l2  # type: ignore[arg-type]
        )  # fmt: skip
        state = after(state, pages)
    return after(state, ev.EnterNested(guest(l2, L2_ROOT)))


class Inside:
    """The nested guest under way."""

    def __init__(self, state: State, l2: Any) -> None:
        self.state, self.l2 = state, l2
        base = 0 if l2 == "none" else AREA - PAGES
        self.addresses = tuple(base + PAGES + offset for offset in OFFSETS)
        module = vm(state).nested
        assert module is not None
        self.wide = 4 if module.captured == "32-bit" else 8
        lowest = range(NPT_TABLES, module.free, 0x1000)
        self.promise = Promise.start(self.addresses, tuple(gpa >> 12 for gpa in lowest))

    def do(self, *events: ev.Event) -> None:
        before = self.state
        self.state = after(before, *events)
        self.promise.changed(before, self.state)

    def l1_writes(self, gpa: int, value: int, invept: bool) -> None:
        """L2 exits, L1 writes an entry of its tables with its own vCPU, and enters L2 again."""
        registers = vcpu(self.state).registers
        self.do(ev.LeaveNested())
        before = self.state
        event = ev.GuestAccess(gpa, Kind.WRITE, self.wide, value)
        self.state = physical_store(before, vm(before), vcpu(before), event)
        assert self.state.effect.livelock is None
        self.promise.changed(before, self.state)
        if invept:
            self.do(ev.InvalidateNested())
        self.do(ev.EnterNested(registers))
        if invept or vm(self.state).nested.kind.value == "NPT":  # type: ignore[union-attr]
            self.promise.flush()

    def l2_table_changes(self, nth: int, flips: int) -> None:
        """Bits of an entry of L2's own tables flip. Nothing mirrors those: what they say counts at once."""
        view = GuestView(self.state, vm(self.state))
        entries = [at for at in range(L2_BASE + L2_ROOT, L2_BASE + 0x8000, 8) if view.word(at)]
        if entries:
            at = entries[nth % len(entries)]
            self.do(ev.FillGuestPages(at, ((view.word(at) or 0) ^ flips,)))

    def access(self, address: int, kind: Kind, user: bool) -> None:
        registers = msgspec.structs.replace(vcpu(self.state).registers, cpl=3 if user else 0)
        if registers != vcpu(self.state).registers:
            self.do(ev.SetGuestRegisters(registers))
        allowed = list(self.promise.allowed(self.state, address, Access(kind, 4)))
        self.do(ev.GuestAccess(address, kind, 4, value=0x99))
        effect = self.state.effect
        found = came(effect)
        assert agrees(self.state, found, allowed), f"{kind} at {address:#x}, user {user}: {found}; right are {allowed}"
        if effect.reflected is not None:
            assert vcpu(self.state).nested is None
            self.do(ev.EnterNested(registers))
            if vm(self.state).nested.kind.value == "NPT":  # type: ignore[union-attr]
                self.promise.flush()


def entries_of(state: State) -> list[tuple[int, int, int]]:
    """(GPA of an entry, its value, its level) of L1's tables for its guest, as a walk of them finds them."""
    second = state.l1_stage(vcpu(state))
    assert second is not None
    view, found = GuestView(state, vm(state)), []
    tables = {second.paging.root}
    for lv in second.paging.levels:
        below = set()
        for table in tables:
            for n in range(lv.entries):
                at = table + (n << lv.entry_shift)
                word = view.word(at) or 0
                value = word if lv.entry_shift == 3 else word >> (at & 4) * 8 & 0xFFFF_FFFF
                if value & lv.present:
                    found.append((at, value, lv.level))
                    if not value & lv.leaf:
                        below.add(value & lv.table_address)
        tables = below
    return found


L2_FLIPS = (1, 2, 4, 0x60, 0x1000, 0x80, 1 << 63, 1 << 50)
EDITS = ("flip", "flip", "flip", "move page", "clear", "reserved")


@st.composite
def edits(draw: Any, entries: list[tuple[int, int, int]], is_ept: bool) -> tuple[int, int]:
    """What L1 writes where."""
    gpa, value, level = draw(st.sampled_from(entries))
    match draw(st.sampled_from(EDITS)):
        case "flip":
            value ^= draw(st.sampled_from((1, 2, 4)))
        case "move page" if level == 1:
            value ^= draw(st.sampled_from((0x1000, 0x2000, 0x5000)))
        case "clear":
            value = 0
        case "reserved" if value >> 32 or is_ept:
            value |= 1 << 50
    return gpa, value


def _gives_l2_the_logical_walk(data: Any, vendor: str, l1: str, five: bool, l2: str) -> None:
    inside = Inside(started(vendor, l1, five, l2), l2)
    entries = entries_of(inside.state)
    for _ in range(data.draw(st.integers(3, 9))):
        address = data.draw(st.sampled_from(inside.addresses))
        kind, user = data.draw(st.sampled_from((READ, WRITE, FETCH))), data.draw(st.booleans())
        inside.access(address, kind, user)
        match data.draw(st.sampled_from(("write", "write", "zap", "move", "l2", "nothing"))):
            case "l2":
                inside.l2_table_changes(data.draw(st.integers(0, 63)), data.draw(st.sampled_from(L2_FLIPS)))
            case "write":
                gpa, value = data.draw(edits(entries, vendor == "intel"))
                if l1 == "PAE" and gpa & ~0x1F == NPT_ROOT:
                    value &= ~0x1E6 & ~(1 << 50)  # get_pdptr() does not check what hardware would
                inside.l1_writes(gpa, value, data.draw(st.booleans()))
            case "zap":
                inside.do(ev.ZapGuest(L2_BASE, 0x200000) if data.draw(st.booleans()) else ev.ZapGuest())
            case "move":
                gpa = data.draw(st.sampled_from((L2_BASE + PAGES, L2_BASE, NPT_TABLES)))
                if intended(inside.state, 0, gpa) is not None:
                    inside.do(ev.HostMemory(gpa, "move"))
    for address in inside.addresses:
        for kind in (READ, WRITE, FETCH):
            inside.access(address, kind, False)


@pytest.mark.parametrize(("vendor", "l1", "five"), SYSTEMS)
@settings(max_examples=scaled(1_000), deadline=None)
@given(data=st.data(), l2=st.sampled_from(L2_MODES))
def test_a_nested_guest_gets_what_the_logical_walk_gives(vendor: str, l1: str, five: bool, l2: str, data: Any) -> None:
    _gives_l2_the_logical_walk(data, vendor, l1, five, l2)


def test_l1_itself_reaches_its_own_tables() -> None:
    """KVM mirrors them, so it withholds W, and the store is emulated: L1 does not notice."""
    state = started("amd", "4-level", True, "4-level")
    inside = after(state, ev.GuestAccess(AREA), ev.LeaveNested())
    assert accessed(inside, NPT_ROOT, WRITE).emulated is not None
