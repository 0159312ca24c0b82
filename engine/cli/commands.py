"""What the command line can do: each command reads its options and its input, and writes its results."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable

from engine import cases as case_schema
from engine.arch.addresses import parse_address
from engine.arch.nested_walk import walk_nested_access
from engine.arch.rights import Access, Kind
from engine.arch.walk import walk_access
from engine.cli.listing import run_json, run_text, runs
from engine.cli.pipe import Pipe
from engine.cli.source import assumed, one_stage, two_stages
from engine.errors import InputError
from engine.memory.image import open_image
from engine.report import walk_json, walk_text

ACCESS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.FETCH}
Command = Callable[[argparse.Namespace, Pipe], None]


def walk(options: argparse.Namespace, pipe: Pipe) -> None:
    """The walk or, where the access crosses a page, the two walks of one access."""
    with open_image(options.source) as image:
        access = Access(ACCESS[options.access], size=options.size)
        if options.npt is None and options.eptp is None:
            walks = walk_access(image, one_stage(options, image), options.address, access)
        else:
            guest, second = two_stages(options, image)
            walks = walk_nested_access(image, guest, second, options.address, access)
        unsure = assumed(options, image)
        if options.json:
            for each in walks:
                pipe.put_json({**walk_json(each), "assumed": unsure})
        else:
            pipe.put("\n\n".join(walk_text(each) for each in walks))
            if unsure:
                pipe.put(f"not in the image, assumed: {', '.join(unsure)}")


def translate(options: argparse.Namespace, pipe: Pipe) -> None:
    """Presence only, as QEMU's gva2gpa: no rights, no reserved bits. ``unknown``: an entry the image does not hold."""
    import numpy as np

    from engine.arch.arrays import Code
    from engine.arch.bulk import translate as translate_all

    with open_image(options.source) as image:
        paging = one_stage(options, image)
        first = 1
        for batch in pipe.batches():
            addresses, refused = _addresses(batch, first)
            first += len(batch)
            found = translate_all(image, paging, np.array(addresses, np.uint64), access=None)
            for va, pa, code in zip(addresses, found.physical.tolist(), found.code.tolist(), strict=True):
                missing = {"unknown": hex(pa)} if code == Code.UNKNOWN else {}
                pipe.put_json({"va": hex(va), "pa": hex(pa) if code == Code.OK else None, **missing})
            if refused is not None:
                raise refused


def map_(options: argparse.Namespace, pipe: Pipe) -> None:
    """Every mapping; what is no mapping and no plain hole either is told on standard error."""
    from engine.arch.arrays import Code
    from engine.arch.mappings import stream

    reasons = {
        Code.RESERVED: "an entry has a reserved bit set",
        Code.UNKNOWN: "the image does not hold the tables",
        Code.PDPTE_LOAD: "a PDPTE has a reserved bit set",
        Code.REPEATED: "the same tables are listed at another address",
        Code.LIMIT: "there is too much before them",
    }
    gaps: Counter[int] = Counter()
    with open_image(options.source) as image:
        for run in runs(stream(image, one_stage(options, image)), gaps):
            if options.json:
                pipe.put_json(run_json(run))
            else:
                pipe.put(run_text(run))
    for code, why in reasons.items():
        if gaps[code]:
            print(f"{gaps[code]:#x} bytes of addresses are not listed: {why}.", file=sys.stderr)


def cases(options: argparse.Namespace, pipe: Pipe) -> None:
    """The answer to each case of standard input."""
    for answer in case_schema.answers(pipe.lines()):
        pipe.put_json(answer)


def _addresses(lines: list[bytes], first: int) -> tuple[list[int], InputError | None]:
    """The addresses of ``lines``, blank ones left out, up to one that is none, and what is wrong with that."""
    addresses: list[int] = []
    for number, line in enumerate(lines, first):
        if line.strip():
            try:
                addresses.append(parse_address(line.decode("utf-8", "replace")))
            except InputError as error:
                return addresses, InputError(f"Line {number}: {error}")
    return addresses, None


def run(options: argparse.Namespace, pipe: Pipe) -> None:
    """Every event of a scenario, as it turned out."""
    from engine.cli.run import event_json, event_text, read_scenario, replayed

    for step in replayed(*read_scenario(options.scenario)):
        if options.json:
            pipe.put_json(event_json(*step))
        else:
            pipe.put(event_text(*step, walks=options.walks))


def report(options: argparse.Namespace, pipe: Pipe) -> None:
    """Everything there is to say of a scenario, for reading."""
    from engine.cli.report import report_bytes
    from engine.cli.whole import write

    data = report_bytes(options)
    if options.output is None:
        pipe.put_bytes(data)
    else:
        write(options.output, data)


def effects(options: argparse.Namespace, pipe: Pipe) -> None:
    """Two steps of a scenario, or two pCPUs at one, compared over all of guest-physical memory."""
    from engine.cli.effects import comparison, comparison_json, comparison_text

    found = comparison(options, ACCESS[options.access])
    if options.json:
        pipe.put_json(comparison_json(found, options))
    else:
        pipe.put(comparison_text(found, options))
