"""The ways a pCPU's paging mode can change, and what the pCPU can still do afterwards.

A pCPU's mode is its CR0, CR4 and EFER; nothing else. Whatever changes it, the pCPU then fetches its next instruction
and uses its stack through the root it has: where that faults the pCPU is lost, before any VM entry. The trampolines'
own short-lived identity mapping is not modelled, only what comes before and after it.
"""

from enum import Enum

import msgspec

from engine.arch.addresses import FRAME_SIZE
from engine.arch.basis import Basis, assumed, manual
from engine.arch.faults import GeneralProtection
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, Registers, mov_cr0, mov_cr3, mov_cr4
from engine.arch.rights import FETCH, WRITE
from engine.arch.walk import Walk, walk
from engine.host import mm
from engine.host.machine import Host, Pcpu, boot_kernel, running
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
    go this way. ``idle``: no vCPU may be on the pCPU. ``by_kernel``: the kernel's own instructions make the change, so
    the processor checks it and the kernel's copy of CR4 follows.
    """

    all_pcpus: bool = False
    keeps_kvm: bool = True
    boot_pcpu: bool = True
    idle: bool = False
    by_kernel: bool = True
    basis: Basis = manual("SDM vol. 3A, 4.1.2")


WAYS: dict[Way, WayRule] = {
    Way.MOV_CR4: WayRule(basis=manual("SDM vol. 2B, MOV to control registers")),
    Way.TRAMPOLINE: WayRule(basis=manual("SDM vol. 3A, 4.1.2; Linux arch/x86/boot/compressed, trampoline")),
    Way.HOTPLUG: WayRule(boot_pcpu=False, idle=True, basis=manual("Linux arch/x86/realmode/rm/trampoline_64.S")),
    Way.SUSPEND: WayRule(all_pcpus=True, basis=manual("Linux arch/x86/kernel/acpi/wakeup_64.S")),
    Way.KEXEC: WayRule(all_pcpus=True, keeps_kvm=False, basis=manual("Linux arch/x86/kernel/relocate_kernel_64.S")),
    Way.PARENT: WayRule(
        by_kernel=False, basis=assumed("parent: a hypervisor above this host sets its CR4 underneath it")
    ),
}


class Changed(msgspec.Struct, frozen=True):
    """``walks``: the next fetch and push on each changed pCPU. ``fault``: the #GP that stopped the change.

    ``offline``: pCPUs that could not come back, because they cannot walk as deep.
    """

    host: Host
    memory: SparseMemory
    walks: tuple[Walk, ...] = ()
    fault: GeneralProtection | None = None
    offline: tuple[int, ...] = ()


def cannot(host: Host, index: int, way: Way, la57: bool, busy: bool) -> str | None:
    """Why pCPU ``index`` cannot go this way at all (one sentence); None where it can try. ``busy``: a vCPU is on it."""
    pcpu, rule = host.pcpus[index], WAYS[way]
    boots = rule.all_pcpus and host.pcpus[0]
    if pcpu.lost:
        return f"pCPU {index} is lost: {pcpu.lost}"
    if boots and boots.lost:
        return f"pCPU 0, which would lead the others, is lost: {boots.lost}"
    if la57 and not (boots or pcpu).features.la57:
        return f"pCPU {(boots or pcpu).index} has no LA57: it cannot walk five levels."
    if not pcpu.online and way is not Way.HOTPLUG and not rule.all_pcpus:
        return f"pCPU {index} is offline: only taking it online can bring it into another mode."
    if pcpu.online and pcpu.la57 == la57 and way is not Way.KEXEC:
        return f"pCPU {index} walks {pcpu.levels} levels already."
    if index == 0 and not rule.boot_pcpu:
        return "pCPU 0, the boot processor, cannot be taken offline."
    if rule.idle and busy:
        return f"A vCPU is on pCPU {index}: move it to another pCPU before this one goes offline."
    return None


def change_mode(host: Host, memory: SparseMemory, index: int, way: Way, la57: bool, root: Root) -> Changed:
    """pCPU ``index`` (or all, where the way takes all) changes CR4.LA57; then its next fetch is walked.

    Raises Oops where the host's own tables were destroyed before, so that none can be rebuilt from them.
    """
    levels, rule = 5 if la57 else 4, WAYS[way]
    world, roots = World(memory, host.frames), dict(host.roots)
    if not rule.keeps_kvm:
        world, target = boot_kernel(memory, host.frames.ram, host.frames.seed, levels)
        roots = {levels: target}
    elif root is Root.REBUILT and levels != host.levels:
        target = mm.rebuild(world, host.levels, host.root, levels, roots.get(levels))
        roots[levels] = target
    else:
        target = host.root
    after, walks, offline = host, [], []
    for pcpu in host.pcpus:
        if pcpu.lost or not (rule.all_pcpus or pcpu.index == index):
            continue
        if la57 and not pcpu.features.la57:
            offline.append(pcpu.index)
            after = after.with_pcpu(msgspec.structs.replace(pcpu, online=False))
            continue
        cr3 = target if root is Root.REBUILT else pcpu.registers.cr3 or host.root
        changed = _changed(pcpu, way, la57, cr3, memory)
        if isinstance(changed, GeneralProtection):
            return Changed(host, memory, fault=changed)
        seen_by = world.memory if root is Root.REBUILT else memory
        walks += _next_uses(seen_by, changed)
        changed = settle(seen_by, changed)
        if not changed.lost and not rule.keeps_kvm:
            # The kernel that is booted now goes on with tables of its own.
            registers = msgspec.structs.replace(changed.registers, cr3=target)
            changed = msgspec.structs.replace(changed, registers=registers)
        after = after.with_pcpu(changed)
    if not rule.keeps_kvm and after.pcpus[0].lost:
        return Changed(after, memory, tuple(walks))
    own = levels if not rule.keeps_kvm else host.levels
    order = sorted(roots.items(), key=lambda item: item[0] != own)
    after = msgspec.structs.replace(after, frames=world.frames, levels=own, roots=tuple(order))
    return Changed(after, world.memory, tuple(walks), offline=tuple(offline))


def _changed(pcpu: Pcpu, way: Way, la57: bool, cr3: int, memory: SparseMemory) -> Pcpu | GeneralProtection:
    """The pCPU once the change is made, by the instructions that the way uses."""
    old = pcpu.registers
    if not WAYS[way].by_kernel:
        cr4 = int(old.cr4 | CR4.LA57 if la57 else old.cr4 & ~CR4.LA57)
        return msgspec.structs.replace(pcpu, registers=msgspec.structs.replace(old, cr4=cr4, cr3=cr3))
    if not pcpu.online:
        old = running(cr3, 4)  # so far in its trampoline
    cr4 = int(old.cr4 | CR4.LA57 if la57 else old.cr4 & ~CR4.LA57)
    if way is Way.MOV_CR4:
        written = mov_cr4(old, cr4, pcpu.features, memory)
    else:
        # From compatibility mode: paging off, the new CR4 and CR3, paging on; then a far jump back to 64-bit code.
        written = msgspec.structs.replace(old, cs_l=False)
        for write, value in (
            (mov_cr0, int(old.cr0 & ~CR0.PG)),
            (mov_cr4, cr4),
            (mov_cr3, cr3),
            (mov_cr0, old.cr0),
        ):
            written = write(written, value, pcpu.features, memory)
            if not isinstance(written, Registers):
                break
        else:
            written = msgspec.structs.replace(written, cs_l=True)
    if isinstance(written, Registers):
        return msgspec.structs.replace(pcpu, registers=written, cr4_shadow=cr4, online=True)
    assert isinstance(written, GeneralProtection), "long mode loads no PDPTEs"
    return written


def settle(memory: SparseMemory, pcpu: Pcpu) -> Pcpu:
    """``pcpu`` in its new mode: lost where its next fetch or push faults."""
    failed = next((walk for walk in _next_uses(memory, pcpu) if not walk.ok), None)
    return pcpu if failed is None else msgspec.structs.replace(pcpu, lost=_how_lost(failed))


def _next_uses(memory: SparseMemory, pcpu: Pcpu) -> list[Walk]:
    """The next instruction fetch and the next push, as the hardware walks them."""
    paging = bind(pcpu.registers, pcpu.features)
    stack = mm.stack_of(pcpu.index)
    return [walk(memory, paging, mm.KERNEL_TEXT + FRAME_SIZE, FETCH), walk(memory, paging, stack, WRITE)]


def _how_lost(failed: Walk) -> str:
    what = "its next instruction" if failed.access is FETCH else "its stack"
    return (
        f"{what} at {failed.address:#x} cannot be reached through root {failed.paging.root:#x} walked as "
        f"{failed.paging.name}, nor can the fault's handler: a triple fault."
    )
