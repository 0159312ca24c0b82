"""The host: vendor, pCPUs with their capabilities and modes, and the ways a mode can change.

A pCPU's paging mode is its CR0, CR4 and EFER; nothing else. Whatever changes it, the pCPU then fetches its next
instruction and uses its stack through the root it has: where that faults the pCPU is lost, before any VM entry.
"""

from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_SIZE
from engine.arch.basis import Basis, assumed, manual
from engine.arch.faults import GeneralProtection
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor, mov_cr0, mov_cr3, mov_cr4
from engine.arch.rights import FETCH, WRITE
from engine.arch.second_stage import EptCapabilities
from engine.arch.walk import Walk, walk
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


# --- changing a mode -------------------------------------------------------------------------------------------------


class Way(Enum):
    """How CR4.LA57 of a pCPU comes to change."""

    MOV_CR4 = "MOV to CR4"
    TRAMPOLINE = "trampoline that leaves long mode"
    HOTPLUG = "offline and online again"
    SUSPEND = "suspend and resume"
    KEXEC = "kexec"
    PARENT = "parent hypervisor"


class Root(Enum):
    """Which root the pCPU loads afterwards."""

    SAME = "the same root"
    REBUILT = "a root rebuilt for the new mode"


class WayRule(msgspec.Struct, frozen=True):
    """What a way needs and does.

    ``all_pcpus``: every pCPU goes this way at once. ``keeps_kvm``: KVM and its VMs survive. ``boot_pcpu``: pCPU 0 can
    go this way. ``idle``: no vCPU may be on the pCPU. ``registers``: instructions make the change, so it is checked.
    """

    all_pcpus: bool = False
    keeps_kvm: bool = True
    boot_pcpu: bool = True
    idle: bool = False
    registers: bool = True
    basis: Basis = manual("SDM vol. 3A, 4.1.2")


WAYS: dict[Way, WayRule] = {
    Way.MOV_CR4: WayRule(basis=manual("SDM vol. 2B, MOV to control registers")),
    Way.TRAMPOLINE: WayRule(basis=manual("SDM vol. 3A, 4.1.2; Linux arch/x86/boot/compressed, trampoline")),
    Way.HOTPLUG: WayRule(boot_pcpu=False, idle=True, basis=manual("Linux arch/x86/realmode/rm/trampoline_64.S")),
    Way.SUSPEND: WayRule(all_pcpus=True, basis=manual("Linux arch/x86/kernel/acpi/wakeup_64.S")),
    Way.KEXEC: WayRule(all_pcpus=True, keeps_kvm=False, basis=manual("Linux arch/x86/kernel/relocate_kernel_64.S")),
    Way.PARENT: WayRule(
        registers=False, basis=assumed("parent: a hypervisor above this host sets its CR4 underneath it")
    ),
}


class Changed(msgspec.Struct, frozen=True):
    """``walks``: the next fetch and push on each changed pCPU. ``fault``: the #GP that stopped the change."""

    host: Host
    memory: SparseMemory
    walks: tuple[Walk, ...] = ()
    fault: GeneralProtection | None = None


def cannot(host: Host, index: int, way: Way, la57: bool, busy: bool) -> str | None:
    """Why pCPU ``index`` cannot go this way at all (one sentence); None where it can try. ``busy``: a vCPU is on it."""
    pcpu, rule = host.pcpus[index], WAYS[way]
    if pcpu.lost:
        return f"pCPU {index} is lost: {pcpu.lost}"
    if la57 and not pcpu.features.la57:
        return f"pCPU {index} has no LA57: it cannot walk five levels."
    if pcpu.la57 == la57 and way is not Way.KEXEC:
        return f"pCPU {index} walks {pcpu.levels} levels already."
    if index == 0 and not rule.boot_pcpu:
        return "pCPU 0, the boot processor, cannot be taken offline."
    if rule.idle and busy:
        return f"A vCPU is on pCPU {index}: move it to another pCPU before this one goes offline."
    return None


def change_mode(host: Host, memory: SparseMemory, index: int, way: Way, la57: bool, root: Root) -> Changed:
    """pCPU ``index`` (or all, where the way takes all) changes CR4.LA57; then its next fetch is walked."""
    world = World(memory, host.frames)
    levels = 5 if la57 else 4
    target = dict(host.roots).get(levels)
    if root is Root.REBUILT and levels != host.levels:
        # What the VMM has mapped meanwhile must be in it too, so an old copy is of no use.
        target = mm.rebuild(world, host.levels, host.root, levels)
    after = msgspec.structs.replace(
        host,
        frames=world.frames,
        roots=(host.roots[0], (levels, target)) if target and levels != host.levels else host.roots,
    )
    walks: list[Walk] = []
    chosen = [p for p in host.pcpus if WAYS[way].all_pcpus or p.index == index]
    for pcpu in chosen:
        if pcpu.lost or (la57 and not pcpu.features.la57):
            continue
        cr3 = target if root is Root.REBUILT and target else pcpu.registers.cr3
        changed = _registers_after(pcpu, way, la57, cr3, world.memory)
        if isinstance(changed, GeneralProtection):
            return Changed(host, memory, fault=changed)
        walks_here = _next_uses(world.memory, changed, pcpu.features)
        walks += walks_here
        failed = next((w for w in walks_here if not w.ok), None)
        lost = "" if failed is None else _how_lost(failed)
        after = after.with_pcpu(msgspec.structs.replace(pcpu, registers=changed, lost=lost))
    if not WAYS[way].keeps_kvm and target:
        # The kernel that is booted now has the new depth for its own.
        after = msgspec.structs.replace(after, levels=levels, roots=((levels, target),))
    return Changed(after, world.memory, tuple(walks))


def _registers_after(pcpu: Pcpu, way: Way, la57: bool, cr3: int, memory: SparseMemory) -> Registers | GeneralProtection:
    """The registers once the change is made, by the instructions that the way uses."""
    old, features = pcpu.registers, pcpu.features
    cr4 = int(old.cr4 | CR4.LA57 if la57 else old.cr4 & ~CR4.LA57)
    if not WAYS[way].registers:
        return msgspec.structs.replace(old, cr4=cr4, cr3=cr3)
    if way is Way.MOV_CR4:
        written = mov_cr4(old, cr4, features, memory)
    else:
        # From compatibility mode: paging off, the new CR4 and CR3, paging on; then a far jump back to 64-bit code.
        written = msgspec.structs.replace(old, cs_l=False)
        for write, value in (
            (mov_cr0, int(old.cr0 & ~CR0.PG)),
            (mov_cr4, cr4),
            (mov_cr3, cr3),
            (mov_cr0, old.cr0),
        ):
            written = write(written, value, features, memory)
            if not isinstance(written, Registers):
                break
        else:
            written = msgspec.structs.replace(written, cs_l=True)
    if isinstance(written, (Registers, GeneralProtection)):
        return written
    raise AssertionError("long mode loads no PDPTEs")


def _next_uses(memory: SparseMemory, registers: Registers, features: Features) -> list[Walk]:
    """The next instruction fetch and the next push, as the hardware walks them."""
    paging = bind(registers, features)
    return [walk(memory, paging, mm.KERNEL_TEXT + FRAME_SIZE, FETCH), walk(memory, paging, mm.KERNEL_STACK, WRITE)]


def _how_lost(failed: Walk) -> str:
    what = "its next instruction" if failed.access is FETCH else "its stack"
    return (
        f"{what} at {failed.address:#x} cannot be reached through root {failed.paging.root:#x} walked as "
        f"{failed.paging.name}, nor can the fault's handler: a triple fault."
    )
