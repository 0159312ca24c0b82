"""The logical walk of a nested guest in the window: its grid with L0's strips, its words, the way to the other walk."""

from pathlib import Path

import pytest
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QImage, QPainter
from pytestqt.qtbot import QtBot

from engine.arch.rights import READ
from engine.arch.walk import Stage, Walk
from gui import explain, three_stages
from gui.document import Document
from gui.models.walk_grid import Cell, Grid, end_texts, walk_grid
from gui.paint.walk_grid import paint_grid
from gui.paint.walk_layout import GridLayout, lay_out_grid
from gui.views.inspector import InspectorView
from gui.views.walk import WalkView
from gui.widgets.hierarchy_canvas import HierarchyCanvas
from tests.engine.three_stages import System, system
from tests.gui.tiny import tiny_document

pytestmark = pytest.mark.usefixtures("dressed")


def stopped(made: System, number: int) -> Walk:
    """The walk with the entry that step ``number`` reads made 0."""
    address = made.walk().steps[number].address
    assert address is not None
    return made.walk(READ, {address: 0})


def beyond(made: System) -> Walk:
    """The walk of a page that L1 puts where a 4-level EPT does not reach: it stops between two references."""
    step = [step for step in made.walk().steps if step.stage is Stage.NESTED][-1]
    assert step.address is not None
    assert step.value is not None
    return made.walk(READ, {step.address: step.value | 1 << 48})


def shown(cell: Cell) -> str:
    """A cell as text: the numbers of its strip, then its own; "." where the walk did not come, "r" for a register."""
    spots = [str(spot.reference or ".") for spot in cell.strip]
    own = "." if cell.step is None else "r" if cell.reference is None else str(cell.reference)
    return " ".join(spots) + f" [{own}]"


def row(grid: Grid, number: int) -> list[str]:
    return [shown(cell) for cell in grid.cells if cell.row == number]


# --- the grid


def test_rows_are_l2s_levels_and_columns_l1s_and_each_place_has_a_strip_of_l0s() -> None:
    grid = walk_grid(system().walk())
    assert [head.title for head in grid.columns] == ["L1 PML4", "L1 PDPT", "L1 PD", "L1 PT", "L2 entry"]
    assert [(head.title, head.note) for head in grid.rows] == [
        ("L2 PML4", "0x17f0"), ("L2 PDPT", "0x2240"), ("L2 PD", "0x3d10"), ("L2 PT", "0x4b38"), ("page", "0x4000_0abc"),
    ]  # fmt: skip
    assert [head.title for head in grid.lowest] == ["PML4", "PDPT", "PD", "PT"]
    assert row(grid, 0) == ["1 2 3 4 [5]", "6 7 8 9 [10]", "11 12 13 14 [15]", "16 17 18 19 [20]", "21 22 23 24 [25]"]
    assert row(grid, 4)[-2:] == ["116 117 118 119 [120]", "121 122 123 124 [.]"]


def test_all_references_are_in_it_once_and_in_order() -> None:
    for walk in (system().walk(), system("5-level", "5-level EPT", "5-level EPT").walk()):
        numbers = [
            number
            for cell in walk_grid(walk).cells
            for number in (*(spot.reference for spot in cell.strip), cell.reference)
            if number is not None
        ]
        assert numbers == list(range(1, walk.references + 1))


def test_large_pages_of_l0_leave_the_last_place_of_strips_empty() -> None:
    grid = walk_grid(system(sizes=(4096, 4096, 2 << 20)).walk())
    assert row(grid, 0)[0] == "1 2 3 . [4]"


def test_pdpte_registers_of_l2_need_no_other_stage() -> None:
    grid = walk_grid(system("PAE", "4-level EPT", "4-level EPT").walk())
    assert row(grid, 0) == [" [r]"]
    assert row(grid, 1)[0] == "1 2 3 4 [5]"


def test_where_l0_stops_the_walk_the_entry_above_is_not_read() -> None:
    walk = stopped(system(), 8)
    grid = walk_grid(walk)
    assert row(grid, 0)[:3] == ["1 2 3 4 [5]", "6 7 8 9 [.]", ". . . . [.]"]
    assert end_texts(walk) == ("not reached", "")
    stop = grid.cell_of(8)
    assert stop is not None
    assert (stop.row, stop.column, stop.last, stop.led) == (0, 1, 8, (6, 9))


