"""Whatever legal events come: a guest's access ends where the guest's tables and the memslots say.

Nothing here changes a pCPU's mode or pokes memory. Random hosts, kernels and backings; random mappings, stores, loads,
fetches, moves, zaps, host memory that moves, collapses or goes, dirty logging; the model knows no nested table.
"""

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.arch.faults import PageFault, Translated
from engine.arch.registers import Mode
from engine.codec import decode_scenario, encode_scenario
from engine.kvm.kernels import KERNELS
from engine.kvm.memslots import Backing, Pages
from engine.kvm.module import Parameters
from engine.kvm.vm import GuestCpu
from engine.machine import Refusal, State, apply
from engine.scenario import Replay, Scenario
from tests.conftest import scaled
from tests.engine.guest_model import expected, hpa_of
from tests.engine.kvm_fixture import FETCH, GIB, LIBRARY, MIB, READ, WRITE, amd, fingerprint, guest, intel, play, vm

ROOT, TABLES, DATA = 0x1_0000, 0x8_0000, 0xC0_0000
HIGH, ROM, DEVICE = 0x4000_0000, 0xFFFE_0000, 0xFEE0_0000
TARGETS = (DATA, DATA + 0x3000, DATA + 2 * MIB, HIGH, HIGH + 0x5000, HIGH + 2 * MIB, ROM, DEVICE)
SMALL = {0x1000: DATA, 0x3F_E000: HIGH + 0x5000, 0xBFC0_0000: ROM, 0xBFC0_1000: DEVICE, 0x2000_3000: DATA + 2 * MIB}
LARGE = {0x40_0000: DATA, 0x80_0000: HIGH}
"""Guest-virtual pages, and what each is mapped to; the large ones are of 2 or 4 MiB."""
MODES = ("none", "32-bit", "PAE", "4-level", "5-level")


def page_of(mode: str, place: int) -> int:
    return 4096 if place in SMALL else 4 * MIB if mode == "32-bit" else 2 * MIB


def mapped(mode: str, place: int, tables: int, **flags: bool) -> ev.MapGuestPages:
    page, target = page_of(mode, place), {**SMALL, **LARGE}[place]
    return ev.MapGuestPages(root_of(mode), tables, place, target, page, page, mode, **flags)  # type: ignore[arg-type]


def root_of(mode: str) -> int:
    return ROOT + MODES.index(mode) * 0x1000


@st.composite
def hosts(draw: st.DrawFn) -> tuple[ev.Event, ...]:
    """A host, KVM, a VM with RAM below 16 MiB and at 1 GiB, a ROM, and two vCPUs."""
    setup = draw(
        st.sampled_from(
            [amd(48), amd(52), intel(), intel(walk5=False), intel(accessed_dirty=False, execute_only=False)]
        )
    )
    kernel = draw(st.sampled_from([k for k in KERNELS if k not in ("5.12", "5.13", "unforced")]))
    five = draw(st.booleans())
    if draw(st.booleans()) and not five:
        kernel = draw(st.sampled_from(["5.12", "5.13"]))
    parameters = Parameters(
        tdp_mmu=draw(st.sampled_from([None, False, True])),
        nx_huge_pages=draw(st.booleans()),
        mmio_caching=draw(st.booleans()),
    )
    backing = draw(st.sampled_from([Pages.SMALL, Pages.THP, Pages.HUGE_2M]))
    # Where the VMM mapped it decides whether KVM can use large pages.
    shift = draw(st.sampled_from([0, 0x20_0000, 0x1000])) if backing is not Pages.HUGE_2M else 0
    bits = draw(st.sampled_from([48, 52]))
    rights = st.fixed_dictionaries(
        {name: st.sampled_from([True, True, False]) for name in ("write", "user", "execute")}
    )
    tables = count(TABLES, 0x8000)
    maps = [mapped(mode, place, next(tables), **draw(rights)) for mode in MODES[1:] for place in (*SMALL, *LARGE)]
    return (
        ev.BootHost((setup, setup), five, 2 * GIB, seed=draw(st.integers(0, 99))),
        ev.LoadKvm(kernel, parameters),
        ev.CreateVm(),
        ev.SetMemslot(0, 0, 16 * MIB, Backing(pages=backing), hva=0x7E00_0000_0000 + shift),
        ev.SetMemslot(0, HIGH, 4 * MIB, Backing(pages=draw(st.sampled_from(list(Pages)[:3])))),
        ev.SetMemslot(0, ROM, 128 << 10, read_only=True),
        ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=bits)),
        ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=bits), pcpu=1),
        *maps,
    )


@st.composite
def changes(draw: st.DrawFn, state: State) -> ev.Event:
    """An event that is no access."""
    gpa = draw(st.sampled_from(TARGETS)) + draw(st.sampled_from([0, 0x1000]))
    mode, vcpu = draw(st.sampled_from(MODES)), draw(st.integers(0, 1))
    registers = guest(mode, root_of(mode), draw(st.sampled_from([0, 3])), wp=draw(st.booleans()))
    return draw(
        st.sampled_from([
            ev.SetGuestRegisters(registers, vcpu=vcpu),
            ev.SetGuestRegisters(registers, vcpu=vcpu),
            ev.MoveVcpu(draw(st.integers(0, 1)), vcpu=vcpu),
            ev.ZapGuest(gpa & -4096, draw(st.sampled_from([0, 4096, 2 * MIB]))),
            ev.HostMemory(gpa, draw(st.sampled_from(["move", "collapse", "collapse", "age", "unmap"]))),
            ev.DirtyLogging(draw(st.booleans()), slot=draw(st.integers(0, 2))),
            ev.FlushTlb(),
            ev.DeleteMemslot(slot=1) if len(vm(state).slots) == 3 else ev.SetMemslot(0, HIGH, 4 * MIB),
            ev.Populate(vcpu=vcpu, slot=draw(st.integers(1, 2))),
        ])
    )  # fmt: skip


