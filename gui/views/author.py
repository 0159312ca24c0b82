"""The stops of the open scenario's demo: recorded from the screen, written, put in order, tried."""

from collections.abc import Callable
from functools import partial

import msgspec
from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtGui import QFocusEvent
from PySide6.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QSplitter,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from engine.demo import Demo, Stop, View
from engine.edits import Narrate
from engine.errors import InputError
from engine.narration import claims
from engine.narration.fields import GROUPS
from gui import stops
from gui.document import Change, Document
from gui.explain import engine_text
from gui.icons import icon
from gui.jobs import WindowJobs, runner
from gui.models.told import Told, teller
from gui.theme import GAP, GRID, MARGIN, follow, theme
from gui.view_names import view_names
from gui.widgets.prose import Prose
from gui.widgets.text_label import TextLabel

PAUSE = 500
"""Milliseconds without a key after which what was typed becomes an edit."""
TEXTS = ("title", "text", "question", "answer", "notes", "name")
LINES = ("title", "name")
"""Those of one line."""


class AuthorView(QWidget):
    """``shown`` is emitted with the names of the views that a chosen stop wants to be seen in."""

    shown = Signal(str, str)

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._number = 0
        self._key = key = f"told {id(self)}"
        self._pause = QTimer(self, singleShot=True, interval=PAUSE)
        self._pause.timeout.connect(self.settle)
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self._tell)
        self._build()
        document.changed.connect(self._on_change)
        document.settling.connect(self.settle)
        self.destroyed.connect(lambda: runner().cancel(key))
        self._show()

    # --- what it is made of

    def _build(self) -> None:
        self.demo_title, self.summary = _line(self.tr("Title of the demo")), _line(self.tr("Summary of the demo"))
        for field in (self.demo_title, self.summary):
            field.textEdited.connect(self._pause.start)
            field.editingFinished.connect(self.settle)
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Stops"))
        self.list.currentRowChanged.connect(self._choose)
        self.empty = QLabel(
            self.tr("No stop yet. Bring the window to what you want to show, and press F8: that is the first stop.")
        )
        self.empty.setWordWrap(True)
        self.empty.setProperty("role", "muted")
        self.empty.setContentsMargins(0, GAP, 0, GAP)
        top = QWidget()
        column = QVBoxLayout(top)
        column.setContentsMargins(MARGIN, GAP, MARGIN, 0)
        column.setSpacing(GRID)
        column.addWidget(self.demo_title)
        column.addWidget(self.summary)
        column.addLayout(self._tools())
        column.addWidget(self.empty)
        column.addWidget(self.list, 1)
        self.form = self._form()
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.setChildrenCollapsible(False)
        parts.addWidget(top)
        parts.addWidget(self.form)
        parts.setStretchFactor(1, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(parts)

    def _tools(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(GRID)
        self.up = _tool("up", self.tr("Move this stop up"), lambda: self._move(-1))
        self.down = _tool("down", self.tr("Move this stop down"), lambda: self._move(1))
        self.delete = _tool("delete", self.tr("Delete this stop"), self._delete)
        self.again = QPushButton(self.tr("Show again as now"))
        self.again.setToolTip(self.tr("The stop shows what is on the screen now; its texts stay"))
        self.again.clicked.connect(self._take_again)
        for button in (self.up, self.down, self.delete):
            row.addWidget(button)
        row.addStretch()
        row.addWidget(self.again)
        return row

    def _form(self) -> QWidget:
        self.fields: dict[str, QLineEdit | QPlainTextEdit] = {}
        labels = {
            "title": self.tr("Title of the stop"),
            "text": self.tr("Text"),
            "question": self.tr("Question"),
            "answer": self.tr("Answer"),
            "notes": self.tr("Speaker notes"),
            "name": self.tr("Name, for fields of other stops"),
        }
        for name in TEXTS:
            made = _line(labels[name]) if name in LINES else _Writing(labels[name], self.settle)
            made.textChanged.connect(self._pause.start)
            self.fields[name] = made
        self.view, self.beside = _views(self.tr("View")), _views(self.tr("Beside it"), self.tr("nothing"))
        for box in (self.view, self.beside):
            box.activated.connect(self._choose_view)
        self.claims = _Writing(self.tr("Claims, one a line: references = 24"), self.settle)
        self.claims.textChanged.connect(self._pause.start)
        self.preview = Prose()
        self.preview.setAccessibleName(self.tr("Preview"))
        self.preview.setMinimumHeight(26 * GRID)
        self.checked = TextLabel(wrap=True)
        self.insert = QPushButton(self.tr("Insert a field"))
        self.insert.setMenu(self._menu())
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.addTab(_column(self.fields["text"]), labels["text"])
        self.tabs.addTab(_column(self.fields["question"], self.fields["answer"]), labels["question"])
        self.tabs.addTab(_column(self.fields["notes"]), self.tr("Notes"))
        self.tabs.addTab(_column(self.claims, self.checked), self.tr("Claims"))
        form = QWidget()
        grid = QGridLayout(form)
        grid.setContentsMargins(MARGIN, GAP, MARGIN, MARGIN)
        grid.setSpacing(GRID)
        grid.addWidget(self.fields["title"], 0, 0, 1, 2)
        grid.addWidget(self.fields["name"], 1, 0)
        grid.addWidget(self.insert, 1, 1)
        grid.addWidget(self.view, 2, 0)
        grid.addWidget(self.beside, 2, 1)
        grid.addWidget(self.tabs, 3, 0, 1, 2)
        heading = TextLabel(role="muted")
        heading.setText(self.tr("Preview"))
        grid.addWidget(heading, 4, 0, 1, 2)
        grid.addWidget(self.preview, 5, 0, 1, 2)
        grid.setRowStretch(3, 2)
        grid.setRowStretch(5, 2)
        return form

    def _menu(self) -> QMenu:
        menu = QMenu(self)
        for title, fields in GROUPS.items():
            submenu = menu.addMenu(engine_text(title))
            submenu.setToolTipsVisible(True)
            for field in fields:
                action = submenu.addAction(f"{field.name}\t{engine_text(field.meaning)}")
                action.triggered.connect(partial(self._insert, field.name))
        return menu

    def _insert(self, name: str, *_: object) -> None:
        """Put field ``name`` where the cursor is, in the text that was written last."""
        editor = self.tabs.currentWidget().findChild(_Writing)
        assert editor is not None
        editor.insertPlainText(name if editor is self.claims else f"{{{name}}}")
        editor.setFocus()

    # --- what is shown

    @property
    def demo(self) -> Demo:
        return self._document.scenario.demo

    @property
    def number(self) -> int:
        """The number of the stop that is edited, from 0."""
        return self._number

    @property
    def stop(self) -> Stop | None:
        return self.demo.stops[self._number] if self._number < len(self.demo.stops) else None

    def _on_change(self, change: Change) -> None:
        if change == Change.ALL:
            self._number = 0
        if change & (Change.DEMO | Change.SCENARIO):
            self._show()

    def _show(self) -> None:
        """The list and the form, without a word to whoever listens to their changes."""
        count = len(self.demo.stops)
        self._number = max(0, min(self._number, count - 1))
        with QSignalBlocker(self.list):
            while self.list.count() > count:
                self.list.takeItem(count)
            while self.list.count() < count:
                self.list.addItem(QListWidgetItem())
            for row, stop in enumerate(self.demo.stops):
                text = self.tr("{number}  {title}  (step {step})")
                title = stop.title or self.tr("untitled")
                self.list.item(row).setText(text.format(number=row + 1, title=title, step=stop.step))
            self.list.setCurrentRow(self._number if count else -1)
        self.list.setVisible(bool(count))
        self.empty.setVisible(not count)
        self.form.setEnabled(bool(count))
        self.up.setEnabled(self._number > 0)
        self.down.setEnabled(self._number + 1 < count)
        for button in (self.delete, self.again):
            button.setEnabled(bool(count))
        _write(self.demo_title, self.demo.title)
        _write(self.summary, self.demo.summary)
        stop = self.stop or Stop(0)
        for name, field in self.fields.items():
            _write(field, getattr(stop, name))
        self.view.setCurrentIndex(self.view.findData(stop.view))
        self.beside.setCurrentIndex(self.beside.findData(stop.beside))
        if self._claims() != stop.claims:
            _write(self.claims, claims.text_of(stop.claims))
        self._soon.start()

    def _claims(self) -> tuple[object, ...] | None:
        """Those that are written; None where a line is none."""
        try:
            return claims.claims_of(self.claims.toPlainText())
        except InputError:
            return None

    def _tell(self) -> None:
        if self.stop is None:
            WindowJobs.of(self._document).cancel(self._key)
            self.preview.show_text("")
            self.checked.setText("")
            return
        work = teller(self._document.replay, self._number)
        WindowJobs.of(self._document).start(self.tr("Checking the stops"), work, self._show_told, key=self._key)

    def _show_told(self, told: Told) -> None:
        """A tick for each stop all of whose fields have values and all of whose claims hold."""
        for row, problems in enumerate(told.problems):
            item = self.list.item(row)
            if item is not None:
                mark, color = ("close", theme().hazard_mark) if problems else ("tick", theme().accent)
                item.setIcon(icon(mark, color))
                item.setToolTip("\n".join(problems) or self.tr("Every field has a value, and every claim holds"))
        title, text, question, answer, _ = told.texts
        parts = [f"**{title}**" if title else "", text]
        if question:
            parts += ["---", question, *([f"*{answer}*"] if answer else [])]
        self.preview.show_text("\n\n".join(filter(None, parts)))
        lines = [f"{'✓' if checked.holds else '✗'} {checked.sentence}" for _, checked in told.claims]
        self.checked.setText("\n".join(lines))
        self.checked.set_role("" if all(checked.holds for _, checked in told.claims) else "hazard")

    # --- what the user does

    def record(self, view: View, zoom: float = 1.0) -> None:
        """What is on the screen becomes a stop after the current one."""
        self.settle()
        at = self._number + 1 if self.demo.stops else 0
        stop = stops.take(self._document, view, round(zoom * 100))
        self._narrate(self.demo.inserted(at, stop), self.tr("Record a stop"), at)
        self.fields["title"].setFocus()

    def _take_again(self) -> None:
        if self.stop is not None:
            now = stops.take(self._document, self.stop.view, self.stop.zoom)
            told = {name: getattr(self.stop, name) for name in (*TEXTS, "beside", "claims")}
            stop = msgspec.structs.replace(now, **told)
            self._narrate(self.demo.replaced(self._number, stop), self.tr("Show a stop again"), self._number)

    def _choose_view(self) -> None:
        """The stop is shown in another view, or has another one beside it."""
        self.settle()
        if self.stop is not None:
            stop = msgspec.structs.replace(self.stop, view=self.view.currentData(), beside=self.beside.currentData())
            self._narrate(self.demo.replaced(self._number, stop), self.tr("Choose the view of a stop"), self._number)
            self.shown.emit(stop.view, stop.beside)

    def _delete(self) -> None:
        if self.stop is not None:
            self._narrate(self.demo.removed(self._number), self.tr("Delete a stop"), self._number)

    def _move(self, by: int) -> None:
        to = self._number + by
        self._narrate(self.demo.moved(self._number, to), self.tr("Move a stop"), to)

    def _choose(self, row: int) -> None:
        """Another stop is edited, and shown in the window."""
        self.settle()
        if 0 <= row < len(self.demo.stops):
            self._number = row
            self._show()
            stop = self.demo.stops[row]
            stops.show(self._document, stop)
            self.shown.emit(stop.view, stop.beside)

    def settle(self) -> None:
        """Make an edit of what was typed, if anything was."""
        self._pause.stop()
        demo = self.demo
        if self.stop is not None:
            texts = {name: _read(field) for name, field in self.fields.items()}
            written = self._claims()
            kept = self.stop.claims if written is None else written
            demo = demo.replaced(self._number, msgspec.structs.replace(self.stop, **texts, claims=kept))
        demo = msgspec.structs.replace(demo, title=self.demo_title.text(), summary=self.summary.text())
        if demo != self.demo:
            self._narrate(demo, self.tr("Write about a stop"), self._number)
        self._tell_of_claims()

    def _tell_of_claims(self) -> None:
        """What is wrong with a line that is no claim: it is kept in the field, and not in the demo."""
        try:
            claims.claims_of(self.claims.toPlainText())
        except InputError as error:
            self.checked.setText(str(error))
            self.checked.set_role("hazard")

    def _narrate(self, demo: Demo, text: str, number: int) -> None:
        self._number = number
        self._document.edit(Narrate(demo), text)


class _Writing(QPlainTextEdit):
    """A text of several lines; undo is the window's, and Tab goes on to the next field."""

    def __init__(self, name: str, left: Callable[[], object]) -> None:
        super().__init__()
        self._left = left
        self.setAccessibleName(name)
        self.setPlaceholderText(name)
        self.setUndoRedoEnabled(False)
        self.setTabChangesFocus(True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._left()


def _views(name: str, none: str = "") -> QComboBox:
    """A choice among the views, or ``none`` of them."""
    box = QComboBox()
    box.setAccessibleName(name)
    box.setToolTip(name)
    if none:
        box.addItem(none, "")
    for key, title in view_names().items():
        box.addItem(title, key)
    return box


def _line(name: str) -> QLineEdit:
    field = QLineEdit()
    field.setAccessibleName(name)
    field.setPlaceholderText(name)
    field.setToolTip(name)
    return field


def _tool(name: str, text: str, act: Callable[[], object]) -> QToolButton:
    button = QToolButton()
    button.setToolTip(text)
    button.setAccessibleName(text)
    button.clicked.connect(act)
    follow(button, lambda: button.setIcon(icon(name)))
    return button


def _column(*widgets: QWidget) -> QWidget:
    page = QWidget()
    column = QVBoxLayout(page)
    column.setContentsMargins(0, GRID, 0, GRID)
    column.setSpacing(GRID)
    for widget in widgets:
        column.addWidget(widget)
    return page


def _read(field: QLineEdit | QPlainTextEdit) -> str:
    return field.text() if isinstance(field, QLineEdit) else field.toPlainText()


def _write(field: QLineEdit | QPlainTextEdit, text: str) -> None:
    """Show ``text``; the cursor stays where nothing changes."""
    if _read(field) != text:
        with QSignalBlocker(field):
            if isinstance(field, QLineEdit):
                field.setText(text)
                field.setCursorPosition(0)
            else:
                field.setPlainText(text)
