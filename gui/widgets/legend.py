"""The classes of a comparison with their figures. Each is a button: pressed, the table lists only its ranges."""

from PySide6.QtCore import QPoint, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QLayout, QLayoutItem, QWidget

from engine.effects.compare import EXPOSES, Class
from gui.effect_texts import class_name, pages
from gui.paint.bands import paint_swatch
from gui.paint.marks import SMALL, draw_text, line_height, text_width
from gui.theme import GRID, RADIUS, mono_font, signals, theme, ui_font

SWATCH = 4 * GRID


class ClassButton(QAbstractButton):
    """Swatch, name, and how many pages of side B are of the class."""

    def __init__(self, kind: Class, count: int, parent: QWidget) -> None:
        super().__init__(parent)
        self.kind = kind
        self._count = count
        self.setCheckable(True)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        text = self.tr("{what}, {pages}").format(what=class_name(kind), pages=pages(count))
        self.setAccessibleName(text)
        self.setToolTip(self.tr("List only these ranges"))

    def sizeHint(self) -> QSize:
        width = SWATCH + 2 * GRID + text_width(class_name(self.kind), ui_font(SMALL))
        width += 2 * GRID + text_width(pages(self._count), mono_font(SMALL)) + 4 * GRID
        return QSize(round(width), round(line_height(ui_font()) + GRID))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        t, rect = theme(), QRectF(self.rect())
        if self.isChecked() or self.underMouse():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(t.accent_ground if self.isChecked() else t.tint(t.text, 0.05, t.window))
            painter.drawRoundedRect(rect, RADIUS, RADIUS)
        if self.hasFocus():
            painter.setPen(QPen(t.accent, 1.5))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(rect.adjusted(1, 1, -1, -1), RADIUS, RADIUS)
        side = 3 * GRID
        paint_swatch(painter, QRectF(rect.left() + GRID, rect.center().y() - side / 2, side, side), self.kind)
        name = rect.adjusted(SWATCH + 2 * GRID, 0, 0, 0)
        color = t.hazard_text if self.kind in EXPOSES and self._count else t.text
        draw_text(painter, name, class_name(self.kind), ui_font(SMALL), color)
        left = text_width(class_name(self.kind), ui_font(SMALL)) + 2 * GRID
        draw_text(painter, name.adjusted(left, 0, 0, 0), pages(self._count), mono_font(SMALL), t.muted)


class Flow(QLayout):
    """Widgets one after another, in as many lines as they need."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._items: list[QLayoutItem] = []
        self.setContentsMargins(0, 0, 0, 0)
        self.setSpacing(2 * GRID)

    def addItem(self, item: QLayoutItem) -> None:
        self._items.append(item)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return self._place(QRect(0, 0, width, 0), False)

    def sizeHint(self) -> QSize:
        return self.minimumSize()

    def minimumSize(self) -> QSize:
        sizes = [item.sizeHint() for item in self._items]
        return QSize(max((s.width() for s in sizes), default=0), max((s.height() for s in sizes), default=0))

    def setGeometry(self, rect: QRect) -> None:
        super().setGeometry(rect)
        self._place(rect, True)

    def _place(self, rect: QRect, move: bool) -> int:
        """The height that is needed; the widgets are put where they belong where ``move`` says so."""
        x, y, line = rect.left(), rect.top(), 0
        for item in self._items:
            size = item.sizeHint()
            if x > rect.left() and x + size.width() > rect.right() + 1:
                x, y, line = rect.left(), y + line + GRID, 0
            if move:
                item.setGeometry(QRect(QPoint(x, y), size))
            x, line = x + size.width() + self.spacing(), max(line, size.height())
        return y + line - rect.top()


class Legend(QWidget):
    """``filtered`` carries the set of classes that are pressed; an empty one means all."""

    filtered = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counts: dict[Class, int] = {}
        self._flow = Flow(self)
        self.setAccessibleName(self.tr("Classes"))
        signals().changed.connect(self.updateGeometry)

    @property
    def buttons(self) -> list[ClassButton]:
        return [button for button in self.findChildren(ClassButton) if not button.isHidden() or button.isChecked()]

    def show_counts(self, counts: dict[Class, int]) -> None:
        """Pages of each class, in the order in which they are to be shown. The same ones stay as they are."""
        if counts == self._counts:
            return
        pressed = {button.kind for button in self.buttons if button.isChecked()}
        while (item := self._flow.takeAt(0)) is not None:
            if (button := item.widget()) is not None:
                button.setParent(None)
                button.deleteLater()
        self._counts = counts
        for kind, count in counts.items():
            button = ClassButton(kind, count, self)
            button.setChecked(kind in pressed)
            button.toggled.connect(self._tell)
            self._flow.addWidget(button)
            button.show()
        self.updateGeometry()
        if not pressed <= counts.keys():
            self._tell()

    def _tell(self) -> None:
        self.filtered.emit({button.kind for button in self.buttons if button.isChecked()})
