"""Which registers a processor can have at all."""

from typing import Any

import msgspec
import pytest

from engine.arch.possible import impossible
from engine.arch.registers import CR0, CR3_LAM_U57, CR4, EFER, Features, Registers, Vendor

PAGED = CR0.PE | CR0.PG | CR0.WP
LONG = EFER.LME | EFER.LMA
INTEL = Features()


@pytest.mark.parametrize(
    "registers",
    [
        Registers(),
        Registers(cr0=CR0.PE),
        Registers(cr0=PAGED, cr3=0xFFFF_F000),
        Registers(cr0=PAGED, cr4=CR4.PAE),
        Registers(cr0=PAGED, cr4=CR4.PAE, efer=LONG, cs_l=True, cr3=0x35D_E000),
        Registers(cr0=PAGED, cr4=CR4.PAE | CR4.LA57 | CR4.PCIDE, efer=LONG, cr3=0x1001),
        Registers(cr0=PAGED, cr4=CR4.PAE, efer=LONG, cr3=0x1000 | CR3_LAM_U57),
        Registers(cr0=CR0.PE, cr4=CR4.PAE, efer=EFER.LME),
    ],
)
def test_what_a_processor_can_have(registers: Registers) -> None:
    assert impossible(registers, INTEL) is None


@pytest.mark.parametrize(
    ("reason", "change", "features"),
    [
        ("CR0.PG = 1 needs CR0.PE = 1", {"cr0": CR0.PG | CR0.WP}, {}),
        ("CR0.NW = 1 needs CR0.CD = 1", {"cr0": PAGED | CR0.NW}, {}),
        ("bits 63:32 of CR0", {"cr0": PAGED | 1 << 40}, {}),
        ("EFER.LMA = 1 needs EFER.LME = 1", {"efer": EFER.LMA}, {}),
        ("EFER.LMA = 1 needs CR0.PG = 1", {"cr0": CR0.PE}, {}),
        ("EFER.LMA = 1 needs CR4.PAE = 1", {"cr4": 0}, {}),
        ("make EFER.LMA 1", {"efer": EFER.LME, "cs_l": False}, {}),
        ("EFER.NXE = 1 needs a processor with NX", {"efer": LONG | EFER.NXE}, {"nx": False}),
        ("CR4.LA57 = 1 needs a processor with LA57", {"cr4": CR4.PAE | CR4.LA57}, {"la57": False}),
        ("CR4.PCIDE = 1 needs EFER.LMA = 1", {"cr4": CR4.PAE | CR4.PCIDE, "efer": 0, "cs_l": False}, {}),
        ("CR4.CET = 1 needs CR0.WP = 1", {"cr4": CR4.PAE | CR4.CET, "cr0": CR0.PE | CR0.PG}, {}),
        ("64-bit code needs EFER.LMA = 1", {"efer": 0}, {}),
        ("CR3 has bits set that must be 0: 52", {"cr3": 1 << 52}, {}),
        ("CR3 has bits set that must be 0: 61", {"cr3": CR3_LAM_U57}, {"vendor": Vendor.AMD}),
        ("CR3 has bits set that must be 0: 39", {"cr3": 1 << 39}, {"maxphyaddr": 36}),
        ("CR4 has bits set that must be 0: 63", {"cr4": CR4.PAE | 1 << 63}, {}),
        ("EFER has bits set that must be 0: 1", {"efer": LONG | 2}, {}),
    ],
)
def test_what_no_processor_can_have(reason: str, change: dict[str, Any], features: dict[str, Any]) -> None:
    good = Registers(cr0=PAGED, cr4=CR4.PAE, efer=LONG, cs_l=True)
    sentence = impossible(msgspec.structs.replace(good, **change), Features(**features))
    assert sentence is not None
    assert sentence.startswith("No processor can have these: ")
    assert reason in sentence
