"""The inspector: an entry bit by bit, field by field, with its reasons and its bytes; and a bit that is flipped."""

from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.registers import CR4, EFER
from engine.arch.tables import entry_value
from engine.arch.walk import Rule, Stage
from engine.memory.image import open_image
from engine.scenario import Scenario
from gui.document import Document, Query, Selection
from gui.models.fields import MEANING, VALUE
from gui.models.raw import bytes_text
from gui.views.inspector import InspectorView
from tests.gui.tiny import NX, REGISTERS, tiny_document, tiny_file

pytestmark = pytest.mark.usefixtures("dressed")


@pytest.fixture
def document(tmp_path: Path) -> Document:
    """The last entry of the walk, PT 1, is selected: 0x5007."""
    return tiny_document(tmp_path)


@pytest.fixture
def view(document: Document, qtbot: QtBot) -> InspectorView:
    made = InspectorView(document)
    qtbot.addWidget(made)
    made.resize(320, 760)
    made.show()
    return made


def rows(view: InspectorView) -> dict[str, tuple[str, str]]:
    """The table of fields: name to value and meaning."""
    model = view.fields.fields
    cells = [[model.index(row, column).data() for column in range(3)] for row in range(model.rowCount())]
    return {name: (value, meaning) for name, value, meaning in cells}


def select(document: Document, level: int, table: int, index: int) -> None:
    document.select(Selection(Stage.ONE, document.paging.level(level), table, index))


def value_at(document: Document, address: int) -> int | None:
    return entry_value(document.state.memory, document.paging.level(1), address)


# --- what is shown


def test_the_selected_entry_is_named_with_its_value_and_place(view: InspectorView) -> None:
    assert view.title.text() == "PT entry 1"
    assert view.value.text() == "0x0000_0000_0000_5007"
    assert view.address.text() == "at 0x4008"
    assert view.chip.accessibleName() == "PT"


def test_every_field_has_its_value_and_meaning(view: InspectorView) -> None:
    table = rows(view)
    assert table["P"] == ("1", "present")
    assert table["R/W"] == ("1", "writable")
    assert table["A"] == ("0", "not yet used")
    assert table["XD"] == ("0", "may be executed")
    assert table["address"][0] == "0x5000 (page, 4 KiB)"
    assert table["key"] == ("0", "ignored: protection keys are off")
    assert "ignored 11:9" in table


def test_every_bit_belongs_to_exactly_one_field(view: InspectorView, document: Document) -> None:
    for level, index in ((4, 0), (3, 0), (2, 1), (2, 2), (1, 1)):
        select(document, level, {4: 0x1000, 3: 0x2000, 2: 0x3000, 1: 0x4000}[level], index)
        bits = [bit for field in view.fields.fields.fields for bit in range(field.lo, field.hi + 1)]
        assert sorted(bits) == list(range(64))


def test_a_broken_rule_stands_beside_the_bits_that_break_it(view: InspectorView, document: Document) -> None:
    select(document, 2, 0x3000, 2)
    assert rows(view)["reserved 20:13"] == ("0x1", "bits 20:13 must be 0: a 2-MiB page is aligned to its size")


def test_the_step_of_the_walk_is_explained_and_other_entries_too(view: InspectorView, document: Document) -> None:
    assert "It maps a 4 KiB page at 0x5000, and the access is allowed." in view.why.text()
    select(document, 1, 0x4000, 3)
    assert view.why.text().splitlines()[0] == "The walk does not use this entry."


def test_unknown_bytes_are_not_shown_as_zeros(view: InspectorView, document: Document) -> None:
    select(document, 1, 0x7F00_0000, 0)
    assert view.value.text() == "its bytes are not in the image"
    assert not view.bits.isVisible()
    assert view.raw.bytes.index(0, 1).data() == "?? ?? ?? ?? ?? ?? ?? ??"


def test_bytes_stand_in_the_order_of_their_addresses(view: InspectorView) -> None:
    assert view.raw.bytes.rowCount() == 512
    assert view.raw.currentIndex().row() == 1
    assert view.raw.bytes.index(1, 1).data() == "07 50 00 00 00 00 00 00"
    assert bytes_text(0x1234_5678, 4) == "78 56 34 12"


def test_32_bit_entries_have_32_bits(golden: Path, qtbot: QtBot) -> None:
    document = Document(lambda reference: open_image(Path(reference.path)))
    document.open(Scenario(events=(ev.OpenImage(ev.ImageRef(str(golden / "dumps" / "debian-6.1-686.core.gz"))),)))
    document.ask(Query(0xB731_2000))
    view = InspectorView(document)
    qtbot.addWidget(view)
    assert len(view.value.text()) == len("0x3fcf_b067")
    assert view.fields.fields.row_of(31) is not None
    assert view.fields.fields.row_of(32) is None
    assert view.raw.bytes.rowCount() == 1024


def test_nothing_selected_says_what_to_do(tmp_path: Path, qtbot: QtBot) -> None:
    view = InspectorView(tiny_document(tmp_path, None))
    qtbot.addWidget(view)
    assert view._stack.currentIndex() == 0


