"""Memory types of both stages: the rows of the reference's section 10.4, and the tables' own symmetries."""

import pytest

from engine.arch.memory_type import effective, npt_effective, pat_type
from engine.arch.registers import PAT_RESET

EPT = [  # (EPT type, ignore PAT, guest PAT type, in effect)
    ("I10", "WB", False, "UC-", "UC"),
    ("I11", "WB", True, "UC", "WB"),
    ("I12", "WC", False, "WB", "WC"),
    ("I13", "WP", False, "UC-", "WC"),
]
NPT = [  # (guest, host, MTRR, in effect)
    ("I14", "WC", "WB", "WB", "WC+"),
    ("I15", "UC-", "WB", "WB", "CD"),
    ("I16", "WB", "WB", "WT", "WT"),
]


@pytest.mark.parametrize(("name", "ept", "ignore_pat", "guest", "result"), EPT, ids=[row[0] for row in EPT])
def test_ept_type_plays_the_part_of_the_mtrr(name, ept, ignore_pat, guest, result):
    assert (ept if ignore_pat else effective(ept, guest)) == result


@pytest.mark.parametrize(("name", "guest", "host", "mtrr", "result"), NPT, ids=[row[0] for row in NPT])
def test_npt_combines_two_pats_and_an_mtrr(name, guest, host, mtrr, result):
    if name == "I15":
        # The table of step 1 gives UC for UC- over WB, and a WB range turns that into CD.
        assert npt_effective(guest, host, mtrr) == "CD"
    assert npt_effective(guest, host, mtrr) == result


@pytest.mark.parametrize("index", range(8))
def test_the_pat_bit_moves_with_the_page_size(index):
    pat, low = index >> 2, (index & 3) << 3
    reset = ["WB", "WT", "UC-", "UC"][index & 3]
    assert pat_type(PAT_RESET, low | pat << 7, 12) == reset
    assert pat_type(PAT_RESET, low | pat << 12, 21) == reset


def test_bit_7_of_a_large_page_is_not_its_pat_bit():
    pat = 0x0000_0000_0000_0006 | 0x01 << 32  # entry 4 is WC, entry 0 WB
    assert pat_type(pat, 0x80, 21) == "WB"
    assert pat_type(pat, 0x1080, 21) == "WC"
    assert pat_type(pat, 0x80, 12) == "WC"
