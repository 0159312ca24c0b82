"""Events of a hypervisor inside a VM (L1) and its guest (L2): loading, mapping, entry, exit, INVEPT.

L1 is software in guest memory: it captures its vCPU's mode once, builds its guest's tables in that format, and names
them at each entry. What those bytes mean is decided at the entry, by the mode L1 is in then. Sources:
svm/nested.c, vmx/nested.c (reference page, 8).
"""

from collections.abc import Callable

import msgspec

from engine import events as ev
from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.faults import EntryFailure
from engine.arch.formats import EPT4, EPT5
from engine.arch.paging import BY_MODE
from engine.arch.registers import Vendor
from engine.arch.rights import Kind
from engine.arch.second_stage import Kind2
from engine.errors import InputError
from engine.kvm import contexts
from engine.kvm.guest_memory import GuestMemory
from engine.kvm.nested import l1_stage
from engine.kvm.vm import Nested, NestedModule, NestedPaging, Vcpu, Vm
from engine.machine.access import physical_store
from engine.machine.common import Result, after, did, left, shadow_of, space_of, world_of
from engine.machine.guest import FORMATS, MAX_PAGES, built_in, placed
from engine.machine.state import Effect, Images, Refusal, State
from engine.machine.vms import invalid
from engine.memory.physical import SparseMemory
from engine.memory.tables import Range

WRITE_BACK_EPTP = 0x6


