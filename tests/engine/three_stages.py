"""L2 in L1 in L0, built whole: L2's tables, L1's nested ones in L1's memory, L0's below them, and the collapsed ones.

Where things are: L2's tables from L2-physical 1000h up, its page at `PAGE`; L2's memory at L1-physical + `L2_AT`; L1's
tables from L1-physical 10000h up; L1's memory at host-physical + `L1_AT`; L0's tables from host-physical 800000h up,
and those that L0 keeps for L2 itself (the collapsed ones) from 880000h up.
"""

import msgspec

from engine.arch.faults import EntryFailure
from engine.arch.formats import EPT4, EPT5, LEGACY, LEVEL4, LEVEL5, PAE, Format
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import Paging, bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.rights import READ, Access
from engine.arch.second_stage import SecondStage, ept, npt
from engine.arch.walk import Walk
from engine.memory.physical import ZERO, SparseMemory
from engine.memory.tables import Range, frames_from, map_ranges

PG = int(CR0.PG | CR0.WP | CR0.PE)
PAGE, L2_AT, L1_AT = 0x4000_0000, 0x8000_0000, 1 << 32
L2_ROOT, L1_ROOT, L0_ROOT, COLLAPSED_ROOT = 0x1000, 0x1_0000, 0x80_0000, 0x88_0000
LONG = {"cr4": int(CR4.PAE), "efer": int(EFER.LME | EFER.LMA | EFER.NXE)}
MODES: dict[str, tuple[Format | None, dict[str, int], int]] = {
    "no paging": (None, {"cr0": int(CR0.PE), "cr4": 0, "efer": 0}, PAGE),
    "32-bit": (LEGACY, {"cr4": int(CR4.PSE), "efer": 0}, 0x8049_1000),
    "PAE": (PAE, {"cr4": int(CR4.PAE), "efer": int(EFER.NXE)}, 0x8049_1000),
    "4-level": (LEVEL4, LONG, 0x7F12_3456_7000),
    "5-level": (LEVEL5, LONG | {"cr4": int(CR4.PAE | CR4.LA57)}, 0xAB_7F12_3456_7000),
}
"""Of a guest or, for NPT, of its host: the format, the registers that select it, an address to map."""
STAGES: dict[str, Format] = {
    "32-bit NPT": LEGACY, "PAE NPT": PAE, "4-level NPT": LEVEL4, "5-level NPT": LEVEL5,
    "4-level EPT": EPT4, "5-level EPT": EPT5,
}  # fmt: skip


LARGE = (4096, 2 << 20, 1 << 30)
"""Bytes of a page in all formats of 4 or 5 levels."""


class System(msgspec.Struct, frozen=True):
    """``collapsed``: the stage by which hardware takes L2 to host-physical addresses in one go."""

    memory: SparseMemory
    guest: Paging
    second: SecondStage
    host: SecondStage
    collapsed: SecondStage
    address: int

    def walk(self, access: Access = READ, changes: dict[int, int] | None = None) -> Walk:
        """The walk of three stages, ``changes`` (words by host-physical address) made before it."""
        memory = self.memory.with_words(changes or {})
        return walk_nested(memory, self.guest, self.second, self.address, access, self.host)

    def hardware(self, access: Access = READ) -> Walk:
        return walk_nested(self.memory, self.guest, self.collapsed, self.address, access)


def stage(name: str, root: int, *, flags: bool = True) -> SecondStage:
    """The second stage ``name`` of `STAGES` at ``root``; ``flags``: an EPT has accessed and dirty flags."""
    made: SecondStage | EntryFailure
    if name.endswith("EPT"):
        made = ept(root | 6 | (len(STAGES[name].levels) - 1) << 3 | flags << 6, 52)
    else:
        registers = MODES[name.removesuffix(" NPT")][1]
        made = npt(Registers(**{"cr0": PG, **registers}), Features(vendor=Vendor.AMD, maxphyaddr=52), root)
    assert isinstance(made, SecondStage), made
    return made


def system(
    l2: str = "4-level",
    l1: str = "4-level NPT",
    l0: str = "4-level NPT",
    sizes: tuple[int, int, int] = (4096, 4096, 4096),
    cpl: int = 3,
    *,
    flags: tuple[bool, bool] = (True, True),
    set_before: bool = False,
    offset: int = 0xABC,
) -> System:
    """One page of L2, mapped at all three stages in pages of ``sizes`` (L2's, L1's, L0's).

    ``flags``: whether L1's and L0's EPT have accessed and dirty flags. ``set_before``: they are set in all pages.
    """
    fmt, registers, address = MODES[l2]
    size2, size1, size0 = sizes
    address &= -size2

    def ranges(places: tuple[tuple[int, int], ...], shift: int, size: int) -> list[Range]:
        starts = {at & -size: None for start, length in places for at in range(start, start + length, size)}
        return [
            Range(
                address=at, target=at + shift, size=size, page_size=size, accessed=set_before,
                dirty=set_before,
            )
            for at in starts
        ]  # fmt: skip

    memory = SparseMemory(ZERO)
    l2_places = ((0, 0x8000), (PAGE, 4096))
    l1_places = ((0, 0x2_0000), *((at + L2_AT, length) for at, length in l2_places))
    in_host = ranges(l1_places, L1_AT, size0)
    memory = map_ranges(memory, STAGES[l0], L0_ROOT, in_host, frames_from(L0_ROOT + 0x1000))
    memory = map_ranges(
        memory, STAGES[l1], L1_ROOT, ranges(l2_places, L2_AT, size1), frames_from(L1_ROOT + 0x1000),
        lambda at: at + L1_AT,
    )  # fmt: skip
    both = max(size for size in LARGE if size <= min(size1, size0))
    memory = map_ranges(
        memory, STAGES[l0], COLLAPSED_ROOT, ranges(l2_places, L2_AT + L1_AT, both),
        frames_from(COLLAPSED_ROOT + 0x1000),
    )  # fmt: skip
    amd = l1.endswith("NPT")
    pdptes = None
    if fmt is not None:
        page = Range(address=address, target=PAGE, size=size2, page_size=size2, accessed=set_before, dirty=set_before)
        memory = map_ranges(memory, fmt, L2_ROOT, [page], frames_from(L2_ROOT + 0x1000), lambda at: at + L2_AT + L1_AT)
        if fmt is PAE and not amd:
            read = (memory.word(L1_AT + L2_AT + L2_ROOT + 8 * slot) or 0 for slot in range(4))
            pdptes = tuple(read)
    guest = Registers(**{"cr0": PG, "cr3": L2_ROOT, "cpl": cpl, "pdptes": pdptes, **registers})
    features = Features(vendor=Vendor.AMD if amd else Vendor.INTEL, maxphyaddr=52)
    return System(
        memory,
        bind(guest, features, pdptes_from_memory=amd),
        stage(l1, L1_ROOT, flags=flags[0]),
        stage(l0, L0_ROOT, flags=flags[1]),
        stage(l0, COLLAPSED_ROOT, flags=flags[1]),
        address + offset,
    )


__all__ = ["L1_AT", "L2_AT", "MODES", "PAGE", "STAGES", "System", "stage", "system"]
