"""KVM's direct MMU: roots, its own walk of its tables, and the way down to an SPTE. Software, at the level it captured.

Nothing here asks how deep the hardware walks: that is the point. Both MMUs write the same bytes for direct tables;
their functions differ in name. KVM follows the pointers in its SPTEs blindly; where it needs the struct kvm_mmu_page of
a table (sptep_to_sp()), a page that is none of its own has none, and the kernel oopses. Sources:
arch/x86/kvm/mmu/tdp_mmu.c, tdp_iter.c, mmu.c (reference page, sections 4 - 6).
"""

from array import array

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.registers import Vendor
from engine.host.frames import Owner, Use
from engine.host.mm import HostPage
from engine.host.world import Oops, World
from engine.kvm.actions import Action
from engine.kvm.memslots import Memslot
from engine.kvm.module import Module
from engine.kvm.role import Role
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import Root, Vm

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


# --- tables


def first_gfn(gpa: int, level: int) -> int:
    """The first guest frame that the direct table of ``level`` around ``gpa`` covers."""
    return (gpa & ~(page_size(level + 1) - 1)) >> FRAME_BITS


def allocate_table(world: World, module: Module, vm: int, level: int, gfn: int) -> int:
    """A table of ``level`` for guest frame ``gfn`` and what follows, every entry absent; its byte address."""
    address = world.allocate(Owner(Use.KVM_TABLE, vm=vm, level=level, gfn=gfn))
    absent = module.spte.absent
    if absent:
        world.memory = world.memory.write(address, absent.to_bytes(8, "little") * ENTRIES)
    return address


def page_of(world: World, address: int, function: str) -> Owner:
    """sptep_to_sp(): KVM's own record of the table that holds ``address``. Raises Oops where there is none."""
    owner = world.owner(address)
    if owner is None or owner.use is not Use.KVM_TABLE:
        raise Oops(function, f"the page at HPA {address & ADDRESS:#x} is no table of KVM and has no kvm_mmu_page")
    return owner


def load_root(world: World, module: Module, vm: Vm, role: Role) -> tuple[Vm, Root, Action]:
    """kvm_mmu_load(): the VM's root of this role, or a new one."""
    for root in vm.roots:
        if root.role == role:
            return vm, root, Action("kvm_mmu_load()", f"the level-{role.level} root at {root.hpa:#x} is in use already")
    root = Root(allocate_table(world, module, vm.index, role.level, 0), role)
    vm = msgspec.structs.replace(vm, roots=(*vm.roots, root))
    function = "kvm_tdp_mmu_alloc_root()" if module.tdp_mmu else "mmu_alloc_direct_roots()"
    return vm, root, Action(function, f"a root of level {role.level} at {root.hpa:#x}", "kvm_mmu_get_page")


def eptp(module: Module, root: Root) -> int:
    """construct_eptp(): write-back, the walk length of the root's own role, A/D flags."""
    flags = module.ad_bits and not root.role.ad_disabled
    return root.hpa | 6 | (root.role.level - 1) << 3 | (0x40 if flags else 0)


def root_register(module: Module, root: Root) -> tuple[str, int]:
    """What carries the root to the hardware: ("nCR3", a plain CR3) on AMD, ("EPTP", with its walk length) on Intel."""
    return ("nCR3", root.hpa) if module.vendor is Vendor.AMD else ("EPTP", eptp(module, root))


# --- the way to an SPTE


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


def map_path(
    world: World, module: Module, vm: Vm, root: Root, gpa: int, goal: int, *, no_huge: bool = False
) -> tuple[Spte, Vm, list[Action]]:
    """The SPTE of level ``goal`` for ``gpa``, tables above it linked where they were missing; and what was done.

    Where nx_huge_pages put a table in place of a large page before, the SPTE is one level down
    (disallowed_hugepage_adjust()). ``no_huge``: the tables that are made now are such.
    """
    done: list[Action] = []
    spte, table, level = module.spte, root.hpa, root.role.level
    while True:
        at = Spte(level, table + index(gpa, level) * 8, 0)
        at = msgspec.structs.replace(at, value=world.word(at.address))
        is_table = spte.is_present(at.value) and not spte.is_leaf(at.value, level)
        if level == goal and is_table and at.value & ADDRESS in vm.no_huge:
            goal -= 1
            done.append(Action("disallowed_hugepage_adjust()", f"nx_huge_pages holds this at level {goal}"))
        if level == goal:
            return at, vm, done
        if is_table:
            table = at.value & ADDRESS
        else:
            table, action = _new_table(world, module, vm, at, gpa)
            done.append(action)
            if no_huge:
                vm = msgspec.structs.replace(vm, no_huge=vm.no_huge | {table})
        level -= 1


