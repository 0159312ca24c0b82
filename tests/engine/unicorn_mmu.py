"""Unicorn as an independent MMU: one access, executed by a processor that reads the same memory.

Unicorn is QEMU 5.0's processor in a library. It shows what an access came to (physical address, or exception with CR2)
and every byte of memory after it, but no error code. Its processors have 40 bits of physical address.
"""

import struct
from typing import NamedTuple

import unicorn
from unicorn import x86_const as x86

from engine.arch.memory import FRAME_SIZE
from engine.arch.registers import CR0, CR4, EFER, RFLAGS_AC, Mode, Registers
from engine.arch.rights import Kind

FRAMES = 32
SIZE = FRAMES * FRAME_SIZE
DATA = range(16, FRAMES)
"""Frames that hold instructions that tell where they are, none of which is present if it is taken for an entry."""
OURS = 8
"""Frames below this are the harness's: descriptors, code, stack, and tables that map the code."""

GDT, CODE, STACK, TABLES = 0, 0x1000, 0x2000, 0x3000
CODE_VA = 0x1000
"""Where the first entry of every root maps the code."""
PRESENT, RW, USER, USED = 1, 2, 4, 0x60
IRET, ACCESS_READ, ACCESS_WRITE = CODE, CODE + 0x10, CODE + 0x20
PROGRAM = {
    IRET: {True: b"\x48\xcf", False: b"\xcf"},
    ACCESS_READ: b"\x0f\x01\xef\x8a\x06",  # wrpkru; mov al, [rsi]
    ACCESS_WRITE: b"\x0f\x01\xef\x88\x06",  # wrpkru; mov [rsi], al
}
WRPKRU_BYTES, ACCESS_BYTES, MARKER_BYTES = 3, 5, 5
SEGMENTS = {  # selector: descriptor
    0x08: {True: 0x00AF_9B00_0000_FFFF, False: 0x00CF_9B00_0000_FFFF},
    0x10: {True: 0x00CF_9300_0000_FFFF, False: 0x00CF_9300_0000_FFFF},
    0x18: {True: 0x00AF_FB00_0000_FFFF, False: 0x00CF_FB00_0000_FFFF},
    0x20: {True: 0x00CF_F300_0000_FFFF, False: 0x00CF_F300_0000_FFFF},
}
TRANSLATED = (
    unicorn.UC_ERR_READ_UNMAPPED,
    unicorn.UC_ERR_WRITE_UNMAPPED,
    unicorn.UC_ERR_FETCH_UNMAPPED,
    unicorn.UC_ERR_INSN_INVALID,
)
"""Unicorn's errors after a translation: to an address beyond memory (a hook notes it), or to bytes that are no code."""
NO_LIMIT = 1 << 30
"""Instructions."""
USER_CODE, USER_DATA = 0x18 | 3, 0x20 | 3


class Seen(NamedTuple):
    """``vector``: of the exception, None where the access went through. ``address``: physical; None where not shown."""

    vector: int | None
    cr2: int | None
    address: int | None
    memory: bytes


def marker(word: int) -> bytes:
    """The instruction at word ``word`` of memory, which loads that number: mov eax, imm32 and some nops."""
    return b"\xb8" + word.to_bytes(4, "little") + b"\x90\x90\x90"


def first_entry(mode: Mode) -> int:
    """The root's entry 0, which leads to the harness's own tables."""
    flags = PRESENT if mode is Mode.PAE else PRESENT | RW | USER | USED
    return TABLES | flags


def harness(mode: Mode, cpl: int) -> bytes:
    """The harness's frames: its code is a user page for CPL 3, and for CPL 0 one that SMEP and SMAP leave alone."""
    memory = bytearray(OURS * FRAME_SIZE)
    long = mode.is_long
    for selector, descriptor in SEGMENTS.items():
        struct.pack_into("<Q", memory, GDT + selector, descriptor[long])
    for at, code in PROGRAM.items():
        code = code if isinstance(code, bytes) else code[long]
        memory[at : at + len(code)] = code
    levels = {Mode.LEGACY: 1, Mode.PAE: 2, Mode.LEVEL4: 3, Mode.LEVEL5: 4}[mode]
    word = "<I" if mode is Mode.LEGACY else "<Q"
    for n in range(levels - 1):
        struct.pack_into(
            word, memory, TABLES + n * FRAME_SIZE, TABLES + (n + 1) * FRAME_SIZE | PRESENT | RW | USER | USED
        )
    leaf = TABLES + (levels - 1) * FRAME_SIZE + (CODE_VA >> 12) * struct.calcsize(word)
    struct.pack_into(word, memory, leaf, CODE | PRESENT | RW | USED | (USER if cpl == 3 else 0))
    return bytes(memory)


