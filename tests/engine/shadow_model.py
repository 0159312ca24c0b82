"""A guest that plays with its tables, and what the architecture promises it: the model that mirror tables are held to.

The promise is the walk of the guest's own tables in guest-physical memory, by the explaining walkers, which know
nothing of KVM. After a page-table entry was changed, the old translation may be used until the flush that the
architecture asks for: `Promise` keeps the old entries that each address may still be translated by.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from engine.arch.faults import (
    EptMisconfiguration,
    EptViolation,
    NestedPageFault,
    Outcome,
    PageFault,
    Translated,
)
from engine.arch.nested_walk import walk_nested
from engine.arch.rights import Access
from engine.arch.walk import walk
from engine.kvm.memslots import find
from engine.machine import Effect, State
from engine.machine.guest_view import GuestView
from engine.machine.intended import intended
from tests.engine.kvm_fixture import vcpu, vm

Answer = tuple[Any, ...]
"""("page", GPA), ("device",), ("#PF", error code), ("#NPF", EXITINFO1, EXITINFO2), ("EPT violation", ...), ..."""


class Old:
    """A view of guest memory in which one entry is what it was."""

    def __init__(self, view: GuestView, address: int, word: int) -> None:
        self._view, self._address, self._word = view, address & ~7, word

    def frame(self, pfn: int) -> memoryview | None:
        frame = self._view.frame(pfn)
        if frame is None or pfn != self._address >> 12:
            return frame
        words = list(frame)
        words[(self._address & 0xFFF) >> 3] = self._word
        return memoryview(b"".join(w.to_bytes(8, "little") for w in words)).cast("Q")

    def word(self, address: int) -> int | None:
        return self._word if address & ~7 == self._address else self._view.word(address)

    def partial(self, pfn: int) -> Any:
        return self._view.partial(pfn)


def _answer(state: State, outcome: Outcome) -> Answer:
    if isinstance(outcome, Translated):
        if find(vm(state).slots, outcome.address) is None:
            return ("device",)
        return ("page", outcome.address)
    return fault_answer(outcome)


def fault_answer(outcome: object) -> Answer:
    match outcome:
        case PageFault():
            return "#PF", outcome.error_code
        case NestedPageFault():
            return "#NPF", outcome.exitinfo1, outcome.exitinfo2
        case EptViolation():
            return "EPT violation", outcome.qualification, outcome.gpa, outcome.gla
        case EptMisconfiguration():
            return "EPT misconfiguration", outcome.gpa
    raise AssertionError(outcome)


def promised(state: State, memory: Any, address: int, access: Access) -> Answer:
    """What the guest's own tables in ``memory`` say, whatever KVM does."""
    cpu = vcpu(state)
    second = state.l1_stage(cpu)
    if second is None:
        return _answer(state, walk(memory, state.guest_paging(cpu), address, access).outcome)
    return _answer(state, walk_nested(memory, state.guest_paging(cpu), second, address, access).outcome)


def came(effect: Effect) -> Answer:
    """What an access came to; ("host page", HPA) where it reached memory."""
    assert effect.livelock is None, f"endless: {effect.livelock}"
    if effect.mmio or (effect.emulated is not None and effect.emulated.failed):
        return ("device",)  # nobody can fetch from one: KVM_EXIT_INTERNAL_ERROR
    if effect.reflected is not None:
        return fault_answer(effect.reflected.exit)
    if effect.fault is not None:
        return fault_answer(effect.fault)
    if effect.emulated is not None:
        return ("emulated",)
    outcome = effect.walks[-1].outcome
    return ("host page", outcome.address) if isinstance(outcome, Translated) else fault_answer(outcome)


def agrees(state: State, found: Answer, allowed: list[Answer]) -> bool:
    """Whether what was ``found`` is one of the answers that are right, pages being where the memslots have them now."""
    if found == ("emulated",):
        return any(answer[0] == "page" for answer in allowed)
    if found[0] == "host page":
        return any(answer[0] == "page" and intended(state, 0, answer[1]) == found[1] for answer in allowed)
    return found in allowed


class Promise(msgspec.Struct):
    """The page-table entries that each address may still be translated by: address -> {GPA of a word: old words}."""

    addresses: tuple[int, ...]
    tables: tuple[int, ...]
    """Guest frames of page tables: entries of other tables count at once."""
    old: dict[int, dict[int, set[int]]]

    @classmethod
    def start(cls, addresses: tuple[int, ...], tables: tuple[int, ...]) -> "Promise":
        return cls(addresses, tables, {address: {} for address in addresses})

    def changed(self, before: State, after: State) -> None:
        """Note what of the page tables an event has changed."""
        then, now = GuestView(before, vm(before)), GuestView(after, vm(after))
        for gfn in self.tables:
            old, new = then.frame(gfn), now.frame(gfn)
            if old is None or new is None or old == new:
                continue
            for n in range(512):
                if old[n] != new[n]:
                    for held in self.old.values():
                        held.setdefault((gfn << 12) + n * 8, set()).add(old[n])

    def flush(self, address: int | None = None) -> None:
        for each in self.addresses if address is None else (address,):
            self.old[each] = {}

    def allowed(self, state: State, address: int, access: Access) -> Iterator[Answer]:
        """The answers that are right."""
        view = GuestView(state, vm(state))
        yield promised(state, view, address, access)
        for at, words in self.old[address].items():
            for word in words:
                yield promised(state, Old(view, at, word), address, access)
