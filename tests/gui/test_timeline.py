"""The timeline: each event in plain words with what came of it; edits that can be undone; one current step."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.rights import Kind
from gui.document import Change
from gui.main_window import MainWindow
from gui.models.timeline import MIME, Role, TimelineModel

SHIFT_CTRL = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
TEXT, APIC, STACK = 0x401000, 0xFFFF_FFFF_FF5F_C000, 0x7FFF_8ABE_9000


@pytest.fixture
def busy(window: MainWindow, qtbot: QtBot) -> Iterator[MainWindow]:
    """A window in which three accesses have happened: one to program text, one that faults, one to the stack."""
    for event in (ev.AccessMemory(TEXT), ev.AccessMemory(APIC), ev.AccessMemory(STACK, Kind.WRITE, value=7)):
        assert window.document.append(event, "Access") is None
    model = window.timeline.model
    tester = QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)
    yield window
    tester.deleteLater()


def titles(model: TimelineModel) -> list[str]:
    return [model.index(row).data() for row in range(model.rowCount())]


def current(window: MainWindow) -> int:
    return window.timeline.list.currentIndex().row()


def test_each_event_says_what_happened_and_what_came_of_it(busy: MainWindow) -> None:
    lines = [busy.timeline.model.index(row).data(Role.LINE) for row in range(5)]
    assert [line.title for line in lines] == [
        "Start",
        "debian-6.1-4level.core.gz is opened",
        "Reads 0x40_1000",
        "Reads 0xffff…c000",
        "Writes 0x7fff…9000",
    ]
    assert lines[1].subtitle == "4-level paging, CR3 0x35d_e000"
    assert lines[2].subtitle == "4 references"
    assert lines[3].subtitle == "#PF 0x5"


def test_it_is_spoken(busy: MainWindow) -> None:
    spoken = busy.timeline.model.index(3).data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "Step 3, a fault: Reads 0xffff…c000. #PF 0x5"


def test_choosing_a_line_goes_to_that_step(busy: MainWindow) -> None:
    assert busy.document.step == current(busy) == 4
    busy.timeline.list.setCurrentIndex(busy.timeline.model.index(2))
    assert busy.document.step == 2
    busy.document.go_to_step(1)
    assert current(busy) == 1


def test_alt_left_and_right_go_through_the_events(busy: MainWindow, qtbot: QtBot) -> None:
    busy.activateWindow()
    busy.tabs.tabBar().setFocus()
    for key, step in ((Qt.Key.Key_Left, 3), (Qt.Key.Key_Left, 2), (Qt.Key.Key_Right, 3)):
        qtbot.keyClick(busy.tabs.tabBar(), key, Qt.KeyboardModifier.AltModifier)
        assert busy.document.step == current(busy) == step


def test_the_store_is_seen_in_memory_only_after_it(busy: MainWindow) -> None:
    walk = busy.document.state.effect.walks[0]
    physical = walk.outcome.address  # type: ignore[union-attr]
    assert busy.document.state.memory.word(physical) == 7
    assert busy.document.replay.state(3).memory.word(physical) is None, "the image has page tables only"


def test_delete_undo_redo(busy: MainWindow, qtbot: QtBot) -> None:
    model = busy.timeline.model
    before = titles(model)
    busy.activateWindow()
    busy.timeline.list.setFocus()
    busy.timeline.list.setCurrentIndex(model.index(3))
    qtbot.keyClick(busy.timeline.list, Qt.Key.Key_Delete)
    assert titles(model) == [*before[:3], before[4]]
    assert busy.document.step == current(busy) == 2
    assert busy.actions_["undo"].text() == "&Undo delete “Reads 0xffff…c000”"
    busy.actions_["undo"].trigger()
    assert titles(model) == before
    assert busy.document.step == 3
    busy.actions_["redo"].trigger()
    assert titles(model) == [*before[:3], before[4]]


def test_delete_elsewhere_deletes_no_event(busy: MainWindow, qtbot: QtBot) -> None:
    busy.activateWindow()
    busy.tabs.tabBar().setFocus()
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Delete)
    assert busy.document.last_step == 4


def test_duplicate(busy: MainWindow) -> None:
    busy.document.go_to_step(2)
    busy.actions_["duplicate-event"].trigger()
    assert titles(busy.timeline.model)[2:4] == ["Reads 0x40_1000"] * 2
    assert busy.document.step == 3
    busy.actions_["undo"].trigger()
    assert busy.document.last_step == 4


def test_move_by_keys_keeps_the_event_current(busy: MainWindow, qtbot: QtBot) -> None:
    busy.activateWindow()
    busy.timeline.list.setFocus()
    qtbot.keyClick(busy.timeline.list, Qt.Key.Key_Up, SHIFT_CTRL)
    assert titles(busy.timeline.model)[2:] == ["Reads 0x40_1000", "Writes 0x7fff…9000", "Reads 0xffff…c000"]
    assert busy.document.step == 3
    qtbot.keyClick(busy.timeline.list, Qt.Key.Key_Down, SHIFT_CTRL)
    assert titles(busy.timeline.model)[2:] == ["Reads 0x40_1000", "Reads 0xffff…c000", "Writes 0x7fff…9000"]
    assert busy.document.step == 4
    assert not busy.actions_["event-down"].isEnabled()


@pytest.mark.parametrize(
    ("dragged", "before", "expected"),
    [(2, 5, [3, 4, 2]), (4, 2, [4, 2, 3]), (2, 4, [3, 2, 4]), (3, -1, [2, 4, 3]), (2, 2, [2, 3, 4]), (2, 3, [2, 3, 4])],
)
def test_dragging_moves_an_event(busy: MainWindow, dragged: int, before: int, expected: list[int]) -> None:
    """``before``: the row it is dropped before; -1 below all."""
    model = busy.timeline.model
    was = titles(model)
    data = model.mimeData([model.index(dragged)])
    assert data.hasFormat(MIME)
    assert not model.dropMimeData(data, Qt.DropAction.MoveAction, before, 0, QModelIndex())
    assert titles(model)[2:] == [was[n] for n in expected]
    if expected != [2, 3, 4]:
        busy.actions_["undo"].trigger()
    assert titles(model) == was


def test_the_start_cannot_be_dragged_and_nothing_is_dropped_into_a_line(busy: MainWindow) -> None:
    model = busy.timeline.model
    assert not model.flags(model.index(0)) & Qt.ItemFlag.ItemIsDragEnabled
    assert model.flags(model.index(1)) & Qt.ItemFlag.ItemIsDragEnabled
    assert not model.flags(model.index(1)) & Qt.ItemFlag.ItemIsDropEnabled


def test_an_event_that_cannot_happen_where_it_stands_says_so(busy: MainWindow) -> None:
    busy.document.go_to_step(1)
    busy.actions_["delete-event"].trigger()
    line = busy.timeline.model.index(1).data(Role.LINE)
    assert line.title == "Reads 0x40_1000"
    assert busy.document.replay.state(1).image is None


# --- performing the access that is looked at


def test_performing_a_read_sets_accessed_flags(window: MainWindow) -> None:
    window.address_bar.walk(STACK)
    window.actions_["perform"].trigger()
    assert window.document.scenario.events[-1] == ev.AccessMemory(STACK, Kind.READ, 1)
    assert window.document.step == 2
    assert window.document.state.effect.walks[0].ok


def test_performing_as_another_privilege_sets_it_first_and_undoes_in_one_go(window: MainWindow) -> None:
    window.address_bar.privilege.setCurrentIndex(1)
    window.address_bar.walk(0xFFFF_FFFF_8340_0000)
    window.actions_["perform"].trigger()
    assert window.document.scenario.events[1:] == (
        ev.SetRegister("cpl", 0),
        ev.AccessMemory(0xFFFF_FFFF_8340_0000, Kind.READ, 1),
    )
    assert window.document.state.effect.walks[0].ok
    window.actions_["undo"].trigger()
    assert window.document.last_step == 1


def test_a_store_is_asked_what_it_stores(window: MainWindow, answers: object) -> None:
    from gui.dialogs.store_dialog import StoreDialog

    def fill(dialog: object) -> None:
        assert isinstance(dialog, StoreDialog)
        dialog.size_.setCurrentIndex(1)
        dialog.value.setText("0x12345")
        assert not dialog.buttons.buttons()[0].isEnabled()
        assert dialog.verdict.text() == "This value does not fit into 2 bytes."
        dialog.value.setText("0xbeef")
        assert dialog.verdict.text() == ""

    answers.fill = fill  # type: ignore[attr-defined]
    window.address_bar.access.setCurrentIndex(1)
    window.address_bar.walk(STACK + 2)
    window.actions_["perform"].trigger()
    assert window.document.scenario.events[-1] == ev.AccessMemory(STACK + 2, Kind.WRITE, 2, 0xBEEF)


def test_the_views_are_told_once_what_changed(window: MainWindow) -> None:
    seen: list[Change] = []
    window.document.changed.connect(seen.append)
    window.document.go_to_step(0)
    assert len(seen) == 1
    assert Change.STATE in seen[0]
    assert Change.SCENARIO not in seen[0]
