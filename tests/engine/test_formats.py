"""The formats against the manuals' tables: geometry, which bits are reserved, what an entry points at, and decoding."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.arch import formats
from engine.arch.bits import bit, mask
from engine.arch.formats import EntryFormat, Format, Role, Setting, decode
from tests.conftest import scaled

ALL = (formats.LEGACY, formats.PAE, formats.LEVEL4, formats.LEVEL5, formats.EPT4, formats.EPT5)
ENTRIES = [
    (fmt, entry)
    for fmt in ALL
    for level in fmt.levels
    for entry in (level.table, level.page)
    if entry is not None
]  # fmt: skip
IDS = [f"{fmt.name} {entry.name}" for fmt, entry in ENTRIES]
few = settings(max_examples=scaled(600))
"""For properties that are tried with every kind of entry."""
any_setting = st.builds(
    Setting,
    maxphyaddr=st.integers(32, 52),
    nxe=st.booleans(),
    pse=st.booleans(),
    pse36=st.booleans(),
    page1gb=st.booleans(),
    page2mb=st.booleans(),
    amd_bit8=st.booleans(),
    keys=st.booleans(),
    execute_only=st.booleans(),
    mbec=st.booleans(),
    accessed_dirty=st.booleans(),
)


# --- geometry: mode, level, name, lowest index bit, index bits, log2 of the page it may map (0: none)

GEOMETRY = [
    ("32-bit", 2, "PD", 22, 10, 22),
    ("32-bit", 1, "PT", 12, 10, 12),
    ("PAE", 3, "PDPT", 30, 2, 0),
    ("PAE", 2, "PD", 21, 9, 21),
    ("PAE", 1, "PT", 12, 9, 12),
    ("5-level", 5, "PML5", 48, 9, 0),
    *(
        (mode, *row)
        for mode in ("4-level", "5-level", "4-level EPT", "5-level EPT")
        for row in ((4, "PML4", 39, 9, 0), (3, "PDPT", 30, 9, 30), (2, "PD", 21, 9, 21), (1, "PT", 12, 9, 12))
    ),
    ("5-level EPT", 5, "PML5", 48, 9, 0),
]


def test_the_geometry_is_that_of_the_manuals() -> None:
    built = {
        (fmt.name, lv.level, lv.name, lv.shift, lv.bits, lv.page.page_shift if lv.page else 0)
        for fmt in ALL
        for lv in fmt.levels
    }
    assert built == set(GEOMETRY)


@pytest.mark.parametrize("fmt", ALL, ids=lambda fmt: fmt.name)
def test_levels_translate_every_bit_of_an_address_above_the_page(fmt: Format) -> None:
    assert sum(level.bits for level in fmt.levels) + 12 == fmt.width
    for upper, lower in zip(fmt.levels, fmt.levels[1:], strict=False):
        assert upper.shift == lower.shift + lower.bits
        assert upper.level == lower.level + 1


# --- fields


@pytest.mark.parametrize(("fmt", "entry"), ENTRIES, ids=IDS)
def test_every_bit_of_an_entry_belongs_to_one_field(fmt: Format, entry: EntryFormat) -> None:
    bits = [n for field in entry.fields for n in range(field.lo, field.hi + 1)]
    assert bits == list(range(fmt.entry_bytes * 8))


@pytest.mark.parametrize(("fmt", "entry"), ENTRIES, ids=IDS)
def test_what_is_called_reserved_is_reserved(fmt: Format, entry: EntryFormat) -> None:
    """Under the strictest setting every bit of a field named reserved must be 0."""
    strict = Setting(maxphyaddr=32, pse36=False)
    named = sum(field.mask for field in entry.fields if field.role is Role.RESERVED)
    assert named & ~entry.reserved_bits(strict) == 0


# --- reserved bits, as the manuals' tables have them: H is bits 51:M, X is bit 63 without NXE


def H(s: Setting) -> int:
    return mask(51, s.maxphyaddr)


def X(s: Setting) -> int:
    return 0 if s.nxe else bit(63)


def top_entry(s: Setting) -> int:
    return H(s) | X(s) | bit(7) | (bit(8) if s.amd_bit8 else 0)


def page_1gib(s: Setting) -> int:
    return H(s) | X(s) | mask(29, 13) | (0 if s.page1gb else bit(7))


PAE_HIGH = mask(62, 52)
RESERVED = [  # format, level, of an entry that points at a table, of one that maps a page
    ("32-bit", 2, lambda s: 0,
     lambda s: mask(21, min(40, s.maxphyaddr) - 19) if s.pse36 else mask(21, 13)),
    ("32-bit", 1, None, lambda s: 0),
    ("PAE", 3, lambda s: mask(63, s.maxphyaddr) | 0x1E6, None),
    ("PAE", 2, lambda s: H(s) | X(s) | PAE_HIGH, lambda s: H(s) | X(s) | PAE_HIGH | mask(20, 13)),
    ("PAE", 1, None, lambda s: H(s) | X(s) | PAE_HIGH),
    *(row for mode in ("4-level", "5-level") for row in (
        (mode, 4, top_entry, None),
        (mode, 3, lambda s: H(s) | X(s), page_1gib),
        (mode, 2, lambda s: H(s) | X(s), lambda s: H(s) | X(s) | mask(20, 13)),
        (mode, 1, None, lambda s: H(s) | X(s)),
    )),
    ("5-level", 5, top_entry, None),
    *(row for mode in ("4-level EPT", "5-level EPT") for row in (
        (mode, 4, lambda s: H(s) | mask(7, 3), None),
        (mode, 3, lambda s: H(s) | mask(6, 3), lambda s: H(s) | mask(29, 12) | (0 if s.page1gb else bit(7))),
        (mode, 2, lambda s: H(s) | mask(6, 3), lambda s: H(s) | mask(20, 12) | (0 if s.page2mb else bit(7))),
        (mode, 1, None, H),
    )),
    ("5-level EPT", 5, lambda s: H(s) | mask(7, 3), None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "level", "table", "page"), RESERVED, ids=[f"{r[0]} level {r[1]}" for r in RESERVED])
@few
@given(setting=any_setting)
def test_reserved_bits(name, level, table, page, setting):
    fmt = next(fmt for fmt in ALL if fmt.name == name)
    at = next(lv for lv in fmt.levels if lv.level == level)
    for entry, bits in ((at.table, table), (at.page, page)):
        assert (entry is None) == (bits is None)
        if entry is not None:
            assert entry.reserved_bits(setting) == bits(setting)


# EPT misconfigurations beside reserved bits: low bits of an entry, mode-based execute, execute-only, is it illegal?
MISCONFIGURED = [
    ("W without R", 0b010, False, True, True),
    ("W and X without R", 0b110, False, True, True),
    ("X alone, execute-only supported", 0b100, False, True, False),
    ("X alone, not supported", 0b100, False, False, True),
    ("XU alone, mode-based, not supported", 0x400, True, False, True),
    ("XU alone, mode-based, supported", 0x400, True, True, False),
    ("XU alone is ignored without mode-based execute", 0x400, False, False, False),
    ("R", 0b001, False, False, False),
    ("R W X", 0b111, False, False, False),
    *((f"memory type {n}", n << 3 | 7, False, True, n in (2, 3, 7)) for n in range(8)),
]


@pytest.mark.parametrize(("value", "mbec", "execute_only", "illegal"), [r[1:] for r in MISCONFIGURED],
                         ids=[r[0] for r in MISCONFIGURED])  # fmt: skip
def test_ept_misconfigurations(value: int, mbec: bool, execute_only: bool, illegal: bool) -> None:
    setting = Setting(mbec=mbec, execute_only=execute_only)
    page = formats.EPT4.levels[-1].page
    assert page is not None
    broken = [rule.why for rule in page.illegal if rule.when(setting) and value & rule.mask == rule.value]
    assert bool(broken) == illegal, broken


# --- what maps a page, and where


@pytest.mark.parametrize("pse", [False, True])
def test_ps_of_a_32_bit_pde_counts_with_pse_only(pse: bool) -> None:
    assert formats.LEGACY.levels[0].leaf(Setting(pse=pse)) == (bit(7) if pse else 0)


def test_ps_of_a_pae_pde_counts_whatever_pse_says() -> None:
    assert formats.PAE.levels[1].leaf(Setting(pse=False)) == bit(7)


@given(entry=st.integers(0, 2**32 - 1))
def test_a_4_mib_page_has_its_address_in_two_fields(entry: int) -> None:
    page = formats.LEGACY.levels[0].page
    assert page is not None
    assert page.base(entry) == (entry & 0xFFC0_0000) | ((entry >> 13) & 0xFF) << 32


@pytest.mark.parametrize(("fmt", "entry"), ENTRIES, ids=IDS)
def test_an_entry_points_at_an_aligned_address_whatever_its_other_bits_are(fmt: Format, entry: EntryFormat) -> None:
    everything = (1 << fmt.entry_bytes * 8) - 1
    base = entry.base(everything)
    assert base & mask((entry.page_shift or 12) - 1, 0) == 0
    assert base < 1 << 52
    assert entry.base(everything & ~(entry.address | entry.high)) == 0


# --- decoding


@pytest.mark.parametrize(("fmt", "entry"), ENTRIES, ids=IDS)
@few
@given(value=st.integers(0, 2**64 - 1), setting=any_setting)
def test_decoded_fields_are_the_whole_entry(fmt, entry, value, setting):
    value &= (1 << fmt.entry_bytes * 8) - 1
    fields = decode(entry, value, setting)
    assert sum(field.value << field.lo for field in fields) == value
    assert [(field.lo, field.hi) for field in fields] == sorted((field.lo, field.hi) for field in fields)


@pytest.mark.parametrize(("fmt", "entry"), ENTRIES, ids=IDS)
@few
@given(value=st.integers(0, 2**64 - 1), setting=any_setting)
def test_every_reserved_bit_that_is_set_is_named_with_its_rule(fmt, entry, value, setting):
    value &= (1 << fmt.entry_bytes * 8) - 1
    offending = value & entry.reserved_bits(setting)
    blamed = sum(
        field.value << field.lo for field in decode(entry, value, setting) if field.role is Role.RESERVED and field.why
    )
    assert offending & ~blamed == 0
    assert bool(blamed) == bool(offending)


def test_the_address_field_ends_at_the_cpus_width() -> None:
    fields = decode(formats.PTE, bit(46) | 0x1000, Setting(maxphyaddr=46, nxe=True))
    (address,) = (field for field in fields if field.role is Role.ADDRESS)
    above = next(field for field in fields if field.lo == 46)
    assert (address.hi, address.lo, address.value) == (45, 12, 1)
    assert (above.hi, above.role, above.why) == (51, Role.RESERVED, "bits 51:MAXPHYADDR must be 0")


@pytest.mark.parametrize(("keys", "meaning"), [(True, "protection key 5"), (False, "ignored: protection keys are off")])
def test_a_protection_key_tells_whether_it_counts(keys: bool, meaning: str) -> None:
    fields = decode(formats.PTE, 5 << 59, Setting(keys=keys, nxe=True))
    assert next(field.meaning for field in fields if field.role is Role.KEY) == meaning
