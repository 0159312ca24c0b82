"""Every format of a paging-structure entry, as one declarative table a paging mode.

The explaining walker, the array walker, the builders and the window all read these tables; none of them knows a bit by
itself. Bits that are reserved under a condition are functions of a `Setting`, what registers, CPU and rules fix.
Sources: Intel SDM vol. 3A, 4.3 - 4.5 and vol. 3C, 29.3 (EPT); AMD APM vol. 2, 5.2 - 5.4.
"""

from collections.abc import Callable
from enum import Enum

import msgspec

from engine.arch.addresses import size_name
from engine.arch.bits import bit, field, mask


class Setting(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """What decides which bits of an entry are reserved and which entries are leaves. ``maxphyaddr`` in bits."""

    maxphyaddr: int = 52
    nxe: bool = False
    pse: bool = False
    pse36: bool = True
    page1gb: bool = True
    amd_bit8: bool = False
    keys: bool = False
    # EPT only
    execute_only: bool = True
    page2mb: bool = True
    mbec: bool = False
    accessed_dirty: bool = True


class Role(Enum):
    """What a field is for; the window colours fields by it."""

    PRESENT = "present"
    RIGHT = "right"
    CACHE = "cache"
    ACCESSED = "accessed"
    SIZE = "size"
    GLOBAL = "global"
    ADDRESS = "address"
    KEY = "key"
    IGNORED = "ignored"
    RESERVED = "reserved"


class Field(msgspec.Struct, frozen=True):
    """Bits ``hi`` .. ``lo`` of an entry. ``meanings``: what the values 0, 1, ... mean, as far as they have names."""

    name: str
    hi: int
    lo: int
    role: Role
    meanings: tuple[str, ...] = ()

    @property
    def mask(self) -> int:
        return mask(self.hi, self.lo)


class Reserved(msgspec.Struct, frozen=True):
    """Bits that must be 0 in a present entry, and why."""

    why: str
    bits: Callable[[Setting], int]


class Illegal(msgspec.Struct, frozen=True):
    """No entry may have this: it is bad where ``entry & mask == value`` (EPT misconfigurations)."""

    why: str
    mask: int
    value: int
    when: Callable[[Setting], bool] = lambda s: True


class EntryFormat(msgspec.Struct, frozen=True):
    """One kind of entry. ``page_shift``: log2 of the page's bytes, 0 where the entry points at a table.

    ``high``: bits that are physical-address bits 39:32, moved up by ``high_shift`` (4-MiB pages, PSE-36/40).
    """

    name: str
    fields: tuple[Field, ...]
    address: int
    reserved: tuple[Reserved, ...] = ()
    illegal: tuple[Illegal, ...] = ()
    page_shift: int = 0
    high: int = 0
    high_shift: int = 0

    def reserved_bits(self, setting: Setting) -> int:
        bits = 0
        for rule in self.reserved:
            bits |= rule.bits(setting)
        return bits

    def base(self, value: int) -> int:
        """The physical byte address that entry ``value`` points at."""
        return (value & self.address) | ((value & self.high) << self.high_shift)


class LevelFormat(msgspec.Struct, frozen=True):
    """One level of a hierarchy. Levels are numbered as the manuals do: 1 = page table.

    ``leaf``: the bits any of which makes an entry a leaf under a setting; 0 where no entry can be one.
    ``neutral``: the entry has no rights of its own (PAE PDPTE).
    """

    level: int
    name: str
    shift: int
    bits: int
    table: EntryFormat | None
    page: EntryFormat | None
    leaf: Callable[[Setting], int]
    neutral: bool = False

    def entry(self, is_leaf: bool) -> EntryFormat:
        entry = self.page if is_leaf else self.table
        assert entry is not None, f"{self.name} has no such entry"
        return entry


class RightBits(msgspec.Struct, frozen=True):
    """The bits of an entry that give a right (all of them must be 1) or, ``no_execute``, take it. 0: not restricted."""

    read: int = 0
    write: int = bit(1)
    user: int = bit(2)
    execute: int = 0
    no_execute: int = bit(63)


class Format(msgspec.Struct, frozen=True):
    """A paging format. ``width``: bits of an input address that it translates; ``levels`` from the root down.

    ``present``: bits any of which makes an entry present; ``accessed``/``dirty``: the flags hardware sets.
    """

    name: str
    entry_bytes: int
    width: int
    levels: tuple[LevelFormat, ...]
    root: int
    present: Callable[[Setting], int] = lambda s: bit(0)
    accessed: Callable[[Setting], int] = lambda s: bit(5)
    dirty: Callable[[Setting], int] = lambda s: bit(6)
    rights: RightBits = RightBits()


class Decoded(msgspec.Struct, frozen=True):
    """A field of one entry with its value and what it says; ``why`` is the rule where reserved bits are concerned."""

    name: str
    hi: int
    lo: int
    value: int
    role: Role
    meaning: str
    why: str = ""


# --- fields shared by many entries -----------------------------------------------------------------------------------


def _flag(name: str, at: int, role: Role, zero: str, one: str) -> Field:
    return Field(name, at, at, role, (zero, one))


P = _flag("P", 0, Role.PRESENT, "not present", "present")
RW = _flag("R/W", 1, Role.RIGHT, "read-only", "writable")
US = _flag("U/S", 2, Role.RIGHT, "supervisor only", "user may access")
PWT = _flag("PWT", 3, Role.CACHE, "write-back", "write-through")
PCD = _flag("PCD", 4, Role.CACHE, "cached", "cache disabled")
A = _flag("A", 5, Role.ACCESSED, "not yet used", "accessed")
D = _flag("D", 6, Role.ACCESSED, "clean", "dirty")
D_IGNORED = Field("ignored", 6, 6, Role.IGNORED)
PS_TABLE = _flag("PS", 7, Role.SIZE, "points at a table", "maps a page")
PS_PAGE = _flag("PS", 7, Role.SIZE, "points at a table", "maps a page")
PS_ZERO = Field("reserved", 7, 7, Role.RESERVED, ("must be 0", "must be 0"))
PS_IGNORED = Field("ignored", 7, 7, Role.IGNORED)
PAT_PTE = _flag("PAT", 7, Role.CACHE, "PAT index bit 2 = 0", "PAT index bit 2 = 1")
PAT_LARGE = _flag("PAT", 12, Role.CACHE, "PAT index bit 2 = 0", "PAT index bit 2 = 1")
G = _flag("G", 8, Role.GLOBAL, "flushed with CR3", "global")
XD = _flag("XD", 63, Role.RIGHT, "may be executed", "no execute")


def _ignored(hi: int, lo: int) -> Field:
    return Field("ignored", hi, lo, Role.IGNORED)


def _address(hi: int, lo: int, name: str = "address") -> Field:
    return Field(name, hi, lo, Role.ADDRESS)


KEY = Field("key", 62, 59, Role.KEY)

ABOVE_M = Reserved("bits 51:MAXPHYADDR must be 0", lambda s: mask(51, s.maxphyaddr))
XD_OFF = Reserved("XD is reserved while EFER.NXE = 0", lambda s: 0 if s.nxe else bit(63))
NO_LARGE = Reserved("PS must be 0 at this level", lambda s: bit(7))
AMD_BIT8 = Reserved("bit 8 must be 0 at this level on AMD", lambda s: bit(8) if s.amd_bit8 else 0)
NO_1GB = Reserved("PS must be 0: this CPU has no 1-GiB pages", lambda s: 0 if s.page1gb else bit(7))
PAE_HIGH = Reserved("bits 62:52 must be 0 under PAE paging", lambda s: mask(62, 52))


def _aligned(hi: int, lo: int, size: str) -> Reserved:
    return Reserved(f"bits {hi}:{lo} must be 0: a {size} page is aligned to its size", lambda s: mask(hi, lo))


# --- 32-bit paging (SDM vol. 3A, 4.3) --------------------------------------------------------------------------------


def _pse_reserved(s: Setting) -> int:
    return mask(21, min(40, s.maxphyaddr) - 19) if s.pse36 else mask(21, 13)


PDE32 = EntryFormat(
    "PDE", (P, RW, US, PWT, PCD, A, D_IGNORED, PS_TABLE, _ignored(11, 8), _address(31, 12)), mask(31, 12)
)
PDE32_PAGE = EntryFormat(
    "PDE, 4-MiB page",
    (P, RW, US, PWT, PCD, A, D, PS_PAGE, G, _ignored(11, 9), PAT_LARGE, _address(20, 13, "address 39:32"),
     Field("reserved", 21, 21, Role.RESERVED), _address(31, 22)),
    mask(31, 22),
    (Reserved("PDE bits above the physical address width must be 0", _pse_reserved),),
    page_shift=22, high=mask(20, 13), high_shift=19,
)  # fmt: skip
PTE32 = EntryFormat(
    "PTE", (P, RW, US, PWT, PCD, A, D, PAT_PTE, G, _ignored(11, 9), _address(31, 12)), mask(31, 12), page_shift=12
)
LEGACY = Format(
    "32-bit", 4, 32,
    (
        LevelFormat(2, "PD", 22, 10, PDE32, PDE32_PAGE, lambda s: bit(7) if s.pse else 0),
        LevelFormat(1, "PT", 12, 10, None, PTE32, lambda s: bit(0)),
    ),
    root=mask(31, 12),
)  # fmt: skip


# --- 8-byte entries: PAE (4.4), 4-level and 5-level paging (4.5) -----------------------------------------------------

_TABLE_FLAGS = (P, RW, US, PWT, PCD, A, D_IGNORED)
_PAGE_FLAGS = (P, RW, US, PWT, PCD, A, D)
_TOP_LONG = (_ignored(62, 52), XD)
_TOP_LEAF = (_ignored(58, 52), KEY, XD)
_TOP_PAE = (Field("reserved", 62, 52, Role.RESERVED), XD)


def _table(name: str, ps: Field, top: tuple[Field, ...], reserved: tuple[Reserved, ...]) -> EntryFormat:
    fields = (*_TABLE_FLAGS, ps, _ignored(11, 8), _address(51, 12), *top)
    return EntryFormat(name, fields, mask(51, 12), (ABOVE_M, XD_OFF, *reserved))


def _large(name: str, shift: int, size: str, top: tuple[Field, ...], reserved: tuple[Reserved, ...]) -> EntryFormat:
    low = Field("reserved", shift - 1, 13, Role.RESERVED)
    fields = (*_PAGE_FLAGS, PS_PAGE, G, _ignored(11, 9), PAT_LARGE, low, _address(51, shift), *top)
    rules = (ABOVE_M, XD_OFF, _aligned(shift - 1, 13, size), *reserved)
    return EntryFormat(name, fields, mask(51, shift), rules, page_shift=shift)


def _small(name: str, top: tuple[Field, ...], reserved: tuple[Reserved, ...]) -> EntryFormat:
    fields = (*_PAGE_FLAGS, PAT_PTE, G, _ignored(11, 9), _address(51, 12), *top)
    return EntryFormat(name, fields, mask(51, 12), (ABOVE_M, XD_OFF, *reserved), page_shift=12)


PML5E = _table("PML5E", PS_ZERO, _TOP_LONG, (NO_LARGE, AMD_BIT8))
PML4E = _table("PML4E", PS_ZERO, _TOP_LONG, (NO_LARGE, AMD_BIT8))
PDPTE = _table("PDPTE", PS_TABLE, _TOP_LONG, ())
PDPTE_PAGE = _large("PDPTE, 1-GiB page", 30, "1-GiB", _TOP_LEAF, (NO_1GB,))
PDE = _table("PDE", PS_TABLE, _TOP_LONG, ())
PDE_PAGE = _large("PDE, 2-MiB page", 21, "2-MiB", _TOP_LEAF, ())
PTE = _small("PTE", _TOP_LEAF, ())

_PML4 = LevelFormat(4, "PML4", 39, 9, PML4E, None, lambda s: 0)
_LONG_LOWER = (
    _PML4,
    LevelFormat(3, "PDPT", 30, 9, PDPTE, PDPTE_PAGE, lambda s: bit(7)),
    LevelFormat(2, "PD", 21, 9, PDE, PDE_PAGE, lambda s: bit(7)),
    LevelFormat(1, "PT", 12, 9, None, PTE, lambda s: bit(0)),
)
LEVEL4 = Format("4-level", 8, 48, _LONG_LOWER, root=mask(51, 12))
LEVEL5 = Format(
    "5-level", 8, 57, (LevelFormat(5, "PML5", 48, 9, PML5E, None, lambda s: 0), *_LONG_LOWER), root=mask(51, 12)
)

PDPTE_PAE = EntryFormat(
    "PDPTE",
    (P, Field("reserved", 2, 1, Role.RESERVED), PWT, PCD, Field("reserved", 8, 5, Role.RESERVED), _ignored(11, 9),
     _address(51, 12), Field("reserved", 63, 52, Role.RESERVED)),
    mask(51, 12),
    (Reserved("bits 63:MAXPHYADDR, 8:5 and 2:1 of a PDPTE must be 0",
              lambda s: mask(63, s.maxphyaddr) | mask(8, 5) | mask(2, 1)),),
)  # fmt: skip
PAE = Format(
    "PAE", 8, 32,
    (
        LevelFormat(3, "PDPT", 30, 2, PDPTE_PAE, None, lambda s: 0, neutral=True),
        LevelFormat(2, "PD", 21, 9, _table("PDE", PS_TABLE, _TOP_PAE, (PAE_HIGH,)),
                    _large("PDE, 2-MiB page", 21, "2-MiB", _TOP_PAE, (PAE_HIGH,)), lambda s: bit(7)),
        LevelFormat(1, "PT", 12, 9, None, _small("PTE", _TOP_PAE, (PAE_HIGH,)), lambda s: bit(0)),
    ),
    root=mask(31, 5),
)  # fmt: skip


# --- EPT (SDM vol. 3C, 29.3.2 and 29.3.3) ----------------------------------------------------------------------------

EPT_R = _flag("R", 0, Role.PRESENT, "no read", "read")
EPT_W = _flag("W", 1, Role.RIGHT, "no write", "write")
EPT_X = _flag("X", 2, Role.RIGHT, "no fetch", "fetch")
EPT_A = _flag("A", 8, Role.ACCESSED, "not yet used", "accessed")
EPT_D = _flag("D", 9, Role.ACCESSED, "clean", "dirty")
EPT_XU = _flag("XU", 10, Role.RIGHT, "no user-mode fetch", "user-mode fetch")
EPT_MEMTYPE = Field("memory type", 5, 3, Role.CACHE, ("UC", "WC", "illegal", "illegal", "WT", "WP", "WB", "illegal"))
EPT_IPAT = _flag("IPAT", 6, Role.CACHE, "the guest's PAT counts", "the guest's PAT is ignored")
EPT_SSS = _flag("SSS", 60, Role.RIGHT, "no supervisor shadow stack", "supervisor shadow-stack page")
EPT_VE = _flag("suppress #VE", 63, Role.IGNORED, "may become #VE", "never a #VE")

_EPT_ILLEGAL = (
    Illegal("writable but not readable (W = 1, R = 0)", 0b011, 0b010),
    Illegal("execute-only, which this CPU does not support", 0b101, 0b100, lambda s: not s.execute_only),
    Illegal(
        "execute-only (XU), which this CPU does not support", 0x401, 0x400, lambda s: s.mbec and not s.execute_only
    ),
)
_EPT_MEMTYPES = tuple(Illegal(f"memory type {n} does not exist", 0x38, n << 3) for n in (2, 3, 7))


def _ept_table(name: str, low: int, reserved: tuple[Reserved, ...] = ()) -> EntryFormat:
    rsvd = Reserved(f"bits {low}:3 of this entry must be 0", lambda s: mask(low, 3))
    ps = () if low == 7 else (PS_TABLE,)
    fields = (EPT_R, EPT_W, EPT_X, Field("reserved", low, 3, Role.RESERVED), *ps, EPT_A, _ignored(9, 9), EPT_XU,
              _ignored(11, 11), _address(51, 12), _ignored(62, 52), EPT_VE)  # fmt: skip
    return EntryFormat(name, fields, mask(51, 12), (ABOVE_M, rsvd, *reserved), _EPT_ILLEGAL)


def _ept_page(name: str, shift: int, bit7: Field, reserved: tuple[Reserved, ...] = ()) -> EntryFormat:
    low = () if shift == 12 else (Field("reserved", shift - 1, 12, Role.RESERVED),)
    fields = (EPT_R, EPT_W, EPT_X, EPT_MEMTYPE, EPT_IPAT, bit7, EPT_A, EPT_D, EPT_XU, _ignored(11, 11), *low,
              _address(51, shift), _ignored(59, 52), EPT_SSS, _ignored(62, 61), EPT_VE)  # fmt: skip
    aligned = () if shift == 12 else (
        Reserved(f"bits {shift - 1}:12 must be 0: the page is aligned to its size", lambda s: mask(shift - 1, 12)),
    )  # fmt: skip
    rules = (ABOVE_M, *aligned, *reserved)
    return EntryFormat(name, fields, mask(51, shift), rules, (*_EPT_ILLEGAL, *_EPT_MEMTYPES), page_shift=shift)


_NO_EPT_1GB = Reserved("bit 7 must be 0: no 1-GiB EPT pages", lambda s: 0 if s.page1gb else bit(7))
_NO_EPT_2MB = Reserved("bit 7 must be 0: no 2-MiB EPT pages", lambda s: 0 if s.page2mb else bit(7))


def _ept_present(s: Setting) -> int:
    return 0x407 if s.mbec else 0x7


_EPT_LOWER = (
    LevelFormat(4, "PML4", 39, 9, _ept_table("EPT PML4E", 7), None, lambda s: 0),
    LevelFormat(3, "PDPT", 30, 9, _ept_table("EPT PDPTE", 6),
                _ept_page("EPT PDPTE, 1-GiB page", 30, PS_PAGE, (_NO_EPT_1GB,)), lambda s: bit(7)),
    LevelFormat(2, "PD", 21, 9, _ept_table("EPT PDE", 6),
                _ept_page("EPT PDE, 2-MiB page", 21, PS_PAGE, (_NO_EPT_2MB,)), lambda s: bit(7)),
    LevelFormat(1, "PT", 12, 9, None, _ept_page("EPT PTE", 12, PS_IGNORED), _ept_present),
)  # fmt: skip


EPT_RIGHTS = RightBits(read=bit(0), write=bit(1), user=0, execute=bit(2), no_execute=0)


def _ept(name: str, width: int, levels: tuple[LevelFormat, ...]) -> Format:
    return Format(
        name, 8, width, levels, root=mask(51, 12), present=_ept_present,
        accessed=lambda s: bit(8) if s.accessed_dirty else 0, dirty=lambda s: bit(9) if s.accessed_dirty else 0,
        rights=EPT_RIGHTS,
    )  # fmt: skip


EPT4 = _ept("4-level EPT", 48, _EPT_LOWER)
EPT5 = _ept(
    "5-level EPT", 57, (LevelFormat(5, "PML5", 48, 9, _ept_table("EPT PML5E", 7), None, lambda s: 0), *_EPT_LOWER)
)


# --- decoding --------------------------------------------------------------------------------------------------------


def decode(entry: EntryFormat, value: int, setting: Setting) -> list[Decoded]:
    """The fields of ``value``, from bit 0 up, under ``setting``; reserved bits show as such, with the rule."""
    reserved = entry.reserved_bits(setting)
    out: list[Decoded] = []
    for f in entry.fields:
        forbidden = f.mask & reserved
        if f.role is Role.ADDRESS and forbidden and forbidden != f.mask:
            split = (forbidden & -forbidden).bit_length() - 1
            out.append(_decoded(entry, msgspec.structs.replace(f, hi=split - 1), value, setting))
            out.append(_decoded(entry, Field("reserved", f.hi, split, Role.RESERVED), value, setting))
        elif forbidden and f.role is not Role.RESERVED and value & forbidden:
            out.append(_decoded(entry, msgspec.structs.replace(f, role=Role.RESERVED, meanings=()), value, setting))
        else:
            out.append(_decoded(entry, f, value, setting))
    return out


def _decoded(entry: EntryFormat, f: Field, value: int, setting: Setting) -> Decoded:
    n = field(value, f.hi, f.lo)
    why = ""
    if f.role is Role.RESERVED:
        meaning = "must be 0"
        if bad := value & f.mask & entry.reserved_bits(setting):
            why = next((r.why for r in entry.reserved if r.bits(setting) & bad), "")
        elif n:
            meaning = "not checked here"
    elif f.role is Role.ADDRESS:
        meaning = f"page, {size_name(1 << entry.page_shift)}" if entry.page_shift else "next table"
    elif f.role is Role.KEY:
        meaning = f"protection key {n}" if setting.keys else "ignored: protection keys are off"
    else:
        meaning = f.meanings[n] if n < len(f.meanings) else ""
    return Decoded(f.name, f.hi, f.lo, n, f.role, meaning, why)
