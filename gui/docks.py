"""The docks around the views, with a title bar of our own: quiet capitals, and buttons to float and to hide."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QDockWidget, QHBoxLayout, QLabel, QToolButton, QWidget

from gui.icons import icon
from gui.paint.marks import SMALL
from gui.theme import GRID, signals, theme, ui_font


class Dock(QDockWidget):
    """``name`` is stable: the layout is saved under it."""

    def __init__(self, name: str, title: str, view: QWidget, parent: QWidget) -> None:
        super().__init__(title, parent)
        self.setObjectName(name)
        self.setTitleBarWidget(_TitleBar(self))
        self.setWidget(view)
        self.toggleViewAction().setIconVisibleInMenu(False)


class _TitleBar(QWidget):
    def __init__(self, dock: QDockWidget) -> None:
        super().__init__(dock)
        self._label = QLabel(dock.windowTitle())
        self._label.setProperty("role", "muted")
        self._float = self._button(self.tr("Float {title}").format(title=dock.windowTitle()))
        self._float.clicked.connect(lambda: dock.setFloating(not dock.isFloating()))
        self._hide = self._button(self.tr("Hide {title}").format(title=dock.windowTitle()))
        self._hide.clicked.connect(dock.close)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(4 * GRID, GRID, GRID, GRID)
        layout.setSpacing(0)
        layout.addWidget(self._label, 1)
        layout.addWidget(self._float)
        layout.addWidget(self._hide)
        signals().changed.connect(self._dress)
        self._dress()

    def _button(self, name: str) -> QToolButton:
        button = QToolButton()
        button.setToolTip(name)
        button.setAccessibleName(name)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        return button

    def _dress(self) -> None:
        font = ui_font(SMALL)
        font.setCapitalization(QFont.Capitalization.AllUppercase)
        font.setLetterSpacing(QFont.SpacingType.PercentageSpacing, 106)
        self._label.setFont(font)
        self._float.setIcon(icon("float", theme().muted))
        self._hide.setIcon(icon("close", theme().muted))
