"""The window: docks around the views, menus and tool bar made from the table of commands, and what commands do."""

from PySide6.QtCore import QPoint, QSettings, Qt, QUrl
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QMainWindow, QMenu, QTabWidget

from engine import events as ev
from engine.machine import State
from engine.memory.library import Library
from gui import layout, menus
from gui.action_set import Actions
from gui.actions import CONTEXT
from gui.address_bar import AddressBar
from gui.describe import describe
from gui.dialogs.prompts import Prompts
from gui.docks import Dock
from gui.document import Document
from gui.edits import duplicate, move, perform_access, remove
from gui.explain import engine_text
from gui.help_pane import HelpPane, page_about
from gui.icons import icon
from gui.jobs import runner
from gui.opener import Opener
from gui.player import Player
from gui.recent import RecentFiles
from gui.settings import Appearance
from gui.status import StatusBar
from gui.strips import NoticeStrip, SightsStrip
from gui.theme import Scheme
from gui.views.inspector import InspectorView
from gui.views.machine import MachineView
from gui.views.timeline import TimelineView

SIZE = (1440, 900)


class MainWindow(QMainWindow):
    """``prompts`` stands for the user wherever a question is asked."""

    document: Document
    opener: Opener
    player: Player
    address_bar: AddressBar
    tabs: QTabWidget

    def __init__(self, library: Library, settings: QSettings, prompts: Prompts | None = None) -> None:
        super().__init__()
        self.prompts = prompts or Prompts()
        self._settings = settings
        self._appearance = Appearance(settings)
        self.document = Document(library, self)
        self.recent = RecentFiles(settings)
        self.opener = Opener(self.document, library, self.recent, self.prompts, self)
        self.player = Player(self.document, self)
        self._build_views()
        self.actions_ = Actions(self)
        self._build_bars()
        self.layout_ = layout.Layout(self, [self.timeline_dock, self.machine_dock], [self.inspector_dock],
                                     [self.help_dock])  # fmt: skip
        self._connect()
        self.setWindowTitle("Walkscope")
        self.setAcceptDrops(True)
        self.resize(*SIZE)
        self.layout_.restore(settings)
        self._refresh()

    def _build_views(self) -> None:
        document = self.document
        self.timeline = TimelineView(document)
        self.machine = MachineView(document)
        self.inspector = InspectorView(document)
        self.help = HelpPane()
        self.timeline_dock = Dock("timeline", self.tr("Timeline"), self.timeline, self)
        self.machine_dock = Dock("machine", self.tr("Machine"), self.machine, self)
        self.inspector_dock = Dock("inspector", self.tr("Inspector"), self.inspector, self)
        self.help_dock = Dock("help", self.tr("Help"), self.help, self)
        self.sights = SightsStrip(document)
        self.notice = NoticeStrip(document)
        self.tabs = layout.build_tabs(document)
        self.setCentralWidget(layout.build_center(self.tabs, [self.notice, self.sights]))

    def _build_bars(self) -> None:
        docks = [self.timeline_dock, self.machine_dock, self.inspector_dock, self.help_dock]
        sections = {
            "@recent": menus.recent_section(self.recent, self.opener.open),
            "@docks": menus.docks_section(docks),
            "@scheme": menus.scheme_section(self.actions_),
            "@sights": menus.sights_section(self.go_to_sight),
        }
        menus.build_menus(self, self.actions_, sections)
        self.address_bar = AddressBar(self.document)
        self.tool_bar = menus.ToolBar(self.actions_, self.address_bar, self)
        self.addToolBar(self.tool_bar)
        self.setStatusBar(StatusBar(self.document, runner(), self))
        for id in CONTEXT:
            self.timeline.addAction(self.actions_[id])
        self.timeline.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)

    def _connect(self) -> None:
        self.document.changed.connect(self._refresh)
        self.document.undo_stack.indexChanged.connect(self._refresh)
        self.player.changed.connect(self._show_playing)
        self.address_bar.failed.connect(self.notice.tell)
        self.notice.walk.connect(self.address_bar.walk)
        self.machine.edit_register.connect(self.edit_register)
        self.machine.refused.connect(self.notice.tell)
        self.timeline.list.customContextMenuRequested.connect(self._timeline_menu)
        QApplication.instance().focusChanged.connect(self._on_focus)  # type: ignore[union-attr]

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

    def _show_playing(self) -> None:
        playing = self.player.is_playing
        action = self.actions_["play"]
        action.setIcon(icon("pause" if playing else "play"))
        action.setText(self.tr("Pa&use") if playing else self.tr("Pla&y"))

    def _on_focus(self, old: object, now: object) -> None:
        self.actions_.keep_keys(now)  # type: ignore[arg-type]

    # --- commands

    def step_reference(self, by: int) -> None:
        self.document.go_to_reference((self.document.reference or 0) + by)

    def last_reference(self) -> None:
        walk = self.document.walk
        if walk is not None:
            self.document.go_to_reference(len(walk.steps) - 1)

    def go_to_sight(self, number: int) -> None:
        """Walk a sight; with another image open, the built-in one takes its place first."""
        self.opener.open_built_in(number)

    def perform_access(self) -> None:
        refused = perform_access(self.document, self.prompts, self)
        if refused is not None:
            self.notice.tell(refused)

    def duplicate_event(self) -> None:
        duplicate(self.document)

    def delete_event(self) -> None:
        remove(self.document)

    def move_event(self, by: int) -> None:
        move(self.document, by)

    def edit_register(self, name: ev.RegisterName) -> None:
        from gui.dialogs.register_dialog import RegisterDialog

        dialog = RegisterDialog(self.document, name, self)
        if self.prompts.run(dialog) and dialog.event is not None:
            after = self.document.after(dialog.event)
            if isinstance(after, State):
                self.document.append(dialog.event, describe(dialog.event, after).title)
            else:
                self.notice.tell(engine_text(after.reason))

    def focus_root(self) -> None:
        self.machine_dock.show()
        self.machine.roots.line.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.machine.roots.line.selectAll()

    @property
    def scheme(self) -> Scheme:
        return self._appearance.scheme

    def use_scheme(self, scheme: Scheme) -> None:
        self._appearance.use_scheme(scheme)
        self._refresh()

    def scale_text(self, by: int) -> None:
        """One step larger or smaller; 0: as the desktop has it."""
        self._appearance.scale_text(by)

    def reset_layout(self) -> None:
        self.layout_.reset()

    def show_help(self, page: str = "") -> None:
        """Help about the view in focus, or a page by name."""
        self.help.show_page(page or page_about(QApplication.focusWidget()))
        if not self.help_dock.isVisible():
            self.help_dock.show()
            self.layout_.share([self.inspector_dock, self.help_dock])
        self.help_dock.raise_()

    def about(self) -> None:
        from gui.dialogs.about import about_text

        self.prompts.about(self, self.tr("About Walkscope"), about_text())

    def report(self, error: BaseException) -> None:
        """A fault of ours: tell what happened, and go on."""
        from gui.dialogs.crash import CrashDialog

        CrashDialog(error, self).show()

    def _timeline_menu(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addActions([self.actions_[id] for id in CONTEXT])
        menu.popup(self.timeline.list.viewport().mapToGlobal(at))

    # --- the window itself

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _dropped_file(event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        path = _dropped_file(event.mimeData().urls())
        if path:
            event.acceptProposedAction()
            self.opener.open(path)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.player.stop()
        runner().cancel()
        self.layout_.save(self._settings)
        super().closeEvent(event)


def _dropped_file(urls: list[QUrl]) -> str:
    """The one file that was dropped; '' where it was none or more."""
    return urls[0].toLocalFile() if len(urls) == 1 else ""
