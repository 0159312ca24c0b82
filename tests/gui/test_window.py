"""The window as a whole: it starts with something to see, everything follows one selection, and keys do it all."""

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QMenu, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from engine.memory.library import Library
from gui import app, resources
from gui.actions import commands, menus
from gui.dialogs.about import AboutDialog
from gui.layout import Lazy
from gui.main_window import MainWindow
from gui.sights import sights
from gui.version import VERSION
from tests.gui.conftest import Answers


def press(qtbot: QtBot, window: MainWindow, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier,
          on: QWidget | None = None) -> None:  # fmt: skip
    """``key`` where the focus is, or on ``on``, which gets the focus."""
    window.activateWindow()
    if on is not None:
        on.setFocus()
    qtbot.keyClick(QApplication.focusWidget() or window, key, modifier)


@pytest.fixture
def focused(window: MainWindow, qtbot: QtBot) -> MainWindow:
    window.activateWindow()
    window.tabs.currentWidget().setFocus()
    qtbot.waitUntil(lambda: QApplication.focusWidget() is not None)
    return window


def test_it_starts_with_the_built_in_image_at_its_first_sight(window: MainWindow) -> None:
    assert window.document.query == sights()[0].query
    assert window.document.walk is not None
    assert window.document.walk.ok
    assert window.address_bar.field.text() == "0x7f56_4230_9abc"
    assert window.tool_bar.step.text() == "step 4 / 4"


def test_left_and_right_step_through_the_references(focused: MainWindow, qtbot: QtBot) -> None:
    for expected in (2, 1, 0, 0):
        press(qtbot, focused, Qt.Key.Key_Left)
        assert focused.document.reference == expected
    assert focused.tool_bar.step.text() == "step 1 / 4"
    press(qtbot, focused, Qt.Key.Key_Right)
    assert focused.document.reference == 1


def test_home_and_end_go_to_the_first_and_the_last(focused: MainWindow, qtbot: QtBot) -> None:
    press(qtbot, focused, Qt.Key.Key_Home, on=focused.tabs.tabBar())
    assert focused.document.reference == 0
    press(qtbot, focused, Qt.Key.Key_End)
    assert focused.document.reference == 3


def test_in_the_address_field_these_keys_move_the_cursor(focused: MainWindow, qtbot: QtBot) -> None:
    press(qtbot, focused, Qt.Key.Key_L, Qt.KeyboardModifier.ControlModifier)
    assert QApplication.focusWidget() is focused.address_bar.field
    assert focused.address_bar.field.selectedText() == "0x7f56_4230_9abc"
    for key in (Qt.Key.Key_End, Qt.Key.Key_Left, Qt.Key.Key_Left):
        press(qtbot, focused, key)
    assert focused.address_bar.field.cursorPosition() == len("0x7f56_4230_9abc") - 2
    assert focused.document.reference == 3


