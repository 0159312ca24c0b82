"""An editor of a processor's registers: a preset, its tables and its privilege; all registers where that is wanted."""

from PySide6.QtWidgets import QCheckBox

from engine.arch.registers import Registers
from engine.errors import InputError
from gui.dialogs.editors import ChoiceEditor, Column, FieldsEditor
from gui.dialogs.forms import form, label
from gui.presets import presets

MAIN = ("cr3", "cpl")
"""What a preset leaves open."""


class RegistersEditor(Column):
    """``inner`` edits all fields; those that a preset sets are shown where the user asks for them."""

    def __init__(self, inner: FieldsEditor) -> None:
        super().__init__()
        self.inner = inner
        self._presets = presets()
        custom = (self.tr("Something else"), None)
        self.preset = ChoiceEditor([*((p.name, p) for p in self._presets), custom])
        self.preset.set_name(self.tr("Mode"))
        self.all = QCheckBox(self.tr("Show all registers"))
        head = form()
        head.addRow(label(self.tr("Mode"), self.preset), self.preset)
        self.column.addLayout(head)
        self.column.addWidget(inner)
        self.column.addWidget(self.all)
        self.setFocusProxy(self.preset)
        self.all.toggled.connect(self._show_fields)
        self.preset.changed.connect(self._take_preset)
        inner.changed.connect(self._on_change)
        self.set_value(self._presets[0].registers)
        self._show_fields()

    def _show_fields(self) -> None:
        for name in self.inner.editors:
            self.inner.show_field(name, self.all.isChecked() or name in MAIN)

    def _take_preset(self) -> None:
        chosen = self.preset.value
        if chosen is None:
            self.all.setChecked(True)
            return
        try:
            now = self.inner.value
        except InputError:
            return
        if not chosen.fits(now):
            self.set_value(chosen.at(now.cr3, now.cpl))

    def _on_change(self) -> None:
        self._show_preset()
        self.changed.emit()

    def _show_preset(self) -> None:
        """Name the preset that the registers are, without taking it."""
        try:
            now = self.inner.value
        except InputError:
            return
        self.preset.box.blockSignals(True)
        fitting = next((p for p in self._presets if p.fits(now)), None)
        self.preset.box.setCurrentIndex(self._presets.index(fitting) if fitting else len(self._presets))
        self.preset.box.blockSignals(False)

    @property
    def value(self) -> Registers:
        registers: Registers = self.inner.value
        return registers

    def set_value(self, value: Registers) -> None:
        self.inner.blockSignals(True)
        self.inner.set_value(value)
        self.inner.blockSignals(False)
        self._show_preset()
        self.changed.emit()
