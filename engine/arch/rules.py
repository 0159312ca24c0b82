"""What the manuals leave to the processor, or where sources differ: settings with a default, named where they decide.

See the reference page, 2.3, 2.4, 5.3 and 5.4.
"""

from enum import Enum

import msgspec


class AdPolicy(Enum):
    """When the accessed and dirty flags of a walk that faults are set (APM vol. 2, 5.4.2; SDM vol. 3A, 4.8)."""

    WALK = "level by level"
    """A of each table entry as soon as the entry is accepted; A and D of the leaf after the rights check."""
    COMMIT = "after all checks"
    """Nothing unless the whole access is allowed."""


class GpaHigh(Enum):
    """What a 4-level NPT does with GPA bits 51:48."""

    ALIAS = "ignored"
    NPF = "#NPF, not present"


class NpfId(Enum):
    """When EXITINFO1 bit 4 (I/D) is set for a fetch (APM vol. 2, 15.25.6)."""

    NXE_OR_SMEP = "host NXE or SMEP"
    NXE = "host NXE"
    ALWAYS = "always"


class Rules(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, forbid_unknown_fields=True):
    ad_policy: AdPolicy = AdPolicy.WALK
    amd_bit8: bool = True
    """Bit 8 of a PML4E or PML5E must be 0 on AMD (APM vol. 2, 5.3.3); emulators do not check it."""
    npt_gpa_high: GpaHigh = GpaHigh.ALIAS
    npf_id: NpfId = NpfId.NXE_OR_SMEP


DEFAULT = Rules()
"""As the manuals say, or as the reference page's model rules choose."""
EMULATORS = Rules(amd_bit8=False, npf_id=NpfId.NXE)
"""As QEMU and Bochs answer: for comparing with them."""
