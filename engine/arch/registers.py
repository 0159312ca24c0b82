"""The registers that steer translation, the paging mode they select, and which changes of them are legal.

A write that raises #GP is a result with its reason, not an exception. Sources: Intel SDM vol. 3A, 2.5, 4.1 and 4.10;
AMD APM vol. 2, 3.1 and 5.3.
"""

from collections.abc import Callable
from enum import Enum, IntFlag

import msgspec

from engine.arch.basis import manual
from engine.arch.bits import U64, bit, bit_names, mask
from engine.arch.faults import GeneralProtection, Unknown
from engine.arch.memory import Words


class CR0(IntFlag):
    PE, MP, EM, TS, ET, NE = (1 << n for n in range(6))
    WP, AM = bit(16), bit(18)
    NW, CD, PG = bit(29), bit(30), bit(31)


class CR4(IntFlag):
    VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, LA57, VMXE, SMXE = (1 << n for n in range(15))
    FSGSBASE, PCIDE, OSXSAVE, KL, SMEP, SMAP, PKE, CET, PKS, UINTR = (1 << n for n in range(16, 26))
    LASS, LAM_SUP, FRED = bit(27), bit(28), bit(32)


class EFER(IntFlag):
    SCE, LME, LMA, NXE, SVME = bit(0), bit(8), bit(10), bit(11), bit(12)
    LMSLE, FFXSR, TCE, MCOMMIT, INTWB, UAIE, AIBRSE = (bit(n) for n in (13, 14, 15, 17, 18, 20, 21))


CR3_LAM_U57, CR3_LAM_U48, CR3_NO_FLUSH = bit(61), bit(62), bit(63)
RFLAGS_AC = bit(18)
PAT_RESET = 0x0007_0406_0007_0406
"""IA32_PAT after reset (SDM vol. 3A, 12.12.4): WB, WT, UC-, UC, twice."""


class Vendor(Enum):
    INTEL = "intel"
    AMD = "amd"


class Mode(Enum):
    """Paging modes (SDM vol. 3A, 4.1.1)."""

    NONE = "none"
    LEGACY = "32-bit"
    PAE = "PAE"
    LEVEL4 = "4-level"
    LEVEL5 = "5-level"

    @property
    def is_long(self) -> bool:
        return self in (Mode.LEVEL4, Mode.LEVEL5)


class Features(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, forbid_unknown_fields=True):
    """What a processor can do (CPUID), as far as translation depends on it. ``maxphyaddr`` in bits (32 .. 52)."""

    vendor: Vendor = Vendor.INTEL
    maxphyaddr: int = 52
    nx: bool = True
    page1gb: bool = True
    pse36: bool = True
    la57: bool = True
    pcid: bool = True
    smep: bool = True
    smap: bool = True
    pku: bool = True
    pks: bool = True
    cet: bool = True
    lam: bool = True
    lass: bool = True

    def __post_init__(self) -> None:
        if not 32 <= self.maxphyaddr <= 52:
            raise ValueError(f"MAXPHYADDR is {self.maxphyaddr}; it must be 32 .. 52")


class Registers(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, forbid_unknown_fields=True):
    """A processor's registers. ``pdptes`` are the four PAE PDPTE registers; None: not loaded, take them from memory."""

    cr0: int = 0
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    pkru: int = 0
    pkrs: int = 0
    rflags: int = 2
    cpl: int = 0
    cs_l: bool = False
    pat: int = PAT_RESET
    pdptes: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("cr0", "cr2", "cr3", "cr4", "efer", "pkru", "pkrs", "rflags", "pat"):
            if not 0 <= getattr(self, name) <= U64:
                raise ValueError(f"{name} must be an unsigned 64-bit number")
        if not 0 <= self.cpl <= 3:
            raise ValueError(f"CPL is {self.cpl}; it must be 0 .. 3")

    @property
    def mode(self) -> Mode:
        """The paging mode that CR0.PG, CR4.PAE, EFER.LMA and CR4.LA57 select."""
        if not self.cr0 & CR0.PG:
            return Mode.NONE
        if not self.cr4 & CR4.PAE:
            return Mode.LEGACY
        if not self.efer & EFER.LMA:
            return Mode.PAE
        return Mode.LEVEL5 if self.cr4 & CR4.LA57 else Mode.LEVEL4


def load_pdptes(memory: Words, cr3: int, features: Features) -> tuple[int, int, int, int] | GeneralProtection | Unknown:
    """The four PDPTE registers as a MOV to CR3 under PAE paging loads them (SDM vol. 3A, 4.4.1).

    A present PDPTE with a reserved bit is a #GP; absent ones are not checked.
    """
    base = cr3 & mask(31, 5)
    values = []
    for address in range(base, base + 32, 8):
        value = memory.word(address)
        if value is None:
            return Unknown(address=address)
        reserved = value & (mask(63, features.maxphyaddr) | mask(8, 5) | mask(2, 1))
        if value & 1 and reserved:
            return GeneralProtection(
                reason=f"PDPTE {(address - base) // 8} has reserved bits set: {bit_names(reserved)}",
                when="pdpte load",
                basis=manual("SDM vol. 3A, 4.4.1"),
            )
        values.append(value)
    return values[0], values[1], values[2], values[3]


