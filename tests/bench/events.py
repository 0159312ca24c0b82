"""What one event costs, and a scenario of a thousand."""

from collections.abc import Iterator
from random import Random
from time import perf_counter

from engine import events as ev
from engine.arch.rights import Kind
from engine.machine import Configuration
from engine.scenario import Replay, Scenario
from tests.bench.lines import Line

COUNT = 1_000
SIZE = 64 << 20


def scenario() -> Scenario:
    """A host and a VM, then accesses, moves, zaps and changes of the host's memory, from a seed."""
    random = Random(5)
    events: list[ev.Event] = [
        ev.BootHost(), ev.LoadKvm(), ev.CreateVm(), ev.SetMemslot(size=SIZE), ev.CreateVcpu(),
    ]  # fmt: skip
    while len(events) < COUNT:
        gpa = random.randrange(SIZE >> 12) << 12
        kind = random.choice([Kind.READ, Kind.WRITE, Kind.FETCH])
        events.append(
            random.choices(
                [
                    ev.GuestAccess(gpa, kind, value=random.getrandbits(64)),
                    ev.MoveVcpu(pcpu=random.randrange(2)),
                    ev.ZapGuest(gpa=gpa, size=4096),
                    ev.Poke(gpa + (1 << 30), random.getrandbits(32)),
                ],
                [90, 3, 4, 3],
            )[0]
        )
    return Scenario(Configuration(), tuple(events))


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
    begun = perf_counter()
    for step in range(COUNT, -1, -1):
        replay.state(step)
    yield Line("any visited step of 1,000, the mean", (perf_counter() - begun) / COUNT * 1e3, "ms", goal="<= 50")


def _no_images(reference: object) -> object:
    raise AssertionError(reference)
