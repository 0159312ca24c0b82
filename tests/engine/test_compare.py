"""Two address spaces compared say of every address what two walks say."""

from hypothesis import given
from hypothesis import strategies as st

from engine.arch.arrays import Code
from engine.arch.compare import Comparison, How, compare
from engine.arch.mappings import mappings
from engine.arch.paging import Paging, bind
from engine.arch.registers import CR0, CR4, EFER, Features, Mode, Registers
from engine.memory.physical import SparseMemory
from tests.engine.spaces import Space, random_addresses, random_space
from tests.engine.test_mappings import plain, walked

LONG_MODE = Registers(cr0=CR0.PE | CR0.PG, cr3=0x1000, cr4=CR4.PAE, efer=EFER.LME | EFER.LMA | EFER.NXE)
PAGING = bind(LONG_MODE, Features())


def row_at(found: Comparison, address: int) -> int | None:
    for row, (va, size) in enumerate(zip(found.va.tolist(), found.size.tolist(), strict=True)):
        if va <= address < va + size:
            return row
    return None


def expected(a: tuple[Code, int, int, int], b: tuple[Code, int, int, int]) -> int:
    if Code.UNKNOWN in (a[0], b[0]):
        return How.OPEN
    if a[0] is not Code.OK and b[0] is not Code.OK:
        return How.REASON * (a[0] is not b[0])
    if a[0] is not Code.OK or b[0] is not Code.OK:
        return How.ONLY_A if a[0] is Code.OK else How.ONLY_B
    return How.ADDRESS * (a[1] != b[1]) | How.PAGE_SIZE * (a[2] != b[2]) | How.RIGHTS * (a[3] != b[3])


def assert_agrees(one: Space, two: Space, seed: int) -> None:
    found = compare(mappings(*one), mappings(*two))
    narrow = min((one.paging, two.paging), key=lambda paging: paging.width)
    addresses = random_addresses(seed, narrow, 60).tolist()
    ranges = zip(found.va.tolist(), found.size.tolist(), strict=True)
    ends = [end for va, size in ranges for end in (va, va + size - 1)]
    for address in addresses + ends[:100]:
        a, b = walked(one, address), walked(two, address)
        if a is None or b is None or (not narrow.mode.is_long and address >> 32):
            continue
        row = row_at(found, address)
        if row is None:
            assert (a[0], b[0]) == (Code.NOT_PRESENT, Code.NOT_PRESENT), hex(address)
        else:
            assert found.how[row] == expected(a, b), hex(address)
            for side, (code, pa, *_) in ((found.a, a), (found.b, b)):
                assert side.code[row] == code
                if code is Code.OK:
                    assert int(side.pa[row]) + address - int(found.va[row]) == pa


@given(seed=st.integers(0, 1 << 32), mode=st.sampled_from([Mode.LEGACY, Mode.PAE, Mode.LEVEL4]))
def test_two_spaces_at_every_address(seed: int, mode: Mode) -> None:
    one = plain(random_space(seed, mode))
    poked = one.memory.with_words({0x2000: 0x5067, 0x3008: 0, 0x4FF8: 0x8000_0000_0000_6067})
    assert_agrees(one, Space(poked, one.paging), seed)


@given(seed=st.integers(0, 1 << 32))
def test_one_root_read_as_4_and_as_5_levels(seed: int) -> None:
    one = plain(random_space(seed, Mode.LEVEL4))
    registers = one.paging.registers
    deeper = Registers(**{**_fields(registers), "cr4": registers.cr4 | CR4.LA57})
    assert_agrees(one, Space(one.memory, bind(deeper, one.paging.features)), seed)


def _fields(registers: Registers) -> dict[str, int]:
    return {name: getattr(registers, name) for name in registers.__struct_fields__}


def space(entries: dict[int, int], paging: Paging = PAGING) -> Space:
    memory = SparseMemory()
    for at, entry in {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007}.items():
        memory = memory.write(at, entry.to_bytes(8, "little") + bytes(4088))
    return Space(memory.write(0x4000, bytes(4096)).with_words({0x4000 + 8 * n: e for n, e in entries.items()}), paging)


def test_what_is_the_same_is_told_in_one_range_and_what_differs_by_how() -> None:
    a = space({0: 0x8003, 1: 0x9003, 2: 0xA003, 3: 0xB003, 5: 0xC003})
    b = space({0: 0x8003, 1: 0x9003, 2: 0x7003, 3: 0xB001, 6: 0xD003})
    found = compare(mappings(*a), mappings(*b))
    assert list(zip(found.va.tolist(), found.size.tolist(), found.how.tolist(), strict=True)) == [
        (0x0000, 0x2000, How.SAME),
        (0x2000, 0x1000, How.ADDRESS),
        (0x3000, 0x1000, How.RIGHTS),
        (0x5000, 0x1000, How.ONLY_A),
        (0x6000, 0x1000, How.ONLY_B),
    ]


def test_two_empty_spaces_have_nothing_to_compare() -> None:
    empty = mappings(SparseMemory().write(0x1000, bytes(4096)), PAGING)
    assert len(compare(empty, empty)) == 0
