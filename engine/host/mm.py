"""The host's page tables: the kernel's and the VMM's in one root, written by the kernel, in real bytes.

HVA -> HPA for the VMM's memory is what KVM asks for a fault's frame and for the host's page size. The kernel walks its
own tables at the depth it was booted with (``pgtable_l5_enabled()``), whatever a pCPU's CR4 says later.
Sources: Linux arch/x86/mm, mm/memory.c; KVM's host_pfn_mapping_level().
"""

from collections.abc import Iterator
from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.bits import bit, mask
from engine.arch.formats import LEVEL4, LEVEL5, Format, LevelFormat
from engine.host.frames import Owner, Use
from engine.host.world import Oops, UnknownBytes, World
from engine.memory.physical import SparseMemory
from engine.memory.tables import Range, map_ranges

KERNEL_TEXT = 0xFFFF_FFFF_8100_0000
"""Where Linux maps its text, in both paging depths; the next fetch of a pCPU is made here."""
KERNEL_TEXT_SIZE = 16 << 20
KERNEL_STACK = 0xFFFF_FFFF_8200_0000
"""Where the kernel's stacks are mapped here, one a pCPU."""
STACK_SIZE = 16 << 10
STACKS_SIZE = 2 << 20
VMM_BASE = 0x7F00_0000_0000
"""Where the VMM maps guest memory, slot after slot, each as its GPA lies within 1 GiB."""
TASK_SIZE = 0x7FFF_FFFF_F000
"""Where the addresses of a process end, also of one under 5 levels that does not ask for more."""
PS = bit(7)
ADDRESS = mask(51, 12)
P, RW, US, A, D, NX = bit(0), bit(1), bit(2), bit(5), bit(6), bit(63)
ENTRIES = 512


def stack_of(pcpu: int) -> int:
    """A linear address on the stack of pCPU ``pcpu``: where its next push goes."""
    return KERNEL_STACK + (pcpu + 1) * STACK_SIZE - 8


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
    """A root of ``levels`` levels that maps the kernel's text (read, execute) and stacks (write); its byte address."""
    fmt = host_format(levels)
    root = world.allocate(Owner(Use.HOST_TABLE, level=levels))
    common = {"user": False, "global_": True, "accessed": True, "dirty": True}
    large = 2 << 20
    text = Range(address=KERNEL_TEXT, target=kernel_hpa, size=KERNEL_TEXT_SIZE, page_size=large, write=False, **common)
    stacks = Range(
        address=KERNEL_STACK, target=kernel_hpa + KERNEL_TEXT_SIZE, size=STACKS_SIZE, page_size=large, execute=False,
        **common,
    )  # fmt: skip
    _map(world, fmt, root, [text, stacks])
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


# --- what is mapped


def lookup(memory: SparseMemory, levels: int, root: int, hva: int) -> HostPage | None:
    """What the kernel's own walk of its tables finds for ``hva``; None where nothing is mapped.

    Raises UnknownBytes where its tables were written over and lead out of what is known.
    """
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
        at = table + ((hva >> lv.shift) & (ENTRIES - 1)) * 8
        entry = memory.word(at)
        if entry is None:
            raise UnknownBytes(at)
        path.append((lv, at, entry))
        if not entry & P or _is_leaf(lv, entry):
            break
        table = entry & ADDRESS
    return path


