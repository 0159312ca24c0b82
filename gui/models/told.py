"""What the author's view knows of a demo's stops, worked out in a worker: texts filled, claims checked."""

from collections.abc import Callable

import msgspec

from engine.demo import Claim
from engine.errors import InputError
from engine.narration.narrator import Checked, Narrator
from engine.scenario import Replay
from gui.jobs import Report


class Told(msgspec.Struct, frozen=True):
    """``problems``: for each stop, what is wrong with it. Of stop ``number``: its ``texts`` filled (title, text,
    question, answer, notes), or what is wrong with each; and its claims with whether they hold."""

    problems: tuple[tuple[str, ...], ...]
    number: int
    texts: tuple[str, ...]
    claims: tuple[tuple[Claim, Checked], ...]


def teller(replay: Replay, number: int) -> Callable[[Report], Told]:
    """The work that tells of the demo of ``replay``, whose stop ``number`` is edited; it works on a copy."""
    own = replay.copy()

    def tell(report: Report) -> Told:
        narrator, stops = Narrator(own), own.scenario.demo.stops
        problems = []
        for done, stop in enumerate(stops):
            problems.append(tuple(narrator.problems(stop)))
            report(done + 1, len(stops))
        stop = stops[number]
        texts = (stop.title, stop.text, stop.question, stop.answer, stop.notes)
        filled = tuple(_filled(narrator, number, text) for text in texts)
        return Told(tuple(problems), number, filled, tuple((c, narrator.check(stop, c)) for c in stop.claims))

    def _filled(narrator: Narrator, number: int, text: str) -> str:
        try:
            return narrator.fill(own.scenario.demo.stops[number], text)
        except InputError as error:
            return str(error)

    return tell
