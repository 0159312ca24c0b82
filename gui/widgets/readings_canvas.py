"""The same bytes read in two ways, as a widget: a click on a card selects its entry."""

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QHelpEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from gui.explain import outcome_title
from gui.models.readings import Reading, Readings
from gui.paint.readings import least_height, paint_readings, places, preferred_height
from gui.theme import signals


class ReadingsCanvas(QWidget):
    """``chosen``: the user clicked a `Reading`."""

    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: Readings | None = None
        self._selected: tuple[int, int] | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setAccessibleName(self.tr("The same bytes, as A and as B read them"))
        signals().changed.connect(self.updateGeometry)

    @property
    def shown(self) -> Readings | None:
        return self._shown

    def sizeHint(self) -> QSize:
        return QSize(600, round(preferred_height()))

    def minimumSizeHint(self) -> QSize:
        return QSize(320, round(least_height()))

    def show_readings(self, shown: Readings, selected: tuple[int, int] | None) -> None:
        """``selected``: frame and slot of the entry that is selected."""
        if (shown, selected) != (self._shown, self._selected):
            self._shown, self._selected = shown, selected
            self.setAccessibleDescription(self._spoken(shown))
            self.update()

    def _spoken(self, shown: Readings) -> str:
        lines = [
            self.tr("A: {outcome}").format(outcome=outcome_title(shown.end_a)),
            self.tr("B: {outcome}").format(outcome=outcome_title(shown.end_b)),
        ]
        for pair in shown.pairs:
            if pair.a is not None and pair.b is not None and pair.joined:
                text = self.tr("Frame {frame}: {a} on A, {b} on B")
                lines.append(text.format(frame=f"{pair.b.frame:x}", a=pair.a.name, b=pair.b.name))
            if pair.b is not None and pair.b.odd:
                lines.append(pair.b.odd)
        return ". ".join(lines)

    def _hit(self, point: QPointF) -> Reading | None:
        if self._shown is None:
            return None
        for pair, place in zip(self._shown.pairs, places(QRectF(self.rect()), self._shown), strict=True):
            for reading, area in ((pair.a, place.a), (pair.b, place.b)):
                if reading is not None and area.contains(point):
                    return reading
        return None

    def mousePressEvent(self, event: QMouseEvent) -> None:
        reading = self._hit(event.position())
        if reading is not None and event.button() == Qt.MouseButton.LeftButton:
            self.chosen.emit(reading)

    def event(self, event: QEvent) -> bool:
        """The tool tip of a card: whose bytes these are, and what is wrong with that."""
        if isinstance(event, QHelpEvent) and event.type() is QEvent.Type.ToolTip:
            reading = self._hit(QPointF(event.pos()))
            lines = filter(None, (reading.about, reading.stop, reading.odd)) if reading else ()
            QToolTip.showText(event.globalPos(), "\n".join(lines), self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._shown is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        paint_readings(painter, QRectF(self.rect()), self._shown, self._selected)
