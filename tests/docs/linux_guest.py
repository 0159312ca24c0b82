"""Fields of effects-on-a-linux-guest.md. Needs the image of the real guest."""

from collections import Counter

import numpy as np

from engine.effects.compare import Class, Side, effects, side
from engine.effects.reaction import Answer, reactions
from engine.events import (
    BootHost,
    ChangeMode,
    CreateVcpu,
    CreateVm,
    ImageRef,
    LoadKvm,
    Populate,
    SetGuestRegisters,
    SetMemslot,
)  # fmt: skip
from engine.kvm.memslots import Backing, Pages
from engine.machine import Configuration
from engine.memory.image import Image, open_image
from engine.scenario import Replay, Scenario
from tests.conftest import ROOT
from tests.docs.tables import table

IMAGE = ROOT.parent / "shared" / "golden" / "images" / "small-4level.elf.xz"
SIZE = 112 << 20
"""Bytes of the guest's memory."""
BACKINGS = (Pages.SMALL, Pages.THP, Pages.HUGE_2M)
SHOWN = (
    (Class.SAME, "as before"),
    (Class.NOT_PRESENT, "not present"),
    (Class.RESERVED, "reserved bit"),
    (Class.PERMISSION, "permission"),
    (Class.ANOTHER_PAGE, "another page"),
    (Class.TABLE_PAGE, "table page"),
    (Class.HOST_PAGE, "host memory"),
    (Class.OUTSIDE_RAM, "not RAM"),
)
ANSWERS = (Answer.NEVER_ASKED, Answer.SPURIOUS_LOOP, Answer.RETRY_LOOP, Answer.EMULATES, Answer.MENDS, Answer.FAILS)


def sides(image: Image, five: bool, pages: Pages) -> tuple[Side, Side]:
    """The guest on a host of 4 or 5 levels, all of it present: as pCPU 0 walks it, and as the changed pCPU 1 does."""
    events = (
        BootHost(five_level=five), LoadKvm(), CreateVm(), CreateVcpu(),
        SetMemslot(size=SIZE, image=ImageRef("small-4level"), backing=Backing(pages=pages)),
        SetGuestRegisters(registers=image.cpus[0].registers), Populate(), ChangeMode(pcpu=1, la57=not five),
    )  # fmt: skip
    replay = Replay(Scenario(Configuration(), events), lambda ref: image)
    state = replay.state(len(events))
    for number in range(1, len(events) + 1):
        assert replay.refusal(number) is None, replay.refusal(number)
    a, b = side(state, pcpu=0), side(state, pcpu=1)
    assert isinstance(a, Side)
    assert isinstance(b, Side)
    return a, b


def fields() -> dict[str, str]:
    with open_image(str(IMAGE)) as image:
        return of_image(image)


def of_image(image: Image) -> dict[str, str]:
    """The figures for the guest whose memory ``image`` is."""
    classes, answers, beyond = [], [], []
    addresses = np.arange(0, SIZE, 4096, dtype=np.uint64)
    for five in (False, True):
        for pages in BACKINGS:
            a, b = sides(image, five, pages)
            name = ["5 levels to 4" if five else "4 levels to 5", pages.value]
            found = effects(a, b)
            own, above = found.pages(0, SIZE), found.pages(SIZE)
            classes.append(name + [f"{own.get(kind, 0):,}" for kind, _ in SHOWN])
            beyond.append(name + [f"{above.get(kind, 0):,}" for kind, _ in SHOWN if kind is not Class.SAME])
            numbers, reacted = reactions(b, addresses)
            counts: Counter[Answer] = Counter()
            for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
                counts[reacted[int(number)].answer] += int(count)
            answers.append(name + [f"{counts[answer]:,}" for answer in ANSWERS])
    head = ["the change", "backing"]
    return {
        "pages": f"{SIZE >> 12:,}",
        "classes": table(head + [text for _, text in SHOWN], classes, words=2),
        "answers": table(head + [answer.value for answer in ANSWERS], answers, words=2),
        "beyond": table(head + [text for kind, text in SHOWN if kind is not Class.SAME], beyond, words=2),
    }
