"""Smaller, fit, larger: the buttons in the corner of a picture that zooms, and the keys."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from gui.theme import GRID

FACTOR = 1.5
"""What one key or one click zooms by."""


class Zoomable(Protocol):
    def zoom_by(self, factor: float) -> None: ...
    def fit(self) -> None: ...


@runtime_checkable
class Zooming(Protocol):
    """A view whose picture zooms: how many times it is as large as the whole of it would be."""

    @property
    def zoom(self) -> float: ...
    def zoom_to(self, zoom: float) -> None: ...


def zoom_by_key(picture: Zoomable, key: Qt.Key) -> bool:
    """Zoom ``picture`` if ``key`` says so; whether it did."""
    match key:
        case Qt.Key.Key_Plus | Qt.Key.Key_Equal:
            picture.zoom_by(FACTOR)
        case Qt.Key.Key_Minus:
            picture.zoom_by(1 / FACTOR)
        case Qt.Key.Key_0:
            picture.fit()
        case _:
            return False
    return True


class ZoomButtons(QWidget):
    """``zoom`` is called with a factor, ``fit`` where the whole picture is wanted."""

    def __init__(self, zoom: Callable[[float], None], fit: Callable[[], None], parent: QWidget) -> None:
        super().__init__(parent)
        self._row = row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(GRID)
        self._add("−", self.tr("Zoom out (−)"), lambda: zoom(1 / FACTOR))
        self._add(self.tr("Fit"), self.tr("Fit the window (0)"), fit)
        self._add("+", self.tr("Zoom in (+)"), lambda: zoom(FACTOR))

    def _add(self, text: str, name: str, act: Callable[[], None]) -> None:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(name)
        button.setAccessibleName(name)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.clicked.connect(act)
        self._row.addWidget(button)

    def place(self, width: int, height: int) -> None:
        """Stand in the lower right corner of an area of this size."""
        size = self.sizeHint()
        self.setGeometry(
            width - size.width() - 2 * GRID, height - size.height() - 2 * GRID, size.width(), size.height()
        )
