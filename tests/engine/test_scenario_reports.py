"""Reports of scenarios: what stands in them is what the engine says, and text and page can be sent to anybody."""

import re
from functools import cache
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import events as ev
from engine.arch.registers import Mode
from engine.arch.rights import Access, Kind
from engine.arch.walk import walk
from engine.cli.run import read_scenario
from engine.effects.compare import Class, Side, side
from engine.effects.comparison import compare
from engine.effects.findings import Severity
from engine.errors import InputError
from engine.kvm.module import actual, would_capture
from engine.memory.library import Library
from engine.report import html, text
from engine.report.compose import Asked, report, walk_blocks
from engine.report.effects import Moment, moments
from engine.report.events import SAYINGS
from engine.report.findings import over_time
from engine.report.machine import value_text
from engine.report.model import Bands, Cell, Entries, Fields, Grid, Head, Items, Paragraph, Report, Row, Section, Table
from engine.report.story import Story, tell
from engine.scenario import Scenario
from tests.conftest import ROOT, scaled
from tests.engine.anything import any_event
from tests.engine.nested_fixture import guest, pt, walk_ept, walk_npt
from tests.engine.pages import Page
from tests.engine.spaces import random_space
from tests.engine.test_scenario_property import accesses, changes, hosts

FOLDER = ROOT / "resources" / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
AMD = "amd-4-to-5-after-kvm-init"
ACCESSED, CHANGED, MOVED, ENDLESS, BACK = 10, 11, 12, 13, 15
"""Steps of that scenario."""


def quiet(share: float) -> None:
    assert 0.0 <= share <= 1.0


@cache
def story(name: str) -> Story:
    return tell(name, *read_scenario(str(FOLDER / f"{name}.json")), quiet)


@cache
def made(name: str) -> Report:
    return report(*read_scenario(str(FOLDER / f"{name}.json")), Asked(name), quiet)


def of_events(*events: ev.Event, name: str = "events") -> Report:
    return report(Scenario(events=events), Library(), Asked(name), quiet)


def blocks_of(section: Section | Report, kind: type) -> list[Any]:
    """All blocks of a kind, those of parts and entries too."""
    if isinstance(section, Report):
        return [block for part in section.sections for block in blocks_of(part, kind)]
    found = [block for block in section.blocks if isinstance(block, kind)]
    for block in section.blocks:
        if isinstance(block, Entries):
            found += [inner for entry in block.entries for inner in entry.blocks if isinstance(inner, kind)]
    return found + [block for part in section.parts for block in blocks_of(part, kind)]


def section(name: str, key: str) -> Section:
    return next(each for each in made(name).sections if each.key == key)


def check_text(told: str) -> None:
    """It can be sent: ASCII, lines that stay whole when they are quoted, no blanks at their ends."""
    assert told.isascii()
    assert max(map(len, told.splitlines())) <= text.WIDTH
    assert [line for line in told.splitlines() if line != line.rstrip() or not line.isprintable()] == []
    assert told.endswith("\n")


def words(told: str) -> str:
    return re.sub(r"[\s!]+", " ", told)


# --- every scenario that comes with the program


@pytest.mark.parametrize("name", NAMES)
def test_the_text_can_be_sent_by_mail(name: str) -> None:
    check_text(text.render(made(name)))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_whole_and_asks_for_nothing(name: str) -> None:
    page = Page(html.render(made(name)))
    pictures = len(blocks_of(made(name), Grid)) + len(blocks_of(made(name), Bands))
    assert page.tags["h1"] == page.tags["main"] == page.tags["nav"] == 1
    named = [tag for tag in page.ids if tag.startswith("picture-") and tag.endswith("-title")]
    assert len(named) == pictures


@pytest.mark.parametrize("name", NAMES)
def test_text_and_page_say_the_same(name: str) -> None:
    said, page = words(text.render(made(name))), words(text.ascii_text(Page(html.render(made(name))).said))
    for part in made(name).sections:
        assert words(part.title) in said
        assert words(part.title) in page
    for block in blocks_of(made(name), Items):
        for item in block.items:
            assert words(text.ascii_text(item)).strip() in page
            assert words(text.ascii_text(item)).strip().replace(" ", "") in said.replace(" ", "")


@pytest.mark.parametrize("name", NAMES)
def test_every_event_is_told_with_its_number_and_marked_where_it_went_wrong(name: str) -> None:
    entries = blocks_of(section(name, "events"), Entries)[0].entries
    assert [entry.number for entry in entries] == list(range(1, story(name).last + 1))
    for entry, (_, _, state, refusal) in zip(entries, story(name), strict=True):
        effect = state.effect
        if refusal is not None or effect.livelock is not None or effect.fault is not None:
            assert entry.marked, entry
        if refusal is not None:
            assert refusal.reason in entry.blocks[0].text