@st.composite
def accesses(draw: st.DrawFn, state: State) -> ev.GuestAccess:
    """An access to memory that holds data, never to the guest's tables; it may cross a page."""
    number = draw(st.integers(0, 1))
    kind = draw(st.sampled_from([READ, WRITE, FETCH]))
    size = 1 if kind is FETCH else draw(st.sampled_from([1, 2, 4, 8]))
    mode = vm(state).vcpus[number].registers.mode
    place = draw(st.sampled_from(TARGETS if mode is Mode.NONE else (*SMALL, *LARGE)))
    inside = [0, 0x8, 0xFFC] if place in SMALL or mode is Mode.NONE else [0, 0xFFC, 0x1000, 0x3008, 0x1F_FFFC]
    value = draw(st.integers(0, (1 << 64) - 1))
    return ev.GuestAccess(place + draw(st.sampled_from(inside)), kind, size, value, vcpu=number)  # type: ignore[arg-type]


class Told:
    """What the guest stored: bytes by GPA. A page that the host throws away is zero again."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}

    def store(self, gpas: list[int], value: int) -> None:
        for n, gpa in enumerate(gpas):
            self.bytes[gpa] = value >> 8 * n & 0xFF

    def load(self, gpas: list[int]) -> int:
        return sum(self.bytes.get(gpa, 0) << 8 * n for n, gpa in enumerate(gpas))

    def follow(self, before: State, after: State, event: ev.Event) -> None:
        if isinstance(event, ev.DeleteMemslot):
            self.bytes = {gpa: b for gpa, b in self.bytes.items() if not HIGH <= gpa < HIGH + 4 * MIB}
        elif isinstance(event, ev.HostMemory) and event.action == "unmap":
            gone = [gpa for gpa in self.bytes if hpa_of(before, vm(before), gpa) and not hpa_of(after, vm(after), gpa)]
            for gpa in gone:
                del self.bytes[gpa]


def check_access(before: State, after: State, event: ev.GuestAccess, told: Told) -> None:
    effect, registers = after.effect, vm(before).vcpus[event.vcpu].registers
    assert effect.livelock is None, effect.exits
    first, last = event.address, event.address + event.size - 1
    ends = [first] if first >> 12 == last >> 12 else [first, last & -4096]
    parts = [expected(before, vm(before), registers, at, event.kind) for at in ends]
    wanted = next((part for part in parts if part.kind != "memory"), parts[0])
    outcome = effect.walks[-1].outcome
    if wanted.kind == "mmio" and parts[-1].kind == "page fault":
        # KVM's emulator finds the fault of the second page, once the first has made it step in.
        wanted, outcome = parts[-1], effect.fault  # type: ignore[assignment]
    match wanted.kind:
        case "memory":
            assert effect.emulated is None
            gpas = [parts[0].gpa + n for n in range(event.size)]
            if len(parts) == 2:
                gpas = [*gpas[: -first & 0xFFF], *(parts[1].gpa + n for n in range(event.size - (-first & 0xFFF)))]
            for walk, part in zip(effect.walks, parts, strict=True):
                assert isinstance(walk.outcome, Translated)
                assert walk.outcome.address == hpa_of(after, vm(after), part.gpa)
            if event.kind is WRITE:
                told.store(gpas, event.value)
            else:
                assert effect.loaded == told.load(gpas)
        case "page fault":
            assert isinstance(outcome, PageFault)
            assert outcome.error_code == wanted.code
        case "mmio" if event.kind is FETCH:
            assert effect.emulated is not None
            assert effect.emulated.failed
        case "mmio":
            assert effect.mmio
        case "emulator":
            assert effect.emulated is not None or effect.mmio or not isinstance(outcome, Translated)


@given(hosts(), st.data())
@settings(max_examples=scaled(2000))
def test_every_access_ends_where_the_guests_tables_and_the_memslots_say(host: tuple[ev.Event, ...], data: Any) -> None:
    state, told, done = play(*host), Told(), list(host)
    states = [state]
    for number in range(data.draw(st.integers(4, 30))):
        is_access = number > 1 and data.draw(st.integers(0, 2)) > 0
        event = data.draw(accesses(state) if is_access else changes(state))
        reached = apply(state, event, LIBRARY)
        done.append(event)
        if isinstance(reached, Refusal):
            assert not isinstance(event, ev.GuestAccess), reached
            states.append(state)
            continue
        if isinstance(event, ev.GuestAccess):
            check_access(state, reached, event, told)
        told.follow(state, reached, event)
        state = reached
        states.append(state)
    check_replay(Scenario(events=tuple(done)), states)


def check_replay(scenario: Scenario, states: list[State]) -> None:
    """A replay gives the same states, in any order of asking, and from JSON too."""
    first = len(scenario.events) - len(states) + 1
    replay = Replay(decode_scenario(encode_scenario(scenario)), LIBRARY)
    marks = {n: fingerprint(state) for n, state in enumerate(states, first)}
    for n in (first + len(states) // 2, len(scenario.events), first):
        assert fingerprint(replay.state(n)) == marks[n]
