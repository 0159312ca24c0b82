"""What a stop says, large: how far the demo is, title, text, and a question whose answer waits."""

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QPushButton, QSizePolicy, QVBoxLayout, QWidget

from gui.theme import GAP, GRID, MARGIN, PAD, theme, ui_font
from gui.widgets.panel import Panel
from gui.widgets.prose import Prose
from gui.widgets.text_label import TextLabel

TITLE, TEXT, LEAST = 2.2, 1.7, 1.0
"""Scales of the title and of the text, and the least that the text shrinks to where there is much of it."""
SHRINK = 0.05


class Said(QWidget):
    """All that a stop says, filled. ``answer_wanted`` is emitted when the user wants to see the answer."""

    answer_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._texts = ("", "", "")
        self._is_revealed = False
        self.progress = _Progress()
        self.head = TextLabel(lambda: ui_font(1.0), "muted", wrap=True)
        self.title = TextLabel(lambda: ui_font(TITLE, bold=True), wrap=True)
        self.text = Prose(TEXT)
        self.question, self.answer = Prose(TEXT), Prose(TEXT)
        for prose in (self.text, self.question, self.answer):
            prose.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        for prose in (self.question, self.answer):  # as high as they are; a bar would take width, and need more height
            prose.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for prose, name in (
            (self.text, self.tr("Text")), (self.question, self.tr("Question")), (self.answer, self.tr("Answer")),
        ):  # fmt: skip
            prose.setAccessibleName(name)
        self.show_answer = QPushButton(self.tr("Show the answer"))
        self.show_answer.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.show_answer.clicked.connect(self.answer_wanted)
        self.card = Panel()
        asked = QVBoxLayout(self.card)
        asked.setContentsMargins(MARGIN, PAD, MARGIN, PAD)
        asked.setSpacing(GAP)
        asked.addWidget(self.question)
        asked.addWidget(self.show_answer, 0, Qt.AlignmentFlag.AlignLeft)
        asked.addWidget(self.answer)
        self.hint = TextLabel(lambda: ui_font(0.88), "muted", wrap=True)
        column = QVBoxLayout(self)
        column.setContentsMargins(2 * MARGIN, 2 * MARGIN, 2 * MARGIN, MARGIN)
        column.setSpacing(PAD)
        column.addWidget(self.progress)
        column.addWidget(self.head)
        column.addWidget(self.title)
        column.addSpacing(GRID)
        column.addWidget(self.text, 1)
        column.addWidget(self.card)
        column.addWidget(self.hint)
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.Base)

    @property
    def waits(self) -> bool:
        """There is an answer that nobody has seen yet."""
        return bool(self._texts[2]) and not self._is_revealed

    def show_stop(self, number: int, count: int, demo: str, title: str, text: str, question: str, answer: str) -> None:
        """``number`` from 0."""
        self.progress.show_stop(number, count)
        head = self.tr("{number} of {count}") if not demo else self.tr("{number} of {count} · {demo}")
        self.head.setText(head.format(number=number + 1, count=count, demo=demo))
        self.title.setText(title)
        self.title.setVisible(bool(title))
        self._texts, self._is_revealed = (text, question, answer), False
        self._show()

    def reveal(self) -> None:
        self._is_revealed = True
        self._show()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._show()

    def _show(self) -> None:
        text, question, answer = self._texts
        parts = ((self.text, text), (self.question, question), (self.answer, answer if self._is_revealed else ""))
        for prose, words in parts:
            prose.show_text(words)
        self.card.setVisible(bool(question))
        self.show_answer.setVisible(self.waits)
        self.answer.setVisible(self._is_revealed and bool(answer))
        self._fit([prose for prose, words in parts if words])

    def _fit(self, shown: list[Prose]) -> None:
        """As large as all of it fits, the question card as high as it needs to be."""
        width = self.width() - 4 * MARGIN
        rest = [self.progress, self.head, self.hint, *([self.title] if not self.title.isHidden() else [])]
        taken = sum(max(part.heightForWidth(width), part.sizeHint().height()) for part in rest) + 3 * MARGIN + 7 * PAD
        if self.card.isVisibleTo(self):
            taken += 2 * PAD + 2 * GAP + (self.show_answer.sizeHint().height() if self.waits else 0)
        scale = TEXT
        while scale > LEAST and self._height(shown, width, scale) > self.height() - taken:
            scale -= SHRINK
        for prose in shown:
            prose.show_text(prose.text, scale)
            if prose is not self.text:
                prose.setFixedHeight(round(prose.text_height(width - 2 * MARGIN, scale)) + GRID)

    def _height(self, shown: list[Prose], width: int, scale: float) -> float:
        return sum(prose.text_height(width - (0 if prose is self.text else 2 * MARGIN), scale) for prose in shown)


class _Progress(QWidget):
    """A bar of as many pieces as there are stops, those that were filled."""

    def __init__(self) -> None:
        super().__init__()
        self._number, self._count = 0, 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(GRID)

    def show_stop(self, number: int, count: int) -> None:
        self._number, self._count = number, count
        text = self.tr("Stop {number} of {count}")
        self.setAccessibleName(text.format(number=number + 1, count=count))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width = (self.width() - (self._count - 1) * GRID) / max(1, self._count)
        for piece in range(self._count):
            painter.setBrush(theme().accent if piece <= self._number else theme().line)
            painter.drawRoundedRect(QRectF(piece * (width + GRID), 0, width, self.height()), 2, 2)
