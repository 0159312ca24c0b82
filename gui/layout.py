"""What is where in the window: docks left and right, the views in tabs in the middle, strips above them.

Nothing here knows of paging, so that the window can be painted before the engine is imported.
"""

from collections.abc import Callable

from PySide6.QtCore import QByteArray, QCoreApplication, QSettings, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QMainWindow, QTabBar, QTabWidget, QVBoxLayout, QWidget

from gui.docks import Dock
from gui.theme import GRID

HELP_PAGE = "helpPage"
"""The property of a widget that names the page of help about it."""
VERSION = 3
"""Of the layout that is saved; one of another version is not restored."""
LEFT_WIDTH, RIGHT_WIDTH, WRITING_WIDTH = 65 * GRID, 80 * GRID, 96 * GRID
LEFT_SHARES, RIGHT_SHARES = (4, 6), (7, 4)
"""How the docks on each side share the height."""
LEFT, RIGHT = Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea


class Lazy(QWidget):
    """Keeps the place of a view, which is made when it is first shown after somebody has said how.

    So the window is painted before its views, and what they import, are there. ``page``: that of help about the view.
    """

    def __init__(self, page: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.page = page
        self.setProperty(HELP_PAGE, page)
        self.view: QWidget | None = None
        self._make: Callable[[QWidget], QWidget] | None = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)

    def provide(self, make: Callable[[QWidget], QWidget]) -> None:
        """``make`` is called with the view's parent, at once if this is shown already."""
        self._make = make
        if self.isVisible():
            self.open()

    def showEvent(self, event: QShowEvent) -> None:
        if self._make is not None:
            self.open()
        super().showEvent(event)

    def open(self) -> QWidget:
        """The view itself."""
        if self.view is None:
            assert self._make is not None
            self.view = self._make(self)
            self._layout.addWidget(self.view)
            self.setFocusProxy(self.view)
        return self.view


class Center(QWidget):
    """The views in tabs, with room for strips above them."""

    def __init__(self, views: dict[str, str]) -> None:
        """``views``: the title of each tab by its page of help."""
        super().__init__()
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setDrawBase(False)
        for page, title in views.items():
            self.tabs.addTab(Lazy(page), title)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self._layout.addWidget(self.tabs, 1)

    def add_strip(self, strip: QWidget) -> None:
        """Put ``strip`` right above the tabs."""
        self._layout.insertWidget(self._layout.count() - 1, strip)


class Layout:
    """The docks of ``window``: put where they belong, saved, restored, and put back."""

    def __init__(self, window: QMainWindow, left: list[Dock], right: list[Dock], hidden: list[Dock]) -> None:
        self._window = window
        self._left, self._right, self._hidden = left, right, hidden
        self._aside: QByteArray | None = None
        window.setDockOptions(
            QMainWindow.DockOption.AnimatedDocks
            | QMainWindow.DockOption.AllowTabbedDocks
            | QMainWindow.DockOption.AllowNestedDocks
        )
        window.setTabPosition(Qt.DockWidgetArea.AllDockWidgetAreas, QTabWidget.TabPosition.North)
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
        self._window.tabifyDockWidget(self._right[0], self._hidden[-1])
        self._name_tabs()
        self.measure()

    def measure(self) -> None:
        """Every dock as large as it was at the very first start."""
        for docks, width in ((self._left, LEFT_WIDTH), (self._right, RIGHT_WIDTH)):
            self._window.resizeDocks(docks[:1], [width], Qt.Orientation.Horizontal)
        for docks, shares in ((self._left, LEFT_SHARES), (self._right, RIGHT_SHARES)):
            self._window.resizeDocks(docks, list(shares), Qt.Orientation.Vertical)

    def share(self, docks: list[Dock]) -> None:
        """Give ``docks``, which stand one above the other, the same height."""
        self._window.resizeDocks(docks, [1] * len(docks), Qt.Orientation.Vertical)

    def favour(self, dock: Dock) -> None:
        """Give ``dock`` most of the height of its side, and room to write in."""
        others = [other for other in self._right if other.isVisible() and not other.isFloating()]
        self._window.resizeDocks([dock, *others[-1:]], [10, 2][: 1 + len(others[-1:])], Qt.Orientation.Vertical)
        self._window.resizeDocks([dock], [WRITING_WIDTH], Qt.Orientation.Horizontal)

    def set_aside(self, *bars: QWidget) -> None:
        """Leave nothing but the middle: docks and ``bars`` are hidden until `bring_back`."""
        if self._aside is None:
            self._aside = self._window.saveState(VERSION)
            for part in (*self._left, *self._right, *self._hidden, *bars):
                part.hide()

    def bring_back(self) -> None:
        """Everything as it was before `set_aside`."""
        if self._aside is not None:
            self._window.restoreState(self._aside, VERSION)
            self._name_tabs()
            self._aside = None

    def save(self, settings: QSettings) -> None:
        settings.setValue("window/geometry", self._window.saveGeometry())
        settings.setValue("window/layout", self._aside or self._window.saveState(VERSION))

    def restore(self, settings: QSettings) -> bool:
        """Whether there was a layout to restore."""
        geometry, layout = settings.value("window/geometry"), settings.value("window/layout")
        if geometry is not None:
            self._window.restoreGeometry(geometry)
        is_restored = layout is not None and self._window.restoreState(layout, VERSION)
        self._name_tabs()
        return is_restored

    def _name_tabs(self) -> None:
        """The bars over docks that share a place, which Qt makes itself, have a name to be spoken."""
        for bar in self._window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly):
            bar.setAccessibleName(QCoreApplication.translate("Layout", "Docks"))
