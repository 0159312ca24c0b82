"""The menu bar and the tool bar, made from the tables in `actions`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QSize, Qt
from PySide6.QtGui import QActionGroup, QFontMetrics
from PySide6.QtWidgets import QLabel, QMainWindow, QMenu, QToolBar, QWidget

from gui.action_set import Actions
from gui.actions import TOOL_BAR, menus
from gui.docks import Dock
from gui.icons import SIZE
from gui.recent import RecentFiles
from gui.theme import GRID, signals, ui_font

if TYPE_CHECKING:
    from gui.main_window import MainWindow
    from gui.templates import Template

translate = QCoreApplication.translate
Fill = Callable[[QMenu], None]


def build_menus(window: QMainWindow, actions: Actions, sections: dict[str, Fill]) -> None:
    """``sections`` fill what the table of menus names with "@"."""
    for title, ids in menus():
        menu = window.menuBar().addMenu(title)
        for id in ids:
            if id == "-":
                menu.addSeparator()
            elif id in sections:
                sections[id](menu)
            else:
                menu.addAction(actions[id])


def recent_section(recent: RecentFiles, open_file: Callable[[str], None]) -> Fill:
    """The files opened last, looked up when the menu is shown."""

    def fill(menu: QMenu) -> None:
        submenu = menu.addMenu(translate("Menus", "Open &recent"))
        submenu.setObjectName("recent")  # its icons are large: pictures

        def picture() -> None:
            from gui.thumbnails import icon

            for action in submenu.actions():
                if action.data():
                    action.setIcon(icon(action.data()))

        submenu.aboutToShow.connect(picture)

        def refill() -> None:
            submenu.clear()
            for number, path in enumerate(recent.paths(), 1):
                text = translate("Menus", "&{number}  {name}").format(
                    number=number, name=Path(path).name.replace("&", "&&")
                )
                action = submenu.addAction(text)
                action.setData(path)
                action.setToolTip(path)
                action.setStatusTip(path)
                action.triggered.connect(lambda _=False, path=path: open_file(path))
            submenu.setEnabled(not submenu.isEmpty())
            if not submenu.isEmpty():
                submenu.addSeparator()
                submenu.addAction(translate("Menus", "&Forget these files")).triggered.connect(recent.clear)

        menu.aboutToShow.connect(refill)
        refill()

    return fill


def templates_section(begin: Callable[["Template | None"], None]) -> Fill:
    """Scenarios to start from, looked up when the menu is shown."""

    def fill(menu: QMenu) -> None:
        submenu = menu.addMenu(translate("Menus", "&New scenario"))
        menu.aboutToShow.connect(lambda: fill_templates(submenu, begin))

    return fill


def fill_templates(menu: QMenu, begin: Callable[["Template | None"], None]) -> None:
    """Put the scenarios to start from into ``menu``, where they are not in it yet."""
    from gui.templates import templates

    if menu.isEmpty():
        menu.addAction(translate("Menus", "&Empty")).triggered.connect(lambda: begin(None))
        menu.addSeparator()
        for template in templates():
            action = menu.addAction(template.name)
            action.setToolTip(template.summary)
            action.setStatusTip(template.summary)
            action.triggered.connect(lambda _=False, template=template: begin(template))


def events_section(window: "MainWindow") -> Fill:
    """The events that can be next, looked up when the menu is shown."""

    def fill(menu: QMenu) -> None:
        submenu = menu.addMenu(translate("Menus", "Add e&vent"))

        def refill() -> None:
            from gui.dialogs.event_commands import fill_event_menu

            submenu.aboutToShow.disconnect(refill)
            fill_event_menu(submenu, window.document, window.add_event)

        submenu.aboutToShow.connect(refill)

    return fill


def docks_section(docks: list[Dock]) -> Fill:
    """A tick for each dock that is shown."""

    def fill(menu: QMenu) -> None:
        menu.addActions([dock.toggleViewAction() for dock in docks])

    return fill


def scheme_section(actions: Actions) -> Fill:
    """Light, dark, or as the desktop has it."""

    def fill(menu: QMenu) -> None:
        submenu = menu.addMenu(translate("Menus", "&Colours"))
        group = QActionGroup(submenu)
        for id in ("scheme-system", "scheme-light", "scheme-dark"):
            group.addAction(actions[id])
            submenu.addAction(actions[id])

    return fill


def demos_section(play: Callable[[str], None]) -> Fill:
    """The demos that come with the program, looked up when the menu is shown."""

    def fill(menu: QMenu) -> None:
        submenu = menu.addMenu(translate("Menus", "P&lay"))

        def refill() -> None:
            from gui import demos

            if submenu.isEmpty():
                for shown in demos.shown():
                    action = submenu.addAction(shown.title.replace("&", "&&"))
                    action.setToolTip(shown.summary)
                    action.setStatusTip(shown.summary)
                    action.triggered.connect(lambda _=False, name=shown.name: play(name))

        menu.aboutToShow.connect(refill)

    return fill


def sights_section(go: Callable[[int], None]) -> Fill:
    """The addresses worth seeing in the image that comes with the program, looked up when the menu is shown."""

    def fill(menu: QMenu) -> None:
        submenu = menu.addMenu(translate("Menus", "&Worth seeing"))

        def refill() -> None:
            from gui.sights import sights

            if submenu.isEmpty():
                for number, sight in enumerate(sights()):
                    text = translate("Menus", "&{number}  {name}").format(number=number + 1, name=sight.title)
                    action = submenu.addAction(text)
                    action.setToolTip(sight.sentence)
                    action.triggered.connect(lambda _=False, number=number: go(number))

        menu.aboutToShow.connect(refill)

    return fill


class ToolBar(QToolBar):
    """Steps through the references, and the address bar."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(translate("ToolBar", "Tool bar"), parent)
        self.setObjectName("toolBar")
        self.setMovable(False)
        self.setIconSize(QSize(SIZE, SIZE))
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        for id in TOOL_BAR:
            self.addAction(actions[id])
        self.step = QLabel()
        self.step.setProperty("role", "muted")
        self.step.setContentsMargins(2 * GRID, 0, 4 * GRID, 0)
        self.addWidget(self.step)
        signals().changed.connect(self._keep_width)
        self._keep_width()

    def show_step(self, number: int | None, count: int) -> None:
        """``number`` from 0; None where there is no walk."""
        text = translate("ToolBar", "step {number} / {count}")
        self.step.setText(text.format(number=number + 1, count=count) if number is not None else "")

    def _keep_width(self) -> None:
        """Nothing moves while the number grows."""
        widest = translate("ToolBar", "step {number} / {count}").format(number=88, count=88)
        self.step.setMinimumWidth(QFontMetrics(ui_font()).horizontalAdvance(widest) + 6 * GRID)
