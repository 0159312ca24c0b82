"""What KVM does to whole ranges of its tables: zap, free, write-protect, split, recover, age.

The TDP MMU finds SPTEs by walking its roots, as here; the older MMU keeps lists of them (rmaps), which give the same
ones as long as nobody else writes into KVM's tables. Tables that mirror a guest's are found by their rmaps. Sources:
tdp_mmu.c, mmu.c (reference page, sections 5.7 and 9.10).
"""

from collections.abc import Callable, Iterator

import msgspec

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.bits import U64
from engine.host.frames import Use
from engine.host.world import Halt, Oops, World
from engine.kvm import mmu
from engine.kvm.memslots import Memslot
from engine.kvm.mmu import ENTRIES, Spte, page_size
from engine.kvm.module import Module
from engine.kvm.shadow_pages import EMPTY
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import Root, Vm

FOREIGN = 4096
"""Pages that are not KVM's and that one walk of overwritten tables may lead through."""


class TooFar(Halt):
    """A walk of tables that a guest has written over leads on and on."""


def sptes(
    world: World, module: Module, root: Root, start: int, end: int, lowest: int = 1
) -> Iterator[tuple[int, Spte]]:
    """(GPA, SPTE) of what is present or MMIO in GPA ``start`` .. ``end`` under ``root``, a table before its entries.

    What is below an SPTE that was changed meanwhile is left out, and a table that is met again at the same level, and
    tables of levels below ``lowest``. Raises TooFar for tables that a guest wrote over.
    """
    seen: set[tuple[int, int]] = set()
    foreign = 0

    def visit(table: int, level: int, base: int) -> Iterator[tuple[int, Spte]]:
        nonlocal foreign
        if (table, level) in seen:
            return
        seen.add((table, level))
        owner = world.owner(table)
        foreign += owner is None or owner.use is not Use.KVM_TABLE
        if foreign > FOREIGN:
            raise TooFar(f"what a guest wrote into KVM's tables leads through more than {FOREIGN:,} foreign pages")
        frame = world.memory.frame(table >> FRAME_BITS)
        size = page_size(level)
        first, last = max(0, (start - base) // size), min(ENTRIES - 1, (end - 1 - base) // size)
        for n in range(first, last + 1):
            value = frame[n] if frame is not None else world.word(table + n * 8)
            if value == module.spte.absent:
                continue
            at = base + n * size
            if module.spte.is_present(value):
                yield at, Spte(level, table + n * 8, value)
                goes_on = level > lowest and not module.spte.is_leaf(value, level)
                if goes_on and world.word(table + n * 8) == value:
                    yield from visit(value & ADDRESS, level - 1, at)
            elif module.spte.is_mmio(value):
                yield at, Spte(level, table + n * 8, value)

    yield from visit(root.hpa, root.role.level, 0)


def _leaves(world: World, module: Module, vm: Vm, start: int, end: int) -> Iterator[tuple[int, Spte]]:
    """What maps or marks a part of GPA ``start`` .. ``end``, under all roots of the VM."""
    for root in vm.roots:
        for gpa, at in sptes(world, module, root, start, end):
            if module.spte.is_leaf(at.value, at.level) or not module.spte.is_present(at.value):
                yield gpa, at


def _mirror_leaves(vm: Vm, start: int, end: int) -> list[int]:
    """The SPTEs (byte addresses) of mirror tables that map a part of GPA ``start`` .. ``end``."""
    rmap, found = vm.shadow.rmap, []
    first, last = start >> FRAME_BITS, (end - 1) >> FRAME_BITS
    for gfn in rmap:
        for address in rmap.get(gfn) or ():
            page = vm.shadow.page(address)
            frames = page_size(page.role.level if page else 1) >> FRAME_BITS
            if gfn <= last and gfn + frames > first:
                found.append(address)
    return sorted(found)


def _rewrite(world: World, changed: dict[int, int]) -> int:
    if changed:
        world.memory = world.memory.with_words(changed)
    return len(changed)


def zap(world: World, module: Module, vm: Vm, start: int, end: int) -> tuple[Vm, int]:
    """Make absent every leaf that maps a part of GPA ``start`` .. ``end``; how many there were. The tables stay.

    kvm_tdp_mmu_unmap_gfn_range(), kvm_unmap_gfn_range().
    """
    count = _rewrite(world, {at.address: module.spte.absent for _, at in _leaves(world, module, vm, start, end)})
    mirrors = _mirror_leaves(vm, start, end)
    _rewrite(world, dict.fromkeys(mirrors, module.spte.absent))
    return msgspec.structs.replace(vm, shadow=vm.shadow.without_leaves(mirrors)), count + len(mirrors)


def zap_all(world: World, module: Module, vm: Vm) -> tuple[Vm, int]:
    """kvm_mmu_zap_all_fast(): all roots are invalid and freed; vCPUs load new ones. Also how many tables there were.

    Special roots stay with their vCPUs.
    """
    tables = _free(world, module, [(root.hpa, root.role.level) for root in vm.roots])
    mirrors = [pfn << FRAME_BITS for pfn in vm.shadow.pages]
    world.free_each((table, FRAME_SIZE) for table in sorted(mirrors))
    vcpus = tuple(vcpu.without_roots() for vcpu in vm.vcpus)
    gone = msgspec.structs.replace(vm, roots=(), vcpus=vcpus, no_huge=frozenset(), shadow=EMPTY)
    return gone, tables + len(mirrors)


def destroy(world: World, module: Module, vm: Vm) -> int:
    """All tables of a VM that goes, and the special roots of its vCPUs; how many there were."""
    _, tables = zap_all(world, module, vm)
    special = [table for vcpu in vm.vcpus for table in vcpu.all_special]
    world.free_each((table, FRAME_SIZE) for table in special)
    return tables + len(special)


def free_below(world: World, module: Module, vm: Vm, at: Spte) -> tuple[Vm, int]:
    """Give back the table that ``at`` points at and all below it (handle_removed_pt()); how many there were."""
    tables = _free(world, module, [(at.value & ADDRESS, at.level - 1)])
    kept = frozenset(table for table in vm.no_huge if world.owner(table) is not None)
    return msgspec.structs.replace(vm, no_huge=kept), tables


def _free(world: World, module: Module, roots: list[tuple[int, int]]) -> int:
    """Give back the tables ``roots`` (byte address, level) and all below them; how many there were.

    Raises Oops where an entry that a guest wrote over points at no table of KVM, or at one that is freed already.
    """
    found: dict[int, None] = {}

    def visit(table: int, level: int) -> None:
        mmu.page_of(world, table, _removed(module))
        if table in found:
            raise Oops(_removed(module), f"the table at HPA {table:#x} is freed twice")
        found[table] = None
        frame = world.memory.frame(table >> FRAME_BITS) if level > 1 else None
        for value in frame if frame is not None else ():
            if module.spte.is_present(value) and not module.spte.is_leaf(value, level):
                visit(value & ADDRESS, level - 1)

    for root in roots:
        visit(*root)
    world.free_each((table, FRAME_SIZE) for table in found)
    return len(found)


def _removed(module: Module) -> str:
    return "handle_removed_pt()" if module.tdp_mmu else "mmu_page_zap_pte()"


# --- dirty logging


def write_protect(world: World, module: Module, vm: Vm, slot: Memslot) -> int:
    """Clear W in every leaf of ``slot`` (kvm_mmu_slot_remove_write_access()); how many lost it."""
    spte, count, large = module.spte, 0, {}
    for root in vm.roots:
        for gpa, at in sptes(world, module, root, slot.gpa, slot.gpa + slot.size, lowest=2):
            if not spte.is_present(at.value):
                continue
            if spte.is_leaf(at.value, at.level):
                if spte.is_writable(at.value):
                    large[at.address] = at.value & ~spte.write
            elif at.level == 2:
                count += _protect_table(world, module, at.value & ADDRESS, gpa, slot)
    mirrors = {}
    for address in _mirror_leaves(vm, slot.gpa, slot.gpa + slot.size):
        value = world.word(address)
        if spte.is_writable(value):
            mirrors[address] = value & ~spte.write
    return count + _rewrite(world, large) + _rewrite(world, mirrors)


def _protect_table(world: World, module: Module, table: int, gpa: int, slot: Memslot) -> int:
    """The same for one level-1 table, which covers what begins at ``gpa``."""
    import numpy as np

    frame, spte = world.memory.frame(table >> FRAME_BITS), module.spte
    if frame is None:
        world.word(table)  # raises
        return 0
    first, last = (slot.gpa - gpa) >> FRAME_BITS, (slot.gpa + slot.size - gpa) >> FRAME_BITS
    words = np.array(frame, np.uint64)
    part = words[max(0, first) : max(0, last)]
    if spte.software:
        hit = part & np.uint64(spte.software) != 0
    else:
        is_mmio = part & np.uint64(spte.mmio_mask) == np.uint64(spte.mmio_value & spte.mmio_mask)
        hit = (part != np.uint64(spte.absent)) & ~(is_mmio & bool(spte.mmio_mask))
    hit &= part & np.uint64(spte.write) != 0
    count = int(np.count_nonzero(hit))
    if count:
        part[hit] &= np.uint64(U64 ^ spte.write)
        world.memory = world.memory.write(table, words.tobytes())
    return count


def split_all(world: World, module: Module, vm: Vm, slot: Memslot) -> int:
    """Split every large page of ``slot`` down to 4 KiB (kvm_mmu_slot_try_split_huge_pages()); how many were split."""
    count = 0
    for root in vm.roots:
        for gpa, at in sptes(world, module, root, slot.gpa, slot.gpa + slot.size, lowest=2):
            count += _split(world, module, vm, gpa, at)
    return count


def _split(world: World, module: Module, vm: Vm, gpa: int, at: Spte) -> int:
    """How many pages were split: the one at ``at``, if it is large, and those of its parts that still are."""
    if at.level == 1 or not module.spte.is_present(at.value) or not module.spte.is_leaf(at.value, at.level):
        return 0
    mmu.page_of(world, at.address, "tdp_mmu_split_huge_page()")
    table, size = mmu.split(world, module, vm, at, gpa), page_size(at.level - 1)
    world.write_word(at.address, module.spte.table(table))
    parts = world.memory.frame(table >> FRAME_BITS) if at.level > 2 else None
    return 1 + sum(
        _split(world, module, vm, gpa + n * size, Spte(at.level - 1, table + n * 8, value))
        for n, value in enumerate(parts if parts is not None else ())
    )


HostSize = Callable[[int], int]
"""Bytes of the host's page behind a GPA; 0 where it has none."""


def recover(world: World, module: Module, vm: Vm, slot: Memslot, host_size: HostSize) -> tuple[Vm, int]:
    """Zap the tables of ``slot`` that stand where a large page could (kvm_tdp_mmu_zap_collapsible_sptes()), once dirty
    logging is over, and of mirror tables the SPTEs (kvm_rmap_zap_collapsible_sptes()); how many. The next fault maps
    the large page."""
    count = 0
    for root in vm.roots:
        for gpa, at in sptes(world, module, root, slot.gpa, slot.gpa + slot.size, lowest=2):
            if not module.spte.is_present(at.value) or module.spte.is_leaf(at.value, at.level):
                continue
            size, most = host_size(max(gpa, slot.gpa)), root.role.level - 1
            if mmu.largest_level(module, vm, slot, size, gpa, most)[0] >= at.level:
                vm, _ = free_below(world, module, vm, at)
                world.write_word(at.address, module.spte.absent)
                count += 1
    small = []
    for address in _mirror_leaves(vm, slot.gpa, slot.gpa + slot.size):
        page, leaf = vm.shadow.page(address), vm.shadow.leaf(address)
        if page is None or leaf is None or not page.role.direct:
            continue  # a guest's own 4-KiB page stays one
        gpa = leaf.gfn << FRAME_BITS
        size = host_size(max(gpa, slot.gpa))
        if mmu.largest_level(module, vm, slot, size, gpa, module.max_huge_page_level)[0] > page.role.level:
            small.append(address)
    _rewrite(world, dict.fromkeys(small, module.spte.absent))
    return msgspec.structs.replace(vm, shadow=vm.shadow.without_leaves(small)), count + len(small)


# --- ageing


def age(world: World, module: Module, vm: Vm, start: int, end: int) -> int:
    """Take A, or what stands for it, from the leaves of GPA ``start`` .. ``end`` (age_gfn_range()); how many had it."""
    spte, changed = module.spte, {}
    for _, at in _leaves(world, module, vm, start, end):
        if spte.is_present(at.value) and spte.aged(at.value) != at.value:
            changed[at.address] = spte.aged(at.value)
    for address in _mirror_leaves(vm, start, end):
        value = world.word(address)
        changed[address] = spte.aged(value)
    return _rewrite(world, {address: new for address, new in changed.items() if new != world.word(address)})
