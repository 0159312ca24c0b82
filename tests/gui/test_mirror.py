"""A mirror in the window: both sides one below the other, lines between entries, one selection, and what words say."""

from functools import cache

import pytest
from PySide6.QtCore import QPoint, QRectF, QSizeF, Qt
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.cli.run import read_scenario
from engine.machine.mirror import Mirror, Status
from engine.scenario import Scenario
from gui import mirror_texts
from gui.document import Document, Query
from gui.models.mirror import Pair, Wire, beside, bundles
from gui.paint.layout import lay_out
from gui.paint.mirror import Wiring, paint_bundles
from gui.theme import Scheme, use
from gui.views.hierarchy import HierarchyView
from gui.views.inspector import InspectorView
from tests.conftest import ROOT
from tests.gui.hosts import host_document, mode_change

FOLDER = ROOT / "resources" / "scenarios"
FOUR, PAE, THIRTY_TWO, EPT, SHADOW = (
    "l1-4-level-npt-on-5-level-host", "l1-pae-npt", "l1-32-bit-npt", "nested-ept", "shadow-paging-pae-guest",
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("dressed")


@cache
def scenario(name: str) -> Scenario:
    return read_scenario(str(FOLDER / f"{name}.json"))[0]


def document_at(name: str, step: int) -> Document:
    return host_document(scenario(name).events, step)


@pytest.fixture
def show(dressed: QApplication, qtbot: QtBot):  # type: ignore[no-untyped-def]
    def made(document: Document) -> HierarchyView:
        view = HierarchyView(document)
        qtbot.addWidget(view)
        view.resize(840, 700)
        view.show()
        return view

    return made


def pair_of(view: HierarchyView) -> Pair:
    found = view.canvas.pair
    assert found is not None
    return found


def wire(pair: Pair, level: int, status: Status | None = None) -> Wire:
    return next(w for w in pair.wires if w.level == level and status in (None, w.status))


# --- the picture


@pytest.mark.parametrize(
    ("name", "gaps"),
    [(FOUR, ["PML5"]), (THIRTY_TWO, ["PML5", "PML4", "PDPT"]), (PAE, ["PML5", "PML4"]), (EPT, []), (SHADOW, [])],
)
def test_the_same_levels_stand_one_below_the_other_and_what_l1_lacks_is_a_gap(show, name: str, gaps: list[str]) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(name, 16 if name != SHADOW else 12))
    layout = view.canvas.layout_
    assert [gap.level.name for gap in layout.gaps] == gaps
    columns = {}
    for card in layout.cards:
        columns.setdefault(card.node.level.level, set()).add(card.rect.left())
    assert all(len(lefts) == 1 for lefts in columns.values())
    assert layout.size.width() <= 840


def test_all_of_both_sides_is_open_and_the_lines_are_those_of_the_engine(show) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(THIRTY_TWO, 16))
    pair, found = pair_of(view), view.canvas._document.mirror
    assert isinstance(found, Mirror)
    above, below = pair.trees
    assert {node.address for node in below.nodes} == {table.hpa for table in found.shadow}
    assert {node.address for node in above.nodes} == {table.hpa for table in found.guest}
    assert len(pair.wires) == len(found.links)


def test_neighbours_that_lead_to_neighbours_are_one_band() -> None:
    def of(slot: int, above: int, status: Status = Status.AGREES) -> Wire:
        return Wire((0,), slot, (1,), above, 1, status)

    made = bundles((of(0, 0), of(1, 1), of(2, 1), of(3, 2, Status.STALE), of(5, 5)))
    assert [(b.first, b.last, b.above_first, b.above_last) for b in made] == [(0, 2, 0, 1), (3, 3, 2, 2), (5, 5, 5, 5)]


def test_no_two_tables_overlap(show) -> None:  # type: ignore[no-untyped-def]
    layout = show(document_at(SHADOW, 14)).canvas.layout_
    boxes = [card.rect for card in layout.cards] + [gap.rect for gap in layout.gaps]
    assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[n + 1 :] if a.intersects(b)]


