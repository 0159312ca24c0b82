"""The file of the open document: its name, whether it is saved, saving it, and what else happens to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from engine import events as ev
from engine.edits import Edit
from engine.errors import InputError
from engine.memory.library import Library
from gui import scenarios
from gui.dialogs.prompts import Prompts
from gui.document import Document
from gui.pins import Pin
from gui.recent import RecentFiles
from gui.recovery import Keeper
from storage.content import Content
from storage.content import Pin as StoredPin

if TYPE_CHECKING:
    from storage.embedding import Shelf
    from storage.files import File
    from storage.recovery import Lost

SUFFIX = ".wscope"


class Files(QObject):
    """``changed`` is emitted where `name`, `is_modified` or the file is another; ``told`` carries a sentence."""

    changed = Signal()
    told = Signal(str)

    def __init__(
        self, document: Document, library: Library, recent: RecentFiles, prompts: Prompts, keeper: Keeper,
        window: QWidget, picture: Callable[[], bytes],
    ) -> None:  # fmt: skip
        """``picture`` takes the thumbnail, a PNG, that is saved with the document."""
        super().__init__(window)
        self._document = document
        self._library = library
        self._recent = recent
        self._prompts = prompts
        self._keeper = keeper
        self._window = window
        self._picture = picture
        self._base = Content()
        self._is_recovered = False
        self._told_of = ""
        self.file: File | None = None
        self.name = ""
        """Of the file, or of what the document was made from; '' for a scenario without any."""
        document.edited.connect(self._on_edit)
        document.undo_stack.cleanChanged.connect(self.changed)

    # --- what is open

    @property
    def path(self) -> str:
        """Where the file lies; '' where the document is in none."""
        return self.file.path if self.file else ""

    @property
    def is_modified(self) -> bool:
        return self._is_recovered or not self._document.undo_stack.isClean()

    @property
    def content(self) -> Content:
        """The document as it would be saved now."""
        pins = zip("AB", (self._document.pinned.a, self._document.pinned.b), strict=True)
        return msgspec.structs.replace(
            self._base,
            scenario=self._document.scenario,
            pins=tuple(StoredPin(name, pin.step, pin.pcpu) for name, pin in pins if pin),
            view_state={"step": self._document.step},
        )

    def begun(self, name: str = "") -> None:
        """The document is a new one, made from ``name``, and nothing is to be saved until it is edited."""
        self.file, self.name = None, name
        self._base = Content(scenario=self._document.scenario)
        self._is_recovered = False
        self._keeper.open(self._base, None)
        self.changed.emit()

    def show(self, content: Content, shelf: Shelf, file: File | None, name: str) -> None:
        """Open ``content``, from ``file`` or made from ``name``, with its images from ``shelf``."""
        self._show(content, shelf, file, name)
        self._is_recovered = False
        self._keeper.open(content, file)
        self._told_of = ""
        refusals = (self._document.replay.refusal(n) for n in self._image_steps())
        refused = next((refusal.reason for refusal in refusals if refusal), "")
        if file is not None:
            others = [holder.pid for holder in self._keeper.others(file.path)]
            if len(others) > 1:
                text = self.tr("{name} is open in another window too; save one of the two under another name.")
                refused = refused or text.format(name=name)
        self.told.emit(refused or (file.notice if file else ""))
        self.changed.emit()

    def _show(self, content: Content, shelf: Shelf, file: File | None, name: str) -> None:
        self._base, self.file, self.name = content, file, name
        scenarios.show(self._document, content.scenario, shelf)
        step = content.view_state.get("step")
        if isinstance(step, int):
            self._document.go_to_step(step)
        pins = {pin.name: Pin(pin.step, pin.pcpu) for pin in content.pins if pin.step <= self._document.last_step}
        if "A" in pins:
            self._document.pin_a(pins["A"].step, pins["A"].pcpu)
        if "B" in pins:
            self._document.pin_b(pins["B"].step, pins["B"].pcpu)

    def _image_steps(self) -> list[int]:
        return [n for n, event in enumerate(self._document.scenario.events, 1) if isinstance(event, ev.OpenImage)]

    def _on_edit(self, edit: Edit, text: str) -> None:
        self._keeper.record(self._base, self.content, self.file, text, edit)

    # --- saving

    def save(self) -> bool:
        """Into its file, or under a name that is asked for. Whether it is saved now."""
        self._document.settle()
        return self._save(self.file.path, self.file) if self.file else self.save_as()

    def save_as(self) -> bool:
        self._document.settle()
        path = self._ask_path(self.tr("Save the scenario"))
        return bool(path) and self._save(path, None)

    def save_copy(self) -> bool:
        """Write a copy; what is open stays what it is."""
        self._document.settle()
        path = self._ask_path(self.tr("Save a copy of the scenario"))
        return bool(path) and self._write(path, self._pictured(), None) is not None

    def _pictured(self) -> Content:
        return msgspec.structs.replace(self.content, thumbnail=self._picture())

    def _ask_path(self, title: str) -> str:
        folder = Path(self.file.folder if self.file else self._recent.folder())
        suggested = folder / f"{Path(self.name).stem or self.tr('scenario')}{SUFFIX}"
        path = self._prompts.scenario_to_save(self._window, title, str(suggested))
        return path if not path or path.endswith((SUFFIX, scenarios.SUFFIX)) else path + SUFFIX

    def _save(self, path: str, known: File | None) -> bool:
        content = self._pictured()
        written = self._write(path, content, known)
        if written is None:
            return False
        self._recent.add(written if isinstance(written, str) else written.path)
        if not isinstance(written, str):
            self._base, self.file, self.name = content, written, Path(written.path).name
            self._is_recovered = False
            self._told_of = ""
            self._keeper.saved(content, written)
            self._document.undo_stack.setClean()
            self.told.emit(written.notice)
        self.changed.emit()
        return True

    def _write(self, path: str, content: Content, known: File | None) -> File | str | None:
        """The file that was written, or its path where it is for exchange; None where it was not, and that was said."""
        from storage import files
        from storage.errors import Problem, StorageError

        try:
            if path.endswith(scenarios.SUFFIX):
                scenarios.write(content, path)
                return path
            return files.save(content, path, known)
        except InputError as error:
            ways = {"save-as": self.tr("Save under another name…"), "again": self.tr("Try again")}
            if isinstance(error, StorageError) and error.problem is Problem.CHANGED:
                ways["overwrite"] = self.tr("Overwrite it")
            match self._prompts.choose(self._window, str(error), ways):
                case "save-as":
                    other = self._ask_path(self.tr("Save the scenario"))
                    return self._write(other, content, None) if other else None
                case "again":
                    return self._write(path, content, known)
                case "overwrite":
                    return self._write(path, content, None)
            return None

    # --- leaving, and what others do

    def may_leave(self) -> bool:
        """Whether the document may be closed or give way to another: asked where something is not saved."""
        self._document.settle()
        if not self.is_modified:
            return True
        text = self.tr("{name} has changes that are not saved.").format(name=self.shown_name)
        ways = {"save": self.tr("Save"), "discard": self.tr("Discard the changes")}
        choice = self._prompts.choose(self._window, text, ways)
        return self.save() if choice == "save" else choice == "discard"

    def may_discard(self) -> bool:
        """Whether what is in the file may take the place of changes."""
        text = self.tr("{name} has changes that are not saved.").format(name=self.shown_name)
        ways = {"discard": self.tr("Discard the changes")}
        return not self.is_modified or bool(self._prompts.choose(self._window, text, ways))

    @property
    def shown_name(self) -> str:
        return self.name or self.tr("Untitled")

    def close(self) -> None:
        """The window is closed, and whoever is before it was asked."""
        self._keeper.discard()

    def look(self) -> None:
        """Tell, once, where another program changed or removed the file."""
        from storage import files
        from storage.errors import Problem

        if self.file is None:
            return
        problem = files.status(self.file)
        texts = {
            Problem.CHANGED: self.tr(
                "{name} was changed by another program; Revert shows what it is now, and Save As keeps what is here."
            ),
            Problem.ABSENT: self.tr("{name} is not there any more; what was in it is still open: save it again."),
        }
        text = texts[problem].format(name=self.name) if problem in texts else ""
        if text != self._told_of:
            self._told_of = text
            self.told.emit(text)

    # --- what sessions that died had not saved

    def recover(self) -> bool:
        """Offer what was not saved; whether the user took some of it up again."""
        lost = self._keeper.lost()
        if not lost:
            return False
        from gui.dialogs.recovery_dialog import RecoveryDialog

        dialog = RecoveryDialog(lost, self._keep_copy, self._prompts, self._window)
        accepted = self._prompts.run(dialog)
        chosen = dialog.chosen if accepted else None
        for other in dialog.left:
            if other is not chosen:
                other.release()
        return chosen is not None and self._resume(chosen)

    def _keep_copy(self, lost: Lost) -> bool:
        assert lost.content is not None
        path = self._ask_path(self.tr("Save a copy of the scenario"))
        return bool(path) and self._write(path, lost.content, None) is not None

    def _resume(self, lost: Lost) -> bool:
        from storage import embedding, files, images
        from storage.errors import StorageError
        from storage.recovery import Situation

        try:
            file = files.open_file(lost.path).file if lost.situation is Situation.AS_IT_WAS else None
            session, content = lost.resume()
        except StorageError as error:
            lost.release()
            self._prompts.error(self._window, str(error))
            return False
        permit = images.Permit(files.folder_of(lost.path) if lost.path else None)
        self._show(content, embedding.Shelf(content, permit, self._library), file, Path(lost.path).name)
        self._is_recovered = True
        self._keeper.resume(session)
        self.changed.emit()
        return True