class UnicornMmu:
    """A processor in long mode or not; memory starts at 0, and what lies beyond it reads as zero to its walks."""

    def __init__(self, long: bool) -> None:
        self._long = long
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if long else unicorn.UC_MODE_32)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        uc.mem_map(0, SIZE)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        uc.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, self._on_memory)
        uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._on_memory)
        uc.hook_add(unicorn.UC_HOOK_CODE, self._on_instruction)
        self._vector: int | None = None
        self._address: int | None = None
        self._left = NO_LIMIT
        self._contexts = {0: uc.context_save()}
        self._contexts[3] = self._user_context()

    def _on_exception(self, uc: unicorn.Uc, vector: int, _: object) -> None:
        self._vector = vector
        uc.emu_stop()

    def _on_memory(self, uc: unicorn.Uc, kind: int, address: int, size: int, value: int, _: object) -> bool:
        self._address = address
        return False

    def _on_instruction(self, uc: unicorn.Uc, address: int, size: int, _: object) -> None:
        if self._left == 0:
            uc.emu_stop()
        self._left -= 1

    def _user_context(self) -> object:
        """The state after an IRET to CPL 3 with paging off, or in long mode with an identity map of 2 MiB."""
        uc = self._uc
        uc.mem_write(0, harness(Mode.LEVEL4 if self._long else Mode.LEGACY, 0))
        if self._long:
            root = OURS * FRAME_SIZE
            for at, entry in ((root, root + 0x1000 | 7), (root + 0x1000, root + 0x2000 | 7), (root + 0x2000, 0x87)):
                uc.mem_write(at, entry.to_bytes(8, "little"))
            self._set_control(CR0.PE | CR0.PG, root, CR4.PAE, 0)
        uc.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, 0x27, 0))
        frame = (ACCESS_READ, USER_CODE, 2, STACK, USER_DATA)
        uc.mem_write(STACK, struct.pack("<5Q" if self._long else "<5I", *frame))
        uc.reg_write(x86.UC_X86_REG_RSP if self._long else x86.UC_X86_REG_ESP, STACK)
        uc.emu_start(IRET, ACCESS_READ)
        assert (uc.reg_read(x86.UC_X86_REG_CS), self._vector) == (USER_CODE, None)
        return uc.context_save()

    def _set_control(self, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        uc = self._uc
        uc.reg_write(x86.UC_X86_REG_CR4, int(cr4))
        uc.reg_write(x86.UC_X86_REG_MSR, (0xC000_0080, int(efer) | (EFER.LME if self._long else 0)))
        uc.reg_write(x86.UC_X86_REG_CR0, int(cr0))
        uc.reg_write(x86.UC_X86_REG_CR3, cr3)  # the last, for it flushes the TLB

    def access(self, registers: Registers, memory: bytes, address: int, kind: Kind) -> Seen:
        """One byte at linear ``address``, in ``memory`` of `SIZE` bytes whose first frames are the harness's."""
        if kind is Kind.FETCH:
            return self._fetch(registers, memory, address)
        start = ACCESS_WRITE if kind is Kind.WRITE else ACCESS_READ
        skip = 0 if registers.cr4 & CR4.PKE else WRPKRU_BYTES
        self._prepare(registers, memory)
        self._uc.reg_write(x86.UC_X86_REG_RSI if self._long else x86.UC_X86_REG_ESI, address)
        self._run(CODE_VA + start - CODE + skip, CODE_VA + start - CODE + ACCESS_BYTES)
        return self._seen()

    def _fetch(self, registers: Registers, memory: bytes, address: int) -> Seen:
        """Stopped before the instruction is executed; executed in a second run, for it to tell where it is."""
        self._prepare(registers, memory)
        self._run(address, 0, instructions=0)
        first = self._seen()
        if first.vector is not None or first.address is not None:
            return first
        self._prepare(registers, memory)
        self._run(address, 0, instructions=1)
        told = self._uc.reg_read(x86.UC_X86_REG_EAX) * 8
        executed = self._uc.reg_read(x86.UC_X86_REG_RIP if self._long else x86.UC_X86_REG_EIP) == address + MARKER_BYTES
        known = executed and told // FRAME_SIZE in DATA and (told ^ address) % FRAME_SIZE == 0
        return first._replace(address=told if known else None)

    def _prepare(self, registers: Registers, memory: bytes) -> None:
        uc = self._uc
        uc.context_restore(self._contexts[registers.cpl])
        uc.mem_write(0, memory)
        self._set_control(registers.cr0, registers.cr3, registers.cr4, registers.efer & EFER.NXE)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, 2 | registers.rflags & RFLAGS_AC)
        for register, value in ((x86.UC_X86_REG_EAX, registers.pkru), (x86.UC_X86_REG_ECX, 0), (x86.UC_X86_REG_EDX, 0)):
            uc.reg_write(register, value)
        self._vector = self._address = None

    def _run(self, start: int, end: int, instructions: int = NO_LIMIT) -> None:
        self._left = instructions
        try:
            self._uc.emu_start(start, end)
        except unicorn.UcError as error:
            if error.errno not in TRANSLATED:
                raise

    def _seen(self) -> Seen:
        memory = bytes(self._uc.mem_read(0, SIZE))
        if self._vector is None:
            return Seen(None, None, self._address, memory)
        cr2 = self._uc.reg_read(x86.UC_X86_REG_CR2) if self._vector == 14 else None
        return Seen(self._vector, cr2, None, memory)
