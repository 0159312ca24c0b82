"""The machine of a scenario with a host: a card for each pCPU, for KVM, for each VM and vCPU, and what to do next."""

from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtCore import QCoreApplication, QEvent, QObject, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QLabel, QMenu, QPushButton, QScrollArea, QVBoxLayout, QWidget

from engine import events as ev
from engine.edits import Insert
from engine.machine import Refusal
from gui.describe import describe
from gui.document import Change, Document
from gui.explain import engine_text
from gui.models.card import Card
from gui.models.host_cards import cards
from gui.models.next_step import NextStep, Offer, next_step
from gui.templates import Template, templates
from gui.theme import GRID
from gui.widgets.card import CardWidget
from gui.widgets.mode_menu import mode_menu

Ask = Callable[[Document, type, ev.Event | None, QWidget | None], ev.Event | None]
"""Lets the user fill in an event: `dialogs.event_form.ask_event`."""


def _ask(document: Document, event_type: type, initial: ev.Event | None, parent: QWidget | None) -> ev.Event | None:
    from gui.dialogs.event_form import ask_event  # built when it is first wanted

    return ask_event(document, event_type, initial, parent)


class HostCards(QScrollArea):
    """``refused`` is emitted with a sentence where what the user asked for cannot be."""

    refused = Signal(str)

    def __init__(self, document: Document, parent: QWidget | None = None, ask: Ask = _ask) -> None:
        super().__init__(parent)
        self._document, self._ask = document, ask
        self._unfolded: set[str] = set()
        self._cards: dict[str, CardWidget] = {}
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Machine"))
        self._inside = QWidget()
        self._column = QVBoxLayout(self._inside)
        self._column.setContentsMargins(3 * GRID, 2 * GRID, 3 * GRID, 3 * GRID)
        self._column.setSpacing(2 * GRID)
        self.next_step = NextStepPanel(self._take_offer, self._take_template)
        self._column.addWidget(self.next_step)
        self._column.addStretch()
        self.setWidget(self._inside)
        document.changed.connect(self._on_change)
        self._show()

    @property
    def cards(self) -> Sequence[CardWidget]:
        """The cards as they are shown, from the top."""
        return tuple(self._cards.values())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._inside and event.type() is QEvent.Type.LayoutRequest:
            self._fit()
        return super().eventFilter(watched, event)

    def _fit(self) -> None:
        """As high as the cards want to be; left to itself a scroll area forgets how wide its own bar makes them."""
        wanted = self._column.totalHeightForWidth(self.viewport().width())
        self._inside.setMinimumHeight(max(0, wanted))  # -1: nothing in it depends on the width

    def _on_change(self, change: Change) -> None:
        if change & (Change.SCENARIO | Change.STATE):
            self._show()

    # --- what is shown

    def _show(self) -> None:
        state = self._document.state
        wanted = cards(state, self._unfolded)
        if [card.key for card in wanted] == list(self._cards):
            for card in wanted:
                self._cards[card.key].show_card(card)
        else:
            self._arrange(wanted)
        self.next_step.show_step(next_step(state), templates() if state.host is None else ())

    def _arrange(self, wanted: Sequence[Card]) -> None:
        """Other cards than before: those that stay are the same widgets, so that the focus stays too."""
        self.setUpdatesEnabled(False)
        kept = {card.key: self._cards.pop(card.key, None) for card in wanted}
        for gone in self._cards.values():
            self._column.removeWidget(gone)
            gone.hide()
            gone.deleteLater()
        self._cards = {}
        before: QWidget | None = None
        for number, card in enumerate(wanted):
            widget = kept[card.key] or self._make(card)
            self._column.insertWidget(number, widget)
            if before is not None:
                QWidget.setTabOrder(before, widget)
            widget.show_card(card)
            self._cards[card.key] = widget
            before = widget.fold
        self.setUpdatesEnabled(True)

    def _make(self, card: Card) -> CardWidget:
        kind, *numbers = card.key.split()
        widget = CardWidget(card)
        if kind == "pcpu":
            widget.switch.clicked.connect(partial(self._open_mode_menu, widget, int(numbers[0])))
        widget.fold.clicked.connect(partial(self._turn_fold, card.key))
        return widget

    def _turn_fold(self, key: str) -> None:
        """A card stays unfolded from step to step."""
        self._unfolded ^= {key}
        self._show()

    # --- what the user can do

    def mode_menu(self, pcpu: int) -> QMenu:
        """The ways in which pCPU ``pcpu`` can change its mode; choosing one makes it happen."""
        menu = mode_menu(self._document.state, pcpu, self._append, self)
        menu.addSeparator()
        menu.addAction(self.tr("Choose more…")).triggered.connect(lambda: self._ask_for(ev.ChangeMode(pcpu, True)))
        return menu

    def _open_mode_menu(self, card: CardWidget, pcpu: int) -> None:
        menu = self.mode_menu(pcpu)
        menu.aboutToHide.connect(menu.deleteLater)
        menu.popup(card.switch.mapToGlobal(card.switch.rect().bottomLeft()))

    def _take_offer(self, offer: Offer) -> None:
        if offer.ready:
            self._append(offer.event)
        else:
            self._ask_for(offer.event)

    def _ask_for(self, initial: ev.Event) -> None:
        event = self._ask(self._document, type(initial), initial, self)
        if event is not None:
            self._append(event)

    def _append(self, event: ev.Event) -> None:
        document = self._document
        after = document.after(event)
        if isinstance(after, Refusal):
            self.refused.emit(engine_text(after.reason))
        else:
            document.edit(Insert(document.step, event), describe(event, after).title, document.step + 1)

    def _take_template(self, template: Template) -> None:
        """All its events, as one command that can be undone."""
        stack = self._document.undo_stack
        stack.beginMacro(template.name)
        for event in template.events():
            self._document.edit(Insert(self._document.step, event), template.name, self._document.step + 1)
        stack.endMacro()


