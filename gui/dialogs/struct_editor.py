"""An editor for any of the engine's values, made from the fields of its type (`msgspec.inspect`)."""

from typing import Any, get_args, get_type_hints

import msgspec
import msgspec.inspect as mi
from PySide6.QtWidgets import QGridLayout

from engine import events as ev
from engine.arch.registers import Registers
from engine.codec import HEX_FIELDS
from engine.errors import InputError
from engine.machine import State
from engine.machine.host import MAX_PCPUS
from gui.dialogs.choices import PER_VM, PICKERS, existing, members, nothing, yes_no_default
from gui.dialogs.editors import (
    BoolEditor,
    ChoiceEditor,
    Column,
    Editor,
    FieldsEditor,
    FlagsEditor,
    HexEditor,
    ImageEditor,
    NumberEditor,
    OptionalEditor,
    RangesEditor,
    SizeEditor,
    WordsEditor,
)
from gui.dialogs.event_texts import Field, field
from gui.dialogs.forms import form, heading, label
from gui.dialogs.registers_editor import RegistersEditor
from gui.dialogs.setups_editor import SetupsEditor
from gui.theme import GRID

FLAG_COLUMNS = 2
"""Check boxes side by side."""


class StructEditor(FieldsEditor):
    """A row a field. Check boxes stand together below the rest; structs within it follow under a heading."""

    def __init__(self, struct: type, state: State) -> None:
        super().__init__()
        self._struct, self._state = struct, state
        self._hidden: dict[str, Any] = {}
        self._offered_for: int | None = None
        self.form, self.flags, self.groups = form(), QGridLayout(), form()
        self.flags.setHorizontalSpacing(4 * GRID)
        self.flags.setVerticalSpacing(GRID)
        shape = mi.type_info(struct)
        assert isinstance(shape, mi.StructType)
        self._texts = {f.name: field(struct, f.name) for f in shape.fields}
        self._types = {f.name: f.type for f in shape.fields}
        defaults = {f.name: _default(f) for f in shape.fields}
        # Which machine it is about comes first, whatever the order of the fields is.
        for name, text in sorted(self._texts.items(), key=lambda item: item[1].editor not in PICKERS):
            if text.editor != "hidden":
                self._add(name, text)
                if defaults[name] is not msgspec.UNSET:
                    self.editors[name].set_value(defaults[name])
        below = (self.flags, self.groups) if self.form.rowCount() else (self.groups, self.flags)
        for layout in (self.form, *below):
            self.column.addLayout(layout)
        self._relate()
        for editor in self.editors.values():
            editor.changed.connect(self._on_change)

    def _add(self, name: str, text: Field) -> None:
        editor = make_editor(self._struct, name, self._types[name], text, self._state)
        self.editors[name] = editor
        editor.set_name(text.label)
        editor.setToolTip(text.help)
        if isinstance(editor, BoolEditor):
            number = self.flags.count()
            self.flags.addWidget(editor, number // FLAG_COLUMNS, number % FLAG_COLUMNS)
        elif isinstance(editor, OptionalEditor):
            self.groups.addRow(editor)
        elif isinstance(editor, Column):
            if text.label:
                self.groups.addRow(heading(text.label))
            self.groups.addRow(editor)
        else:
            self.form.addRow(label(text.label, editor, text.help), editor)

    # --- fields that depend on others

    def _on_change(self) -> None:
        self._relate()
        self.changed.emit()

    def _relate(self) -> None:
        """Show what counts with the values there are now, and offer the vCPUs and slots of the VM that is chosen."""
        for name, editor in self.editors.items():
            text = self._texts[name]
            if text.needs is not None:
                self._show_row(editor, self._counts(text))
        vm = self.editors["vm"].value if "vm" in self.editors else None
        if vm is not None and vm != self._offered_for:
            self._offered_for = vm
            for name, editor in self.editors.items():
                picker = self._texts[name].editor
                if picker in PER_VM and isinstance(editor, ChoiceEditor):
                    editor.set_choices(existing(picker, self._state, vm))

    def _counts(self, text: Field) -> bool:
        assert text.needs is not None
        path, values = text.needs
        editor: Editor = self
        for name in path.split("."):
            assert isinstance(editor, StructEditor)
            editor = editor.editors[name]
        return editor.value in values

    def _show_row(self, editor: Editor, on: bool) -> None:
        if editor.isVisibleTo(self) == on:
            return
        if isinstance(editor, BoolEditor):
            editor.setVisible(on)
        elif self.form.indexOf(editor) >= 0:
            self.form.setRowVisible(editor, on)
        else:
            self.groups.setRowVisible(editor, on)
        if on and isinstance(editor, OptionalEditor):
            editor.box.setChecked(True)

    def show_field(self, name: str, on: bool) -> None:
        self._show_row(self.editors[name], on)

    # --- the value

    @property
    def value(self) -> Any:
        values = dict(self._hidden)
        for name, editor in self.editors.items():
            text = self._texts[name]
            if text.needs is None or self._counts(text):
                values[name] = editor.value
        try:
            return self._struct(**values)
        except ValueError as error:
            sentence = str(error)
            raise InputError(f"{sentence[:1].upper()}{sentence[1:]}.") from None

    def set_value(self, value: Any) -> None:
        # The VM first: what else there is to choose depends on it.
        for name in sorted(self._texts, key=lambda name: name != "vm"):
            if name in self.editors:
                self.editors[name].set_value(getattr(value, name))
            else:
                self._hidden[name] = getattr(value, name)
        self._relate()


def _default(field_: mi.Field) -> Any:
    """The value that the field has where none is given; UNSET where there is none."""
    if field_.default_factory is not msgspec.NODEFAULT:
        return field_.default_factory()
    return msgspec.UNSET if field_.required else field_.default


def make_editor(struct: type, name: str, kind: mi.Type, text: Field, state: State) -> Editor:
    """The editor that field ``name`` of ``struct`` wants: as its `Field` says, else as its type does."""
    if text.editor == "size":
        return SizeEditor()
    if text.editor in PICKERS:
        return ChoiceEditor(existing(text.editor, state), nothing(text.editor), 0)
    match kind:
        case mi.BoolType():
            return BoolEditor(text.label)
        case mi.EnumType():
            return ChoiceEditor(members(list(kind.cls)))
        case mi.LiteralType():
            return ChoiceEditor(members(get_args(get_type_hints(struct)[name])))
        case mi.StructType():
            return struct_editor(kind.cls, state)
        case mi.UnionType():
            return _optional(kind, text, state)
        case mi.VarTupleType(item_type=mi.StructType(cls=ev.RamRange)):
            return RangesEditor()
        case mi.VarTupleType(item_type=mi.EnumType() as item):
            return FlagsEditor(members(list(item.cls)))
        case mi.VarTupleType(item_type=mi.StructType() as item):
            return SetupsEditor(lambda: struct_editor(item.cls, state), MAX_PCPUS)
        case mi.VarTupleType():
            return WordsEditor()
    if name in HEX_FIELDS:
        return HexEditor()
    return NumberEditor(text.low, text.high)


def struct_editor(struct: type, state: State) -> Editor:
    if struct is ev.ImageRef:
        return ImageEditor()
    editor = StructEditor(struct, state)
    return RegistersEditor(editor) if struct is Registers else editor


def _optional(kind: mi.UnionType, text: Field, state: State) -> Editor:
    inner = next(item for item in kind.types if not isinstance(item, mi.NoneType))
    if isinstance(inner, mi.StructType):
        return OptionalEditor(text.label, struct_editor(inner.cls, state))
    return ChoiceEditor(yes_no_default())
