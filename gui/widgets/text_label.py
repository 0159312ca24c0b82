"""Text in a face of the theme, which can be selected and copied."""

from collections.abc import Callable

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QLabel

from gui.theme import signals, ui_font


class TextLabel(QLabel):
    """``face`` gives the font, now and after the theme changed. ``role``: "muted" or "hazard", for the style sheet."""

    def __init__(self, face: Callable[[], QFont] = ui_font, role: str = "", wrap: bool = False) -> None:
        super().__init__()
        self._face = face
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setWordWrap(wrap)
        self.setProperty("role", role)
        signals().changed.connect(self._dress)
        self._dress()

    def _dress(self) -> None:
        self.setFont(self._face())

    def event(self, event: QEvent) -> bool:
        """A style sheet that meets the label anew forgets its face."""
        done = super().event(event)
        if event.type() is QEvent.Type.Polish:
            self._dress()
        return done

    def set_role(self, role: str) -> None:
        if self.property("role") != role:
            self.setProperty("role", role)
            self.style().unpolish(self)
            self.style().polish(self)
            self._dress()
