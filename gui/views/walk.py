"""The walk as a grid, a cell a reference, and below it what the lit reference is, decided and cost."""

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QGuiApplication, QKeySequence, QPainter, QPaintEvent, QPalette, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from engine.arch.faults import CodeBit
from engine.arch.walk import Walk
from gui.document import Change, Document
from gui.explain import (
    fault_code,
    outcome_sentence,
    outcome_title,
    question,
    reads,
    reference_title,
    references,
    so_far,
    stage_kind,
    together,
    why,
)
from gui.paint.fault_code import code_lines, height, paint_fault_code
from gui.paint.marks import empty_state
from gui.theme import GAP, MARGIN, PAD, mono_font, signals, theme, ui_font
from gui.three_stages import told
from gui.whose_fault import whose_fault
from gui.widgets.panel import Panel
from gui.widgets.stages_bar import StagesBar
from gui.widgets.text_label import TextLabel
from gui.widgets.walk_canvas import WalkCanvas


class WalkView(QWidget):
    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.title = TextLabel(lambda: ui_font(1.1, bold=True))
        self.kind = TextLabel(role="muted")
        self.count = TextLabel(lambda: ui_font(bold=True))
        self.canvas = WalkCanvas(document)
        self.panel = ReferencePanel(document)
        self.bar = StagesBar(document, self.canvas)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.AlternateBase)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.kind.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._head = QWidget()
        head = QHBoxLayout(self._head)
        head.setContentsMargins(MARGIN, MARGIN, MARGIN, GAP)
        head.setSpacing(PAD)
        head.addWidget(self.title)
        head.addWidget(self.kind, 1)
        head.addWidget(self.count)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._head)
        column.addWidget(self.bar)
        column.addWidget(self.canvas)
        column.addWidget(self.panel, 1)
        fold = QShortcut(QKeySequence("F"), self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        fold.activated.connect(self.bar.turn)
        document.changed.connect(self._on_change)
        signals().changed.connect(self._show)
        self._show()

    def _on_change(self, change: Change) -> None:
        if change & (Change.WALK | Change.REFERENCE | Change.STATE):
            self._show()

    def _show(self) -> None:
        walk, lit = self._document.walk, self._document.reference
        for part in (self._head, self.canvas, self.panel):
            part.setVisible(walk is not None)
        if walk is None:
            self.update()
            return
        palette = self.count.palette()
        palette.setColor(QPalette.ColorRole.WindowText, theme().accent)
        self.count.setPalette(palette)
        self.title.setText(self._title(walk))
        kind = self.tr("{stages}, {access}")
        self.kind.setText(kind.format(stages=stage_kind(walk), access=question(walk)))
        done = sum(step.address is not None for step in walk.steps[: (lit or 0) + 1])
        self.count.setText(references(done, walk.references) if walk.references else references(0))

    def _title(self, walk: Walk) -> str:
        if walk.host is not None:
            return self.tr("Three-stage walk")
        return self.tr("Two-dimensional walk") if walk.second is not None else self.tr("Walk")

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._document.walk is None:
            title, advice = self._empty()
            empty_state(QPainter(self), QRectF(self.rect()), title, advice)

    def _empty(self) -> tuple[str, str]:
        if not self._document.last_step:
            return self.tr("No memory yet"), self.tr("Open a memory image (Ctrl+O) or drop one on this window.")
        if refusal := self._document.walk_refusal:
            return self.tr("This cannot be walked"), refusal
        return self.tr("No address yet"), self.tr("Type an address in the address bar (Ctrl+L) to walk it.")


class ReferencePanel(QScrollArea):
    """What was read, the rule applied, rights and cost so far; at the end the outcome, its code bit by bit."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.title = TextLabel(lambda: ui_font(bold=True), wrap=True)
        self.reads = TextLabel(mono_font, wrap=True)
        self.why, self.outcome = TextLabel(wrap=True), TextLabel(wrap=True)
        self.so_far = TextLabel(role="muted", wrap=True)
        self.code = FaultCode()
        card = Panel()
        column = QVBoxLayout(card)
        column.setContentsMargins(PAD, PAD, PAD, PAD)
        column.setSpacing(GAP)
        for part in (self.title, self.reads, self.why, self.outcome, self.code, self.so_far):
            column.addWidget(part)
        content = QWidget()
        around = QVBoxLayout(content)
        around.setContentsMargins(MARGIN, GAP, MARGIN, MARGIN)
        around.addWidget(card)
        around.addStretch()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for widget in (self.viewport(), content):
            widget.setAutoFillBackground(False)
        copy = QShortcut(QKeySequence.StandardKey.Copy, self, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        copy.activated.connect(self.copy)
        document.changed.connect(self._on_change)
        self._show()

    def _labels(self) -> tuple[QLabel, ...]:
        return self.title, self.reads, self.why, self.outcome, self.so_far

    def sizeHint(self) -> QSize:
        return QSize(480, 200)

    def minimumSizeHint(self) -> QSize:
        return QSize(240, 150)

    def _on_change(self, change: Change) -> None:
        if change & (Change.WALK | Change.REFERENCE):
            self._show()

    def _show(self) -> None:
        walk, lit = self._document.walk, self._document.reference
        if walk is None:
            return
        if lit is None:
            self.title.setText(outcome_title(walk.outcome))
            sentences: list[str] = []
        else:
            self.title.setText(reference_title(walk, lit))
            self.reads.setText(reads(walk.steps[lit]))
            self.so_far.setText(so_far(walk, lit))
            sentences = why(walk, lit)
        is_end = lit is None or lit == len(walk.steps) - 1
        if is_end:
            sentences += together(walk)
        self.why.setText("\n".join(sentences))
        ended = [outcome_sentence(walk.outcome), *self._told(walk)] if is_end else []
        self.outcome.setText("\n".join(filter(None, ended)))
        self.outcome.set_role("" if walk.ok else "hazard")
        self.code.show_code(fault_code(walk.outcome) if is_end else None)
        self.reads.setVisible(lit is not None)
        self.so_far.setVisible(lit is not None)
        self.why.setVisible(bool(sentences))
        self.outcome.setVisible(is_end)

    def _told(self, walk: Walk) -> tuple[str, ...]:
        """Whose the outcome is, where there are more than two who could have it."""
        document = self._document
        of_three = told(walk) if walk.host is not None else ""
        return of_three, whose_fault(document.state, document.place, walk)

    def text(self) -> str:
        """All that is shown, as plain text."""
        shown = [label.text() for label in self._labels() if not label.isHidden()]
        return "\n".join([*shown, *self.code.lines()])

    def copy(self) -> None:
        """The selected text, or all of it, to the clipboard."""
        focus = QApplication.focusWidget()
        selected = focus.selectedText() if isinstance(focus, QLabel) else ""
        QGuiApplication.clipboard().setText(selected or self.text())


class FaultCode(QWidget):
    """The code of a fault, bit by bit."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._code: tuple[int, tuple[CodeBit, ...]] | None = None
        self.setAccessibleName(self.tr("Fault code"))
        policy = self.sizePolicy()
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def show_code(self, code: tuple[int, tuple[CodeBit, ...]] | None) -> None:
        self._code = code
        self.setAccessibleDescription("\n".join(self.lines()))
        self.setVisible(code is not None)
        self.updateGeometry()
        self.update()

    def lines(self) -> list[str]:
        return code_lines(*self._code) if self._code is not None else []

    def heightForWidth(self, width: int) -> int:
        return round(height(width, self._code[1])) if self._code is not None else 0

    def sizeHint(self) -> QSize:
        return QSize(400, self.heightForWidth(400))

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._code is not None:
            paint_fault_code(QPainter(self), QRectF(self.rect()), *self._code)
