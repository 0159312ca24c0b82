"""Asking about an address: what is typed is walked or explained, never lost; what is not mapped has neighbours."""

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from engine.arch.faults import GeneralProtection, PageFault, Translated
from engine.arch.mappings import mappings
from engine.arch.rights import FETCH, WRITE, Access
from engine.machine.look import HERE
from gui.document import Query
from gui.main_window import MainWindow
from gui.sights import sights


def ask(window: MainWindow, qtbot: QtBot, text: str) -> None:
    window.address_bar.field.setText("")
    qtbot.keyClicks(window.address_bar.field, text)
    qtbot.keyClick(window.address_bar.field, Qt.Key.Key_Return)


@pytest.mark.parametrize("text", ["0x401000", "401000", "40_1000", "40'1000", " 40 1000 "])
def test_an_address_is_walked_however_it_is_written(window: MainWindow, qtbot: QtBot, text: str) -> None:
    ask(window, qtbot, text)
    walk = window.document.walk
    assert walk is not None
    assert walk.address == 0x401000
    assert isinstance(walk.outcome, Translated)
    assert window.address_bar.field.text() == text


def test_what_is_no_address_is_a_sentence_in_place_and_nothing_is_lost(window: MainWindow, qtbot: QtBot) -> None:
    before = window.document.query
    ask(window, qtbot, "40100g")
    assert window.notice.isVisible()
    assert window.notice.label.text() == "“40100g” is not an address: write it in hex, such as 0x7f12_3456_7000."
    assert window.address_bar.field.text() == "40100g"
    assert window.document.query == before
    qtbot.keyClick(window.address_bar.field, Qt.Key.Key_Backspace)
    assert not window.notice.isVisible()
    qtbot.keyClick(window.address_bar.field, Qt.Key.Key_Return)
    assert window.document.query is not None
    assert window.document.query.address == 0x40100


def test_a_text_like_html_is_quoted_as_it_is(window: MainWindow, qtbot: QtBot) -> None:
    ask(window, qtbot, "<h1>0</h1>")
    assert window.notice.label.textFormat() is Qt.TextFormat.PlainText
    assert "“<h1>0</h1>” is not an address" in window.notice.label.text()


def test_access_and_privilege_are_asked_anew_for_the_same_address(window: MainWindow) -> None:
    bar = window.address_bar
    bar.access.setCurrentIndex(1)
    bar.access.activated.emit(1)
    assert window.document.query == Query(sights()[0].address, WRITE, 3)
    bar.privilege.setCurrentIndex(1)
    bar.privilege.activated.emit(1)
    assert window.document.query == Query(sights()[0].address, WRITE, 0)
    walk = window.document.walk
    assert walk is not None
    assert isinstance(walk.outcome, PageFault), "SMAP keeps the kernel from writing a user page"


def test_changing_them_keeps_a_text_that_is_being_typed(window: MainWindow, qtbot: QtBot) -> None:
    window.address_bar.field.setText("0x40")
    window.address_bar.access.setCurrentIndex(1)
    window.address_bar.access.activated.emit(1)
    assert window.address_bar.field.text() == "0x40"


def test_it_follows_what_is_asked_elsewhere(window: MainWindow) -> None:
    window.document.ask(Query(0xFFFF_FFFF_8340_0000, FETCH, 0))
    bar = window.address_bar
    assert bar.field.text() == "0xffff_ffff_8340_0000"
    assert (bar.access.currentText(), bar.privilege.currentText(), bar.place.currentText()) == (
        "fetch", "supervisor", "GVA",
    )  # fmt: skip


def test_an_image_has_one_kind_of_address(window: MainWindow) -> None:
    assert [window.address_bar.place.itemText(n) for n in range(window.address_bar.place.count())] == ["GVA"]
    assert window.document.place == HERE


def test_the_size_of_an_access_stays(window: MainWindow) -> None:
    window.document.ask(Query(0x401FFF, Access(size=2)))
    window.address_bar.walk(0x401000)
    assert window.document.query == Query(0x401000, Access(size=2))


# --- addresses that are not mapped


def test_an_unmapped_address_names_the_nearest_pages(window: MainWindow, qtbot: QtBot) -> None:
    ask(window, qtbot, "0x5794a9")
    qtbot.waitUntil(window.notice.isVisible)
    found = mappings(window.document.state.memory, window.document.paging)
    below = max(int(va + size) for va, size in zip(found.va, found.size, strict=True) if int(va) < 0x5794A9) - 1
    above = min(int(va) for va in found.va if int(va) > 0x5794A9)
    text = window.notice.label.text()
    assert text.startswith("0x57_94a9 is not mapped. The nearest pages are ")
    assert f'href="{below:#x}"' in text
    assert f'href="{above:#x}"' in text


def test_a_click_walks_the_nearest_page(window: MainWindow, qtbot: QtBot) -> None:
    ask(window, qtbot, "0x5794a9")
    qtbot.waitUntil(window.notice.isVisible)
    window.notice.label.linkActivated.emit("0x4affff")
    walk = window.document.walk
    assert walk is not None
    assert walk.address == 0x4AFFFF
    assert walk.ok
    assert not window.notice.isVisible()


def test_so_does_an_address_that_is_not_canonical(window: MainWindow, qtbot: QtBot) -> None:
    ask(window, qtbot, "0x8000_0000_0000")
    walk = window.document.walk
    assert walk is not None
    assert isinstance(walk.outcome, GeneralProtection)
    qtbot.waitUntil(window.notice.isVisible)
    assert "0x7fff_8abf_bfff" in window.notice.label.text()
    assert "0xffff_8d2d_4000_0000" in window.notice.label.text()


def test_a_page_that_is_there_but_denied_is_not_called_unmapped(window: MainWindow, qtbot: QtBot) -> None:
    window.document.ask(sights()[4].query)
    qtbot.wait(50)
    assert not window.notice.isVisible()


def test_an_answer_that_comes_late_is_dropped(window: MainWindow, qtbot: QtBot) -> None:
    ask(window, qtbot, "0x5794a9")
    window.document.ask(sights()[0].query)
    qtbot.wait(300)
    assert not window.notice.isVisible()


# --- the sights


def test_each_sight_is_a_click_away(window: MainWindow, qtbot: QtBot) -> None:
    from gui.strips import SightsStrip

    strip = window.findChild(SightsStrip)
    assert strip is not None
    for number, sight in enumerate(sights()):
        qtbot.mouseClick(strip.buttons.button(number), Qt.MouseButton.LeftButton)
        assert window.document.query == sight.query
        assert strip.sentence.text() == sight.sentence
        checked = [n for n in range(len(sights())) if strip.buttons.button(n).isChecked()]
        assert checked == [number]
    window.address_bar.walk(0x401000)
    assert not strip.sentence.isVisible()
    assert not any(button.isChecked() for button in strip.buttons.buttons())


def test_the_sights_can_be_put_away(window: MainWindow, qtbot: QtBot) -> None:
    from PySide6.QtWidgets import QToolButton

    from gui.strips import SightsStrip

    strip = window.findChild(SightsStrip)
    assert strip is not None
    closer = next(b for b in strip.findChildren(QToolButton) if b.accessibleName() == "Hide these addresses")
    qtbot.mouseClick(closer, Qt.MouseButton.LeftButton)
    assert not strip.isVisible()
    window.document.ask(sights()[1].query)
    assert not strip.isVisible()
