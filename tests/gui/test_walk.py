"""The walk as a grid: where each reference stands, and what is said of the lit one."""

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.arch.registers import CR4
from engine.arch.walk import Walk
from gui.document import Document
from gui.models.walk_grid import Grid, end_texts, walk_grid
from gui.paint.walk_grid import paint_grid
from gui.paint.walk_layout import lay_out_grid
from gui.views.walk import WalkView
from tests.engine.nested_fixture import LONG, guest, walk_ept, walk_npt
from tests.gui.tiny import tiny_document

pytestmark = pytest.mark.usefixtures("dressed")
PAE = {"cr0": LONG["cr0"], "cr4": int(CR4.PAE), "efer": 0, "cr3": 0x1000}


def picture(grid: Grid) -> list[str]:
    """The numbers of the references, a row a line: "." where the walk did not come, "r" for a register."""
    width = len(grid.columns)
    rows = [["  "] * width for _ in grid.rows]
    for cell in grid.cells:
        shown = "." if cell.step is None else "r" if cell.reference is None else str(cell.reference)
        rows[cell.row][cell.column] = shown.rjust(2)
    return [" ".join(row).rstrip() for row in rows]


def test_one_stage_is_a_single_row(tmp_path: Path) -> None:
    walk = tiny_document(tmp_path).walk
    assert walk is not None
    grid = walk_grid(walk)
    assert [head.title for head in grid.columns] == ["PML4", "PDPT", "PD", "PT", "page"]
    assert picture(grid) == [" 1  2  3  4"]
    assert end_texts(walk) == ("physical", "0x5abc")


def test_a_large_page_leaves_the_lower_level_out(tmp_path: Path) -> None:
    walk = tiny_document(tmp_path, 0x20_0000).walk
    assert walk is not None
    assert picture(walk_grid(walk)) == [" 1  2  3  ."]


def test_two_stages_are_rows_of_guest_levels() -> None:
    grid = walk_grid(walk_npt())
    assert [head.title for head in grid.columns] == ["nPML4", "nPDPT", "nPD", "nPT", "guest entry"]
    assert [(head.title, head.note) for head in grid.rows] == [
        ("gPML4", "0x17f0"),
        ("gPDPT", "0x2240"),
        ("gPD", "0x3d10"),
        ("gPT", "0x4b38"),
        ("page", "0x5890"),
    ]
    assert picture(grid) == [
        " 1  2  3  4  5",
        " 6  7  8  9 10",
        "11 12 13 14 15",
        "16 17 18 19 20",
        "21 22 23 24",
    ]


def test_another_level_of_nesting_is_another_column() -> None:
    assert picture(walk_grid(walk_npt(levels=5)))[0] == " 1  2  3  4  5  6"
    assert picture(walk_grid(walk_ept(levels=5)))[-1] == "25 26 27 28 29"


def test_a_fault_in_the_middle_leaves_the_rest_empty() -> None:
    walk = walk_npt({0x103000 + 8 * 2: 0})
    assert picture(walk_grid(walk)) == [
        " 1  2  3  4  5",
        " 6  7  8  9  .",
        " .  .  .  .  .",
        " .  .  .  .  .",
        " .  .  .  .",
    ]
    assert end_texts(walk) == ("not reached", "")


def test_a_guest_without_paging_has_only_the_row_of_the_page() -> None:
    walk = walk_npt(address=0x5890, guest_registers={"cr0": 0x11, "cr4": 0, "efer": 0})
    assert picture(walk_grid(walk)) == [" 1  2  3  4"]


def test_pdpte_registers_cost_no_reference_and_need_no_translation() -> None:
    """On Intel a PAE guest's PDPTEs are registers: the row has one cell, and numbers begin below it."""
    registers = {**PAE, "pdptes": (0x3001, 0, 0, 0)}
    walk = walk_ept({guest(0x3000): 0x4007, guest(0x4000): 0x5007}, address=0, guest_registers=registers)
    assert picture(walk_grid(walk)) == [
        "             r",
        " 1  2  3  4  5",
        " 6  7  8  9 10",
        "11 12 13 14",
    ]


def test_an_address_that_is_not_canonical_reads_no_table(tmp_path: Path) -> None:
    walk = tiny_document(tmp_path, 1 << 47).walk
    assert walk is not None
    assert picture(walk_grid(walk)) == [" .  .  .  ."]
    assert end_texts(walk) == ("#GP(0)", "no table is read")


