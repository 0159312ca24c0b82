"""``make docs``: the figures in resources/docs that are computed, written anew. Needs the real guest's image."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from engine.effects.compare import Class, Side, effects, side
from engine.effects.reaction import Answer, reactions
from engine.events import (
    Backing,
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
from engine.kvm.memslots import Pages
from engine.machine import Configuration
from engine.memory.image import Image, open_image
from engine.scenario import Replay, Scenario
from tests.conftest import ROOT

IMAGE = ROOT.parent / "shared" / "golden" / "images" / "small-4level.elf.xz"
PAGE = ROOT / "resources" / "docs" / "effects-on-a-linux-guest.md"
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
TEXT = """# What a host-mode change does to a Linux guest

A Debian guest (Linux 6.1, 4-level paging, 112 MiB) runs as a VM on an AMD host with the newest kernel: its memory is
that of a real image, every page is present in the nested tables. Then pCPU 1 goes to the other depth, and the guest's
vCPU is looked at as that pCPU's hardware walks it. Every figure below is computed from the bytes by `make docs`: for
each of the {pages} pages of the guest's memory, what the hardware makes of its guest-physical address, and what KVM
answers when it is read.

## What the guest's {pages} pages become

{classes}

## What KVM does when such a page is read

{answers}

## Addresses beyond the guest's memory

Guest data read as tables also map addresses that no memslot holds. Pages of guest-physical addresses above the guest's
memory that translate, or fault for another reason than being absent:

{beyond}

The frames that a host hands out depend on the scenario's seed, so *another page* and *table page* of scattered memory
move by a few pages from seed to seed; the rest follows from the depths alone.
"""


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


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render(image: Image) -> str:
    """The page, all figures computed."""
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
    return TEXT.format(
        pages=f"{SIZE >> 12:,}",
        classes=table(head + [text for _, text in SHOWN], classes),
        answers=table(head + [answer.value for answer in ANSWERS], answers),
        beyond=table(head + [text for kind, text in SHOWN if kind is not Class.SAME], beyond),
    )


def main(target: Path = PAGE) -> int:
    if not IMAGE.exists():
        print("The image of the real guest is not here; the page stays as it is.", file=sys.stderr)
        return 0
    with open_image(str(IMAGE)) as image:
        target.write_text(render(image), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
