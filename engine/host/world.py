"""Host memory and its allocator while software works on them: reads and writes of words, frames taken and given back.

Events are pure functions of states; while one is under way, the software that acts in it (host kernel, VMM, KVM) shares
one `World` and changes it in place. Its final ``memory`` and ``frames`` go into the next state.
"""

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.host.frames import Frames, Owner
from engine.memory.physical import ZERO_FRAME, SparseMemory


class World:
    """``memory``: all of host-physical memory; ``frames``: who owns what of it. Addresses are in bytes."""

    def __init__(self, memory: SparseMemory, frames: Frames) -> None:
        self.memory = memory
        self._frames = frames
        self._taken: dict[int, Owner] = {}
        self._cursor = frames.cursor

    @property
    def frames(self) -> Frames:
        """The allocator's next version. Frames taken one by one go into it together, when it is asked for."""
        if self._taken:
            self._frames = self._frames.with_taken(self._taken, self._cursor)
            self._taken = {}
        return self._frames

    @frames.setter
    def frames(self, frames: Frames) -> None:
        self._frames, self._taken, self._cursor = frames, {}, frames.cursor

    def take(self, owner: Owner) -> int:
        """The byte address of a free frame, which is now ``owner``'s; what it holds is not touched."""
        pfn, self._cursor = self._frames.next_free(self._cursor, self._taken)
        self._taken[pfn] = owner
        return pfn << FRAME_BITS

    def allocate(self, owner: Owner) -> int:
        """The byte address of a fresh frame, all zero."""
        address = self.take(owner)
        self._clear(address, FRAME_SIZE)
        return address

    def allocate_block(self, size: int, owner: Owner) -> int:
        """The byte address of ``size`` contiguous bytes, aligned to ``size``, all zero."""
        self.frames, first = self.frames.take_block(size >> FRAME_BITS, owner)
        self._clear(first << FRAME_BITS, size)
        return first << FRAME_BITS

    def free(self, address: int) -> None:
        self.frames = self.frames.give_back(address >> FRAME_BITS)

    def word(self, address: int) -> int:
        """The 8-byte word at ``address``; software reads only memory that it knows."""
        word = self.memory.word(address)
        assert word is not None, f"{address:#x} is not known"
        return word

    def write_word(self, address: int, value: int) -> None:
        self.memory = self.memory.with_words({address: value})

    def _clear(self, address: int, size: int) -> None:
        """A frame that was in use before still holds what was in it; one that never was is zero already."""
        for at in range(address, address + size, FRAME_SIZE):
            frame = self.memory.frame(at >> FRAME_BITS)
            if frame is not ZERO_FRAME and (frame is None or any(frame)):
                self.memory = self.memory.write(at, bytes(FRAME_SIZE))
