"""Start-up: the first paint, and the built-in walk on screen, against an empty window."""

from collections.abc import Iterator

from tests.bench import start
from tests.bench.lines import Line


def lines() -> Iterator[Line]:
    floor = start.empty_window() * 1e3
    yield Line("first paint", start.first_paint() * 1e3, "ms", floor, "<= 2")
    yield Line("start page with its pictures", start.pictures() * 1e3, "ms", floor)
    yield Line("built-in walk on screen", start.built_in_walk() * 1e3, "ms", floor, "<= 4.5")
