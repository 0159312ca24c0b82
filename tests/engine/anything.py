"""Any event at all: legal, odd or absurd, as a file or a slip of the hand could bring it."""

from typing import Any, get_args, get_type_hints

from hypothesis import strategies as st

from engine import events as ev
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.second_stage import EptCapabilities
from engine.edits import Edit
from engine.host.machine import PcpuSetup
from engine.kvm.kernels import KERNELS
from engine.kvm.memslots import Backing
from engine.kvm.vm import GuestCpu

EVENTS = get_args(ev.Event)
EDITS = get_args(Edit)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ADDRESSES = [
    0,
    8,
    0xFFC,
    0x1000,
    0x20_0000,
    16 * MIB,
    64 * MIB,
    GIB,
    4 * GIB - 16,
    1 << 36,
    1 << 47,
    1 << 48,
    (1 << 52) - 8,
    1 << 60,
]
u64 = st.sampled_from(ADDRESSES) | st.integers(0, (1 << 64) - 1)
sizes = st.sampled_from([0, 1, 8, 4 * KIB, 64 * KIB, 2 * MIB, 64 * MIB, GIB, 1 << 40, 1 << 52])
small = st.sampled_from([0, 0, 0, 1, 2, 7, 300])
registers = st.builds(
    Registers,
    cr0=st.sampled_from([0, 1, int(CR0.PG | CR0.PE), int(CR0.PG | CR0.PE | CR0.WP), int(CR0.PG), 1 << 40]),
    cr3=u64,
    cr4=st.sampled_from([0, int(CR4.PSE), int(CR4.PAE), int(CR4.PAE | CR4.LA57), int(CR4.PAE | CR4.PCIDE), 1 << 50]),
    efer=st.sampled_from([0, int(EFER.NXE), int(EFER.LME | EFER.LMA | EFER.NXE), int(EFER.LMA)]),
    cpl=st.integers(0, 3),
    cs_l=st.booleans(),
    pdptes=st.none() | st.tuples(u64, u64, u64, u64),
)
features = st.builds(
    Features,
    vendor=st.sampled_from(Vendor),
    maxphyaddr=st.integers(32, 52),
    la57=st.booleans(),
    nx=st.booleans(),
    page1gb=st.booleans(),
)
setups = st.builds(
    PcpuSetup,
    features=features,
    npt=st.sampled_from([True, True, False]),
    ept=st.none()
    | st.builds(EptCapabilities, walk5=st.booleans(), accessed_dirty=st.booleans(), page1gb=st.booleans()),
)
images = st.sampled_from(
    [ev.ImageRef("resource:debian-6.1-4level.core.gz"), ev.ImageRef("resource:none"), ev.ImageRef("nowhere", 5)]
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "image": images,
    "registers": registers,
    "host": st.none() | registers,
    "words": st.lists(u64, max_size=3).map(tuple),
    "ram": st.lists(st.builds(ev.RamRange, sizes, sizes), max_size=2).map(tuple),
    "ram_size": sizes,
    "size": sizes,
    "page_size": st.sampled_from([4096, 2 * MIB, 4 * MIB, GIB, 0, 5]),
    "pcpus": st.lists(setups, max_size=3).map(tuple),
    "kernel": st.sampled_from([*KERNELS, "none"]),
    "cpuid": st.builds(GuestCpu, maxphyaddr=st.integers(32, 52), la57=st.booleans()),
    "backing": st.builds(Backing, at=u64),
    "seed": u64,
}
NUMBERS = {"vm", "vcpu", "pcpu", "slot", "cpu", "key"}


def any_event(kind: type | None = None) -> st.SearchStrategy[Any]:
    """An event of ``kind``, or of any kind."""
    return st.one_of([_of(k) for k in EVENTS]) if kind is None else _of(kind)


def _of(kind: type) -> st.SearchStrategy[Any]:
    given: dict[str, Any] = {}
    sized = {"GuestAccess", "AccessMemory", "Poke"}
    for name in kind.__struct_fields__:  # type: ignore[attr-defined]
        if name == "size" and kind.__name__ in sized:
            continue
        if name == "image" and kind.__name__ == "SetMemslot":
            given[name] = st.none() | images
        elif name == "registers" and kind.__name__ == "OpenImage":
            given[name] = st.none() | registers
        elif name in FIELDS:
            given[name] = FIELDS[name]
        elif name in NUMBERS:
            given[name] = small
        elif get_type_hints(kind, include_extras=True)[name] is ev.U64:
            given[name] = u64
    return st.builds(kind, **given)
