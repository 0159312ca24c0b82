"""The host: vendor, pCPUs with capabilities and modes, a kernel of a depth fixed at boot. `modes` changes them."""

import msgspec

from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.second_stage import EptCapabilities
from engine.host import mm
from engine.host.frames import Frames, Owner, Use
from engine.host.world import World
from engine.memory.physical import ZERO, SparseMemory

KERNEL_HPA = 16 << 20
"""Where the host's kernel image lies in RAM."""
STACK_SIZE = 2 << 20


class PcpuSetup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The capabilities of one pCPU. ``npt`` counts on AMD, ``ept`` on Intel (None: no EPT)."""

    features: Features = Features(vendor=Vendor.AMD, maxphyaddr=48)
    npt: bool = True
    ept: EptCapabilities | None = None


class Pcpu(msgspec.Struct, frozen=True):
    """``lost``: why the pCPU can execute nothing any more; '' while it can."""

    index: int
    setup: PcpuSetup
    registers: Registers
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
    """A running kernel: 5-level where ``five_level`` and every pCPU has LA57, as with CONFIG_X86_5LEVEL.

    Raises InputError where RAM is too small for the kernel.
    """
    levels = 5 if five_level and all(p.features.la57 for p in pcpus) else 4
    kernel = Owner(Use.KERNEL)
    frames = Frames(ram=ram, seed=seed).reserve(KERNEL_HPA, mm.KERNEL_TEXT_SIZE + STACK_SIZE, kernel)
    world = World(SparseMemory(ZERO), frames)
    root = mm.build_root(world, levels, KERNEL_HPA)
    cr4 = CR4.PAE | CR4.PGE | (CR4.LA57 if levels == 5 else 0)
    registers = Registers(
        cr0=int(CR0.PG | CR0.WP | CR0.PE), cr3=root, cr4=int(cr4), cs_l=True,
        efer=int(EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE),
    )  # fmt: skip
    cpus = tuple(Pcpu(index=n, setup=setup, registers=registers) for n, setup in enumerate(pcpus))
    return Host(pcpus=cpus, levels=levels, frames=world.frames, roots=((levels, root),)), world.memory
