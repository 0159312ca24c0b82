"""The hierarchy: which tables are shown, where they stand, and what a click, a key or a turn of the wheel does."""

from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QPoint, QSizeF, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.walk import Rule, Stage
from engine.machine.look import Stages
from engine.memory.physical import ZERO, SparseMemory
from gui.document import Document, Query, Selection
from gui.models.hierarchy import Node, Tables, Tree, trees
from gui.models.peek import peek
from gui.paint.layout import lay_out
from gui.views.hierarchy import HierarchyView
from tests.engine.nested_fixture import fixture, walk_ept, walk_npt
from tests.gui.tiny import tiny_document

SIZE = QSizeF(800, 600)
pytestmark = pytest.mark.usefixtures("dressed")


def shown(document: Document, opened: frozenset = frozenset()) -> Tree:
    """The one tree of a one-stage document."""
    stages = document.stages
    assert isinstance(stages, Stages)
    (tree,) = trees(Tables(document.state.memory), stages, document.walk, document.reference, opened)
    return tree


def node(tree: Tree, *path: int) -> Node:
    found = tree.node(path)
    assert found is not None, [n.path for n in tree.nodes]
    return found


# --- the tables as values


def test_the_tables_of_the_walk_are_shown_with_their_slots(tmp_path: Path) -> None:
    tree = shown(tiny_document(tmp_path, 0x1ABC))
    assert [(node(tree, *path).level.name, node(tree, *path).walked) for path in ((), (0,), (0, 0), (0, 0, 0))] == [
        ("PML4", 0), ("PDPT", 0), ("PD", 0), ("PT", 1),
    ]  # fmt: skip


def test_occupancy_tells_tables_pages_and_bad_entries_apart(tmp_path: Path) -> None:
    runs = node(shown(tiny_document(tmp_path)), 0, 0).runs
    assert [(run.first, run.last, run.rule) for run in runs] == [
        (0, 0, Rule.TABLE),
        (1, 1, Rule.PAGE),
        (2, 2, Rule.RESERVED),
        (3, 4, Rule.TABLE),
        (5, 511, Rule.NOT_PRESENT),
    ]


def test_neighbours_of_the_walk_are_shown_with_their_first_branch(tmp_path: Path) -> None:
    """Beside PML4 0 that is the other way to the same tables, down to the last level."""
    paths = {n.path for n in shown(tiny_document(tmp_path)).nodes}
    assert {(256,), (256, 0), (256, 0, 0)} <= paths
    assert (0, 0, 3) in paths
    assert (0, 0, 4) not in paths


def test_an_opened_table_is_shown_until_its_entry_points_nowhere(tmp_path: Path) -> None:
    document = tiny_document(tmp_path)
    opened = frozenset({(Stage.ONE, (0, 0, 4))})
    assert node(shown(document, opened), 0, 0, 4).address == 0x6000
    document.append(ev.Poke(0x3020, 0), "clear")
    assert shown(document, opened).node((0, 0, 4)) is None


def test_a_table_that_is_not_in_the_image_is_unknown_not_empty(tmp_path: Path) -> None:
    missing = node(shown(tiny_document(tmp_path)), 0, 0, 3)
    assert [run.rule for run in missing.runs] == [Rule.UNKNOWN]
    assert missing.present == 0


def test_a_walk_lights_tables_as_far_as_it_has_come(tmp_path: Path) -> None:
    document = tiny_document(tmp_path)
    document.go_to_reference(1)
    tree = shown(document)
    assert [node(tree, *path).lit for path in ((), (0,), (0, 0), (0, 0, 0))] == [True, True, False, False]


def test_the_next_occupied_slot_is_found_across_gaps(tmp_path: Path) -> None:
    root = node(shown(tiny_document(tmp_path)))
    assert root.occupied(0, True) == 256
    assert root.occupied(256, False) == 0
    assert root.occupied(256, True) is None
    assert root.occupied(511, False) == 256


def test_addresses_of_the_upper_half_are_sign_extended(tmp_path: Path) -> None:
    tree = shown(tiny_document(tmp_path))
    assert tree.shown_address(node(tree, 256).start) == 0xFFFF_8000_0000_0000


@pytest.mark.parametrize(
    ("name", "slots", "levels"),
    [("debian-6.1-686-pae", 4, 3), ("debian-6.1-686", 1024, 2), ("debian-6.1-5level", 512, 5)],
)
def test_every_mode_has_its_shape(golden: Path, name: str, slots: int, levels: int) -> None:
    from engine.memory.image import open_image
    from engine.scenario import Scenario

    document = Document(lambda reference: open_image(Path(reference.path)))
    document.open(Scenario(events=(ev.OpenImage(ev.ImageRef(str(golden / "dumps" / f"{name}.core.gz"))),)))
    document.ask(Query(0xB7312000))
    tree = shown(document)
    assert node(tree).level.entries == slots
    assert len(tree.paging.levels) == levels
    assert node(tree).registers is (name == "debian-6.1-686-pae")


