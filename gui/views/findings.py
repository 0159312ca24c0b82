"""Findings: what is amiss at the current step, the gravest first, each with its evidence and a way to it."""

from functools import partial

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui.document import Change, Document
from gui.jobs import WindowJobs, runner
from gui.models.findings import Found, Known, Shown, counted, look, report, show
from gui.paint.marks import empty_state
from gui.theme import GAP, GRID, MARGIN, PAD
from gui.widgets.finding_card import FindingCard

AT_FIRST = 500
"""Milliseconds before the first look, whose arrays take a while to import: the window starts before it."""


class FindingsView(QWidget):
    """Looks while it is visible, in a worker; cards of findings that stay are kept, so nothing flickers."""

    exported = Signal(object)
    """The user wants these findings (`Found`) in a file."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._jobs = WindowJobs.of(document)
        self._found: Found | None = None
        self._known: Known = {}
        self._unfolded: set[str] = set()
        self._key = key = f"findings {id(self)}"
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(AT_FIRST)
        self._soon.timeout.connect(self.refresh)
        self._build()
        document.changed.connect(self._on_change)
        self.destroyed.connect(lambda: runner().cancel(key))

    def _build(self) -> None:
        self.summary = QLabel()
        self.summary.setProperty("role", "muted")
        self.copy = QToolButton()
        self.copy.setText(self.tr("Copy"))
        self.copy.setToolTip(self.tr("Copy all findings of this step as text for a mail"))
        self.copy.clicked.connect(self._copy)
        self.export = QToolButton()
        self.export.setText(self.tr("Export…"))
        self.export.setToolTip(self.tr("Export all findings of this step as a page, PDF or text"))
        self.export.clicked.connect(self._export)
        head = QHBoxLayout()
        head.setContentsMargins(MARGIN, 0, GAP, 0)
        head.addWidget(self.summary, 1)
        head.addWidget(self.copy)
        head.addWidget(self.export)
        self._column = QWidget()
        self._cards = QVBoxLayout(self._column)
        self._cards.setContentsMargins(PAD, 0, PAD, PAD)
        self._cards.setSpacing(GAP)
        self._cards.addStretch()
        area = QScrollArea()
        area.setWidget(self._column)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setAccessibleName(self.tr("Findings"))
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._empty = _Empty()
        self._stack = QStackedWidget()
        self._stack.addWidget(self._empty)
        self._stack.addWidget(area)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID)
        layout.addLayout(head)
        layout.addWidget(self._stack, 1)
        self._offer(False)

    def _offer(self, offered: bool) -> None:
        """Whether there is something to copy and export."""
        for button in (self.copy, self.export):
            button.setVisible(offered)

    @property
    def cards(self) -> list[FindingCard]:
        """The cards, from the top down."""
        items = (self._cards.itemAt(n).widget() for n in range(self._cards.count()))  # type: ignore[union-attr]
        return [widget for widget in items if isinstance(widget, FindingCard)]

    @property
    def advice(self) -> tuple[str, str] | None:
        """What is said where there are no cards."""
        return self._empty.words if self._stack.currentWidget() is self._empty else None

    # --- looking

    def _on_change(self, change: Change) -> None:
        if self.isVisible() and change & (Change.SCENARIO | Change.STATE):
            self._soon.start()

    def showEvent(self, event: QShowEvent) -> None:
        self._soon.start()
        super().showEvent(event)

    def refresh(self) -> None:
        """Look at the current step; what is shown stays until the answer is there."""
        self._soon.setInterval(0)
        document, known = self._document, self._known
        state = document.state
        if state.host is None and state.image is None:
            self._jobs.cancel(self._key)
            self._found = None
            self._show_cards(())
            self._say(self.tr("Nothing to check yet"), self.tr("Open a memory image, or boot a host."))
            return
        states = [document.replay.state(step) for step in range(document.step + 1)]
        work = partial(look, states, known)
        self._jobs.start(self.tr("Looking for hazards"), work, self._show, key=self._key, stopped=self._on_stopped)

    def _on_stopped(self) -> None:
        self._found = None
        self._show_cards(())
        self._say(self.tr("Not looked at"), self.tr("The search was cancelled. Go to another step to start it again."))

    def _show(self, found: Found) -> None:
        self._found, self._known = found, found.known
        self._show_cards(found.shown)
        if found.shown:
            text = self.tr("Step {step}: {findings}")
            self.summary.setText(text.format(step=found.step, findings=counted(found.shown)))
            self._stack.setCurrentIndex(1)
        else:
            self._say(self.tr("No hazard at this step"), self._all_well())
        self._offer(bool(found.shown))

    def _all_well(self) -> str:
        if self._document.state.host is None:
            return self.tr("No page can be both written and executed, or is mapped with different memory types.")
        return self.tr(
            "No check of KVM, the pCPUs and the tables finds anything. Change a pCPU's mode, or an entry, to see "
            "what that breaks."
        )

    def _say(self, title: str, text: str) -> None:
        self.summary.setText(self.tr("Step {step}").format(step=self._document.step))
        self._empty.say(title, text)
        self._stack.setCurrentWidget(self._empty)
        self._offer(False)

    def _show_cards(self, shown: tuple[Shown, ...]) -> None:
        """Cards in the order of ``shown``; those there are show other findings before new ones are made."""
        cards = self.cards
        for card, each in zip(cards, shown, strict=False):
            if card.shown != each:
                card.show_finding(each, each.finding.key in self._unfolded)
        for card in cards[len(shown) :]:
            self._cards.removeWidget(card)
            card.deleteLater()
        for each in shown[len(cards) :]:
            self._cards.insertWidget(self._cards.count() - 1, self._card(each))

    def _card(self, shown: Shown) -> FindingCard:
        card = FindingCard(shown, shown.finding.key in self._unfolded, self._column)
        card.clicked.connect(lambda: show(self._document, card.shown))
        card.unfolded.connect(lambda unfolded: self._keep(card.shown.finding.key, unfolded))
        return card

    def _keep(self, key: str, unfolded: bool) -> None:
        """A kind of finding stays unfolded from step to step."""
        (self._unfolded.add if unfolded else self._unfolded.discard)(key)

    def _copy(self) -> None:
        if self._found is not None:
            from engine.report.text import render

            QApplication.clipboard().setText(render(report(self._found)))

    def _export(self) -> None:
        if self._found is not None:
            self.exported.emit(self._found)


class _Empty(QWidget):
    """What is said where there are no findings."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ("", "")

    def say(self, title: str, text: str) -> None:
        self.words = title, text
        self.setAccessibleName(title)
        self.setAccessibleDescription(text)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        area = self.rect().toRectF().adjusted(MARGIN, 0, -MARGIN, 0)
        empty_state(painter, area, *self.words)
