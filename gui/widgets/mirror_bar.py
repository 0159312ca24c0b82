"""The switch of the hierarchy: what KVM mirrors beside its tables, or the tables that the hardware walks."""

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QToolButton, QWidget

from engine.machine.mirror import Mirror
from gui import mirror_texts
from gui.document import Change, Document
from gui.theme import GAP, GRID, MARGIN
from gui.widgets.text_label import TextLabel


class MirrorBar(QWidget):
    """Which picture is shown, and what the mirror costs. Gone where nothing is mirrored."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.mirror, self.walked = QToolButton(), QToolButton()
        choice = QButtonGroup(self)
        for button, text, tip in (
            (self.mirror, self.tr("Mirror"), self.tr("What KVM mirrors above, its own tables below (M)")),
            (self.walked, self.tr("Walked tables"), self.tr("The tables that the hardware walks (M)")),
        ):
            button.setText(text)
            button.setAccessibleName(text)
            button.setToolTip(tip)
            button.setCheckable(True)
            choice.addButton(button)
        self.cost = TextLabel(role="muted")
        self.cost.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        row = QHBoxLayout(self)
        row.setContentsMargins(MARGIN - GRID, GAP, MARGIN, 0)
        row.setSpacing(GRID)
        row.addWidget(self.mirror)
        row.addWidget(self.walked)
        row.addSpacing(GRID)
        row.addWidget(self.cost, 1)
        self.mirror.clicked.connect(lambda: document.show_mirror(True))
        self.walked.clicked.connect(lambda: document.show_mirror(False))
        document.changed.connect(self._on_change)
        self._show()

    def _on_change(self, change: Change) -> None:
        if change & (Change.STATE | Change.WALK):
            self._show()

    def turn(self) -> None:
        """The other picture, where there are two."""
        if not self.isHidden():
            self._document.show_mirror(not self._document.wants_mirror)

    def _show(self) -> None:
        found = self._document.mirror
        self.setVisible(isinstance(found, Mirror))
        if isinstance(found, Mirror):
            self.mirror.setChecked(self._document.wants_mirror)
            self.walked.setChecked(not self._document.wants_mirror)
            self.cost.setText(mirror_texts.cost(found))
            self.cost.setToolTip(self.cost.text())

    def minimumSizeHint(self) -> QSize:
        return QSize(60 * GRID, super().minimumSizeHint().height())
