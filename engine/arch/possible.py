"""Whether a processor can have certain registers at all: what a debugger, a dump or a person gives may be impossible.

`registers` has the rules for *changes*. These are those for a state, as VM entry checks them (SDM vol. 3C, 26.3.1.1;
APM vol. 2, 15.5.1).
"""

from collections.abc import Callable

from engine.arch.bits import U64, bit_names
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, cr3_reserved

Rule = tuple[str, Callable[[Registers, Features], object]]
"""What must not be, and whether it is."""

IMPOSSIBLE: tuple[Rule, ...] = (
    ("CR0.PG = 1 needs CR0.PE = 1", lambda r, f: r.cr0 & CR0.PG and not r.cr0 & CR0.PE),
    ("CR0.NW = 1 needs CR0.CD = 1", lambda r, f: r.cr0 & CR0.NW and not r.cr0 & CR0.CD),
    ("bits 63:32 of CR0 must be 0", lambda r, f: r.cr0 >> 32),
    ("EFER.LMA = 1 needs EFER.LME = 1", lambda r, f: r.efer & EFER.LMA and not r.efer & EFER.LME),
    ("EFER.LMA = 1 needs CR0.PG = 1", lambda r, f: r.efer & EFER.LMA and not r.cr0 & CR0.PG),
    ("EFER.LMA = 1 needs CR4.PAE = 1", lambda r, f: r.efer & EFER.LMA and not r.cr4 & CR4.PAE),
    (
        "EFER.LME = 1 and CR0.PG = 1 make EFER.LMA 1: it cannot be 0",
        lambda r, f: r.efer & EFER.LME and r.cr0 & CR0.PG and not r.efer & EFER.LMA,
    ),
    ("EFER.NXE = 1 needs a processor with NX", lambda r, f: r.efer & EFER.NXE and not f.nx),
    ("CR4.LA57 = 1 needs a processor with LA57", lambda r, f: r.cr4 & CR4.LA57 and not f.la57),
    ("CR4.PCIDE = 1 needs EFER.LMA = 1", lambda r, f: r.cr4 & CR4.PCIDE and not r.efer & EFER.LMA),
    ("CR4.CET = 1 needs CR0.WP = 1", lambda r, f: r.cr4 & CR4.CET and not r.cr0 & CR0.WP),
    ("64-bit code needs EFER.LMA = 1", lambda r, f: r.cs_l and not r.efer & EFER.LMA),
)


def impossible(registers: Registers, features: Features) -> str | None:
    """Why no processor with ``features`` has these ``registers``, as a sentence; None where one can have them."""
    for reason, breaks in IMPOSSIBLE:
        if breaks(registers, features):
            return f"No processor can have these: {reason}."
    for name, reserved in _reserved(registers, features).items():
        bad = getattr(registers, name) & reserved
        if bad:
            return f"No processor can have these: {name.upper()} has bits set that must be 0: {bit_names(bad)}."
    return None


def _reserved(registers: Registers, features: Features) -> dict[str, int]:
    """The bits of each register that must be 0."""
    reserved = {"cr4": U64 & ~sum(CR4), "efer": U64 & ~sum(EFER)}
    if registers.efer & EFER.LMA:
        reserved["cr3"] = cr3_reserved(features, registers)
    return reserved
