"""The form that adds or edits an event: an editor made from its type, and below it what would come of it."""

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, QEvent, Qt, QTimer
from PySide6.QtGui import QPalette, QShowEvent
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFrame,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from engine import events as ev
from engine.errors import InputError
from engine.machine import Refusal, State
from gui.describe import Line, describe
from gui.dialogs.event_texts import told
from gui.dialogs.prompts import Prompts
from gui.dialogs.struct_editor import struct_editor
from gui.dialogs.suggestions import suggested
from gui.document import Document
from gui.jobs import Report, WindowJobs
from gui.outcomes import Mark
from gui.theme import GRID, MARGIN, ui_font

PAUSE = 150
"""Milliseconds without a change after which it is worked out what the event would do."""
JOB = "event form"
WIDTH, HIGHEST = 120 * GRID, 170 * GRID
AROUND = 60 * GRID
"""Height of everything but the fields."""


def ask_event(
    document: Document,
    event_type: type,
    initial: ev.Event | None = None,
    parent: QWidget | None = None,
    at: int | None = None,
    run: Callable[[QDialog], bool] | None = None,
) -> ev.Event | None:
    """The event that the user made, None where he changed his mind.

    ``initial``: what the form begins with (default: what makes sense now). ``at``: the number, from 0, that the event
    has or will have in the scenario (default: the one after the current step). ``run``: shows a dialog and waits
    (default: `Prompts.run`).
    """
    form = EventForm(document, event_type, initial, parent, at)
    event = form.event_made if (run or Prompts().run)(form) else None
    form.deleteLater()
    return event


class EventForm(QDialog):
    """Can be accepted only while the event can happen; accepting it does not make it happen."""

    def __init__(
        self,
        document: Document,
        event_type: type,
        initial: ev.Event | None = None,
        parent: QWidget | None = None,
        at: int | None = None,
    ) -> None:
        super().__init__(parent)
        self._document = document
        self._jobs = WindowJobs.of(document)
        self._at = document.step if at is None else at
        self._possible = False
        self.event_made: ev.Event | None = None
        before = document.replay.state(self._at)
        self.editor = struct_editor(event_type, before)
        self.editor.set_value(initial or suggested(event_type, before))
        self.verdict, self.notes = QLabel(), QLabel()
        self._lay_out(event_type, adding=initial is None)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE)
        self._timer.timeout.connect(self._work_out)
        self.editor.changed.connect(self._timer.start)
        self.finished.connect(lambda: self._jobs.cancel(JOB))
        self._work_out()

    def _lay_out(self, event_type: type, adding: bool) -> None:
        words = told()[event_type]
        self.setWindowTitle(words.name)
        title, help_ = QLabel(words.name), QLabel(words.help)
        title.setFont(ui_font(1.2, bold=True))
        help_.setProperty("role", "muted")
        help_.setWordWrap(True)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 3 * GRID, 0)
        column.addWidget(self.editor)
        column.addStretch()
        area.setWidget(inside)
        self.notes.setProperty("role", "muted")
        for label in (self.verdict, self.notes):
            label.setWordWrap(True)
            label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.notes.setMinimumHeight(8 * GRID)
        self.verdict.setAccessibleName(self.tr("What would happen"))
        rule = QWidget()
        rule.setFixedHeight(1)
        rule.setAutoFillBackground(True)
        rule.setBackgroundRole(QPalette.ColorRole.Mid)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self._ok = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        self._ok.setText(self.tr("Add event") if adding else self.tr("Change event"))
        self._ok.setEnabled(False)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        layout.setSpacing(2 * GRID)
        for widget in (title, help_, area, rule, self.verdict, self.notes, self.buttons):
            layout.addWidget(widget)
        layout.setStretchFactor(area, 1)
        self._inside = inside
        self.editor.setFocus()

    def showEvent(self, event: QShowEvent) -> None:
        """As large as what is in it; where that is too much, it scrolls."""
        super().showEvent(event)
        QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)
        wanted = self._inside.sizeHint()
        self.resize(max(WIDTH, wanted.width() + 2 * MARGIN), min(wanted.height() + AROUND, HIGHEST))

    # --- what would come of it

    def _event(self) -> ev.Event:
        """Raises InputError with a sentence while there is none."""
        event: ev.Event = self.editor.value
        return event

    def _work_out(self) -> None:
        """Let a worker find out what the event would do; its answer is dropped when something changes meanwhile."""
        self._timer.stop()
        try:
            event = self._event()
        except InputError as error:
            self._jobs.cancel(JOB)
            self._show(str(error), bad=True, possible=False)
            return

        def work(report: Report) -> State | Refusal:
            return self._document.after(event, self._at)

        def done(after: State | Refusal) -> None:
            self._show_outcome(event, after)

        text = self.tr("Working out what the event would do")
        self._jobs.start(text, work, done, key=JOB, failed=lambda why: self._show(why, bad=True, possible=False))

    def _show_outcome(self, event: ev.Event, after: State | Refusal) -> None:
        if isinstance(after, Refusal):
            line = describe(event, self._document.replay.state(self._at), after)
            self._show(line.subtitle, bad=True, possible=False)
            return
        line = describe(event, after)
        notes = [note for note in line.tip.splitlines() if note != line.subtitle]
        self._show(_sentence(line), line.mark in (Mark.REFUSED, Mark.FAULT, Mark.HAZARD), True, "\n".join(notes))

    def _show(self, sentence: str, bad: bool, possible: bool, notes: str = "") -> None:
        self._possible = possible
        self.notes.setText(notes)
        self.verdict.setText(sentence)
        self.verdict.setAccessibleDescription(f"{sentence}\n{notes}")
        self.verdict.setProperty("role", "hazard" if bad else "")
        self.verdict.style().unpolish(self.verdict)
        self.verdict.style().polish(self.verdict)
        self._ok.setEnabled(possible)

    def accept(self) -> None:
        """What was typed a moment ago may not have been looked at yet: look now."""
        try:
            event = self._event()
        except InputError as error:
            self._show(str(error), bad=True, possible=False)
            return
        self._show_outcome(event, self._document.after(event, self._at))
        if self._possible:
            self.event_made = event
            super().accept()


def _sentence(line: Line) -> str:
    """What the timeline would say."""
    if not line.subtitle:
        return line.title
    return QCoreApplication.translate("EventForm", "{title}: {outcome}").format(title=line.title, outcome=line.subtitle)
