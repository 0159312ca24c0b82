"""A finding as a card to press: it shows its evidence in the window, and unfolds."""

from PySide6.QtCore import QEvent, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QAbstractButton, QApplication, QSizePolicy, QWidget

from gui.explain import engine_text
from gui.models.findings import Shown, parts, severity_name
from gui.paint.findings import lay_out, paint_finding
from gui.theme import GRID, signals
from gui.widgets.card import HotSpot

WIDTH = 60 * GRID


class FindingCard(QAbstractButton):
    """Enter and Space do what a click does; Ctrl+C copies what the card says. ``fold`` unfolds it."""

    unfolded = Signal(bool)

    def __init__(self, shown: Shown, unfolded: bool, parent: QWidget) -> None:
        super().__init__(parent)
        self.shown = shown
        self._unfolded = unfolded
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setToolTip(self.tr("Show it"))
        self.fold = HotSpot(self)
        self.fold.clicked.connect(self._turn)
        signals().changed.connect(self._fit)
        self.show_finding(shown, unfolded)

    def show_finding(self, shown: Shown, unfolded: bool) -> None:
        self.shown, self._unfolded = shown, unfolded
        finding = shown.finding
        name = self.tr("{severity}: {title}")
        name = name.format(severity=severity_name(finding.severity), title=engine_text(finding.title))
        self.setAccessibleName(name)
        since = self.tr("Since step {step}.").format(step=shown.since)
        self.setAccessibleDescription(f"{engine_text(finding.sentence)} {since}")
        self._fit()

    def _turn(self) -> None:
        self._unfolded = not self._unfolded
        self._fit()
        self.unfolded.emit(self._unfolded)

    def _fit(self) -> None:
        self.fold.setAccessibleName(lay_out(self.shown, WIDTH, self._unfolded).fold_text)
        self.updateGeometry()
        self._place()
        self.update()

    def _place(self) -> None:
        self.fold.setGeometry(lay_out(self.shown, self.width(), self._unfolded).fold.toAlignedRect())

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return round(lay_out(self.shown, width, self._unfolded).height)

    def sizeHint(self) -> QSize:
        return QSize(WIDTH, self.heightForWidth(WIDTH))

    def minimumSizeHint(self) -> QSize:
        return QSize(WIDTH // 2, self.heightForWidth(max(self.width(), WIDTH // 2)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place()
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        elif event.matches(QKeySequence.StandardKey.Copy):
            QApplication.clipboard().setText(self.text_of())
        else:
            super().keyPressEvent(event)

    def text_of(self) -> str:
        """All that the card says, unfolded or not."""
        finding = self.shown.finding
        lines = [self.accessibleName(), self.accessibleDescription()]
        lines += [f"{engine_text(each.what)}: {each.value}" for each in finding.evidence]
        lines += [f"{heading}: {text}" for heading, text in parts(finding)]
        return "\n".join(lines)

    def event(self, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.HoverEnter, QEvent.Type.HoverLeave):
            self.update()
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        lit = self.hasFocus() or (self.underMouse() and not self.fold.underMouse())
        paint_finding(painter, QRectF(self.rect()), self.shown, self._unfolded, lit)
