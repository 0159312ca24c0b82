"""The host's page tables: the kernel's and the VMM's in one root, written by the kernel, in real bytes.

HVA -> HPA for the VMM's memory is what KVM asks for a fault's frame and for the host's page size. The kernel walks its
own tables at the depth it was booted with (``pgtable_l5_enabled()``), whatever a pCPU's CR4 says later.
Sources: Linux arch/x86/mm, mm/memory.c; KVM's host_pfn_mapping_level().
"""

from collections.abc import Iterator
from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_BITS, sign_extend
from engine.arch.bits import bit, mask
from engine.arch.formats import LEVEL4, LEVEL5, Format, LevelFormat
from engine.host.frames import Owner, Use
from engine.host.world import World
from engine.memory.physical import SparseMemory
from engine.memory.tables import Range, map_ranges

KERNEL_TEXT = 0xFFFF_FFFF_8100_0000
"""Where Linux maps its text, in both paging depths; the next fetch of a pCPU is made here."""
KERNEL_TEXT_SIZE = 16 << 20
KERNEL_STACK = 0xFFFF_FFFF_8200_0000
"""A page of the kernel image that stands for the running stack."""
VMM_BASE = 0x7F00_0000_0000
"""Where the VMM's guest memory is mapped, slot after slot, each at a multiple of 1 GiB."""
PS = bit(7)
ADDRESS = mask(51, 12)
P, RW, US, A, D, NX = bit(0), bit(1), bit(2), bit(5), bit(6), bit(63)


def host_format(levels: int) -> Format:
    return LEVEL5 if levels == 5 else LEVEL4


class Placement(Enum):
    """Where the frames of the VMM's memory come from."""

    CONTIGUOUS = "contiguous"
    SCATTERED = "scattered"


class HostPage(msgspec.Struct, frozen=True):
    """A page of the host's tables: HVA, HPA (byte addresses of its start), bytes, and its rights."""

    hva: int
    hpa: int
    size: int
    write: bool
    user: bool
    execute: bool


def build_root(world: World, levels: int, kernel_hpa: int) -> int:
    """A root of ``levels`` levels that maps the kernel's text (read, execute) and a stack (write); its byte address."""
    fmt = host_format(levels)
    root = world.allocate(Owner(Use.HOST_TABLE, level=levels))
    common = {"user": False, "global_": True, "accessed": True, "dirty": True}
    large = 2 << 20
    text = Range(address=KERNEL_TEXT, target=kernel_hpa, size=KERNEL_TEXT_SIZE, page_size=large, write=False, **common)
    stack = Range(
        address=KERNEL_STACK, target=kernel_hpa + KERNEL_TEXT_SIZE, size=large, page_size=large, execute=False, **common
    )
    _map(world, fmt, root, [text, stack])
    return root


def map_page(world: World, levels: int, root: int, page: HostPage) -> None:
    """Write the tables that make ``page`` mapped; nothing may be mapped there."""
    wanted = Range(
        address=page.hva, target=page.hpa, size=page.size, page_size=page.size, write=page.write, user=page.user,
        execute=page.execute, accessed=True, dirty=page.write,
    )  # fmt: skip
    _map(world, host_format(levels), root, [wanted])


def _map(world: World, fmt: Format, root: int, ranges: list[Range]) -> None:
    """Map through the common builder; the frames it takes are cleared by it, so only their owner is recorded here."""

    def allocate() -> int:
        return world.take(Owner(Use.HOST_TABLE))

    world.memory = map_ranges(world.memory, fmt, root, ranges, allocate)


def lookup(memory: SparseMemory, levels: int, root: int, hva: int) -> HostPage | None:
    """What the kernel's own walk of its tables finds for ``hva``; None where nothing is mapped."""
    path = path_to(memory, levels, root, hva)
    lv, _, entry = path[-1]
    if not entry & P:
        return None
    return _page(lv, entry, hva & ~(_size(lv) - 1))


def path_to(memory: SparseMemory, levels: int, root: int, hva: int) -> list[tuple[LevelFormat, int, int]]:
    """(level, the entry's byte address, the entry) from the root down to the leaf or to an absent entry."""
    path = []
    table = root
    for lv in host_format(levels).levels:
        at = table + ((hva >> lv.shift) & ((1 << lv.bits) - 1)) * 8
        entry = memory.word(at)
        assert entry is not None
        path.append((lv, at, entry))
        if not entry & P or lv.level == 1 or (entry & PS and lv.page is not None):
            break
        assert lv.table is not None
        table = entry & lv.table.address
    return path


def clear_page(world: World, levels: int, root: int, hva: int) -> HostPage | None:
    """Unmap the page that holds ``hva``; what was mapped, None if nothing was. Its frames are not given back."""
    lv, at, entry = path_to(world.memory, levels, root, hva)[-1]
    if not entry & P:
        return None
    world.write_word(at, 0)
    return _page(lv, entry, hva & ~(_size(lv) - 1))


def drop_table(world: World, levels: int, root: int, hva: int) -> None:
    """Take out the (empty) page table that maps the 2 MiB around ``hva``, if there is one, and give it back."""
    for lv, at, entry in path_to(world.memory, levels, root, hva):
        if lv.level == 2 and entry & P and not entry & PS:
            assert lv.table is not None
            world.write_word(at, 0)
            world.free(entry & lv.table.address)


def pages(memory: SparseMemory, levels: int, root: int) -> Iterator[HostPage]:
    """Every page that the tables under ``root`` map, in order of address."""

    def visit(table: int, depth: int, base: int) -> Iterator[HostPage]:
        lv = host_format(levels).levels[depth]
        frame = memory.frame(table >> FRAME_BITS)
        assert frame is not None
        for index, entry in enumerate(frame):
            if not entry & P:
                continue
            address = base | index << lv.shift
            if lv.level == 1 or (entry & PS and lv.page is not None):
                yield _page(lv, entry, sign_extend(address, host_format(levels).width))
            else:
                assert lv.table is not None
                yield from visit(entry & lv.table.address, depth + 1, address)

    return visit(root, 0, 0)


def rebuild(world: World, old_levels: int, old_root: int, levels: int) -> int:
    """A root of ``levels`` levels that maps what ``old_root`` maps: what a kernel that changes its depth would need."""
    root = world.allocate(Owner(Use.HOST_TABLE, level=levels))
    for page in list(pages(world.memory, old_levels, old_root)):
        map_page(world, levels, root, page)
    return root


def _size(lv: LevelFormat) -> int:
    return 1 << lv.shift


def _page(lv: LevelFormat, entry: int, hva: int) -> HostPage:
    assert lv.page is not None
    return HostPage(
        hva=hva, hpa=entry & lv.page.address, size=_size(lv), write=bool(entry & RW), user=bool(entry & US),
        execute=not entry & NX,
    )  # fmt: skip
