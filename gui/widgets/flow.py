"""Widgets of one width in rows, as many in each as there is room for."""

from PySide6.QtCore import QRect, QSize
from PySide6.QtWidgets import QLayout, QLayoutItem, QWidget


class Flow(QLayout):
    def __init__(self, spacing: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._items: list[QLayoutItem] = []
        self.setContentsMargins(0, 0, 0, 0)
        self.setSpacing(spacing)

    def addItem(self, item: QLayoutItem) -> None:
        self._items.append(item)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def columns(self, width: int) -> int:
        """How many stand in a row of this width."""
        item = max((item.sizeHint().width() for item in self._items), default=1)
        return max(1, (width + self.spacing()) // (item + self.spacing()))

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return self._place(QRect(0, 0, width, 0), dry=True)

    def minimumSize(self) -> QSize:
        return max((item.sizeHint() for item in self._items), key=lambda size: size.width(), default=QSize())

    def sizeHint(self) -> QSize:
        return self.minimumSize()

    def setGeometry(self, rect: QRect) -> None:
        super().setGeometry(rect)
        self._place(rect, dry=False)

    def _place(self, rect: QRect, dry: bool) -> int:
        """The height that the rows take; ``dry``: nothing is moved."""
        columns = self.columns(rect.width())
        top = rect.top()
        for first in range(0, len(self._items), columns):
            row = self._items[first : first + columns]
            left = rect.left()
            for item in row:
                if not dry:
                    item.setGeometry(QRect(left, top, item.sizeHint().width(), item.sizeHint().height()))
                left += item.sizeHint().width() + self.spacing()
            top += max(item.sizeHint().height() for item in row) + self.spacing()
        return max(0, top - rect.top() - self.spacing())
