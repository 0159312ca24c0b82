"""Guest-physical memory as a memory of its own: what a guest sees, whatever tables of KVM's lead there.

GPA -> memslot -> HVA -> the host's page table, as KVM itself asks. Walks of a guest's own tables in it are what the
architecture promises the guest: the logical walk. A page that nobody has touched yet holds what it will hold: zeros, or
its image's content. What no memslot holds is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.arch.addresses import FRAME_BITS, FRAME_SIZE
from engine.arch.memory import Partial, word_at
from engine.kvm.memslots import find
from engine.kvm.vm import Vm
from engine.machine.intended import intended
from engine.machine.state import State

if TYPE_CHECKING:
    from numpy import bool_, uint64
    from numpy.typing import NDArray

_ZEROS = memoryview(bytes(FRAME_SIZE)).cast("Q")


class GuestView:
    """Implements `arch.memory.PhysicalMemory` for VM ``vm`` of ``state``; addresses are guest-physical."""

    def __init__(self, state: State, vm: Vm) -> None:
        self._state, self._vm = state, vm
        self._places: dict[int, int | None] = {}

    def host_frame(self, pfn: int) -> int | None:
        """The host frame behind guest frame ``pfn``; None where there is none (yet)."""
        if pfn not in self._places:
            place = intended(self._state, self._vm.index, pfn << FRAME_BITS)
            self._places[pfn] = None if place is None else place >> FRAME_BITS
        return self._places[pfn]

    def _untouched(self, pfn: int) -> tuple[bool, memoryview | None]:
        """Whether a slot holds the frame; and its content, as far as that is wholly known."""
        slot = find(self._vm.slots, pfn << FRAME_BITS)
        if slot is None:
            return False, None
        return True, _ZEROS if slot.image is None else slot.image.frame(pfn)

    def frame(self, pfn: int) -> memoryview | None:
        host = self.host_frame(pfn)
        return self._state.memory.frame(host) if host is not None else self._untouched(pfn)[1]

    def partial(self, pfn: int) -> Partial | None:
        host = self.host_frame(pfn)
        if host is not None:
            return self._state.memory.partial(host)
        slot = find(self._vm.slots, pfn << FRAME_BITS)
        return slot.image.partial(pfn) if slot is not None and slot.image is not None else None

    def word(self, address: int) -> int | None:
        return word_at(self, address)

    def gather(self, addresses: NDArray[uint64]) -> tuple[NDArray[uint64], NDArray[bool_]]:
        import numpy as np

        from engine.memory.pool import fill

        words, unknown = np.zeros(addresses.size, np.uint64), np.zeros(addresses.size, np.bool_)
        fill(self, addresses, np.arange(addresses.size), words, unknown)
        return words, unknown

    def blank(self, pfns: NDArray[uint64]) -> NDArray[bool_]:
        import numpy as np

        return np.array([self.frame(int(pfn)) is _ZEROS for pfn in pfns], np.bool_)

    def known(self) -> Iterable[tuple[int, int]]:
        return sorted((slot.gpa, slot.gpa + slot.size) for slot in self._vm.slots)
