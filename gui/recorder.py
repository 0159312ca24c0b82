"""Writes each stop of a demo as a picture, with nobody there: what the presenter shows, once it has come to rest."""

import re
from pathlib import Path

from PySide6.QtCore import QEventLoop, QSettings, QSize, QTimer

from engine.errors import InputError
from engine.machine import Images
from engine.scenario import Scenario
from gui.jobs import runner
from gui.presenter import Presenter

SIZE = QSize(1920, 1080)
REST, PATIENCE = 60, 20_000
"""Milliseconds without any work under way after which a picture is at rest, and those after which it must be."""
FIRST_LOOK = 700
"""Milliseconds that a view which waits for a quiet moment takes to begin (`gui.views.findings`)."""


class Recorder:
    """Pictures go into a folder of ``folder`` for each demo. ``count``: how many there are by now."""

    def __init__(self, settings: QSettings, folder: str) -> None:
        self._settings = settings
        self._folder = Path(folder)
        self.count = 0

    def record(self, scenario: Scenario, images: Images, name: str) -> list[Path]:
        """All stops, those with a question twice: before and after its answer. Raises InputError with a sentence."""
        folder = self._folder / (name or "demo")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: no pictures can be written there ({error.strerror}).") from None
        presenter = Presenter(self._settings, scenario, images, name)
        presenter.fit_text(SIZE.height())
        presenter.resize(SIZE)
        presenter.show()
        written = []
        for number, stop in enumerate(scenario.demo.stops):
            presenter.go_to(number)
            title = _plain(presenter.said.title.text())
            rest(FIRST_LOOK if "findings" in (stop.view, stop.beside) else REST)
            written.append(self._write(presenter, folder / f"{number + 1:02}-{title}.png"))
            if presenter.said.waits:
                presenter.next()
                rest(REST)
                written.append(self._write(presenter, folder / f"{number + 1:02}b-{title}.png"))
        presenter.close()
        presenter.deleteLater()
        return written

    def _write(self, presenter: Presenter, path: Path) -> Path:
        if not presenter.grab().save(str(path)):
            raise InputError(f"{path}: the picture cannot be written; choose another folder.")
        self.count += 1
        return path


def rest(quiet: int = REST) -> None:
    """Let the program live until nothing has been under way for ``quiet`` milliseconds."""
    waited = idle = 0
    while idle < quiet and waited < PATIENCE:
        _live(10)
        waited += 10
        idle = 0 if runner().running else idle + 10


def _live(milliseconds: int) -> None:
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def _plain(title: str) -> str:
    """A title, as it is shown, as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "stop"
