"""Plays the references of the walk, one after another."""

from PySide6.QtCore import QObject, QTimer, Signal

from gui.document import Change, Document

PAUSE = 700
"""Milliseconds between two references."""


class Player(QObject):
    """From the lit reference to the last; from the first, where the last is lit. Another walk ends it."""

    changed = Signal()
    """It began or ended."""

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._timer = QTimer(self)
        self._timer.setInterval(PAUSE)
        self._timer.timeout.connect(self._go_on)
        document.changed.connect(self._on_change)

    @property
    def is_playing(self) -> bool:
        return self._timer.isActive()

    def toggle(self) -> None:
        if self.is_playing:
            self.stop()
        elif self._last() is not None:
            if self._document.reference == self._last():
                self._document.go_to_reference(0)
            if self._document.reference != self._last():
                self._timer.start()
                self.changed.emit()

    def stop(self) -> None:
        if self.is_playing:
            self._timer.stop()
            self.changed.emit()

    def _last(self) -> int | None:
        walk = self._document.walk
        return len(walk.steps) - 1 if walk and walk.steps else None

    def _go_on(self) -> None:
        self._document.go_to_reference((self._document.reference or 0) + 1)
        if self._document.reference == self._last():
            self.stop()

    def _on_change(self, change: Change) -> None:
        if change & Change.WALK:
            self.stop()
