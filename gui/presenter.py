"""Plays a demo: a full screen of what a stop says beside the view that it is about, by the keys that clickers send.

The scenario is open in a document of its own, and shown by the same views as ever: nothing is worked out here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QSettings, Qt, Signal
from PySide6.QtGui import QCloseEvent, QGuiApplication, QKeySequence, QPalette, QResizeEvent, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QStackedWidget, QVBoxLayout, QWidget

from engine.demo import Demo, Stop
from engine.errors import InputError
from engine.machine import Images
from engine.narration.narrator import Narrator
from engine.scenario import Scenario
from gui import stops
from gui.describe import describe
from gui.document import Document
from gui.explain import engine_text
from gui.settings import Appearance
from gui.theme import GAP, GRID, MARGIN, PAD, ui_font
from gui.view_makers import MAKERS
from gui.widgets.elided import ElidedLabel
from gui.widgets.prose import Prose
from gui.widgets.stop_pane import Said
from gui.widgets.text_label import TextLabel
from gui.widgets.zoom_buttons import Zooming

if TYPE_CHECKING:
    from gui.exploration import Exploration

DESIGNED, LARGE = 1080, 1.3
"""On a screen of so many pixels' height text is so many times as large as at a desk."""
SAID, BESIDE = 32, 26
"""Percent of the width for what is said, and for a second view beside a picture."""
LISTS = ("machine", "timeline", "findings", "inspector")
"""Views that are lists: two of them share the room evenly."""


