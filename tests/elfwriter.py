"""Writes small ELF cores for tests: true ones as QEMU would, and ones whose headers lie."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

EM_386, EM_X86_64 = 3, 62
ET_CORE = 4
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF


@dataclass(frozen=True)
class Load:
    """A PT_LOAD. What is None is what it should be; anything else is written as given, true or not."""

    paddr: int
    data: bytes
    vaddr: int = 0
    offset: int | None = None
    filesz: int | None = None
    memsz: int | None = None


def note(name: str, data: bytes, kind: int = 0) -> bytes:
    owner = name.encode() + b"\0"
    return b"".join((struct.pack("<III", len(owner), len(data), kind), _padded(owner), _padded(data)))


def cpu_note(
    *,
    cr0: int = 0x80050033,
    cr2: int = 0,
    cr3: int = 0,
    cr4: int = 0x20,
    rip: int = 0,
    rsp: int = 0,
    rflags: int = 2,
    cs: int = 0x10,
    cs_flags: int = 0x00A09B00,
    version: int = 1,
) -> bytes:
    """QEMU's CPU state (QEMUCPUState), everything else 0. ``cs_flags`` has bit 21 for 64-bit code."""
    integer = [0] * 18
    integer[6], integer[16], integer[17] = rsp, rip, rflags
    segments = struct.pack("<IIIIQ", cs, 0, cs_flags, 0, 0) + bytes(24 * 9)
    body = struct.pack("<18Q", *integer) + segments + struct.pack("<6Q", cr0, 0, cr2, cr3, cr4, 0)
    return note("QEMU", struct.pack("<II", version, 8 + len(body)) + body)


def core(
    loads: Sequence[Load],
    *,
    notes: bytes = b"",
    bits: int = 64,
    machine: int = EM_X86_64,
    kind: int = ET_CORE,
    order: int = 1,
    xnum: int | None = None,
) -> bytes:
    """An ELF core: header, a section header if ``xnum`` is given (the count it then holds), program headers, notes,
    the segments' bytes one after another."""
    header_size, program_size, section_size = (64, 56, 64) if bits == 64 else (52, 32, 40)
    section_at = header_size if xnum is not None else 0
    table = header_size + (section_size if xnum is not None else 0)
    count = len(loads) + 1
    at = table + count * program_size
    rows = [(PT_NOTE, at, 0, 0, len(notes), len(notes))]
    at += len(notes)
    for load in loads:
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = filesz if load.memsz is None else load.memsz
        rows.append((PT_LOAD, at if load.offset is None else load.offset, load.vaddr, load.paddr, filesz, memsz))
        at += len(load.data)
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, order, 1]) + bytes(9)
    number = count if xnum is None else PN_XNUM
    head = (kind, machine, 1, 0, table, section_at, 0, header_size, program_size, number, section_size, 0, 0)
    parts = [ident, struct.pack("<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH", *head)]
    if xnum is not None:
        parts.append(struct.pack("<IIQQQQIIQQ" if bits == 64 else "<10I", 0, 0, 0, 0, 0, 0, 0, xnum, 0, 0))
    for row_kind, offset, vaddr, paddr, filesz, memsz in rows:
        if bits == 64:
            parts.append(struct.pack("<II6Q", row_kind, 0, offset, vaddr, paddr, filesz, memsz, 0))
        else:
            parts.append(struct.pack("<8I", row_kind, offset, vaddr, paddr, filesz, memsz, 0, 0))
    return b"".join((*parts, notes, *(load.data for load in loads)))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
