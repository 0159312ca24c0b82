"""Host memory and its allocator while software works on them: reads and writes of words, frames taken and given back.

Events are pure functions of states; while one is under way, the software that acts in it (host kernel, VMM, KVM) shares
one `World` and changes it in place. Its final ``memory`` and ``frames`` go into the next state.
"""

from collections.abc import Iterable, Sequence

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.host.frames import Frames, Owner
from engine.memory.physical import SparseMemory


class Halt(Exception):
    """Software of the host cannot go on. Only what was written over by others, or never known, leads here."""


class UnknownBytes(Halt):
    """Software reads bytes of which nothing is known (of an image that does not hold them)."""

    def __init__(self, address: int) -> None:
        super().__init__(f"the bytes at HPA {address:#x} are not known, so what the kernel does next is not either")


class Oops(Halt):
    """A bug of the kernel, as it would find it: ``function`` follows a pointer that leads nowhere."""

    def __init__(self, function: str, why: str) -> None:
        super().__init__(f"{function}: {why}: the kernel oopses")
        self.function = function


class World:
    """``memory``: all of host-physical memory; ``frames``: who owns what of it. Addresses are in bytes."""

    def __init__(self, memory: SparseMemory, frames: Frames) -> None:
        self.memory = memory
        self.frames = frames

    @property
    def frames(self) -> Frames:
        """The allocator's next version. Frames taken one by one go into it together, when it is asked for."""
        if self._taken:
            self.frames = self._frames.with_taken(self._taken, self._cursor, self._freed)
        return self._frames

    @frames.setter
    def frames(self, frames: Frames) -> None:
        self._frames, self._cursor, self._freed = frames, frames.cursor, frames.freed
        self._taken: dict[int, Owner] = {}

    def owner(self, address: int) -> Owner | None:
        """Who owns the frame that holds ``address``."""
        pfn = address >> FRAME_BITS
        return self._taken.get(pfn) or self._frames.owner(pfn)

    def take(self, owner: Owner) -> int:
        """The byte address of a free frame, which is now ``owner``'s; what it holds is not touched."""
        return self._take([owner])[0]

    def _take(self, owners: Sequence[Owner]) -> list[int]:
        pfns, self._cursor, self._freed = self._frames.next_free(len(owners), self._cursor, self._freed, self._taken)
        self._taken.update(zip(pfns, owners, strict=True))
        return [pfn << FRAME_BITS for pfn in pfns]

    def allocate(self, owner: Owner) -> int:
        """The byte address of a fresh frame, all zero."""
        return self.allocate_each([owner])[0]

    def allocate_each(self, owners: Sequence[Owner]) -> list[int]:
        """The byte addresses of fresh frames, all zero, one for each owner."""
        addresses, is_held = self._take(owners), self.memory.is_held
        for address in [at for at in addresses if is_held(at >> FRAME_BITS)]:
            self.clear(address, FRAME_SIZE)
        return addresses

    def allocate_block(self, size: int, owner: Owner) -> int:
        """The byte address of ``size`` contiguous bytes, aligned to ``size``, all zero."""
        self.frames, first = self.frames.take_block(size >> FRAME_BITS, owner)
        self.clear(first << FRAME_BITS, size)
        return first << FRAME_BITS

    def reserve(self, address: int, size: int, owner: Owner) -> None:
        """Take ``size`` bytes at ``address``, all zero. Raises InputError where they are not free."""
        self.frames = self.frames.reserve(address, size, owner)
        self.clear(address, size)

    def free(self, address: int, size: int = FRAME_SIZE) -> None:
        self.free_each([(address, size)])

    def free_each(self, spans: Iterable[tuple[int, int]]) -> None:
        """Give back the ``spans`` (byte address, bytes)."""
        self.frames = self.frames.give_back([(address >> FRAME_BITS, size >> FRAME_BITS) for address, size in spans])

    def word(self, address: int) -> int:
        """The 8-byte word at ``address``, as the kernel reads it through its direct map.

        Raises Oops outside RAM, UnknownBytes where the bytes are not known.
        """
        word = self.memory.word(address)
        if word is None:
            if not self._frames.is_ram(address >> FRAME_BITS):
                raise Oops("a page fault in the direct map", f"HPA {address:#x} is not RAM")
            raise UnknownBytes(address)
        return word

    def write_word(self, address: int, value: int) -> None:
        self.memory = self.memory.with_words({address: value})

    def clear(self, address: int, size: int) -> None:
        """A frame that was in use before still holds what was in it; one that never was is zero already."""
        first = address >> FRAME_BITS
        for pfn in self.memory.held(first, first + (size >> FRAME_BITS)):
            frame = self.memory.frame(pfn)
            if frame is None or any(frame):
                self.memory = self.memory.write(pfn << FRAME_BITS, bytes(FRAME_SIZE))