@pytest.mark.parametrize("scheme", [Scheme.LIGHT, Scheme.DARK])
@pytest.mark.parametrize("name", [FOUR, PAE, THIRTY_TWO, EPT, SHADOW])
def test_every_step_of_every_scenario_is_painted(show, name: str, scheme: Scheme) -> None:  # type: ignore[no-untyped-def]
    document = document_at(name, 1)
    view = show(document)
    use(scheme)
    try:
        for step in range(1, document.last_step + 1):
            document.go_to_step(step)
            assert not view.grab().isNull()
            for zoom in (0.5, 8):
                view.canvas.zoom_to(zoom)
                assert not view.grab().isNull()
            view.canvas.fit()
    finally:
        use(Scheme.LIGHT)


def test_a_line_is_drawn_from_the_entry_to_the_one_that_it_mirrors(show) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(FOUR, 16))
    pair = pair_of(view)
    layout = lay_out(pair.trees, QSizeF(840, 600))
    one = wire(pair, 4)
    image = QImage(840, 600, QImage.Format.Format_RGB32)
    image.fill(Qt.GlobalColor.white)
    painter = QPainter(image)
    paint_bundles(painter, layout, Wiring(pair.mirror, bundles((one,))), QRectF(0, 0, 840, 600))
    painter.end()
    below, above = layout.card(1, one.below), layout.card(0, one.above)
    assert below is not None
    assert above is not None
    x, y = below.slot_rect(one.slot).center().x(), (below.rect.top() + above.rect.bottom()) / 2
    near = [image.pixelColor(round(x) + dx, round(y)).lightness() for dx in (-1, 0, 1)]
    assert min(near) < 250
    assert image.pixelColor(round(x) + 20, round(y)).lightness() == 255


# --- one selection


def test_choosing_an_entry_marks_its_counterpart_and_the_inspector_names_both(show, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(FOUR, 18))
    inspector = InspectorView(view.canvas._document)
    qtbot.addWidget(inspector)
    stale = wire(pair_of(view), 1, Status.STALE)
    view.canvas.choose(1, stale.below, stale.slot)
    wiring = view.canvas._wiring()
    assert wiring is not None
    assert wiring.partners == ((0, stale.above, stale.above_slot),)
    assert inspector.title.text() == "L0's NPT02 PT entry 17"
    assert "Mirrors <a" in inspector.beside.text()
    assert "L1's NPT12 PT entry 17</a>: out of date" in inspector.beside.text()
    inspector.beside.linkActivated.emit("0")
    qtbot.waitUntil(lambda: inspector.title.text() == "L1's NPT12 PT entry 17")
    marked = view.canvas.marked
    assert marked is not None
    assert (marked.tree, marked.path, marked.slot) == (0, stale.above, stale.above_slot)
    assert inspector.value.text() == "0x0000_0000_0060_0067"
    assert "Mirrored by <a" in inspector.beside.text()


def test_the_inspector_reads_l1s_table_where_the_memslots_have_it(show, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(THIRTY_TWO, 16))
    pair, document = pair_of(view), view.canvas._document
    large = next(w for w in pair.wires if w.level == 1 and len(w.above) == 0)
    view.canvas.choose(1, large.below, large.slot)
    selection = document.selection
    assert selection is not None
    found = beside(pair.mirror, selection)
    assert found is not None
    (other,) = found.others
    assert other.selection is not None
    assert document.state.memory.word(other.selection.address & ~7) is not None
    assert (other.level.level, other.index) == (2, 1)


def test_page_up_and_page_down_cross_to_the_other_side(show, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(FOUR, 16))
    one = wire(pair_of(view), 1)
    view.canvas.choose(1, one.below, one.slot)
    qtbot.keyClick(view.canvas, Qt.Key.Key_PageUp)
    marked = view.canvas.marked
    assert marked is not None
    assert (marked.tree, marked.path, marked.slot) == (0, one.above, one.above_slot)
    qtbot.keyClick(view.canvas, Qt.Key.Key_PageDown)
    assert view.canvas.marked is not None
    assert view.canvas.marked.tree == 1
    view.canvas.choose(1, (), 0)  # the passthrough entry mirrors nothing
    qtbot.keyClick(view.canvas, Qt.Key.Key_PageUp)
    assert view.canvas.marked is not None
    assert (view.canvas.marked.tree, view.canvas.marked.path) == (0, ())


