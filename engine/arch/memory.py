"""The protocol of physical memory: what a walker, a picture or a search may ask of it.

One store has two faces: ``frame`` and ``word`` for one address at a time, ``gather`` for arrays of them.
Bytes may be *unknown* (a hole in an image, a device); an unknown byte is never taken for zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from numpy import bool_, uint64
    from numpy.typing import NDArray

FRAME_SHIFT = 12
FRAME_SIZE = 1 << FRAME_SHIFT
FRAME_WORDS = FRAME_SIZE // 8
ADDRESS_BITS = 52
"""No x86 processor has wider physical addresses (SDM vol. 3A, 4.1.4)."""
ADDRESS_END = 1 << ADDRESS_BITS
FRAMES_END = ADDRESS_END >> FRAME_SHIFT


class Partial(NamedTuple):
    """A frame of which some bytes are known: 4,096 bytes (0 where unknown) and a mask of one bit a byte."""

    data: bytes
    known: int


ALL_KNOWN = (1 << FRAME_SIZE) - 1
"""The mask of a frame of which every byte is known."""


class Words(Protocol):
    """The part of memory that a load of single words needs."""

    def word(self, address: int) -> int | None:
        """The 8-byte word that contains ``address``, or None where not all its bytes are known."""


class PhysicalMemory(Words, Protocol):
    """Bytes at physical addresses. Addresses are in bytes, ``pfn`` counts 4-KiB frames."""

    def frame(self, pfn: int) -> memoryview | None:
        """The frame's 512 words of 64 bits (format ``Q``, read-only), or None where a byte is unknown."""

    def partial(self, pfn: int) -> Partial | None:
        """What is known of a frame that ``frame`` gives None for; None where nothing is."""

    def gather(self, addresses: NDArray[uint64]) -> tuple[NDArray[uint64], NDArray[bool_]]:
        """The words at 8-byte-aligned ``addresses`` (0 where unknown), and a mask of the unknown ones."""

    def blank(self, pfns: NDArray[uint64]) -> NDArray[bool_]:
        """Which of the frames are known to be all zero without a look at them; the rest may be so as well."""

    def known(self) -> Iterable[tuple[int, int]]:
        """The byte ranges ``(start, end)`` that are known: sorted, not empty, with a gap between any two."""


def read(memory: PhysicalMemory, address: int, size: int) -> bytes | None:
    """``size`` bytes at ``address``, or None where one of them is unknown."""
    end = address + size
    pieces = []
    while address < end:
        pfn, offset = divmod(address, FRAME_SIZE)
        length = min(end - address, FRAME_SIZE - offset)
        frame = memory.frame(pfn)
        if frame is not None:
            pieces.append(bytes(frame.cast("B")[offset : offset + length]))
        else:
            part = memory.partial(pfn)
            wanted = ((1 << length) - 1) << offset
            if part is None or part.known & wanted != wanted:
                return None
            pieces.append(part.data[offset : offset + length])
        address += length
    return b"".join(pieces)


def word_at(memory: PhysicalMemory, address: int) -> int | None:
    """``memory.word`` by way of ``frame`` and ``partial``: for what implements the protocol."""
    frame = memory.frame(address >> FRAME_SHIFT)
    if frame is not None:
        word: int = frame[(address >> 3) & (FRAME_WORDS - 1)]
        return word
    data = read(memory, address & ~7, 8)
    return None if data is None else int.from_bytes(data, "little")
