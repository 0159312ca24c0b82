"""Processes that are killed while they save or edit, and what the disk holds after that.

``python -m tests.storage.victim saving|editing SEED COUNT FOLDER`` does so COUNT times and prints a JSON object a line:
``{"acknowledged", "found", "at_work", "cut_short"}``. Steps are numbered; ``acknowledged`` is the last that the victim
had been told was safe, ``found`` that of the document on the disk (None: it was none of them), ``at_work`` whether it
was killed before it was done, ``cut_short`` whether a half-written file shows that it was writing just then. Nothing is
mocked: a child is forked and gets SIGKILL after a random time.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine import events as ev
from engine.edits import Insert
from storage import files, recovery
from storage.content import Content, Note

STEPS = 60
LONGEST = {"saving": 0.15, "editing": 0.07}
"""Seconds until the kill, at most."""
BALLAST = {n.to_bytes(32, "big"): random.Random(n).randbytes(4096) for n in range(1000)}
"""Frames for documents that take as long to write as to make."""


def document(step: int, frames: dict[bytes, bytes] = {}) -> tuple[Content, Insert | None]:  # noqa: B006 - never changed
    """The document after ``step`` edits, the last of which is an insertion, or for every seventh a note (None)."""
    content, edit = Content(frames=frames), None
    for n in range(1, step + 1):
        if n % 7:
            edit = Insert(0, ev.Poke(address=8 * n, value=(1 << 64) - n))
            content = msgspec.structs.replace(content, scenario=edit.apply(content.scenario))
        else:
            edit = None
            content = msgspec.structs.replace(content, notes=(*content.notes, Note(n, "x" * 50 * n)))
    return content, edit


def saves(folder: Path, acknowledge: Callable[[int], None]) -> None:
    file = files.save(document(0, BALLAST)[0], str(folder / "a.wscope"))
    acknowledge(0)
    for step in range(1, STEPS):
        file = files.save(document(step, BALLAST)[0], file.path, file)
        acknowledge(step)


def edits(folder: Path, acknowledge: Callable[[int], None]) -> None:
    """Edits, and saves after every eleventh."""
    session = recovery.begin(folder / "state", document(0)[0])
    acknowledge(0)
    for step in range(1, STEPS):
        content, edit = document(step)
        session.record(content, str(step), edit)
        acknowledge(step)
        if step % 11 == 0:
            session.saved(content, files.save(content, str(folder / "a.wscope")))


def saved_step(folder: Path) -> Content:
    return files.open_file(str(folder / "a.wscope")).content


def kept(folder: Path) -> Content:
    """What the next start has: what is recovered, or the file where nothing was unsaved."""
    lost = recovery.find(folder / "state")
    if not lost:
        return saved_step(folder)
    (only,) = lost
    assert only.content is not None
    assert not only.problem
    only.discard()
    return only.content


MODES = {"saving": (saves, saved_step), "editing": (edits, kept)}


def cut_short(folder: Path) -> bool:
    """Whether a half-written file is there."""
    return any(name.endswith(".part") for name in os.listdir(folder))


def killed(
    work: Callable[[Path, Callable[[int], None]], None], folder: Path, delay: float, aim: float | None
) -> tuple[int, bool]:
    """The last step that a child acknowledged before it was killed, and whether it was still at work.

    That is ``delay`` seconds after its first step and, with ``aim``, so many seconds after it then began to write.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(folder, lambda step: os.write(writer, bytes([step])) and None)
        finally:
            os._exit(0)
    os.close(writer)
    acknowledged = os.read(reader, 1)
    end = time.monotonic() + delay
    while (left := end - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            more = os.read(reader, 256)
            if not more:
                break
            acknowledged += more
    if aim is not None:
        patience = time.monotonic() + 5
        while not cut_short(folder) and time.monotonic() < patience:
            time.sleep(0.0001)
        time.sleep(aim)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(reader, 256):
        acknowledged += more
    os.close(reader)
    return acknowledged[-1], os.WIFSIGNALED(status)


def main(mode: str, seed: str, count: str, folder: str) -> None:
    work, look = MODES[mode]
    chance = random.Random(int(seed))
    known = [document(step, BALLAST if mode == "saving" else {})[0] for step in range(STEPS)]
    for number in range(int(count)):
        place = Path(folder) / f"{mode}-{number}"
        place.mkdir()
        aim = chance.uniform(0, 0.01) if mode == "saving" and number % 2 else None
        acknowledged, at_work = killed(work, place, chance.uniform(0, LONGEST[mode]), aim)
        content = look(place)
        found = known.index(content) if content in known else None
        part = cut_short(place)
        print(json.dumps({"acknowledged": acknowledged, "found": found, "at_work": at_work, "cut_short": part}))


if __name__ == "__main__":
    main(*sys.argv[1:])
