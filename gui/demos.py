"""The demos that come with the program: JSON scenarios with narration in resources/demos, each with two pictures.

To list them, nothing of the engine is imported, nor what it is built on: the start page is painted before that.
"""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import InputError
from gui import resources

if TYPE_CHECKING:
    from engine.scenario import Scenario

FOLDER = resources.RESOURCES / "demos"
ORDER = FOLDER / "order.json"
"""The names of all demos, in the order in which one learns from them."""


class Shown(NamedTuple):
    """What the start page shows of a demo. ``stops``: how many it has."""

    name: str
    title: str
    summary: str
    stops: int

    def picture(self, dark: bool) -> Path:
        """Its thumbnail, a PNG of one of its stops (`tests.thumbnails` makes them)."""
        return FOLDER / f"{self.name}-{'dark' if dark else 'light'}.png"


def names() -> list[str]:
    found: list[str] = json.loads(ORDER.read_bytes())
    return found


@cache
def shown() -> tuple[Shown, ...]:
    """All of them."""
    return tuple(map(_shown, names()))


def _shown(name: str) -> Shown:
    demo = json.loads((FOLDER / f"{name}.json").read_bytes())["demo"]
    return Shown(name, demo["title"], demo["summary"], len(demo["stops"]))


def load(name: str) -> "Scenario":
    """The demo of that name. Raises InputError with a sentence that says which there are."""
    from engine.codec import decode_scenario

    check(name)
    return decode_scenario((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def check(name: str) -> None:
    """Raises InputError where there is no demo of that name."""
    if name not in names():
        raise InputError(f"There is no demo “{name[:60]}”: choose one of {', '.join(names())}.")
