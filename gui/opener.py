"""Opens images and scenarios: by dialog, drop, command line and recent files. One path for all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from engine import events as ev
from engine.arch.registers import Registers
from engine.arch.rights import FETCH
from engine.errors import InputError
from engine.memory.image import Image
from engine.memory.library import Library
from engine.scenario import Scenario
from gui import scenarios
from gui.dialogs.prompts import Prompts
from gui.document import Document, Query
from gui.files import SUFFIX, Files
from gui.jobs import Report, WindowJobs
from gui.recent import RecentFiles
from gui.sights import IMAGE, is_shown, opening, sights
from storage.content import Content

if TYPE_CHECKING:
    from storage.files import File, Opened

KEY = "open"


class Opener(QObject):
    """What is open stays open until the new image has been read. ``opened`` is emitted when it has; ``gave_up`` where
    the file that a window was made for cannot be opened."""

    opened = Signal()
    gave_up = Signal()

    def __init__(
        self, document: Document, files: Files, library: Library, recent: RecentFiles, prompts: Prompts,
        window: QWidget,
    ) -> None:  # fmt: skip
        super().__init__(window)
        self._document = document
        self._jobs = WindowJobs.of(document)
        self._files = files
        self._library = library
        self._recent = recent
        self._prompts = prompts
        self._window = window
        self._is_starting = False

    def start(self, path: str) -> None:
        """Open the file that a window begins with."""
        self._is_starting = True
        self.open(path)

    def ask(self) -> None:
        """Let the user choose a file."""
        path = self._prompts.image_to_open(self._window, self._recent.folder())
        if path:
            self.open(path)

    def open(self, path: str) -> None:
        """Open the image in the file ``path``; where it cannot be read, a sentence says why and all stays as it is."""
        if not self._files.may_leave():
            return
        absolute = str(Path(path).absolute())
        if absolute.endswith((scenarios.SUFFIX, SUFFIX)):
            self._open_scenario(absolute)
            return
        self._read(absolute, lambda image: self._show(absolute, image))

    def _open_scenario(self, path: str) -> None:
        if path.endswith(scenarios.SUFFIX):
            try:
                content = scenarios.read(path)
            except InputError as error:
                self._failed(path, str(error))
                return
            self._arrived(path, content, None)
            return

        def work(report: Report) -> "Opened":
            from storage import files

            return files.open_file(path)

        text = self.tr("Opening {name}").format(name=Path(path).name)
        self._jobs.start(
            text, work, lambda found: self._arrived(path, found.content, found.file), key=KEY,
            failed=lambda sentence: self._failed(path, sentence), stopped=self._gave_up,
        )  # fmt: skip

    def _arrived(self, path: str, content: Content, file: "File | None") -> None:
        """A scenario was read. Images outside its folder are opened only if the user says so."""
        from storage import embedding, files, images

        permit = images.Permit(files.folder_of(path))
        outside = permit.to_ask(content)
        text = self.tr("{name} names images outside its folder. May they be opened?\n\n{paths}")
        question = text.format(name=Path(path).name, paths="\n".join(outside[:10]))
        if outside and self._prompts.choose(self._window, question, {"allow": self.tr("Open them")}):
            for image in outside:
                permit.allow(image)
        shelf = embedding.Shelf(content, permit, self._library)
        self._files.show(content, shelf, file, Path(path).name)
        self._recent.add(path)
        self._has_opened()

    def revert(self) -> None:
        """What is in the file takes the place of what is open."""
        file = self._files.file
        if file is not None and self._files.may_discard():
            self._open_scenario(file.path)

    def open_built_in(self, sight: int = 0) -> None:
        """Walk sight ``sight`` of the image that comes with the program, which is opened unless it is open already."""
        if is_shown(self._document.scenario):
            self._document.ask(sights()[sight].query)
        elif self._files.may_leave():
            self._read(IMAGE, lambda image: self._show_built_in(sight))

    def _read(self, path: str, done: Callable[[Image], None]) -> None:
        def work(report: Report) -> Image:
            return self._library.load(path, progress=report)

        text = self.tr("Opening {name}").format(name=self._library.file(path).name)
        self._jobs.start(
            text, work, done, key=KEY, failed=lambda sentence: self._failed(path, sentence), stopped=self._gave_up
        )

    def _failed(self, path: str, sentence: str) -> None:
        if not Path(path).exists():
            self._recent.remove(path)
            self.opened.emit()
        self._prompts.error(self._window, sentence)
        self._gave_up()

    def _gave_up(self) -> None:
        """Nothing was opened. A window that was made for it begins as without a file."""
        if self._is_starting:
            self._is_starting = False
            self.gave_up.emit()

    def _has_opened(self) -> None:
        self._is_starting = False
        self.opened.emit()

    def _show_built_in(self, sight: int) -> None:
        self._document.open(opening())
        self._files.begun(self._library.file(IMAGE).name)
        self._document.ask(sights()[sight].query)
        self._has_opened()

    def _show(self, path: str, image: Image) -> None:
        registers: Registers | None = None
        if not image.cpus:
            registers = self._registers(path)
            if registers is None:
                self._gave_up()
                return
        event = ev.OpenImage(ev.ImageRef(path, self._library.size(path)), registers)
        self._document.open(Scenario(events=(event,)))
        self._files.begun(Path(path).name)
        refused = self._document.replay.refusal(1)
        if refused is not None:
            self._prompts.error(self._window, refused.reason)
            return
        query = _first_query(image)
        if query is not None:
            self._document.ask(query)
        self._recent.add(path)
        self._has_opened()

    def _registers(self, path: str) -> Registers | None:
        from gui.dialogs.image_dialog import ImageDialog

        features = Scenario().configuration.features
        dialog = ImageDialog(Path(path).name, features, self._window)
        accepted = self._prompts.run(dialog)
        return dialog.registers if accepted else None


def _first_query(image: Image) -> Query | None:
    """The instruction that the image's first CPU was about to fetch."""
    if not image.cpus:
        return None
    cpu = image.cpus[0]
    return Query(dict(cpu.pointers)["RIP"], FETCH, 3 if cpu.registers.cpl == 3 else 0)
