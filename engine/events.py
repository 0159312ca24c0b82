"""Every event of a scenario, as a small frozen type, in one tagged union.

Values are checked in the types, so a damaged file gives a clear error and never half a scenario. Addresses, entries and
register values are unsigned 64-bit numbers (`U64`), written in hex in files.
"""

from typing import Annotated, Literal

import msgspec

from engine.arch.bits import U64 as MAX
from engine.arch.registers import Registers
from engine.arch.rights import Kind
from engine.host.machine import PcpuSetup
from engine.host.modes import Root, Way
from engine.kvm.kernels import LATEST
from engine.kvm.memslots import Backing
from engine.kvm.module import Parameters
from engine.kvm.vm import GuestCpu

U64 = Annotated[int, msgspec.Meta(ge=0, description="u64")]
RegisterName = Literal["cr0", "cr2", "cr3", "cr4", "efer", "pkru", "pkrs", "rflags", "cpl", "pat"]
WritableRegister = Literal["cr0", "cr3", "cr4", "efer"]
EntrySize = Literal[4, 8]
AccessSize = Literal[1, 2, 4, 8]


class ImageRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A memory image by name: a path, or ``resource:NAME`` for one that comes with the program.

    ``size`` (bytes, None: not recorded) tells a changed file from the one that the scenario was made on.
    """

    path: str
    size: int | None = None


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and not 0 <= value <= MAX:
                raise ValueError(f"{name} must be an unsigned 64-bit number")


class OpenImage(_Event, frozen=True):
    """A memory image becomes physical memory. ``registers``: for an image that has none of its own, or over its own."""

    image: ImageRef
    registers: Registers | None = None


class ChooseCpu(_Event, frozen=True):
    """The registers of CPU ``cpu`` (from 0) of the image are taken."""

    cpu: int


class ChooseRoot(_Event, frozen=True):
    """Another top-level table is walked: CR3 is set as a debugger would, with no check."""

    cr3: U64


class SetRegister(_Event, frozen=True):
    """A register gets a value as a debugger would set it, with no check but its range."""

    name: RegisterName
    value: U64


class WriteRegister(_Event, frozen=True):
    """The processor executes MOV to CRn, or WRMSR to EFER: an illegal value raises #GP and nothing changes."""

    name: WritableRegister
    value: U64


class ChooseSecondStage(_Event, frozen=True):
    """The image is host memory, and the registers are a guest's: a second stage translates their addresses further.

    ``kind``: NPT with nCR3 ``value``, walked in the mode of the ``host`` registers; EPT with EPTP ``value``; or none.
    """

    kind: Literal["npt", "ept", "none"]
    value: U64 = 0
    host: Registers | None = None


class AccessMemory(_Event, frozen=True):
    """The processor accesses memory: accessed and dirty flags are set, and a store stores ``value``.

    ``size`` in bytes; a value of more bytes is cut to it.
    """

    address: U64
    kind: Kind = Kind.READ
    size: AccessSize = 8
    value: U64 = 0
    implicit: bool = False


class Poke(_Event, frozen=True):
    """Somebody writes ``size`` bytes at physical byte address ``address``, an entry of a table say."""

    address: U64
    value: U64
    size: EntrySize = 8


# --- a host with KVM


class RamRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``size`` bytes of RAM from physical byte address ``start``, both multiples of 2 MiB."""

    start: U64
    size: U64

    def __post_init__(self) -> None:
        if self.start > MAX or self.size > MAX:
            raise ValueError("RAM must have unsigned 64-bit addresses")


class BootHost(_Event, frozen=True):
    """A host boots: 5-level where ``five_level`` and pCPU 0 has LA57; a pCPU that lacks it then stays offline.

    ``ram``: the RAM map; empty: ``ram_size`` bytes from address 0.
    """

    pcpus: tuple[PcpuSetup, ...] = (PcpuSetup(), PcpuSetup())
    five_level: bool = False
    ram_size: U64 = 4 << 30
    seed: int = 1
    ram: tuple[RamRange, ...] = ()


class LoadKvm(_Event, frozen=True):
    """kvm_init runs on pCPU ``pcpu``. ``kernel``: a key of `kernels.KERNELS`."""

    kernel: str = LATEST
    parameters: Parameters = Parameters()
    pcpu: int = 0


class UnloadKvm(_Event, frozen=True):
    """The module is removed; VMs must be gone."""


class CreateVm(_Event, frozen=True):
    """KVM_CREATE_VM. VMs are numbered from 0."""


class DestroyVm(_Event, frozen=True):
    vm: int = 0


class CreateVcpu(_Event, frozen=True):
    """KVM_CREATE_VCPU with KVM_SET_CPUID2, on pCPU ``pcpu``, at reset. vCPUs are numbered from 0.

    Its MMU is initialised there: series v1 of the kernels reads that pCPU's mode.
    """

    vm: int = 0
    cpuid: GuestCpu = GuestCpu()
    pcpu: int = 0


class SetMemslot(_Event, frozen=True):
    """KVM_SET_USER_MEMORY_REGION: ``size`` bytes of memory at guest-physical ``gpa``, backed as ``backing`` says.

    ``image``: the memory holds that image's content, GPA for physical address. ``hva``: where the VMM has mapped it; 0:
    where it suits, which is like ``gpa`` within 1 GiB.
    """

    vm: int = 0
    gpa: U64 = 0
    size: U64 = 64 << 20
    backing: Backing = Backing()
    read_only: bool = False
    image: ImageRef | None = None
    hva: U64 = 0


class DeleteMemslot(_Event, frozen=True):
    """The slot and its memory go; KVM drops all of the VM's tables."""

    vm: int = 0
    slot: int = 0


class RestoreGuest(_Event, frozen=True):
    """The VMM makes a VM from a memory image: a memslot for each stretch of memory that it holds, and its CPUs as vCPUs
    on pCPU ``pcpu``. Contiguous memory has GPA 0 at ``backing.at``."""

    image: ImageRef
    backing: Backing = Backing()
    cpuid: GuestCpu = GuestCpu()
    pcpu: int = 0


class SetGuestRegisters(_Event, frozen=True):
    """KVM_SET_SREGS: the VMM sets all registers of a vCPU. Its MMU is initialised anew, on the pCPU where it is."""

    registers: Registers
    vm: int = 0
    vcpu: int = 0


class MapGuestPages(_Event, frozen=True):
    """The VMM writes guest page tables of format ``mode`` under ``root`` (GPA), as a loader does: through memslots and
    HVA, with no nested fault. New tables come from ``tables`` (GPA) upwards. ``size`` and ``page_size`` in bytes."""

    root: U64
    tables: U64
    address: U64
    target: U64
    size: U64
    page_size: U64 = 4096
    mode: Literal["32-bit", "PAE", "4-level", "5-level"] = "4-level"
    write: bool = True
    user: bool = True
    execute: bool = True
    key: int = 0
    vm: int = 0


class FillGuestPages(_Event, frozen=True):
    """The VMM writes ``words`` (64 bits each) at guest-physical ``gpa``, and again after them, for ``size`` bytes."""

    gpa: U64
    words: tuple[U64, ...]
    size: U64 = 0
    vm: int = 0


class GuestAccess(_Event, frozen=True):
    """A vCPU accesses guest-virtual ``address`` through hardware: walks, exits and KVM's answers until it is done, or
    for ever. A store stores ``value``; ``size`` in bytes."""

    address: U64
    kind: Kind = Kind.READ
    size: AccessSize = 8
    value: U64 = 0
    vm: int = 0
    vcpu: int = 0


class Populate(_Event, frozen=True):
    """KVM_PRE_FAULT_MEMORY over a whole slot: every page gets its SPTE, as if a vCPU had read it."""

    vm: int = 0
    vcpu: int = 0
    slot: int = 0


class MoveVcpu(_Event, frozen=True):
    """The scheduler moves a vCPU to another pCPU."""

    pcpu: int
    vm: int = 0
    vcpu: int = 0


class ChangeMode(_Event, frozen=True):
    """CR4.LA57 of a pCPU changes, in one of the ways there are; ``root``: what it loads afterwards."""

    pcpu: int
    la57: bool
    way: Way = Way.TRAMPOLINE
    root: Root = Root.REBUILT


class ZapGuest(_Event, frozen=True):
    """KVM zaps its leaf SPTEs of ``size`` bytes of GPA, tables stay; 0: it drops all tables and roots."""

    gpa: U64 = 0
    size: U64 = 0
    vm: int = 0


