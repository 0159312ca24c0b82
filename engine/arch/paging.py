"""A paging format bound to registers: the masks and shifts that a walk needs, worked out once.

`Paging` is what both walkers take. It is a pure function of registers, features and rules, so `bind` caches it.
"""

from functools import lru_cache

import msgspec

from engine.arch import formats
from engine.arch.bits import bit, mask
from engine.arch.formats import Format, Illegal, LevelFormat, Setting
from engine.arch.registers import CR3_LAM_U48, CR3_LAM_U57, CR4, EFER, Features, Mode, Registers, Vendor
from engine.arch.rules import DEFAULT, Rules

BY_MODE: dict[Mode, Format] = {
    Mode.LEGACY: formats.LEGACY,
    Mode.PAE: formats.PAE,
    Mode.LEVEL4: formats.LEVEL4,
    Mode.LEVEL5: formats.LEVEL5,
}


class Level(msgspec.Struct, frozen=True):
    """One level, bound. An entry is absent where ``entry & present == 0``, a leaf where ``entry & leaf != 0``.

    ``entry_shift``: log2 of an entry's bytes. ``*_reserved``: bits that must be 0. ``*_address``: bits that are the
    next table's or the page's address; of a page also ``high`` bits, moved up by ``high_shift``. ``neutral``: bits
    that the entry leaves alone when rights are combined by AND (all, for a PAE PDPTE).
    """

    level: int
    shift: int
    index_mask: int
    entry_shift: int
    present: int
    leaf: int
    table_reserved: int
    page_reserved: int
    table_address: int
    page_address: int
    high: int
    high_shift: int
    page_shift: int
    accessed: int
    dirty: int
    neutral: int
    table_illegal: tuple[Illegal, ...]
    page_illegal: tuple[Illegal, ...]
    format: LevelFormat
    setting: Setting
    hot: tuple[int, int, int, int, int, int, int, int, int, bool, int, int] = (0,) * 9 + (False, 0, 0)
    """What a walk reads at every level, together: unpacking a tuple costs a fraction of as many attribute reads."""

    def __post_init__(self) -> None:
        hot = (
            self.level, self.shift, self.index_mask, self.entry_shift, self.present, self.leaf, self.neutral,
            self.table_reserved, self.page_reserved, bool(self.table_illegal or self.page_illegal), self.table_address,
            self.accessed,
        )  # fmt: skip
        msgspec.structs.force_setattr(self, "hot", hot)

    @property
    def name(self) -> str:
        return self.format.name

    @property
    def entries(self) -> int:
        """Slots of a table of this level."""
        return self.index_mask + 1

    @property
    def span(self) -> int:
        """Bytes of address space that one entry covers."""
        return 1 << self.shift


class Paging(msgspec.Struct, frozen=True, cache_hash=True):
    """One stage of translation, ready to walk. ``format`` and ``levels`` are empty where paging is off.

    ``root``: physical byte address of the top table. ``pdptes``: the PDPTE registers; None where the mode has none or
    they are read from memory. ``width``: bits of an input address that are translated. ``linear``: inputs are linear
    addresses (canonical form, LAM, LASS apply), not guest-physical ones.
    """

    mode: Mode
    format: Format | None
    root: int
    levels: tuple[Level, ...]
    registers: Registers
    features: Features
    rules: Rules
    setting: Setting
    width: int
    linear: bool = True
    low_end: int = 0
    high_start: int = 1 << 64
    """Linear addresses below the one and from the other on need no check of their form: the two halves, or 32 bits."""
    pdptes_from_memory: bool = False
    """The top level of PAE is an ordinary level in memory (AMD under nested paging), not four registers."""

    @property
    def pdptes_are_registers(self) -> bool:
        """The top level of PAE is four registers, not a table that each walk reads."""
        return self.mode is Mode.PAE and not self.pdptes_from_memory

    def level(self, number: int) -> Level:
        return next(lv for lv in self.levels if lv.level == number)

    @property
    def name(self) -> str:
        return self.format.name if self.format else "no paging"


