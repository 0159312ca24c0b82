"""The host: vendor, pCPUs with capabilities and modes, a kernel of a depth fixed at boot. `modes` changes them."""

from functools import lru_cache

import msgspec

from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.second_stage import EptCapabilities
from engine.host import mm
from engine.host.frames import Frames, Owner, Use
from engine.host.world import World
from engine.memory.physical import SparseMemory, Zeros

KERNEL_HPA = 16 << 20
"""Where the host's kernel image lies in RAM."""


class PcpuSetup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The capabilities of one pCPU. ``npt`` counts on AMD, ``ept`` on Intel (None: no EPT).

    ``virtualization``: SVM or VMX. ``mode_based_execute``: EPT can have a right of its own for user-mode fetches (XU),
    which no kernel here turns on.
    """

    features: Features = Features(vendor=Vendor.AMD, maxphyaddr=48)
    virtualization: bool = True
    npt: bool = True
    ept: EptCapabilities | None = None
    mode_based_execute: bool = False


class Pcpu(msgspec.Struct, frozen=True):
    """``lost``: why the pCPU can execute nothing any more; '' while it can.

    ``cr4_shadow``: what the kernel takes CR4 for (cr4_read_shadow()), the value that it wrote itself.
    """

    index: int
    setup: PcpuSetup
    registers: Registers
    cr4_shadow: int
    online: bool = True
    lost: str = ""

    @property
    def features(self) -> Features:
        return self.setup.features

    @property
    def la57(self) -> bool:
        return bool(self.registers.cr4 & CR4.LA57)

    @property
    def levels(self) -> int:
        """The depth that the hardware walks the host's tables, and on AMD nested ones, with."""
        return 5 if self.la57 else 4

    @property
    def unusable(self) -> str:
        """Why nothing runs on it (the rest of a sentence); '' where something can."""
        return f"is lost: {self.lost}" if self.lost else "" if self.online else "is offline."


class Host(msgspec.Struct, frozen=True):
    """``levels``: the depth the kernel was booted with, fixed from then on (``pgtable_l5_enabled()``). ``roots``: the
    host's roots by depth (byte addresses); the first is the kernel's own."""

    pcpus: tuple[Pcpu, ...]
    levels: int
    frames: Frames
    roots: tuple[tuple[int, int], ...]

    @property
    def vendor(self) -> Vendor:
        return self.pcpus[0].features.vendor

    @property
    def root(self) -> int:
        """The root that the kernel walks in software: the VMM's page table (mm->pgd)."""
        return self.roots[0][1]

    def with_pcpu(self, pcpu: Pcpu) -> "Host":
        pcpus = tuple(pcpu if p.index == pcpu.index else p for p in self.pcpus)
        return msgspec.structs.replace(self, pcpus=pcpus)


def boot(
    pcpus: tuple[PcpuSetup, ...], five_level: bool, ram: tuple[tuple[int, int], ...], seed: int
) -> tuple[Host, SparseMemory]:
    """A running kernel: 5-level where ``five_level`` (CONFIG_X86_5LEVEL, no no5lvl) and pCPU 0 has LA57.

    ``ram``: sorted byte ranges (start, end); nothing answers elsewhere. A pCPU that cannot walk as deep as the kernel
    stays offline. Raises InputError where RAM is too small for the kernel.
    """
    levels = 5 if five_level and pcpus[0].features.la57 else 4
    world, root = boot_kernel(SparseMemory(_ram(ram)), ram, seed, levels)
    cpus = []
    for index, setup in enumerate(pcpus):
        online = levels == 4 or setup.features.la57
        registers = running(root, levels) if online else Registers(cr0=0x6000_0010)
        cpus.append(Pcpu(index, setup, registers, registers.cr4, online))
    return Host(pcpus=tuple(cpus), levels=levels, frames=world.frames, roots=((levels, root),)), world.memory


@lru_cache
def _ram(ranges: tuple[tuple[int, int], ...]) -> Zeros:
    """One object for equal RAM maps, so that memories of two replays can be compared."""
    return Zeros(ranges)


def running(root: int, levels: int) -> Registers:
    """The registers of a pCPU that runs a 64-bit kernel of ``levels`` levels with tables at ``root``."""
    return Registers(
        cr0=int(CR0.PG | CR0.WP | CR0.PE), cr3=root, cs_l=True,
        cr4=int(CR4.PAE | CR4.PGE | (CR4.LA57 if levels == 5 else 0)),
        efer=int(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE),
    )  # fmt: skip


def boot_kernel(memory: SparseMemory, ram: tuple[tuple[int, int], ...], seed: int, levels: int) -> tuple[World, int]:
    """A kernel that takes over all of RAM, whatever is in it: its world, and its root (byte address)."""
    world = World(memory, Frames(ram=ram, seed=seed))
    world.reserve(KERNEL_HPA, mm.KERNEL_TEXT_SIZE + mm.STACKS_SIZE, Owner(Use.KERNEL))
    return world, mm.build_root(world, levels, KERNEL_HPA)
