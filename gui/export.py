"""Reports into files: a page, PDF or text, of the open scenario or of the findings of a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from gui.dialogs.prompts import Prompts
from gui.document import Document
from gui.files import Files
from gui.jobs import WindowJobs
from gui.recent import RecentFiles

if TYPE_CHECKING:
    from engine.report.model import Report
    from gui.models.findings import Found

KEY = "export"
Progress = Callable[[float], None]
"""Is called with the share that is done; raises where the user has cancelled."""
Make = Callable[[Progress], "Report"]


def _text(report: Report, progress: Progress) -> bytes:
    from engine.report.text import render

    return render(report).encode()


def _page(report: Report, progress: Progress) -> bytes:
    from engine.report.html import render

    return render(report).encode()


def _pdf(report: Report, progress: Progress) -> bytes:
    from gui.report_pdf import pdf

    return pdf(report, progress)


FORMS: dict[str, Callable[[Report, Progress], bytes]] = {".html": _page, ".pdf": _pdf, ".txt": _text}
"""What a report can be, by the ending of its file's name."""
COMPOSED = 0.8
"""The share of the work that is done when the report is made and only its form is missing."""


class Exporter(QObject):
    """Asks for a file and fills it in a worker. ``told`` carries a sentence; ``done`` the path that was written."""

    told = Signal(str)
    done = Signal(str)

    def __init__(
        self, document: Document, files: Files, recent: RecentFiles, prompts: Prompts, window: QWidget
    ) -> None:
        super().__init__(window)
        self._document = document
        self._files = files
        self._recent = recent
        self._prompts = prompts
        self._window = window

    def export_scenario(self) -> None:
        """A report of the open scenario: all its steps, and the moments that are compared now where any is pinned."""
        from engine.report.compose import Asked, report
        from engine.report.effects import Moment

        document, place = self._document, self._document.place
        moments = tuple(Moment(pin.step, pin.pcpu) for pin in document.pins) if document.is_pinned else None
        asked = Asked(self._files.shown_name, moments, place.vm, place.vcpu)  # type: ignore[arg-type]
        make = partial(report, document.scenario, document.images, asked)
        self.export(make, Path(self._files.shown_name).stem, self.tr("Export the report"))

    def export_findings(self, found: Found) -> None:
        """The findings of a step, as they are shown."""
        from gui.models.findings import report

        name = self.tr("{scenario}, findings at step {step}")
        name = name.format(scenario=Path(self._files.shown_name).stem, step=found.step)
        made = report(found, self._files.shown_name)
        self.export(lambda progress: made, name, self.tr("Export the findings"))

    def export(self, make: Make, name: str, title: str) -> None:
        """Ask for a file, called ``name`` unless the user says otherwise, and put what ``make`` gives into it."""
        folder = Path(self._files.file.folder if self._files.file else self._recent.folder())
        path = self._prompts.report_to_save(self._window, title, str(folder / name))
        if path:
            self._write(path if Path(path).suffix.lower() in FORMS else f"{path}.html", make)

    def _write(self, path: str, make: Make) -> None:
        form = FORMS[Path(path).suffix.lower()]

        def work(progress: Progress) -> str:
            from storage import disk, files
            from storage.errors import named

            found = make(lambda share: progress(share * COMPOSED))
            data = form(found, lambda share: progress(COMPOSED + share * (1 - COMPOSED)))
            with named(path, writing=True):
                disk.replace(path, data, None, files.same_as(data))
            return path

        text = self.tr("Writing {name}").format(name=Path(path).name)
        failed = partial(self._failed, path, make)
        WindowJobs.of(self._document).start(text, work, self._written, key=KEY, failed=failed)

    def _written(self, path: str) -> None:
        self.told.emit("")
        self.done.emit(path)

    def _failed(self, path: str, make: Make, sentence: str) -> None:
        ways = {"other": self.tr("Choose another file…"), "again": self.tr("Try again")}
        match self._prompts.choose(self._window, sentence, ways):
            case "other":
                self.export(make, Path(path).stem, self.tr("Export the report"))
            case "again":
                self._write(path, make)
