"""What the notes of a QEMU core say of its processors and of its kernel.

QEMU writes one note named "QEMU" a CPU: a ``QEMUCPUState`` of version 1 (QEMU, target/i386/arch_dump.c). It has the
control registers and the segments but neither EFER nor the protection keys. EFER.LMA of the first CPU is what QEMU
chose ``e_machine`` by; what else is missing is assumed, and named in ``CpuState.assumed``.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

import msgspec

from engine.arch.bits import bit
from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.errors import InputError
from engine.memory.elf import EM_X86_64, Note

MAX_VMCOREINFO = 64 << 10
"""Bytes; Linux gives it one page."""
_HEAD = Struct("<II")  # version, size
_INTEGER = Struct("<18Q")  # rax rbx rcx rdx rsi rdi rsp rbp r8 .. r15 rip rflags
_SEGMENT = Struct("<IIIIQ")  # selector, limit, flags, padding, base
_SEGMENTS = ("CS", "DS", "ES", "FS", "GS", "SS", "LDT", "TR", "GDT", "IDT")
_BASES = ("GDT", "IDT", "TR", "FS", "GS")
_CONTROL = Struct("<5Q")  # CR0, CR1, CR2, CR3, CR4
_SEGMENTS_AT = _HEAD.size + _INTEGER.size
_CONTROL_AT = _SEGMENTS_AT + _SEGMENT.size * len(_SEGMENTS)
_STATE_SIZE = _CONTROL_AT + _CONTROL.size
_FLAG_L = bit(21)  # of a code segment's descriptor: 64-bit code
_RFLAGS_VM = bit(17)


class CpuState(msgspec.Struct, frozen=True, kw_only=True):
    """One processor as the image has it.

    ``assumed`` names the fields of ``registers`` that the image does not hold and that matter in its mode
    ("EFER.LMA", "EFER.NXE", "PKRU", "PKRS"). ``pointers`` are linear addresses worth a look, by register.
    """

    index: int
    registers: Registers
    assumed: tuple[str, ...]
    pointers: tuple[tuple[str, int], ...]


def cpu_states(notes: Iterable[Note], machine: int) -> tuple[CpuState, ...]:
    """The processors, in QEMU's order; none where their notes are missing or not of the one version that is known."""
    states = [note.data for note in notes if note.name == b"QEMU"]
    if not all(_is_state(data) for data in states):
        return ()
    return tuple(_cpu_state(index, data, machine) for index, data in enumerate(states))


def _is_state(data: bytes) -> bool:
    return len(data) >= _STATE_SIZE and _HEAD.unpack_from(data) == (1, len(data))


def _cpu_state(index: int, data: bytes, machine: int) -> CpuState:
    cr0, _, cr2, cr3, cr4 = _CONTROL.unpack_from(data, _CONTROL_AT)
    integer = _INTEGER.unpack_from(data, _HEAD.size)
    rsp, rip, rflags = integer[6], integer[16], integer[17]
    segments = dict(zip(_SEGMENTS, _SEGMENT.iter_unpack(data[_SEGMENTS_AT:_CONTROL_AT]), strict=True))
    selector, _, flags, _, _ = segments["CS"]

    pae = bool(cr0 & CR0.PG and cr4 & CR4.PAE)
    lma = pae and machine == EM_X86_64
    assumed = {
        "EFER.LMA": pae and index > 0,  # only the first CPU chose e_machine
        "EFER.NXE": pae,
        "PKRU": lma and cr4 & CR4.PKE,
        "PKRS": lma and cr4 & CR4.PKS,
    }
    efer = (EFER.LME | EFER.LMA if lma else 0) | (EFER.NXE if pae else 0)
    if not cr0 & CR0.PE:
        cpl = 0
    else:
        cpl = 3 if rflags & _RFLAGS_VM else selector & 3
    return CpuState(
        index=index,
        registers=Registers(
            cr0=cr0, cr2=cr2, cr3=cr3, cr4=cr4, efer=int(efer), rflags=rflags, cpl=cpl,
            cs_l=bool(lma and flags & _FLAG_L),
        ),
        assumed=tuple(name for name, is_so in assumed.items() if is_so),
        pointers=(("RIP", rip), ("RSP", rsp), *((name, segments[name][4]) for name in _BASES)),
    )  # fmt: skip


def vmcoreinfo(notes: Iterable[Note]) -> dict[str, str]:
    """The kernel's VMCOREINFO as keys and values (Linux, kernel/crash_core.c); empty where there is none."""
    values: dict[str, str] = {}
    for note in notes:
        if note.name == b"VMCOREINFO":
            if len(note.data) > MAX_VMCOREINFO:
                raise InputError(f"the core is damaged: its VMCOREINFO is larger than {MAX_VMCOREINFO >> 10} KiB")
            lines = note.data.decode("utf-8", "replace").splitlines()
            values.update((key, value) for key, found, value in (line.partition("=") for line in lines) if found)
    return values
