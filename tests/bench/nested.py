"""What mirrored tables cost: an access of a nested guest, and a write of a guest to its tables under shadow paging.

The floor of an access is the walk alone that it comes down to.
"""

from collections.abc import Iterator
from random import Random
from time import perf_counter

from engine import events as ev
from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.arch.rights import Access, Kind
from engine.kvm.module import Parameters
from engine.machine import Configuration, Refusal, State, apply, start
from engine.machine.intended import intended
from engine.machine.look import look, look_logical
from tests.bench.lines import Line, best

SIZE = 16 << 20
AREA, ROOT, TABLES, NPT_ROOT, NPT_TABLES, L2_BASE = 0x4000_0000, 0x1000, 0x2000, 0x20_0000, 0x21_0000, 0x100_0000
LONG = Registers(
    cr0=int(CR0.PG | CR0.WP | CR0.PE), cr3=ROOT, cr4=int(CR4.PAE), cs_l=True, efer=int(EFER.LME | EFER.LMA | EFER.NXE)
)
PAGES = 4096


def _played(state: State, *events: ev.Event) -> State:
    for event in events:
        reached = apply(state, event, _no_images)  # type: ignore[arg-type]
        assert not isinstance(reached, Refusal), reached
        state = reached
    return state


def _median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]


def nested() -> State:
    """A 4-level hypervisor on a 5-level host, whose 4-level guest has 16 MiB mapped."""
    state = _played(
        start(Configuration()), ev.BootHost(five_level=True), ev.LoadKvm(), ev.CreateVm(), ev.CreateVcpu(),
        ev.SetMemslot(size=64 << 20), ev.SetGuestRegisters(LONG), ev.Populate(),
        ev.LoadNestedKvm(NPT_ROOT, NPT_TABLES), ev.MapNestedPages(0, L2_BASE, 2 * SIZE),
        ev.MapL2Pages(root=ROOT, tables=TABLES, address=AREA, target=SIZE, size=SIZE), ev.EnterNested(LONG),
    )  # fmt: skip
    return state


def lines() -> Iterator[Line]:
    random, state, first, again = Random(8), nested(), [], []
    for n in random.sample(range(PAGES), 200):
        access = ev.GuestAccess(AREA + n * 0x1000 + 0x18, Kind.WRITE, value=n)
        for times in (first, again):
            begun = perf_counter()
            state = _played(state, access)
            times.append(perf_counter() - begun)
    address, read = AREA + 0x5018, Access(Kind.READ, 8)
    state = _played(state, ev.GuestAccess(address))
    floor = best(lambda: look(state, address, read)) * 1e3
    yield Line("an access of L2 to a page that L0 has not mirrored", _median(first) * 1e3, "ms", floor)
    yield Line("an access of L2 to a page that L0 has mirrored", _median(again) * 1e3, "ms", floor)
    yield Line("its logical walk, 149 references", best(lambda: look_logical(state, address, read)) * 1e3, "ms", floor)
    yield from _shadow_paging(random)


def _shadow_paging(random: Random) -> Iterator[Line]:
    """A guest without nested paging writes to a directory, which traps, and to a page table, which goes out of sync."""
    state = _played(
        start(Configuration()), ev.BootHost(), ev.LoadKvm(parameters=Parameters(npt=False)), ev.CreateVm(),
        ev.CreateVcpu(), ev.SetMemslot(size=64 << 20),
        ev.MapGuestPages(root=ROOT, tables=TABLES, address=AREA, target=SIZE, size=SIZE),
        ev.MapGuestPages(root=ROOT, tables=0x10_0000, address=0x8000_0000, target=0, size=2 << 20),
        ev.SetGuestRegisters(LONG),
    )  # fmt: skip
    window = 0x8000_0000
    directory, table, times = (
        TABLES + 0x1000,
        TABLES + 0x2000,
        {"directory": list[float](), "page table": list[float]()},
    )
    for n in range(100):
        slot = n % 8
        state = _played(state, ev.GuestAccess(AREA + (slot << 21) + n * 0x1000))
        for name, at in (("directory", directory + slot * 8), ("page table", table + (n % 512) * 8)):
            value = _entry(state, at)
            event = ev.GuestAccess(window + at, Kind.WRITE, 8, value)
            begun = perf_counter()
            state = _played(state, event)
            times[name].append(perf_counter() - begun)
        state = _played(state, ev.WriteGuestRegister("cr3", ROOT))
    for name, each in times.items():
        yield Line(f"a guest's write to a {name} under shadow paging", _median(each) * 1e3, "ms")


def _entry(state: State, gpa: int) -> int:
    place = intended(state, 0, gpa)
    assert place is not None
    return state.memory.word(place) or 0


def _no_images(reference: object) -> object:
    raise AssertionError(reference)
