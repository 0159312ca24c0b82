"""Roots of mirror tables: special roots, the four directories of PAE, passthrough, and the roots a vCPU had before.

The depth of a guest's or of L1's tables meets the depth that the hardware will walk here; what L1 lacks is made up by
special roots or by a passthrough table. Sources: mmu_alloc_special_roots(), mmu_alloc_shadow_roots(),
mmu_alloc_direct_roots(), fast_pgd_switch(), kvm_mmu_new_pgd() (mmu.c; reference page, 4).
"""

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.arch.bits import bit
from engine.errors import InputError
from engine.host.frames import Owner, Use
from engine.kvm.kernels import Bug
from engine.kvm.memslots import find
from engine.kvm.mmu import allocate_table
from engine.kvm.nested import pgd_frame
from engine.kvm.role import PAE_LEVEL
from engine.kvm.shadow import ShadowMmu
from engine.kvm.spte import ADDRESS
from engine.kvm.vm import PREVIOUS_ROOTS, Mmu, Root, SpecialRoots

P, W, U, A = bit(0), bit(1), bit(2), bit(5)


class NoRoots(InputError):
    """kvm_mmu_load() fails: KVM_RUN gives an error each time. ``function``: whose WARN it is."""

    def __init__(self, function: str, why: str) -> None:
        super().__init__(f"{function}: {why}: WARN, and KVM_RUN returns -EIO")
        self.function = function


def special_roots(mmu: ShadowMmu, special: SpecialRoots, guest_level: int, level: int) -> SpecialRoots:
    """mmu_alloc_special_roots(): the tables above PAE directories where the hardware walks ``level`` >= 4 levels and
    what is mirrored has fewer. Raises NoRoots where some of them exist and others do not."""
    if guest_level >= 4 or level < 4:
        return special
    module, needs5 = mmu.module, level > 4
    has = special.pae_root and special.pml4_root and (special.pml5_root or not needs5)
    if Bug.SPECIAL_ROOTS in module.parameters.bugs:
        has = has and special.pml5_root
    if has:
        return special
    function = "mmu_alloc_special_roots()"
    if not module.tdp_enabled or special.pae_root or special.pml4_root or (needs5 and special.pml5_root):
        raise NoRoots(function, f"level {level} is wanted, and only some of the special roots exist")
    made = SpecialRoots(_bare(mmu, 3), _bare(mmu, 4), _bare(mmu, 5) if needs5 else 0)
    names = "pae_root, pml4_root, pml5_root" if needs5 else "pae_root, pml4_root"
    mmu.did(function, f"{names}: a root of level {level} over PAE directories")
    return made


def _bare(mmu: ShadowMmu, level: int) -> int:
    """A page that belongs to an MMU and has no kvm_mmu_page, all zero."""
    return mmu.world.allocate(Owner(Use.KVM_TABLE, vm=mmu.vm.index, level=level))


def pae_root(mmu: ShadowMmu, special: SpecialRoots) -> SpecialRoots:
    """__kvm_mmu_create(): without TDP every MMU has a pae_root from the start."""
    return special if special.pae_root else msgspec.structs.replace(special, pae_root=_bare(mmu, 3))


def load(mmu: ShadowMmu, state: Mmu, guest_level: int, pgd: int, pdptes: tuple[int, int, int, int] | None) -> Mmu:
    """kvm_mmu_load(): ``state`` with a root that mirrors ``pgd``, or, for a guest without paging, maps directly.

    ``pdptes``: the four of a PAE guest. Raises NoRoots.
    """
    if state.root is not None:
        return state
    level, role = state.role.level, state.role
    if not role.direct and not find(mmu.vm.slots, pgd_frame(pgd) << FRAME_BITS):
        at = allocate_table(mmu.world, mmu.module, mmu.vm.index, level, 0)
        mmu.did("kvm_mmu_get_dummy_root()", f"no memslot holds the root at GPA {pgd_frame(pgd) << FRAME_BITS:#x}")
        return msgspec.structs.replace(state, root=Root(at, role, pgd, special=True, dummy=True))
    special = special_roots(mmu, state.special, guest_level, level) if not role.direct else state.special
    if not mmu.module.tdp_enabled:
        special = pae_root(mmu, special)
    if guest_level >= 4:
        page = mmu.get(pgd_frame(pgd), role)
        root = Root(page.table, role, pgd)
    else:
        root = _over_directories(mmu, special, state, guest_level, pgd, pdptes)
    done = msgspec.structs.replace(state, root=root, special=special)
    function = "mmu_alloc_direct_roots()" if role.direct else "mmu_alloc_shadow_roots()"
    mmu.did(function, f"a root of level {level} at {root.hpa:#x}, for a guest of level {guest_level}")
    mmu.sync_roots(root)
    return done


def _over_directories(
    mmu: ShadowMmu,
    special: SpecialRoots,
    state: Mmu,
    guest_level: int,
    pgd: int,
    pdptes: tuple[int, int, int, int] | None,
) -> Root:
    """Four directories behind pae_root, which is behind pml4_root and pml5_root where the hardware walks deeper."""
    world, level, role = mmu.world, state.role.level, state.role
    flags = P | A | W | U if level >= 4 else P  # A, W and U are reserved in PAE's PDPTEs
    words: dict[int, int] = {}
    for n in range(4):
        gfn, quadrant = pgd_frame(pgd), n
        if role.direct:
            gfn, quadrant = n << 18, 0
        elif guest_level == PAE_LEVEL:
            pdpte = pdptes[n] if pdptes else 0
            gfn, quadrant = (pdpte & ADDRESS) >> FRAME_BITS, 0
            if not pdpte & P or not find(mmu.vm.slots, gfn << FRAME_BITS):
                words[special.pae_root + n * 8] = 0
                continue
        page = mmu.get(gfn, msgspec.structs.replace(role, level=2, quadrant=quadrant))
        words[special.pae_root + n * 8] = page.table | flags
    top = special.pae_root
    for above in (special.pml4_root, special.pml5_root)[: max(0, level - PAE_LEVEL)]:
        words[above] = top | flags
        top = above
    world.memory = world.memory.with_words(words)
    return Root(top, role, pgd, special=True)


def switch(state: Mmu, pgd: int) -> Mmu:
    """kvm_mmu_new_pgd(): another CR3, nCR3 or EPTP. A root that the vCPU had before is taken again if it has that role
    and mirrors the same (fast_pgd_switch()); special roots are never kept."""
    kept = [root for root in (state.root, *state.previous) if root is not None and not root.special]
    found = next((root for root in kept if root.pgd == pgd and root.role == state.role), None)
    rest = tuple(root for root in kept if root is not found)[:PREVIOUS_ROOTS]
    return msgspec.structs.replace(state, root=found, previous=rest)
