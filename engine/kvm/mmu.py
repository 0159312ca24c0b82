"""KVM's direct MMU: roots, its own walk of its tables, mapping, zapping. Software, at the level that it captured.

Nothing here asks how deep the hardware walks: that is the point. Both MMUs write the same bytes for direct tables;
their functions differ in name. Sources: arch/x86/kvm/mmu/tdp_mmu.c, tdp_iter.c, mmu.c (reference page, sections 4 - 6).
"""

from collections.abc import Iterator

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.registers import Vendor
from engine.host.frames import Owner, Use
from engine.host.mm import HostPage
from engine.host.world import World
from engine.kvm.memslots import Memslot
from engine.kvm.module import Module
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import Role, Root, Vm

ENTRIES = 512


def index(gpa: int, level: int) -> int:
    return (gpa >> (12 + 9 * (level - 1))) & (ENTRIES - 1)


def page_size(level: int) -> int:
    """Bytes that an SPTE of ``level`` covers."""
    return 1 << (12 + 9 * (level - 1))


class Spte(msgspec.Struct, frozen=True):
    """An SPTE where KVM's walk meets it: its level, the byte address it is at, its value."""

    level: int
    address: int
    value: int


def allocate_table(world: World, module: Module, vm: int, level: int, gpa: int) -> int:
    """A table of ``level`` that covers ``gpa``, every entry absent; its byte address."""
    base_gfn = (gpa & ~(page_size(level + 1) - 1)) >> FRAME_BITS
    address = world.allocate(Owner(Use.KVM_TABLE, vm=vm, level=level, gfn=base_gfn))
    absent = module.spte.absent
    if absent:
        world.memory = world.memory.write(address, absent.to_bytes(8, "little") * ENTRIES)
    return address


def load_root(world: World, module: Module, vm: Vm, level: int) -> tuple[Vm, Root]:
    """kvm_mmu_load(): the VM's root of this role, or a new one."""
    role = Role(level=level, ad_disabled=not module.ad_bits)
    for root in vm.roots:
        if root.role == role:
            return vm, root
    root = Root(allocate_table(world, module, vm.index, level, 0), role)
    return msgspec.structs.replace(vm, roots=(*vm.roots, root)), root


def walk(world: World, module: Module, root: Root, gpa: int) -> list[Spte]:
    """KVM's own walk: the SPTEs for ``gpa`` from the root down to a leaf, an absent or an MMIO one."""
    path, table = [], root.hpa
    for level in range(root.role.level, 0, -1):
        address = table + index(gpa, level) * 8
        value = world.word(address)
        path.append(Spte(level, address, value))
        if not module.spte.is_present(value) or module.spte.is_leaf(value, level):
            break
        table = value & ADDRESS
    return path


def map_path(world: World, module: Module, vm: Vm, root: Root, gpa: int, goal: int) -> tuple[Spte, list[str]]:
    """The SPTE of level ``goal`` for ``gpa``, tables above it linked where they were missing; and what was done."""
    done: list[str] = []
    table = root.hpa
    for level in range(root.role.level, goal, -1):
        address = table + index(gpa, level) * 8
        value = world.word(address)
        if module.spte.is_present(value) and module.spte.is_leaf(value, level):
            table = _split(world, module, vm, Spte(level, address, value), gpa)
            done.append(f"kvm_tdp_mmu_map(): the level-{level} page is split into a level-{level - 1} table")
        elif module.spte.is_present(value):
            table = value & ADDRESS
        else:
            table = allocate_table(world, module, vm.index, level - 1, gpa)
            world.write_word(address, module.spte.table(table))
            done.append(f"tdp_mmu_link_sp(): a level-{level - 1} table at {table:#x} is linked at {address:#x}")
    address = table + index(gpa, goal) * 8
    return Spte(goal, address, world.word(address)), done


def _split(world: World, module: Module, vm: Vm, old: Spte, gpa: int) -> int:
    """tdp_mmu_split_huge_page(): a table with the same pages and rights, one level down, takes the SPTE's place."""
    level, small = old.level - 1, page_size(old.level - 1)
    table = allocate_table(world, module, vm.index, level, gpa)
    spte, base = module.spte, old.value & ADDRESS & ~(page_size(old.level) - 1)
    words = {}
    for n in range(ENTRIES):
        leaf = spte.leaf(
            base + n * small, level, host_writable=bool(old.value & spte.host_writable),
            writable=spte.is_writable(old.value), executable=spte.is_executable(old.value),
        )  # fmt: skip
        words[table + n * 8] = leaf
    world.memory = world.memory.with_words(words)
    world.write_word(old.address, spte.table(table))
    return table


