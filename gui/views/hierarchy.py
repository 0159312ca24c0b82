"""The hierarchy of tables: a picture to move in, and the address taken apart below it."""

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QKeySequence, QMouseEvent, QPainter, QPaintEvent, QPalette, QShortcut
from PySide6.QtWidgets import QVBoxLayout, QWidget

from gui.document import Change, Document
from gui.paint import breakdown
from gui.paint.marks import CENTER, card, draw_text
from gui.theme import GAP, MARGIN, signals, theme
from gui.widgets.hierarchy_canvas import HierarchyCanvas
from gui.widgets.mirror_bar import MirrorBar


class HierarchyView(QWidget):
    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.canvas = HierarchyCanvas(document)
        self.breakdown = AddressBreakdown(document)
        self.bar = MirrorBar(document, self)
        self.setFocusProxy(self.canvas)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.AlternateBase)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, MARGIN)
        layout.setSpacing(GAP)
        layout.addWidget(self.bar)
        layout.addWidget(self.canvas, 1)
        layout.addWidget(self.breakdown)
        turn = QShortcut(QKeySequence("M"), self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        turn.activated.connect(self.bar.turn)

    @property
    def zoom(self) -> float:
        return self.canvas.zoom

    def zoom_to(self, zoom: float) -> None:
        self.canvas.zoom_to(zoom)


class AddressBreakdown(QWidget):
    """The walked address: its slots, its offset, and what came of it. A click on a level lights its reference."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.setAccessibleName(self.tr("The address taken apart"))
        document.changed.connect(self._on_change)
        signals().changed.connect(self.updateGeometry)

    def sizeHint(self) -> QSize:
        return QSize(480, round(breakdown.height()))

    def minimumSizeHint(self) -> QSize:
        return QSize(240, round(breakdown.height()))

    def _on_change(self, change: Change) -> None:
        if change & (Change.WALK | Change.REFERENCE):
            walk = self._document.walk
            self.setAccessibleDescription(breakdown.verdict(walk) if walk else "")
            self.update()

    def _area(self) -> QRectF:
        return QRectF(self.rect()).adjusted(MARGIN, 0, -MARGIN, 0)

    def _lit_level(self) -> int | None:
        walk, reference = self._document.walk, self._document.reference
        if walk is None or reference is None:
            return None
        step = walk.steps[reference]
        return step.level.level if step.stage.depth == 1 else step.row

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if walk := self._document.walk:
            breakdown.paint_breakdown(painter, self._area(), walk, self._lit_level())
        elif self._document.last_step:
            card(painter, self._area())
            text = self._document.walk_refusal or self.tr("Type an address in the address bar (Ctrl+L) to walk it.")
            draw_text(painter, self._area().adjusted(GAP, 0, -GAP, 0), text, None, theme().muted, CENTER)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        walk = self._document.walk
        if walk is None:
            return
        levels, _ = breakdown.used_levels(walk)
        for level, box in zip(levels, breakdown.boxes(self._area(), walk), strict=False):
            if box.contains(event.position()):
                for number, step in enumerate(walk.steps):
                    if step.stage.depth == 1 and step.level == level:
                        self._document.go_to_reference(number)
