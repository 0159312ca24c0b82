"""The start page: demos to play, files opened last, and ways to begin. It is painted before the engine is imported."""

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QKeyEvent, QPalette, QPixmap, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QMenu, QPushButton, QScrollArea, QVBoxLayout, QWidget

from gui import demos
from gui.layout import HELP_PAGE
from gui.recent import RecentFiles
from gui.theme import GAP, MARGIN, PAD, signals, theme, ui_font
from gui.widgets.flow import Flow
from gui.widgets.picture_card import ARROWS, PictureCard
from gui.widgets.text_label import TextLabel


class Gallery(QScrollArea):
    """``play`` is emitted with the name of a demo, ``open`` with the path of a file."""

    play = Signal(str)
    open = Signal(str)
    back = Signal()
    """To what is open behind it."""

    def __init__(self, recent: RecentFiles, actions: Sequence[QAction], new: QMenu, parent: QWidget) -> None:
        """``actions``: the commands that have buttons here; ``new``: the menu of scenarios to start from."""
        super().__init__(parent)
        self._recent = recent
        self._paths: list[str] = []
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAccessibleName(self.tr("Start page"))
        self.setProperty(HELP_PAGE, "demos")
        page = QWidget()
        page.setBackgroundRole(QPalette.ColorRole.AlternateBase)
        self.setBackgroundRole(QPalette.ColorRole.AlternateBase)
        column = QVBoxLayout(page)
        column.setContentsMargins(3 * MARGIN, 2 * MARGIN, 3 * MARGIN, 2 * MARGIN)
        column.setSpacing(PAD)
        column.addLayout(self._head(actions, new))
        self.demos = [self._demo_card(shown) for shown in demos.shown()]
        column.addSpacing(GAP)
        column.addWidget(_heading(self.tr("Demos")))
        self._demo_flow = Flow(PAD)
        for card in self.demos:
            self._demo_flow.addWidget(card)
        column.addLayout(self._demo_flow)
        self._files_heading = _heading(self.tr("Files opened last"))
        column.addSpacing(GAP)
        column.addWidget(self._files_heading)
        self.files: list[PictureCard] = []
        self._file_flow = Flow(PAD)
        column.addLayout(self._file_flow)
        column.addStretch(1)
        self.setWidget(page)
        self._dark = theme().dark
        signals().changed.connect(self._dress)
        self.refresh()

    def _demo_card(self, shown: demos.Shown) -> PictureCard:
        count = self.tr("{count} stops").format(count=shown.stops)
        card = PictureCard(shown.title, shown.summary, count, lambda: QPixmap(str(shown.picture(theme().dark))))
        card.clicked.connect(lambda: self.play.emit(shown.name))
        return card

    def _head(self, actions: Sequence[QAction], new: QMenu) -> QHBoxLayout:
        title = TextLabel(lambda: ui_font(1.8, bold=True))
        title.setText("Walkscope")
        sentence = TextLabel(role="muted")
        sentence.setText(self.tr("What x86 processors and KVM do with page tables: play a demo, or begin your own."))
        words = QVBoxLayout()
        words.setSpacing(0)
        words.addWidget(title)
        words.addWidget(sentence)
        self.back_button = QPushButton()
        self.back_button.clicked.connect(self.back)
        self.back_button.hide()
        self.new = QPushButton(self.tr("New scenario"))
        self.new.setMenu(new)
        self.buttons = [_button(action) for action in actions]
        row = QHBoxLayout()
        row.setSpacing(GAP)
        row.addLayout(words, 1)
        for button in (self.back_button, self.new, *self.buttons):
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignBottom)
        return row

    # --- what is shown

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()

    def offer_back(self, name: str) -> None:
        """A way back to what is open, called ``name``; '': nothing is."""
        self.back_button.setText(self.tr("Back to {name}").format(name=name))
        self.back_button.setVisible(bool(name))

    def refresh(self) -> None:
        """The files opened last, as they are now."""
        paths = self._recent.paths()
        if paths != self._paths:
            self._paths = paths
            for card in self.files:
                self._file_flow.removeWidget(card)
                card.deleteLater()
            self.files = [self._file_card(path) for path in paths]
            for card in self.files:
                self._file_flow.addWidget(card)
        for card in self.files:
            card.load_again()
        self._files_heading.setVisible(bool(paths))

    def _file_card(self, path: str) -> PictureCard:
        card = PictureCard(Path(path).name, "", str(Path(path).parent), lambda: _picture_of(path))
        card.setToolTip(path)
        card.setAccessibleDescription(path)
        card.clicked.connect(lambda: self.open.emit(path))
        return card

    def _dress(self) -> None:
        """The pictures of demos are those of the colours."""
        if self._dark != theme().dark:
            self._dark = theme().dark
            for card in self.demos:
                card.load_again()

    # --- keys

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Arrows move among the cards; Esc goes back."""
        key = Qt.Key(event.key())
        if key is Qt.Key.Key_Escape and not self.back_button.isHidden():
            self.back.emit()
        elif key not in ARROWS or not self._move(key):
            super().keyPressEvent(event)

    def _move(self, key: Qt.Key) -> bool:
        for cards, flow in ((self.demos, self._demo_flow), (self.files, self._file_flow)):
            for number, card in enumerate(cards):
                if card.hasFocus():
                    columns = flow.columns(flow.geometry().width())
                    by = {ARROWS[0]: -1, ARROWS[1]: 1, ARROWS[2]: -columns, ARROWS[3]: columns}[key]
                    return self._focus([*self.demos, *self.files], card, cards, number + by)
        return False

    def _focus(self, every: list[PictureCard], at: PictureCard, cards: list[PictureCard], to: int) -> bool:
        """The card at ``to`` of ``cards``; past their ends the next one of all."""
        if 0 <= to < len(cards):
            wanted = cards[to]
        else:
            beyond = every.index(at) + (1 if to >= len(cards) else -1)
            wanted = every[max(0, min(beyond, len(every) - 1))]
        wanted.setFocus(Qt.FocusReason.TabFocusReason)
        self.ensureWidgetVisible(wanted)
        return True


def _picture_of(path: str) -> QPixmap:
    """The picture saved in a scenario; an empty one where there is none."""
    if not path.endswith(".wscope"):
        return QPixmap()
    from gui.thumbnails import SIZE, icon

    return icon(path).pixmap(SIZE)


def _heading(text: str) -> TextLabel:
    label = TextLabel(lambda: ui_font(1.1, bold=True))
    label.setText(text)
    return label


def _button(action: QAction) -> QPushButton:
    button = QPushButton(action.text().replace("&", ""))
    button.setToolTip(action.toolTip())
    button.clicked.connect(action.trigger)
    return button
