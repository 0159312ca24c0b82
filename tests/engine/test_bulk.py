"""The array walker says of every address what the explaining walker says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arch.arrays import Code, Right
from engine.arch.bulk import Translations, error_code, translate
from engine.arch.faults import GeneralProtection, PageFault, Reason, Translated, Unknown, Violation
from engine.arch.registers import Mode
from engine.arch.walk import Walk, walk
from tests.engine.spaces import random_access, random_addresses, random_space

SEEDS = st.integers(0, 1 << 32)
PAGED = [(mode, False) for mode in Mode] + [(Mode.PAE, True)]


def row(one: Walk) -> tuple[int, int, int, Code, int]:
    """What a row of `Translations` must hold for a walk: physical, page shift, rights, code, level."""
    level = one.steps[-1].level.level if one.steps else 0
    match one.outcome:
        case Translated(address, size, r):
            flags = Right.R * r.read | Right.W * r.write | Right.U * r.user | Right.X * r.execute | Right.G * r.global_
            return address, max(0, size.bit_length() - 1), flags | (r.key or 0) << Right.KEY_SHIFT, Code.OK, level
        case Unknown(address):
            return address, 0, 0, Code.UNKNOWN, level
        case GeneralProtection(reason=reason):
            code = Code.NON_CANONICAL if "canonical" in reason else Code.LASS if "LASS" in reason else Code.PDPTE_LOAD
            return 0, 0, 0, code, level
        case PageFault(reason=Reason.RIGHTS, violations=violations):
            return 0, 0, 0, Code.KEY if Violation.PROTECTION_KEY in violations else Code.RIGHTS, level
        case PageFault(reason=reason):
            return 0, 0, 0, {Reason.NOT_PRESENT: Code.NOT_PRESENT, Reason.RESERVED: Code.RESERVED}[reason], level


def rows(found: Translations) -> list[tuple[int, ...]]:
    columns = (getattr(found, name).tolist() for name in found.__struct_fields__)
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(("mode", "pdptes"), PAGED)
@given(seed=SEEDS)
def test_equal_to_the_explaining_walker_faults_included(seed: int, mode: Mode, pdptes: bool) -> None:
    space = random_space(seed, mode, pdptes=pdptes)
    addresses, access = random_addresses(seed, space.paging, 200), random_access(seed)
    walks = [walk(space.memory, space.paging, address, access) for address in addresses.tolist()]
    found = translate(space.memory, space.paging, addresses, access)
    assert rows(found) == [row(one) for one in walks]
    for code, one in zip(found.code.tolist(), walks, strict=True):
        expected = one.outcome.error_code if isinstance(one.outcome, PageFault) else None
        assert error_code(Code(code), space.paging, access) == expected