def test_a_walk_that_stops_between_two_references_says_so_at_its_end() -> None:
    walk = WALKS["beyond reach"]
    assert row(walk_grid(walk), 4)[-2:] == ["116 117 118 119 [120]", ". . . . [.]"]
    assert end_texts(walk)[0].startswith("EPT violation")
    assert three_stages.told(walk).startswith("L0's tables say so")


def test_two_stages_have_no_strips() -> None:
    grid = walk_grid(system().hardware())
    assert (grid.stages, grid.lowest) == (2, ())
    assert not any(cell.strip for cell in grid.cells)


# --- the picture

WALKS = {
    "4x4x4": system().walk(), "5x5x5": system("5-level", "5-level EPT", "5-level EPT").walk(),
    "PAE in 32-bit": system("PAE", "32-bit NPT", "5-level NPT").walk(), "L0 stops": stopped(system(), 8),
    "beyond reach": beyond(system("4-level", "4-level EPT", "4-level EPT")),
}  # fmt: skip


def spots(layout: GridLayout) -> list[tuple[int | None, QPointF]]:
    """What is drawn where: the steps with the middles of their places."""
    found = []
    for cell in layout.grid.cells:
        found.append((cell.last, layout.body(cell.row, cell.column).center()))
        if layout.strip:
            found += [(spot.step, layout.spot(cell, n).center()) for n, spot in enumerate(cell.strip)]
    return found


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("width", [420, 840, 1400])
def test_every_reference_has_a_place_to_point_at(walk: Walk, width: int) -> None:
    layout = lay_out_grid(walk_grid(walk), width, 520)
    assert [layout.step_at(place) for _, place in spots(layout)] == [step for step, _ in spots(layout)]
    for number in range(len(walk.steps)):
        place = layout.place(number)
        assert place is not None
        assert layout.step_at(place.center()) == number
        assert 0 <= place.left() <= place.right() <= layout.size.width()
        assert 0 <= place.top() <= place.bottom() <= layout.size.height()


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_places_never_overlap(walk: Walk) -> None:
    layout = lay_out_grid(walk_grid(walk), 840, 520)
    rects = [layout.body(cell.row, cell.column) for cell in layout.grid.cells]
    rects += [layout.spot(cell, n) for cell in layout.grid.cells for n in range(len(cell.strip))]
    assert not [(a, b) for n, a in enumerate(rects) for b in rects[n + 1 :] if a.intersects(b)]


def test_folded_a_reference_of_l0_is_shown_by_the_entry_it_leads_to() -> None:
    grid = walk_grid(system().walk())
    layout = lay_out_grid(grid, 840, 520, folded=True)
    assert layout.strip == 0
    assert layout.place(21) == layout.place(24) == layout.body(0, 4)
    assert layout.size.height() < lay_out_grid(grid, 840, 520).size.height()


def test_all_124_fit_the_room_that_the_window_gives_them() -> None:
    layout = lay_out_grid(walk_grid(system().walk()), 850, 540)
    assert layout.size.width() <= 850
    assert layout.size.height() <= 540


