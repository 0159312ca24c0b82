"""A small memory with one of each: 4-level tables in a raw file, of which a test knows every entry.

===========  =====================================================================================
PML4 0       the PDPT at 0x2000, user
PML4 256     the same PDPT, supervisor
PDPT 0       the PD at 0x3000
PD 0         the PT at 0x4000
PD 1         a 2-MiB page at 0x20_0000
PD 2         a 2-MiB page with bit 13, which is reserved
PD 3         a table that is not in the memory
PD 4         a second PT, at 0x6000
PT 1         a page at 0x5000: user, writable, A and D not set
PT 2         a page at 0x6000: supervisor, read-only, no execute
PT 3         not present, but not empty
===========  =====================================================================================
"""

from pathlib import Path

from engine import events as ev
from engine.arch.registers import CR0, CR4, EFER, Registers
from engine.arch.rights import READ, Access
from engine.memory.image import open_image
from engine.scenario import Scenario
from gui.document import Document, Query

NX = 1 << 63
ROOT = 0x1000
PD2_BAD = 0x40_0000 | 1 << 13 | 0x87
WORDS = {
    0x1000: 0x2007,
    0x1000 + 8 * 256: 0x2003,
    0x2000: 0x3007,
    0x3000: 0x4007,
    0x3008: 0x20_0000 | 0xE7,
    0x3010: PD2_BAD,
    0x3018: 0x7F00_0007,
    0x3020: 0x6007,
    0x4008: 0x5007,
    0x4010: 0x6001 | NX,
    0x4018: 0xDEAD_0000,
}
REGISTERS = Registers(
    cr0=int(CR0.PG | CR0.WP | CR0.PE), cr3=ROOT, cr4=int(CR4.PAE), efer=int(EFER.LME | EFER.LMA | EFER.NXE), cpl=3
)


def tiny_file(folder: Path) -> Path:
    memory = bytearray(0x8000)
    for address, word in WORDS.items():
        memory[address : address + 8] = word.to_bytes(8, "little")
    path = folder / "tiny.raw"
    path.write_bytes(memory)
    return path


def tiny_document(folder: Path, address: int | None = 0x1ABC, access: Access = READ, cpl: int = 3) -> Document:
    """A document with the small memory open, and an address walked in it."""
    path = tiny_file(folder)
    document = Document(lambda reference: open_image(Path(reference.path)))
    document.open(Scenario(events=(ev.OpenImage(ev.ImageRef(str(path)), REGISTERS),)))
    if address is not None:
        document.ask(Query(address, access, cpl))
    return document