def _load(state: State, event: ev.LoadNestedKvm, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.module is not None
    amd = state.module.vendor is Vendor.AMD
    if not state.module.parameters.nested:
        return Refusal("KVM was loaded with nested=0: the guest has no SVM or VMX to load a hypervisor with.")
    if not state.module.tdp_enabled:
        return Refusal("Without nested paging of its own KVM offers none to the guest: its hypervisor mirrors tables.")
    if vcpu.nested is not None or vm.nested is not None:
        return Refusal("The guest has loaded its hypervisor already.")
    if event.root % FRAME_SIZE or event.tables % FRAME_SIZE:
        return Refusal("The root and the tables of L1's hypervisor lie at multiples of 4 KiB.")
    if amd and vcpu.registers.mode not in BY_MODE:
        return Refusal("L1 has its paging off: VMRUN with nested paging needs it on. Set its registers first.")
    if not amd and event.levels == 5 and not _has_walk5(state, vcpu):
        return Refusal("This processor has no 5-level EPT to offer to L1: choose 4 levels.")
    fmt = BY_MODE[vcpu.registers.mode] if amd else EPT5 if event.levels == 5 else EPT4
    made = NestedModule(Kind2.NPT if amd else Kind2.EPT, fmt.name, event.vcpu, event.root, event.tables)
    told = ("kvm_init() in L1", f"captures {fmt.name} on vCPU {event.vcpu}: its guest's tables are built so")
    return msgspec.structs.replace(state.with_vm(msgspec.structs.replace(vm, nested=made)), effect=did(told))


def _has_walk5(state: State, vcpu: Vcpu) -> bool:
    assert state.host is not None
    capabilities = state.host.pcpus[vcpu.pcpu].setup.ept
    return capabilities is not None and capabilities.walk5


def _hypervisor(state: State, number: int) -> tuple[Vm, Vcpu, NestedModule] | Refusal:
    vm = state.vm(number)
    if isinstance(vm, Refusal):
        return vm
    if vm.nested is None:
        return Refusal(f"VM {number} has no hypervisor in it: load one first.")
    return vm, vm.vcpus[vm.nested.vcpu], vm.nested


def _map(state: State, event: ev.MapNestedPages, images: Images) -> Result:
    """L1 writes its tables. What no table of KVM's mirrors is written at once; each other word is a store by L1's
    vCPU."""
    found = _hypervisor(state, event.vm)
    if isinstance(found, Refusal):
        return found
    vm, vcpu, module = found
    if vcpu.nested is not None:
        return Refusal(f"vCPU {vcpu.index} runs the nested guest now: its hypervisor writes nothing before the exit.")
    if event.size > MAX_PAGES * max(event.page_size, 1):
        return Refusal(f"At most {MAX_PAGES:,} pages are mapped by one event.")
    wanted = Range(
        address=event.address, target=event.target, size=event.size, page_size=event.page_size, write=event.write,
        execute=event.execute,
    )  # fmt: skip
    world = world_of(state)
    memory = GuestMemory(world, space_of(state), vm)
    place, mirrored = placed(memory), _mirrored_frames(vm, memory)
    built, taken = built_in(world, FORMATS[module.captured], module.root, wanted, module.free, place)
    free = taken[-1] + FRAME_SIZE if taken else module.free
    stores = _changed_words(state, built, mirrored)
    world.memory = built.with_words({address: state.memory.word(address) or 0 for address in stores})
    vm = msgspec.structs.replace(vm, nested=msgspec.structs.replace(module, free=free))
    done = after(state, world, vm=vm)
    actions: list[tuple[str, str]] = []
    for gpa, value in stores.values():
        done = _store(done, vm.index, vcpu.index, gpa, value)
        actions.append(("a store by L1", f"{value:#x} to {gpa:#x}, which KVM mirrors: {len(done.effect.exits)} exits"))
    tables = (free - module.free) // FRAME_SIZE
    effect = did(*actions) if actions else Effect(notes=(f"{tables} tables of L1 hold it",))
    return msgspec.structs.replace(done, effect=effect)


def _mirrored_frames(vm: Vm, memory: GuestMemory) -> dict[int, int]:
    """Host frame number -> guest-physical address of every guest table that KVM mirrors."""
    found = {}
    for gfn in vm.shadow.by_gfn:
        place = memory.place(gfn << FRAME_BITS) if any(p.role.has_gptes for p in vm.shadow.of_gfn(gfn)) else None
        if place is not None:
            found[place >> FRAME_BITS] = gfn << FRAME_BITS
    return found


def _changed_words(state: State, built: SparseMemory, mirrored: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Host byte address -> (L1-physical address, new value) of each word that changes in frames that KVM mirrors."""
    found = {}
    for pfn, gpa in mirrored.items():
        old, new = state.memory.frame(pfn), built.frame(pfn)
        if new is None or old is None:
            continue
        for n, (before, now) in enumerate(zip(old, new, strict=True)):
            if before != now:
                found[(pfn << FRAME_BITS) + n * 8] = (gpa + n * 8, now)
    return found


def _store(state: State, vm: int, vcpu: int, gpa: int, value: int) -> State:
    event = ev.GuestAccess(address=gpa, kind=Kind.WRITE, size=8, value=value, vm=vm, vcpu=vcpu)
    found = state.vcpu(vm, vcpu)
    if isinstance(found, Refusal):
        raise InputError(found.reason)
    done = physical_store(state, *found, event)
    if done.effect.livelock is not None or done.effect.fault is not None:
        raise InputError(f"L1 cannot write its own table at {gpa:#x}: the access never ends, or faults.")
    return done


# --- entry and exit


def _enter(state: State, event: ev.EnterNested, images: Images) -> Result:
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    assert state.module is not None
    assert state.host is not None
    module, setup = state.module, state.host.pcpus[vcpu.pcpu].setup
    if vcpu.nested is not None:
        return Refusal(f"vCPU {vcpu.index} runs its nested guest already.")
    if not module.parameters.nested:
        return Refusal("KVM was loaded with nested=0: VMRUN and VMLAUNCH are #UD for the guest.")
    if event.paging and not module.tdp_enabled:
        return Refusal("Without nested paging of its own KVM offers none to L1: enter without it (paging = false).")
    bad = invalid(event.registers, vcpu.cpuid, setup.features, module.tdp_enabled)
    if bad:
        return Refusal(f"The entry fails on the nested guest's registers: {bad}.")
    root = event.root or _named_root(vm)
    if event.paging and not root:
        return Refusal("L1 names no root for its guest: load its hypervisor, or give nCR3 or EPTP.")
    paging = NestedPaging.NONE
    if event.paging:
        paging = NestedPaging.NPT if module.vendor is Vendor.AMD else NestedPaging.EPT
    nested = Nested(vcpu.registers, paging, root if event.paging else 0)
    second = l1_stage(nested, vcpu.cpuid, setup.features, setup.ept)
    if isinstance(second, EntryFailure):
        return msgspec.structs.replace(state, effect=Effect(fault=second))
    inside = contexts.enter(module, state.host, vcpu, nested, event.registers)
    function = "nested_svm_vmrun()" if module.vendor is Vendor.AMD else "nested_vmx_run()"
    depth = f"L1's tables are read as {second.name}, " if second is not None else ""
    role = inside.role
    told = (function, f"{depth}root_role.level = {role.level}, role word {role.word:#x}")
    return _flushed(state.with_vm(vm.with_vcpu(inside)), event.vm, event.vcpu, told)


def tables_of_another_mode(state: State, vm: Vm, vcpu: Vcpu) -> tuple[str, str] | None:
    """The formats that L1's own tables were built in and that they are read in, where these differ: L1 has changed its
    mode since its module was loaded. None where they agree, or other tables are in use.

    Without a nested guest on ``vcpu``: in what they would be read at the next entry.
    """
    module = vm.nested
    if module is None:
        return None
    registers = vcpu.registers
    if vcpu.nested is not None:
        if vcpu.nested.paging is NestedPaging.NONE or vcpu.nested.root != _named_root(vm):
            return None
        registers = vcpu.nested.l1
    if module.kind is Kind2.EPT or registers.mode not in BY_MODE:
        return None  # EPTP says how deep its tables are; without paging L1 makes no entry
    read = BY_MODE[registers.mode].name
    return None if read == module.captured else (module.captured, read)


def _named_root(vm: Vm) -> int:
    """nCR3 or EPTP as L1's own module has it."""
    module = vm.nested
    if module is None or module.kind is Kind2.NPT:
        return module.root if module else 0
    levels = len(FORMATS[module.captured].levels)
    return module.root | WRITE_BACK_EPTP | (levels - 1) << 3 | 0x40


def _flushed(state: State, vm: int, vcpu: int, told: tuple[str, str]) -> State:
    """AMD: each transition flushes, so that what is out of sync is read again, in the root that is in use then."""
    assert state.module is not None
    found = state.vcpu(vm, vcpu)
    assert not isinstance(found, Refusal)
    owner, cpu = found
    if not contexts.syncs_at_transition(state.module) or cpu.root is None or cpu.role.direct:
        return msgspec.structs.replace(state, effect=did(told))
    world = world_of(state)
    shadow = shadow_of(state, world, owner, cpu)
    shadow.sync_roots(cpu.root)
    return after(state, world, vm=shadow.vm, effect=did(told, *((a.function, a.did) for a in shadow.actions)))


def _leave(state: State, event: ev.LeaveNested, images: Images) -> Result:
    found = _inside(state, event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    function = "nested_svm_vmexit()" if found[1].nested and _is_amd(state) else "nested_vmx_vmexit()"
    told = (function, "L1 goes on, with the registers of its entry")
    return _flushed(left(state, *found), event.vm, event.vcpu, told)


def _is_amd(state: State) -> bool:
    assert state.module is not None
    return state.module.vendor is Vendor.AMD


def _inside(state: State, vm: int, vcpu: int) -> tuple[Vm, Vcpu] | Refusal:
    found = state.vcpu(vm, vcpu)
    if isinstance(found, Refusal):
        return found
    return found if found[1].nested is not None else Refusal(f"vCPU {vcpu} runs no nested guest.")


def _invept(state: State, event: ev.InvalidateNested, images: Images) -> Result:
    """kvm_mmu_free_guest_mode_roots(): guest_mmu lets its roots go; its tables are synchronised when they come back."""
    found = state.vcpu(event.vm, event.vcpu)
    if isinstance(found, Refusal):
        return found
    vm, vcpu = found
    if vcpu.nested is not None:
        return Refusal(f"vCPU {vcpu.index} runs the nested guest now: INVEPT is its hypervisor's.")
    parked = vcpu.parked.without_roots() if vcpu.parked is not None else None
    told = ("handle_invept()", "the roots that mirror L1's tables are let go")
    made = state.with_vm(vm.with_vcpu(msgspec.structs.replace(vcpu, parked=parked)))
    return msgspec.structs.replace(made, effect=did(told))


HANDLERS: dict[type, Callable[..., Result]] = {
    ev.LoadNestedKvm: _load,
    ev.MapNestedPages: _map,
    ev.EnterNested: _enter,
    ev.LeaveNested: _leave,
    ev.InvalidateNested: _invept,
}
