"""The presenter: a demo from start to end by the keys of a clicker, a break on a copy, notes, and pictures."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.cli.run import read_scenario
from engine.demo import Demo, Stop
from engine.memory.library import Library
from engine.scenario import Scenario
from gui import demos
from gui.document import Query
from gui.main_window import MainWindow
from gui.paint.hierarchy import Marked
from gui.presenter import Presenter
from gui.recorder import Recorder, rest
from gui.stops import show, take
from gui.views.effects import EffectsView
from gui.views.hierarchy import HierarchyView
from tests.conftest import ROOT

Key = Qt.Key
Play = Callable[..., Presenter]


@pytest.fixture
def play(dressed: QApplication, settings: QSettings, qtbot: QtBot) -> Iterator[Play]:
    made: list[Presenter] = []

    def begin(what: str | Scenario, number: int = 0) -> Presenter:
        scenario = demos.load(what) if isinstance(what, str) else what
        presenter = Presenter(settings, scenario, Library(), "demo")
        qtbot.addWidget(presenter)
        presenter.begin(number)
        made.append(presenter)
        qtbot.waitUntil(lambda: presenter.isFullScreen() and presenter.isActiveWindow())
        return presenter

    yield begin
    for presenter in made:
        presenter.close()


def press(qtbot: QtBot, presenter: Presenter, *keys: Key) -> None:
    presenter.activateWindow()
    for key in keys:
        qtbot.keyClick(presenter, key)


def test_a_clicker_goes_through_a_demo_and_back(play: Play, qtbot: QtBot) -> None:
    presenter = play("four-references")
    last = len(presenter.demo.stops) - 1
    assert presenter.isFullScreen()
    assert (presenter.number, presenter.said.title.text()) == (0, "One address")
    assert "0x7f56_4230_9abc" in presenter.said.text.toPlainText()
    assert presenter.said.head.text() == f"1 of {last + 1} · One address, four references"
    press(qtbot, presenter, Key.Key_PageDown)
    assert presenter.number == 1
    press(qtbot, presenter, Key.Key_PageUp, Key.Key_PageUp)
    assert presenter.number == 0
    press(qtbot, presenter, Key.Key_End)
    assert presenter.number == last
    press(qtbot, presenter, Key.Key_PageDown)
    assert presenter.number == last, "there is nothing after the last stop"
    press(qtbot, presenter, Key.Key_Home)
    assert presenter.number == 0
    with qtbot.waitSignal(presenter.left):
        press(qtbot, presenter, Key.Key_Escape)


def test_left_and_right_still_step_through_the_walk(play: Play, qtbot: QtBot) -> None:
    presenter = play("four-references", 1)
    assert presenter.document.reference == 0
    press(qtbot, presenter, Key.Key_Right, Key.Key_Right)
    assert presenter.document.reference == 2
    press(qtbot, presenter, Key.Key_Left)
    assert presenter.document.reference == 1
    assert presenter.number == 1


def test_an_answer_waits_for_page_down(play: Play, qtbot: QtBot) -> None:
    presenter = play("two-dimensional-walk", 1)
    said = presenter.said
    assert said.waits
    assert said.question.isVisible()
    assert not said.answer.isVisible()
    press(qtbot, presenter, Key.Key_PageDown)
    assert presenter.number == 1
    assert said.answer.isVisible()
    assert "= 24: 20 to nested entries" in said.answer.toPlainText()
    press(qtbot, presenter, Key.Key_PageDown)
    assert presenter.number == 2
    press(qtbot, presenter, Key.Key_PageUp)
    assert said.waits, "who comes back is asked again"


def test_a_click_shows_the_answer_too(play: Play, qtbot: QtBot) -> None:
    presenter = play("two-dimensional-walk", 1)
    qtbot.mouseClick(presenter.said.show_answer, Qt.MouseButton.LeftButton)
    assert presenter.said.answer.isVisible()


@pytest.mark.parametrize("name", demos.names())
def test_every_demo_plays_from_start_to_end(play: Play, qtbot: QtBot, name: str) -> None:
    """Each stop shows its step, its view and its text with every field filled; nothing is left of the stop before."""
    presenter = play(name)
    for number, stop in enumerate(presenter.demo.stops):
        assert presenter.number == number
        document = presenter.document
        assert document.step == stop.step
        assert presenter.main.currentWidget() is presenter._views[stop.view]
        assert presenter.beside.isVisible() is bool(stop.beside)
        assert (document.query is None) is (stop.look is None)
        if document.walk is not None and document.walk.steps:
            last = len(document.walk.steps) - 1
            assert document.reference == (last if stop.reference is None else stop.reference)
        said = " ".join(part.toPlainText() for part in (presenter.said.text, presenter.said.question))
        assert "no value here" not in said
        assert "no field" not in said
        assert "{" not in said + presenter.said.title.text()
        presenter.said.reveal()
        press(qtbot, presenter, Key.Key_PageDown)


def test_a_stop_is_the_same_whichever_way_one_comes(play: Play) -> None:
    presenter, other = play("amd-5-to-4"), play("amd-5-to-4", 2)
    for number in (5, 1, 3, 2):
        presenter.go_to(number)
    mine, theirs = presenter.document, other.document
    assert (mine.step, mine.query, mine.reference, mine.pins) == (
        theirs.step, theirs.query, theirs.reference, theirs.pins,
    )  # fmt: skip
    assert mine.selection == theirs.selection


def test_effects_are_compared_between_the_moments_of_the_stop(play: Play, qtbot: QtBot) -> None:
    presenter = play("amd-4-to-5", 2)
    view = presenter.main.currentWidget()
    assert isinstance(view, EffectsView)
    qtbot.waitUntil(lambda: view.picture is not None, timeout=10_000)
    assert [pin.step for pin in presenter.document.pins] == [10, 12]


def test_a_zoomed_stop_is_zoomed_and_the_next_one_is_not(play: Play) -> None:
    stops = demos.load("four-references").demo.stops
    zoomed = Demo(stops=(msgspec.structs.replace(stops[0], zoom=400), stops[0]))
    presenter = play(msgspec.structs.replace(demos.load("four-references"), demo=zoomed))
    assert presenter.main.currentWidget().zoom == 4.0  # type: ignore[attr-defined]
    presenter.go_to(1)
    assert presenter.main.currentWidget().zoom == 1.0  # type: ignore[attr-defined]


def test_a_stop_shows_both_sides_of_a_mirror_or_the_walked_tables(play: Play) -> None:
    """Whatever the stop before showed, and whatever somebody turned to in passing."""
    shadow = demos.load("shadow-paging")
    mirrored = shadow.demo.stops[1]
    stops = Demo(stops=(mirrored, msgspec.structs.replace(mirrored, walked=True), mirrored))
    presenter = play(msgspec.structs.replace(shadow, demo=stops))
    view = presenter.main.currentWidget()
    assert isinstance(view, HierarchyView)
    for number, both in enumerate((True, False, True)):
        presenter.go_to(number)
        assert view.canvas.is_mirror is both
        assert view.bar.mirror.isChecked() is both
        assert take(presenter.document, "hierarchy").walked is not both
    view.bar.turn()
    presenter.go_to(0)
    assert view.canvas.is_mirror


def test_an_entry_of_what_is_mirrored_is_selected_again(play: Play) -> None:
    """L1's tables have 32-bit entries, KVM's own 64-bit ones: the entry is read as the side that it is on."""
    scenario, _ = read_scenario(str(ROOT / "resources" / "scenarios" / "l1-32-bit-npt.json"))
    presenter = play(msgspec.structs.replace(scenario, demo=Demo(stops=(Stop(16, "One", view="hierarchy"),))))
    view = presenter.main.currentWidget()
    assert isinstance(view, HierarchyView)
    assert view.canvas.pair is not None
    view.canvas.choose(0, (), 1)
    taken = take(presenter.document, "hierarchy")
    presenter.document.select(None)
    show(presenter.document, taken)
    assert presenter.document.selection is not None
    assert (view.canvas.marked, presenter.document.selection.level.name) == (Marked(0, (), 1), "PD")
    assert presenter.document.selection.level.entries == 1024


def test_what_somebody_changes_in_passing_is_gone_at_the_next_stop(play: Play) -> None:
    presenter = play("npt-depth", 1)
    presenter.document.append(ev.CreateVm(), "a slip")
    presenter.go_to(2)
    assert presenter.document.scenario is presenter._scenario


def test_a_text_that_cannot_be_filled_says_why_and_the_demo_goes_on(play: Play) -> None:
    presenter = play(Scenario(events=(ev.BootHost(),), demo=Demo(stops=(Stop(1, "One", "It is {references}."),))))
    assert "nothing is walked at this stop" in presenter.said.text.toPlainText()


def test_a_text_of_others_reads_no_file(play: Play, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    QImage(9, 9, QImage.Format.Format_RGB32).save(str(picture))
    text = f"![x](file://{picture}) <img src='{picture}'>"
    presenter = play(Scenario(demo=Demo(stops=(Stop(0, "One", text),))))
    assert presenter.said.text.loadResource(2, f"file://{picture}") is None


# --- a break, and notes


def test_a_break_explores_a_copy_and_comes_back_to_the_stop(play: Play, qtbot: QtBot) -> None:
    presenter = play("npt-depth", 3)
    press(qtbot, presenter, Key.Key_E)
    copy = presenter.exploration
    assert copy is not None
    assert copy.document.step == presenter.stop.step
    assert copy.tabs.currentWidget() is copy.lazy("walk")
    before = presenter.document.scenario
    copy.document.append(ev.CreateVm(), "something")
    copy.document.ask(Query(0x1000))
    assert copy.files.is_modified
    with qtbot.waitSignal(copy.left):
        qtbot.keyClick(copy, Key.Key_Escape)
    assert presenter.exploration is None
    assert presenter.document.scenario is before
    assert presenter.number == 3
    assert presenter.document.query == Query(0x7F12_3456_7ABC)


def test_nothing_of_a_break_is_offered_for_recovery(play: Play, qtbot: QtBot, state_folder: Path) -> None:
    presenter = play("npt-depth", 3)
    presenter.explore()
    copy = presenter.exploration
    assert copy is not None
    copy.document.append(ev.CreateVm(), "something")
    assert list(state_folder.glob("*.sqlite"))
    copy.close()
    assert list(state_folder.glob("*.sqlite")) == []


def test_speaker_notes_are_in_a_window_of_their_own(play: Play, qtbot: QtBot) -> None:
    presenter = play("four-references")
    assert not presenter.notes.isVisible()
    press(qtbot, presenter, Key.Key_N)
    assert presenter.notes.isVisible()
    assert presenter.notes.isWindow()
    assert "Debian 12 guest" in presenter.notes.notes.toPlainText()
    assert presenter.notes.coming.text() == "Next: CR3, and nine bits"
    qtbot.keyClick(presenter.notes, Key.Key_PageDown)
    assert presenter.number == 1
    presenter.close()
    assert not presenter.notes.isVisible()


def test_a_dark_screen_lasts_until_the_next_stop(play: Play, qtbot: QtBot) -> None:
    presenter = play("four-references")
    press(qtbot, presenter, Key.Key_B)
    assert presenter.darkness.isVisible()
    assert presenter.darkness.geometry() == presenter.rect()
    press(qtbot, presenter, Key.Key_Period)
    assert not presenter.darkness.isVisible()
    press(qtbot, presenter, Key.Key_B, Key.Key_PageDown)
    assert not presenter.darkness.isVisible()
    assert presenter.number == 1


def test_text_is_large_while_a_demo_plays_and_as_it_was_after_it(play: Play) -> None:
    font = QApplication.font().pointSizeF()
    presenter = play("four-references")
    presenter.fit_text(2160)
    assert QApplication.font().pointSizeF() > 2 * font
    presenter.close()
    assert QApplication.font().pointSizeF() == font


# --- from the window, and without anybody


def test_the_window_plays_a_demo_and_is_back_after_it(window: MainWindow, qtbot: QtBot) -> None:
    before = window.document.scenario
    window.play_demo("linux-5.12")
    presenter = window.presenter
    assert presenter is not None
    window.play_demo("npt-depth")
    assert window.presenter is presenter, "one at a time"
    presenter.close()
    assert window.presenter is None
    assert window.document.scenario is before


def test_each_stop_is_written_as_a_picture(dressed: QApplication, settings: QSettings, tmp_path: Path) -> None:
    written = Recorder(settings, str(tmp_path)).record(demos.load("four-references"), Library(), "four-references")
    stops = demos.load("four-references").demo.stops
    assert len(written) == len(stops) + sum(bool(stop.answer) for stop in stops)
    assert written[0] == tmp_path / "four-references" / "01-one-address.png"
    assert sorted((tmp_path / "four-references").iterdir()) == sorted(written)
    for path in written:
        image = QImage(str(path))
        assert (image.width(), image.height()) == (1920, 1080)
        assert len({image.pixel(x, y) for x in range(0, 1920, 12) for y in range(0, 1080, 12)}) > 20
    rest()


def test_a_picture_is_named_by_the_title_as_it_is_shown(
    dressed: QApplication, settings: QSettings, tmp_path: Path
) -> None:
    demo = Demo(stops=(Stop(1, "A host of {host-levels} levels", "{host-levels}", "machine"),))
    (path,) = Recorder(settings, str(tmp_path)).record(Scenario(events=(ev.BootHost(),), demo=demo), Library(), "one")
    assert path.name == "01-a-host-of-4-levels.png"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("QT_QPA_PLATFORM", "DISPLAY")}
    command = [sys.executable, "main.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_pictures_are_written_with_no_display_and_nobody_there(tmp_path: Path) -> None:
    ended = run("--record", str(tmp_path / "new"), "--demo", "why-forced")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"5 pictures in {tmp_path / 'new'}\n"
    assert len(list((tmp_path / "new" / "why-forced").glob("*.png"))) == 5


def test_a_wrong_name_gets_a_sentence_with_those_that_there_are() -> None:
    ended = run("--demo", "nothing")
    assert ended.returncode == 2
    assert ended.stderr == f"There is no demo “nothing”: choose one of {', '.join(demos.names())}.\n"


def test_a_folder_that_cannot_be_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run("--record", str(tmp_path / "file"), "--demo", "why-forced")
    assert ended.returncode == 2
    assert "no pictures can be written there" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2
