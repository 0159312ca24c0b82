"""Events on the host and its kernel: booting, loading KVM, changing a pCPU's mode, poking memory."""

from collections.abc import Callable
from itertools import pairwise

import msgspec

from engine import events as ev
from engine.arch.basis import Ground
from engine.host.machine import boot
from engine.host.modes import WAYS, Root, Way, cannot, change_mode
from engine.kvm.actions import Action
from engine.kvm.kernels import KERNELS
from engine.kvm.module import Refused, kvm_init
from engine.machine.common import Result
from engine.machine.state import Effect, Images, Refusal, State

MAX_PCPUS = 8
MAX_RAM = 1 << 46
MAX_RANGES = 64
REBUILT = "root: the host has tables of the new depth at hand, mapping the same"
COMPATIBILITY = Action(
    "kvm_x86_check_processor_compatibility()",
    "compares what CPUID allows in CR4, and passes: CR4.LA57 is no part of it",
)


def _boot(state: State, event: ev.BootHost, images: Images) -> Result:
    if state.host is not None or state.image is not None:
        return Refusal("A scenario has one host, and no image beside it: this one has begun already.")
    if not 1 <= len(event.pcpus) <= MAX_PCPUS:
        return Refusal(f"A host has 1 to {MAX_PCPUS} pCPUs.")
    if len({p.features.vendor for p in event.pcpus}) > 1:
        return Refusal("All pCPUs of a host are of one vendor.")
    ram = _ram(event)
    if isinstance(ram, Refusal):
        return ram
    smallest = min(p.features.maxphyaddr for p in event.pcpus)
    if ram[-1][1] > 1 << smallest:
        return Refusal(f"A pCPU with MAXPHYADDR {smallest} cannot reach so much RAM.")
    host, memory = boot(event.pcpus, event.five_level, ram, event.seed)
    notes = [f"the kernel runs with {host.levels}-level paging"]
    if event.five_level and host.levels == 4:
        notes.append("pCPU 0 lacks LA57, so the kernel stays with 4 levels")
    notes += [f"pCPU {p.index} lacks LA57, so it stays offline" for p in host.pcpus if not p.online]
    return msgspec.structs.replace(state, host=host, memory=memory, effect=Effect(notes=tuple(notes)))


def _ram(event: ev.BootHost) -> tuple[tuple[int, int], ...] | Refusal:
    """The RAM map as byte ranges (start, end)."""
    ranges = tuple((r.start, r.start + r.size) for r in event.ram) or ((0, event.ram_size),)
    if len(ranges) > MAX_RANGES or any(end <= start or (start | end) % (2 << 20) for start, end in ranges):
        return Refusal(f"RAM comes in at most {MAX_RANGES} ranges of whole 2 MiB.")
    if any(end > start for (_, end), (start, _) in pairwise(ranges)):
        return Refusal("The ranges of RAM must be sorted and must not overlap.")
    if not 64 << 20 <= sum(end - start for start, end in ranges) <= MAX_RAM:
        return Refusal("A host has 64 MiB to 64 TiB of RAM.")
    return ranges


def _load_kvm(state: State, event: ev.LoadKvm, images: Images) -> Result:
    assert state.host is not None
    kernel = KERNELS.get(event.kernel)
    if kernel is None:
        return Refusal(f"There is no kernel “{event.kernel[:40]}”: choose one of {', '.join(KERNELS)}.")
    if state.module is not None:
        return Refusal("KVM is loaded already: unload it first.")
    if event.pcpu >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {event.pcpu}.")
    module = kvm_init(state.host, kernel, event.parameters, event.pcpu)
    if isinstance(module, Refused):
        by = f" ({module.function})" if module.function else ""
        return Refusal(f"kvm_init refuses: {module.reason.rstrip('.')}{by}.")
    about = f"{kernel.label}, {kernel.released}: {kernel.note}"
    level = f"captures max TDP level {module.max_tdp_level}"
    forced = f"forces level {module.tdp_root_level}" if module.tdp_root_level else "forces no level"
    actions = tuple(
        Action(c.function, f"{c.name} = {c.value} on pCPU {c.pcpu}, {c.when}; would change with {c.depends}")
        for c in module.captured
    )
    return msgspec.structs.replace(state, module=module, effect=Effect(notes=(about, level, forced), actions=actions))


def _unload_kvm(state: State, event: ev.UnloadKvm, images: Images) -> Result:
    if any(vm is not None for vm in state.vms):
        return Refusal("KVM is in use: destroy its VMs first.")
    return msgspec.structs.replace(state, module=None, vms=())


def _change_mode(state: State, event: ev.ChangeMode, images: Images) -> Result:
    assert state.host is not None
    if event.pcpu >= len(state.host.pcpus):
        return Refusal(f"There is no pCPU {event.pcpu}.")
    busy = any(v.pcpu == event.pcpu for vm in state.vms if vm for v in vm.vcpus)
    refused = cannot(state.host, event.pcpu, event.way, event.la57, busy)
    if refused:
        return Refusal(refused)
    changed = change_mode(state.host, state.memory, event.pcpu, event.way, event.la57, event.root)
    rule = WAYS[event.way]
    before = {p.index for p in state.host.pcpus if p.lost}
    notes = [f"pCPU {p.index} is lost: {p.lost}" for p in changed.host.pcpus if p.lost and p.index not in before]
    notes += [f"pCPU {n} lacks LA57, so it stays offline" for n in changed.offline]
    assumed = []
    if changed.fault is None:
        if event.root is Root.REBUILT and rule.keeps_kvm:
            assumed.append(REBUILT)
        if rule.basis.ground is Ground.ASSUMPTION:
            assumed.append(rule.basis.reference)
    if not rule.keeps_kvm:
        notes.append("KVM and its VMs are gone with the old kernel")
    comes_online = event.way is Way.HOTPLUG and state.module is not None and changed.fault is None
    effect = Effect(
        walks=changed.walks, fault=changed.fault, notes=tuple(notes), assumed=tuple(assumed),
        actions=(COMPATIBILITY,) if comes_online else (),
    )  # fmt: skip
    after = msgspec.structs.replace(state, host=changed.host, memory=changed.memory, effect=effect)
    return after if rule.keeps_kvm else msgspec.structs.replace(after, module=None, vms=())


HANDLERS: dict[type, Callable[..., Result]] = {
    ev.BootHost: _boot,
    ev.LoadKvm: _load_kvm,
    ev.ChangeMode: _change_mode,
    ev.UnloadKvm: _unload_kvm,
}
