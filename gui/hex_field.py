"""A field for 64-bit numbers in hex: Qt's own spin box ends at 31 bits."""

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QLineEdit, QWidget

from engine.arch.addresses import grouped, parse_address
from engine.errors import InputError
from gui.theme import GRID, mono_font, signals

WIDEST = "0xffff_ffff_ffff_ffff"


class HexField(QLineEdit):
    """Takes hex with or without 0x, with groups split by _ ' or spaces; nothing that was typed is ever changed or lost.

    ``edited`` is emitted as the user types; `value` and `error` then tell what it comes to.
    """

    edited = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._wear_face()
        signals().changed.connect(self._wear_face)
        self.textChanged.connect(self._check)
        self.textEdited.connect(lambda: self.edited.emit())

    @property
    def value(self) -> int | None:
        """The number in the field; None where there is none: `error` tells why."""
        try:
            return parse_address(self.text())
        except InputError:
            return None

    @property
    def error(self) -> str:
        """What is wrong with the text, as a sentence; empty where nothing is."""
        try:
            parse_address(self.text())
        except InputError as error:
            return str(error)
        return ""

    def set_value(self, value: int) -> None:
        """Show ``value`` in groups, unless the text says it already in the user's own way."""
        if self.value != value:
            self.setText(grouped(value))
            self.setCursorPosition(0)

    def _check(self) -> None:
        error = self.error if self.text().strip() else ""
        if bool(self.property("invalid")) != bool(error):
            self.setProperty("invalid", bool(error))
            self.style().unpolish(self)
            self.style().polish(self)
        self.setToolTip(error)

    def _wear_face(self) -> None:
        self.setFont(mono_font())
        self.setMinimumWidth(self.fontMetrics().horizontalAdvance(WIDEST) + 8 * GRID)