@pytest.mark.parametrize("name", NAMES)
def test_every_reference_of_a_walk_has_its_cell_and_its_row(name: str) -> None:
    walks = [part for each in made(name).sections if each.key == "walks" for part in each.parts]
    for part in walks:
        grids, tables = blocks_of(part, Grid), [t for t in blocks_of(part, Table) if t.head[0] == "#"]
        assert len(grids) == len(tables) <= 1
        for grid, table in zip(grids, tables, strict=True):
            rows = [row.cells for row in table.rows if len(row.cells) > 1]
            assert [cell.number or "-" for cell in grid.cells] == [cells[0] for cells in rows]
            assert [cell.address or "register" for cell in grid.cells] == [cells[2] for cells in rows]
            places = [(cell.row, cell.column) for cell in grid.cells]
            assert len(set(places)) == len(places)


# --- the AMD case, against the engine


def test_what_was_captured_stands_beside_what_is_there_now() -> None:
    last = story(AMD).states[-1]
    module, host = last.module, last.host
    assert module is not None
    assert host is not None
    table = next(t for t in blocks_of(section(AMD, "captured"), Table))
    again = would_capture(module, host, module.pcpu)
    by_name = {row.cells[0]: row for row in table.rows}
    assert set(by_name) == {each.name for each in module.captured}
    for each in module.captured:
        row = by_name[each.name]
        assert row.cells[1:3] == (value_text(each.value), value_text(again[each.name]))
        hardware = [actual(module, host, n).get(each.name) for n in (0, 1)]
        assert row.marked is any(value not in (None, each.value) for value in hardware)
    assert by_name["max_tdp_level"].cells == ("max_tdp_level", "4", "4", "4 | 5")
    origins = " ".join(item for block in blocks_of(section(AMD, "captured"), Items) for item in block.items)
    for each in module.captured:
        assert each.name in origins
        assert each.function in origins


def test_the_change_of_mode_is_what_is_compared() -> None:
    asked = moments(story(AMD), 0, 0)
    assert asked == (Moment(ACCESSED), Moment(CHANGED, 1))
    a, b = side(story(AMD).states[ACCESSED]), side(story(AMD).states[CHANGED], pcpu=1)
    assert isinstance(a, Side)
    assert isinstance(b, Side)
    pages = compare(a, b).pages
    table = next(t for t in blocks_of(section(AMD, "effects"), Table) if t.head[0] == "pages")
    assert [int(row.cells[0].replace(",", "")) for row in table.rows] == list(pages.values())
    assert [row.marked for row in table.rows] == [kind is Class.HOST_PAGE for kind in pages]
    bands = blocks_of(section(AMD, "effects"), Bands)[0]
    assert {stretch.kind for stretch in bands.strips[1].stretches} == {Class.NOT_PRESENT, Class.HOST_PAGE}


def test_the_same_tables_are_read_in_both_ways() -> None:
    """A page that faults now, and one that is exposed: the first three tables are the same, one level apart."""
    tables = [t for t in blocks_of(section(AMD, "effects"), Table) if t.head[0] == "A reads"]
    assert len(tables) == 2
    for table in tables:
        rows = [row.cells for row in table.rows]
        assert (rows[0][0], rows[0][2]) == ("nPML4[0]", "nPML5[0]")
        assert [a_at == b_at for _, a_at, _, b_at in rows[:2]] == [True, True]
        assert {"comes to"} == {row[0] for row in rows if "HPA" in row[1] or "present" in row[1]}
    faults, exposed = ([row.cells for row in table.rows] for table in tables)
    assert faults[-1] == ("comes to", "HPA 0xe0b9a000", "comes to", "not present")
    assert exposed[-1][2] == "comes to"
    assert exposed[-1][3].startswith("HPA ")


def test_findings_hold_from_step_to_step() -> None:
    held = {each.finding.key: each for each in over_time(story(AMD), quiet)}
    assert held["mixed-modes"].runs == ((CHANGED, BACK),)
    assert held["stale-level"].runs == ((MOVED, ENDLESS),)
    assert held["livelock"].runs == ((ENDLESS, ENDLESS),)
    assert held["livelock"].when == f"step {ENDLESS}"
    parts = section(AMD, "findings").parts
    assert len(parts) == len(over_time(story(AMD), quiet))
    assert [part.marked for part in parts] == [
        each.finding.severity is Severity.HAZARD for each in over_time(story(AMD), quiet)
    ]
    for part, each in zip(parts, over_time(story(AMD), quiet), strict=True):
        said = {name for block in blocks_of(part, Fields) for name, _ in block.rows}
        assert {"rests on", *(evidence.what for evidence in each.finding.evidence)} <= said