class NextStepPanel(QWidget):
    """A sentence on what is missing, and buttons that mend it. Hidden where nothing is."""

    def __init__(self, take_offer: Callable[[Offer], None], take_template: Callable[[Template], None]) -> None:
        super().__init__()
        self._take_offer, self._take_template = take_offer, take_template
        self._shown: tuple[NextStep | None, tuple[str, ...]] = (None, ())
        self.advice = QLabel()
        self.advice.setWordWrap(True)
        self.advice.setProperty("role", "muted")
        self.buttons: list[QPushButton] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(GRID, 2 * GRID, GRID, 0)
        self._column.setSpacing(2 * GRID)
        self._column.addWidget(self.advice)
        self.hide()

    def show_step(self, step: NextStep | None, ready: Sequence[Template] = ()) -> None:
        """``ready``: scenarios to start from."""
        shown = (step, tuple(template.key for template in ready))
        if shown == self._shown:
            return
        self._shown = shown
        for button in self.buttons:
            self._column.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.buttons = []
        self.setVisible(step is not None)
        if step is None:
            return
        self.advice.setText(step.advice)
        for offer in step.offers:
            self._button(offer.label).clicked.connect(partial(self._take_offer, offer))
        if ready:
            menu = QMenu(self)
            menu.setToolTipsVisible(True)
            for template in ready:
                action = menu.addAction(template.name)
                action.setToolTip(template.summary)
                action.triggered.connect(partial(self._take_template, template))
            self._button(QCoreApplication.translate("HostCards", "Ready scenarios")).setMenu(menu)

    def _button(self, text: str) -> QPushButton:
        button = QPushButton(text)
        button.setAutoDefault(False)
        self._column.addWidget(button, 0, Qt.AlignmentFlag.AlignLeft)
        self.buttons.append(button)
        return button