@pytest.mark.parametrize("walk", [walk_npt(), walk_npt(levels=5), walk_ept({0x100000: 0})], ids=["4x4", "4x5", "fault"])
@pytest.mark.parametrize("width", [420, 800, 1400])
def test_cells_never_overlap_and_grow_with_the_room(walk: Walk, width: int) -> None:
    layout = lay_out_grid(walk_grid(walk), width, 500)
    rects = [layout.rect(cell.row, cell.column) for cell in layout.grid.cells]
    assert not [(a, b) for n, a in enumerate(rects) for b in rects[n + 1 :] if a.intersects(b)]
    assert all(rect.right() <= layout.size.width() and rect.bottom() <= layout.size.height() for rect in rects)
    if width == 1400:
        assert layout.size.width() <= width


def test_a_cell_is_found_by_its_place() -> None:
    layout = lay_out_grid(walk_grid(walk_npt()), 800, 500)
    cell = layout.cell_at(layout.rect(3, 1).center())
    assert cell is not None
    assert cell.reference == 17


def test_the_grid_paints_on_any_painter() -> None:
    """What is lit decides what is dimmed, so two pictures of one walk differ."""
    walk = walk_npt()
    layout = lay_out_grid(walk_grid(walk), 800, 500)

    def painted(lit: int) -> QImage:
        image = QImage(layout.size.toSize(), QImage.Format.Format_RGB32)
        image.fill(Qt.GlobalColor.white)
        painter = QPainter(image)
        paint_grid(painter, layout, walk, lit)
        painter.end()
        return image

    assert painted(3) == painted(3)
    assert painted(3) != painted(4)


# --- the view


def show(qtbot: QtBot, document: Document) -> WalkView:
    view = WalkView(document)
    qtbot.addWidget(view)
    view.resize(840, 700)
    view.show()
    return view


def test_a_click_on_a_cell_lights_its_reference(tmp_path: Path, qtbot: QtBot) -> None:
    document = tiny_document(tmp_path)
    view = show(qtbot, document)
    layout = view.canvas.grid.grid_layout
    assert layout is not None
    qtbot.mouseClick(view.canvas.grid, Qt.MouseButton.LeftButton, pos=layout.rect(0, 1).center().toPoint())
    assert document.reference == 1
    assert view.count.text() == "2 of 4 references"
    assert view.panel.title.text() == "Reference 2: PDPT entry 0"


def test_the_panel_says_what_was_read_and_what_it_cost(tmp_path: Path, qtbot: QtBot) -> None:
    document = tiny_document(tmp_path)
    view = show(qtbot, document)
    document.go_to_reference(0)
    assert view.panel.text().splitlines() == [
        "Reference 1: PML4 entry 0",
        "reads 0x1000   value 0x0000_0000_0000_2007",
        "CR3 names the PML4 at 0x1000.",
        "Bits 47:39 of the address pick entry 0.",
        "It is present and points at the PDPT at 0x2000.",
        "The processor sets A here.",
        "Rights so far: R W X U. Cost so far: 1 reference, 1 cache line.",
    ]


def test_a_fault_is_decoded_at_the_reference_that_raised_it(tmp_path: Path, qtbot: QtBot) -> None:
    document = tiny_document(tmp_path, 0x3000)
    view = show(qtbot, document)
    assert view.panel.outcome.text() == "Page fault, CR2 0x3000: not present."
    assert "bit 2, U/S = 1: a user access" in view.panel.code.lines()
    document.go_to_reference(0)
    assert not view.panel.code.isVisible()
    assert not view.panel.outcome.isVisible()


def test_everything_said_can_be_copied(tmp_path: Path, qtbot: QtBot) -> None:
    view = show(qtbot, tiny_document(tmp_path, 0x3000))
    view.panel.copy()
    copied = QGuiApplication.clipboard().text()
    assert copied == view.panel.text()
    assert "bit 0, P = 0: an entry was not present" in copied


def test_a_refused_address_says_why(tmp_path: Path, qtbot: QtBot) -> None:
    view = show(qtbot, tiny_document(tmp_path, 1 << 47))
    assert view.panel.title.text() == "#GP(0)"
    assert "not canonical" in view.panel.outcome.text()
    assert view.count.text() == "0 references"


def test_the_lit_reference_is_told_to_screen_readers(tmp_path: Path, qtbot: QtBot) -> None:
    document = tiny_document(tmp_path)
    view = show(qtbot, document)
    document.go_to_reference(2)
    assert view.canvas.grid.accessibleDescription() == "Reference 3: PD entry 0: table"


def test_before_the_first_address_it_says_what_to_do(tmp_path: Path, qtbot: QtBot) -> None:
    view = show(qtbot, tiny_document(tmp_path, None))
    assert view._empty()[1] == "Type an address in the address bar (Ctrl+L) to walk it."
    assert not view.panel.isVisible()


def test_faces_survive_the_style_sheet(tmp_path: Path, qtbot: QtBot, dressed: QApplication) -> None:
    view = show(qtbot, tiny_document(tmp_path))
    assert view.panel.title.font().bold()
    assert "Mono" in view.panel.reads.font().families()[0]