def _entries(world: World, table: int, lv: LevelFormat, base: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(slot, entry) of what is present of ``table``, which covers the addresses from ``base``, in ``start`` .. ``end``.

    A table must be one of the host's: so a damaged pointer cannot lead the kernel in circles for ever.
    """
    owner, frame = world.owner(table), world.memory.frame(table >> FRAME_BITS)
    if frame is None or owner is None or owner.use is not Use.HOST_TABLE:
        raise Oops("pmd_bad()", f"an entry of the host's own tables points at HPA {table:#x}, which is no table of it")
    first = max(0, (start - base) >> lv.shift)
    last = min(ENTRIES - 1, (end - 1 - base) >> lv.shift)
    for index in range(first, last + 1):
        if frame[index] & P:
            yield index, frame[index]


# --- what is taken out


def clear_page(world: World, levels: int, root: int, hva: int) -> HostPage | None:
    """Unmap the page that holds ``hva``; what was mapped, None if nothing was. Its frames are not given back."""
    lv, at, entry = path_to(world.memory, levels, root, hva)[-1]
    if not entry & P:
        return None
    world.write_word(at, 0)
    return _page(lv, entry, hva & ~(_size(lv) - 1))


def unmap(world: World, levels: int, root: int, start: int, end: int) -> list[HostPage]:
    """munmap() of ``start`` .. ``end``: what was mapped there. Tables that are left empty are given back
    (free_pgtables()); the frames of the pages are not."""
    fmt = host_format(levels)
    gone: list[HostPage] = []

    def visit(table: int, depth: int, base: int) -> None:
        lv = fmt.levels[depth]
        cleared = {}
        for index, entry in _entries(world, table, lv, base, start, end):
            address = base + (index << lv.shift)
            if _is_leaf(lv, entry):
                gone.append(_page(lv, entry, address))
            else:
                visit(entry & ADDRESS, depth + 1, address)
                if any(world.memory.frame((entry & ADDRESS) >> FRAME_BITS) or ()):
                    continue
                world.free(entry & ADDRESS)
            cleared[table + index * 8] = 0
        world.memory = world.memory.with_words(cleared)

    visit(root, 0, 0)
    return gone


# --- another depth


def rebuild(world: World, levels: int, root: int, wanted: int, old: int | None) -> int:
    """A root of ``wanted`` levels that maps what ``root``, of another depth, maps; the tables below PML4 are shared.

    ``old``: the root that an earlier call made, which is brought up to date. What a kernel that changes its depth
    needs: under 5 levels the two halves of a PML4 hang under the first and the last slot of the PML5.
    """
    if wanted == 5:
        low, high = _halves(world, root)
        if old is None:
            old = world.allocate(Owner(Use.HOST_TABLE, level=5))
            for slot in (0, ENTRIES - 1):
                world.write_word(old + slot * 8, world.allocate(Owner(Use.HOST_TABLE, level=4)) | P | RW | US | A)
        _put(world, world.word(old) & ADDRESS, [*low, *[0] * len(high)])
        _put(world, world.word(old + (ENTRIES - 1) * 8) & ADDRESS, [*[0] * len(low), *high])
        return old
    if old is None:
        old = world.allocate(Owner(Use.HOST_TABLE, level=4))
    words = []
    for half, slot in enumerate((0, ENTRIES - 1)):
        entry = world.word(root + slot * 8)
        words += _halves(world, entry & ADDRESS)[half] if entry & P else [0] * (ENTRIES // 2)
    _put(world, old, words)
    return old


def _halves(world: World, pml4: int) -> tuple[list[int], list[int]]:
    words = [world.word(pml4 + slot * 8) for slot in range(ENTRIES)]
    return words[: ENTRIES // 2], words[ENTRIES // 2 :]


def _put(world: World, table: int, words: list[int]) -> None:
    world.memory = world.memory.with_words({table + slot * 8: word for slot, word in enumerate(words)})


def _is_leaf(lv: LevelFormat, entry: int) -> bool:
    return lv.level == 1 or bool(entry & PS and lv.page is not None)


def _size(lv: LevelFormat) -> int:
    return 1 << lv.shift


def _page(lv: LevelFormat, entry: int, hva: int) -> HostPage:
    assert lv.page is not None
    return HostPage(
        hva=hva, hpa=entry & lv.page.address, size=_size(lv), write=bool(entry & RW), user=bool(entry & US),
        execute=not entry & NX,
    )  # fmt: skip
