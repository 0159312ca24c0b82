"""The worked examples of the reference's section 10.2 (F: EPT, G: NPT) and its reference counts (10.4, section 11)."""

import pytest

from engine.arch.faults import EptMisconfiguration, EptViolation, NestedPageFault, PageFault, Translated
from engine.arch.formats import EPT4, EPT5, LEGACY, LEVEL4, LEVEL5, PAE
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.second_stage import SecondStage, ept, npt
from engine.memory.physical import ZERO, SparseMemory
from engine.memory.tables import Range, frames_from, map_ranges
from tests.engine.nested_fixture import LA, LONG, PG, guest, pt, walk_ept, walk_npt

NO_PAGING = {"cr0": int(CR0.PE | CR0.WP), "efer": 0, "cr4": 0}
PAE_GUEST = {"cr4": int(CR4.PAE), "efer": int(EFER.NXE), "pdptes": (0, 0x3001, 0, 0)}


def pa(address):
    return ("PA", address)


def violation(qualification, gpa):
    return ("EPT violation", qualification, gpa, LA)


def misconfig(gpa):
    return ("EPT misconfig", gpa)


def npf(exitinfo1, exitinfo2):
    return ("#NPF", exitinfo1, exitinfo2)


def pf(code, cr2=LA):
    return ("#PF", code, cr2)


def seen(outcome):
    match outcome:
        case Translated():
            return pa(outcome.address)
        case EptViolation():
            return ("EPT violation", outcome.qualification, outcome.gpa, outcome.gla)
        case EptMisconfiguration():
            return misconfig(outcome.gpa)
        case NestedPageFault():
            return npf(outcome.exitinfo1, outcome.exitinfo2)
        case PageFault():
            return pf(outcome.error_code, outcome.cr2)
    raise AssertionError(outcome)