# --- one selection: bits, fields, bytes


def test_a_bit_selects_its_field_and_a_field_its_bits(view: InspectorView, qtbot: QtBot) -> None:
    at = view.bits.rect_of(20).center().toPoint()
    qtbot.mouseClick(view.bits, Qt.MouseButton.LeftButton, pos=at)
    assert view.fields.fields.fields[view.fields.currentIndex().row()].name == "address"
    assert view.bits.current == 20
    view.fields.choose(view.fields.fields.row_of(63))
    assert view.bits.current == 63


def test_a_row_of_bytes_selects_its_entry(view: InspectorView, document: Document) -> None:
    view.raw.clicked.emit(view.raw.bytes.index(2, 1))
    assert document.selection is not None
    assert document.selection.index == 2
    assert view.title.text() == "PT entry 2"


def test_a_selected_bit_stays_selected_from_entry_to_entry(view: InspectorView, document: Document) -> None:
    view.bits._choose(5)
    document.go_to_reference(0)
    assert view.bits.current == 5
    assert view.fields.fields.fields[view.fields.currentIndex().row()].name == "A"


# --- flipping


def test_a_double_click_flips_the_bit_and_undo_takes_it_back(
    view: InspectorView, document: Document, qtbot: QtBot
) -> None:
    at = view.bits.rect_of(0).center().toPoint()
    qtbot.mouseDClick(view.bits, Qt.MouseButton.LeftButton, pos=at)
    assert value_at(document, 0x4008) == 0x5006
    assert view.value.text() == "0x0000_0000_0000_5006"
    walk = document.walk
    assert walk is not None
    assert walk.steps[-1].rule is Rule.NOT_PRESENT
    assert document.undo_stack.undoText() == "Flip bit 0 of PT entry 1"
    document.undo_stack.undo()
    assert value_at(document, 0x4008) == 0x5007
    assert view.value.text() == "0x0000_0000_0000_5007"


def test_space_flips_the_bit_that_the_arrows_came_to(view: InspectorView, document: Document, qtbot: QtBot) -> None:
    view.bits._choose(0)
    for key in (Qt.Key.Key_Left, Qt.Key.Key_Left, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Space):
        qtbot.keyClick(view.bits, key)
    assert view.bits.current == 2
    assert value_at(document, 0x4008) == 0x5003


def test_bit_63_is_flipped_like_any_other(view: InspectorView, document: Document) -> None:
    view.flip(63)
    assert value_at(document, 0x4008) == 0x5007 | NX


@pytest.mark.parametrize("key", [Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Space])
def test_the_windows_shortcuts_do_not_take_the_bits_keys(view: InspectorView, key: Qt.Key) -> None:
    event = QKeyEvent(QEvent.Type.ShortcutOverride, key, Qt.KeyboardModifier.NoModifier)
    event.ignore()
    view.bits.event(event)
    assert event.isAccepted()


def test_a_pdpte_register_is_shown_but_cannot_be_overwritten(tmp_path: Path, qtbot: QtBot) -> None:
    import msgspec

    registers = msgspec.structs.replace(
        REGISTERS, cr4=int(CR4.PAE), efer=int(EFER.NXE), cr3=0x2000, pdptes=(0x3001, 0, 0, 0)
    )
    path = tiny_file(tmp_path)
    document = Document(lambda reference: open_image(Path(reference.path)))
    document.open(Scenario(events=(ev.OpenImage(ev.ImageRef(str(path)), registers),)))
    document.ask(Query(0x1ABC))
    document.go_to_reference(0)
    view = InspectorView(document)
    qtbot.addWidget(view)
    view.show()
    assert view.title.text() == "PDPT entry 0"
    assert view.address.text() == "in a register of the processor"
    assert not view.raw.isVisible()
    view.flip(0)
    assert "cannot be overwritten" in view.note.text()
    assert not document.undo_stack.count()


# --- copying, and being told


def test_the_value_is_copied_unless_something_else_is_selected(view: InspectorView) -> None:
    view.copy()
    assert QGuiApplication.clipboard().text() == "0x0000000000005007"
    view.fields.setFocus()
    view.fields.choose(view.fields.fields.row_of(1))
    view.copy()
    assert QGuiApplication.clipboard().text() == "R/W\t1\twritable"


def test_the_selected_bit_is_told_to_screen_readers(view: InspectorView) -> None:
    view.bits._choose(1)
    assert view.bits.accessibleName() == "Bits of the entry"
    assert view.bits.accessibleDescription() == "bit 1 is 1: R/W, writable"


def test_long_values_take_the_room_of_the_meaning(view: InspectorView) -> None:
    row = view.fields.fields.row_of(12)
    assert row is not None
    assert view.fields.columnSpan(row, VALUE) == 2
    assert view.fields.columnSpan(0, VALUE) == 1
    assert view.fields.fields.columnCount() == MEANING + 1
