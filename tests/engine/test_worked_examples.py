"""The worked examples of one-dimensional walks (a table in tests/data) and of register writes (the table below)."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.arch.bits import bit
from engine.arch.faults import GeneralProtection, PageFault, Translated
from engine.arch.paging import bind
from engine.arch.registers import (
    CR0,
    CR4,
    EFER,
    RFLAGS_AC,
    Change,
    Features,
    Mode,
    Registers,
    Vendor,
    mov_cr0,
    mov_cr3,
    mov_cr4,
    wrmsr_efer,
)
from engine.arch.rights import Access, Kind
from engine.arch.walk import walk
from engine.memory.physical import ZERO, SparseMemory

# --- one-dimensional walks

TABLE = Path(__file__).parent.parent / "data" / "worked-examples.md"
PAGING_ON = CR0.PE | CR0.WP | CR0.PG
LONG = {"cr4": int(CR4.PAE), "efer": int(EFER.LME | EFER.LMA)}
MODES: dict[str, dict[str, int | tuple[int, ...]]] = {
    "32": {},
    "PAE": {"cr4": int(CR4.PAE), "pdptes": (0, 0, 0, 0x5001)},
    "4L": {**LONG},
    "5L": {**LONG, "cr4": int(CR4.PAE | CR4.LA57)},
}
KINDS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.FETCH, "ssr": Kind.SHADOW_READ, "ssw": Kind.SHADOW_WRITE}
SIZE = {"32": 4}
"""Bytes of an entry, where not 8."""


class Row(NamedTuple):
    id: str
    mode: str
    regs: str
    la: str
    acc: str
    cpl: str
    entries: str
    result: str
    writes: str
    shows: str


def rows() -> list[Row]:
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| [A-E]\d+ \|", line)]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]


def registers_of(row: Row) -> tuple[Registers, Features]:
    values: dict[str, int | tuple[int, ...]] = {
        "cr0": int(PAGING_ON),
        "cr4": 0,
        "efer": 0,
        "rflags": 2,
        **MODES[row.mode],
    }
    features: dict[str, int | bool | Vendor] = {}
    for token in row.regs.strip("–").split():
        name, _, value = token.partition("=")
        match name:
            case "CR3" | "PKRU" | "PKRS":
                values[name.lower()] = int(value, 16)
            case "M":
                features["maxphyaddr"] = int(value)
            case "no1G":
                features["page1gb"] = False
            case "AMD":
                features["vendor"] = Vendor.AMD
            case "WP0":
                values["cr0"] &= ~CR0.WP
            case "NXE":
                values["efer"] |= EFER.NXE
            case "AC":
                values["rflags"] |= RFLAGS_AC
            case _:
                values["cr4"] |= CR4[name]
    return Registers(**values, cpl=int(row.cpl)), Features(**features)


def pairs(text: str, arrow: str) -> dict[int, int]:
    """``[0x10]=0x20`` (or with an arrow) as addresses and values."""
    found = re.findall(rf"\[(0x\w+)\]{arrow}(0x\w+)", text)
    return {int(address, 16): int(value, 16) for address, value in found}


def memory_of(entries: dict[int, int], size: int) -> SparseMemory:
    memory = SparseMemory(ZERO)
    for address, value in entries.items():
        memory = memory.write(address, value.to_bytes(size, "little"))
    return memory


def told(outcome: object) -> str:
    """The outcome as the table writes it."""
    match outcome:
        case Translated():
            return f"PA 0x{outcome.address:X}"
        case PageFault():
            return f"#PF 0x{outcome.error_code:X} CR2=0x{outcome.cr2:X}"
        case GeneralProtection(vector=13):
            return "#GP(0)"
    raise AssertionError(outcome)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_a_walk(row: Row) -> None:
    kind, _, implicit = row.acc.partition(", ")
    registers, features = registers_of(row)
    memory = memory_of(pairs(row.entries, "="), SIZE.get(row.mode, 8))
    access = Access(KINDS[kind], implicit=implicit == "impl")
    result = walk(memory, bind(registers, features), int(row.la, 16), access)
    assert told(result.outcome) == row.result, row.shows
    assert {update.address: update.new for update in result.updates} == pairs(row.writes, "→"), row.shows


def test_no_row_of_the_table_is_passed_over() -> None:
    assert [row.id for row in rows()] == [
        f"{group}{n}"
        for group, last in (("A", 10), ("B", 6), ("C", 37), ("D", 5), ("E", 16))
        for n in range(1, last + 1)
    ]


# --- register writes

IN_LONG_MODE = Registers(cr0=PAGING_ON, cr3=0x1000, cr4=CR4.PAE, efer=EFER.LME | EFER.LMA, cs_l=True)
IN_PAE = Registers(cr0=PAGING_ON, cr3=0x6000, cr4=CR4.PAE, pdptes=(0x5001, 0, 0, 0))
BEFORE_PAGING = Registers(cr0=CR0.PE | CR0.WP)
ANY = Features()
PDPT = 0x7000
"""Where a new CR3 finds its PDPTEs."""


def with_(registers: Registers, **values: object) -> Registers:
    return Registers(**{name: getattr(registers, name) for name in Registers.__struct_fields__} | values)


def cr0(registers: Registers, value: int) -> Change:
    return mov_cr0(registers, int(value), ANY, SparseMemory(ZERO))


def cr3(registers: Registers, value: int, features: Features = ANY, **pdpt: int) -> Change:
    words = {PDPT + 8 * int(name.removeprefix("pdpt")): entry for name, entry in pdpt.items()}
    return mov_cr3(registers, value, features, SparseMemory(ZERO).with_words(words))


def cr4(registers: Registers, value: int) -> Change:
    return mov_cr4(registers, int(value), ANY, SparseMemory(ZERO))


def efer(registers: Registers, value: int) -> Change:
    return wrmsr_efer(registers, int(value), ANY)


LA57_ON = with_(IN_LONG_MODE, cr4=CR4.PAE | CR4.LA57)
PCID_ON = with_(IN_LONG_MODE, cr4=CR4.PAE | CR4.PCIDE)
COMPATIBILITY = with_(PCID_ON, cs_l=False)
LME_SET = with_(BEFORE_PAGING, efer=EFER.LME)
LME_AND_PAE = with_(LME_SET, cr4=CR4.PAE)
CET_ON = with_(IN_LONG_MODE, cr4=CR4.PAE | CR4.CET)
NO_WP = with_(IN_LONG_MODE, cr0=PAGING_ON & ~CR0.WP)
M40, M46 = Features(maxphyaddr=40), Features(maxphyaddr=46)
NO_LAM = Features(lam=False)

# id, the state before in words, the write, why it raises #GP(0) (part of the reason)
REFUSED = [
    ("H1", "LMA=1, LA57=0: MOV CR4 with LA57=1", lambda: cr4(IN_LONG_MODE, CR4.PAE | CR4.LA57), "LA57"),
    ("H2", "LMA=1, LA57=1: MOV CR4 with LA57=0", lambda: cr4(LA57_ON, CR4.PAE), "LA57"),
    ("H4", "LMA=1: MOV CR4 with PAE=0", lambda: cr4(IN_LONG_MODE, 0), "PAE"),
    ("H5", "PG=0, LME=1, PAE=0: MOV CR0 with PG=1", lambda: cr0(LME_SET, PAGING_ON), "PAE = 0"),
    ("H7", "PG=1: WRMSR EFER toggling LME", lambda: efer(IN_LONG_MODE, 0), "LME"),
    ("H9", "LMA=1, CR3=1001h: MOV CR4 with PCIDE=1", lambda: cr4(with_(IN_LONG_MODE, cr3=0x1001), PCID_ON.cr4), "CR3"),
    ("H10", "LMA=0: MOV CR4 with PCIDE=1", lambda: cr4(IN_PAE, PCID_ON.cr4), "LMA"),
    ("H11", "LMA=1, PCIDE=1, compatibility mode: PG=0", lambda: cr0(COMPATIBILITY, CR0.PE | CR0.WP), "PCIDE"),
    ("H12", "LMA=1, M=46: MOV CR3 = 1<<46", lambda: cr3(IN_LONG_MODE, bit(46), M46), "CR3"),
    ("H13", "LMA=1, PCIDE=0: MOV CR3 = 1<<63 | 1000h", lambda: cr3(IN_LONG_MODE, bit(63) | 0x1000), "CR3"),
    ("H15", "LMA=1, no LAM: MOV CR3 = 1<<62 | 1000h", lambda: cr3(IN_LONG_MODE, bit(62) | 0x1000, NO_LAM), "CR3"),
    ("H16", "PAE, PDPT[2]=7003h: MOV CR3", lambda: cr3(IN_PAE, PDPT, pdpt2=0x7003), "PDPTE 2 has reserved bits set: 1"),
    ("H18", "PAE, M=40, PDPT[0] bit 40", lambda: cr3(IN_PAE, PDPT, M40, pdpt0=0x100_0000_5001), "bits set: 40"),
    ("H19", "CR4.CET=1: MOV CR0 with WP=0", lambda: cr0(CET_ON, PAGING_ON & ~CR0.WP), "WP"),
    ("H20", "WP=0: MOV CR4 with CET=1", lambda: cr4(NO_WP, CET_ON.cr4), "CET"),
]  # fmt: skip

# id, the state before in words, the write, the registers after it
ACCEPTED = [
    ("H3", "LMA=0, PG=0: MOV CR4 with LA57=1", lambda: cr4(BEFORE_PAGING, CR4.LA57),
     with_(BEFORE_PAGING, cr4=CR4.LA57)),
    ("H6", "PG=0, LME=1, PAE=1, CS.L=0: PG=1 sets LMA", lambda: cr0(LME_AND_PAE, PAGING_ON),
     with_(LME_AND_PAE, cr0=PAGING_ON, efer=EFER.LME | EFER.LMA)),
    ("H8", "LMA=1, CR3=1000h: MOV CR4 with PCIDE=1", lambda: cr4(IN_LONG_MODE, PCID_ON.cr4), PCID_ON),
    ("H14", "LMA=1, PCIDE=1: MOV CR3 = 1<<63 | 1005h", lambda: cr3(PCID_ON, bit(63) | 0x1005),
     with_(PCID_ON, cr3=0x1005)),
    ("H17", "PAE, PDPT[2]=7002h: P=0 is not checked", lambda: cr3(IN_PAE, PDPT, pdpt2=0x7002),
     with_(IN_PAE, cr3=PDPT, pdptes=(0, 0, 0x7002, 0))),
]  # fmt: skip


@pytest.mark.parametrize(("write", "reason"), [row[2:] for row in REFUSED], ids=[f"{r[0]}: {r[1]}" for r in REFUSED])
def test_a_register_write_that_raises_gp(write, reason):
    result = write()
    assert isinstance(result, GeneralProtection)
    assert (result.vector, reason in result.reason) == (13, True), result.reason


@pytest.mark.parametrize(("write", "after"), [row[2:] for row in ACCEPTED], ids=[f"{r[0]}: {r[1]}" for r in ACCEPTED])
def test_a_register_write_that_is_legal(write, after):
    assert write() == after


def test_every_row_of_register_writes_is_there() -> None:
    assert sorted(int(row[0][1:]) for row in [*REFUSED, *ACCEPTED]) == list(range(1, 21))


def test_the_modes_that_the_states_of_register_writes_are_in() -> None:
    states = (IN_LONG_MODE, LA57_ON, IN_PAE, BEFORE_PAGING, LME_AND_PAE)
    assert [state.mode for state in states] == [Mode.LEVEL4, Mode.LEVEL5, Mode.PAE, Mode.NONE, Mode.NONE]