def painted(walk: Walk, lit: int | None, folded: bool = False) -> QImage:
    layout = lay_out_grid(walk_grid(walk), 840, 520, folded)
    image = QImage(layout.size.toSize(), QImage.Format.Format_RGB32)
    image.fill(Qt.GlobalColor.white)
    painter = QPainter(image)
    paint_grid(painter, layout, walk, lit)
    painter.end()
    return image


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_every_step_is_another_picture(walk: Walk, folded: bool) -> None:
    """Folded, L0's references for one entry look alike."""
    last = len(walk.steps) - 1
    steps = [
        number
        for number in sorted({0, 4, 5, last // 2, last})
        if not folded or walk.steps[number].stage is not Stage.HOST
    ]
    pictures = [painted(walk, number, folded) for number in steps]
    assert not [(a, b) for n, a in enumerate(pictures) for b in pictures[n + 1 :] if a == b]
    assert painted(walk, None, folded) != pictures[0] or not steps


# --- words


def test_entries_are_named_by_whose_they_are() -> None:
    walk = system().walk()
    assert explain.reference_title(walk, 0) == (
        "Reference 1: L0's NPT01 PML4E 0, for L1's NPT12 PML4E at L1 GPA 0x1_0000"
    )
    assert explain.reference_title(walk, 9) == "Reference 10: L1's NPT12 PDPTE 0, for L2's PML4E at L2 GPA 0x17f0"
    assert explain.reference_title(walk, 23) == "Reference 24: L0's NPT01 PTE 1, for L2's PML4E at L1 GPA 0x8000_17f0"
    assert explain.reference_title(walk, 24) == "Reference 25: L2's PML4E 254"
    assert explain.reference_title(walk, 119) == "Reference 120: L1's NPT12 PTE 0, for the page at L2 GPA 0x4000_0abc"
    assert explain.reference_title(walk, 123) == "Reference 124: L0's NPT01 PTE 0, for the page at L1 GPA 0xc000_0abc"
    ept = system("4-level", "5-level EPT", "4-level EPT").walk()
    assert explain.reference_title(ept, 4).startswith("Reference 5: L1's EPT12 PML5E 0, for")


def test_why_a_root_is_read_now() -> None:
    walk = system().walk()
    counts = "It counts as a write, since A or D may be set in that entry."
    assert explain.why(walk, 0)[:2] == [
        "L1's NPT12 PML4E lies at L1-physical 0x1_0000: L0's tables translate that first.", counts,
    ]  # fmt: skip
    assert explain.why(walk, 4)[:2] == [
        "L2's PML4E lies at L2-physical 0x17f0: L1's tables translate that first.", counts,
    ]  # fmt: skip
    assert explain.why(walk, 20)[:2] == [
        "L2's PML4E lies at L1-physical 0x8000_17f0: L0's tables translate that first.", counts,
    ]  # fmt: skip
    assert explain.why(walk, 24)[0] == "L2's CR3 names the PML4 at L2-physical 0x1000."
    assert explain.why(walk, 104)[0] == (
        "The page lies at L2-physical 0x4000_0abc: L1's tables translate it for the access itself."
    )
    assert explain.why(walk, 120)[:2] == [
        "L1's tables give L1-physical 0xc000_0abc for the page: L0's translate it for the access itself.",
        "Bits 47:39 of the address pick entry 0.",
    ]


def test_without_flags_a_table_is_only_read() -> None:
    walk = system("4-level", "4-level EPT", "4-level EPT", flags=(False, False)).walk()
    assert explain.why(walk, 0)[1] == "Bits 47:39 of the address pick entry 0."


def test_the_rights_of_all_three_are_told_together() -> None:
    assert explain.together(system().walk()) == [
        "Rights: L2's tables give R W X U, L1's R W X U, L0's R W X U; together R W X U."
    ]
    unpaged = system("no paging").walk()
    assert explain.together(unpaged) == ["Rights: L1's tables give R W X U, L0's R W X U; together R W X U."]


def test_a_denial_names_the_entries_of_its_own_descent() -> None:
    made = system()
    step = made.walk().steps[23]
    assert step.address is not None
    assert step.value is not None
    walk = made.walk(READ, {step.address: step.value & ~2})
    said = explain.why(walk, len(walk.steps) - 1)
    assert "R/W is 0 in L0's NPT01 PTE 1." in said


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (24, "L2's own tables say so: the fault is delivered to L2."),
        (4, "L1's tables say so, of an L2-physical address: the exit goes to L1, by way of L0."),
        (3, "L0's tables say so, of an L1-physical address: L0 handles it, L1 and L2 do not see it."),
    ],
)
def test_who_is_told_of_a_fault(number: int, sentence: str) -> None:
    assert three_stages.told(stopped(system(), number)) == sentence


def test_costs_by_whose_tables() -> None:
    assert three_stages.counts(system().walk()) == (
        "4 in L2's tables, 20 in L1's, 100 in L0's; distinct 64-byte lines: 18"
    )


# --- the document and the view


def nested(folder: Path, made: System | None = None) -> Document:
    """The small memory, with a nested guest said to run there."""
    system_ = made or system()
    document = tiny_document(folder, None)
    document.look_logical = lambda state, address, access, place, cpl: system_.walk(access)
    document.ask(tiny_document(folder).query)  # type: ignore[arg-type]
    return document


def show(qtbot: QtBot, document: Document) -> WalkView:
    view = WalkView(document)
    qtbot.addWidget(view)
    view.resize(860, 780)
    view.show()
    return view


def test_the_hardwares_walk_is_shown_until_the_logical_one_is_chosen(tmp_path: Path) -> None:
    document = nested(tmp_path)
    assert document.walk is document.hardware
    document.show_logical(True)
    assert document.walk is document.logical
    assert (document.is_logical, document.reference) == (True, 123)
    document.show_logical(False)
    assert (document.walk is document.hardware, document.reference) == (True, 3)