def test_two_stages_show_the_descent_of_the_lit_reference() -> None:
    walk = walk_npt()
    assert walk.second is not None
    tables = Tables(SparseMemory(ZERO).with_words(fixture("npt")))
    stages = Stages(walk.paging, walk.second)
    guest, nested = trees(tables, stages, walk, 17, frozenset())
    assert (guest.stage, nested.stage) == (Stage.GUEST, Stage.NESTED)
    assert guest.walked == (254, 72, 418, 359)
    assert nested.target == 0x4B38
    assert nested.walked == (0, 0, 0, 4)
    assert node(guest, 254).address == 0x202000
    assert node(guest, 254).name == 0x2000


def test_a_guest_table_that_the_second_stage_does_not_map_is_nowhere() -> None:
    walk = walk_ept({0x103008: 0})
    assert walk.second is not None
    tables = Tables(SparseMemory(ZERO).with_words(fixture("ept") | {0x103008: 0}))
    guest, _ = trees(tables, Stages(walk.paging, walk.second), walk, None, frozenset())
    assert node(guest).address is None


# --- where they stand


def test_the_walk_is_a_straight_line_and_no_two_tables_overlap(tmp_path: Path) -> None:
    document = tiny_document(tmp_path)
    layout = lay_out((shown(document),), SIZE)
    on_walk = [card for card in layout.cards if card.node.walked is not None]
    assert len({card.rect.top() for card in on_walk}) == 1
    boxes = [card.rect for card in layout.cards] + [end.rect for end in layout.ends if end]
    assert not [(a, b) for n, a in enumerate(boxes) for b in boxes[n + 1 :] if a.intersects(b)]


def test_it_fits_the_width_and_grows_when_zoomed(tmp_path: Path) -> None:
    tree = shown(tiny_document(tmp_path))
    assert lay_out((tree,), SIZE).size.width() <= SIZE.width()
    card = lay_out((tree,), SIZE, zoom=64).card(0, ())
    assert card is not None
    assert card.slot_width > 10
    assert card.slot_at(card.slot_rect(300).center().x()) == 300


def test_a_fault_stands_beside_the_table_that_stopped_the_walk(tmp_path: Path) -> None:
    document = tiny_document(tmp_path, 0x3000)
    walk = document.walk
    assert walk is not None
    layout = lay_out((shown(document),), SIZE, outcome=walk.outcome)
    (end,) = layout.ends
    assert end is not None
    assert (end.title, end.note, end.bad) == ("#PF 0x4", "not present", True)


def test_texts_are_left_out_when_zoomed_out(tmp_path: Path) -> None:
    tree = shown(tiny_document(tmp_path))
    assert not lay_out((tree,), SIZE, zoom=0.5).has_text
    assert lay_out((tree,), SIZE).has_text


def test_a_peek_says_what_the_entry_is_and_what_it_translates(tmp_path: Path) -> None:
    tree = shown(tiny_document(tmp_path))
    assert peek(tree, node(tree, 0, 0), 1).splitlines() == [
        "PD entry 1: 2 MiB page",
        "0x0000_0000_0020_00e7   P W U A D · ·",
        "0x20_0000 – 0x3f_ffff (2 MiB)",
        "page 0x20_0000",
    ]


# --- what the user does


@pytest.fixture
def view(tmp_path: Path, dressed: QApplication, qtbot: QtBot) -> HierarchyView:
    made = HierarchyView(tiny_document(tmp_path))
    qtbot.addWidget(made)
    made.resize(840, 700)
    made.show()
    return made


def document_of(view: HierarchyView) -> Document:
    return view.canvas._document


def slot_point(view: HierarchyView, path: tuple[int, ...], slot: int) -> QPoint:
    card = view.canvas.layout_.card(0, path)
    assert card is not None
    return (card.slot_rect(slot).center() - view.canvas._offset()).toPoint()


def click(qtbot: QtBot, view: HierarchyView, path: tuple[int, ...], slot: int) -> None:
    qtbot.mouseClick(view.canvas.viewport(), Qt.MouseButton.LeftButton, pos=slot_point(view, path, slot))


def test_a_click_selects_the_occupied_entry_that_is_near(view: HierarchyView, qtbot: QtBot) -> None:
    click(qtbot, view, (), 260)
    selection = document_of(view).selection
    assert selection is not None
    assert (selection.table, selection.index) == (0x1000, 256)


def test_a_click_on_the_walk_lights_its_reference(view: HierarchyView, qtbot: QtBot) -> None:
    click(qtbot, view, (0,), 0)
    assert document_of(view).reference == 1


