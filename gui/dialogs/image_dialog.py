"""Asks for the registers of an image that has none: raw memory, or a core without notes of its processors."""

import msgspec
from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from engine.arch.possible import impossible
from engine.arch.registers import Features, Mode, Registers
from gui.explain import engine_text
from gui.hex_field import HexField
from gui.models.registers import set_flags
from gui.presets import presets
from gui.theme import GRID, MARGIN, ui_font

FIELDS = ("cr0", "cr3", "cr4", "efer")
FIRST = "4-level"
"""The preset that the dialog begins with."""


class ImageDialog(QDialog):
    """``registers``: what was given; None while no processor can have it. The paging mode is told as the user types."""

    def __init__(self, name: str, features: Features, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._features = features
        self._base = Registers()
        self.setWindowTitle(self.tr("Registers of {image}").format(image=name))
        told = QLabel(
            self.tr(
                "This image holds memory but no registers. Give those of the processor whose tables you want to see."
            )
        )
        told.setWordWrap(True)
        self.presets = QComboBox()
        for preset in presets():
            self.presets.addItem(preset.name, preset.key)
        self.presets.setAccessibleName(self.tr("Start from"))
        self.fields = {name: self._make_field(name) for name in FIELDS}
        self.user = QCheckBox(self.tr("User mode (CPL 3)"))
        self.user.setChecked(True)
        self.mode = QLabel()
        self.mode.setFont(ui_font(bold=True))
        self.mode.setAccessibleName(self.tr("Paging mode"))
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.verdict.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.verdict.setMinimumHeight(12 * GRID)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self._lay_out(told)
        self.presets.currentIndexChanged.connect(self._take_preset)
        self.user.toggled.connect(self._show_verdict)
        self.presets.setCurrentIndex(self.presets.findData(FIRST))
        self._show_verdict()
        self.fields["cr3"].setFocus()
        self.fields["cr3"].selectAll()

    @property
    def registers(self) -> Registers | None:
        values = {name: field.value for name, field in self.fields.items()}
        if None in values.values():
            return None
        cpl = 3 if self.user.isChecked() else 0
        made = msgspec.structs.replace(self._base, cpl=cpl, **values)
        if not made.mode.is_long:
            made = msgspec.structs.replace(made, cs_l=False)
        return None if impossible(made, self._features) else made

    def _make_field(self, name: str) -> HexField:
        field = HexField()
        field.setAccessibleName(name.upper())
        field.textChanged.connect(self._show_verdict)
        return field

    def _lay_out(self, told: QLabel) -> None:
        form = QFormLayout()
        form.setHorizontalSpacing(4 * GRID)
        form.setVerticalSpacing(2 * GRID)
        form.addRow(self.tr("Start from"), self.presets)
        for name, field in self.fields.items():
            form.addRow(name.upper(), field)
        form.addRow("", self.user)
        form.addRow(self.tr("Paging mode"), self.mode)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        layout.setSpacing(3 * GRID)
        layout.addWidget(told)
        layout.addLayout(form)
        layout.addWidget(self.verdict)
        layout.addWidget(self.buttons)
        self.setMinimumWidth(120 * GRID)

    def _take_preset(self, row: int) -> None:
        chosen = presets()[row].registers
        self._base = chosen
        for name, field in self.fields.items():
            if name != "cr3" or not field.text():
                field.set_value(getattr(chosen, name))

    def _show_verdict(self) -> None:
        sentence, mode = self._verdict()
        self.mode.setText(engine_text(mode.value) if mode else self.tr("none that exists"))
        self.verdict.setText(sentence)
        self.verdict.setProperty("role", "muted" if mode else "hazard")
        self.verdict.style().unpolish(self.verdict)
        self.verdict.style().polish(self.verdict)
        self.buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(mode is not None)

    def _verdict(self) -> tuple[str, Mode | None]:
        """A sentence on the registers, and the mode that they select; None where they cannot be."""
        for name, field in self.fields.items():
            if field.error:
                return self.tr("{register}: {error}").format(register=name.upper(), error=field.error), None
        given = self.registers
        if given is not None:
            return self._flags(), given.mode
        values = {name: field.value or 0 for name, field in self.fields.items()}
        made = msgspec.structs.replace(self._base, **values)
        reason = impossible(made, self._features) or ""
        return engine_text(reason), None

    def _flags(self) -> str:
        """The flags that matter here, as set: what the numbers mean."""
        named = [set_flags(name, field.value or 0) for name, field in self.fields.items()]
        return " · ".join(" ".join(flags) for flags in named if flags)
