"""The commands of `actions` as Qt actions of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QAbstractButton, QAbstractItemView, QComboBox, QTabBar, QTextBrowser, QWidget

from gui.actions import Command, commands, translate
from gui.icons import icon
from gui.theme import signals

if TYPE_CHECKING:
    from gui.main_window import MainWindow

KEPT: dict[str, tuple[type[QWidget], ...]] = {
    "Space": (QAbstractButton, QComboBox),
    "Left": (QComboBox, QTabBar),
    "Right": (QComboBox, QTabBar),
    "Home": (QComboBox, QAbstractItemView, QTextBrowser),
    "End": (QComboBox, QAbstractItemView, QTextBrowser),
}
"""Keys that a widget in focus keeps for itself although they are shortcuts of the window."""


class Actions(QObject):
    """The commands as Qt actions of ``window``, disabled before the first `refresh` brings them up to its state."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._commands = commands()
        self._actions = {command.id: self._make(command) for command in self._commands}
        signals().changed.connect(self._on_theme)
        self._dress()

    def __getitem__(self, id: str) -> QAction:
        return self._actions[id]

    def _make(self, command: Command) -> QAction:
        action = QAction(command.text, self._window)
        action.setObjectName(command.id)
        action.setShortcuts([QKeySequence(keys) for keys in command.shortcuts])
        action.setIconVisibleInMenu(False)
        action.setCheckable(command.checked is not None)
        action.setEnabled(False)
        if command.shortcuts:
            text = translate("Actions", "{command} ({keys})")
            keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
            action.setToolTip(text.format(command=action.toolTip(), keys=keys))
        if command.timeline:
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        else:
            self._window.addAction(action)
        action.triggered.connect(lambda: command.run(self._window))
        return action

    def _dress(self) -> None:
        for command in self._commands:
            if command.icon:
                self._actions[command.id].setIcon(icon(command.icon))

    def _on_theme(self) -> None:
        """Another theme was chosen, here or in another window."""
        self._dress()
        if self._window.is_filled:
            self._show_choices()

    def refresh(self) -> None:
        """Which commands make sense now, and which choices are made."""
        for command in self._commands:
            self._actions[command.id].setEnabled(command.enabled(self._window))
        self._show_choices()

    def _show_choices(self) -> None:
        for command in self._commands:
            if command.checked is not None:
                self._actions[command.id].setChecked(command.checked(self._window))

    def keep_keys(self, focus: QWidget | None) -> None:
        """Leave the plain keys that the widget in focus wants to it."""
        for command in self._commands:
            for keys in command.shortcuts:
                if keys in KEPT:
                    kept = focus is not None and isinstance(focus, KEPT[keys])
                    context = Qt.ShortcutContext.WidgetShortcut if kept else Qt.ShortcutContext.WindowShortcut
                    self._actions[command.id].setShortcutContext(context)
