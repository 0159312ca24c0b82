"""What is in the window: the document, and all views of it. Importing this imports the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from engine.memory.library import Library
from gui.address_bar import AddressBar
from gui.document import Document
from gui.export import Exporter
from gui.files import Files
from gui.jobs import WindowJobs
from gui.opener import Opener
from gui.player import Player
from gui.recovery import Keeper, state_folder
from gui.status import StatusBar
from gui.strips import NoticeStrip, SightsStrip
from gui.view_makers import MAKERS
from gui.views.machine import MachineView
from gui.views.timeline import TimelineView

if TYPE_CHECKING:
    from gui.main_window import MainWindow


def fill(window: MainWindow, library: Library) -> None:
    """Make the document of ``window`` and put its views into their places."""
    document = window.document = Document(library, window)
    keeper = Keeper(state_folder(), lambda sentence: window.notice.tell(sentence))
    window.files = Files(document, library, window.recent, window.prompts, keeper, window, window.picture)
    window.opener = Opener(document, window.files, library, window.recent, window.prompts, window)
    window.exporter = Exporter(document, window.files, window.recent, window.prompts, window)
    window.player = Player(document, window)
    window.timeline = TimelineView(document)
    window.machine = MachineView(document)
    window.notice = NoticeStrip(document)
    window.address_bar = AddressBar(document)
    window.tool_bar.addWidget(window.address_bar)
    window.center.add_strip(window.notice)
    window.center.add_strip(SightsStrip(document))
    window.setStatusBar(StatusBar(document, WindowJobs.of(document), window))
    window.files.told.connect(window.notice.tell)
    window.exporter.told.connect(window.notice.tell)
    _provide(window)
    window.address_bar.failed.connect(window.notice.tell)
    window.notice.walk.connect(window.address_bar.walk)
    window.machine.edit_register.connect(window.edit_register)
    window.machine.refused.connect(window.notice.tell)


def _provide(window: MainWindow) -> None:
    """Say how the views are made; those in hidden tabs and docks wait until they are shown."""
    document = window.document

    def machine(parent: QWidget) -> QWidget:
        from gui.machine_dock import MachineDock

        dock = MachineDock(document, window.machine, parent)
        dock.refused.connect(window.notice.tell)
        return dock

    def plain(name: str) -> Callable[[QWidget], QWidget]:
        return lambda parent: MAKERS[name](document, parent)

    def author(parent: QWidget) -> QWidget:
        from gui.views.author import AuthorView

        view = AuthorView(document, parent)
        view.shown.connect(window.bring)
        return view

    def findings(parent: QWidget) -> QWidget:
        view = MAKERS["findings"](document, parent)
        view.exported.connect(window.exporter.export_findings)  # type: ignore[attr-defined]
        return view

    def help_pane(parent: QWidget) -> QWidget:
        from gui.help_pane import HelpPane

        return HelpPane(parent)

    for name, make in (
        ("timeline", lambda parent: window.timeline),
        ("machine", machine),
        ("findings", findings),
        *((name, plain(name)) for name in ("inspector", "hierarchy", "walk", "effects", "mappings")),
        ("demos", author),
        ("help", help_pane),
    ):
        window.lazy(name).provide(make)