def with_pdptes(registers: Registers, memory: Words) -> Registers:
    """``registers`` as a running processor has them: under PAE paging with the PDPTE registers loaded, unless unknown.

    What is in memory is taken unchecked, for the check was when CR3 was written. The bits that are reserved may have
    been set since: QEMU takes bit 5 for an accessed flag and sets it in memory.
    """
    if registers.mode is not Mode.PAE or registers.pdptes is not None:
        return registers
    base = registers.cr3 & mask(31, 5)
    first, second, third, fourth = (memory.word(address) for address in range(base, base + 32, 8))
    if first is None or second is None or third is None or fourth is None:
        return registers
    return msgspec.structs.replace(registers, pdptes=(first, second, third, fourth))


# --- legal changes: each row is (what the write may not do, does it?) with the registers before and after it

Test = Callable[[Registers, Registers, Features], object]
Row = tuple[str, Test]


def _long(r: Registers) -> bool:
    return bool(r.efer & EFER.LMA)


def _sets(name: str, flag: int) -> Test:
    return lambda old, new, f: getattr(new, name) & flag and not getattr(old, name) & flag


def _clears(name: str, flag: int) -> Test:
    return lambda old, new, f: getattr(old, name) & flag and not getattr(new, name) & flag


def _both(*tests: Test) -> Test:
    return lambda old, new, f: all(test(old, new, f) for test in tests)


_GATED = {  # CR4 bits that exist only with a feature
    CR4.LA57: "la57", CR4.PCIDE: "pcid", CR4.SMEP: "smep", CR4.SMAP: "smap", CR4.PKE: "pku", CR4.PKS: "pks",
    CR4.CET: "cet", CR4.LASS: "lass", CR4.LAM_SUP: "lam",
}  # fmt: skip
_CR4_KNOWN = sum(CR4)
_EFER_KNOWN = sum(EFER)


def _cr4_unsupported(old: Registers, new: Registers, f: Features) -> int:
    missing = sum(flag for flag, feature in _GATED.items() if not getattr(f, feature))
    return new.cr4 & (~_CR4_KNOWN | missing)


def cr3_reserved(features: Features, registers: Registers) -> int:
    """The bits of CR3 that must be 0 in long mode: above MAXPHYADDR, and LAM's where it is not supported."""
    lam = CR3_LAM_U57 | CR3_LAM_U48 if features.lam and features.vendor is Vendor.INTEL else 0
    return mask(63, features.maxphyaddr) & ~lam


CR0_ROWS: tuple[Row, ...] = (
    ("bits 63:32 of CR0 must be 0", lambda old, new, f: new.cr0 >> 32),
    ("CR0.PG needs CR0.PE", lambda old, new, f: new.cr0 & CR0.PG and not new.cr0 & CR0.PE),
    ("CR0.NW needs CR0.CD", lambda old, new, f: new.cr0 & CR0.NW and not new.cr0 & CR0.CD),
    (
        "CR0.PG cannot be set with EFER.LME = 1 while CR4.PAE = 0",
        _both(_sets("cr0", CR0.PG), lambda old, new, f: old.efer & EFER.LME and not old.cr4 & CR4.PAE),
    ),
    (
        "CR0.PG cannot be set with EFER.LME = 1 while CS.L = 1",
        _both(_sets("cr0", CR0.PG), lambda old, new, f: old.efer & EFER.LME and old.cs_l),
    ),
    (
        "CR0.PG cannot be cleared in 64-bit mode",
        _both(_clears("cr0", CR0.PG), lambda old, new, f: _long(old) and old.cs_l),
    ),
    (
        "CR0.PG cannot be cleared while CR4.PCIDE = 1",
        _both(_clears("cr0", CR0.PG), lambda old, new, f: old.cr4 & CR4.PCIDE),
    ),
    ("CR0.WP cannot be cleared while CR4.CET = 1", lambda old, new, f: old.cr4 & CR4.CET and not new.cr0 & CR0.WP),
)
CR3_ROWS: tuple[Row, ...] = (
    ("reserved bits of CR3 are set", lambda old, new, f: _long(old) and new.cr3 & cr3_reserved(f, old)),
)
CR4_ROWS: tuple[Row, ...] = (
    ("a reserved bit of CR4, or one this CPU does not support, is set", _cr4_unsupported),
    ("CR4.PAE cannot be cleared while EFER.LMA = 1", _both(_clears("cr4", CR4.PAE), lambda old, new, f: _long(old))),
    (
        "CR4.LA57 cannot change while EFER.LMA = 1",
        lambda old, new, f: _long(old) and (old.cr4 ^ new.cr4) & CR4.LA57,
    ),
    ("CR4.PCIDE cannot be set while EFER.LMA = 0", _both(_sets("cr4", CR4.PCIDE), lambda old, new, f: not _long(old))),
    (
        "CR4.PCIDE cannot be set while CR3[11:0] is not 0",
        _both(_sets("cr4", CR4.PCIDE), lambda old, new, f: old.cr3 & mask(11, 0)),
    ),
    ("CR4.CET cannot be set while CR0.WP = 0", lambda old, new, f: new.cr4 & CR4.CET and not old.cr0 & CR0.WP),
)
EFER_ROWS: tuple[Row, ...] = (
    ("a reserved bit of EFER is set", lambda old, new, f: new.efer & ~_EFER_KNOWN),
    ("EFER.NXE is not supported by this CPU", lambda old, new, f: new.efer & EFER.NXE and not f.nx),
    (
        "EFER.LME cannot change while CR0.PG = 1",
        lambda old, new, f: old.cr0 & CR0.PG and (old.efer ^ new.efer) & EFER.LME,
    ),
)

