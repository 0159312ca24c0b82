"""Registers: the mode they select, what a write does beside its value, and which writes raise #GP.

The examples of the reference are in test_worked_examples.py; these are the rules one by one.
"""

import pytest

from engine.arch.bits import bit
from engine.arch.faults import GeneralProtection, Unknown
from engine.arch.registers import (
    CR0,
    CR3_LAM_U48,
    CR3_LAM_U57,
    CR4,
    EFER,
    Features,
    Mode,
    Registers,
    Vendor,
    load_pdptes,
    mov_cr0,
    mov_cr3,
    mov_cr4,
    with_pdptes,
    wrmsr_efer,
)
from engine.memory.physical import UNKNOWN, ZERO, SparseMemory

EMPTY = SparseMemory(ZERO)
ANY = Features()
AMD = Features(vendor=Vendor.AMD)
ON = CR0.PE | CR0.WP | CR0.PG
LONG = Registers(cr0=ON, cr3=0x1000, cr4=CR4.PAE, efer=EFER.LME | EFER.LMA, cs_l=True)
PAE = Registers(cr0=ON, cr3=0x1020, cr4=CR4.PAE)
PROTECTED = Registers(cr0=CR0.PE)
PDPTES = (0x5001, 0x6001, 0, 0x8001)
WITH_PDPT = EMPTY.with_words({0x1020 + 8 * n: entry for n, entry in enumerate(PDPTES)})


def replaced(registers: Registers, **values: object) -> Registers:
    return Registers(**{name: getattr(registers, name) for name in Registers.__struct_fields__} | values)


# --- modes


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "mode"),
    [
        (0, CR4.PAE | CR4.LA57, EFER.LME, Mode.NONE),
        (CR0.PE, 0, 0, Mode.NONE),
        (ON, 0, 0, Mode.LEGACY),
        (ON, CR4.LA57 | CR4.PSE, EFER.NXE, Mode.LEGACY),
        (ON, CR4.PAE, 0, Mode.PAE),
        (ON, CR4.PAE | CR4.LA57, EFER.NXE, Mode.PAE),
        (ON, CR4.PAE, EFER.LME | EFER.LMA, Mode.LEVEL4),
        (ON, CR4.PAE | CR4.LA57, EFER.LME | EFER.LMA, Mode.LEVEL5),
    ],
)
def test_pg_pae_lma_and_la57_select_the_mode(cr0: int, cr4: int, efer: int, mode: Mode) -> None:
    assert Registers(cr0=cr0, cr4=cr4, efer=efer).mode is mode