SMALL_LA = {"address": 0x5678}
# id, changed words, access, CPL, options, expected, references
EPT_ROWS = [
    ("F1", {}, "r", 3, {}, pa(0x205890), 24),
    ("F2", {pt(1): 0x201035}, "w", 3, {}, violation(0xAB, 0x17F0), 4),
    ("F3", {pt(1): 0x201035}, "r", 3, {"ad": False}, pa(0x205890), 24),
    ("F4", {guest(0x4B38): 0x5047, pt(4): 0x204035}, "r", 3, {"ad": False}, violation(0xAB, 0x4B38), 20),
    ("F5", {pt(5): 0x205035}, "w", 3, {}, violation(0x1AA, 0x5890), 24),
    ("F6", {pt(5): 0x205033}, "x", 3, {}, violation(0x19C, 0x5890), 24),
    ("F7", {pt(5): 0x205034}, "r", 3, {}, violation(0x1A1, 0x5890), 24),
    ("F8", {pt(5): 0x205034}, "r", 3, {"execute_only": False}, misconfig(0x5890), 24),
    ("F9", {pt(5): 0x205032}, "r", 3, {}, misconfig(0x5890), 24),
    ("F10", {pt(5): 0x205017}, "r", 3, {}, misconfig(0x5890), 24),
    ("F11", {0x102000: 0x2010B7}, "r", 3, {}, misconfig(0x17F0), 3),
    ("F12", {0x100000: 0x101087}, "r", 3, {}, misconfig(0x17F0), 1),
    ("F13", {pt(3): 0}, "r", 3, {}, violation(0x83, 0x3D10), 14),
    ("F14", {guest(0x4B38): 0x1000000005067}, "r", 3, {}, violation(0x181, 0x1000000005890), 20),
    ("F15", {guest(0x4B38): 0x5065, pt(5): 0}, "w", 3, {}, pf(7), 20),
    ("F16", {guest(0x4B38): 0x5005, pt(4): 0x204035}, "w", 3, {"ad": False}, pf(7), 20),
    ("F17", {}, "r", 3, {"guest_registers": NO_PAGING, **SMALL_LA}, pa(0x205678), 4),
    ("F18", {}, "x", 3, {"mbec": True}, violation(0x1BC, 0x5890), 24),
    ("F19", {pt(5): 0x205035}, "w", 3, {"advanced_info": True}, violation(0x7AA, 0x5890), 24),
    ("F20", {}, "r", 3, {"levels": 5}, pa(0x205890), 29),
    ("F21", {}, "r", 3, {"guest_registers": PAE_GUEST, "address": 0x74567890}, pa(0x205890), 14),
    ("F22", {guest(0x3D10): 0xE7}, "r", 3, {"address": 0x7F1234405890}, pa(0x205890), 19),
    ("F23", {0x102000: 0x2000B7}, "r", 3, {}, pa(0x205890), 19),
    ("F24", {guest(0x4B38): 0x5061, pt(5): 0x205035}, "ssw", 0, {"sss": True}, violation(0x21AA, 0x5890), 24),
    ("F25", {guest(0x4B38): 0x5061, pt(5): 0x205035 | 1 << 60}, "ssw", 0, {"sss": True}, pa(0x205890), 24),
]
NX = 1 << 63
FIELD_REPORT = {
    0x8AA3A9C000: 0x8AA3A9D027, 0x8AA3A9D018: 0x8AA3AF9027, 0x8AA3AF9FF8: 0x8AA3AFA027, 0x8AA3AFAFF8: 0x8AA111E025,
}  # fmt: skip
RESET = {"root": 0x8AA3A9C000, "words": FIELD_REPORT, "guest_registers": NO_PAGING, "address": 0xFFFFFFF0}
NO_NXE = {"efer": LONG["efer"] & ~int(EFER.NXE)}
PAE_NPT = {"guest_registers": {"cr4": int(CR4.PAE), "efer": int(EFER.NXE), "cr3": 0x2020}, "address": 0x74567890}
NPT_ROWS = [
    ("G1", {}, "r", 3, {}, pa(0x205890), 24),
    ("G2", {pt(5): 0}, "r", 3, {}, npf(0x100000004, 0x5890), 24),
    ("G3", {pt(5): 0x205065}, "w", 3, {}, npf(0x100000007, 0x5890), 24),
    ("G4", {pt(5): 0x205063}, "r", 0, {}, npf(0x100000005, 0x5890), 24),
    ("G5", {pt(5): NX | 0x205067}, "x", 3, {}, npf(0x100000015, 0x5890), 24),
    ("G6", {pt(1): 0x201065}, "r", 3, {}, npf(0x200000007, 0x17F0), 4),
    ("G7", {pt(2): NX | 0x202067}, "x", 3, {"host": NO_NXE}, npf(0x20000000F, 0x2240), 9),
    ("G8", {pt(5): NX | 0x205067}, "x", 3, {"host": NO_NXE}, npf(0x10000000D, 0x5890), 24),
    ("G9", {0x101000: 0x20E7}, "r", 3, {}, npf(0x20000000F, 0x17F0), 2),
    ("G10", {0x100000: 0x101167}, "r", 3, {}, npf(0x20000000F, 0x17F0), 1),
    ("G11", {guest(0x4B38): 0x5065, pt(5): 0}, "w", 3, {}, pf(7), 20),
    ("G12", {guest(0x4B38): 0x5065, pt(5): 0x205065}, "w", 0, {"guest_registers": {"cr0": PG & ~int(CR0.WP)}},
     npf(0x100000007, 0x5890), 24),
    ("G13", {}, "r", 3, {"levels": 5}, pa(0x205890), 29),
    ("G14", {}, "x", 0, RESET, pa(0x8AA111EFF0), 4),
    ("G15", {}, "x", 0, {**RESET, "levels": 5}, npf(0x100000014, 0xFFFFFFF0), 2),
    ("G16", {}, "x", 0, {"gmet": True}, npf(0x100000011, 0x5890), 24),
    ("G17", {pt(5): 0x205063}, "x", 0, {"gmet": True}, pa(0x205890), 24),
    ("G18", {}, "x", 3, {"gmet": True}, pa(0x205890), 24),
    ("G20", {}, "r", 3, {"guest_registers": NO_PAGING, **SMALL_LA}, pa(0x205678), 4),
    ("G21", {guest(0x2028): 0x3001}, "r", 3, PAE_NPT, pa(0x205890), 19),
    ("G22", {guest(0x2028): 0x3003}, "r", 3, PAE_NPT, pf(0xD, 0x74567890), 5),
]  # fmt: skip


@pytest.mark.parametrize("row", EPT_ROWS, ids=[row[0] for row in EPT_ROWS])
def test_ept(row):
    _, changes, access, cpl, options, expected, references = row
    walk = walk_ept(changes, access, cpl, **options)
    assert (seen(walk.outcome), walk.references) == (expected, references)


@pytest.mark.parametrize("row", NPT_ROWS, ids=[row[0] for row in NPT_ROWS])
def test_npt(row):
    _, changes, access, cpl, options, expected, references = row
    walk = walk_npt(changes, access, cpl, **options)
    assert (seen(walk.outcome), walk.references) == (expected, references)


def test_a_guest_table_is_dirtied_by_its_use_and_the_page_is_only_accessed():
    after = {u.address: u.new for u in walk_ept().updates}
    assert after == {
        0x100000: 0x101107, 0x101000: 0x102107, 0x102000: 0x103107,
        **{pt(i): 0x200337 + i * 0x1000 for i in (1, 2, 3, 4)}, pt(5): 0x205137,
    }  # fmt: skip


def test_nothing_is_written_where_all_flags_are_set_already():
    assert walk_npt().updates == ()


# --- how many references: (g + 1)(n + 1) - 1 and its relatives