def _new_table(world: World, module: Module, vm: Vm, at: Spte, gpa: int) -> tuple[int, Action]:
    """Link a table where ``at`` is absent or maps a larger page, which is split into it or dropped."""
    function = "tdp_mmu_link_sp()" if module.tdp_mmu else "link_shadow_page()"
    page_of(world, at.address, function)
    where = f"a level-{at.level - 1} table"
    if not module.spte.is_present(at.value):
        table = allocate_table(world, module, vm.index, at.level - 1, first_gfn(gpa, at.level - 1))
        did = f"{where} at {table:#x} is linked at {at.address:#x}"
    elif module.tdp_mmu and module.kernel.splits:
        table, function = split(world, module, vm, at, gpa), "tdp_mmu_split_huge_page()"
        did = f"the level-{at.level} page at {at.address:#x} is split into {where} at {table:#x}"
    else:
        table = allocate_table(world, module, vm.index, at.level - 1, first_gfn(gpa, at.level - 1))
        function = function if module.tdp_mmu else "drop_large_spte()"
        did = f"{where} at {table:#x} takes the place of the level-{at.level} page at {at.address:#x}"
    world.write_word(at.address, module.spte.table(table))
    trace = "kvm_tdp_mmu_spte_changed" if module.tdp_mmu else "kvm_mmu_get_page"
    return table, Action(function, did, trace)


def split(world: World, module: Module, vm: Vm, large: Spte, gpa: int) -> int:
    """make_small_spte() for all of a large page: a table, not linked yet, with the same pages one level down."""
    level, small = large.level - 1, page_size(large.level - 1)
    table = allocate_table(world, module, vm.index, level, first_gfn(gpa, level))
    first = module.spte.part(large.value, level, executable=module.parameters.nx_huge_pages)
    parts = array("Q", range(first, first + ENTRIES * small, small))
    world.memory = world.memory.write(table, parts.tobytes())
    return table


def huge_level(
    module: Module, vm: Vm, slot: Memslot, page: HostPage, gpa: int, most: int, *, exec_fault: bool
) -> tuple[int, str]:
    """kvm_mmu_hugepage_adjust(): the level to map at, and why it is no larger (reference page, 5.8).

    ``most``: the largest that the tables, and a guest's own page behind the fault, allow.
    """
    if slot.dirty_log:
        return 1, "dirty logging tracks 4-KiB pages"
    if exec_fault and module.parameters.nx_huge_pages:
        return 1, "nx_huge_pages: executable pages are mapped as 4 KiB"
    return largest_level(module, vm, slot, page.size, gpa, most)


def largest_level(
    module: Module, vm: Vm, slot: Memslot, host_size: int, gpa: int, most: int
) -> tuple[int, str]:
    """The largest level at which ``gpa`` could be mapped where the host maps it by a page of ``host_size`` bytes."""
    level, why = 1, "the host maps a 4-KiB page here" if most > 1 else "the guest's own page is one of 4 KiB"
    for candidate in range(2, min(module.max_huge_page_level, most) + 1):
        size = page_size(candidate)
        start = gpa & ~(size - 1)
        if host_size < size:
            return level, f"the host maps {host_size >> 10} KiB here"
        if start < slot.gpa or start + size > slot.gpa + slot.size:
            return level, "the memslot does not hold the whole larger page"
        if (slot.hva - slot.gpa) % size:
            return level, "GPA and HVA differ in alignment"
        if vm.shadow.is_mirrored(start, size):
            return level, "a guest table that KVM mirrors lies in the larger page"
        level, why = candidate, f"the host maps {host_size >> 20} MiB here"
    return level, why
