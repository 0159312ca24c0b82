"""An editor of several values of one type, as the pCPUs of a host: how many, and all alike or each its own."""

from collections.abc import Callable
from typing import Any

from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QSpinBox, QTabWidget

from gui.dialogs.editors import Column, Editor
from gui.theme import GRID


class SetupsEditor(Column):
    """``make``: an editor of one value. ``most``: how many values there may be."""

    def __init__(self, make: Callable[[], Editor], most: int) -> None:
        super().__init__()
        self._make = make
        self.count = QSpinBox()
        self.count.setRange(1, most)
        self.count.setAccessibleName(self.tr("How many"))
        self.alike = QCheckBox(self.tr("All alike"))
        self.alike.setChecked(True)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        head = QHBoxLayout()
        head.setSpacing(3 * GRID)
        head.addWidget(self.count)
        head.addWidget(self.alike)
        head.addStretch()
        self.column.addLayout(head)
        self.column.addWidget(self.tabs)
        self.setFocusProxy(self.count)
        self._fill()
        self.count.valueChanged.connect(self._on_count)
        self.alike.toggled.connect(self._on_count)

    def _fill(self) -> None:
        """As many editors as are needed, new ones with the values of the last."""
        wanted = 1 if self.alike.isChecked() else self.count.value()
        while self.tabs.count() > wanted:
            last = self._editor(self.tabs.count() - 1)
            self.tabs.removeTab(self.tabs.count() - 1)
            last.deleteLater()
        while self.tabs.count() < wanted:
            editor = self._make()
            if self.tabs.count():
                editor.set_value(self._editor(self.tabs.count() - 1).value)
            editor.changed.connect(self.changed)
            self.tabs.addTab(editor, self.tr("pCPU {number}").format(number=self.tabs.count()))
        self.tabs.tabBar().setVisible(wanted > 1)

    def _on_count(self) -> None:
        self._fill()
        self.changed.emit()

    def _editor(self, number: int) -> Editor:
        editor = self.tabs.widget(number)
        assert isinstance(editor, Editor)
        return editor

    @property
    def value(self) -> tuple[Any, ...]:
        made = [self._editor(number).value for number in range(self.tabs.count())]
        return tuple(made) if len(made) == self.count.value() else tuple(made[:1] * self.count.value())

    def set_value(self, value: tuple[Any, ...]) -> None:
        self.count.setValue(len(value))
        self.alike.setChecked(len(set(value)) <= 1)
        self._fill()
        for number in range(self.tabs.count()):
            self._editor(number).set_value(value[number])
