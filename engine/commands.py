"""What the command line can do. Each command reads its options, and writes to a `Pipe`."""

import argparse
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import msgspec

from engine import cases as case_schema
from engine.arch.addresses import parse_address
from engine.arch.paging import Paging, bind
from engine.arch.registers import RFLAGS_AC, Features, Registers, Vendor
from engine.arch.rights import Access, Kind
from engine.arch.walk import walk_access
from engine.errors import InputError
from engine.memory.image import Image, open_image
from engine.report import walk_json, walk_text

ACCESS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.FETCH}
OVERRIDES = ("cr0", "cr3", "cr4", "efer", "pkru", "pkrs", "rflags", "cpl")
CHUNK = 1 << 20
LINE_LIMIT = 16 << 20
"""Bytes of one line of input."""


class Pipe:
    """Standard input in lines, standard output in JSON Lines or text."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, encoding: str) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._encoding = encoding

    def batches(self) -> Iterator[list[bytes]]:
        """The lines, as many at a time as are there, so that a user who types them sees each answer at once."""
        rest = b""
        while chunk := self._read():
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_LIMIT:
                raise InputError(f"A line of the input is longer than {LINE_LIMIT >> 20} MiB.")
            yield lines
        yield [rest]

    def _read(self) -> bytes:
        self.flush()
        chunk: bytes = self._stdin.read1(CHUNK)  # type: ignore[attr-defined]
        return chunk

    def lines(self) -> Iterator[bytes]:
        return chain.from_iterable(self.batches())

    def put(self, text: str) -> None:
        self._stdout.write(f"{text}\n".encode(self._encoding, "replace"))

    def put_json(self, value: Any) -> None:
        self._stdout.write(msgspec.json.encode(value) + b"\n")

    def flush(self) -> None:
        self._stdout.flush()


Command = Callable[[argparse.Namespace, Pipe], None]


def walk(options: argparse.Namespace, pipe: Pipe) -> None:
    """The walk or, where the access crosses a page, the two walks of one access."""
    with open_image(options.source) as image:
        paging = paging_of(options, image)
        walks = walk_access(image, paging, options.address, Access(ACCESS[options.access], size=options.size))
        assumed = _assumed(options, image)
        if options.json:
            for each in walks:
                pipe.put_json({**walk_json(each), "assumed": assumed})
        else:
            pipe.put("\n\n".join(walk_text(each) for each in walks))
            if assumed:
                pipe.put(f"not in the image, assumed: {', '.join(assumed)}")


def translate(options: argparse.Namespace, pipe: Pipe) -> None:
    """Presence only, as QEMU's gva2gpa: no rights, no reserved bits. ``unknown``: an entry the image does not hold."""
    import numpy as np

    from engine.arch.arrays import Code
    from engine.arch.bulk import translate as translate_all

    with open_image(options.source) as image:
        paging = paging_of(options, image)
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


def cases(options: argparse.Namespace, pipe: Pipe) -> None:
    """The answer to each case of standard input."""
    for answer in case_schema.answers(pipe.lines()):
        pipe.put_json(answer)


def paging_of(options: argparse.Namespace, image: Image) -> Paging:
    """The paging that the registers of a CPU of ``image``, or those given instead, select."""
    features = Features(vendor=Vendor(options.vendor), maxphyaddr=options.maxphyaddr)
    return bind(_registers(options, image), features)


def _registers(options: argparse.Namespace, image: Image) -> Registers:
    given = {name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None}
    cpus = image.cpus
    if options.cpu is not None and options.cpu >= len(cpus):
        raise InputError(f"There is no CPU {options.cpu}: the image has the registers of {len(cpus)}.")
    if not cpus and not {"cr0", "cr3"} <= given.keys():
        raise InputError("This image holds no registers: give at least --cr0 and --cr3, and --cr4 and --efer if not 0.")
    base = cpus[options.cpu or 0].registers if cpus else Registers()
    registers = msgspec.structs.replace(base, **given)
    return msgspec.structs.replace(registers, rflags=registers.rflags | RFLAGS_AC) if options.ac else registers


def _assumed(options: argparse.Namespace, image: Image) -> list[str]:
    """What the walk rests on that neither the image nor an option gives."""
    names = image.cpus[options.cpu or 0].assumed if image.cpus else ()
    return [name for name in names if getattr(options, name.partition(".")[0].lower()) is None]


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