def test_a_click_on_either_side_selects_there(show, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(FOUR, 16))
    one = wire(pair_of(view), 2)
    for tree, path, slot in ((0, one.above, one.above_slot), (1, one.below, one.slot)):
        card = view.canvas.layout_.card(tree, path)
        assert card is not None
        at: QPoint = (card.slot_rect(slot).center() - view.canvas._offset()).toPoint()
        qtbot.mouseClick(view.canvas.viewport(), Qt.MouseButton.LeftButton, pos=at)
        assert view.canvas.marked is not None
        assert (view.canvas.marked.tree, view.canvas.marked.slot) == (tree, slot)
        assert view.canvas.accessibleDescription()


def test_the_lit_reference_is_marked_in_the_shadow(show) -> None:  # type: ignore[no-untyped-def]
    document = document_at(FOUR, 16)
    view = show(document)
    document.ask(Query(0x4000_1000, cpl=0))
    marked = view.canvas.marked
    assert marked is not None
    assert (marked.tree, marked.slot) == (1, 17)
    assert [node.walked is not None for node in pair_of(view).trees[1].nodes].count(True) == 5


def test_hovering_lights_the_lines_of_a_table(show) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(FOUR, 16))
    one = wire(pair_of(view), 1)
    view.canvas._hover((1, one.below))
    wiring = view.canvas._wiring()
    assert wiring is not None
    assert set(wiring.lit) == set(pair_of(view).touching(False, one.below))


def test_a_closed_side_can_be_opened_further_than_it_is(show) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(EPT, 16))
    one = wire(pair_of(view), 2)
    view.canvas.follow(0, one.above, one.above_slot)
    assert view.canvas.marked is not None
    assert view.canvas.marked.tree == 0


def test_where_the_processor_reads_in_another_depth_no_walk_is_lit(show) -> None:  # type: ignore[no-untyped-def]
    """KVM's tables are shown as deep as it made them; the other picture shows what the processor makes of them."""
    events = (*scenario(PAE).events[:16], ev.ChangeMode(pcpu=1, la57=False), ev.MoveVcpu(pcpu=1))
    document = host_document(events)
    view = show(document)
    document.ask(Query(0x4000_1000, cpl=0))
    assert document.hardware is not None
    below = pair_of(view).trees[1]
    assert [node.level.name for node in below.nodes][:2] == ["PML5", "PML4"]
    assert below.walked == ()


# --- the switch


def test_m_turns_to_the_walked_tables_and_back(show, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(FOUR, 16))
    assert view.bar.isVisible()
    assert view.canvas.is_mirror
    assert view.bar.cost.text() == (
        "L1: 4 tables. L0: 6, 1 for its depth alone. 29 references a walk, 24 at L1's depth"
    )
    view.bar.turn()
    assert not view.canvas.is_mirror
    assert view.bar.walked.isChecked()
    assert view.canvas.layout_.gaps == ()
    view.bar.turn()
    assert view.canvas.is_mirror


def test_where_nothing_is_mirrored_there_is_no_switch(show) -> None:  # type: ignore[no-untyped-def]
    view = show(host_document(mode_change(True)))
    assert not view.bar.isVisible()
    assert not view.canvas.is_mirror


def test_before_there_is_any_table_it_says_what_to_do(show) -> None:  # type: ignore[no-untyped-def]
    view = show(document_at(SHADOW, 5))
    title, advice = view.canvas._empty()
    assert title == "No tables yet"
    assert "first access" in advice


def test_a_write_to_l1s_entry_is_seen_at_once(show) -> None:  # type: ignore[no-untyped-def]
    document = document_at(FOUR, 17)
    view = show(document)
    assert not [w for w in pair_of(view).wires if w.status is Status.STALE]
    document.append(ev.GuestAccess(0x4_2088, scenario(FOUR).events[17].kind, 8, 0x60_0067), "store")  # type: ignore[union-attr]
    assert len([w for w in pair_of(view).wires if w.status is Status.STALE]) == 1


