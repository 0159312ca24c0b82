"""The switch between the two walks of a nested guest: the logical one of three stages, and the hardware's."""

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from gui.document import Change, Document
from gui.explain import references
from gui.theme import GAP, GRID, MARGIN
from gui.three_stages import counts
from gui.widgets.text_label import TextLabel
from gui.widgets.walk_canvas import WalkCanvas


class StagesBar(QWidget):
    """Which of a nested guest's two walks is looked at, each with its cost; whose tables make that up; the fold.

    Gone where no nested guest runs. In little room its buttons say less.
    """

    def __init__(self, document: Document, canvas: WalkCanvas, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document, self._canvas = document, canvas
        self.logical, self.hardware, self.folder = QToolButton(), QToolButton(), QToolButton()
        choice = QButtonGroup(self)
        for button in (self.logical, self.hardware):
            button.setCheckable(True)
            choice.addButton(button)
        self.logical.setToolTip(
            self.tr("Each address of L2 through L1's tables, each of L1 through L0's: no hardware does")
        )
        self.hardware.setToolTip(self.tr("L2's tables through the one table in which L0 put L1's and its own together"))
        self.folder.setToolTip(self.tr("Fold L0's references into the entries that they lead to (F)"))
        self.counts = TextLabel(role="muted")
        self.counts.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        row = QHBoxLayout()
        row.setSpacing(GRID)
        row.addWidget(self.logical)
        row.addWidget(self.hardware)
        row.addStretch()
        row.addWidget(self.folder)
        column = QVBoxLayout(self)
        column.setContentsMargins(MARGIN - GRID, 0, MARGIN, GAP)
        column.setSpacing(GRID)
        column.addLayout(row)
        below = QHBoxLayout()
        below.setContentsMargins(GRID, 0, 0, 0)
        below.addWidget(self.counts)
        column.addLayout(below)
        self._row = row
        self.logical.clicked.connect(lambda: document.show_logical(True))
        self.hardware.clicked.connect(lambda: document.show_logical(False))
        self.folder.clicked.connect(self.turn)
        document.changed.connect(self._on_change)
        self._show()

    def _on_change(self, change: Change) -> None:
        if change & Change.WALK:
            self._show()

    def turn(self) -> None:
        """Fold L0's references away, or unfold them."""
        self._canvas.fold(not self._canvas.is_folded)
        self._show()

    def _show(self) -> None:
        logical, hardware = self._document.logical, self._document.hardware
        self.setVisible(logical is not None)
        if logical is None:
            return
        shown = self._document.is_logical
        self.logical.setChecked(shown)
        self.hardware.setChecked(not shown)
        self._say()
        self.hardware.setEnabled(hardware is not None)
        self.folder.setVisible(shown)
        self.folder.setText(self.tr("Unfold L0") if self._canvas.is_folded else self.tr("Fold L0"))
        self.counts.setVisible(shown)
        self.counts.setText(counts(logical))

    # --- the buttons, in the room there is

    def _say(self) -> None:
        """The long texts where they fit, else the short ones."""
        self._put(self._texts()[0])
        if self._row.minimumSize().width() > self.width() - MARGIN - MARGIN:
            self._put(self._texts()[1])

    def _put(self, texts: tuple[str, str]) -> None:
        for button, text, whole in zip((self.logical, self.hardware), texts, self._texts()[0], strict=True):
            button.setText(text)
            button.setAccessibleName(whole)

    def _texts(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """What the buttons say, at length and in short."""
        costs = [walk.references if walk else 0 for walk in (self._document.logical, self._document.hardware)]
        long = (
            self.tr("As L1 sees it (logical): {references}"),
            self.tr("As hardware walks it (collapsed): {references}"),
        )
        short = self.tr("Logical: {count}"), self.tr("Collapsed: {count}")
        first, second = (
            tuple(text.format(references=references(n), count=n) for text, n in zip(texts, costs, strict=True))
            for texts in (long, short)
        )
        return first, second  # type: ignore[return-value]

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._say()

    def minimumSizeHint(self) -> QSize:
        return QSize(60 * GRID, super().minimumSizeHint().height())
