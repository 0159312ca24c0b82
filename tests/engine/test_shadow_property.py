"""Whatever a guest does to its tables, the tables that KVM builds give it what the architecture promises.

Random tables, random sequences of table writes, INVLPG, CR3 loads, zaps, migrations of pages and accesses; without
nested paging, and with a hypervisor (L1) in the guest whose NPT or EPT KVM mirrors. The cases of `Bug` and that of a
5-level L1 on a 4-level host (reference page, 8.6) have tests of their own.
"""

from functools import cache
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.arch.mappings import mappings
from engine.arch.registers import CR0, CR4
from engine.arch.rights import Access, Kind
from engine.machine import State
from engine.machine.guest import slot_ranges
from engine.machine.guest_view import GuestView
from engine.machine.intended import intended
from tests.conftest import scaled
from tests.engine.kvm_fixture import (
    FETCH,
    GIB,
    LIBRARY,
    MIB,
    READ,
    VM,
    WRITE,
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
from tests.engine.shadow_model import Promise, agrees, came, promised

ROOT, TABLES, DATA = 0x1000, 0x2000, 0x100000
WINDOW = {"32-bit": 0x1000_0000, "PAE": 0x1000_0000, "4-level": 1 << 40, "5-level": 1 << 50}
"""Linear address at which the guest sees the first MiB of its memory, tables included."""
AREA = 0x4000_0000
"""Linear address of the pages whose tables the guest plays with: other tables than the window's, but for the top."""
OFFSETS = (0x0, 0x1000, 0x7000, 0x20_0000, 0x20_1000, 0x40_0000, 0x4000_0000)

MODES = ("32-bit", "PAE", "4-level", "5-level")


class Layout(NamedTuple):
    """``entries``: (GPA, level) of the entries that the area's pages are translated by; ``lowest``: the page tables'
    frames; ``leaves``: the GPA of the page-table entry of each address, at the start."""

    entries: list[tuple[int, int]]
    lowest: tuple[int, ...]
    leaves: dict[int, int]

    @property
    def frames(self) -> dict[int, list[int]]:
        """The tables of each level, byte addresses."""
        return {n: sorted({gpa & ~0xFFF for gpa, level in self.entries if level == n}) for n in range(1, 6)}


@cache
def layout(mode: str) -> Layout:
    shifts, size = {
        "32-bit": ((22, 12), 4), "PAE": ((30, 21, 12), 8), "4-level": ((39, 30, 21, 12), 8),
        "5-level": ((48, 39, 30, 21, 12), 8),
    }[mode]  # fmt: skip
    mask = 1023 if size == 4 else 511
    entries: dict[tuple[int, int], None] = {}
    levels = len(shifts)
    frames = {(): ROOT}
    following, leaves = iter(range(0x40000, 0x100000, 0x1000)), {}
    for offset in OFFSETS:
        path: tuple[int, ...] = ()
        for n, shift in enumerate(shifts):
            index = ((AREA + offset) >> shift) & (3 if mode == "PAE" and n == 0 else mask)
            entries[(frames[path] + index * size, levels - n)] = None
            leaves[AREA + offset] = frames[path] + index * size
            path = (*path, index)
            if n < levels - 1 and path not in frames:
                frames[path] = next(following)
    lowest = tuple(frame >> 12 for path, frame in frames.items() if len(path) == levels - 1)
    return Layout(list(entries), lowest, leaves)


P, W, U, A, D, PS, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63
FLAGS = st.sampled_from((P | W | U, P | W | U | A | D, P | U | A, P | W | A | D, P, P | A, 0, P | W | U | A | D | NX))


@st.composite
def values(draw: Any, mode: str, level: int, below: list[int], lowest: tuple[int, ...]) -> int:
    """An entry: mostly of the right kind, sometimes a large page, rubbish, or a page that is itself a table."""
    flags = draw(FLAGS)
    if mode == "32-bit":
        flags &= 0xFFFF_FFFF
    is_pdpte = mode == "PAE" and level == 3
    if is_pdpte:
        flags &= P
    kind = draw(st.integers(0, 9))
    if level > 1 and kind < 6 and below:
        return draw(st.sampled_from(below)) | flags
    if level > 1 and not is_pdpte:
        largest = {2: 4 << 20 if mode == "32-bit" else 2 << 20, 3: 1 << 30}.get(level, 0)
        return flags | PS | (largest * draw(st.integers(0, 3)) if largest else 0)
    if level == 1 and kind == 6:
        return draw(st.sampled_from([frame << 12 for frame in lowest] + below or [DATA])) | flags
    if level == 1 and kind == 7 and mode != "32-bit":
        return flags | DATA | 1 << 51  # reserved
    if level == 1 and kind == 8:
        return flags | 0x3F00_0000  # no memory there
    return flags | DATA + 0x1000 * draw(st.integers(0, 5))


class Played:
    """A guest under way, and what it may see."""

    def __init__(self, state: State, mode: str, lowest: tuple[int, ...]) -> None:
        self.state, self.mode = state, mode
        self.promise = Promise.start(tuple(AREA + offset for offset in OFFSETS), lowest)

    def do(self, *events: ev.Event) -> None:
        before = self.state
        self.state = after(before, *events)
        self.promise.changed(before, self.state)

    def poke(self, gpa: int, value: int) -> None:
        """The guest writes an entry, through the window that its tables give it."""
        self.do(ev.GuestAccess(WINDOW[self.mode] + gpa, Kind.WRITE, 4 if self.mode == "32-bit" else 8, value))

    def flush(self, how: str, address: int) -> None:
        if how == "invlpg":
            self.do(ev.InvalidatePage(address))
            self.promise.flush(address)
        elif how == "cr3":
            self.do(ev.WriteGuestRegister("cr3", ROOT))
            self.promise.flush()

    def access(self, address: int, kind: Kind, user: bool) -> None:
        registers = vcpu(self.state).registers
        as_user = msgspec.structs.replace(registers, cpl=3 if user else 0)
        if as_user != registers:
            self.do(ev.SetGuestRegisters(as_user))
        access = Access(kind, 4)
        allowed = list(self.promise.allowed(self.state, address, access))
        self.do(ev.GuestAccess(address, kind, 4, value=0x1234_5678))
        found = came(self.state.effect)
        told = f"{kind} at {address:#x}, user {user}: {found}, and right are {allowed}"
        assert agrees(self.state, found, allowed), told
        if user:
            self.do(ev.SetGuestRegisters(msgspec.structs.replace(vcpu(self.state).registers, cpl=0)))


@cache
def started(mode: str, vendor: str, wp: bool) -> State:
    setup, off = (amd(), {"npt": False}) if vendor == "amd" else (intel(48), {"ept": False})
    state = play(*booted(setup, kernel="latest", **off), *VM, slot(0, 2 * MIB), slot(0x40_0000, 12 * MIB))
    window = ev.MapGuestPages(root=ROOT, tables=TABLES, address=WINDOW[mode], target=0, size=MIB, mode=mode, user=False)
    state = after(state, window)
    state = after(state, ev.SetGuestRegisters(guest(mode, ROOT, wp=wp)))
    entries, frames = layout(mode).entries, layout(mode).frames
    for gpa, level in entries:  # a sane start
        value = (frames[level - 1][0] if level > 1 else DATA) | (P if mode == "PAE" and level == 3 else P | W | U)
        state = after(state, ev.GuestAccess(WINDOW[mode] + gpa, Kind.WRITE, 4 if mode == "32-bit" else 8, value))
        assert state.effect.fault is None
    return after(state, ev.WriteGuestRegister("cr3", ROOT))


OPERATIONS = (
    "write", "write", "write", "access", "access", "remap", "remap", "invlpg", "cr3", "zap", "move", "log", "wp",
)  # fmt: skip
FLUSHES = ("none", "invlpg", "cr3")


def _mirrors_what_the_guest_says(data: Any, mode: str, vendor: str, wp: bool) -> None:
    (entries, lowest, leaves), frames = layout(mode), layout(mode).frames
    played = Played(started(mode, vendor, wp), mode, lowest)
    for operation in data.draw(st.lists(st.sampled_from(OPERATIONS), min_size=4, max_size=24)):
        address = AREA + data.draw(st.sampled_from(OFFSETS))
        match operation:
            case "write":
                gpa, level = data.draw(st.sampled_from(entries))
                played.poke(gpa, data.draw(values(mode, level, frames.get(level - 1, []), lowest)))
                if mode == "PAE" and level == 3:  # the registers change with the next load only
                    played.flush("cr3", address)
            case "remap":
                played.access(address, READ, False)
                played.poke(leaves[address], data.draw(values(mode, 1, [], lowest)))
                played.flush(data.draw(st.sampled_from(FLUSHES)), address)
                played.access(address, data.draw(st.sampled_from((READ, WRITE))), False)
            case "access":
                kind, user = data.draw(st.sampled_from((READ, WRITE, FETCH))), data.draw(st.booleans())
                played.access(address, kind, user)
            case "invlpg" | "cr3":
                played.flush(operation, address)
            case "zap":
                played.do(ev.ZapGuest(DATA, 0x4000) if data.draw(st.booleans()) else ev.ZapGuest())
            case "move":
                gpa = data.draw(st.sampled_from((DATA, *(frame for each in frames.values() for frame in each))))
                if intended(played.state, 0, gpa) is not None:
                    played.do(ev.HostMemory(gpa, "move"))
            case "log":
                played.do(ev.DirtyLogging(data.draw(st.booleans())))
            case "wp":
                registers = vcpu(played.state).registers
                flags = data.draw(st.sampled_from((CR4.SMEP, CR4.SMAP)))
                if data.draw(st.booleans()):
                    played.do(ev.WriteGuestRegister("cr0", int(registers.cr0 ^ CR0.WP)))
                else:
                    played.do(ev.WriteGuestRegister("cr4", int(registers.cr4 ^ flags)))
                played.promise.flush()
    for address in played.promise.addresses:
        for kind in (READ, WRITE, FETCH):
            for user in (False, True):
                played.access(address, kind, user)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("vendor", ["amd", "intel"])
@settings(max_examples=scaled(2_000), deadline=None)
@given(data=st.data(), wp=st.booleans())
def test_without_nested_paging_kvm_gives_a_guest_what_its_own_tables_say(
    mode: str, vendor: str, data: Any, wp: bool
) -> None:
    _mirrors_what_the_guest_says(data, mode, vendor, wp)


def test_a_real_guests_tables_are_mirrored_as_they_say() -> None:
    """Debian's kernel and a process of it, from the built-in image; without protection keys, which KVM cannot offer."""
    image = ev.ImageRef("resource:debian-6.1-4level.core.gz")
    held = LIBRARY(image)
    state = play(*booted(amd(), npt=False, ram=8 * GIB), *VM)
    for start, end in slot_ranges(held):
        state = after(state, ev.SetMemslot(0, start, end - start, image=image))
    registers = held.cpus[0].registers
    registers = msgspec.structs.replace(registers, cr4=int(registers.cr4 & ~CR4.PKE))
    state = after(state, ev.SetGuestRegisters(registers))
    found = mappings(GuestView(state, vm(state)), state.guest_paging(vcpu(state)))
    random, reached = Random(7), 0
    for _ in range(scaled(2_000)):
        n = random.randrange(len(found))
        address = int(found.va[n]) + (random.randrange(int(found.size[n]) >> 12) << 12)
        kind = random.choice((READ, WRITE, FETCH))
        right = promised(state, GuestView(state, vm(state)), address, Access(kind, 4))
        state = after(state, ev.GuestAccess(address, kind, 4))
        assert agrees(state, came(state.effect), [right]), hex(address)
        reached += right[0] == "page"
    assert reached