def huge_level(
    module: Module, slot: Memslot, page: HostPage, gpa: int, root_level: int, *, exec_fault: bool
) -> tuple[int, str]:
    """kvm_mmu_hugepage_adjust(): the level to map at, and why it is no larger (reference page, 5.8)."""
    if slot.dirty_log:
        return 1, "dirty logging tracks 4-KiB pages"
    if exec_fault and module.parameters.nx_huge_pages:
        return 1, "nx_huge_pages: executable pages are mapped as 4 KiB"
    level, why = 1, "the host maps a 4-KiB page here"
    for candidate in range(2, min(module.max_huge_page_level, root_level - 1) + 1):
        size = page_size(candidate)
        start = gpa & ~(size - 1)
        if page.size < size:
            return level, f"the host maps {page.size >> 10} KiB here"
        if start < slot.gpa or start + size > slot.gpa + slot.size:
            return level, "the memslot does not hold the whole larger page"
        if (slot.hva - slot.gpa) % size:
            return level, "GPA and HVA differ in alignment"
        level, why = candidate, f"the host maps {page.size >> 20} MiB here"
    return level, why


def leaves(world: World, module: Module, root: Root) -> Iterator[tuple[int, Spte]]:
    """(GPA, SPTE) of every leaf and MMIO SPTE under ``root``."""

    def visit(table: int, level: int, gpa: int) -> Iterator[tuple[int, Spte]]:
        frame = world.memory.frame(table >> FRAME_BITS)
        assert frame is not None
        for n, value in enumerate(frame):
            if value == module.spte.absent:
                continue
            at = gpa + n * page_size(level)
            if module.spte.is_present(value) and not module.spte.is_leaf(value, level):
                yield from visit(value & ADDRESS, level - 1, at)
            elif module.spte.is_present(value) or module.spte.is_mmio(value):
                yield at, Spte(level, table + n * 8, value)

    return visit(root.hpa, root.role.level, 0)


def zap(world: World, module: Module, vm: Vm, start: int, end: int) -> int:
    """Make absent every leaf under the VM's roots that maps a part of GPA ``start`` .. ``end``; how many there were.

    kvm_tdp_mmu_unmap_gfn_range(): the tables above stay.
    """
    count = 0
    for root in vm.roots:
        hit = [s for gpa, s in leaves(world, module, root) if gpa < end and start < gpa + page_size(s.level)]
        if hit:
            world.memory = world.memory.with_words(dict.fromkeys((s.address for s in hit), module.spte.absent))
        count += len(hit)
    return count


def free_below(world: World, module: Module, spte: Spte) -> int:
    """Give back the table that ``spte`` points at and all below it; how many there were."""
    return _free(world, module, spte.value & ADDRESS, spte.level - 1)


def free_root(world: World, module: Module, root: Root) -> int:
    """Give back the root and all tables below it (kvm_mmu_free_roots()); how many there were."""
    return _free(world, module, root.hpa, root.role.level)


def _free(world: World, module: Module, table: int, level: int) -> int:
    """Frames that are not KVM's own are left alone: a guest may have written what is taken for a pointer here."""
    owner = world.frames.owner(table >> FRAME_BITS)
    if owner is None or owner.use is not Use.KVM_TABLE:
        return 0
    freed = 1
    frame = world.memory.frame(table >> FRAME_BITS)
    assert frame is not None
    world.free(table)
    if level > 1:
        for value in frame:
            if module.spte.is_present(value) and not module.spte.is_leaf(value, level):
                freed += _free(world, module, value & ADDRESS, level - 1)
    return freed


def write_protect(world: World, module: Module, vm: Vm, slot: Memslot) -> int:
    """Clear W in every leaf of ``slot`` (kvm_mmu_slot_remove_write_access()); how many lost it."""
    spte, words = module.spte, {}
    for root in vm.roots:
        for gpa, s in leaves(world, module, root):
            if slot.holds(gpa) and spte.is_present(s.value) and spte.is_writable(s.value):
                words[s.address] = s.value & ~spte.write
    world.memory = world.memory.with_words(words) if words else world.memory
    return len(words)


def eptp(module: Module, root: Root) -> int:
    """construct_eptp(): write-back, the walk length of the root's own role, A/D flags."""
    return root.hpa | 6 | (root.role.level - 1) << 3 | (0x40 if module.ad_bits else 0)


def root_register(module: Module, root: Root) -> tuple[str, int]:
    """What carries the root to the hardware: ("nCR3", a plain CR3) on AMD, ("EPTP", with its walk length) on Intel."""
    return ("nCR3", root.hpa) if module.vendor is Vendor.AMD else ("EPTP", eptp(module, root))
