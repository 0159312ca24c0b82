"""The address bands as something to move in: hover tells a range, a click takes its address, Ctrl+wheel zooms."""

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from engine.arch.addresses import grouped
from engine.effects.axis import address_at
from engine.effects.comparison import Band
from gui.effect_texts import class_name, pages
from gui.models.effects import Picture
from gui.paint.bands import Frame, View, frame, height, paint_bands
from gui.theme import signals, theme
from gui.widgets.zoom_buttons import zoom_by_key

WHOLE = View()
KEYS = (
    Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Home, Qt.Key.Key_End, Qt.Key.Key_Plus, Qt.Key.Key_Equal,
    Qt.Key.Key_Minus, Qt.Key.Key_0,
)  # fmt: skip


class BandsCanvas(QWidget):
    """Left and Right go from range to range of side B, + and - zoom, 0 shows all, a drag moves."""

    chosen = Signal(object)
    """A guest-physical address (int) was pointed at."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._picture: Picture | None = None
        self._view = WHOLE
        self._selected: int | None = None
        self._hovered: tuple[int, int] | None = None
        self._pressed: QPointF | None = None
        self._panned = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("What every guest-physical address translates to, on A and on B"))
        signals().changed.connect(self.updateGeometry)

    @property
    def view(self) -> View:
        """The part of the axis that is shown."""
        return self._view

    def sizeHint(self) -> QSize:
        return QSize(480, round(height()))

    def minimumSizeHint(self) -> QSize:
        return QSize(200, round(height()))

    def show_picture(self, picture: Picture) -> None:
        if self._picture is None or self._picture.axis != picture.axis:
            self._view = WHOLE
        self._picture, self._hovered = picture, None
        self._say()
        self.update()

    def select(self, gpa: int) -> None:
        """Mark an address."""
        if gpa != self._selected:
            self._selected = gpa
            self._say()
            self.update()

    def _say(self) -> None:
        if self._picture is not None and self._selected is not None:
            self.setAccessibleDescription(self._told(self._picture, self._selected))

    # --- zoom

    def zoom_by(self, factor: float, around: float | None = None) -> None:
        """``around``: the place on the axis that stays where it is (default: the selected address, or the middle)."""
        if around is None:
            at = self._picture.axis.place(self._selected) if self._picture and self._selected is not None else None
            inside = at is not None and self._view.low <= at <= self._view.high
            around = at if at is not None and inside else (self._view.low + self._view.high) / 2
        self._look(self._view.zoomed(factor, around))

    @property
    def zoom(self) -> float:
        """How many times the whole axis is as long as what is shown of it."""
        return 1 / (self._view.high - self._view.low)

    def zoom_to(self, zoom: float) -> None:
        """Zoom, with the selected address in sight."""
        self.fit()
        if zoom > 1:
            self.zoom_by(zoom)

    def fit(self) -> None:
        self._look(WHOLE)

    def _look(self, view: View) -> None:
        if view != self._view:
            self._view = view
            self.update()

    # --- what is where

    def _frame(self) -> Frame:
        return frame(QRectF(self.rect()))

    def _at(self, point: QPointF) -> int | None:
        """The address at ``point``; None where there is none."""
        places = self._frame()
        if self._picture is None or not places.a.united(places.b).contains(point):
            return None
        comparison, view = self._picture.comparison, self._view
        band = comparison.band_a if places.a.contains(point) else comparison.band_b
        x, width = point.x() - places.a.left(), places.a.width()
        return address_at(band, self._picture.axis, view.low, view.high, width, x)

    def range_at(self, gpa: int) -> tuple[int, int] | None:
        """First byte and bytes of the range of side B that ``gpa`` is in."""
        found = self._picture.comparison.band_b.at(gpa) if self._picture else None
        return found[:2] if found else None

    def _told(self, picture: Picture, gpa: int) -> str:
        """The ranges of both sides that ``gpa`` is in, a line each."""
        lines = [self.tr("GPA {gpa}").format(gpa=grouped(gpa, 8))]
        for name, band in (("A", picture.comparison.band_a), ("B", picture.comparison.band_b)):
            lines.append(self._line(name, band, gpa))
        return "\n".join(lines)

    def _line(self, name: str, band: Band, gpa: int) -> str:
        found = band.at(gpa)
        if found is None:
            return self.tr("{side}: nothing is mapped").format(side=name)
        start, size, kind = found
        text = self.tr("{side}: {what}, {first} – {last}, {pages}")
        return text.format(
            side=name, what=class_name(kind), first=grouped(start, 8), last=grouped(start + size - 1, 8),
            pages=pages(size >> 12),
        )  # fmt: skip

    # --- what the user does

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._pressed, self._panned = event.position(), False

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._pressed is not None:
            self._pan(event.position())
            return
        gpa = self._at(event.position())
        hovered = self.range_at(gpa) if gpa is not None else None
        if hovered != self._hovered:
            self._hovered = hovered
            self.update()
        if gpa is None or self._picture is None:
            QToolTip.hideText()
        else:
            QToolTip.showText(event.globalPosition().toPoint(), self._told(self._picture, gpa), self)

    def _pan(self, to: QPointF) -> None:
        assert self._pressed is not None
        moved = to.x() - self._pressed.x()
        if not self._panned and abs(moved) < QGuiApplication.styleHints().startDragDistance():
            return
        self._panned, self._pressed = True, to
        span = self._view.high - self._view.low
        self._look(self._view.moved(-moved / self._frame().a.width() * span))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        was_click = self._pressed is not None and not self._panned
        self._pressed = None
        gpa = self._at(event.position())
        if was_click and gpa is not None:
            self.chosen.emit(gpa)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Zooms to the range under the pointer."""
        gpa = self._at(event.position())
        found = self.range_at(gpa) if gpa is not None else None
        if found is None or self._picture is None:
            return
        first, last = (self._picture.axis.place(at) for at in (found[0], found[0] + found[1] - 1))
        if first is not None and last is not None:
            span = min(1.0, max(1e-6, (last - first) * 1.2))
            self._look(View.of((first + last - span) / 2, span))

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zooms with Ctrl and moves with Shift, as in the hierarchy; else the page scrolls."""
        delta = event.angleDelta()
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom_by(1.0015 ** delta.y(), self._frame().place(event.position().x(), self._view))
        elif event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            span = self._view.high - self._view.low
            self._look(self._view.moved(-(delta.y() + delta.x()) / 1200 * span))
        else:
            event.ignore()
            return
        event.accept()

    def leaveEvent(self, event: QEvent) -> None:
        self._hovered = None
        self.update()

    def event(self, event: QEvent) -> bool:
        """Keeps its plain keys, some of which are shortcuts of the window."""
        if event.type() is QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
            if plain and Qt.Key(event.key()) in KEYS:
                event.accept()
                return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = Qt.Key(event.key())
        if zoom_by_key(self, key):
            event.accept()
        elif key in KEYS and self._picture is not None:
            self._go(key, self._picture.comparison.band_b)
        else:
            super().keyPressEvent(event)

    def _go(self, key: Qt.Key, band: Band) -> None:
        """To the next or previous range, or the first or last."""
        starts = band.start
        if not len(starts):
            return
        here = int(starts.searchsorted(self._selected or 0, side="right")) - 1
        row = {
            Qt.Key.Key_Left: here - 1,
            Qt.Key.Key_Right: here + 1,
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: len(starts) - 1,
        }[key]
        if 0 <= row < len(starts):
            self.chosen.emit(int(starts[row]))

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._picture is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        paint_bands(painter, QRectF(self.rect()), self._picture, self._view, self._selected, self._hovered)
        if self.hasFocus():
            self._paint_focus(painter)

    def _paint_focus(self, painter: QPainter) -> None:
        places = self._frame()
        painter.setPen(theme().accent)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(places.a.united(places.b).adjusted(-2.5, -2.5, 2.5, 2.5), 3, 3)
