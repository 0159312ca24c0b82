"""Memslots: GPA -> HVA, and the VMM's memory behind them: HVA -> HPA through the host's page table.

Memory of a slot is allocated when it is first touched, as mmap gives it: 4-KiB pages, transparent huge pages where an
aligned 2 MiB fits, or hugetlb pages. Sources: virt/kvm/kvm_main.c: gfn_to_hva(), hva_to_pfn(); mm/memory.c.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.memory import PhysicalMemory
from engine.errors import InputError
from engine.host import mm
from engine.host.frames import Owner, Use
from engine.host.mm import HostPage, Placement
from engine.host.world import World


class Pages(Enum):
    """What pages back a slot, in bytes of the largest."""

    SMALL = "4K"
    THP = "THP"
    HUGE_2M = "hugetlb 2M"
    HUGE_1G = "hugetlb 1G"

    @property
    def size(self) -> int:
        return {"4K": FRAME_SIZE, "THP": 2 << 20, "hugetlb 2M": 2 << 20, "hugetlb 1G": 1 << 30}[self.value]


class Backing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``at``: the HPA (byte address) where CONTIGUOUS memory starts; it counts for SCATTERED not at all."""

    pages: Pages = Pages.SMALL
    placement: Placement = Placement.SCATTERED
    at: int = 0


class Memslot(msgspec.Struct, frozen=True):
    """``size`` bytes at guest-physical ``gpa``, in the VMM at ``hva``.

    ``image``: its first content is that of a memory image, GPA for physical address; None: zeros.
    """

    id: int
    gpa: int
    size: int
    hva: int
    backing: Backing
    read_only: bool = False
    dirty_log: bool = False
    image: PhysicalMemory | None = None

    def holds(self, gpa: int) -> bool:
        return self.gpa <= gpa < self.gpa + self.size

    def to_hva(self, gpa: int) -> int:
        return self.hva + gpa - self.gpa

    def to_gpa(self, hva: int) -> int:
        return self.gpa + hva - self.hva


class Space(msgspec.Struct, frozen=True):
    """Where a VMM's page table is, for the kernel that walks it: depth and root (byte address)."""

    levels: int
    root: int


def hva_for(slots: tuple[Memslot, ...], size: int) -> int:
    """Where the VMM maps the memory of the next slot: at a multiple of 1 GiB after the others."""
    end = max((slot.hva + slot.size for slot in slots), default=mm.VMM_BASE)
    gib = 1 << 30
    return -(-end // gib) * gib if slots else mm.VMM_BASE


def check_slot(slots: tuple[Memslot, ...], slot: Memslot, maxphyaddr: int) -> str | None:
    """Why KVM_SET_USER_MEMORY_REGION refuses ``slot`` (one sentence); None where it does not."""
    page = slot.backing.pages.size if slot.backing.pages in (Pages.HUGE_2M, Pages.HUGE_1G) else FRAME_SIZE
    for what, value in (("address", slot.gpa), ("size", slot.size)):
        if value % page or (what == "size" and not value):
            return f"The slot's {what} {value:#x} is not a multiple of {page:#x} bytes, its page size."
    if slot.gpa + slot.size > 1 << maxphyaddr:
        return f"The slot ends above the guest-physical addresses this host has ({maxphyaddr} bits)."
    for other in slots:
        if slot.gpa < other.gpa + other.size and other.gpa < slot.gpa + slot.size:
            return f"The slot overlaps slot {other.id} at {other.gpa:#x}."
    return None


def find(slots: tuple[Memslot, ...], gpa: int) -> Memslot | None:
    """gfn_to_memslot()."""
    return next((slot for slot in slots if slot.holds(gpa)), None)


def fault_in(world: World, space: Space, vm: int, slot: Memslot, gpa: int) -> HostPage:
    """The host's page behind ``gpa``: found in the VMM's page table, or allocated and mapped there (hva_to_pfn()).

    Raises InputError where the host has no memory left.
    """
    hva = slot.to_hva(gpa)
    found = mm.lookup(world.memory, space.levels, space.root, hva)
    if found is not None:
        return found
    size = _page_size(world, space, slot, hva)
    start = hva & ~(size - 1)
    hpa = _frames_for(world, vm, slot, start, size)
    show_image(world, slot, slot.to_gpa(start), range(hpa, hpa + size, FRAME_SIZE))
    page = HostPage(hva=start, hpa=hpa, size=size, write=True, user=True, execute=False)
    mm.map_page(world, space.levels, space.root, page)
    return page


def _page_size(world: World, space: Space, slot: Memslot, hva: int) -> int:
    """The size of the page that a touch of ``hva`` brings in: THP only where nothing of its 2 MiB is mapped yet."""
    size = slot.backing.pages.size
    if slot.backing.pages is not Pages.THP:
        return size
    start = hva & ~(size - 1)
    fits = slot.hva <= start and start + size <= slot.hva + slot.size
    same_offset = (slot.hva - slot.gpa) % size == 0
    lv, _, entry = mm.path_to(world.memory, space.levels, space.root, start)[-1]
    empty = lv.level > 1 and not entry & mm.P
    return size if fits and same_offset and empty else FRAME_SIZE


def _frames_for(world: World, vm: int, slot: Memslot, hva: int, size: int) -> int:
    owner = Owner(Use.GUEST_PAGE, vm=vm, gfn=slot.to_gpa(hva) >> FRAME_BITS)
    if slot.backing.placement is Placement.CONTIGUOUS:
        hpa = slot.backing.at + hva - slot.hva
        if hpa % size:
            raise InputError(f"The memory at HPA {slot.backing.at:#x} is not aligned to pages of {size:#x} bytes.")
        return hpa  # reserved, and zero, since the slot was made
    if size == FRAME_SIZE:
        return world.allocate(owner)
    return world.allocate_block(size, owner)


def show_image(world: World, slot: Memslot, gpa: int, hpas: Sequence[int]) -> None:
    """The frames at ``hpas`` (bytes) show those of the slot's image from ``gpa`` on, as far as it has them."""
    image, gfn = slot.image, gpa >> FRAME_BITS
    if image is not None:
        known = {hpa >> FRAME_BITS: gfn + n for n, hpa in enumerate(hpas) if image.frame(gfn + n) is not None}
        world.memory = world.memory.with_frames_of(image, known)
