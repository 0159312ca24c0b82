"""What mirrors what: every SPTE's guest entry, found again here by walking the guest's bytes for the SPTE's address."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.kvm.vm import NestedPaging
from engine.machine import Refusal, State
from engine.machine.guest_view import GuestView
from engine.machine.mirror import Link, Mirror, Status, TableKind, Why, mirror
from tests.conftest import scaled
from tests.engine import test_nested_property as nested_guest
from tests.engine import test_shadow_property as plain_guest
from tests.engine.guest_model import hpa_of
from tests.engine.kvm_fixture import FETCH, MIB, READ, VM, WRITE, after, amd, booted, guest, play, slot, vcpu, vm
from tests.engine.test_shadow_roots import NPT_ROOT, nested, shadowed

SHIFTS = {2: (22, 12), 3: (30, 21, 12), 4: (39, 30, 21, 12), 5: (48, 39, 30, 21, 12)}
ADDRESS = (1 << 52) - 0x1000


def made(state: State) -> Mirror:
    found = mirror(state)
    assert isinstance(found, Mirror), found
    return found


# --- the oracle


class Entry(NamedTuple):
    level: int
    gpa: int
    value: int
    is_leaf: bool


def guest_path(state: State, found: Mirror, address: int) -> list[Entry]:
    """The guest's entries for ``address``, from the root as far as they are present."""
    view, levels = GuestView(state, vm(state)), len(found.above.levels)
    is_ept = found.nested is NestedPaging.EPT
    size, mask = (4, 1023) if levels == 2 else (8, 511)
    table, path = found.above.root, []
    for n, shift in enumerate(SHIFTS[levels]):
        level = levels - n
        is_pdpte = levels == 3 and level == 3
        at = table + (address >> shift & (3 if is_pdpte else mask)) * size
        registers = found.above.registers.pdptes
        if is_pdpte and registers is not None and found.nested is None:
            value = registers[address >> 30 & 3]
        else:
            value = (view.word(at & ~7) or 0) >> 8 * (at & 7) & (1 << 8 * size) - 1
        if not value & (7 if is_ept else 1):
            break
        is_leaf = level == 1 or (bool(value & 0x80) and not is_pdpte and level < 4)
        path.append(Entry(level, at, value, is_leaf))
        if is_leaf:
            break
        table = value & (ADDRESS if size == 8 else 0xFFFF_F000)
    return path


class Found(NamedTuple):
    address: int
    level: int
    at: int
    value: int


def sptes(state: State) -> list[Found]:
    """All present SPTEs, with the first input address of each."""
    cpu = vcpu(state)
    assert cpu.root is not None
    special = cpu.special.tables

    def below(table: int, level: int, start: int) -> list[Found]:
        found = []
        for n in range(4 if cpu.role.level == level == 3 else 512):
            value = state.memory.word(table + n * 8) or 0
            if not value & (1 if table in special else 1 << 11):
                continue
            address = start + (n << 12 + 9 * (level - 1))
            found.append(Found(address, level, table + n * 8, value))
            if level > 1 and (table in special or not value & 0x80):
                found += below(value & ADDRESS, level - 1, address)
        return found

    return below(cpu.root.hpa, cpu.root.role.level, 0)


def expected(state: State, found: Mirror) -> set[tuple[int, int]]:
    """(host address of an SPTE, guest-physical address of the entry that it mirrors)."""
    pairs = set()
    special = vcpu(state).special
    for address, level, at, _ in sptes(state):
        path = guest_path(state, found, address)
        if at & ~0xFFF in (special.pml4_root, special.pml5_root):
            continue
        entry = next((e for e in path if e.level == level), None)
        if entry is None and path and path[-1].is_leaf and path[-1].level > level:
            entry = path[-1]
        if entry is not None:
            pairs.add((at, entry.gpa))
    return pairs


def guest_address(found: Mirror, link: Link) -> int:
    return link.guest + link.guest_index * (4 if len(found.above.levels) == 2 else 8)