def test_a_walk_that_is_made_again_is_told_once() -> None:
    first, endless, again = section(AMD, "walks").parts
    assert len(blocks_of(first, Grid)[0].cells) == 24
    assert [cell.stops for cell in blocks_of(endless, Grid)[0].cells] == [False, False, False, True]
    assert blocks_of(again, Grid) == []
    assert "step 10" in again.blocks[0].text


def test_an_endless_access_has_its_proof_and_what_a_trace_shows() -> None:
    entry = blocks_of(section(AMD, "events"), Entries)[0].entries[ENDLESS - 1]
    proof = dict(next(block for block in entry.blocks if isinstance(block, Fields)).rows)
    assert "exit 2 is exit 1 again" in proof["endless"]
    assert "pf_spurious +1" in proof["each round"]
    assert "kvm_mmu_spte_requested" in proof["in a trace"]


def test_a_guest_that_reaches_a_wrong_page_is_told_so() -> None:
    events = blocks_of(section("guest-writes-its-nested-table", "events"), Entries)[0].entries
    wrong = [entry.number for entry in events if "not the guest's page" in str(entry.blocks)]
    assert wrong
    assert all(events[number - 1].marked for number in wrong)


# --- which moments


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("amd-5-to-4", (Moment(10), Moment(11, 1))),
        ("amd-4-to-5-same-root", (Moment(10), Moment(12))),  # the pCPU that changed is lost
        ("linux-5.12-on-la57", None),
        ("linux-5.13-refuses-la57", None),
    ],
)
def test_moments_that_make_sense(name: str, expected: tuple[Moment, Moment] | None) -> None:
    assert moments(story(name), 0, 0) == expected


def test_two_pcpus_are_compared_where_the_tables_came_after_the_change() -> None:
    told = tell("", Scenario(events=(
        ev.BootHost(), ev.LoadKvm(), ev.ChangeMode(pcpu=1, la57=True), ev.CreateVm(), ev.CreateVcpu(),
        ev.SetMemslot(size=2 << 20), ev.Populate(),
    )), Library(), quiet)  # fmt: skip
    assert moments(told, 0, 0) == (Moment(7, 0), Moment(7, 1))


def test_asked_moments_are_taken_and_their_absence_is_told() -> None:
    scenario, images = read_scenario(str(FOLDER / f"{AMD}.json"))

    def said(a: Moment, b: Moment) -> str:
        found = report(scenario, images, Asked(AMD, (a, b)), quiet)
        return str(next(each for each in found.sections if each.key == "effects"))

    assert "translate the same" in said(Moment(ACCESSED), Moment(BACK))
    assert "There is no pCPU 7" in said(Moment(ACCESSED), Moment(BACK, 7))
    assert "A is step 0: there is no host" in said(Moment(0), Moment(BACK))


# --- what else a scenario can be


def test_nothing_at_all_is_told_too() -> None:
    empty = of_events()
    check_text(text.render(empty))
    assert "Nothing happens in it." in text.render(empty)


def test_an_image_has_its_registers_and_walks() -> None:
    image = ev.ImageRef("resource:debian-6.1-4level.core.gz")
    found = of_events(ev.OpenImage(image), ev.AccessMemory(0xFFFF_FFFF_8100_0000), ev.WriteRegister("cr4", 0))
    told = text.render(found)
    check_text(told)
    Page(html.render(found))
    assert "debian-6.1-4level.core.gz: " in told
    assert "4-level paging, CR3" in told
    assert [each.key for each in found.sections] == ["machine", "events", "walks", "findings"]


def test_an_event_that_cannot_be_is_told_first() -> None:
    told = text.render(of_events(ev.CreateVm()))
    assert "Event 1 did not happen: There is no host yet: boot one first." in words(told)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("amd-mov-cr4", "Step 3: #GP(0): CR4.LA57 cannot change while EFER.LMA = 1."),
        ("intel-pcpu-without-5-level-ept", "Step 8: the guest cannot be entered: EPTP: walk length"),
        ("linux-5.13-refuses-la57", "Event 2 did not happen: kvm_init refuses: KVM doesn't yet support 5-level paging"),
    ],
)
def test_what_a_processor_or_kvm_refuses_is_told_first(name: str, sentence: str) -> None:
    assert sentence in words(text.render(made(name)).split("1. Machine")[0])


def test_a_lost_pcpu_is_told_once_and_marked() -> None:
    entry = blocks_of(section("amd-4-to-5-same-root", "events"), Entries)[0].entries[10]
    assert entry.marked
    assert str(entry.blocks).count("pCPU 1 is lost") == 1


def test_every_kind_of_event_is_told_in_words() -> None:
    assert set(SAYINGS) == set(get_args(ev.Event))


@settings(max_examples=scaled(1000))
@given(events=st.lists(any_event(), max_size=4), name=st.text(max_size=30))
def test_any_event_in_any_order_can_be_told(events: list[ev.Event], name: str) -> None:
    found = of_events(*events, name=name)
    check_text(text.render(found))
    Page(html.render(found))


