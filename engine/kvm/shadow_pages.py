"""Tables of KVM's that mirror a guest's, as values: struct kvm_mmu_page, the hash of them, and the reverse maps.

Every change gives the next version; `shadow.ShadowMmu` is who makes them. Sources: mmu_internal.h, mmu.c
(reference page, 5.7).
"""

import msgspec

from engine.arch.addresses import FRAME_BITS
from engine.kvm.role import Role
from engine.memory.framemap import FrameMap


class ShadowPage(msgspec.Struct, frozen=True):
    """One table. ``table``: its byte address in host memory; ``gfn``: the guest frame that it mirrors, or, for a direct
    one, the first that it maps. ``unsync``: the guest may write into what it mirrors, so it may be out of date.
    ``parents``: byte addresses of the SPTEs that point at it; ``writes``: to what it mirrors, since it was last used.
    """

    table: int
    gfn: int
    role: Role
    unsync: bool = False
    parents: tuple[int, ...] = ()
    writes: int = 0

    @property
    def pfn(self) -> int:
        return self.table >> FRAME_BITS


class Leaf(msgspec.Struct, frozen=True):
    """What KVM notes of an SPTE that maps a page: the guest frame, and the rights by the guest's tables."""

    gfn: int
    access: int


class ShadowPages(msgspec.Struct, frozen=True):
    """``pages``: by the frame number of the table. ``by_gfn``: the tables (frame numbers) of each guest frame, oldest
    first. ``leaves``: by the number of the SPTE's word (byte address / 8). ``rmap``: the SPTEs (byte addresses) that
    map each guest frame. ``unsync``: frame numbers of the tables that are.
    """

    pages: FrameMap[ShadowPage] = FrameMap()
    by_gfn: FrameMap[tuple[int, ...]] = FrameMap()
    leaves: FrameMap[Leaf] = FrameMap()
    rmap: FrameMap[tuple[int, ...]] = FrameMap()
    unsync: frozenset[int] = frozenset()

    def page(self, address: int) -> ShadowPage | None:
        """The table that holds byte ``address``."""
        return self.pages.get(address >> FRAME_BITS)

    def of_gfn(self, gfn: int) -> list[ShadowPage]:
        """The tables whose guest frame is ``gfn``."""
        found = (self.pages.get(pfn) for pfn in self.by_gfn.get(gfn) or ())
        return [page for page in found if page is not None]

    def leaf(self, address: int) -> Leaf | None:
        """What the SPTE at byte ``address`` maps."""
        return self.leaves.get(address >> 3)

    def without_leaves(self, addresses: list[int]) -> "ShadowPages":
        """rmap_remove() for SPTEs at these byte addresses."""
        gone = set(addresses)
        gfns = {leaf.gfn for leaf in map(self.leaf, addresses) if leaf is not None}
        rmap = {gfn: tuple(at for at in self.rmap.get(gfn) or () if at not in gone) or None for gfn in gfns}
        leaves = self.leaves.update({at >> 3: None for at in addresses})
        return msgspec.structs.replace(self, leaves=leaves, rmap=self.rmap.update(rmap))

    def is_tracked(self, gfn: int) -> bool:
        """kvm_gfn_is_write_tracked(): the frame holds a directory that is mirrored, so that writes to it must trap."""
        return any(page.role.has_gptes and page.role.level > 1 for page in self.of_gfn(gfn))

    def is_mirrored(self, start: int, size: int) -> bool:
        """Whether a guest table that is mirrored lies in GPA ``start`` .. ``start + size``: no large page there
        (kvm_mmu_gfn_disallow_lpage())."""
        first, end = start >> FRAME_BITS, (start + size) >> FRAME_BITS
        few = self.by_gfn if len(self.by_gfn) < end - first else range(first, end)
        return any(page.role.has_gptes for gfn in few if first <= gfn < end for page in self.of_gfn(gfn))


EMPTY = ShadowPages()


class Tracked(msgspec.Struct, frozen=True):
    """What went of the mirrors of a guest table that was written: so many SPTEs, and so many whole tables."""

    entries: int
    tables: int


class MmuStats(msgspec.Struct, frozen=True):
    """Statistics of a VM, by their names in debugfs."""

    mmu_shadow_zapped: int = 0
    mmu_pte_write: int = 0
    mmu_pde_zapped: int = 0
    mmu_flooded: int = 0
    mmu_unsync: int = 0
    mmu_cache_miss: int = 0

    def plus(self, name: str) -> "MmuStats":
        return msgspec.structs.replace(self, **{name: getattr(self, name) + 1})