def test_space_plays_to_the_end_and_then_again_from_the_start(focused: MainWindow, qtbot: QtBot,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    focused.player._timer.setInterval(1)
    seen: list[int | None] = []
    focused.document.changed.connect(lambda _: seen.append(focused.document.reference))
    with qtbot.waitSignals([focused.player.changed, focused.player.changed]):
        press(qtbot, focused, Qt.Key.Key_Space)
    assert seen == [0, 1, 2, 3]
    assert not focused.player.is_playing


def test_space_again_pauses(focused: MainWindow, qtbot: QtBot) -> None:
    press(qtbot, focused, Qt.Key.Key_Space)
    assert focused.player.is_playing
    assert focused.actions_["play"].text() == "Pa&use"
    press(qtbot, focused, Qt.Key.Key_Space)
    assert not focused.player.is_playing
    assert focused.document.reference == 0


def test_a_button_in_focus_keeps_the_space_bar(focused: MainWindow, qtbot: QtBot) -> None:
    button = QPushButton("press me", focused.center)
    button.show()
    with qtbot.waitSignal(button.clicked):
        press(qtbot, focused, Qt.Key.Key_Space, on=button)
    assert not focused.player.is_playing


def test_another_walk_ends_the_playing(focused: MainWindow, qtbot: QtBot) -> None:
    focused.player.toggle()
    focused.document.ask(sights()[1].query)
    assert not focused.player.is_playing


def test_the_tabs_are_chosen_by_keys(focused: MainWindow, qtbot: QtBot) -> None:
    titles = []
    for key in (Qt.Key.Key_2, Qt.Key.Key_3, Qt.Key.Key_4, Qt.Key.Key_1):
        press(qtbot, focused, key, Qt.KeyboardModifier.ControlModifier)
        titles.append(focused.tabs.tabText(focused.tabs.currentIndex()))
    assert titles == ["Walk", "Effects", "Mappings", "Hierarchy"]


def test_f1_shows_the_help_of_the_view_in_focus(focused: MainWindow, qtbot: QtBot) -> None:
    press(qtbot, focused, Qt.Key.Key_F1)
    assert focused.help.page == "hierarchy"
    press(qtbot, focused, Qt.Key.Key_F1, on=focused.timeline.list)
    assert focused.help.page == "timeline"
    assert focused.docks["help"].isVisible()
    assert "what came of it" in focused.help.toPlainText()


def test_every_view_has_a_page_of_help_that_the_front_page_leads_to(window: MainWindow) -> None:
    seen: set[str] = set()
    wanted = ["index"]
    while wanted:
        page = wanted.pop()
        if page not in seen:
            seen.add(page)
            wanted += [link.split(")")[0] for link in resources.text("docs", f"{page}.md").split("](")[1:]]
    assert {lazy.page for lazy in window.findChildren(Lazy)} - {"help"} <= seen


def test_every_command_is_in_a_menu_once(window: MainWindow) -> None:
    named = [id for _, ids in menus() for id in ids if id != "-" and not id.startswith("@")]
    named += ["scheme-system", "scheme-light", "scheme-dark"]
    assert sorted(named) == sorted(command.id for command in commands())


def test_no_two_commands_share_a_shortcut() -> None:
    keys = [keys for command in commands() for keys in command.shortcuts]
    assert len(keys) == len(set(keys))


def test_every_entry_of_a_menu_has_a_letter_of_its_own(window: MainWindow) -> None:
    for action in window.menuBar().actions():
        menu = action.menu()
        assert isinstance(menu, QMenu)
        letters = [_letter(entry) for entry in menu.actions() if not entry.isSeparator() and _letter(entry)]
        assert len(letters) == len(set(letters)), menu.title()


def _letter(action: QAction) -> str:
    return action.text().partition("&")[2][:1].lower()


def test_with_nothing_open_only_what_makes_sense_is_enabled(empty_window: MainWindow) -> None:
    actions = empty_window.actions_
    off = {command.id for command in commands() if not actions[command.id].isEnabled()}
    assert off == {
        "save", "save-as", "save-copy", "revert", "export-report",
        "undo", "redo", "edit-event", "duplicate-event", "delete-event", "event-up", "event-down",
        "edit-register", "choose-root", "pin-a", "pin-b", "unpin",
        "first", "previous", "next", "last", "play", "logical", "perform", "previous-event", "next-event",
        "present", "present-here", "record-stop", "record-pictures",
    }  # fmt: skip


def test_docks_come_back_where_they_were(window: MainWindow, settings: QSettings, qtbot: QtBot) -> None:
    window.docks["machine"].close()
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, window.docks["timeline"])
    window.close()
    again = app.create_window(settings)
    qtbot.addWidget(again)
    again.show()
    assert not again.docks["machine"].isVisible()
    assert again.dockWidgetArea(again.docks["timeline"]) is Qt.DockWidgetArea.RightDockWidgetArea
    again.fill(Library())
    again.actions_["reset-layout"].trigger()
    assert again.docks["machine"].isVisible()
    assert again.dockWidgetArea(again.docks["timeline"]) is Qt.DockWidgetArea.LeftDockWidgetArea


@pytest.mark.qt_log_ignore(r"does not support (raise|propagateSizeHints)")
def test_a_floating_dock_is_put_back_by_reset(window: MainWindow) -> None:
    window.docks["inspector"].setFloating(True)
    window.actions_["reset-layout"].trigger()
    assert not window.docks["inspector"].isFloating()


@pytest.mark.parametrize("size", [(1440, 900), (1024, 700)])
def test_it_fits(window: MainWindow, size: tuple[int, int]) -> None:
    window.resize(*size)
    assert (window.width(), window.height()) == size
    assert window.address_bar.geometry().right() < window.width()


def test_what_can_be_used_has_a_name_to_be_spoken(window: MainWindow) -> None:
    for page in range(window.tabs.count()):
        window.tabs.setCurrentIndex(page)
    focusable = [w for w in window.findChildren(QWidget) if w.focusPolicy() & Qt.FocusPolicy.TabFocus and w.isVisible()]
    nameless = [w for w in focusable if not (w.accessibleName() or w.toolTip() or _has_text(w) or _is_frame(w))]
    assert [f"{type(w).__name__} in {type(w.parent()).__name__}" for w in nameless] == []


def _has_text(widget: QWidget) -> bool:
    text = getattr(widget, "text", None)
    return bool(text()) if callable(text) else False


def _is_frame(widget: QWidget) -> bool:
    """Takes the focus only to hand it on, or is a part of something that has a name."""
    parent = widget.parentWidget()
    return (
        widget.focusProxy() is not None
        or bool(parent and parent.accessibleName())
        or widget.objectName().startswith("qt_")
    )


def test_about_names_versions_and_shows_the_licence_of_each_part(window: MainWindow, answers: Answers) -> None:
    seen: list[AboutDialog] = []
    answers.fill = lambda dialog: seen.append(dialog)  # type: ignore[arg-type]
    window.actions_["about"].trigger()
    (dialog,) = seen
    lines = dialog.versions().splitlines()
    assert lines[0] == f"Walkscope {VERSION}"
    assert {line.partition(" ")[0] for line in lines[1:]} >= {"Python", "Qt", "numpy", "SQLAlchemy", "msgspec"}
    for row in range(dialog.list.topLevelItemCount()):
        item = dialog.list.topLevelItem(row)
        assert item is not None
        dialog.list.setCurrentItem(item)
        assert all(item.text(column) for column in range(3))
        assert dialog.licence.toPlainText()