@lru_cache(maxsize=1024)
def bind_levels(fmt: Format, setting: Setting) -> tuple[Level, ...]:
    """The levels of ``fmt`` under ``setting``, from the root down."""
    present, accessed, dirty = fmt.present(setting), fmt.accessed(setting), fmt.dirty(setting)

    def bind_one(lv: LevelFormat) -> Level:
        table, page = lv.table, lv.page

        def illegal(entry: formats.EntryFormat | None) -> tuple[Illegal, ...]:
            return tuple(rule for rule in entry.illegal if rule.when(setting)) if entry else ()

        return Level(
            level=lv.level,
            shift=lv.shift,
            index_mask=(1 << lv.bits) - 1,
            entry_shift=3 if fmt.entry_bytes == 8 else 2,
            present=present,
            leaf=lv.leaf(setting),
            table_reserved=table.reserved_bits(setting) if table else 0,
            page_reserved=page.reserved_bits(setting) if page else 0,
            table_address=table.address if table else 0,
            page_address=page.address if page else 0,
            high=page.high if page else 0,
            high_shift=page.high_shift if page else 0,
            page_shift=page.page_shift if page else 0,
            accessed=0 if lv.neutral else accessed,
            dirty=dirty,
            neutral=-1 if lv.neutral else 0,
            table_illegal=illegal(table),
            page_illegal=illegal(page),
            format=lv,
            setting=setting,
        )

    return tuple(bind_one(lv) for lv in fmt.levels)


@lru_cache(maxsize=4096)
def bind(
    registers: Registers, features: Features, rules: Rules = DEFAULT, *, pdptes_from_memory: bool = False
) -> Paging:
    """One-stage paging as ``registers`` select it.

    ``pdptes_from_memory``: PAE reads its PDPTEs in each walk, as AMD does under nested paging (APM vol. 2, 15.25.10).
    """
    mode = registers.mode
    setting = Setting(
        maxphyaddr=features.maxphyaddr,
        nxe=bool(registers.efer & EFER.NXE) and mode is not Mode.LEGACY,
        pse=bool(registers.cr4 & CR4.PSE),
        pse36=features.pse36,
        page1gb=features.page1gb,
        amd_bit8=features.vendor is Vendor.AMD and rules.amd_bit8,
        keys=mode.is_long and bool(registers.cr4 & (CR4.PKE | CR4.PKS)),
    )
    fmt = BY_MODE.get(mode)
    half = 1 << (fmt.width - 1 if fmt and mode.is_long else 32)
    if mode.is_long and registers.cr4 & CR4.LASS:
        half = 0  # LASS looks at every address
    elif mode.is_long and (registers.cr3 & (CR3_LAM_U48 | CR3_LAM_U57) or registers.cr4 & CR4.LAM_SUP):
        half = 1 << 47  # LAM48 changes what lies between, under 5-level paging
    return Paging(
        mode=mode,
        format=fmt,
        root=registers.cr3 & fmt.root & mask(features.maxphyaddr - 1, 0) if fmt else 0,
        levels=bind_levels(fmt, setting) if fmt else (),
        registers=registers,
        features=features,
        rules=rules,
        setting=setting,
        width=fmt.width if fmt else 32,
        low_end=half,
        high_start=(1 << 64) - half if mode.is_long and half else 1 << 64,
        pdptes_from_memory=pdptes_from_memory,
    )


LAM_SUP = int(CR4.LAM_SUP)  # plain numbers: arithmetic with flags of an enumeration is slow


def unmask_lam(paging: Paging, address: int) -> int:
    """``address`` with its LAM metadata bits replaced, as data accesses see it (SDM vol. 3A, LAM)."""
    r = paging.registers
    if address & bit(63):
        if not r.cr4 & LAM_SUP:
            return address
        low = 57 if paging.mode is Mode.LEVEL5 else 48
    elif r.cr3 & CR3_LAM_U57:
        low = 57
    elif r.cr3 & CR3_LAM_U48:
        low = 48
    else:
        return address
    metadata = mask(62, low)
    return address | metadata if address & bit(low - 1) else address & ~metadata
