"""A paging level as a pill: its colour and its name."""

from PySide6.QtCore import QRectF, QSize
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from gui.paint.marks import chip, chip_size


class LevelChip(QWidget):
    """The pill that names the level of the entry."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._level, self._name = 0, ""

    def show_level(self, level: int, name: str) -> None:
        self._level, self._name = level, name
        self.setAccessibleName(name)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        return chip_size(self._name).toSize()

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        size = chip_size(self._name)
        chip(
            painter,
            QRectF(0, (self.height() - size.height()) / 2, size.width(), size.height()),
            self._level,
            self._name,
        )
