"""Memslots: GPA -> HVA, and the VMM's memory behind them: HVA -> HPA through the host's page table.

The memory of a slot is a memfd: a page of it is allocated when it is first touched, also by a read, and the host may
write to it. It comes in 4-KiB pages, transparent huge pages where an aligned 2 MiB fits, or hugetlb pages.
Sources: virt/kvm/kvm_main.c: gfn_to_hva(), hva_to_pfn(); mm/memory.c, mm/shmem.c.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE, size_name
from engine.arch.memory import PhysicalMemory
from engine.host import mm
from engine.host.frames import Owner, Use
from engine.host.mm import HostPage, Placement
from engine.host.world import World

GIB = 1 << 30


class Pages(Enum):
    """What pages back a slot, in bytes of the largest."""

    SMALL = "4K"
    THP = "THP"
    HUGE_2M = "hugetlb 2M"
    HUGE_1G = "hugetlb 1G"

    @property
    def size(self) -> int:
        return {"4K": FRAME_SIZE, "THP": 2 << 20, "hugetlb 2M": 2 << 20, "hugetlb 1G": GIB}[self.value]

    @property
    def always(self) -> int:
        """The alignment that its memory always has: only hugetlb pages come in no smaller ones."""
        return FRAME_SIZE if self is Pages.THP else self.size


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

    @property
    def mapping(self) -> tuple[int, int]:
        """The VMM's mapping (HVA start, end) that the slot is part of: whole hugetlb pages."""
        size = self.backing.pages.always
        return self.hva & -size, -(-(self.hva + self.size) & -size)


class Space(msgspec.Struct, frozen=True):
    """Where a VMM's page table is, for the kernel that walks it: depth and root (byte address)."""

    levels: int
    root: int


def hva_for(slots: tuple[Memslot, ...], gpa: int) -> int:
    """Where the VMM maps the memory of a slot at ``gpa``: after the others, like ``gpa`` within 1 GiB."""
    end = max((slot.mapping[1] for slot in slots), default=mm.VMM_BASE)
    return -(-max(end, mm.VMM_BASE) // GIB) * GIB + gpa % GIB


def check_slot(slots: tuple[Memslot, ...], mapped: tuple[Memslot, ...], slot: Memslot, maxphyaddr: int) -> str | None:
    """Why KVM_SET_USER_MEMORY_REGION, or the mmap() before it, refuses ``slot`` (a sentence); None where neither does.

    ``slots``: those of its VM; ``mapped``: those of all VMs, which one VMM has.
    """
    for what, value in (("address", slot.gpa), ("size", slot.size), ("HVA", slot.hva)):
        if value % FRAME_SIZE or (what == "size" and not value):
            return f"The slot's {what} {value:#x} is not a multiple of 4 KiB."
    if slot.gpa + slot.size > 1 << maxphyaddr:
        return f"The slot ends above the guest-physical addresses this host has ({maxphyaddr} bits)."
    for other in slots:
        if slot.gpa < other.gpa + other.size and other.gpa < slot.gpa + slot.size:
            return f"The slot overlaps slot {other.id} at {other.gpa:#x}."
    page = slot.backing.pages.always
    if (slot.hva - slot.gpa) % page:
        return f"GPA {slot.gpa:#x} and HVA {slot.hva:#x} lie differently in the pages of {size_name(page)} behind them."
    start, end = slot.mapping
    if not 1 << 16 <= start < end <= mm.TASK_SIZE:
        return f"HVA {start:#x} .. {end:#x} is not in the address space of a process."
    for other in mapped:
        if start < other.mapping[1] and other.mapping[0] < end:
            return f"HVA {start:#x} .. {end:#x} is in use by another slot: choose another address, or none."
    if slot.backing.placement is Placement.CONTIGUOUS and (slot.backing.at - (slot.hva - start)) % page:
        return f"Memory from HPA {slot.backing.at:#x} on does not lie in pages of {size_name(page)}: align it."
    return None


def find(slots: tuple[Memslot, ...], gpa: int) -> Memslot | None:
    """gfn_to_memslot()."""
    return next((slot for slot in slots if slot.holds(gpa)), None)


def contiguous(slot: Memslot) -> tuple[int, int]:
    """The host's memory (byte address, bytes) that is behind the mapping of a CONTIGUOUS slot."""
    start, end = slot.mapping
    return slot.backing.at + start - slot.hva, end - start


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
    start = hva & -size
    fits = slot.hva <= start and start + size <= slot.hva + slot.size
    if slot.backing.placement is Placement.CONTIGUOUS:
        fits = fits and not (slot.backing.at + start - slot.hva) % size
    lv, _, entry = mm.path_to(world.memory, space.levels, space.root, start)[-1]
    empty = lv.level > 1 and not entry & mm.P
    return size if fits and empty else FRAME_SIZE


def _frames_for(world: World, vm: int, slot: Memslot, hva: int, size: int) -> int:
    if slot.backing.placement is Placement.CONTIGUOUS:
        return slot.backing.at + hva - slot.hva  # reserved, and zero, since the slot was made
    owner = Owner(Use.GUEST_PAGE, vm=vm, gfn=slot.to_gpa(hva) >> FRAME_BITS)
    if size == FRAME_SIZE:
        return world.allocate(owner)
    return world.allocate_block(size, owner)


def show_image(world: World, slot: Memslot, gpa: int, hpas: Sequence[int]) -> None:
    """The frames at ``hpas`` (bytes) show those of the slot's image from ``gpa`` on; what it lacks is unknown."""
    image, gfn = slot.image, gpa >> FRAME_BITS
    if image is not None:
        world.memory = world.memory.with_frames_of(image, {hpa >> FRAME_BITS: gfn + n for n, hpa in enumerate(hpas)})