class HostMemory(_Event, frozen=True):
    """The host moves or unmaps the page behind ``gpa``, collapses 2 MiB into a huge page, or asks whether the page was
    used (age); mmu_notifier tells KVM."""

    gpa: U64
    action: Literal["move", "unmap", "collapse", "age"] = "move"
    vm: int = 0


class DirtyLogging(_Event, frozen=True):
    """Dirty logging of a slot goes on (its SPTEs lose W) or off (what could be larger pages is zapped)."""

    on: bool = True
    vm: int = 0
    slot: int = 0


class FlushTlb(_Event, frozen=True):
    """All TLBs of a VM's vCPUs are flushed. No translation cache is modelled, so nothing changes."""

    vm: int = 0


class WriteGuestRegister(_Event, frozen=True):
    """A vCPU executes MOV to CRn, or WRMSR to EFER: an illegal value raises #GP and nothing changes."""

    name: WritableRegister
    value: U64
    vm: int = 0
    vcpu: int = 0


class InvalidatePage(_Event, frozen=True):
    """A vCPU executes INVLPG for linear ``address``."""

    address: U64
    vm: int = 0
    vcpu: int = 0


# --- a hypervisor inside a VM (L1) and its guest (L2)


class LoadNestedKvm(_Event, frozen=True):
    """The guest on a vCPU loads a hypervisor of its own, which captures the mode that the vCPU is in: it will build the
    tables for its guest in that format, under ``root`` (L1-physical), further tables from ``tables`` upwards.

    ``levels``: of its EPT; on AMD its own paging mode decides.
    """

    root: U64
    tables: U64
    levels: Literal[4, 5] = 4
    vm: int = 0
    vcpu: int = 0


class MapNestedPages(_Event, frozen=True):
    """The hypervisor inside a VM maps ``size`` bytes of L2-physical ``address`` to L1-physical ``target``, in the
    format that it captured. It writes with the vCPU that it was loaded on: where KVM mirrors a table, each write
    traps."""

    address: U64
    target: U64
    size: U64
    page_size: U64 = 4096
    write: bool = True
    execute: bool = True
    vm: int = 0


class MapL2Pages(MapGuestPages, frozen=True):
    """As `MapGuestPages`, for a nested guest: all addresses are L2-physical, and each lies where the tables of the
    hypervisor inside the VM have put it."""


class FillL2Pages(FillGuestPages, frozen=True):
    """As `FillGuestPages`, at an L2-physical address."""


class EnterNested(_Event, frozen=True):
    """VMRUN or VM entry: the nested guest runs on a vCPU with ``registers``. What translates for it is read now: on AMD
    in the mode that L1 is in, on Intel as its EPTP says.

    ``root``: nCR3 or EPTP; 0: that of L1's own module. ``paging``: L1 uses nested paging for it.
    """

    registers: Registers
    root: U64 = 0
    paging: bool = True
    vm: int = 0
    vcpu: int = 0


class LeaveNested(_Event, frozen=True):
    """The nested guest exits to its hypervisor for a reason of its own, such as HLT."""

    vm: int = 0
    vcpu: int = 0


class InvalidateNested(_Event, frozen=True):
    """The hypervisor inside a VM executes INVEPT, all contexts; on AMD its flush comes with the next VMRUN anyway."""

    vm: int = 0
    vcpu: int = 0


ImageEvent = OpenImage | ChooseCpu | ChooseRoot | SetRegister | WriteRegister | ChooseSecondStage | AccessMemory
HostEvent = (
    BootHost | LoadKvm | UnloadKvm | CreateVm | DestroyVm | CreateVcpu | SetMemslot | DeleteMemslot | RestoreGuest
    | SetGuestRegisters | MapGuestPages | FillGuestPages | GuestAccess | Populate | MoveVcpu | ChangeMode | ZapGuest
    | HostMemory | DirtyLogging | FlushTlb | WriteGuestRegister | InvalidatePage | LoadNestedKvm | MapNestedPages
    | MapL2Pages | FillL2Pages | EnterNested | LeaveNested | InvalidateNested
)  # fmt: skip
Event = ImageEvent | Poke | HostEvent
