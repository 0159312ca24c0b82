"""A bounded reader of ELF cores: nothing in a header is believed before it is checked against the file's size.

Memory is where the PT_LOAD headers say: ``p_filesz`` bytes at ``p_offset`` of the file are guest-physical ``p_paddr``;
what ``p_memsz`` promises beyond that is not in the file and stays unknown. Several headers may give the same
bytes of the file to an address (QEMU's dump with paging does); if they give different ones, the file is refused.
Source: System V ABI, ELF; QEMU, dump/dump.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from engine.arch.memory import ADDRESS_BITS, ADDRESS_END
from engine.errors import InputError

MAGIC = b"\x7fELF"
EM_386, EM_X86_64 = 3, 62
MAX_HEADERS = 65_535
MAX_NOTES = 65_535
MAX_NOTE_BYTES = 16 << 20

_ET_CORE = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
_TYPES = {1: "an object file", 2: "a program", 3: "a program or a shared library"}
_MACHINES = {
    8: "MIPS", 20: "PowerPC", 21: "PowerPC", 22: "S/390", 40: "Arm", 183: "Arm", 243: "RISC-V", 258: "LoongArch",
}  # fmt: skip
_NOTE = Struct("<III")  # n_namesz, n_descsz, n_type


class _Layout(NamedTuple):
    """What differs between the classes."""

    bits: int
    header: Struct  # from e_type on, without the 16 bytes of e_ident
    program: Struct
    order: tuple[int, ...]  # of p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz in ``program``
    section: Struct  # its field 7 is sh_info


_LAYOUTS = {
    1: _Layout(32, Struct("<HHIIIIIHHHHHH"), Struct("<8I"), (0, 1, 2, 3, 4, 5), Struct("<10I")),
    2: _Layout(64, Struct("<HHIQQQIHHHHHH"), Struct("<II6Q"), (0, 2, 3, 4, 5, 6), Struct("<IIQQQQIIQQ")),
}

Read = Callable[[int, int], bytes]
"""``read(offset, size)`` of the file; fewer bytes only at its end."""


class Segment(NamedTuple):
    """Physical bytes ``start`` .. ``end`` (not included) lie at ``offset`` of the file."""

    start: int
    end: int
    offset: int


class Note(NamedTuple):
    name: bytes
    kind: int
    data: bytes


class Core(NamedTuple):
    """What a core file declares. ``machine`` is EM_386 or EM_X86_64; segments are sorted and do not overlap."""

    bits: int
    machine: int
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]


class _Header(NamedTuple):
    kind: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


def read_core(read: Read, size: int) -> Core:
    """The core in a file of ``size`` bytes. Raises InputError."""
    layout, machine, headers = _program_headers(read, size)
    loads = [header for header in headers if header.kind == _PT_LOAD and header.filesz]
    if not loads:
        raise InputError("the core holds no memory (no PT_LOAD with bytes in the file); dump it again")
    if not any(load.paddr for load in loads) and any(load.vaddr for load in loads):
        raise InputError("this is the core of a process; Walkscope needs a machine's, as by dump-guest-memory")
    notes = tuple(_notes(read, [header for header in headers if header.kind == _PT_NOTE], size))
    return Core(layout.bits, machine, tuple(_segments(loads, size)), notes)


def _program_headers(read: Read, size: int) -> tuple[_Layout, int, list[_Header]]:
    ident = read(0, 16)
    if len(ident) < 16:
        raise InputError("the ELF header is cut off; copy the file again")
    layout = _LAYOUTS.get(ident[4])
    if layout is None or ident[5] not in (1, 2) or ident[6] != 1:
        raise InputError("the ELF header is damaged (unknown class, byte order or version); copy the file again")
    if ident[5] == 2:
        raise InputError("this is a big-endian ELF file; x86 is little-endian")
    head = read(16, layout.header.size)
    if len(head) < layout.header.size:
        raise InputError("the ELF header is cut off; copy the file again")
    kind, machine, _, _, table, sections, _, _, entry_size, count, _, _, _ = layout.header.unpack(head)
    if kind != _ET_CORE:
        what = _TYPES.get(kind, f"of unknown type {kind}")
        raise InputError(f"this ELF file is {what}, not a core; take one written by dump-guest-memory")
    if machine not in (EM_386, EM_X86_64):
        raise InputError(f"this core is of {_MACHINES.get(machine, f'machine type {machine}')}, not of x86")
    if count == _PN_XNUM:  # the true number is in the first section header
        count = _sh_info(layout, read(sections, layout.section.size) if sections < size else b"")
    if count > MAX_HEADERS:
        raise InputError(f"the core claims {count:,} program headers; at most {MAX_HEADERS:,} are read")
    if entry_size != layout.program.size:
        raise InputError(f"the ELF header is damaged (program headers of {entry_size} bytes); copy the file again")
    if table + count * entry_size > size:
        raise InputError("the program headers reach beyond the end of the file, which is cut off or damaged")
    raw = read(table, count * entry_size)
    return layout, machine, [_Header(*(f[i] for i in layout.order)) for f in layout.program.iter_unpack(raw)]


def _sh_info(layout: _Layout, raw: bytes) -> int:
    if len(raw) < layout.section.size:
        raise InputError("the number of program headers is in a section header beyond the end of the file")
    info: int = layout.section.unpack(raw)[7]
    return info


def _segments(loads: list[_Header], size: int) -> Iterator[Segment]:
    """The loads as segments: checked, sorted, those that continue each other made one."""
    last: Segment | None = None
    for load in sorted(loads, key=lambda load: (load.paddr, load.offset)):
        start, end = load.paddr, load.paddr + load.filesz
        if load.offset + load.filesz > size:
            raise InputError(
                f"the memory at {start:#x} is at bytes {load.offset:,} to {load.offset + load.filesz:,} of a file of "
                f"{size:,} bytes, which is cut off or damaged; copy or dump it again"
            )
        if load.filesz > load.memsz:
            raise InputError(
                f"the core is damaged: the segment at {start:#x} has more bytes in the file than in memory"
            )
        if end > ADDRESS_END:
            raise InputError(f"the core is damaged: its segment at {start:#x} lies beyond {ADDRESS_BITS}-bit addresses")
        here = Segment(start, end, load.offset)
        if last is None or start > last.end:
            if last is not None:
                yield last
            last = here
        elif load.offset - start == last.offset - last.start:
            last = last._replace(end=max(end, last.end))
        elif start == last.end:
            yield last
            last = here
        else:
            raise InputError(
                f"the core gives two different contents to address {start:#x}; dump the guest again without paging"
            )
    assert last is not None  # read_core looked
    yield last


def _notes(read: Read, headers: list[_Header], size: int) -> Iterator[Note]:
    if sum(header.filesz for header in headers) > MAX_NOTE_BYTES:
        raise InputError(f"the core is damaged: it claims more than {MAX_NOTE_BYTES >> 20} MiB of notes")
    count = 0
    for header in headers:
        if header.filesz and header.offset + header.filesz > size:
            raise InputError("the notes reach beyond the end of the file, which is cut off or damaged")
        data = read(header.offset, header.filesz)
        at = 0
        while at + _NOTE.size <= len(data):
            name_size, data_size, kind = _NOTE.unpack_from(data, at)
            name_at = at + _NOTE.size
            data_at = name_at + -(-name_size // 4) * 4
            at = data_at + -(-data_size // 4) * 4
            count += 1
            if data_at + data_size > len(data) or count > MAX_NOTES:
                raise InputError(
                    "the core is damaged: a note is larger than the room for notes, or there is no end of them"
                )
            yield Note(data[name_at : name_at + name_size].rstrip(b"\0"), kind, data[data_at : data_at + data_size])
