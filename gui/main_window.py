"""The window: menus, tool bar, docks and tabs, painted first; then what is in them; and what commands do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QPoint, QSettings, Qt, QUrl, Signal
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QMainWindow, QMenu, QStackedWidget, QStatusBar, QWidget

from gui import menus
from gui.action_set import Actions
from gui.actions import CONTEXT
from gui.dialogs.prompts import Prompts
from gui.docks import Dock
from gui.icons import icon
from gui.layout import Center, Layout, Lazy
from gui.recent import RecentFiles
from gui.settings import Appearance
from gui.theme import Scheme

if TYPE_CHECKING:
    from engine.events import RegisterName
    from engine.machine import Images
    from engine.memory.library import Library
    from engine.scenario import Scenario
    from gui.address_bar import AddressBar
    from gui.document import Document
    from gui.export import Exporter
    from gui.files import Files
    from gui.help_pane import HelpPane
    from gui.opener import Opener
    from gui.player import Player
    from gui.presenter import Presenter
    from gui.status import StatusBar
    from gui.strips import NoticeStrip
    from gui.templates import Template
    from gui.views.author import AuthorView
    from gui.views.gallery import Gallery
    from gui.views.machine import MachineView
    from gui.views.timeline import TimelineView

SIZE = (1440, 900)


class MainWindow(QMainWindow):
    """Made in two steps: at first it only looks like it will; `fill` makes the document and the views.

    ``prompts`` stands for the user wherever a question is asked. ``window_wanted`` asks for another window, with the
    file at a path or (None) without one; ``closed`` is emitted when this one is.
    """

    window_wanted = Signal(object)
    closed = Signal()
    document: Document
    files: Files
    opener: Opener
    library: Library
    exporter: Exporter
    player: Player
    address_bar: AddressBar
    notice: NoticeStrip
    timeline: TimelineView
    machine: MachineView

    def __init__(self, settings: QSettings, prompts: Prompts | None = None) -> None:
        super().__init__()
        self.prompts = prompts or Prompts()
        self.is_filled = False
        self._settings = settings
        self._appearance = Appearance(settings)
        self.recent = RecentFiles(settings)
        self.actions_ = Actions(self)
        self.center = Center(
            {
                "hierarchy": self.tr("Hierarchy"),
                "walk": self.tr("Walk"),
                "effects": self.tr("Effects"),
                "mappings": self.tr("Mappings"),
            }
        )
        self.tabs = self.center.tabs
        self.middle = QStackedWidget()
        self.middle.addWidget(self.center)
        self.setCentralWidget(self.middle)
        self.gallery: Gallery | None = None
        self.presenter: Presenter | None = None
        self.docks = {
            name: Dock(name, title, Lazy(name), self)
            for name, title in (
                ("timeline", self.tr("Timeline")),
                ("machine", self.tr("Machine")),
                ("inspector", self.tr("Inspector")),
                ("findings", self.tr("Findings")),
                ("help", self.tr("Help")),
                ("demos", self.tr("Stops of the demo")),
            )
        }
        timeline, machine, inspector, findings, help_, stops = self.docks.values()
        self.layout_ = Layout(self, [timeline, machine], [inspector, findings], [help_, stops])
        self._build_bars()
        self.setWindowTitle("Walkscope")
        self.setAcceptDrops(True)
        self.resize(*SIZE)
        self._is_restored = self.layout_.restore(settings)

    def _build_bars(self) -> None:
        sections = {
            "@recent": menus.recent_section(self.recent, lambda path: self.opener.open(path)),
            "@templates": menus.templates_section(lambda template: self.begin(template)),
            "@events": menus.events_section(self),
            "@docks": menus.docks_section(list(self.docks.values())),
            "@scheme": menus.scheme_section(self.actions_),
            "@demos": menus.demos_section(lambda name: self.play_demo(name)),
            "@sights": menus.sights_section(lambda number: self.opener.open_built_in(number)),
        }
        menus.build_menus(self, self.actions_, sections)
        self.tool_bar = menus.ToolBar(self.actions_, self)
        self.addToolBar(self.tool_bar)
        self.setStatusBar(QStatusBar())

    # --- the second step

    def fill(self, library: Library) -> None:
        """Make the document, with images from ``library``, and all that shows it: once, after the first paint."""
        from gui.contents import fill

        self.library = library
        fill(self, library)
        self.is_filled = True
        if not self._is_restored and not self.is_on_gallery:
            self.layout_.measure()
        self.document.changed.connect(self.leave_gallery)
        self.document.changed.connect(self._refresh)
        self.document.undo_stack.indexChanged.connect(self._refresh)
        self.player.changed.connect(self._show_playing)
        self.files.changed.connect(self._show_file)
        self.opener.gave_up.connect(self.show_gallery)
        for id in CONTEXT:
            self.timeline.addAction(self.actions_[id])
        self.timeline.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.timeline.list.customContextMenuRequested.connect(self._timeline_menu)
        QApplication.instance().focusChanged.connect(self._on_focus)  # type: ignore[union-attr]
        self._refresh()

    def lazy(self, name: str) -> Lazy:
        """The place of the view ``name``, in a dock or a tab."""
        if name in self.docks:
            return self.docks[name].widget()  # type: ignore[return-value]
        return next(page for page in self._pages() if page.page == name)

    def picture(self) -> bytes:
        """A small PNG of the view whose tab is open."""
        from gui.thumbnails import picture

        return picture(self.tabs.currentWidget())

    def _pages(self) -> list[Lazy]:
        return [self.tabs.widget(number) for number in range(self.tabs.count())]  # type: ignore[misc]

    # --- keeping up

    def _refresh(self) -> None:
        """After any change: which commands make sense, what undo would undo, where in the walk we are."""
        self.actions_.refresh()
        stack = self.document.undo_stack
        for id, text, name in (
            ("undo", self.tr("&Undo {what}"), stack.undoText()),
            ("redo", self.tr("&Redo {what}"), stack.redoText()),
        ):
            self.actions_[id].setText(text.format(what=name[:1].lower() + name[1:]).rstrip())
        walk = self.document.walk
        self.tool_bar.show_step(self.document.reference, len(walk.steps) if walk else 0)

    def _show_file(self) -> None:
        files = self.files
        name = files.shown_name.replace("[*]", "[*][*]")
        self.setWindowTitle(self.tr("{name}[*] — Walkscope").format(name=name))
        self.setWindowModified(files.is_modified)
        status: StatusBar = self.statusBar()  # type: ignore[assignment]
        status.show_file(files.shown_name, files.is_modified, files.file is not None)
        self.actions_.refresh()

    def _show_playing(self) -> None:
        playing = self.player.is_playing
        action = self.actions_["play"]
        action.setIcon(icon("pause" if playing else "play"))
        action.setText(self.tr("Pa&use") if playing else self.tr("Pla&y"))

    def _on_focus(self, old: QWidget | None, now: QWidget | None) -> None:
        self.actions_.keep_keys(now)

    # --- the start page

    @property
    def is_on_gallery(self) -> bool:
        return self.gallery is not None and self.middle.currentWidget() is self.gallery

    def show_gallery(self) -> None:
        """The start page in place of all else; what is open stays open behind it."""
        if self.gallery is None:
            from gui.views.gallery import Gallery

            new = QMenu(self)
            new.aboutToShow.connect(lambda: menus.fill_templates(new, self.begin))
            buttons = [self.actions_[id] for id in ("open", "open-built-in")]
            self.gallery = Gallery(self.recent, buttons, new, self)
            self.gallery.play.connect(self.play_demo)
            self.gallery.open.connect(lambda path: self.opener.open(path))
            self.gallery.back.connect(self.leave_gallery)
            self.middle.addWidget(self.gallery)
        self.layout_.set_aside(self.tool_bar)
        self.gallery.offer_back(self.files.shown_name if self.is_filled and self.document.is_open else "")
        self.middle.setCurrentWidget(self.gallery)
        self.gallery.demos[0].setFocus()

    def leave_gallery(self) -> None:
        """Back to the views and docks, as they were."""
        if self.is_on_gallery:
            self.middle.setCurrentWidget(self.center)
            self.layout_.bring_back()
            if not self._is_restored:
                self._is_restored = True
                self.layout_.measure()
            self.tabs.currentWidget().setFocus()

    # --- demos

    def play_demo(self, name: str) -> None:
        """One of those that come with the program."""
        from gui import demos

        self._play(demos.load(name), self.library, name, 0)

    def present(self, number: int = 0) -> None:
        """The demo of what is open, from stop ``number`` (from 0) on."""
        self.document.settle()
        self._play(self.document.scenario, self.document.images, self.files.shown_name, number)

    def _play(self, scenario: Scenario, images: Images, name: str, number: int) -> None:
        from gui.presenter import Presenter

        if self.presenter is None and self.is_filled:
            self.presenter = Presenter(self._settings, scenario, images, name)
            self.presenter.left.connect(self._on_played)
            self.presenter.begin(number)

    def _on_played(self) -> None:
        if self.presenter is not None:
            self.presenter.deleteLater()
            self.presenter = None
        self.activateWindow()

    @property
    def author(self) -> AuthorView:
        return self.lazy("demos").open()  # type: ignore[return-value]

    def bring(self, *names: str) -> None:
        """Show the views of these names, in tabs and docks; '' is none."""
        for name in filter(None, names):
            if name in self.docks:
                is_new = not self.docks[name].isVisible()
                self.docks[name].show()
                self.docks[name].raise_()
                if is_new and name == "demos":
                    self.layout_.favour(self.docks[name])
            else:
                self.tabs.setCurrentWidget(self.lazy(name))

    def record_stop(self) -> None:
        """What is on the screen becomes a stop after the current one, ready to be written about."""
        self.bring("demos")
        name, view = self.tabs.currentWidget().page, self.tabs.currentWidget().view  # type: ignore[attr-defined]
        self.author.record(name, getattr(view, "zoom", 1.0))

    def record_pictures(self) -> None:
        """Each stop of what is open as a PNG, in a folder that is asked for."""
        from gui.recorder import Recorder

        folder = self.prompts.folder(self, self.tr("Folder for the pictures"), self.recent.folder())
        if folder:
            recorder = Recorder(self._settings, folder)
            recorder.record(self.document.scenario, self.document.images, Path(self.files.shown_name).stem)
            text = self.tr("Pictures of the stops: {count}, in {folder}.")
            self.notice.tell(text.format(count=recorder.count, folder=folder))

    # --- commands

    def step_reference(self, by: int) -> None:
        self.document.go_to_reference((self.document.reference or 0) + by)

    def last_reference(self) -> None:
        walk = self.document.walk
        if walk is not None:
            self.document.go_to_reference(len(walk.steps) - 1)

    def begin(self, template: Template | None) -> None:
        """A new scenario takes the place of what is open."""
        from gui.scenarios import begin

        if self.files.may_leave():
            begin(self.document, template)
            self.files.begun()

    def add_event(self, kind: type) -> None:
        from gui.dialogs.event_commands import add_event

        add_event(self.document, kind, self, self.prompts.run)

    def edit_event(self) -> None:
        from gui.dialogs.event_commands import edit_event

        edit_event(self.document, self.document.step - 1, self, self.prompts.run)

    def perform_access(self) -> None:
        from gui.edits import perform_access

        refused = perform_access(self.document, self.prompts, self)
        if refused is not None:
            self.notice.tell(refused)

    def edit_register(self, name: RegisterName) -> None:
        from gui.edits import edit_register

        refused = edit_register(self.document, self.prompts, name, self)
        if refused is not None:
            self.notice.tell(refused)

    def focus_root(self) -> None:
        self.docks["machine"].show()
        self.machine.roots.line.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.machine.roots.line.selectAll()

    @property
    def scheme(self) -> Scheme:
        return self._appearance.scheme

    def use_scheme(self, scheme: Scheme) -> None:
        self._appearance.use_scheme(scheme)

    def scale_text(self, by: int) -> None:
        """One step larger or smaller; 0: as the desktop has it."""
        self._appearance.scale_text(by)

    @property
    def help(self) -> HelpPane:
        return self.lazy("help").open()  # type: ignore[return-value]

    def show_help(self, page: str = "") -> None:
        """Help about the view in focus, or a page by name."""
        from gui.help_pane import page_about

        dock = self.docks["help"]
        self.help.show_page(page or page_about(QApplication.focusWidget()))
        if not dock.isVisible():
            dock.show()
            beside = (self.docks["inspector"], self.docks["findings"], dock)
            self.layout_.share([each for each in beside if each.isVisible() and not each.isFloating()])
        dock.raise_()

    def about(self) -> None:
        from gui.dialogs.about import AboutDialog

        self.prompts.run(AboutDialog(self))

    def report(self, error: BaseException) -> None:
        """A fault of ours: tell what happened, and go on."""
        from gui.dialogs.crash import CrashDialog

        if self.findChild(CrashDialog) is None:  # one fault can come again with every paint
            CrashDialog(error, self).show()

    def _timeline_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addActions([self.actions_[id] for id in CONTEXT])
        menu.popup(self.timeline.list.viewport().mapToGlobal(at))

    # --- the window itself

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.ActivationChange and self.is_filled and self.isActiveWindow():
            self.files.look()
        super().changeEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if self.is_filled and _dropped_files(event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """The first file takes the place of what is open, each other one gets a window."""
        paths = _dropped_files(event.mimeData().urls())
        if paths:
            event.acceptProposedAction()
            self.opener.open(paths[0])
            for path in paths[1:]:
                self.window_wanted.emit(path)

    def closeEvent(self, event: QCloseEvent) -> None:
        if self.is_filled and not self.files.may_leave():
            event.ignore()
            return
        if self.presenter is not None:
            self.presenter.close()
        if self.is_filled:
            from gui.jobs import WindowJobs

            self.files.close()
            self.player.stop()
            WindowJobs.of(self.document).cancel()
        self.layout_.save(self._settings)
        super().closeEvent(event)
        self.closed.emit()


def _dropped_files(urls: list[QUrl]) -> list[str]:
    """The files that were dropped, as paths; what lies elsewhere is none."""
    return [url.toLocalFile() for url in urls if url.isLocalFile()]
