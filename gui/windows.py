"""All windows of the program: each with a document of its own, made, found again and reported in here."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, QPoint, QTimer
from PySide6.QtWidgets import QApplication

from gui.main_window import MainWindow
from gui.theme import GRID

BESIDE = 8 * GRID
"""How far right of and below the window in use a new one is put."""

Begin = Callable[[MainWindow, str | None], None]
"""Fills a window that has just been painted, and opens a file in it (None: it was started without one)."""


class AfterFirstPaint(QObject):
    """Calls ``then`` once ``window`` has been painted: what it needs to import and read must not delay that."""

    def __init__(self, window: MainWindow, then: Callable[[], None]) -> None:
        super().__init__(window)
        self._timer = QTimer(self)  # ends with the window
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(then)
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() is QEvent.Type.Paint:
            watched.removeEventFilter(self)
            self._timer.start(0)
        return False


class Windows(QObject):
    """``create`` makes a window, not shown yet, on its start page or not; ``begin`` goes on with it."""

    def __init__(self, create: Callable[[bool], MainWindow], begin: Begin, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._create = create
        self._begin = begin
        self._open: list[MainWindow] = []

    @property
    def open(self) -> tuple[MainWindow, ...]:
        """The windows that are not closed, the oldest first."""
        return tuple(self._open)

    def show_files(self, paths: Sequence[str]) -> None:
        """A window for each of ``paths``; one without a file where there are none."""
        for path in paths:
            self.show(path)
        if not paths:
            self.show(None)

    def show(self, path: str | None, begin: Begin | None = None) -> MainWindow:
        """A new window with the file ``path``, or the one that shows this file already, in front of all others.

        ``begin``: in the place of the usual one.
        """
        window = self._with(path)
        if window is None:
            window = self._make(on_start_page=path is None)
            AfterFirstPaint(window, lambda: (begin or self._begin)(window, path))
            window.show()
        else:
            if window.isMinimized():
                window.showNormal()
            window.raise_()
            window.activateWindow()
        return window

    def report(self, error: BaseException) -> None:
        """A fault of ours, told in the window in use."""
        window = self._current()
        if window is not None:
            window.report(error)

    def _with(self, path: str | None) -> MainWindow | None:
        file = path and str(Path(path).absolute())
        return next((each for each in self._open if file and each.is_filled and each.files.path == file), None)

    def _make(self, *, on_start_page: bool) -> MainWindow:
        before, window = self._current(), self._create(on_start_page)
        if before is not None and not before.isMaximized() and not before.isFullScreen():
            window.resize(before.size())
            window.move(before.pos() + QPoint(BESIDE, BESIDE))
        window.window_wanted.connect(self.show)
        window.closed.connect(lambda: self._forget(window))
        self._open.append(window)
        return window

    def _forget(self, window: MainWindow) -> None:
        self._open.remove(window)
        window.deleteLater()

    def _current(self) -> MainWindow | None:
        """The window in use; the newest where none is."""
        active = QApplication.activeWindow()
        return active if isinstance(active, MainWindow) else next(reversed(self._open), None)
