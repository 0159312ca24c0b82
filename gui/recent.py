"""What the window remembers of files: those opened last, and the folder to look in next."""

from pathlib import Path

from PySide6.QtCore import QSettings

MOST = 10
_FILES, _FOLDER = "files/recent", "files/folder"


class RecentFiles:
    """Paths of the files opened last, the newest first."""

    def __init__(self, settings: QSettings) -> None:
        self._settings = settings

    def paths(self) -> list[str]:
        stored: object = self._settings.value(_FILES)
        paths = stored if isinstance(stored, list) else [stored]  # QSettings gives a list of one as a string
        return [path for path in paths if isinstance(path, str)][:MOST]

    def add(self, path: str) -> None:
        absolute = str(Path(path).absolute())
        self._store([absolute, *(other for other in self.paths() if other != absolute)])
        self._settings.setValue(_FOLDER, str(Path(absolute).parent))

    def remove(self, path: str) -> None:
        self._store([other for other in self.paths() if other != path])

    def clear(self) -> None:
        self._store([])

    def folder(self) -> str:
        """Where the last file was; empty where there was none."""
        return str(self._settings.value(_FOLDER, ""))

    def _store(self, paths: list[str]) -> None:
        self._settings.setValue(_FILES, paths[:MOST])
