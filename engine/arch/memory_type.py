"""The memory type of an access: what the guest's PAT, the second stage and the MTRRs make of it.

Sources: Intel SDM vol. 3A, 12.11 - 12.12 and vol. 3C, 29.3.7; AMD APM vol. 2, 7.8 and 15.25.8. MTRRs are not modelled:
the range is taken to be WB, which is named where it decides (`mtrr`).
"""

import msgspec

from engine.arch.basis import Basis, assumed, manual
from engine.arch.bits import field
from engine.arch.registers import CR0
from engine.arch.second_stage import Kind2
from engine.arch.walk import Stage, Step, Walk

ENCODINGS = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}
_PAT_ORDER = ("UC", "UC-", "WC", "WT", "WP", "WB")
_EFFECTIVE = {  # MTRR (or EPT) type -> result by PAT type, in the order above (SDM vol. 3A, table 12-7)
    "UC": ("UC", "UC", "WC", "UC", "UC", "UC"),
    "WC": ("UC", "WC", "WC", "UC", "UC", "WC"),
    "WT": ("UC", "UC", "WC", "WT", "WP", "WT"),
    "WP": ("UC", "WC", "WC", "WT", "WP", "WP"),
    "WB": ("UC", "UC", "WC", "WT", "WP", "WB"),
}
_NPT_ORDER = ("UC", "UC-", "WC", "WP", "WT", "WB")
_NPT_GUEST = {  # guest PAT type -> type by nested PAT type, in the order above (APM vol. 2, table 15-19)
    "UC": ("UC", "UC", "UC", "UC", "UC", "UC"),
    "UC-": ("UC", "UC-", "WC", "UC", "UC", "UC"),
    "WC": ("WC", "WC", "WC", "WC+", "WC+", "WC+"),
    "WP": ("UC", "UC", "UC", "WP", "UC", "WP"),
    "WT": ("UC", "UC", "UC", "UC", "WT", "WT"),
    "WB": ("UC", "UC", "WC", "WP", "WT", "WB"),
}
_MTRR_ORDER = ("UC", "WC", "WP", "WT", "WB")
_NPT_MTRR = {  # combined type -> result by MTRR type, in the order above (APM vol. 2, table 15-20)
    "UC": ("UC", "CD", "CD", "CD", "CD"),
    "UC-": ("UC", "WC", "CD", "CD", "CD"),
    "WC": ("WC", "WC", "WC", "WC", "WC"),
    "WC+": ("WC", "WC", "WC+", "WC+", "WC+"),
    "WP": ("UC", "CD", "WP", "CD", "WP"),
    "WT": ("UC", "CD", "CD", "WT", "WT"),
    "WB": ("UC", "WC", "WP", "WT", "WB"),
}


class MemoryType(msgspec.Struct, frozen=True):
    """``guest`` and ``second``: the types the two stages name ('': no such stage); ``result``: the one in effect."""

    guest: str
    second: str
    result: str
    basis: tuple[Basis, ...]


MTRR_ASSUMED = assumed("mtrr: the MTRR type of the range is taken to be WB")


def effective(mtrr: str, pat: str) -> str:
    """The type in effect for an MTRR (under EPT: EPT) type and a PAT type."""
    return _EFFECTIVE[mtrr][_PAT_ORDER.index(pat)]


def npt_effective(guest: str, nested: str, mtrr: str = "WB") -> str:
    """The type in effect under NPT. "CD": as if caching were disabled; "WC+": WC that snoops."""
    combined = _NPT_GUEST[guest][_NPT_ORDER.index(nested)]
    return _NPT_MTRR[combined][_MTRR_ORDER.index(mtrr)]


def pat_type(pat: int, entry: int, page_shift: int) -> str:
    """The PAT type that leaf ``entry`` selects: PAT, PCD, PWT are bit 7 (4-KiB pages) or 12, bit 4 and bit 3."""
    index = field(entry, 4, 3) | field(entry, *((7, 7) if page_shift == 12 else (12, 12))) << 2
    return ENCODINGS[pat >> (8 * index) & 7]


def memory_type(walk: Walk) -> MemoryType | None:
    """The memory type of a walk's access; None where it reaches no page, or by three stages: no manual says."""
    if not walk.ok or walk.host is not None:
        return None
    guest = _leaf(walk, Stage.GUEST if walk.second else Stage.ONE)
    pat = walk.paging.registers.pat
    of_guest = pat_type(pat, guest.value or 0, guest.level.page_shift) if guest else "WB"
    if walk.paging.registers.cr0 & CR0.CD:
        return MemoryType(of_guest, "", "UC", (manual("SDM vol. 3A, 12.5.3: CR0.CD = 1"),))
    if walk.second is None:
        return MemoryType(of_guest, "", effective("WB", of_guest), (manual("SDM vol. 3A, 12.12.3"), MTRR_ASSUMED))
    nested = _leaf(walk, Stage.NESTED)
    assert nested is not None
    assert nested.value is not None
    if walk.second.kind is Kind2.EPT:
        of_ept = ENCODINGS[field(nested.value, 5, 3)]
        ignores_pat = field(nested.value, 6, 6)
        result = of_ept if ignores_pat else effective(of_ept, of_guest)
        return MemoryType(of_guest, of_ept, result, (manual("Intel SDM vol. 3C, 29.3.7.2"),))
    of_npt = pat_type(walk.second.paging.registers.pat, nested.value, nested.level.page_shift)
    basis = (manual("AMD APM vol. 2, 15.25.8"), MTRR_ASSUMED)
    return MemoryType(of_guest, of_npt, npt_effective(of_guest, of_npt), basis)


def _leaf(walk: Walk, stage: Stage) -> Step | None:
    return next((step for step in reversed(walk.steps) if step.stage is stage and step.is_leaf), None)
