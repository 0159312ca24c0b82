"""Asks what a store stores: size and value."""

from typing import get_args

from PySide6.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QFormLayout, QLabel, QVBoxLayout, QWidget

from engine import events as ev
from engine.arch.addresses import grouped
from engine.arch.rights import Kind
from gui.hex_field import HexField
from gui.theme import GRID, MARGIN

SIZES: tuple[ev.AccessSize, ...] = get_args(ev.AccessSize)


class StoreDialog(QDialog):
    """``event``: the store asked for; None while the value is none."""

    def __init__(self, address: int, kind: Kind, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._address, self._kind = address, kind
        self.setWindowTitle(self.tr("Store to {address}").format(address=grouped(address)))
        self.size_ = QComboBox()
        for size in SIZES:
            self.size_.addItem(self.tr("1 byte") if size == 1 else self.tr("{count} bytes").format(count=size))
        self.size_.setCurrentIndex(len(SIZES) - 1)
        self.value = HexField()
        self.value.set_value(0)
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.verdict.setProperty("role", "hazard")
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setText(self.tr("Store"))
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        form = QFormLayout()
        form.setHorizontalSpacing(4 * GRID)
        form.setVerticalSpacing(2 * GRID)
        form.addRow(self.tr("&Size"), self.size_)
        form.addRow(self.tr("&Value"), self.value)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        layout.setSpacing(3 * GRID)
        layout.addLayout(form)
        layout.addWidget(self.verdict)
        layout.addWidget(self.buttons)
        self.value.textChanged.connect(self._show_verdict)
        self.size_.currentIndexChanged.connect(self._show_verdict)
        self._show_verdict()

    @property
    def event(self) -> ev.AccessMemory | None:  # type: ignore[override]
        if self._error():
            return None
        return ev.AccessMemory(self._address, self._kind, SIZES[self.size_.currentIndex()], self.value.value or 0)

    def _error(self) -> str:
        value, size = self.value.value, SIZES[self.size_.currentIndex()]
        if value is None:
            return self.value.error
        if value >> (8 * size):
            return self.tr("This value does not fit into {count} bytes.").format(count=size)
        return ""

    def _show_verdict(self) -> None:
        error = self._error()
        self.verdict.setText(error)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(not error)