def test_where_no_nested_guest_runs_there_is_one_walk(tmp_path: Path, qtbot: QtBot) -> None:
    document = tiny_document(tmp_path)
    document.show_logical(True)
    assert (document.logical, document.is_logical) == (None, False)
    assert document.walk is document.hardware
    assert not show(qtbot, document).bar.isVisible()


def test_the_switch_says_what_each_walk_costs(tmp_path: Path, qtbot: QtBot) -> None:
    document = nested(tmp_path)
    view = show(qtbot, document)
    assert view.bar.logical.text() == "As L1 sees it (logical): 124 references"
    assert view.bar.hardware.text() == "As hardware walks it (collapsed): 4 references"
    assert view.bar.hardware.isChecked()
    assert not view.bar.counts.isVisible()
    view.bar.logical.click()
    assert document.is_logical
    assert view.title.text() == "Three-stage walk"
    assert view.kind.text() == "L2 4-level × L1 4-level NPT × L0 4-level NPT, user read"
    assert view.count.text() == "124 of 124 references"
    assert view.bar.counts.text().startswith("4 in L2's tables")
    view.bar.hardware.click()
    assert not document.is_logical
    assert view.title.text() == "Walk"


def test_in_little_room_the_switch_says_less_but_is_read_out_in_full(tmp_path: Path, qtbot: QtBot) -> None:
    document = nested(tmp_path)
    view = show(qtbot, document)
    document.show_logical(True)
    view.resize(420, 700)
    qtbot.waitUntil(lambda: view.bar.width() <= 420)
    assert (view.bar.logical.text(), view.bar.hardware.text()) == ("Logical: 124", "Collapsed: 4")
    assert view.bar.logical.accessibleName() == "As L1 sees it (logical): 124 references"


def test_f_folds_and_unfolds(tmp_path: Path, qtbot: QtBot) -> None:
    document = nested(tmp_path)
    view = show(qtbot, document)
    document.show_logical(True)
    view.setFocus()
    qtbot.waitUntil(view.hasFocus)
    qtbot.keyClick(view, Qt.Key.Key_F)
    assert view.canvas.is_folded
    assert view.bar.folder.text() == "Unfold L0"
    view.bar.folder.click()
    assert not view.canvas.is_folded
    assert view.bar.folder.text() == "Fold L0"


def test_a_click_on_a_small_place_lights_that_reference_of_l0(tmp_path: Path, qtbot: QtBot) -> None:
    document = nested(tmp_path)
    view = show(qtbot, document)
    document.show_logical(True)
    layout = view.canvas.grid.grid_layout
    assert layout is not None
    place = layout.place(1)
    assert place is not None
    qtbot.mouseClick(view.canvas.grid, Qt.MouseButton.LeftButton, pos=place.center().toPoint())
    assert document.reference == 1
    assert document.selection is not None
    assert (document.selection.stage, document.selection.level.name) == (Stage.HOST, "PDPT")
    assert view.panel.title.text().startswith("Reference 2: L0's NPT01 PDPTE 0, for L1's NPT12 PML4E")
    assert view.canvas.grid.accessibleDescription().startswith("Reference 2: L0's NPT01 PDPTE 0")


def test_the_panel_says_who_is_told_of_a_fault(tmp_path: Path, qtbot: QtBot) -> None:
    made = system()
    address = made.walk().steps[3].address
    assert address is not None
    broken = System(
        made.memory.with_words({address: 0}), made.guest, made.second, made.host, made.collapsed, made.address
    )
    document = nested(tmp_path, broken)
    view = show(qtbot, document)
    document.show_logical(True)
    assert view.panel.outcome.text().splitlines() == [
        "Nested page fault for guest-physical 0x1_0000: not present.",
        "L0's tables say so, of an L1-physical address: L0 handles it, L1 and L2 do not see it.",
    ]


def test_the_inspector_names_the_entry_as_the_walk_does(tmp_path: Path, qtbot: QtBot) -> None:
    document = nested(tmp_path)
    view = InspectorView(document)
    qtbot.addWidget(view)
    document.show_logical(True)
    document.go_to_reference(9)
    assert view.title.text() == "L1's NPT12 PDPTE 0"


def test_the_hierarchy_keeps_to_the_tables_that_hardware_walks(tmp_path: Path, qtbot: QtBot) -> None:
    document = nested(tmp_path)
    canvas = HierarchyCanvas(document)
    qtbot.addWidget(canvas)
    document.show_logical(True)
    document.go_to_reference(50)
    assert [tree.stage for tree in canvas._trees] == [Stage.ONE]
    assert [step.level.level for step in canvas._trees[0].steps] == [4, 3, 2, 1]