def agrees_with_the_bytes(state: State, found: Mirror) -> None:
    by_spte: dict[int, list[Link]] = {}
    for link in found.links:
        by_spte.setdefault(link.table + link.index * 8, []).append(link)
    assert {(at, guest_address(found, each)) for at, links in by_spte.items() for each in links} == expected(
        state, found
    )
    is_ept = found.nested is NestedPaging.EPT
    no_nested = state.module is not None and not state.module.tdp_enabled
    ept_sptes = bool(state.module is not None and state.module.spte.execute)
    for address, level, at, value in sptes(state):
        if (level > 1 and not value & 0x80) or at & ~0xFFF in vcpu(state).special.tables:
            continue
        (link,) = [each for each in by_spte[at] if guest_address(found, each) in _path_addresses(state, found, address)]
        path = guest_path(state, found, address)
        reached = bool(path) and path[-1].is_leaf
        if not reached:
            assert link.status is Status.STALE, link
            continue
        rights = [e.value for e in path if not (len(found.above.levels) == 3 and e.level == 3)]
        every, some = -1, 0
        for one in rights:
            every, some = every & one, some | one
        may = (
            (every >> 1 & 1, every & 1, every >> 2 & 1) if is_ept
            else (every >> 1 & 1, every >> 2 & 1, 1 - (some >> 63))
        )  # fmt: skip
        gives = (
            (value >> 1 & 1, value & 1, value >> 2 & 1) if ept_sptes
            else (value >> 1 & 1, value >> 2 & 1, 1 - (value >> 63))
        )  # fmt: skip
        leaf = path[-1]
        size = 22 if len(found.above.levels) == 2 and leaf.level == 2 else 12 + 9 * (leaf.level - 1)
        frame = leaf.value & (ADDRESS if len(found.above.levels) > 2 else 0xFFFF_F000) & -(1 << size)
        place = hpa_of(state, vm(state), frame | address & (1 << size) - 1)
        accessed = leaf.value & (1 << 8 if is_ept else 1 << 5)
        odd = leaf.value >> 50 & 3 or (leaf.level > 1 and leaf.value & (1 << size) - 1 & ~0x1FFF)
        if place != value & ADDRESS or not accessed or odd:
            assert link.status is Status.STALE, link
        elif any(g > m for g, m in zip(gives, may, strict=True)):
            assert link.status is Status.STALE or (link.why is Why.NO_WP and no_nested), link
        elif gives == may:
            assert link.status is Status.AGREES, link
        else:
            assert link.status is Status.NARROWER or link.status is Status.STALE, link
            assert link.status is not Status.NARROWER or gives[0] < may[0], link


def _path_addresses(state: State, found: Mirror, address: int) -> set[int]:
    view_path = guest_path(state, found, address)
    levels = len(found.above.levels)
    size = 4 if levels == 2 else 8
    # Where the guest's last entry has been cleared, its place is still that of the entry which was.
    if view_path and not view_path[-1].is_leaf:
        last = view_path[-1]
        shift = SHIFTS[levels][levels - last.level + 1]
        table = last.value & (ADDRESS if size == 8 else 0xFFFF_F000)
        return {e.gpa for e in view_path} | {table + (address >> shift & (1023 if size == 4 else 511)) * size}
    return {e.gpa for e in view_path}


# --- whatever happens


@pytest.mark.parametrize(("vendor", "l1", "five"), nested_guest.SYSTEMS)
@settings(max_examples=scaled(300), deadline=None)
@given(data=st.data())
def test_links_of_a_nested_guest_are_what_the_bytes_say(vendor: str, l1: str, five: bool, data: Any) -> None:
    inside = nested_guest.Inside(nested_guest.started(vendor, l1, five, "none"), "none")
    entries = nested_guest.entries_of(inside.state)
    for _ in range(data.draw(st.integers(1, 5))):
        inside.access(data.draw(st.sampled_from(inside.addresses)), data.draw(st.sampled_from((READ, WRITE))), False)
        gpa, value = data.draw(nested_guest.edits(entries, vendor == "intel"))
        if l1 == "PAE" and gpa & ~0x1F == NPT_ROOT:
            continue
        inside.l1_writes(gpa, value, data.draw(st.booleans()))
        found = mirror(inside.state)
        if isinstance(found, Mirror) and vcpu(inside.state).root is not None:
            check(inside.state, found)


def check(state: State, found: Mirror) -> None:
    """Also where an entry was cleared: then the SPTE that is out of date has its place and no entry."""
    cleared = [link for link in found.links if link.guest_value is not None and not _present(found, link)]
    assert all(link.status is Status.STALE and link.level == 1 for link in cleared)
    if not cleared:
        agrees_with_the_bytes(state, found)


def _present(found: Mirror, link: Link) -> bool:
    return bool((link.guest_value or 0) & (7 if found.nested is NestedPaging.EPT else 1))


