"""Opening images: by dialog, drop, command line and recent files; what cannot be opened changes nothing."""

import gzip
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.registers import Mode
from engine.arch.rights import Kind
from engine.memory.library import RESOURCES
from gui import app
from gui.dialogs.image_dialog import ImageDialog
from gui.jobs import runner
from gui.main_window import MainWindow
from gui.recent import MOST, RecentFiles
from tests.gui.conftest import Answers

BUILT_IN = RESOURCES / "debian-6.1-4level.core.gz"


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """An unpacked core with the registers of its CPU."""
    path = tmp_path / "guest.core"
    path.write_bytes(gzip.decompress(BUILT_IN.read_bytes()))
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Raw memory whose only table, at 0x1000, maps a 1-GiB page through a PDPT at 0x2000."""
    memory = bytearray(0x4000)
    memory[0x1000:0x1008] = (0x2000 | 0b111).to_bytes(8, "little")
    memory[0x2000:0x2008] = (0b1000_0111).to_bytes(8, "little")
    path = tmp_path / "memory.raw"
    path.write_bytes(memory)
    return path


def opened(window: MainWindow, qtbot: QtBot, path: Path) -> None:
    with qtbot.waitSignal(window.opener.opened):
        window.opener.open(str(path))


def test_an_image_opens_at_the_instruction_its_cpu_was_about_to_fetch(
    empty_window: MainWindow, qtbot: QtBot, core: Path
) -> None:
    opened(empty_window, qtbot, core)
    document = empty_window.document
    image = document.state.image
    assert image is not None
    assert document.query is not None
    assert document.query.address == dict(image.cpus[0].pointers)["RIP"]
    assert document.query.access.kind is Kind.FETCH
    assert document.walk is not None
    assert document.walk.ok
    assert document.scenario.events[0] == ev.OpenImage(ev.ImageRef(str(core), core.stat().st_size))


def test_the_file_is_asked_for(empty_window: MainWindow, qtbot: QtBot, core: Path, answers: Answers) -> None:
    answers.path = str(core)
    with qtbot.waitSignal(empty_window.opener.opened):
        empty_window.actions_["open"].trigger()
    assert empty_window.statusBar().image.text() == "guest.core, ELF64 core, 1.5 MiB"  # type: ignore[attr-defined]


def test_a_user_who_thinks_better_of_it_changes_nothing(window: MainWindow, answers: Answers) -> None:
    before = window.document.scenario
    answers.path = ""
    window.actions_["open"].trigger()
    assert window.document.scenario is before
    assert runner().running == ()


def test_a_file_can_be_dropped_on_the_window(empty_window: MainWindow, qtbot: QtBot, core: Path) -> None:
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(core))])
    event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, dropped, Qt.MouseButton.LeftButton,
                       Qt.KeyboardModifier.NoModifier)  # fmt: skip
    with qtbot.waitSignal(empty_window.opener.opened):
        empty_window.dropEvent(event)
    assert event.isAccepted()
    assert empty_window.document.state.image is not None


def test_what_is_no_image_is_a_sentence_and_all_stays(
    window: MainWindow, qtbot: QtBot, tmp_path: Path, answers: Answers
) -> None:
    before = window.document.scenario
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000))
    window.opener.open(str(path))
    qtbot.waitUntil(lambda: bool(answers.errors))
    assert answers.errors == [
        "picture.png: this is a PNG picture; open a memory image: an ELF core by dump-guest-memory, or raw memory."
    ]
    assert window.document.scenario is before
    assert window.document.walk is not None


def test_the_window_survives_a_bad_argument(empty_window: MainWindow, qtbot: QtBot, answers: Answers) -> None:
    empty_window.opener.open("/nowhere/guest.core")
    qtbot.waitUntil(lambda: bool(answers.errors))
    assert answers.errors == ["guest.core: there is no such file; check the name."]
    assert empty_window.isVisible()


def test_a_raw_image_asks_for_registers(empty_window: MainWindow, qtbot: QtBot, raw: Path, answers: Answers) -> None:
    def fill(dialog: object) -> None:
        assert isinstance(dialog, ImageDialog)
        dialog.fields["cr3"].setText("0x1000")

    answers.fill = fill
    opened(empty_window, qtbot, raw)
    state = empty_window.document.state
    assert state.registers.mode is Mode.LEVEL4
    assert state.registers.cr3 == 0x1000
    empty_window.address_bar.field.setText("1234")
    empty_window.address_bar.go()
    walk = empty_window.document.walk
    assert walk is not None
    assert [step.level.name for step in walk.steps] == ["PML4", "PDPT"]
    assert walk.ok


def test_without_registers_a_raw_image_stays_closed(
    window: MainWindow, qtbot: QtBot, raw: Path, answers: Answers
) -> None:
    before = window.document.scenario
    asked: list[object] = []

    def refuse(dialog: object) -> bool:
        asked.append(dialog)
        return False

    answers.fill = refuse
    window.opener.open(str(raw))
    qtbot.waitUntil(lambda: bool(asked))
    assert window.document.scenario is before


def test_a_slow_opening_shows_progress_and_can_be_cancelled(
    window: MainWindow, qtbot: QtBot, tmp_path: Path, answers: Answers
) -> None:
    before = window.document.scenario
    path = tmp_path / "huge.gz"
    packed = gzip.compress(bytes(8 << 20), 1)
    path.write_bytes(packed * 200)  # 1.6 GiB of zeros, in as many streams
    status = window.statusBar()
    window.opener.open(str(path))
    qtbot.waitUntil(lambda: status.progress.value() > 0)  # type: ignore[attr-defined]
    assert status.work.text() == "Opening huge.gz"  # type: ignore[attr-defined]
    assert status.progress.isVisible()  # type: ignore[attr-defined]
    qtbot.mouseClick(status.cancel, Qt.MouseButton.LeftButton)  # type: ignore[attr-defined]
    assert not status.progress.isVisible()  # type: ignore[attr-defined]
    qtbot.wait(50)
    assert window.document.scenario is before
    assert answers.errors == []


def test_files_opened_last_come_first(empty_window: MainWindow, qtbot: QtBot, core: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.core"
    other.write_bytes(core.read_bytes())
    for path in (core, other, core):
        opened(empty_window, qtbot, path)
    assert empty_window.recent.paths() == [str(core), str(other)]
    menu = empty_window.menuBar().actions()[0].menu()
    assert isinstance(menu, QMenu)
    menu.aboutToShow.emit()
    recent = next(entry.menu() for entry in menu.actions() if entry.text() == "Open &recent")
    assert isinstance(recent, QMenu)
    assert [entry.text() for entry in recent.actions()][:2] == ["&1  guest.core", "&2  other.core"]
    with qtbot.waitSignal(empty_window.opener.opened):
        recent.actions()[1].trigger()
    assert empty_window.recent.paths()[0] == str(other)


def test_a_file_that_is_gone_is_forgotten(empty_window: MainWindow, qtbot: QtBot, core: Path, answers: Answers) -> None:
    opened(empty_window, qtbot, core)
    core.unlink()
    empty_window.opener.open(str(core))
    qtbot.waitUntil(lambda: bool(answers.errors))
    assert empty_window.recent.paths() == []


def test_only_so_many_files_are_remembered(empty_window: MainWindow) -> None:
    recent: RecentFiles = empty_window.recent
    for number in range(MOST + 3):
        recent.add(f"/images/{number}")
    assert len(recent.paths()) == MOST
    assert recent.paths()[0] == f"/images/{MOST + 2}"
    assert recent.folder() == "/images"


def test_the_command_line_names_files() -> None:
    assert app.parse(["guest.core", "host.wscope"]).files == ["guest.core", "host.wscope"]
    assert app.parse([]).files == []
