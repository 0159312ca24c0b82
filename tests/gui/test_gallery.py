"""The start page: there from the first paint, ways to begin, and a first-time user's way through the program."""

from pathlib import Path

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.memory.library import Library
from gui import app, demos
from gui.jobs import runner
from gui.main_window import MainWindow
from gui.templates import templates
from gui.theme import theme
from gui.views.gallery import Gallery
from tests.gui.conftest import Answers


@pytest.fixture
def started(dressed: QApplication, qtbot: QtBot, settings: QSettings, answers: Answers) -> MainWindow:
    """The window as it starts without a file."""
    window = app.create_window(settings, answers, gallery=True)
    qtbot.addWidget(window)
    window.show()
    window.fill(Library())
    window.activateWindow()
    return window


def gallery(window: MainWindow) -> Gallery:
    assert window.gallery is not None
    return window.gallery


def shown_docks(window: MainWindow) -> set[str]:
    return {name for name, dock in window.docks.items() if dock.isVisible()}


def test_it_shows_every_demo_before_anything_is_filled(
    dressed: QApplication, qtbot: QtBot, settings: QSettings, answers: Answers
) -> None:
    window = app.create_window(settings, answers, gallery=True)
    qtbot.addWidget(window)
    window.show()
    assert window.is_on_gallery
    cards = gallery(window).demos
    assert [card.text() for card in cards] == [shown.title for shown in demos.shown()]
    assert all(card.accessibleDescription().endswith(".") for card in cards)
    assert shown_docks(window) == set()
    assert not window.tool_bar.isVisible()


def test_every_demo_has_a_picture_in_both_schemes() -> None:
    for shown in demos.shown():
        for dark in (False, True):
            picture = QPixmap(str(shown.picture(dark)))
            assert picture.width() == 456, f"{shown.name}: run python -m tests.thumbnails"
            assert shown.picture(dark).stat().st_size < 70_000


def test_opening_something_brings_the_views_back(started: MainWindow, qtbot: QtBot) -> None:
    with qtbot.waitSignal(started.opener.opened):
        gallery(started).buttons[1].click()
    assert not started.is_on_gallery
    assert started.document.walk is not None
    assert {"timeline", "machine", "inspector", "findings"} <= shown_docks(started)
    assert started.tool_bar.isVisible()


def test_the_start_page_leaves_what_is_open_and_goes_back_to_it(started: MainWindow, qtbot: QtBot) -> None:
    started.begin(templates()[0])
    started.docks["findings"].hide()
    before, docks = started.document.scenario, shown_docks(started)
    started.actions_["gallery"].trigger()
    assert started.is_on_gallery
    assert gallery(started).back_button.text() == "Back to Untitled"
    qtbot.keyClick(gallery(started).demos[0], Qt.Key.Key_Escape)
    assert not started.is_on_gallery
    assert started.document.scenario is before
    assert shown_docks(started) == docks


def test_a_layout_is_saved_as_it_is_behind_the_start_page(started: MainWindow, settings: QSettings) -> None:
    started.begin(templates()[0])
    started.docks["machine"].hide()
    docks = shown_docks(started)
    started.show_gallery()
    started.close()
    again = app.create_window(settings)
    again.show()
    assert shown_docks(again) == docks
    again.close()
    again.deleteLater()


def test_new_scenarios_begin_from_the_start_page(started: MainWindow) -> None:
    menu = gallery(started).new.menu()
    menu.aboutToShow.emit()
    names = [action.text() for action in menu.actions() if action.text()]
    assert names == ["&Empty", *(template.name for template in templates())]
    menu.actions()[2].trigger()
    assert not started.is_on_gallery
    assert started.document.last_step > 0


