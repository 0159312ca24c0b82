"""What is where in the window: docks left and right, the views in tabs in the middle, strips above them."""

from collections.abc import Callable

from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QMainWindow, QTabWidget, QVBoxLayout, QWidget

from gui.docks import HELP_PAGE, Dock
from gui.document import Document
from gui.theme import GRID

VERSION = 1
"""Of the layout that is saved; one of another version is not restored."""
SIDE, MACHINE = 65 * GRID, 88 * GRID
"""Width of the docks, and height of the machine's, at the start."""
LEFT, RIGHT = Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea


class Lazy(QWidget):
    """A view that is made when it is first shown: the window is painted before it."""

    def __init__(self, make: Callable[[QWidget], QWidget], page: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._make = make
        self.view: QWidget | None = None
        self.setProperty(HELP_PAGE, page)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)

    def showEvent(self, event: QShowEvent) -> None:
        self.open()
        super().showEvent(event)

    def open(self) -> QWidget:
        """The view itself."""
        if self.view is None:
            self.view = self._make(self)
            self._layout.addWidget(self.view)
            self.setFocusProxy(self.view)
        return self.view


def build_tabs(document: Document) -> QTabWidget:
    """Hierarchy, Walk, Mappings."""
    tabs = QTabWidget()
    tabs.setDocumentMode(True)
    tabs.tabBar().setDrawBase(False)

    def hierarchy(parent: QWidget) -> QWidget:
        from gui.views.hierarchy import HierarchyView

        return HierarchyView(document, parent)

    def walk(parent: QWidget) -> QWidget:
        from gui.views.walk import WalkView

        return WalkView(document, parent)

    def mappings(parent: QWidget) -> QWidget:
        from gui.views.mappings import MappingsView

        return MappingsView(document, parent)

    tabs.addTab(Lazy(hierarchy, "hierarchy"), tabs.tr("Hierarchy"))
    tabs.addTab(Lazy(walk, "walk"), tabs.tr("Walk"))
    tabs.addTab(Lazy(mappings, "mappings"), tabs.tr("Mappings"))
    return tabs


def build_center(tabs: QTabWidget, strips: list[QWidget]) -> QWidget:
    center = QWidget()
    layout = QVBoxLayout(center)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    for strip in strips:
        layout.addWidget(strip)
    layout.addWidget(tabs, 1)
    return center


class Layout:
    """The docks of ``window``: put where they belong, saved, restored, and put back."""

    def __init__(self, window: QMainWindow, left: list[Dock], right: list[Dock], hidden: list[Dock]) -> None:
        self._window = window
        self._left, self._right, self._hidden = left, right, hidden
        window.setDockOptions(
            QMainWindow.DockOption.AnimatedDocks
            | QMainWindow.DockOption.AllowTabbedDocks
            | QMainWindow.DockOption.AllowNestedDocks
        )
        for corner, area in (
            (Qt.Corner.TopLeftCorner, LEFT),
            (Qt.Corner.BottomLeftCorner, LEFT),
            (Qt.Corner.TopRightCorner, RIGHT),
            (Qt.Corner.BottomRightCorner, RIGHT),
        ):
            window.setCorner(corner, area)
        self.reset()

    def reset(self) -> None:
        """Every dock where it was at the very first start."""
        for area, docks in ((LEFT, self._left), (RIGHT, [*self._right, *self._hidden])):
            for dock in docks:
                dock.setFloating(False)
                self._window.addDockWidget(area, dock)
                dock.setVisible(dock not in self._hidden)
        self._window.resizeDocks([*self._left, *self._right], [SIDE] * (len(self._left) + len(self._right)),
                                 Qt.Orientation.Horizontal)  # fmt: skip
        self._window.resizeDocks(self._left[-1:], [MACHINE], Qt.Orientation.Vertical)

    def share(self, docks: list[Dock]) -> None:
        """Give ``docks``, which stand one above the other, the same height."""
        self._window.resizeDocks(docks, [1] * len(docks), Qt.Orientation.Vertical)

    def save(self, settings: QSettings) -> None:
        settings.setValue("window/geometry", self._window.saveGeometry())
        settings.setValue("window/layout", self._window.saveState(VERSION))

    def restore(self, settings: QSettings) -> None:
        geometry, layout = settings.value("window/geometry"), settings.value("window/layout")
        if geometry is not None:
            self._window.restoreGeometry(geometry)
        if layout is not None:
            self._window.restoreState(layout, VERSION)
