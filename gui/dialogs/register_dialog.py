"""One register edited: set as a debugger would, or written by MOV or WRMSR as the processor executes it."""

from typing import get_args

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from engine import events as ev
from engine.arch.addresses import grouped
from engine.arch.faults import GeneralProtection, Unknown
from engine.machine import Refusal
from gui.document import Document
from gui.explain import engine_text, outcome_title
from gui.hex_field import HexField
from gui.models.registers import FLAGS
from gui.theme import GRID, MARGIN, mono_font

COLUMNS = 5
"""Of flags, side by side."""


class RegisterDialog(QDialog):
    """``event`` is what the user asked for; accepting the dialog does not make it happen."""

    def __init__(self, document: Document, name: ev.RegisterName, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._name = name
        self.setWindowTitle(self.tr("Register {register}").format(register=name.upper()))
        value = getattr(document.state.registers, name)
        self.field = HexField()
        self.field.setAccessibleName(self.tr("Value of {register}").format(register=name.upper()))
        self.field.set_value(value)
        self.flags = self._make_flags()
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.verdict.setMinimumHeight(12 * GRID)
        self.verdict.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.by_debugger, self.by_processor = self._make_ways()
        self._lay_out()
        self.field.textChanged.connect(self._on_value)
        self._on_value()

    @property
    def event(self) -> ev.SetRegister | ev.WriteRegister | None:  # type: ignore[override]
        """None while the value makes no sense."""
        value = self.field.value
        if value is None:
            return None
        try:
            if self.by_processor.isChecked():
                return ev.WriteRegister(self._name, value)  # type: ignore[arg-type]
            return ev.SetRegister(self._name, value)
        except ValueError:
            return None

    def _make_flags(self) -> dict[int, QCheckBox]:
        boxes: dict[int, QCheckBox] = {}
        for flag in FLAGS.get(self._name, ()):
            box = QCheckBox(str(flag.name))
            box.setFont(mono_font())
            box.toggled.connect(lambda on, bit=int(flag): self._on_flag(bit, on))
            boxes[int(flag)] = box
        return boxes

    def _make_ways(self) -> tuple[QRadioButton, QRadioButton]:
        debugger = QRadioButton(self.tr("Set it as a debugger would, unchecked"))
        executes = (
            self.tr("Execute WRMSR to {register}") if self._name == "efer" else self.tr("Execute MOV to {register}")
        )
        processor = QRadioButton(executes.format(register=self._name.upper()))
        processor.setEnabled(self._name in get_args(ev.WritableRegister))
        debugger.setChecked(True)
        group = QButtonGroup(self)
        for button in (debugger, processor):
            group.addButton(button)
            button.toggled.connect(self._show_verdict)
        return debugger, processor

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        layout.setSpacing(2 * GRID)
        layout.addWidget(self.field)
        if self.flags:
            grid = QGridLayout()
            grid.setHorizontalSpacing(4 * GRID)
            grid.setVerticalSpacing(GRID)
            for number, box in enumerate(self.flags.values()):
                grid.addWidget(box, number // COLUMNS, number % COLUMNS)
            layout.addLayout(grid)
        for widget in (self.by_debugger, self.by_processor, self.verdict, self.buttons):
            layout.addWidget(widget)

    def _on_flag(self, bit: int, on: bool) -> None:
        value = self.field.value
        if value is not None and bool(value & bit) != on:
            self.field.set_value(value ^ bit)

    def _on_value(self) -> None:
        value = self.field.value
        for bit, box in self.flags.items():
            box.setEnabled(value is not None)
            box.setChecked(bool(value is not None and value & bit))
        self._show_verdict()

    def _show_verdict(self) -> None:
        sentence, bad, possible = self._verdict()
        self.verdict.setText(sentence)
        self.verdict.setProperty("role", "hazard" if bad else "muted")
        self.verdict.style().unpolish(self.verdict)
        self.verdict.style().polish(self.verdict)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(possible)

    def _verdict(self) -> tuple[str, bool, bool]:
        """What would come of it, whether that is bad news, and whether it can be done at all."""
        event = self.event
        if event is None:
            return self.field.error, True, False
        after = self._document.after(event)
        if isinstance(after, Refusal):
            return engine_text(after.reason), True, False
        fault = after.effect.fault
        if isinstance(fault, GeneralProtection | Unknown):
            text = self.tr("{fault}: {reason}. Nothing changes.")
            return text.format(fault=outcome_title(fault), reason=_reason(fault)), True, True
        text = self.tr("Paging mode afterwards: {mode}.").format(mode=engine_text(after.registers.mode.value))
        return text, False, True


def _reason(fault: GeneralProtection | Unknown) -> str:
    if isinstance(fault, GeneralProtection):
        return engine_text(fault.reason)
    text = QCoreApplication.translate("RegisterDialog", "the PDPTE at {address}, which it would load")
    return text.format(address=grouped(fault.address))
