"""Guest memory as KVM itself reads and writes it: through memslots and HVA, never through tables of its own."""

from engine.arch.addresses import FRAME_SIZE
from engine.host.world import World
from engine.kvm.memslots import Memslot, Space, fault_in, find
from engine.kvm.vm import Vm


class GuestMemory:
    """``world`` is changed in place: a first touch brings in the host's page."""

    def __init__(self, world: World, space: Space, vm: Vm) -> None:
        self.world, self._space, self._vm = world, space, vm
        self._pages: dict[int, int] = {}

    def slot(self, gpa: int) -> Memslot | None:
        return find(self._vm.slots, gpa)

    def place(self, gpa: int) -> int | None:
        """Where ``gpa`` lies in host memory (byte address); None where no memslot holds it.

        Raises InputError where the host has no memory left.
        """
        start = gpa & -FRAME_SIZE
        found = self._pages.get(start)
        if found is None:
            slot = self.slot(gpa)
            if slot is None:
                return None
            page = fault_in(self.world, self._space, self._vm.index, slot, gpa)
            found = self._pages[start] = page.hpa + slot.to_hva(start) - page.hva
        return found + gpa - start

    def word(self, gpa: int) -> int | None:
        """The 8-byte word that contains ``gpa``; None where there is no memory."""
        hpa = self.place(gpa & ~7)
        return None if hpa is None else self.world.word(hpa)
