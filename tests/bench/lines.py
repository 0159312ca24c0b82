"""A line of `make bench`: a figure, the floor it is held against in the same run, and the goal."""

from collections.abc import Callable
from time import perf_counter

import msgspec


class Line(msgspec.Struct, frozen=True):
    """``ratio``: value to floor, or value alone where there is no floor. ``goal``: of the ratio, "<= 2" or ">= 0.15";
    of the value where there is no floor; '' where the figure is only told."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.floor if self.floor else None

    @property
    def ok(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if not self.goal:
            return None
        relation, limit = self.goal.split()
        measured = self.value if self.ratio is None else self.ratio
        return measured <= float(limit) if relation == "<=" else measured >= float(limit)

    def plain(self) -> dict[str, object]:
        """As build/bench.json has it."""
        names = ("name", "value", "unit", "floor", "ratio", "goal", "ok")
        return {name: getattr(self, name) for name in names}

    def text(self) -> str:
        figures = f"{self.name:<58} {self.value:>12,.4g} {self.unit:<8}"
        floor = f"floor {self.floor:>10,.4g}  ratio {self.ratio:>7.3f}" if self.floor else " " * 32
        verdict = {None: "", True: "ok", False: "MISSED"}[self.ok]
        return f"{figures} {floor}  {self.goal:<9} {verdict}".rstrip()


def best(function: Callable[[], object], runs: int = 5) -> float:
    """Seconds of the quickest of ``runs`` calls."""
    times = []
    for _ in range(runs):
        begun = perf_counter()
        function()
        times.append(perf_counter() - begun)
    return min(times)
