"""Standard input in lines; standard output in JSON Lines or text."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import msgspec

from engine.errors import InputError

CHUNK = 1 << 20
LINE_LIMIT = 16 << 20
"""Bytes of one line of input."""


class Pipe:
    """``stdin`` is a buffered reader; text is written to ``stdout`` in ``encoding``."""

    def __init__(self, stdin: BinaryIO, stdout: BinaryIO, encoding: str) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._encoding = encoding

    def batches(self) -> Iterator[list[bytes]]:
        """The lines, as many at a time as are there, so that whoever feeds them one by one sees each answer at once."""
        rest = b""
        while chunk := self._read():
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_LIMIT:
                raise InputError(f"A line of the input is longer than {LINE_LIMIT >> 20} MiB.")
            yield lines
        yield [rest]

    def lines(self) -> Iterator[bytes]:
        return chain.from_iterable(self.batches())

    def _read(self) -> bytes:
        self.flush()
        chunk: bytes = self._stdin.read1(CHUNK)  # type: ignore[attr-defined]
        return chunk

    def put(self, text: str) -> None:
        self._stdout.write(f"{text}\n".encode(self._encoding, "replace"))

    def put_bytes(self, data: bytes) -> None:
        self._stdout.write(data)

    def put_json(self, value: Any) -> None:
        self._stdout.write(msgspec.json.encode(value) + b"\n")

    def flush(self) -> None:
        self._stdout.flush()
