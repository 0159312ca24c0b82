"""Strips above the views: the sights of the built-in image, and what there is to say about the address just walked."""

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QButtonGroup, QFrame, QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from engine.arch.addresses import grouped
from engine.arch.faults import GeneralProtection, PageFault, Reason
from gui.document import Change, Document
from gui.enumeration import Enumeration
from gui.icons import icon
from gui.sights import is_shown, sights
from gui.theme import GRID, follow


class SightsStrip(QFrame):
    """Five addresses to choose from, and a sentence on the one that is walked. Gone with another image."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("strip")
        self._document = document
        self._sights = sights()
        self.buttons = QButtonGroup(self)
        self.buttons.setExclusive(False)
        title = _ShyLabel(self.tr("Worth seeing"))
        title.setProperty("role", "muted")
        row = QHBoxLayout()
        row.setSpacing(GRID)
        row.addWidget(title)
        row.addSpacing(GRID)
        for number, sight in enumerate(self._sights):
            row.addWidget(self._button(number, sight.title, sight.sentence))
        row.addStretch()
        row.addWidget(self._closer())
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.sentence.setContentsMargins(0, 0, 0, GRID)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(5 * GRID, GRID, 3 * GRID, GRID)
        layout.setSpacing(GRID)
        layout.addLayout(row)
        layout.addWidget(self.sentence)
        self._closed = False
        document.changed.connect(self._on_change)
        self._show()

    def _button(self, number: int, title: str, sentence: str) -> QToolButton:
        button = QToolButton()
        button.setText(title)
        button.setToolTip(sentence)
        button.setCheckable(True)
        button.clicked.connect(lambda: self.go(number))
        self.buttons.addButton(button, number)
        return button

    def _closer(self) -> QToolButton:
        button = QToolButton()
        button.setToolTip(self.tr("Hide these addresses"))
        button.setAccessibleName(button.toolTip())
        button.clicked.connect(self._close)
        follow(button, lambda: button.setIcon(icon("close")))
        return button

    def go(self, number: int) -> None:
        """Walk the address of sight ``number`` (from 0)."""
        self._document.ask(self._sights[number].query)
        self._show()

    def _close(self) -> None:
        self._closed = True
        self.hide()

    def _on_change(self, change: Change) -> None:
        if change & Change.SCENARIO and not self._document.undo_stack.count():
            self._closed = False
        if change & (Change.SCENARIO | Change.WALK):
            self._show()

    def _show(self) -> None:
        query = self._document.query
        self.setVisible(is_shown(self._document.scenario) and not self._closed)
        walked = [number for number, sight in enumerate(self._sights) if sight.query == query]
        for number in range(len(self._sights)):
            self.buttons.button(number).setChecked(number in walked)
        self.sentence.setText(self._sights[walked[0]].sentence if walked else "")
        self.sentence.setVisible(bool(walked))


class _ShyLabel(QLabel):
    """Text that takes no room, and is not shown, where there is not enough for all of it."""

    def minimumSizeHint(self) -> QSize:
        return QSize(0, super().minimumSizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.width() >= self.sizeHint().width():
            super().paintEvent(event)


class NoticeStrip(QFrame):
    """One sentence: what is wrong with the address typed, or where the nearest pages are of one that is not mapped."""

    walk = Signal(object)
    """The user clicked an address (int)."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._enumeration = Enumeration.of(document)
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.label.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.label.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse
            | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
            | Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.label.linkActivated.connect(lambda link: self.walk.emit(int(link, 16)))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(5 * GRID, 2 * GRID, 5 * GRID, 2 * GRID)
        layout.addWidget(self.label)
        self.hide()
        self._enumeration.ready.connect(self._show_nearest)
        document.changed.connect(self._on_change)

    def tell(self, sentence: str) -> None:
        """A sentence on what cannot be done; '' takes it away."""
        self._say(sentence, "hazard")

    def _say(self, text: str, style: str) -> None:
        if self.objectName() != style:
            self.setObjectName(style)
            for widget in (self, self.label):
                widget.style().unpolish(widget)
                widget.style().polish(widget)
        # A sentence may quote what the user typed: only our own text has links.
        self.label.setTextFormat(Qt.TextFormat.PlainText if style == "hazard" else Qt.TextFormat.RichText)
        self.label.setText(text)
        self.setVisible(bool(text))

    def _on_change(self, change: Change) -> None:
        if change & Change.WALK:
            self._say("", "strip")
            if self._is_unmapped():
                self._enumeration.ask()

    def _is_unmapped(self) -> bool:
        walk = self._document.walk
        match walk.outcome if walk else None:
            case PageFault(reason=Reason.NOT_PRESENT) | GeneralProtection(when=""):
                return True
        return False

    def _show_nearest(self, mappings: object) -> None:
        """Names the runs below and above the address, each with a link to walk its end."""
        walk = self._document.walk
        if walk is None or not self._is_unmapped() or mappings is not self._enumeration.mappings:
            return
        from engine.arch.mappings import nearest

        below, above = nearest(mappings, walk.linear)  # type: ignore[arg-type]
        ends = [self._range(mappings, row) for row in (below, above) if row is not None and below != above]
        text = {
            2: self.tr("{address} is not mapped. The nearest pages are {first} below and {second} above."),
            1: self.tr("{address} is not mapped. The nearest pages are {first}."),
            0: self.tr("{address} is not mapped, and no page is."),
        }[len(ends)]
        first, second = [*ends, "", ""][:2]
        self._say(text.format(address=grouped(walk.linear), first=first, second=second), "strip")

    def _range(self, mappings: object, row: int) -> str:
        start, last = int(mappings.va[row]), int(mappings.last[row])  # type: ignore[attr-defined]
        end = last if self._is_above(last) else start
        return f'<a href="{end:#x}">{grouped(start)} – {grouped(last)}</a>'

    def _is_above(self, last: int) -> bool:
        """Whether the run that ends at ``last`` lies below the address, so that its end is the nearer one."""
        walk = self._document.walk
        return walk is not None and last < walk.linear
