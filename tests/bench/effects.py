"""Populate and effects of a VM of 512 MiB with 4-KiB pages; what a flipped bit costs."""

from collections.abc import Iterator
from time import perf_counter

from engine.effects.compare import effects, side
from engine.effects.comparison import compare
from engine.events import BootHost, ChangeMode, CreateVcpu, CreateVm, LoadKvm, Poke, Populate, SetMemslot
from engine.machine import Configuration
from engine.scenario import Replay, Scenario
from tests.bench.lines import Line, best

SIZE = 512 << 20


def lines() -> Iterator[Line]:
    for five in (False, True):
        name = "5 levels to 4" if five else "4 levels to 5"
        start = (BootHost(five_level=five), LoadKvm(), CreateVm(), CreateVcpu(), SetMemslot(size=SIZE))
        replay = Replay(Scenario(Configuration(), (*start, Populate(), ChangeMode(pcpu=1, la57=not five))), _no_images)
        replay.state(len(start))
        begun = perf_counter()
        replay.state(len(start) + 1)
        if not five:
            yield Line("populate 131,072 pages of 4 KiB", perf_counter() - begun, "s", goal="<= 0.5")
        state = replay.state(len(start) + 2)
        a, b = side(state, pcpu=0), side(state, pcpu=1)
        yield Line(f"effects of 512 MiB, {name}", best(lambda a=a, b=b: effects(a, b)) * 1e3, "ms", goal="<= 100")
        # A flipped bit makes another state: nothing of the side B that was compared can be used again.
        poke = Poke(b.second.paging.root + 8 * 256, 0)
        flipped = Replay(Scenario(Configuration(), (*replay.scenario.events, poke)), _no_images).state(len(start) + 3)
        begun = perf_counter()
        compare(a, side(flipped, pcpu=1))
        yield Line(f"a flipped bit to all of the comparison, {name}", (perf_counter() - begun) * 1e3, "ms")


def _no_images(reference: object) -> object:
    raise AssertionError(reference)
