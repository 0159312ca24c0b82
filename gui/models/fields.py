"""The fields of an entry as a table: name, value, meaning."""

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from engine.arch.addresses import grouped
from engine.arch.formats import Decoded, Role
from gui.explain import engine_text, translate
from gui.paint.bits import role_color
from gui.theme import mono_font, signals, theme

Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()
NAME, VALUE, MEANING = range(3)
LONG = 5
"""Characters that the column of values has room for."""
QUIET = (Role.IGNORED, Role.RESERVED)


class FieldsModel(QAbstractTableModel):
    """One row a field, from bit 0 up. Reserved fields with bits set stand out, with the rule they break."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._fields: list[Decoded] = []
        self._level = 0
        signals().changed.connect(self.layoutChanged)

    @property
    def fields(self) -> list[Decoded]:
        return self._fields

    def show(self, fields: list[Decoded], level: int) -> None:
        """Show the fields of an entry of ``level``; where they are the same ones with other values, the rows stay."""
        self._level = level
        same = [(f.hi, f.lo) for f in fields] == [(f.hi, f.lo) for f in self._fields]
        if same:
            self._fields = fields
            if fields:
                self.dataChanged.emit(self.index(0, 0), self.index(len(fields) - 1, MEANING))
            return
        self.beginResetModel()
        self._fields = fields
        self.endResetModel()

    def row_of(self, bit: int) -> int | None:
        """The row of the field that has ``bit``."""
        return next((row for row, field in enumerate(self._fields) if field.lo <= bit <= field.hi), None)

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else len(self._fields)

    def columnCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else 3

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and orientation is Qt.Orientation.Horizontal:
            return (self.tr("field"), self.tr("value"), self.tr("meaning"))[section]
        return None

    def data(self, index: Index, role: int = 0) -> Any:
        if not index.isValid() or index.row() >= len(self._fields):
            return None
        field, column = self._fields[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return (field_name(field), _value_cell(field), field_meaning(field))[column]
            case Qt.ItemDataRole.FontRole:
                return mono_font(bold=field.role not in QUIET) if column == VALUE else None
            case Qt.ItemDataRole.DecorationRole if column == NAME:
                return role_color(field.role, self._level)
            case Qt.ItemDataRole.ForegroundRole:
                return _color(field, column)
            case Qt.ItemDataRole.ToolTipRole | Qt.ItemDataRole.AccessibleDescriptionRole:
                return f"{field_bits(field)} {field_name(field)} = {field_value(field)}: {field_meaning(field)}"
        return None


def field_name(field: Decoded) -> str:
    """A field's name as the manuals have it; the nameless ones by their bits."""
    if field.role in QUIET:
        return translate("Inspector", "{kind} {bits}").format(kind=engine_text(field.name), bits=_range(field))
    return engine_text(field.name)


def _range(field: Decoded) -> str:
    return str(field.lo) if field.hi == field.lo else f"{field.hi}:{field.lo}"


def field_bits(field: Decoded) -> str:
    if field.hi == field.lo:
        return translate("Inspector", "bit {bit}").format(bit=field.lo)
    return translate("Inspector", "bits {hi}:{lo}").format(hi=field.hi, lo=field.lo)


def field_value(field: Decoded) -> str:
    """The value of a field; of an address its bits where they stand, which is the address."""
    if field.role is Role.ADDRESS and field.name == "address":
        return grouped(field.value << field.lo)
    return str(field.value) if field.hi == field.lo or field.role is Role.KEY else f"{field.value:#x}"


def is_long(field: Decoded) -> bool:
    """Whether the value needs more room than the column of values has."""
    return len(field_value(field)) > LONG


def _value_cell(field: Decoded) -> str:
    if not is_long(field) or not field_meaning(field):
        return field_value(field)
    text = translate("Inspector", "{value} ({meaning})")
    return text.format(value=field_value(field), meaning=field_meaning(field))


def field_meaning(field: Decoded) -> str:
    return engine_text(field.why or field.meaning)


def _color(field: Decoded, column: int) -> Any:
    if field.why:
        return theme().hazard_text
    if column == NAME or field.role in QUIET:
        return theme().muted
    return theme().text
