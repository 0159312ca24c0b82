"""The ways a pCPU's paging mode can change, and what the pCPU can still do afterwards.

A pCPU's mode is its CR0, CR4 and EFER; nothing else. Whatever changes it, the pCPU then fetches its next instruction
and uses its stack through the root it has: where that faults the pCPU is lost, before any VM entry.
"""

from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_SIZE
from engine.arch.basis import Basis, assumed, manual
from engine.arch.faults import GeneralProtection
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, Features, Registers, mov_cr0, mov_cr3, mov_cr4
from engine.arch.rights import FETCH, WRITE
from engine.arch.walk import Walk, walk
from engine.host import mm
from engine.host.machine import Host, Pcpu
from engine.host.world import World
from engine.memory.physical import SparseMemory


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
