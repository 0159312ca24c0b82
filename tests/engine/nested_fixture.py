"""The fixture of the reference's section 10.2: a 4-level guest at GPA + 200000h, nested tables at 100000h.

Examples start from it and change words: ``pt(i)`` is the host-physical address of nested PT entry ``i``, ``guest(g)``
that of the guest's word at GPA ``g``.
"""

from engine.arch.nested_walk import walk_nested
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.rights import Access, Kind
from engine.arch.second_stage import EptCapabilities, NptControls, SecondStage, ept, npt
from engine.arch.walk import Walk
from engine.memory.physical import ZERO, SparseMemory

LA = 0x7F12_3456_7890
PG = int(CR0.PG | CR0.WP | CR0.PE)
LONG = {"cr0": PG, "cr4": int(CR4.PAE), "efer": int(EFER.LME | EFER.LMA | EFER.NXE)}
KINDS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.FETCH, "ssr": Kind.SHADOW_READ, "ssw": Kind.SHADOW_WRITE}
EPT_LEAF, NPT_ALL = 0x37, 0x67


def pt(index: int) -> int:
    return 0x103000 + 8 * index


def guest(gpa: int) -> int:
    return 0x200000 + gpa


def fixture(vendor: str, levels: int = 4) -> dict[int, int]:
    table, leaf = (7, EPT_LEAF) if vendor == "ept" else (NPT_ALL, NPT_ALL)
    words = {0x100000: 0x101000 | table, 0x101000: 0x102000 | table, 0x102000: 0x103000 | table}
    words |= {pt(i): (0x200000 + i * 0x1000) | leaf for i in range(16)}
    words |= {guest(0x17F0): 0x2027, guest(0x2240): 0x3027, guest(0x3D10): 0x4027, guest(0x4B38): 0x5067}
    if levels == 5:
        words[0x105000] = 0x100000 | table
    return words


def walk_ept(
    changes: dict[int, int] = {},  # noqa: B006
    access: str = "r",
    cpl: int = 3,
    *,
    levels: int = 4,
    ad: bool = True,
    sss: bool = False,
    mbec: bool = False,
    address: int = LA,
    guest_registers: dict | None = None,
    **capabilities: bool,
) -> Walk:
    root = 0x105000 if levels == 5 else 0x100000
    eptp = root | 6 | (levels - 1) << 3 | ad << 6 | sss << 7
    second = ept(eptp, 52, EptCapabilities(**capabilities), mode_based_execute=mbec)
    assert isinstance(second, SecondStage), second
    registers = Registers(**{**LONG, "cr3": 0x1000, "cpl": cpl, **(guest_registers or {})})
    memory = SparseMemory(ZERO).with_words(fixture("ept", levels) | changes)
    return walk_nested(memory, bind(registers, Features()), second, address, Access(KINDS[access]))


def walk_npt(
    changes: dict[int, int] = {},  # noqa: B006
    access: str = "r",
    cpl: int = 3,
    *,
    levels: int = 4,
    gmet: bool = False,
    host: dict | None = None,
    root: int | None = None,
    words: dict[int, int] | None = None,
    address: int = LA,
    guest_registers: dict | None = None,
) -> Walk:
    features = Features(vendor=Vendor.AMD)
    host_cr4 = LONG["cr4"] | (int(CR4.LA57) if levels == 5 else 0)
    host_registers = Registers(**{**LONG, "cr4": host_cr4, **(host or {})})
    root = root if root is not None else (0x105000 if levels == 5 else 0x100000)
    second = npt(host_registers, features, root, controls=NptControls(gmet=gmet))
    assert isinstance(second, SecondStage), second
    registers = Registers(**{**LONG, "cr3": 0x1000, "cpl": cpl, **(guest_registers or {})})
    memory = SparseMemory(ZERO).with_words((words if words is not None else fixture("npt", levels)) | changes)
    paging = bind(registers, features, pdptes_from_memory=True)
    return walk_nested(memory, paging, second, address, Access(KINDS[access]))