def test_arrows_move_among_the_cards_and_return_plays(started: MainWindow, qtbot: QtBot) -> None:
    cards = gallery(started).demos
    cards[0].setFocus()
    qtbot.keyClick(cards[0], Qt.Key.Key_Right)
    assert cards[1].hasFocus()
    qtbot.keyClick(cards[1], Qt.Key.Key_Left)
    qtbot.keyClick(cards[0], Qt.Key.Key_Left)
    assert cards[0].hasFocus(), "there is nothing before the first"
    qtbot.keyClick(cards[0], Qt.Key.Key_Down)
    below = QApplication.focusWidget()
    assert below in cards
    assert below.y() > cards[0].y()
    assert below.x() == cards[0].x()
    qtbot.keyClick(below, Qt.Key.Key_Return)
    assert started.presenter is not None
    assert started.presenter.demo.title == demos.shown()[cards.index(below)].title  # type: ignore[arg-type]
    started.presenter.close()
    assert started.is_on_gallery


def test_files_opened_last_are_cards_with_their_pictures(
    started: MainWindow, answers: Answers, tmp_path: Path, qtbot: QtBot
) -> None:
    started.begin(templates()[0])
    answers.path = str(tmp_path / "mine.wscope")
    started.actions_["save-as"].trigger()
    started.show_gallery()
    (card,) = gallery(started).files
    assert card.text() == "mine.wscope"
    assert card.picture is None, "a file is read once its card is seen"

    def is_seen() -> bool:
        gallery(started).ensureWidgetVisible(card)
        return card.picture is not None and not card.picture.isNull()

    qtbot.waitUntil(is_seen)
    card.click()
    qtbot.waitUntil(lambda: not started.is_on_gallery)


def test_pictures_follow_the_colours(started: MainWindow, qtbot: QtBot) -> None:
    from gui.theme import Scheme

    card = gallery(started).demos[0]
    qtbot.waitUntil(lambda: card.picture is not None)
    before = card.picture
    started.use_scheme(Scheme.DARK)
    assert theme().dark
    qtbot.waitUntil(lambda: card.picture not in (None, before))
    assert card.picture.toImage() != before.toImage()
    started.use_scheme(Scheme.LIGHT)


def test_a_first_time_user_finds_the_way(
    started: MainWindow, answers: Answers, tmp_path: Path, qtbot: QtBot, settings: QSettings
) -> None:
    """Start, start page, first demo, a scenario of one's own with a stop, saved; the next start opens it again."""
    # The first demo, with a clicker.
    qtbot.keyClick(gallery(started).demos[0], Qt.Key.Key_Return)
    presenter = started.presenter
    assert presenter is not None
    qtbot.waitUntil(presenter.isActiveWindow)
    for _ in range(12):
        presenter.said.reveal()
        qtbot.keyClick(presenter, Qt.Key.Key_PageDown)
    assert presenter.number == len(presenter.demo.stops) - 1
    qtbot.keyClick(presenter, Qt.Key.Key_Escape)
    assert started.is_on_gallery
    # A scenario of one's own, a stop in it, saved.
    menu = gallery(started).new.menu()
    menu.aboutToShow.emit()
    menu.actions()[2].trigger()
    started.actions_["record-stop"].trigger()
    started.author.fields["title"].setText("Mine")  # type: ignore[union-attr]
    answers.path = str(tmp_path / "mine.wscope")
    started.actions_["save"].trigger()
    assert answers.errors == []
    saved = started.document.scenario
    assert saved.demo.stops[0].title == "Mine"
    started.close()
    # The next start has it on the start page; it opens as it was, and plays.
    again = app.create_window(settings, answers, gallery=True)
    qtbot.addWidget(again)
    again.show()
    again.fill(Library())
    (card,) = gallery(again).files
    card.click()
    qtbot.waitUntil(lambda: again.document.is_open, timeout=5000)
    assert again.document.scenario == saved
    again.actions_["present"].trigger()
    assert again.presenter is not None
    assert again.presenter.said.title.text() == "Mine"
    again.presenter.close()
    runner().cancel()