# --- words


def test_tables_say_what_they_are_for() -> None:
    found = document_at(THIRTY_TWO, 16).mirror
    assert isinstance(found, Mirror)
    assert [mirror_texts.tags(found, table)[0] for table in found.shadow] == [
        "pml5_root", "pml4_root", "pae_root", "quarter 1/4", "quarter 2/4", "quarter 3/4", "quarter 4/4", "half 1/2",
        "direct",
    ]  # fmt: skip
    said = mirror_texts.table_sentence(found, found.shadow[0])
    assert "no record and no role" in said
    assert said.endswith("It exists only because L0 needs this level.")


def test_thousands_of_entries_are_told_of_in_a_moment(show) -> None:  # type: ignore[no-untyped-def]
    """Every third page of 8 MiB touched: hundreds of SPTEs that are no neighbours, and few lines while zoomed out."""
    size = 8 << 20
    start = scenario(SHADOW).events
    pages = ev.MapGuestPages(root=0x1000, tables=0x10000, address=0, target=0x40_0000, size=size, mode="PAE")
    events = (*start[:5], pages, start[8])
    touched = tuple(ev.GuestAccess(page << 12, size=4) for page in range(0, size >> 12, 3))
    view = show(host_document((*events, *touched)))
    pair = pair_of(view)
    assert len(pair.wires) > 680
    assert len(view.canvas._bundles) < 100
    view.canvas.zoom_to(64)
    assert len(view.canvas._bundles) > 680


def test_of_a_guest_with_many_tables_those_that_are_mirrored_are_open(show) -> None:  # type: ignore[no-untyped-def]
    """64 page tables of the guest's, of which it has used one."""
    start = scenario(SHADOW).events
    tables = tuple(
        ev.MapGuestPages(root=0x1000, tables=0x10000 + n * 0x2000, address=n << 21, target=0, size=4096, mode="PAE")
        for n in range(1, 64)
    )
    view = show(host_document((*start[:6], *tables, start[8], ev.GuestAccess(40 << 21, size=4))))
    above = pair_of(view).trees[0]
    assert isinstance(view.canvas._document.mirror, Mirror)
    assert len(view.canvas._document.mirror.guest) > 64
    assert [node.path for node in above.nodes if node.level.level == 1] == [(0, 40)]
    view.canvas.follow(0, (0,), 41)
    assert [node.path for node in pair_of(view).trees[0].nodes if node.level.level == 1] == [(0, 40), (0, 41)]


def test_a_guests_table_that_no_memory_holds_yet_is_read_as_zeros_and_cannot_be_selected(show) -> None:  # type: ignore[no-untyped-def]
    start = scenario(SHADOW).events
    root = ev.FillGuestPages(0x1000, (0, 0x9001, 0, 0))
    view = show(host_document((*start[:5], root, start[8])))
    (_, below) = pair_of(view).trees[0].nodes
    assert below.address is None
    assert below.present == 0
    assert below.values[0] == 0
    view.canvas.choose(0, below.path, 0)
    assert view.canvas._document.selection is None


def test_another_address_keeps_the_mirror(show) -> None:  # type: ignore[no-untyped-def]
    document = document_at(FOUR, 16)
    found = document.mirror
    document.ask(Query(0x4000_1000, cpl=0))
    assert document.mirror is found
    document.go_to_step(18)
    assert document.mirror is not found


def test_while_l1_runs_its_guests_tables_are_shown_and_not_walked(show) -> None:  # type: ignore[no-untyped-def]
    """The walk of an address of L1 goes through other tables of L0's, of the same depth."""
    document = document_at(FOUR, 18)
    view = show(document)
    document.ask(Query(0x4_2088, cpl=0))
    assert document.hardware is not None
    assert document.hardware.ok
    assert pair_of(view).mirror.is_parked
    assert view.bar.cost.text() == "L1: 4 tables. L0: 6, 1 for its depth alone. Not walked while L1 runs"
    assert pair_of(view).trees[1].walked == ()
    one = wire(pair_of(view), 1)
    view.canvas.walk_to(1, one.below, one.slot)
    assert document.query == Query(0x4_2088, cpl=0)