Change = Registers | GeneralProtection | Unknown
_PDPTE_CR0 = CR0.CD | CR0.NW | CR0.PG
_PDPTE_CR4 = CR4.PAE | CR4.PGE | CR4.PSE | CR4.SMEP


def _check(rows: tuple[Row, ...], old: Registers, new: Registers, features: Features, section: str) -> Change:
    for reason, breaks in rows:
        if breaks(old, new, features):
            return GeneralProtection(reason=reason, basis=manual(section))
    return new


def _reload(old: Registers, new: Change, features: Features, memory: Words, changed: object) -> Change:
    """``new`` with fresh PDPTE registers where the write loads them (``changed``) and PAE paging is on after it."""
    if not isinstance(new, Registers):
        return new
    if new.mode is not Mode.PAE or features.vendor is Vendor.AMD:
        return msgspec.structs.replace(new, pdptes=None)
    if not changed and new.pdptes is not None:
        return new
    pdptes = load_pdptes(memory, new.cr3, features)
    return msgspec.structs.replace(new, pdptes=pdptes) if isinstance(pdptes, tuple) else pdptes


def mov_cr0(old: Registers, value: int, features: Features, memory: Words) -> Change:
    """MOV to CR0: sets EFER.LMA when PG goes 0 -> 1 with LME set, clears it when PG goes to 0 (SDM vol. 3A, 4.1.2)."""
    efer = old.efer | EFER.LMA if value & CR0.PG and old.efer & EFER.LME else old.efer & ~EFER.LMA
    new = msgspec.structs.replace(old, cr0=value, efer=int(efer))
    checked = _check(CR0_ROWS, old, new, features, "SDM vol. 2B, MOV to control registers; vol. 3A, 4.1.2")
    return _reload(old, checked, features, memory, (old.cr0 ^ value) & _PDPTE_CR0)


def mov_cr3(old: Registers, value: int, features: Features, memory: Words) -> Change:
    """MOV to CR3. With CR4.PCIDE = 1 bit 63 asks for no flush and is not stored (SDM vol. 3A, 4.10.4.1)."""
    stored = value & ~CR3_NO_FLUSH if _long(old) and old.cr4 & CR4.PCIDE else value
    new = msgspec.structs.replace(old, cr3=stored)
    checked = _check(CR3_ROWS, old, new, features, "SDM vol. 3A, 4.5.2, table of CR3")
    return _reload(old, checked, features, memory, True)


def mov_cr4(old: Registers, value: int, features: Features, memory: Words) -> Change:
    """MOV to CR4. LA57 and PAE are locked in long mode; PCIDE going to 0 leaves PCID 0 (SDM vol. 3A, 4.10.1)."""
    drops_pcid = old.cr4 & CR4.PCIDE and not value & CR4.PCIDE
    new = msgspec.structs.replace(old, cr4=value, cr3=old.cr3 & ~mask(11, 0) if drops_pcid else old.cr3)
    checked = _check(CR4_ROWS, old, new, features, "SDM vol. 2B, MOV to control registers; vol. 3A, 4.1.2")
    return _reload(old, checked, features, memory, (old.cr4 ^ value) & _PDPTE_CR4)


def wrmsr_efer(old: Registers, value: int, features: Features) -> Change:
    """WRMSR to EFER. LMA is read-only: what is written there is ignored (APM vol. 2, 3.1.7)."""
    kept = value & ~EFER.LMA | old.efer & EFER.LMA
    new = msgspec.structs.replace(old, efer=int(kept))
    return _check(EFER_ROWS, old, new, features, "APM vol. 2, 3.1.7; SDM vol. 3A, 2.2.1")