@pytest.mark.parametrize("mode", plain_guest.MODES)
@settings(max_examples=scaled(600), deadline=None)
@given(data=st.data(), wp=st.booleans())
def test_links_of_a_guest_without_nested_paging_are_what_the_bytes_say(mode: str, data: Any, wp: bool) -> None:
    (entries, lowest, leaves), frames = plain_guest.layout(mode), plain_guest.layout(mode).frames
    played = plain_guest.Played(plain_guest.started(mode, "amd", wp), mode, lowest)
    for _ in range(data.draw(st.integers(2, 8))):
        address = plain_guest.AREA + data.draw(st.sampled_from(plain_guest.OFFSETS))
        played.access(address, data.draw(st.sampled_from((READ, WRITE, FETCH))), False)
        gpa, level = data.draw(st.sampled_from(entries))
        if mode == "PAE" and level == 3:
            gpa, level = leaves[address], 1
        played.poke(gpa, data.draw(plain_guest.values(mode, level, frames.get(level - 1, []), lowest)))
        played.flush(data.draw(st.sampled_from(plain_guest.FLUSHES)), address)
        if vcpu(played.state).root is not None:
            check(played.state, made(played.state))


# --- what is said of tables


def kinds(found: Mirror) -> list[str]:
    return [f"{table.level.level} {table.kind.name}" + (" extra" if table.extra else "") for table in found.shadow]


def test_a_4_level_l1_on_a_5_level_host_costs_one_passthrough_table() -> None:
    state = after(nested_guest.started("amd", "4-level", True, "none"), ev.GuestAccess(0x100000))
    found = made(state)
    assert kinds(found) == ["5 PASSTHROUGH extra", "4 MIRROR", "3 MIRROR", "2 MIRROR", "1 MIRROR"]
    assert [table.level.level for table in found.guest] == [4, 3, 2, 1]
    passthrough = found.extra[0].hpa
    assert not [link for link in found.links if link.table == passthrough]
    assert (found.references, found.bare) == (5, 4)  # L2 has paging off: one descent


def test_a_32_bit_l1_costs_three_tables_and_is_mirrored_in_quarters() -> None:
    state = after(nested_guest.started("amd", "32-bit", True, "32-bit"), ev.GuestAccess(0x4000_0000))
    found = made(state)
    special = ["5 PML5_ROOT extra", "4 PML4_ROOT extra", "3 PAE_ROOT extra"]
    assert kinds(found) == [*special, *["2 MIRROR"] * 4, "1 MIRROR"]
    assert [table.role.quadrant for table in found.shadow[3:7] if table.role] == [0, 1, 2, 3]
    assert (found.references, found.bare) == (17, 8)


def test_two_directory_sptes_mirror_one_entry_of_4_bytes() -> None:
    """A 4-MiB page of a 32-bit guest, in 4-KiB memory: two direct tables, whose SPTEs all mirror the one entry."""
    state = play(*booted(amd(), npt=False), *VM, slot(0, 32 * MIB))
    pages = ev.MapGuestPages(0x1000, 0x2000, 0x4000_0000, 4 * MIB, 4 * MIB, page_size=4 * MIB, mode="32-bit")
    state = after(state, pages, ev.SetGuestRegisters(guest("32-bit", 0x1000)))
    state = after(state, ev.GuestAccess(0x4000_0000), ev.GuestAccess(0x4020_3000))
    found = made(state)
    low = [link for link in found.links if link.level == 1]
    assert {(link.guest, link.guest_level, link.guest_index) for link in found.links} == {(0x1000, 2, 256)}
    assert sorted(link.index for link in low) == [0, 3]
    assert len([link for link in found.links if link.level == 2]) == 2
    assert {found.shadow_at(link.table).kind for link in low} == {TableKind.DIRECT}  # type: ignore[union-attr]
    assert found.count(Status.STALE) == 0
    check(state, found)


def test_the_pdptes_of_a_pae_guest_are_mirrored_by_pae_root() -> None:
    found = made(shadowed("PAE"))
    assert [(link.index, link.guest_index, link.status) for link in found.links] == [
        (0, 0, Status.AGREES), (2, 2, Status.AGREES),
    ]  # fmt: skip
    assert found.guest[0].registers
    assert found.extra == ()


def test_a_guest_with_paging_off_has_direct_tables_that_mirror_nothing() -> None:
    found = made(shadowed("none"))
    assert found.guest == ()
    assert found.links == ()
    assert {table.kind for table in found.shadow} == {TableKind.PAE_ROOT, TableKind.DIRECT}


def test_before_5_19_the_level_5_table_is_keyed_by_a_table_of_another_level() -> None:
    state = nested(4, True, "5.15")
    state = after(state, ev.EnterNested(guest("none", 0), root=NPT_ROOT), ev.GuestAccess(0))
    assert kinds(made(state)) == ["5 OTHER_LEVEL extra"]


