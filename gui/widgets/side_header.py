"""The head of a side of a comparison: its letter, which step and pCPU it is, and how the hardware walks there."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QSizePolicy, QToolButton, QWidget

from gui.document import Document
from gui.pins import Pin
from gui.theme import GRID, signals, ui_font
from gui.widgets.elided import ElidedLabel


class SideHeader(QWidget):
    """``side``: "A" or "B". Its button pins another step or pCPU."""

    def __init__(self, document: Document, side: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._side = side
        self._letter = QLabel(side)
        self.button = QToolButton()
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        self.button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.button.setToolTip(self.tr("Pin another step or pCPU as {side}").format(side=side))
        self.menu = QMenu(self)
        self.menu.aboutToShow.connect(self.fill_menu)
        self.button.setMenu(self.menu)
        self.label = ElidedLabel()
        self.label.setProperty("role", "muted")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID)
        layout.addWidget(self._letter)
        layout.addWidget(self.button)
        layout.addWidget(self.label, 1)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        signals().changed.connect(self._dress)
        self._dress()

    def _dress(self) -> None:
        self._letter.setFont(ui_font(1.2, bold=True))

    def show_side(self, pin: Pin, pcpu: int, text: str) -> None:
        """``pcpu``: the one that walks; ``text``: how it walks."""
        name = self.tr("step {step}, pCPU {pcpu}").format(step=pin.step, pcpu=pcpu)
        self.button.setText(f"{name} ▾")
        self.button.setAccessibleName(self.tr("Side {side}: {what}").format(side=self._side, what=name))
        self.label.show_text(text)

    def fill_menu(self) -> None:
        """What can be pinned now."""
        document, menu = self._document, self.menu
        menu.clear()
        is_a = self._side == "A"
        pinned = document.pinned.a if is_a else document.pinned.b
        pin = document.pins[0 if is_a else 1]
        put = document.pin_a if is_a else document.pin_b
        follow = (
            self.tr("Follow: the step before the last mode change") if is_a else self.tr("Follow: the current step")
        )
        self._add(follow, pinned is None, lambda: put(None))
        here = self.tr("Pin the current step ({step})").format(step=document.step)
        self._add(here, pinned is not None and pinned.step == document.step, lambda: put(document.step, pin.pcpu))
        host = document.replay.state(min(pin.step, document.last_step)).host
        if host is None:
            return
        menu.addSeparator()
        self._add(self.tr("On the vCPU's own pCPU"), pin.pcpu is None, lambda: put(pin.step))
        for pcpu in host.pcpus:
            name = self.tr("As pCPU {pcpu} walks it, {levels}-level").format(pcpu=pcpu.index, levels=pcpu.levels)
            self._add(name, pin.pcpu == pcpu.index, lambda n=pcpu.index: put(pin.step, n))

    def _add(self, text: str, checked: bool, act: object) -> None:
        action = self.menu.addAction(text, act)  # type: ignore[call-overload]
        action.setCheckable(True)
        action.setChecked(checked)