def test_a_double_click_opens_the_table_and_goes_there(view: HierarchyView, qtbot: QtBot) -> None:
    view.canvas.zoom_by(32)
    view.canvas.choose(0, (0, 0), 4)
    at = slot_point(view, (0, 0), 4)
    qtbot.mouseDClick(view.canvas.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert view.canvas.layout_.card(0, (0, 0, 4)) is not None
    marked = view.canvas.marked
    assert marked is not None
    assert marked.path == (0, 0, 4)


def test_following_a_page_walks_its_address(view: HierarchyView) -> None:
    view.canvas.follow(0, (0, 0), 1)
    query = document_of(view).query
    assert query is not None
    assert query.address == 0x20_0000


def test_the_same_table_seen_from_two_slots_stays_where_it_was_clicked(view: HierarchyView) -> None:
    view.canvas.choose(0, (256,), 0)
    marked = view.canvas.marked
    assert marked is not None
    assert marked.path == (256,)


def test_a_closed_table_gives_the_selection_to_its_entry(view: HierarchyView) -> None:
    view.canvas.follow(0, (0, 0), 4)
    view.canvas.close_table(0, (0, 0, 4))
    marked = view.canvas.marked
    assert marked is not None
    assert (marked.path, marked.slot) == ((0, 0), 4)
    assert view.canvas.layout_.card(0, (0, 0, 4)) is None


def test_keys_move_among_entries_and_levels(view: HierarchyView, qtbot: QtBot) -> None:
    canvas = view.canvas
    places = []
    for key in (
        Qt.Key.Key_Left,
        Qt.Key.Key_Down,
        Qt.Key.Key_Down,
        Qt.Key.Key_Down,
        Qt.Key.Key_Down,
        Qt.Key.Key_Return,
        Qt.Key.Key_Delete,
        Qt.Key.Key_Home,
        Qt.Key.Key_Right,
    ):
        qtbot.keyClick(canvas, key)
        assert canvas.marked is not None
        places.append((canvas.marked.path, canvas.marked.slot))
    assert places == [
        ((0, 0), 0),
        ((0, 0), 1),
        ((0, 0), 2),
        ((0, 0), 3),
        ((0, 0), 4),
        ((0, 0, 4), 0),
        ((0, 0), 4),
        ((0, 0), 0),
        ((0, 0, 0), 1),
    ]


@pytest.mark.parametrize(("slot", "own"), [(1, False), (2, True)])
def test_left_and_right_stay_the_windows_steps_on_the_walk(view: HierarchyView, slot: int, own: bool) -> None:
    view.canvas.choose(0, (0, 0, 0), slot)
    event = QKeyEvent(QEvent.Type.ShortcutOverride, Qt.Key.Key_Left, Qt.KeyboardModifier.NoModifier)
    event.ignore()
    view.canvas.event(event)
    assert event.isAccepted() is own


def test_zooming_keeps_the_slot_under_the_pointer(view: HierarchyView) -> None:
    canvas = view.canvas
    before = canvas.layout_.card(0, (0, 0))
    assert before is not None
    at = before.slot_rect(300).center()
    canvas.zoom_by(16, at)
    card = canvas.layout_.card(0, (0, 0))
    assert card is not None
    assert abs(card.slot_at(at.x() + canvas._offset().x()) - 300) <= 1


def test_selecting_elsewhere_moves_the_mark(view: HierarchyView) -> None:
    document = document_of(view)
    level = document.paging.levels[3]
    document.select(Selection(Stage.ONE, level, 0x4000, 2))
    marked = view.canvas.marked
    assert marked is not None
    assert (marked.path, marked.slot) == ((0, 0, 0), 2)
    assert "PT entry 2" in view.canvas.accessibleDescription()


def test_a_poke_is_seen_at_once(view: HierarchyView) -> None:
    document_of(view).append(ev.Poke(0x4008, 0), "clear")
    card = view.canvas.layout_.card(0, (0, 0, 0))
    assert card is not None
    assert card.node.rule(1) is Rule.NOT_PRESENT


def test_a_click_on_a_level_of_the_address_lights_its_reference(view: HierarchyView, qtbot: QtBot) -> None:
    from gui.paint.breakdown import boxes

    bar = view.breakdown
    walk = document_of(view).walk
    assert walk is not None
    box = boxes(bar._area(), walk)[2]
    qtbot.mouseClick(bar, Qt.MouseButton.LeftButton, pos=box.center().toPoint())
    assert document_of(view).reference == 2


def test_without_an_image_it_says_what_to_do(dressed: QApplication, qtbot: QtBot, tmp_path: Path) -> None:
    view = HierarchyView(Document(lambda reference: None))  # type: ignore[arg-type, return-value]
    qtbot.addWidget(view)
    title, advice = view.canvas._empty()
    assert title == "No memory yet"
    assert "Ctrl+O" in advice
