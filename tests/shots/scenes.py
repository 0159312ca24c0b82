"""What is pictured: each scene brings the window, or a dialog of it, into a state and gives the widget to grab."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from PySide6.QtCore import QEventLoop, QSettings, QTimer
from PySide6.QtWidgets import QMenu, QWidget

from engine.arch.registers import Features
from engine.memory.library import Library
from gui import app
from gui.dialogs.about import AboutDialog
from gui.dialogs.crash import CrashDialog
from gui.dialogs.image_dialog import ImageDialog
from gui.dialogs.prompts import Prompts
from gui.dialogs.register_dialog import RegisterDialog
from gui.dialogs.store_dialog import StoreDialog
from gui.jobs import runner
from gui.main_window import MainWindow
from gui.recorder import FIRST_LOOK, SIZE, rest
from gui.sights import sights
from gui.templates import templates
from gui.theme import Scheme
from gui.views.findings import FindingsView
from tests.shots.hosts import HOST_SCENES

SCHEMES = (Scheme.LIGHT, Scheme.DARK)
SETTLE = 120
"""Milliseconds for layouts to settle."""
Scene = Callable[[MainWindow], QWidget]


class NobodyThere(Prompts):
    """Nobody is there to be asked: what a scene changed is thrown away when its window closes."""

    saved = 0

    def choose(self, parent: QWidget | None, sentence: str, ways: dict[str, str]) -> str:
        return "discard" if "discard" in ways else ""

    def scenario_to_save(self, parent: QWidget | None, title: str, suggested: str) -> str:
        self.saved += 1
        return str(Path(os.environ["XDG_STATE_HOME"]) / f"scenario-{self.saved}.wscope")


def wait(until: Callable[[], bool] = lambda: False, limit: int = SETTLE) -> None:
    """Let the window live until ``until``, at most ``limit`` milliseconds."""
    loop = QEventLoop()
    timer = QTimer()
    timer.timeout.connect(lambda: loop.quit() if until() else None)
    timer.start(10)
    QTimer.singleShot(limit, loop.quit)
    loop.exec()


def looked(window: MainWindow) -> bool:
    """Whether the findings view, which waits for a quiet moment, has said what it found at this step."""
    view = window.lazy("findings").view
    here = window.tr("Step {step}").format(step=window.document.step)
    return not runner().running and isinstance(view, FindingsView) and view.summary.text().startswith(here)


def tab(number: int, sight: int) -> Scene:
    def scene(window: MainWindow) -> QWidget:
        window.tabs.setCurrentIndex(number)
        window.document.ask(sights()[sight].query)
        wait(lambda: not runner().running, 3000)
        return window

    return scene


def small(window: MainWindow) -> QWidget:
    window.resize(1024, 700)
    return tab(1, 4)(window)


def unmapped(window: MainWindow) -> QWidget:
    window.tabs.setCurrentIndex(0)
    window.address_bar.walk(0x5794A9)
    wait(window.notice.isVisible, 3000)
    return window


def bad_address(window: MainWindow) -> QWidget:
    window.address_bar.field.setText("0x7f56_4230_9abg")
    window.address_bar.go()
    return window


def help_page(window: MainWindow) -> QWidget:
    window.show_help("machine")
    return window


def edited(window: MainWindow) -> QWidget:
    """A timeline with something in it: a register set, accesses, one that faults."""
    window.address_bar.walk(0x401000)
    window.perform_access()
    window.address_bar.walk(0xFFFF_FFFF_8340_0000)
    window.perform_access()
    return window


def recent(window: MainWindow) -> QWidget:
    """Two scenarios that were saved, each with the view that was open then."""
    for number, template in enumerate(templates()[:2]):
        window.begin(template)
        window.tabs.setCurrentIndex(number)
        wait(lambda: looked(window), 5000)
        window.files.save()
    file, submenu = window.menuBar().actions()[0].menu(), window.findChild(QMenu, "recent")
    assert isinstance(file, QMenu)
    assert submenu is not None
    for menu in (file, submenu):
        menu.aboutToShow.emit()
    return submenu


def register(window: MainWindow) -> QWidget:
    dialog = RegisterDialog(window.document, "cr4", window)
    dialog.by_processor.setChecked(True)
    dialog.field.set_value(dialog.field.value ^ 1 << 12 if dialog.field.value else 0)
    return dialog


def image_dialog(window: MainWindow) -> QWidget:
    dialog = ImageDialog("memory.raw", Features(), window)
    dialog.fields["efer"].setText("0x100")
    return dialog


def store(window: MainWindow) -> QWidget:
    return StoreDialog(0x7FFF_8ABE_9000, sights()[0].access.kind, window)


def crash(window: MainWindow) -> QWidget:
    return CrashDialog(ZeroDivisionError("made for this picture"), window)


def start_page(window: MainWindow) -> QWidget:
    window.show_gallery()
    return window


def presented(name: str, stop: int) -> Scene:
    """Stop number ``stop`` (from 1) of a demo, with the answer to its question."""

    def scene(window: MainWindow) -> QWidget:
        window.play_demo(name)
        presenter = window.presenter
        assert presenter is not None
        presenter.showNormal()
        presenter.fit_text(SIZE.height())
        presenter.resize(SIZE)
        presenter.go_to(stop - 1)
        presenter.said.reveal()
        rest(FIRST_LOOK)
        return presenter

    return scene


def speaker_notes(window: MainWindow) -> QWidget:
    presented("four-references", 1)(window)
    assert window.presenter is not None
    window.presenter.fit_text(0)
    return window.presenter.notes


def author(window: MainWindow) -> QWidget:
    """A demo that is being written: a stop of it, with a claim that does not hold."""
    from gui import demos, stops

    window.document.open(demos.load("amd-4-to-5"))
    window.files.begun("amd-4-to-5")
    window.bring("demos")
    stops.show(window.document, window.document.scenario.demo.stops[0])
    view = window.author
    view.list.setCurrentRow(3)
    view.claims.setPlainText("outcome = #NPF\nreferences = 24")
    view.tabs.setCurrentIndex(3)
    view.settle()
    rest()
    return window


def about(window: MainWindow) -> QWidget:
    return AboutDialog(window)


def nothing_open(window: MainWindow) -> QWidget:
    from engine.scenario import Scenario

    window.document.open(Scenario())
    return window


SCENES: dict[str, Scene] = {
    "nothing-open": nothing_open,
    "hierarchy": tab(0, 0),
    "hierarchy-huge-page": tab(0, 1),
    "walk": tab(1, 0),
    "walk-fault": tab(1, 4),
    "mappings": tab(3, 0),
    "unmapped": unmapped,
    "bad-address": bad_address,
    "help": help_page,
    "timeline": edited,
    "small": small,
    "recent": recent,
    "dialog-register": register,
    "dialog-image": image_dialog,
    "dialog-store": store,
    "dialog-crash": crash,
    "dialog-about": about,
    "start-page": start_page,
    "presenter": presented("amd-4-to-5", 2),
    "presenter-effects": presented("amd-5-to-4", 3),
    "presenter-notes": speaker_notes,
    "author": author,
}

ALL = SCENES | HOST_SCENES


def render(folder: Path, scale: str, *names: str) -> None:
    """Picture ``names`` (default: all) in both schemes. ``scale``: that of the process, for the names of the files."""
    application = app.create_application(["walkscope"])
    home = TemporaryDirectory()
    settings = QSettings(f"{home.name}/settings.ini", QSettings.Format.IniFormat)
    for scheme in SCHEMES:
        for name in names or ALL:
            settings.clear()
            settings.setValue("look/scheme", scheme.value)
            window = app.create_window(settings, NobodyThere())
            window.show()
            window.fill(Library())
            window.opener.open_built_in()
            wait(lambda window=window: window.document.walk is not None, 5000)
            pictured = ALL[name](window)
            pictured.show()
            wait(lambda window=window: looked(window), 5000)
            wait()
            pictured.grab().save(str(folder / f"{name}-{scheme.value}-{round(float(scale) * 100)}.png"))
            window.close()
            window.deleteLater()
    application.quit()
    home.cleanup()


if __name__ == "__main__":
    render(Path(sys.argv[1]), *sys.argv[2:])
