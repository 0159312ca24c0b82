"""The grid of a walk to click and to step through."""

from PySide6.QtCore import QPointF, QSize, Qt
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QSizePolicy, QToolTip, QWidget

from gui.document import Change, Document
from gui.explain import reads, reference_title, step_verdict
from gui.models.walk_grid import walk_grid
from gui.paint.walk_grid import paint_grid
from gui.paint.walk_layout import GridLayout, lay_out_grid
from gui.theme import GRID, signals


class WalkCanvas(QScrollArea):
    """As high as the grid wants to be, scrolled where there is less room."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.grid = _Grid(document)
        self._document = document
        self.setWidget(self.grid)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setAutoFillBackground(False)
        self.viewport().setAutoFillBackground(False)
        self.grid.setAutoFillBackground(False)
        document.changed.connect(self._on_change)
        signals().changed.connect(self._lay_out)

    @property
    def is_folded(self) -> bool:
        """Whether L0's references are folded into the entries of L1 and L2 that they lead to."""
        return self.grid.is_folded

    def fold(self, on: bool) -> None:
        self.grid.is_folded = on
        self._lay_out()
        self._reveal()

    def _on_change(self, change: Change) -> None:
        if change & Change.WALK:
            self._lay_out()
        if change & (Change.WALK | Change.REFERENCE):
            self._reveal()

    def _lay_out(self) -> None:
        self.grid.lay_out(self.viewport().width(), self.viewport().height())
        self.updateGeometry()

    def _reveal(self) -> None:
        place = self.grid.place_of_lit()
        if place is not None:
            self.ensureVisible(round(place.x()), round(place.y()), 30 * GRID, 16 * GRID)

    def sizeHint(self) -> QSize:
        return self.grid.best_size(self.viewport().width())

    def minimumSizeHint(self) -> QSize:
        return QSize(60 * GRID, 30 * GRID)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._lay_out()
        self._reveal()


class _Grid(QWidget):
    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._layout: GridLayout | None = None
        self.is_folded = False
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("References of the walk"))
        document.changed.connect(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change & (Change.WALK | Change.REFERENCE):
            walk, lit = self._document.walk, self._document.reference
            told = ""
            if walk is not None and lit is not None:
                text = self.tr("{title}: {verdict}")
                told = text.format(title=reference_title(walk, lit), verdict=step_verdict(walk.steps[lit]))
            self.setAccessibleDescription(told)
            self.update()

    @property
    def grid_layout(self) -> GridLayout | None:
        return self._layout

    def lay_out(self, width: float, height: float) -> None:
        walk = self._document.walk
        self._layout = lay_out_grid(walk_grid(walk), width, height, self.is_folded) if walk is not None else None
        if self._layout is not None:
            size = self._layout.size
            self.resize(max(round(size.width()), round(width)), round(size.height()))
        self.update()

    def best_size(self, width: float) -> QSize:
        """The size with room for all lines of text."""
        walk = self._document.walk
        if walk is None:
            return QSize(480, 0)
        return lay_out_grid(walk_grid(walk), width, 1e6, self.is_folded).size.toSize()

    def place_of_lit(self) -> QPointF | None:
        lit = self._document.reference
        place = self._layout.place(lit) if self._layout is not None and lit is not None else None
        return place.center() if place is not None else None

    def paintEvent(self, event: QPaintEvent) -> None:
        walk = self._document.walk
        if self._layout is not None and walk is not None:
            paint_grid(QPainter(self), self._layout, walk, self._document.reference)

    def _step_at(self, point: QPointF) -> int | None:
        return self._layout.step_at(point) if self._layout is not None else None

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if (step := self._step_at(event.position())) is not None:
            self._document.go_to_reference(step)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        step, walk = self._step_at(event.position()), self._document.walk
        if step is None or walk is None:
            QToolTip.hideText()
            self.unsetCursor()
            return
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        lines = (reference_title(walk, step), reads(walk.steps[step]), step_verdict(walk.steps[step]))
        QToolTip.showText(event.globalPosition().toPoint(), "\n".join(lines), self)
