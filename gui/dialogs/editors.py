"""Editors of single values: each shows a value, tells when it changes, and offers legal values only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from engine import events as ev
from engine.arch.addresses import grouped, parse_address
from engine.errors import InputError
from engine.memory.library import RESOURCES, SCHEME
from gui.hex_field import HexField
from gui.sizes import exact_size, parse_size
from gui.theme import GRID, mono_font

Choices = Sequence[tuple[str, Any]]
"""What a combo box offers: the text and the value it stands for."""


class Editor(QWidget):
    """``changed`` is emitted when the user, or the program, changes the value."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.row = QHBoxLayout(self)
        self.row.setContentsMargins(0, 0, 0, 0)
        self.row.setSpacing(2 * GRID)
        self.main: QWidget = self

    def hold(self, widget: QWidget) -> None:
        """Put the widget that the user works with into this editor."""
        self.row.addWidget(widget)
        self.setFocusProxy(widget)
        self.main = widget

    @property
    def value(self) -> Any:
        """The value. Raises InputError with a sentence where what is there is none."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        raise NotImplementedError

    def set_name(self, name: str) -> None:
        """The accessible name, which is that of the label."""
        self.main.setAccessibleName(name)


class HexEditor(Editor):
    def __init__(self) -> None:
        super().__init__()
        self.field = HexField()
        self.hold(self.field)
        self.field.textChanged.connect(self.changed)

    @property
    def value(self) -> int:
        return parse_address(self.field.text())

    def set_value(self, value: int) -> None:
        self.field.set_value(value)


class TextEditor(Editor):
    """A line of text that stands for a value: sizes and lists of words. What cannot be read has a mark."""

    def __init__(self) -> None:
        super().__init__()
        self.line = QLineEdit()
        self.line.setFont(mono_font())
        self.hold(self.line)
        self.line.textChanged.connect(self._on_text)

    def _on_text(self) -> None:
        try:
            self.value  # noqa: B018 reading it tells whether it can be read
            error = ""
        except InputError as caught:
            error = str(caught)
        self.line.setProperty("invalid", bool(error))
        self.line.setToolTip(error)
        self.line.style().unpolish(self.line)
        self.line.style().polish(self.line)
        self.changed.emit()


class SizeEditor(TextEditor):
    @property
    def value(self) -> int:
        return parse_size(self.line.text())

    def set_value(self, value: int) -> None:
        self.line.setText(exact_size(value))


class WordsEditor(TextEditor):
    @property
    def value(self) -> tuple[int, ...]:
        words = self.line.text().replace(",", " ").split()
        return tuple(parse_address(word) for word in words)

    def set_value(self, value: tuple[int, ...]) -> None:
        self.line.setText(" ".join(grouped(word) for word in value))


class RangesEditor(TextEditor):
    """Ranges of memory as "0x0 3 GiB, 0x1_0000_0000 1 GiB": where each begins, and its size."""

    def __init__(self) -> None:
        super().__init__()
        self.line.setPlaceholderText("0x0 3 GiB, 0x1_0000_0000 1 GiB")

    @property
    def value(self) -> tuple[ev.RamRange, ...]:
        return tuple(self._range(part.strip()) for part in self.line.text().split(",") if part.strip())

    def _range(self, text: str) -> ev.RamRange:
        start, _, size = text.partition(" ")
        if not size.strip():
            sentence = self.tr("“{text}” needs a start and a size, such as 0x0 3 GiB.")
            raise InputError(sentence.format(text=text[:60]))
        return ev.RamRange(parse_address(start), parse_size(size))

    def set_value(self, value: tuple[ev.RamRange, ...]) -> None:
        self.line.setText(", ".join(f"{grouped(part.start)} {exact_size(part.size)}" for part in value))


class NumberEditor(Editor):
    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.box = QSpinBox()
        self.box.setRange(low, high)
        self.box.setMinimumSize(20 * GRID, 7 * GRID)
        self.hold(self.box)
        self.row.addStretch()
        self.box.valueChanged.connect(self.changed)

    @property
    def value(self) -> int:
        return self.box.value()

    def set_value(self, value: int) -> None:
        self.box.setValue(min(value, self.box.maximum()))


class BoolEditor(Editor):
    """A check box that carries its own label."""

    def __init__(self, label: str = "") -> None:
        super().__init__()
        self.box = QCheckBox(label)
        self.hold(self.box)
        self.box.toggled.connect(self.changed)

    @property
    def value(self) -> bool:
        return self.box.isChecked()

    def set_value(self, value: bool) -> None:
        self.box.setChecked(value)


class ChoiceEditor(Editor):
    """``none``: what it says where there is nothing to choose; it then gives ``fallback``."""

    def __init__(self, choices: Choices, none: str = "", fallback: Any = None) -> None:
        super().__init__()
        self._choices: list[tuple[str, Any]] = []
        self._none, self._fallback = none, fallback
        self.box = QComboBox()
        self.box.setMinimumContentsLength(12)
        self.box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.hold(self.box)
        self.set_choices(choices)
        self.box.currentIndexChanged.connect(self.changed)

    def set_choices(self, choices: Choices) -> None:
        """Offer other choices; what was chosen stays so where it still can."""
        kept = self.value
        self.box.blockSignals(True)
        self._choices = list(choices)
        self.box.clear()
        self.box.addItems([text for text, _ in self._choices] or [self._none])
        self.box.setEnabled(bool(self._choices))
        self.box.blockSignals(False)
        if any(value == kept for _, value in self._choices):
            self.set_value(kept)

    @property
    def value(self) -> Any:
        at = self.box.currentIndex()
        return self._choices[at][1] if 0 <= at < len(self._choices) else self._fallback

    def set_value(self, value: Any) -> None:
        """A value that is not among the choices is added to them, and said not to be there."""
        if value is not None and value != self.value and all(choice != value for _, choice in self._choices):
            self.set_choices([*self._choices, (self.tr("{value}, not there").format(value=value), value)])
        for number, (_, choice) in enumerate(self._choices):
            if choice == value:
                self.box.setCurrentIndex(number)


class FlagsEditor(Editor):
    """Some members of an enumeration, in its order: a check box each."""

    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self._boxes = {value: QCheckBox(text) for text, value in choices}
        column = QVBoxLayout()
        column.setSpacing(GRID)
        for box in self._boxes.values():
            column.addWidget(box)
            box.toggled.connect(self.changed)
        self.row.addLayout(column)

    @property
    def value(self) -> tuple[Any, ...]:
        return tuple(value for value, box in self._boxes.items() if box.isChecked())

    def set_value(self, value: tuple[Any, ...]) -> None:
        for member, box in self._boxes.items():
            box.setChecked(member in value)


class ImageEditor(Editor):
    """A file that the user picks, or one of the images that come with the program."""

    def __init__(self) -> None:
        super().__init__()
        self._reference: ev.ImageRef | None = None
        self.box = QComboBox()
        self.box.setEditable(True)
        self.box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.box.addItems(sorted(SCHEME + path.name for path in RESOURCES.glob("*") if path.is_file()))
        self.box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.hold(self.box)
        self.row.setStretchFactor(self.box, 1)
        browse = QPushButton(self.tr("Choose…"))
        browse.clicked.connect(self._browse)
        self.row.addWidget(browse)
        self.box.editTextChanged.connect(self.changed)

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Choose a memory image"), self.box.currentText())
        if path:
            self.box.setEditText(path)

    @property
    def value(self) -> ev.ImageRef:
        path = self.box.currentText().strip()
        if not path:
            raise InputError(self.tr("Choose a memory image."))
        if self._reference is not None and self._reference.path == path:
            return self._reference
        file = Path(path)
        return ev.ImageRef(path, file.stat().st_size if file.is_file() else None)

    def set_value(self, value: ev.ImageRef) -> None:
        self._reference = value
        self.box.setEditText(value.path)


class Column(Editor):
    """An editor of several rows, one below the other."""

    def __init__(self) -> None:
        super().__init__()
        self.column = QVBoxLayout()
        self.column.setSpacing(2 * GRID)
        self.row.addLayout(self.column)

    def set_name(self, name: str) -> None:
        self.setAccessibleName(name)


class FieldsEditor(Column):
    """An editor of a value that has fields: it has an editor for each, by the field's name."""

    def __init__(self) -> None:
        super().__init__()
        self.editors: dict[str, Editor] = {}

    def show_field(self, name: str, on: bool) -> None:
        """Show the row of field ``name``, or hide it."""
        raise NotImplementedError


class OptionalEditor(Column):
    """A value that may be there or not: a check box, and below it the editor of the value."""

    def __init__(self, label: str, editor: Editor) -> None:
        super().__init__()
        self.box = QCheckBox(label)
        self.editor = editor
        self.column.addWidget(self.box)
        self.column.addWidget(editor)
        editor.setContentsMargins(5 * GRID, 0, 0, 0)
        editor.setVisible(False)
        self.setFocusProxy(self.box)
        self.box.toggled.connect(editor.setVisible)
        self.box.toggled.connect(self.changed)
        editor.changed.connect(self.changed)

    @property
    def value(self) -> Any:
        return self.editor.value if self.box.isChecked() else None

    def set_value(self, value: Any) -> None:
        if value is not None:
            self.editor.set_value(value)
        self.box.setChecked(value is not None)