class Presenter(QWidget):
    """Page Up and Down, Home and End go between stops; Left and Right through the walk; Esc leaves."""

    left = Signal()
    """It was closed."""

    def __init__(self, settings: QSettings, scenario: Scenario, images: Images, name: str = "") -> None:
        """``name``: of the demo, where it has no title."""
        super().__init__()
        self._settings = settings
        self._appearance = Appearance(settings)
        self._scenario = scenario
        self._images = images
        self._name = scenario.demo.title or name
        self._number = 0
        self._views: dict[str, QWidget] = {}
        self._exploration: Exploration | None = None
        self.setWindowTitle(self.tr("{name} — Walkscope").format(name=self._name))
        self.document = Document(images, self)
        self.document.open(scenario, 0, images)
        self._narrator = Narrator(self.document.replay)
        self.notes = SpeakerNotes(self)
        self._build()
        self._listen(self)
        self._listen(self.notes)

    def _build(self) -> None:
        self.said = Said()
        self.said.answer_wanted.connect(self.said.reveal)
        self.said.hint.setText(
            self.tr("Page Up, Down: stops · ← →: walk · E: explore · N: notes · Esc: leave")
        )
        self.event_line = ElidedLabel()
        self.event_line.setContentsMargins(MARGIN, PAD, MARGIN, PAD)
        self.main, self.beside = QStackedWidget(), QStackedWidget()
        pictures = QSplitter(Qt.Orientation.Horizontal)
        pictures.setHandleWidth(1)
        pictures.addWidget(self.main)
        pictures.addWidget(self.beside)
        pictures.setChildrenCollapsible(False)
        self._pictures = pictures
        shown = QWidget()
        column = QVBoxLayout(shown)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.event_line)
        column.addWidget(pictures, 1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(1)
        row.addWidget(self.said, SAID)
        row.addWidget(shown, 100 - SAID)
        self.darkness = QWidget(self)
        self.darkness.setAutoFillBackground(True)
        self.darkness.setPalette(QPalette(Qt.GlobalColor.black))
        self.darkness.hide()

    def _listen(self, window: QWidget) -> None:
        """The keys count in both windows: a clicker types into whichever has the focus."""
        keys: tuple[tuple[Qt.Key, Callable[[], object]], ...] = (
            (Qt.Key.Key_PageDown, self.next),
            (Qt.Key.Key_PageUp, self.previous),
            (Qt.Key.Key_Home, lambda: self.go_to(0)),
            (Qt.Key.Key_End, lambda: self.go_to(len(self.demo.stops) - 1)),
            (Qt.Key.Key_Right, lambda: self._step(1)),
            (Qt.Key.Key_Left, lambda: self._step(-1)),
            (Qt.Key.Key_E, self.explore),
            (Qt.Key.Key_N, self.notes.toggle),
            (Qt.Key.Key_B, self.turn_dark),
            (Qt.Key.Key_Period, self.turn_dark),
            (Qt.Key.Key_Escape, self.close),
        )
        for key, act in keys:
            QShortcut(QKeySequence(key), window, act)

    # --- where we are

    @property
    def demo(self) -> Demo:
        return self._scenario.demo

    @property
    def number(self) -> int:
        """The number of the stop, from 0."""
        return self._number

    @property
    def stop(self) -> Stop:
        return self.demo.stops[self._number]

    def begin(self, number: int = 0) -> None:
        """Fill the screen, from stop ``number`` on."""
        screen = QGuiApplication.primaryScreen().geometry()
        self.fit_text(screen.height())
        self.setGeometry(screen)  # also where no window manager gives it the screen
        self.showFullScreen()
        self.activateWindow()
        self.go_to(number)

    def fit_text(self, height: int) -> None:
        """Text as large as a screen of ``height`` pixels wants it."""
        self._appearance.enlarge(max(1.0, LARGE * height / DESIGNED))

    def next(self) -> None:
        """The answer, where one waits; else the next stop."""
        if self.said.waits:
            self.said.reveal()
        else:
            self.go_to(self._number + 1)

    def previous(self) -> None:
        self.go_to(self._number - 1)

    def turn_dark(self) -> None:
        """Nothing is shown, so that people listen; the same key, or any stop, shows it again."""
        self.darkness.setGeometry(self.rect())
        self.darkness.raise_()
        self.darkness.setVisible(not self.darkness.isVisible())

    def go_to(self, number: int) -> None:
        if not 0 <= number < len(self.demo.stops):
            return
        self.darkness.hide()
        self._number = number
        stop = self.stop
        if self.document.scenario is not self._scenario:  # somebody changed what is only shown
            self.document.open(self._scenario, stop.step, self._images)
            self._narrator = Narrator(self.document.replay)
        stops.show(self.document, stop)
        self._place(self.main, stop.view)
        self.beside.setVisible(bool(stop.beside))
        if stop.beside:
            self._place(self.beside, stop.beside)
        self._share()
        self._say(stop)
        view = self.main.currentWidget()
        if isinstance(view, Zooming):
            view.zoom_to(stop.zoom / 100)
        self.setFocus()

    def _place(self, stack: QStackedWidget, name: str) -> None:
        """Show view ``name`` in ``stack``; it is made when it is first needed, and moves where it is wanted."""
        if name not in self._views:
            self._views[name] = MAKERS[name](self.document, None)
        view = self._views[name]
        if stack.indexOf(view) < 0:
            stack.addWidget(view)
        stack.setCurrentWidget(view)

    def _share(self) -> None:
        width = self._pictures.width()
        if not self.demo.stops:
            return
        share = BESIDE / (100 - SAID) if self.stop.view not in LISTS else 0.5
        beside = round(width * share) if self.stop.beside else 0
        self._pictures.setSizes([width - beside, beside])

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._share()

    def _say(self, stop: Stop) -> None:
        texts = (stop.title, stop.text, stop.question, stop.answer)
        title, text, question, answer = (self._filled(stop, said) for said in texts)
        demo = "" if title == self._name else self._name
        self.said.show_stop(self._number, len(self.demo.stops), demo, title, text, question, answer)
        self.event_line.show_text(self._event(self.document.step))
        coming = self.demo.stops[self._number + 1] if self._number + 1 < len(self.demo.stops) else None
        then = self._filled(coming, coming.title) if coming else ""
        self.notes.show_stop(title, self._filled(stop, stop.notes), then)

    def _filled(self, stop: Stop, text: str) -> str:
        """The text with its fields; with what is wrong where one cannot be filled."""
        try:
            return self._narrator.fill(stop, text)
        except InputError as error:
            return self.tr("{text}\n\n*{problem}*").format(text=text, problem=engine_text(str(error)))

    def _event(self, step: int) -> str:
        if not step:
            return self.tr("Step 0: the start")
        replay = self.document.replay
        line = describe(self._scenario.events[step - 1], replay.state(step), replay.refusal(step))
        text = self.tr("Step {step}: {event}. {news}") if line.subtitle else self.tr("Step {step}: {event}")
        return text.format(step=step, event=line.title, news=engine_text(line.subtitle))

    def _step(self, by: int) -> None:
        self.document.go_to_reference((self.document.reference or 0) + by)

    # --- a break

    def explore(self) -> None:
        """A workbench with a copy of the scenario at this stop; closing it comes back here."""
        from gui.exploration import Exploration

        if self._exploration is None:
            self._appearance.enlarge(1.0)
            self._exploration = Exploration(self._settings, self._scenario, self._images, self.stop, self._name)
            self._exploration.left.connect(self._come_back)
            self._exploration.showMaximized()
            self._exploration.activateWindow()

    @property
    def exploration(self) -> Exploration | None:
        return self._exploration

    def _come_back(self) -> None:
        self._exploration = None
        self.fit_text(self.height())
        self.go_to(self._number)
        self.activateWindow()

    def closeEvent(self, event: QCloseEvent) -> None:
        if self._exploration is not None:
            self._exploration.close()
        self.notes.close()
        self._appearance.enlarge(1.0)
        super().closeEvent(event)
        self.left.emit()


class SpeakerNotes(QWidget):
    """A second window, for the speaker's own screen: notes to this stop, and what comes next."""

    def __init__(self, presenter: QWidget) -> None:
        super().__init__(presenter, Qt.WindowType.Window)
        self._presenter = presenter
        self.setWindowTitle(self.tr("Speaker notes — Walkscope"))
        self.title = TextLabel(lambda: ui_font(1.3, bold=True), wrap=True)
        self.notes = Prose(1.3)
        self.notes.setAccessibleName(self.tr("Speaker notes"))
        self.notes.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.coming = TextLabel(role="muted", wrap=True)
        column = QVBoxLayout(self)
        column.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        column.setSpacing(GAP)
        column.addWidget(self.title)
        column.addWidget(self.notes, 1)
        column.addWidget(self.coming)
        self.resize(160 * GRID, 100 * GRID)

    def show_stop(self, title: str, notes: str, coming: str) -> None:
        self.title.setText(title)
        self.notes.show_text(notes or self.tr("*No notes to this stop.*"))
        text = self.tr("Next: {title}").format(title=coming) if coming else self.tr("This is the last stop.")
        self.coming.setText(text)

    def toggle(self) -> None:
        """Show or hide it, on another screen where there is one."""
        if self.isVisible():
            self.hide()
            return
        others = [screen for screen in QGuiApplication.screens() if screen is not self._presenter.screen()]
        if others:
            self.move(others[0].availableGeometry().topLeft())
        self.show()
