"""What the Machine dock shows: the registers of an image's processor, or a host with KVM and its VMs."""

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QStackedWidget, QWidget

from gui.document import Change, Document


class MachineDock(QStackedWidget):
    """``processor`` is the view of an image's processor; the cards of a host are made when they are first needed.

    ``refused`` carries a sentence.
    """

    refused = Signal(str)

    def __init__(self, document: Document, processor: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.addWidget(processor)
        document.changed.connect(self._on_change)
        self._show()

    def _on_change(self, change: Change) -> None:
        if change & (Change.STATE | Change.SCENARIO):
            self._show()

    def _show(self) -> None:
        """A scenario without an image is about a host: while it is empty, the cards say how to begin."""
        document = self._document
        wants_cards = document.is_open and document.state.image is None
        if wants_cards and self.count() == 1:
            from gui.views.host_cards import HostCards

            cards = HostCards(document)
            cards.refused.connect(self.refused)
            self.addWidget(cards)
        self.setCurrentIndex(1 if wants_cards else 0)
