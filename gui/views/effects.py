"""Effects: A beside B. The same bytes read in two ways, what every address translates to, and what KVM does then."""

from functools import partial

import numpy as np
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from engine.arch.addresses import grouped
from engine.arch.rights import READ
from engine.arch.second_stage import Kind2
from engine.effects.axis import GRAVITY
from engine.effects.compare import Class, Side
from engine.effects.comparison import Band
from engine.machine.look import Place
from gui.document import Change, Document, Query
from gui.effect_texts import summary
from gui.jobs import WindowJobs, runner
from gui.models.effects import Advice, Picture, Question, answer, question, selected
from gui.models.ranges import RangesModel
from gui.models.readings import Reading, readings, selection
from gui.paint.marks import empty_state
from gui.paint.readings import MIDDLE
from gui.theme import GAP, GRID, MARGIN, signals, ui_font
from gui.widgets.bands_canvas import BandsCanvas
from gui.widgets.elided import ElidedLabel
from gui.widgets.legend import Legend
from gui.widgets.ranges_table import RangesTable
from gui.widgets.readings_canvas import ReadingsCanvas
from gui.widgets.side_header import SideHeader


class EffectsView(QWidget):
    """Compares the document's pins while it is visible; the comparison is made in a worker, late ones are dropped."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._jobs = WindowJobs.of(document)
        self._asked: Question | None = None
        self._picture: Picture | None = None
        self._showing = False
        self._wanted_zoom: float | None = None
        self._key = key = f"effects {id(self)}"
        self._build()
        document.changed.connect(self._on_change)
        self.destroyed.connect(lambda: runner().cancel(key))
        self.refresh()

    def _build(self) -> None:
        self.setAutoFillBackground(True)
        self.setBackgroundRole(QPalette.ColorRole.AlternateBase)
        self.head_a, self.head_b = SideHeader(self._document, "A"), SideHeader(self._document, "B")
        self.readings = ReadingsCanvas()
        self.readings.chosen.connect(self._choose_entry)
        self.bands = BandsCanvas()
        self.bands.chosen.connect(self.go_to)
        self.legend = Legend()
        self.model = RangesModel(self)
        self.legend.filtered.connect(self._filter)
        self.table = RangesTable(self.model)
        self.table.selectionModel().currentChanged.connect(self._on_row)
        self.summary = ElidedLabel()
        self.summary.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.summary.setProperty("role", "muted")
        self.setFocusProxy(self.table)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(MARGIN + GRID, GAP, MARGIN + GRID, MARGIN)
        layout.setSpacing(GRID)
        layout.addLayout(self._heads())
        layout.addWidget(self.readings)
        layout.addSpacing(GRID)
        layout.addLayout(self._title())
        layout.addWidget(self.bands)
        layout.addWidget(self.legend)
        layout.addSpacing(GRID)
        layout.addWidget(self.table, 1)
        self._empty = _Empty()
        self._stack = QStackedWidget()
        self._stack.addWidget(self._empty)
        area = QScrollArea()
        area.setWidget(page)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.viewport().setBackgroundRole(QPalette.ColorRole.AlternateBase)
        page.setBackgroundRole(QPalette.ColorRole.AlternateBase)
        self._stack.addWidget(area)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._stack)

    def _heads(self) -> QHBoxLayout:
        heads = QHBoxLayout()
        heads.setSpacing(MIDDLE)
        heads.addWidget(self.head_a, 1)
        heads.addWidget(self.head_b, 1)
        return heads

    def _title(self) -> QHBoxLayout:
        self._heading = QLabel()
        signals().changed.connect(self._dress)
        self._dress()
        title = QHBoxLayout()
        title.addWidget(self._heading)
        title.addWidget(self.summary, 1)
        return title

    def _dress(self) -> None:
        self._heading.setFont(ui_font(bold=True))

    # --- what is compared

    @property
    def picture(self) -> Picture | None:
        """The comparison that is shown; None while there is none."""
        return self._picture

    @property
    def advice(self) -> Advice | None:
        """What is said where there is nothing to show."""
        return self._empty.advice if self._stack.currentWidget() is self._empty else None

    def _on_change(self, change: Change) -> None:
        if not self.isVisible():
            return
        if change & (Change.SCENARIO | Change.STATE | Change.PINS | Change.WALK):
            self.refresh()
        elif change & Change.SELECTION:
            self._show_selection()

    def showEvent(self, event: QShowEvent) -> None:
        self.refresh()
        super().showEvent(event)

    def refresh(self) -> None:
        """Ask anew where what is asked has changed; what is shown stays until the answer is there."""
        asked = question(self._document)
        if isinstance(asked, Advice):
            self._jobs.cancel(self._key)
            self._asked = self._picture = None
            self._advise(asked)
        elif not asked.asks_as(self._asked):
            self._asked = asked
            text = self.tr("Comparing A and B")
            work = partial(answer, asked)
            self._jobs.start(text, work, self._show, key=self._key, stopped=self._on_stopped)
        else:
            self._show_selection()

    @property
    def zoom(self) -> float:
        return self.bands.zoom

    def zoom_to(self, zoom: float) -> None:
        """Zoom the bands, once there are any."""
        self._wanted_zoom = zoom
        self._zoom_bands()

    def _zoom_bands(self) -> None:
        if self._picture is not None and self._wanted_zoom is not None:
            self.bands.zoom_to(self._wanted_zoom)
            self._wanted_zoom = None

    def _on_stopped(self) -> None:
        self._asked = self._picture = None
        text = self.tr("The comparison was cancelled. Go to another step, or come back to this tab, to start it again.")
        self._advise(Advice(self.tr("Not compared"), text))

    def _advise(self, advice: Advice) -> None:
        self._empty.show_advice(advice)
        self._stack.setCurrentWidget(self._empty)

    def _show(self, picture: Picture) -> None:
        self._picture = picture
        comparison, asked = picture.comparison, picture.asked
        self.head_a.show_side(asked.pins[0], asked.a.pcpu, self._walks(asked.a, None))
        self.head_b.show_side(asked.pins[1], asked.b.pcpu, self._walks(asked.b, asked.a))
        self._heading.setText(
            self.tr("What every guest-physical address translates to")
            if asked.b.l1 is None
            else self.tr("What every L2-physical address translates to")
        )
        self.summary.show_text(summary(comparison))
        self.bands.show_picture(picture)
        self.legend.show_counts(_counts(comparison.band_a, comparison.band_b))
        self.model.show_comparison(comparison)
        self._stack.setCurrentIndex(1)
        self._show_selection()
        self._zoom_bands()

    def _walks(self, side: Side, other: Side | None) -> str:
        """How the hardware of a side walks its tables."""
        register = "nCR3" if side.second.kind is Kind2.NPT else "EPTP"
        root = side.second.paging.root
        if other is not None and other.second.paging.root == root:
            return self.tr("{name}, the same {register}").format(name=side.second.name, register=register)
        text = self.tr("{name}, {register} {root}")
        return text.format(name=side.second.name, register=register, root=grouped(root))

    # --- what is selected

    def go_to(self, gpa: int) -> None:
        """Walk guest-physical ``gpa``: everything shows it."""
        query, place = self._document.query, self._document.place
        access, cpl = (query.access, query.cpl) if query else (READ, 3)
        at = place if place.pcpu is None else Place()
        self._document.ask(Query(gpa, access, cpl, Place(vm=at.vm, vcpu=at.vcpu, physical=True)))

    def _choose_entry(self, reading: Reading) -> None:
        entry = selection(reading)
        if entry is not None:
            self._document.select(entry)

    def _on_row(self, index: QModelIndex) -> None:
        if index.isValid() and not self._showing:
            self.go_to(self.model.gpa(index.row()))

    def _filter(self, kinds: set[Class]) -> None:
        self.model.show_only(kinds | ({Class.RESTORED} if Class.SAME in kinds else set()))
        self._show_selection()

    def _show_selection(self) -> None:
        picture = self._picture
        if picture is None:
            return
        gpa = selected(self._document, picture)
        entry = self._document.selection
        self.bands.select(gpa)
        self.readings.show_readings(
            readings(picture.asked.a, picture.asked.b, gpa), (entry.table >> 12, entry.index) if entry else None
        )
        row = self.model.row_of(gpa)
        self._showing = True
        self.table.setCurrentIndex(self.model.index(row, 0) if row is not None else QModelIndex())
        self._showing = False


def _counts(a: Band, b: Band) -> dict[Class, int]:
    """Pages of each class on side B; classes that only A has count 0."""
    found = {}
    for kind in GRAVITY:
        count = int(b.size[b.kind == kind].sum()) >> 12
        if count or np.any(a.kind == kind):
            found[kind] = count
    return found


class _Empty(QWidget):
    """What is said where there is nothing to compare."""

    def __init__(self) -> None:
        super().__init__()
        self.advice: Advice | None = None

    def show_advice(self, advice: Advice) -> None:
        self.advice = advice
        self.setAccessibleName(advice.title)
        self.setAccessibleDescription(advice.text)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.advice is not None:
            painter = QPainter(self)
            empty_state(painter, self.rect().toRectF().adjusted(MARGIN, 0, -MARGIN, 0), self.advice.title,
                        self.advice.text)  # fmt: skip
