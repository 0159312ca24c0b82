"""The two-dimensional walk is a guest walk whose every pointer is translated by a second-stage walk.

The composition is written here on its own: guest-physical memory is a view that translates each word's address with a
plain one-stage walk of the host's tables, as a user write for tables and as the access itself for the page.
"""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from engine.arch.faults import NestedPageFault, PageFault, Translated
from engine.arch.nested_walk import walk_nested
from engine.arch.paging import bind
from engine.arch.registers import CR0, CR4, EFER, Features, Registers, Vendor
from engine.arch.rights import WRITE, Access, Kind
from engine.arch.second_stage import SecondStage, npt
from engine.arch.walk import walk
from engine.memory.physical import ZERO, SparseMemory

FRAMES = 20
"""All tables and pages of both stages, so that they share frames and map each other, as random bytes do."""
FEATURES = Features(vendor=Vendor.AMD, maxphyaddr=40)


class NestedStop(Exception):
    def __init__(self, gpa, outcome):
        super().__init__(hex(gpa))
        self.gpa, self.outcome = gpa, outcome


class GuestPhysical:
    """Guest-physical memory: each word lies where the host's tables say."""

    def __init__(self, memory, host):
        self.memory, self.host = memory, host

    def translate(self, gpa, access):
        outcome = walk(self.memory, self.host, gpa, access).outcome
        if not isinstance(outcome, Translated):
            raise NestedStop(gpa, outcome)
        return outcome.address

    def frame(self, pfn):
        return None

    def word(self, address):
        return self.memory.word(self.translate(address, WRITE) & ~7)


def composed(memory, guest, host, address, access):
    """("ok", HPA), ("#PF", code, CR2) or ("nested", GPA, P, W, RSVD), by composition."""
    view = GuestPhysical(memory, host)
    try:
        # The final access is made by the view as well; the guest's own walk comes first.
        outcome = walk(view, guest, address, access).outcome
        if isinstance(outcome, PageFault):
            return ("#PF", outcome.error_code, outcome.cr2)
        assert isinstance(outcome, Translated)
        return ("ok", view.translate(outcome.address, access))
    except NestedStop as stop:  # always a #PF: the addresses are canonical and all bytes are known
        return ("nested", stop.gpa, stop.outcome.error_code & 0b1011)


def direct(memory, guest, second, address, access):
    outcome = walk_nested(memory, guest, second, address, access).outcome
    match outcome:
        case PageFault():
            return ("#PF", outcome.error_code, outcome.cr2)
        case Translated():
            return ("ok", outcome.address)
        case NestedPageFault():
            return ("nested", outcome.exitinfo2, outcome.exitinfo1 & 0b1011)
    raise AssertionError(outcome)


GOOD = 0x67
ODD = [0x27, 0x07, 0x65, 0x63, 0x66, 0x0, 0xE7, 1 << 63 | 0x67, 1 << 45 | 0x67, 0x87, 1 << 63 | 0x65]
INDEX = st.sampled_from([0, 1, 2, 3])
MODES = {4: int(CR4.PAE), 5: int(CR4.PAE | CR4.LA57)}


@st.composite
def systems(draw):
    random = Random(draw(st.integers(0, 2**32)))
    odd_share = draw(st.sampled_from([0.0, 0.01, 0.05]))
    words = {}
    for frame in range(FRAMES):
        for slot in range(FRAMES):
            flags = random.choice(ODD) if random.random() < odd_share else GOOD
            words[frame << 12 | slot << 3] = random.randrange(FRAMES) << 12 | flags
    guest_mode, host_mode = draw(st.sampled_from([4, 5])), draw(st.sampled_from([4, 5]))
    nxe = draw(st.booleans())
    efer = int(EFER.LME | EFER.LMA) | (int(EFER.NXE) if nxe else 0)
    wp = int(CR0.WP) if draw(st.booleans()) else 0
    cpl = draw(st.sampled_from([0, 3]))
    roots = draw(st.tuples(st.integers(0, FRAMES - 1), st.integers(0, FRAMES - 1)))
    base = {"cr0": int(CR0.PG | CR0.PE), "efer": efer}
    guest = Registers(**{**base, "cr0": base["cr0"] | wp, "cr4": MODES[guest_mode], "cr3": roots[0] << 12, "cpl": cpl})
    host = Registers(**{**base, "cr4": MODES[host_mode], "cr3": roots[1] << 12, "cpl": 3})
    address = sum(draw(INDEX) << shift for shift in (39, 30, 21, 12)) | draw(st.integers(0, 511)) << 3
    kind = draw(st.sampled_from([Kind.READ, Kind.WRITE, Kind.FETCH]))
    return SparseMemory(ZERO).with_words(words), guest, host, address, Access(kind)


@given(systems())
def test_two_dimensions_are_two_walks_composed(system):
    memory, guest_registers, host_registers, address, access = system
    guest = bind(guest_registers, FEATURES, pdptes_from_memory=True)
    second = npt(host_registers, FEATURES, host_registers.cr3)
    assert isinstance(second, SecondStage)
    host = bind(host_registers, FEATURES)
    assert direct(memory, guest, second, address, access) == composed(memory, guest, host, address, access)