def test_while_l1_runs_the_parked_tables_are_shown() -> None:
    state = after(nested_guest.started("amd", "PAE", False, "none"), ev.GuestAccess(0x100000))
    assert made(after(state, ev.LeaveNested())).links == made(state).links


# --- what is said of entries


def last_level(state: State, address: int) -> Link:
    (link,) = [link for link in made(state).links if link.level == 1 and link.index == address >> 12 & 511]
    return link


def test_w_waits_for_d_and_comes_with_the_write() -> None:
    state = after(nested_guest.started("amd", "4-level", True, "none"), ev.GuestAccess(0x105000))
    assert (last_level(state, 0x105000).status, last_level(state, 0x105000).why) == (Status.NARROWER, Why.CLEAN)
    state = after(state, ev.GuestAccess(0x105000, WRITE))
    assert last_level(state, 0x105000).status is Status.AGREES


def test_a_page_that_holds_a_mirrored_table_is_write_protected() -> None:
    state = plain_guest.started("4-level", "amd", True)
    state = after(state, ev.GuestAccess(plain_guest.WINDOW["4-level"] + 0x1000, READ))
    found = made(state)
    why = {link.guest_index: link.why for link in found.links if link.level == 1}
    assert why[1] is Why.TABLE


def test_an_entry_that_was_changed_without_a_flush_is_out_of_date() -> None:
    state = nested_guest.started("intel", "4", False, "none")
    inside = nested_guest.Inside(after(state, ev.GuestAccess(0x100000, WRITE)), "none")
    gpa = next(at for at, _, level in nested_guest.entries_of(inside.state) if level == 1 and at & 0xFFF == 0x800)
    view = GuestView(inside.state, vm(inside.state))
    for invept, status in ((False, Status.STALE), (True, Status.AGREES)):
        inside.l1_writes(gpa, (view.word(gpa) or 0) ^ 0x1000, invept)
        shown = after(inside.state, ev.GuestAccess(0x101000)) if invept else inside.state
        found = made(shown)
        (link,) = [each for each in found.links if each.level == 1 and each.index == 256]
        assert link.status is status, invept
        table = found.shadow_at(link.table)
        assert table is not None
        assert table.unsync is not invept
        break


# --- where there is none


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (lambda: play(*booted(amd()), *VM, slot(0, MIB)), "hardware walks the guest's own tables"),
        (lambda: play(*booted(amd()), *VM[:1]), "has no vCPU 0"),
        (lambda: play(), "no guest under KVM"),
    ],
)
def test_elsewhere_it_is_refused_with_a_sentence(state: Any, says: str) -> None:
    found = mirror(state())
    assert isinstance(found, Refusal)
    assert says in found.reason


def test_before_the_first_access_there_is_only_the_guests_side() -> None:
    found = made(nested_guest.started("amd", "4-level", True, "none"))
    assert len(found.guest) == 4
    assert found.shadow == ()


def test_a_guest_root_in_no_memslot_has_a_dummy_root() -> None:
    found = made(shadowed("4-level", 0x9000_0000))
    assert kinds(found) == ["4 EMPTY"]


def test_a_self_mapped_guest_table_is_listed_once_a_level() -> None:
    state = play(*booted(amd(), npt=False), *VM, slot(0, 16 * MIB))
    state = after(state, ev.FillGuestPages(0x1000, (0x1003,)), ev.SetGuestRegisters(guest("4-level", 0x1000)))
    found = made(after(state, ev.GuestAccess(0)))
    assert [(table.level.level, table.gpa) for table in found.guest] == [(n, 0x1000) for n in (4, 3, 2, 1)]
    assert found.is_whole


def test_of_a_guest_with_thousands_of_tables_all_mirrored_ones_are_listed_and_some_others() -> None:
    """A directory whose 512 entries name a table each; the guest has used the last."""
    state = play(*booted(amd(), npt=False), *VM, slot(0, 16 * MIB))
    tables = tuple((0x10_0000 + n * 0x1000) | 0x67 for n in range(512))
    state = after(
        state, ev.FillGuestPages(0x1000, (0x2067,)), ev.FillGuestPages(0x2000, (0x3067,)),
        ev.FillGuestPages(0x3000, tables), ev.FillGuestPages(0x10_0000 + 511 * 0x1000, (0x4067,)),
        ev.SetGuestRegisters(guest("4-level", 0x1000)), ev.GuestAccess(511 << 21),
    )  # fmt: skip
    found = made(state)
    assert not found.is_whole
    assert found.guest_at(0x10_0000 + 511 * 0x1000, 1) is not None
    assert 250 < len(found.guest) < 300
    assert found.count(Status.STALE) == 0
