"""What a guest's access must come to, by a model that knows no nested table.

It reads guest memory as the VMM does (memslot, HVA, the host's page table, walked here) and walks the guest's tables by
the manual's rules, for what the tests use: no reserved bits, no protection keys, no SMEP and SMAP.
"""

from dataclasses import dataclass

from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.arch.rights import Kind
from engine.kvm.memslots import Memslot
from engine.kvm.vm import Vm
from engine.machine import State

ADDRESS = (1 << 52) - 0x1000


@dataclass(frozen=True)
class Expected:
    """``kind``: "memory" at ``gpa``, "mmio" at ``gpa``, "page fault" with ``code``, or "emulator": a table of the guest
    lies where the hardware may not write."""

    kind: str
    gpa: int = 0
    code: int = 0


def slot_of(vm: Vm, gpa: int) -> Memslot | None:
    return next((s for s in vm.slots if s.gpa <= gpa < s.gpa + s.size), None)


def hpa_of(state: State, vm: Vm, gpa: int) -> int | None:
    """Where ``gpa`` lies by its memslot and the host's page table; None where nothing is mapped yet."""
    slot, host = slot_of(vm, gpa), state.host
    assert host is not None
    if slot is None:
        return None
    hva, table = slot.hva + gpa - slot.gpa, host.root
    for level in range(host.levels, 0, -1):
        shift = 3 + 9 * level
        entry = state.memory.word(table + (hva >> shift & 511) * 8) or 0
        if not entry & 1:
            return None
        if level == 1 or (level < 4 and entry & 0x80):
            return entry & ADDRESS & -(1 << shift) | hva & (1 << shift) - 1
        table = entry & ADDRESS
    raise AssertionError("no leaf")


def _read(state: State, vm: Vm, gpa: int, size: int) -> int:
    hpa = hpa_of(state, vm, gpa)
    if hpa is None:
        return 0
    word = state.memory.word(hpa & ~7)
    assert word is not None
    return word >> 8 * (hpa & 7) & (1 << 8 * size) - 1


def expected(state: State, vm: Vm, r: Registers, address: int, kind: Kind) -> Expected:
    """What an access that stays in one page comes to."""
    found = _translate(state, vm, r, address, kind)
    if isinstance(found, Expected):
        return found
    slot = slot_of(vm, found)
    if slot is None or (slot.read_only and kind is Kind.WRITE):
        return Expected("mmio", found)
    return Expected("memory", found)


def _translate(state: State, vm: Vm, r: Registers, address: int, kind: Kind) -> int | Expected:
    if not r.cr0 & CR0.PG:
        return address & 0xFFFF_FFFF
    long, pae = bool(r.efer & EFER.LMA), bool(r.cr4 & CR4.PAE)
    size, bits = (8, 9) if pae else (4, 10)
    shifts = (22, 12)
    if pae:
        shifts = (30, 21, 12)
    if long:
        shifts = (*((48,) if r.cr4 & CR4.LA57 else ()), 39, 30, 21, 12)
    user, write, fetch = r.cpl == 3, kind is Kind.WRITE, kind is Kind.FETCH
    code = write << 1 | user << 2 | (fetch and bool(r.efer & EFER.NXE)) << 4
    table = r.cr3 & (0xFFFF_FFE0 if pae and not long else ADDRESS)
    may_write = may_user = may_fetch = True
    for shift in shifts:
        is_pdpte = shift == 30 and not long
        at = table + (address >> shift & (1 << bits) - 1 & (3 if is_pdpte else -1)) * size
        if is_pdpte and r.pdptes is not None:
            entry = r.pdptes[address >> 30 & 3]
        else:
            slot = slot_of(vm, at)
            if slot is None or slot.read_only:
                return Expected("emulator")
            entry = _read(state, vm, at, size)
        if not entry & 1:
            return Expected("page fault", code=code)
        if not is_pdpte:
            may_write, may_user = may_write and bool(entry & 2), may_user and bool(entry & 4)
            may_fetch = may_fetch and not (size == 8 and entry >> 63)
        table = entry & (ADDRESS if size == 8 else 0xFFFF_F000)
        if shift == 12 or (entry & 0x80 and shift in (21, 22, 30) and not is_pdpte):
            break
    protects = user or bool(r.cr0 & CR0.WP)
    if (user and not may_user) or (write and protects and not may_write) or (fetch and not may_fetch):
        return Expected("page fault", code=code | 1)
    return table & -(1 << shift) | address & (1 << shift) - 1