GUESTS = {  # mode -> (format, registers, levels read by page size)
    "no paging": (None, NO_PAGING, {4096: 0}),
    "32-bit": (LEGACY, {"cr4": int(CR4.PSE), "efer": 0}, {4096: 2, 4 << 20: 1}),
    "PAE": (PAE, {"cr4": int(CR4.PAE), "efer": int(EFER.NXE)}, {4096: 2, 2 << 20: 1}),
    "4-level": (LEVEL4, {}, {4096: 4, 2 << 20: 3, 1 << 30: 2}),
    "5-level": (LEVEL5, {"cr4": LONG["cr4"] | int(CR4.LA57)}, {4096: 5, 2 << 20: 4, 1 << 30: 3}),
}
NESTED = {
    "4-level NPT": (LEVEL4, {4096: 4, 2 << 20: 3, 1 << 30: 2}),
    "5-level NPT": (LEVEL5, {4096: 5, 2 << 20: 4, 1 << 30: 3}),
    "PAE NPT": (PAE, {4096: 3, 2 << 20: 2}),
    "32-bit NPT": (LEGACY, {4096: 2, 4 << 20: 1}),
    "4-level EPT": (EPT4, {4096: 4, 2 << 20: 3, 1 << 30: 2}),
    "5-level EPT": (EPT5, {4096: 5, 2 << 20: 4, 1 << 30: 3}),
}
HOSTS = {
    "4-level NPT": {}, "5-level NPT": {"cr4": LONG["cr4"] | int(CR4.LA57)},
    "PAE NPT": {"efer": int(EFER.NXE)}, "32-bit NPT": {"efer": 0, "cr4": int(CR4.PSE)},
}  # fmt: skip
CASES = [
    (mode, size, nested, nested_size)
    for mode, (_, _, sizes) in GUESTS.items()
    for size in sizes
    for nested, (_, nested_sizes) in NESTED.items()
    for nested_size in nested_sizes
]


def counted(mode, size, nested, nested_size):
    """A walk of one page of ``size`` mapped at LA 8000_0000h to GPA 4000_0000h, nested tables in ``nested_size``."""
    fmt, registers, _ = GUESTS[mode]
    amd = nested.endswith("NPT")
    nested_fmt = NESTED[nested][0]
    la, gpa, tables = 0x8000_0000, 0x4000_0000, 0x0
    memory = SparseMemory(ZERO)
    whole = 2 << 30
    # The nested table maps GPA 0 .. 4000_0000h+ as far as it is used: the guest's tables at 0 and the page.
    span = max(1 << 16, nested_size)
    ranges = [Range(address=a, target=a + whole, size=span, page_size=nested_size) for a in (tables, gpa)]
    nested_root = 0x1_0000
    memory = map_ranges(memory, nested_fmt, nested_root, ranges, frames_from(nested_root + 0x1000))
    if fmt is not None:
        page = Range(address=la, target=gpa, size=size, page_size=size)
        memory = map_ranges(memory, fmt, 0x1000, [page], frames_from(0x2000), lambda g: g + whole)
    else:
        la = gpa
    features = Features(vendor=Vendor.AMD if amd else Vendor.INTEL, maxphyaddr=40)
    regs = Registers(**{**LONG, "cr3": 0x1000, "cpl": 3, **registers})
    if amd:
        second = npt(Registers(**{**LONG, **HOSTS[nested]}), features, nested_root)
    else:
        levels = 4 if nested_fmt is EPT4 else 5
        second = ept(nested_root | 6 | (levels - 1) << 3, 40)
    assert isinstance(second, SecondStage)
    return walk_nested(memory, bind(regs, features, pdptes_from_memory=amd), second, la)


@pytest.mark.parametrize(("mode", "size", "nested", "nested_size"), CASES, ids=lambda v: str(v))
def test_references(mode, size, nested, nested_size):
    walk = counted(mode, size, nested, nested_size)
    g, n = GUESTS[mode][2][size], NESTED[nested][1][nested_size]
    if mode == "PAE" and nested.endswith("NPT"):
        g += 1  # AMD reads the PDPTE from memory in every walk; Intel has it in a register
    assert walk.ok, walk.outcome
    assert walk.references == (g + 1) * (n + 1) - 1


def test_a_large_page_for_the_data_alone_shortens_the_last_row_only():
    # I8: 4-level guest 4K; nested 4K for tables, 1G for the data page: 4 * 5 + 2
    gpa = 0x4000_0000
    memory = SparseMemory(ZERO)
    tables = Range(address=0, target=1 << 31, size=1 << 16)
    ranges = [tables, Range(address=gpa, target=gpa, size=1 << 30, page_size=1 << 30)]
    memory = map_ranges(memory, LEVEL4, 0x10000, ranges, frames_from(0x11000))
    page = Range(address=LA & ~0xFFF, target=gpa, size=4096)
    memory = map_ranges(memory, LEVEL4, 0x1000, [page], frames_from(0x2000), lambda g: g + (1 << 31))
    features = Features(vendor=Vendor.AMD)
    second = npt(Registers(**LONG), features, 0x10000)
    assert isinstance(second, SecondStage)
    guest_paging = bind(Registers(**LONG, cr3=0x1000, cpl=3), features, pdptes_from_memory=True)
    walk = walk_nested(memory, guest_paging, second, LA)
    assert (walk.ok, walk.references, walk.outcome.page_size) == (True, 22, 4096)
