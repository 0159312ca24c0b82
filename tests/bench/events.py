"""What one event costs, and a scenario of a thousand."""

from collections.abc import Iterator
from random import Random
from time import perf_counter

from engine import events as ev
from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.arch.rights import Kind
from engine.machine import Configuration
from engine.scenario import Replay, Scenario
from tests.bench.lines import Line

COUNT = 1_000
SIZE = 64 << 20
BESIDE = 512 << 20
"""Another VM on the host, all of it mapped by 4-KiB pages: what it has must not make events of the first slower."""
ROOT, TABLES, PLACE = 0x1_0000, 0x2_0000, 0x7F12_3400_0000


def scenario() -> Scenario:
    """Two VMs, one with a 5-level guest; its accesses, moves, zaps, and what the host does underneath, from a seed."""
    random = Random(5)
    long = Registers(
        cr0=int(CR0.PG | CR0.WP | CR0.PE), cr3=ROOT, cr4=int(CR4.PAE | CR4.LA57), cs_l=True,
        efer=int(EFER.LME | EFER.LMA | EFER.NXE),
    )  # fmt: skip
    events: list[ev.Event] = [
        ev.BootHost(), ev.LoadKvm(), ev.CreateVm(), ev.SetMemslot(size=SIZE), ev.CreateVcpu(), ev.CreateVm(),
        ev.SetMemslot(vm=1, size=BESIDE), ev.CreateVcpu(vm=1), ev.Populate(vm=1),
        ev.MapGuestPages(ROOT, TABLES, PLACE, 0x80_0000, 32 << 20, mode="5-level"), ev.SetGuestRegisters(long),
        ev.ChangeMode(1, True),
    ]  # fmt: skip
    while len(events) < COUNT:
        page = random.randrange(8192) << 12
        kind = random.choice([Kind.READ, Kind.WRITE, Kind.FETCH])
        access = ev.GuestAccess(PLACE + page + 0x7F8, kind, value=random.getrandbits(64))
        endless = [ev.MoveVcpu(1), access, ev.MoveVcpu(0)]
        choice = random.choices(
            [
                [access], endless, [ev.ZapGuest(0x80_0000 + page, 4096)], [access, ev.HostMemory(0x80_0000 + page)],
                [access, ev.HostMemory(0x80_0000 + page, "age")], [ev.DirtyLogging(random.random() < 0.5)],
            ],
            [80, 6, 5, 4, 3, 2],
        )  # fmt: skip
        events += choice[0]
    return Scenario(Configuration(), tuple(events[:COUNT]))


def lines() -> Iterator[Line]:
    made = scenario()
    replay, times = Replay(made, _no_images), []
    begun = perf_counter()
    for step in range(1, COUNT + 1):
        before = perf_counter()
        replay.state(step)
        times.append(perf_counter() - before)
    yield Line("replay of 1,000 events", perf_counter() - begun, "s")
    yield Line("latency of an event, 95th percentile", sorted(times)[int(COUNT * 0.95)] * 1e3, "ms", goal="<= 16")
    worst = 0.0
    for step in Random(6).sample(range(COUNT + 1), COUNT):
        before = perf_counter()
        replay.state(step)
        worst = max(worst, perf_counter() - before)
    yield Line("any visited step of 1,000, the slowest", worst * 1e3, "ms", goal="<= 50")


def _no_images(reference: object) -> object:
    raise AssertionError(reference)