@settings(max_examples=scaled(200))
@given(host=hosts(), data=st.data())
def test_any_host_can_be_told(host: tuple[ev.Event, ...], data: Any) -> None:
    events = [*host]
    state = tell("", Scenario(events=tuple(events)), Library(), quiet).states[-1]
    if state.module is not None:
        events += [data.draw(changes(state)), data.draw(accesses(state)), data.draw(accesses(state))]
    events.append(ev.ChangeMode(1, not host[0].five_level))  # type: ignore[attr-defined]
    found = of_events(*events)
    check_text(text.render(found))
    Page(html.render(found))


# --- any walk


def check_grid(blocks: tuple[Any, ...]) -> None:
    """No cell of the picture is cut off in 72 columns."""
    told = text.render(Report("a walk", blocks, ()))
    check_text(told)
    for grid in (block for block in blocks if isinstance(block, Grid)):
        lines = told.splitlines()
        at = next(n for n, line in enumerate(lines) if grid.columns[-1].title in line and grid.columns[0].title in line)
        drawn = " ".join(lines[at : at + len(grid.rows) + 1])
        for cell in grid.cells:
            assert f"{cell.number or '-'} {cell.entry}" in drawn


@settings(max_examples=scaled(2000))
@given(
    seed=st.integers(0, 2**32), mode=st.sampled_from(Mode), address=st.integers(0, (1 << 64) - 1),
    access=st.builds(Access, st.sampled_from(Kind)),
)  # fmt: skip
def test_any_walk_fits(seed: int, mode: Mode, address: int, access: Access) -> None:
    space = random_space(seed, mode)
    for at in (address, address & 0x00C0_3018_0601_FFFF):
        check_grid(tuple(walk_blocks(walk(space.memory, space.paging, at, access))))


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("walked", [walk_ept, walk_npt], ids=["EPT", "NPT"])
def test_any_walk_of_two_stages_fits(walked: Any, levels: int) -> None:
    for changed in ({}, {pt(3): 0}, {guest(0x4B38): 0xF800_0000_0000_51FF}, {pt(5): 0x8000_0000_0020_51FF}):
        check_grid(tuple(walk_blocks(walked(changed, levels=levels))))


# --- whatever stands in a report


TEXTS = st.text(max_size=60) | st.sampled_from(["</style><script>x", "a&b", "\x1b[31m", "\u202e", "x" * 200, "", "\n"])
ROWS = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=3)
BLOCKS = st.one_of(
    st.builds(Paragraph, TEXTS),
    st.builds(Items, st.lists(TEXTS, max_size=3).map(tuple)),
    st.builds(Fields, st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3).map(tuple)),
    st.builds(
        lambda title, head, rows: Table(title, head, tuple(Row(row) for row in rows), frozenset({0}), frozenset({1})),
        TEXTS, st.tuples(TEXTS, TEXTS, TEXTS), ROWS,
    ),
)  # fmt: skip


@given(title=TEXTS, blocks=st.lists(BLOCKS, max_size=4).map(tuple))
def test_whatever_a_report_says_is_shown_and_never_obeyed(title: str, blocks: tuple[Any, ...]) -> None:
    found = Report(title, blocks, (Section("one", title, blocks, (Section("part", title, blocks),)),))
    check_text(text.render(found))
    page = Page(html.render(found))
    assert "script" not in page.tags
    assert "\u202e" not in page.said
    assert "\x1b" not in page.said


def test_what_ascii_cannot_say_is_spelled_out() -> None:
    assert text.ascii_text("“é” → 2 × 3 …\n\x1b漢") == '"e" -> 2 x 3 ...\\n\\x1b\\u6f22'


def test_progress_can_stop_it() -> None:
    def stop(share: float) -> None:
        if share > 0.5:
            raise InputError("stopped")

    scenario, images = read_scenario(str(FOLDER / f"{AMD}.json"))
    with pytest.raises(InputError, match="stopped"):
        report(scenario, images, Asked(AMD), stop)


def test_the_widest_walk_there_can_be_fits() -> None:
    names = ("PML5", "PML4", "PDPT", "PD", "PT")
    columns = (*(Head(f"n{name}", 5) for name in names), Head("guest entry"))
    rows = (*(Head(f"g{name}", 5) for name in names), Head("page", 0))
    cells = tuple(
        Cell(row, column, str(row * 6 + column + 1), "gPML5[511]" if column == 5 else "[511]", "", "", 5, row == 5, "")
        for row in range(6)
        for column in range(6 - (row == 5))
    )
    check_grid((Grid("the widest", columns, rows, cells, (5, 5, "0xfffffffffffff", "")),))