@pytest.mark.parametrize(
    "values", [{"cr3": 1 << 64}, {"cr0": -1}, {"pkru": 1 << 64}, {"cpl": 4}, {"cpl": -1}, {"rflags": -2}], ids=str
)
def test_a_register_out_of_its_range_is_misuse(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Registers(**values)


@pytest.mark.parametrize("width", [31, 53])
def test_a_physical_address_width_that_no_cpu_has_is_misuse(width: int) -> None:
    with pytest.raises(ValueError, match="must be 32"):
        Features(maxphyaddr=width)


# --- effects of legal writes


def test_setting_pg_with_lme_enters_long_mode() -> None:
    before = replaced(PROTECTED, cr4=CR4.PAE, efer=EFER.LME)
    after = mov_cr0(before, ON, ANY, EMPTY)
    assert isinstance(after, Registers)
    assert (after.mode, after.efer) == (Mode.LEVEL4, EFER.LME | EFER.LMA)


def test_clearing_pg_leaves_long_mode() -> None:
    after = mov_cr0(replaced(LONG, cs_l=False), CR0.PE, ANY, EMPTY)
    assert isinstance(after, Registers)
    assert (after.mode, after.efer) == (Mode.NONE, EFER.LME)


def test_from_4_to_5_levels_leads_through_paging_off() -> None:
    state = mov_cr0(replaced(LONG, cs_l=False), CR0.PE, ANY, EMPTY)
    assert isinstance(state, Registers)
    state = mov_cr4(state, CR4.PAE | CR4.LA57, ANY, EMPTY)
    assert isinstance(state, Registers)
    state = mov_cr3(state, 0x7000, ANY, EMPTY)
    assert isinstance(state, Registers)
    state = mov_cr0(state, ON, ANY, EMPTY)
    assert isinstance(state, Registers)
    assert (state.mode, state.cr3) == (Mode.LEVEL5, 0x7000)


def test_pcide_going_to_0_leaves_pcid_0() -> None:
    after = mov_cr4(replaced(LONG, cr4=CR4.PAE | CR4.PCIDE, cr3=0x1ABC), CR4.PAE, ANY, EMPTY)
    assert isinstance(after, Registers)
    assert after.cr3 == 0x1000


def test_lma_cannot_be_written() -> None:
    assert wrmsr_efer(PROTECTED, EFER.LMA | EFER.NXE, ANY) == replaced(PROTECTED, efer=EFER.NXE)
    assert wrmsr_efer(LONG, EFER.LME | EFER.NXE, ANY) == replaced(LONG, efer=EFER.LME | EFER.LMA | EFER.NXE)


@pytest.mark.parametrize("lam", [CR3_LAM_U48, CR3_LAM_U57, CR3_LAM_U48 | CR3_LAM_U57])
def test_lam_in_cr3_is_intels(lam: int) -> None:
    assert mov_cr3(LONG, 0x1000 | lam, ANY, EMPTY) == replaced(LONG, cr3=0x1000 | lam)
    assert isinstance(mov_cr3(LONG, 0x1000 | lam, AMD, EMPTY), GeneralProtection)


def test_low_and_high_bits_of_cr3_are_ignored_outside_long_mode() -> None:
    legacy = Registers(cr0=ON)
    assert mov_cr3(legacy, 0xFFFF_FFFF, ANY, EMPTY) == replaced(legacy, cr3=0xFFFF_FFFF)


# --- the PDPTE registers


@pytest.mark.parametrize(
    "write",
    [
        lambda r: mov_cr3(r, 0x1020, ANY, WITH_PDPT),
        lambda r: mov_cr0(replaced(r, cr0=CR0.PE), ON, ANY, WITH_PDPT),
        lambda r: mov_cr0(r, ON | CR0.CD, ANY, WITH_PDPT),
        lambda r: mov_cr0(r, ON | CR0.CD | CR0.NW, ANY, WITH_PDPT),
        *(lambda r, flag=flag: mov_cr4(r, r.cr4 | flag, ANY, WITH_PDPT) for flag in (CR4.PGE, CR4.PSE, CR4.SMEP)),
        lambda r: mov_cr4(replaced(r, cr4=0), CR4.PAE, ANY, WITH_PDPT),
    ],
    ids=["CR3", "PG", "CD", "NW", "PGE", "PSE", "SMEP", "PAE"],
)
def test_writes_that_load_the_pdptes(write):
    after = write(replaced(PAE, pdptes=(0, 0, 0, 0)))
    assert isinstance(after, Registers)
    assert after.pdptes == PDPTES


@pytest.mark.parametrize(
    "write",
    [
        lambda r: mov_cr0(r, ON & ~CR0.WP, ANY, WITH_PDPT),
        lambda r: mov_cr4(r, CR4.PAE | CR4.SMAP, ANY, WITH_PDPT),
    ],
    ids=["WP", "SMAP"],
)
def test_writes_that_keep_the_pdptes(write):
    after = write(replaced(PAE, pdptes=(0x9001, 0, 0, 0)))
    assert isinstance(after, Registers)
    assert after.pdptes == (0x9001, 0, 0, 0)


def test_long_mode_and_amd_have_no_pdpte_registers() -> None:
    held = replaced(PAE, pdptes=PDPTES)
    for after in (mov_cr3(held, 0x1020, AMD, WITH_PDPT), mov_cr0(held, CR0.PE, ANY, WITH_PDPT)):
        assert isinstance(after, Registers)
        assert after.pdptes is None


@pytest.mark.parametrize("width", [36, 40, 52])
@pytest.mark.parametrize("at", [1, 2, 5, 6, 7, 8, 36, 40, 51, 52, 63])
def test_the_bits_that_a_present_pdpte_may_not_have(at: int, width: int) -> None:
    memory = EMPTY.with_words({0x1020: 0x5001 | bit(at), 0x1028: bit(at)})
    loaded = load_pdptes(memory, 0x1020, Features(maxphyaddr=width))
    if at >= width or at <= 8:
        assert isinstance(loaded, GeneralProtection)
        assert (loaded.when, loaded.reason) == ("pdpte load", f"PDPTE 0 has reserved bits set: {at}")
    else:
        assert loaded == (0x5001 | bit(at), bit(at), 0, 0)


def test_pdptes_are_read_at_a_32_byte_boundary() -> None:
    assert load_pdptes(WITH_PDPT, 0x1020 | 0x1F | bit(40), ANY) == PDPTES


def test_pdptes_that_are_not_in_the_memory_are_unknown() -> None:
    memory = SparseMemory(UNKNOWN).write(0x1020, bytes(16))
    assert load_pdptes(memory, 0x1020, ANY) == Unknown(0x1030)
    assert mov_cr3(PAE, 0x1020, ANY, memory) == Unknown(0x1030)


def test_a_processor_that_runs_holds_what_is_in_memory_unchecked() -> None:
    """QEMU sets bit 5 of the PDPTEs it uses, which no load would accept."""
    memory = EMPTY.with_words({0x1020 + 8 * n: entry | bit(5) for n, entry in enumerate(PDPTES)})
    assert isinstance(load_pdptes(memory, PAE.cr3, ANY), GeneralProtection)
    assert with_pdptes(PAE, memory) == replaced(PAE, pdptes=tuple(entry | bit(5) for entry in PDPTES))


def test_pdptes_stay_as_they_are_where_they_are_loaded_or_unknown_or_not_used() -> None:
    loaded = replaced(PAE, pdptes=(1, 2, 3, 4))
    assert with_pdptes(loaded, WITH_PDPT) == loaded
    assert with_pdptes(PAE, SparseMemory(UNKNOWN).write(0x1020, bytes(24))) == PAE
    assert with_pdptes(LONG, WITH_PDPT) == LONG


# --- writes that raise #GP: state, write, part of the reason

COMPATIBILITY = replaced(LONG, cs_l=False)
REFUSED = [
    ("CR0 above bit 31", lambda: mov_cr0(PROTECTED, bit(32) | CR0.PE, ANY, EMPTY), "63:32"),
    ("PG without PE", lambda: mov_cr0(Registers(), CR0.PG, ANY, EMPTY), "CR0.PE"),
    ("NW without CD", lambda: mov_cr0(PROTECTED, CR0.PE | CR0.NW, ANY, EMPTY), "CR0.CD"),
    ("PG with LME while CS.L", lambda: mov_cr0(
        replaced(PROTECTED, cr4=CR4.PAE, efer=EFER.LME, cs_l=True), ON, ANY, EMPTY), "CS.L"),
    ("PG cleared in 64-bit mode", lambda: mov_cr0(LONG, CR0.PE, ANY, EMPTY), "64-bit mode"),
    ("PG loads a bad PDPTE", lambda: mov_cr0(
        replaced(PAE, cr0=CR0.PE), ON, ANY, EMPTY.with_words({0x1020: 0x5003})), "PDPTE 0"),
    ("CR3 at MAXPHYADDR", lambda: mov_cr3(LONG, bit(40), Features(maxphyaddr=40), EMPTY), "CR3"),
    ("CR3 bits 60:52", lambda: mov_cr3(LONG, bit(52), ANY, EMPTY), "CR3"),
    ("a bit of CR4 that does not exist", lambda: mov_cr4(LONG, CR4.PAE | bit(15), ANY, EMPTY), "CR4"),
    ("SMEP on a CPU without it", lambda: mov_cr4(LONG, CR4.PAE | CR4.SMEP, Features(smep=False), EMPTY), "support"),
    ("LA57 on a CPU without it", lambda: mov_cr4(PROTECTED, CR4.LA57, Features(la57=False), EMPTY), "support"),
    ("LA57 in compatibility mode", lambda: mov_cr4(COMPATIBILITY, CR4.PAE | CR4.LA57, ANY, EMPTY), "LA57"),
    ("a bit of EFER that does not exist", lambda: wrmsr_efer(PROTECTED, bit(1), ANY), "EFER"),
    ("NXE on a CPU without NX", lambda: wrmsr_efer(PROTECTED, EFER.NXE, Features(nx=False)), "NXE"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_write_that_raises_gp_says_why(write, reason):
    result = write()
    assert isinstance(result, GeneralProtection)
    assert reason in result.reason
    assert "vol." in result.basis.reference


@pytest.mark.parametrize("feature", ["la57", "pcid", "smep", "smap", "pku", "pks", "cet", "lass", "lam"])
def test_each_bit_of_cr4_that_needs_a_feature(feature: str) -> None:
    flag = {"pcid": CR4.PCIDE, "pku": CR4.PKE, "lam": CR4.LAM_SUP}.get(feature) or CR4[feature.upper()]
    state = LONG if feature == "pcid" else replaced(PROTECTED, cr0=CR0.PE | CR0.WP)
    value = state.cr4 | flag
    assert isinstance(mov_cr4(state, value, ANY, EMPTY), Registers)
    assert isinstance(mov_cr4(state, value, Features(**{feature: False}), EMPTY), GeneralProtection)
