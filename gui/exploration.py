"""A break in a demo: a whole workbench with a copy of the scenario, thrown away when it is closed."""

from PySide6.QtCore import QSettings, Qt, Signal
from PySide6.QtGui import QCloseEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QMainWindow, QPushButton

from engine.demo import Stop
from engine.machine import Images
from engine.memory.library import Library
from engine.scenario import Scenario
from gui import stops
from gui.dialogs.prompts import Prompts
from gui.main_window import MainWindow
from gui.theme import GAP, GRID


class Exploration(MainWindow):
    """Opens at a stop. Esc, or closing it, goes back to the demo, which nothing here has changed."""

    left = Signal()

    def __init__(
        self, settings: QSettings, scenario: Scenario, images: Images, stop: Stop, name: str,
        prompts: Prompts | None = None,
    ) -> None:  # fmt: skip
        super().__init__(settings, prompts)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.fill(images if isinstance(images, Library) else Library())
        self.document.open(scenario, stop.step, images)
        self.files.begun(name)
        stops.show(self.document, stop)
        self.bring(stop.view, stop.beside)
        self.center.add_strip(self._strip(name))
        QShortcut(QKeySequence(Qt.Key.Key_Escape), self, self.close)

    def _strip(self, name: str) -> QFrame:
        strip = QFrame()
        strip.setObjectName("strip")
        text = self.tr("A copy of “{name}” to explore: whatever you do here, the demo stays as it is.")
        label = QLabel(text.format(name=name))
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        self.back = QPushButton(self.tr("Back to the demo (Esc)"))
        self.back.clicked.connect(self.close)
        row = QHBoxLayout(strip)
        row.setContentsMargins(5 * GRID, GRID, 3 * GRID, GRID)
        row.setSpacing(GAP)
        row.addWidget(label, 1)
        row.addWidget(self.back)
        return strip

    def closeEvent(self, event: QCloseEvent) -> None:
        """Nobody is asked: it is a copy."""
        self.files.close()
        self.player.stop()
        QMainWindow.closeEvent(self, event)
        self.left.emit()
