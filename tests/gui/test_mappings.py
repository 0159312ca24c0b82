"""The list of mappings: rows as text, the filter as one types it, and a click that walks."""

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.arrays import Right
from engine.arch.mappings import Gaps, Mappings
from engine.errors import InputError
from gui.document import Document
from gui.models.mapping_filter import compile_filter, matches
from gui.models.mappings import MappingsModel, rights_text
from gui.views.mappings import MappingsView
from tests.gui.tiny import tiny_document

pytestmark = pytest.mark.usefixtures("dressed")

R, W, U, X, G = Right.R, Right.W, Right.U, Right.X, Right.G
U64 = np.uint64
RUNS = (  # va, pa, size, page shift, rights
    (0x0000_0000_0040_0000, 0x1000, 0x3000, 12, R | X | U),
    (0x0000_7F00_0000_0000, 0x9000, 0x1000, 12, R | W | X | U),
    (0x0000_7F00_0020_0000, 0x20_0000, 0x40_0000, 21, R | W | U),
    (0xFFFF_8880_0000_0000, 0x0, 1 << 30, 30, R | W | G),
    (0xFFFF_FFFF_FFFF_F000, 0xF000, 0x1000, 12, R),
)


def columns(*runs: tuple[int, int, int, int, int]) -> Mappings:
    va, pa, size, shift, rights = (list(column) for column in zip(*runs, strict=True))
    none = np.zeros(0, U64)
    small = np.zeros(0, np.uint8)
    return Mappings(
        np.array(va, U64), np.array(pa, U64), np.array(size, U64), np.array(shift, np.uint8),
        np.array(rights, np.uint16), Gaps(none, none, small, none, small),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("w", [1, 2, 3]),
        ("w+x", [1]),
        ("W X", [1]),
        ("user", [0, 1, 2]),
        ("kernel", [3, 4]),
        ("-user", [3, 4]),
        ("!u w", [3]),
        ("ro", [0, 4]),
        ("nx", [2, 3, 4]),
        ("-nx", [0, 1]),
        ("x-w", [0]),
        ("global", [3]),
        ("4k", [0, 1, 4]),
        ("2M", [2]),
        ("1g", [3]),
        ("> 2M", [2, 3]),
        (">2M", [2, 3]),
        ("<= 4KiB", [1, 4]),
        ("= 12K", [0]),
        ("user > 4K < 1M", [0]),
        ("0x402fff", [0]),
        ("0x403000", []),
        ("7f00_0000_0123", [1]),
        ("0xffff_ffff_ffff_ffff", [4]),
        ("pa:0x9000", [1, 3]),
        ("va:0x400000", [0]),
        ("0x402000-0x7f0000000000", [0, 1]),
    ],
)
def test_a_filter_keeps_what_has_all_its_words(text: str, kept: list[int]) -> None:
    assert matches(columns(*RUNS), compile_filter(text)).nonzero()[0].tolist() == kept


@pytest.mark.parametrize("text", ["zebra", "w+zebra", "> many", "0x1_0000_0000_0000_0000_0", "0x1000-zebra", "--"])
def test_other_words_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InputError) as refused:
        compile_filter(text)
    assert str(refused.value).endswith(".")


def test_rows_are_text_whatever_the_address() -> None:
    model = MappingsModel()
    model.show(columns(*RUNS), np.arange(5))
    row = [model.index(4, column).data() for column in range(model.columnCount())]
    assert row == [
        "0xffff_ffff_ffff_f000", "4 KiB", "R – – –", "0xf000", "1 × 4 KiB", "0xffff_ffff_ffff_ffff",
    ]  # fmt: skip
    assert model.index(2, 4).data() == "2 × 2 MiB"
    assert model.start(4) == 0xFFFF_FFFF_FFFF_F000


def test_rights_are_letters_in_their_places() -> None:
    assert rights_text(R | X | U) == "R – X U"
    assert rights_text(R | W | G) == "R W – – G"


# --- the view


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return tiny_document(tmp_path)


@pytest.fixture
def view(document: Document, qtbot: QtBot) -> MappingsView:
    made = MappingsView(document)
    qtbot.addWidget(made)
    made.resize(840, 600)
    made.show()
    qtbot.waitUntil(lambda: made.model.rowCount() > 0)
    return made


def ranges(view: MappingsView) -> list[str]:
    return [str(view.model.index(row, 0).data()) for row in range(view.model.rowCount())]


TINY = [
    "0x0000_0000_1000",
    "0x0000_0000_2000",
    "0x0000_0020_0000",
    "0xffff_8000_0000_1000",
    "0xffff_8000_0000_2000",
    "0xffff_8000_0020_0000",
]


def test_it_enumerates_when_it_is_first_shown(document: Document, qtbot: QtBot) -> None:
    view = MappingsView(document)
    qtbot.addWidget(view)
    assert view.model.rowCount() == 0
    view.show()
    qtbot.waitUntil(lambda: ranges(view) == TINY)
    assert view.summary.text() == "6 of 6 ranges, 4.0 MiB; 4 ranges cannot be read"


def test_a_click_walks_the_first_address(view: MappingsView, document: Document) -> None:
    view.table.clicked.emit(view.model.index(2, 0))
    query = document.query
    assert query is not None
    assert query.address == 0x20_0000


def test_typing_narrows_the_list_and_nonsense_leaves_it(view: MappingsView) -> None:
    view.filter.setText("user w+x")
    assert ranges(view) == ["0x0000_0000_1000", "0x0000_0020_0000"]
    view.filter.setText("user zebra")
    assert ranges(view) == ["0x0000_0000_1000", "0x0000_0020_0000"]
    assert "zebra" in view.note.text()
    view.filter.clear()
    assert ranges(view) == TINY
    assert not view.note.isVisible()


def test_a_filter_that_nothing_passes_says_so(view: MappingsView) -> None:
    view.filter.setText("1g")
    assert view._stack.currentWidget() is not view.table


def test_sorting_by_size_keeps_the_order_of_addresses(view: MappingsView) -> None:
    view.table.horizontalHeader().setSortIndicator(1, Qt.SortOrder.AscendingOrder)
    assert ranges(view)[-2:] == ["0x0000_0020_0000", "0xffff_8000_0020_0000"]
    view.table.horizontalHeader().setSortIndicator(1, Qt.SortOrder.DescendingOrder)
    assert ranges(view)[:2] == ["0xffff_8000_0020_0000", "0x0000_0020_0000"]


def test_the_run_of_the_walked_address_is_selected(view: MappingsView, document: Document) -> None:
    import msgspec

    assert view.table.currentIndex().row() == 0
    assert document.query is not None
    document.ask(msgspec.structs.replace(document.query, address=0x20_0FFF))
    assert view.table.currentIndex().row() == 2


def test_a_poke_is_seen(view: MappingsView, document: Document, qtbot: QtBot) -> None:
    document.append(ev.Poke(0x3000, 0), "clear")
    qtbot.waitUntil(lambda: ranges(view) == ["0x0000_0020_0000", "0xffff_8000_0020_0000"])


def test_a_row_can_be_copied(view: MappingsView) -> None:
    view.table.selectRow(0)
    view.copy()
    assert QGuiApplication.clipboard().text().split("\t")[:3] == ["0x0000_0000_1000", "4 KiB", "R W X U"]


def test_without_memory_it_says_what_to_do(qtbot: QtBot) -> None:
    view = MappingsView(Document(lambda reference: None))  # type: ignore[arg-type, return-value]
    qtbot.addWidget(view)
    view.show()
    assert view._message.accessibleName() == "No memory yet"
