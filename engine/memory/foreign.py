"""Files that are taken for memory images and are none: told by their first bytes, with what to do about each."""

from engine.errors import InputError
from engine.memory.elf import MAGIC as ELF

HEAD = 4096
"""Bytes from the start of a file that are looked at."""

_REDUMP = "dump again with dump-guest-memory without -z, -l, -s and -w"
_UNPACK = "unpack it first (gzip and xz are read as they are)"
_OTHER = "open a memory image: an ELF core by dump-guest-memory, or raw memory"
_MEMORY = "convert it to raw memory first"

_MAGICS = (
    (b"makedumpfile\0", "a flattened kdump", _REDUMP),
    (b"KDUMP   ", "a compressed kdump", _REDUMP),
    (b"DISKDUMP", "a diskdump", _REDUMP),
    (b"EMiL", "a LiME dump", _MEMORY),
    (b"PAGEDUMP", "a Windows crash dump", _MEMORY),
    (b"PAGEDU64", "a Windows crash dump", _MEMORY),
    (b"hibr", "a Windows hibernation file", _MEMORY),
    (b"HIBR", "a Windows hibernation file", _MEMORY),
    *((magic, "the state of a VMware machine", "open the .vmem file beside it") for magic in (
        b"\xd0\xbe\xd2\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe",
    )),
    (b"QEVM", "a machine saved by QEMU (savevm, migrate)", "use dump-guest-memory instead"),
    (b"LibvirtQemudSave", "a machine saved by libvirt", "use virsh dump --memory-only instead"),
    (b"QFI\xfb", "a qcow2 disk", _OTHER),
    (b"SQLite format 3\0", "a database, perhaps a scenario", "open it as a scenario"),
    (b"MZ", "a Windows or DOS program", _OTHER),
    (b"\x89PNG", "a PNG picture", _OTHER),
    (b"\xff\xd8\xff", "a JPEG picture", _OTHER),
    (b"GIF8", "a GIF picture", _OTHER),
    (b"%PDF", "a PDF document", _OTHER),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"BZh", "packed by bzip2", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", _UNPACK),
    (b"\x04\x22\x4d\x18", "packed by lz4", _UNPACK),
)  # fmt: skip


def refuse_foreign(head: bytes) -> None:
    """Raises InputError where a file with this beginning is known not to be a memory image."""
    for magic, what, advice in _MAGICS:
        if head.startswith(magic):
            raise InputError(f"this is {what}; {advice}")
    if not head.startswith(ELF) and sum(a == b for a, b in zip(head, ELF, strict=False)) == len(ELF) - 1:
        raise InputError("this looks like an ELF core with a damaged first word; copy the file again")
    if _is_text(head[:HEAD]):
        raise InputError(f"this is a text file; {_OTHER}")


def _is_text(head: bytes) -> bool:
    """Printable UTF-8, the last character perhaps cut."""
    for cut in range(min(4, len(head))):
        try:
            text = head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)
    return False
