"""What is not saved, kept for the next start: every edit goes to the store of this session, at once.

The store needs a database, so it is begun with the first edit, or with a file; a look at the folder needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QStandardPaths

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.edits import Edit
    from storage.content import Content
    from storage.files import File
    from storage.recovery import Holder, Lost, Session


def state_folder() -> Path:
    """The folder of all sessions, the same as `storage.recovery.default_folder`."""
    state = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericStateLocation)
    return Path(state) / "walkscope" / "recovery"


class Keeper:
    """Keeps the edits of the open document. ``failed`` is given a sentence once when they cannot be kept any more."""

    def __init__(self, folder: Path, failed: Callable[[str], None]) -> None:
        self.folder = folder
        self._failed = failed
        self._session: Session | None = None
        self._is_failing = False

    def open(self, content: Content, file: File | None) -> None:
        """Another document is open, and what was not saved of the last one is not wanted any more."""
        self.discard()
        if file is not None:
            self._guarded(lambda: self._begin(content, file))

    def resume(self, session: Session) -> None:
        self.discard()
        self._session = session

    def record(self, before: Content, after: Content, file: File | None, text: str, edit: Edit | None = None) -> None:
        """``edit``, called ``text``, has led to ``after``. ``before``: as it was opened or saved, in ``file``."""

        def keep() -> None:
            session = self._session or self._begin(before, file)
            session.record(after, text, edit if len(session.unsaved) or edit_follows(before, after, edit) else None)

        self._guarded(keep)

    def saved(self, content: Content, file: File) -> None:
        """``content`` is in ``file``: nothing is unsaved any more."""

        def keep() -> None:
            (self._session or self._begin(content, file)).saved(content, file)

        self._guarded(keep)

    def discard(self) -> None:
        """What is not saved is not wanted."""
        if self._session is not None:
            self._session.discard()
            self._session = None

    def others(self, path: str) -> list[Holder]:
        """Other windows that have the file at ``path`` open."""
        from storage import recovery

        try:
            return recovery.holders(self.folder, path)
        except (OSError, InputError):  # a folder that cannot be read tells of nobody
            return []

    def lost(self) -> list[Lost]:
        """What sessions that died had not saved."""
        try:
            if not any(self.folder.glob("*.sqlite")):
                return []
            from storage import recovery

            return recovery.find(self.folder)
        except (OSError, InputError) as error:
            if isinstance(error, InputError):
                self._failed(str(error))
            else:
                text = QCoreApplication.translate(
                    "Keeper", "What was not saved cannot be looked for: {reason}; it is kept."
                )
                self._failed(text.format(reason=error.strerror))
            return []

    def _begin(self, content: Content, file: File | None) -> Session:
        from storage import recovery

        self._session = recovery.begin(self.folder, content, file)
        return self._session

    def _guarded(self, keep: Callable[[], object]) -> None:
        from storage.errors import StorageError

        try:
            keep()
        except StorageError as error:
            if not self._is_failing:
                self._failed(str(error))
            self._is_failing = True
        else:
            self._is_failing = False


def edit_follows(before: Content, after: Content, edit: Edit | None) -> bool:
    """Whether ``edit`` alone leads from ``before`` to ``after``: a session begun late needs the whole instead."""
    try:
        return edit is not None and edit.apply(before.scenario) == after.scenario
    except InputError:
        return False
