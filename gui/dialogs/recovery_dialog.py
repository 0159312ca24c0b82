"""What a crash left behind: what it was, since when, and what was done; to be recovered, copied, discarded or kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QDateTime, QLocale
from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from gui.dialogs.prompts import Prompts
from gui.theme import GRID
from storage.recovery import Situation

if TYPE_CHECKING:
    from storage.recovery import Lost


class RecoveryDialog(QDialog):
    """Accepted with ``chosen`` to be recovered. ``left``: those that were not discarded or copied."""

    def __init__(
        self, lost: list[Lost], keep_copy: Callable[[Lost], bool], prompts: Prompts, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.left = list(lost)
        self.chosen: Lost | None = None
        self._keep_copy = keep_copy
        self._prompts = prompts
        self.setWindowTitle(self.tr("Not saved when Walkscope ended"))
        self.list = QListWidget()
        self.list.setAccessibleName(self.windowTitle())
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setAccessibleName(self.tr("What was not saved"))
        self.recover = self._button(self.tr("&Recover"), self._recover)
        self.copy = self._button(self.tr("&Save a copy…"), self._copy)
        self.discard = self._button(self.tr("&Discard…"), self._discard)
        self.later = self._button(self.tr("&Later"), self.reject)
        row = QHBoxLayout()
        for button in (self.discard, self.copy, self.later, self.recover):
            row.addWidget(button)
        self.recover.setDefault(True)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(self.tr("Walkscope ended before this was saved. Nothing of it is lost.")))
        layout.addWidget(self.list)
        layout.addWidget(self.details, 1)
        layout.addLayout(row)
        self.resize(160 * GRID, 110 * GRID)
        self.list.addItems([self._title(one) for one in lost])
        self.list.currentRowChanged.connect(self._show)
        self.list.setCurrentRow(len(lost) - 1)

    def _button(self, text: str, run: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.clicked.connect(lambda: run())
        return button

    @property
    def current(self) -> Lost:
        return self.left[self.list.currentRow()]

    def _title(self, lost: Lost) -> str:
        name = Path(lost.path).name or self.tr("Untitled")
        if not lost.entries:
            return name
        when = QLocale().toString(_time(lost, -1), QLocale.FormatType.ShortFormat)
        text = self.tr("{name}, changes: {count}, the last on {when}")
        return text.format(name=name, count=len(lost.entries), when=when)

    def _show(self, row: int) -> None:
        if row < 0:
            return
        lost = self.left[row]
        situations = {
            Situation.UNTITLED: self.tr("It was never saved in a file."),
            Situation.AS_IT_WAS: self.tr("Its file is as it was before these changes."),
            Situation.CHANGED: self.tr("Its file was changed since; what is recovered is saved under another name."),
            Situation.ABSENT: self.tr("Its file is not there, or cannot be read."),
        }
        lines = [lost.path, situations[lost.situation], lost.problem, ""]
        for number, entry in enumerate(lost.entries):
            when = QLocale().toString(_time(lost, number), QLocale.FormatType.ShortFormat)
            lines.append(self.tr("{when}  {what}").format(when=when, what=entry.text))
        self.details.setPlainText("\n".join(line for line in lines if line or line == lines[3]).strip())
        self.recover.setEnabled(lost.content is not None)
        self.copy.setEnabled(lost.content is not None)

    def _recover(self) -> None:
        self.chosen = self.current
        self.accept()

    def _copy(self) -> None:
        if self._keep_copy(self.current):
            self._drop()

    def _discard(self) -> None:
        text = self.tr("What was not saved is gone for good after this.")
        if self._prompts.choose(self, text, {"discard": self.tr("Discard it")}):
            self._drop()

    def _drop(self) -> None:
        row = self.list.currentRow()
        self.left.pop(row).discard()
        self.list.takeItem(row)
        if not self.left:
            self.reject()
        else:
            self._show(self.list.currentRow())


def _time(lost: Lost, number: int) -> QDateTime:
    return QDateTime.fromSecsSinceEpoch(int(lost.entries[number].at.timestamp()))
