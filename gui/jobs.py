"""Long work: in a worker thread, with progress, cancel, and late results dropped. The only place that knows of threads.

Work is a function of a `Report`. It calls the report now and then; where the user has cancelled, that call raises
`Cancelled` and the work unwinds. What it returns comes back as a value, on the window's thread.

A Qt object must not die in a worker. So from the first job on Python's cyclic garbage is collected on the window's
thread only, by a timer, and what work refers to is let go there, a while after the work has ended.
"""

import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from engine.errors import InputError

T = TypeVar("T")
INTERVAL = 0.05
"""Seconds between two reports of progress that are passed on."""
WORKERS = 2
COLLECT = 500
"""Milliseconds between two looks whether garbage should be collected."""


class Cancelled(Exception):
    """The user cancelled, or the result is no longer wanted."""


class Job:
    """Work under way. ``text`` tells the user what is done; ``fraction`` is 0.0 .. 1.0, None while it is not known.

    Workers hold jobs, so a job knows nothing of who wants the result: a widget must not die in a worker's thread.
    """

    def __init__(self, text: str, key: str, group: int) -> None:
        self.text = text
        self.key = key
        self.group = group
        self.fraction: float | None = None
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _CallBacks(NamedTuple):
    done: Callable[[Any], None]
    failed: Callable[[str], None] | None
    stopped: Callable[[], None] | None
    crashed: Callable[[BaseException], None] | None


class Report:
    """Is called with what is done: a fraction, or bytes done and bytes in all."""

    def __init__(self, job: Job, tell: Callable[[Job], None]) -> None:
        self._job = job
        self._tell = tell
        self._next = 0.0

    def __call__(self, done: float, total: float = 1.0) -> None:
        if self._job.cancelled:
            raise Cancelled
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            self._job.fraction = min(1.0, done / total) if total else None
            self._tell(self._job)


_alive: list["Jobs"] = []
"""All that have workers: while there are any, nobody else collects garbage."""


class Jobs(QObject):
    """Runs jobs and tells of them. All its methods and call-backs belong to the window's thread."""

    changed = Signal()
    """A job began, got on or ended: see `running`."""
    crashed = Signal(object)
    """A job raised an exception that is a fault of ours."""
    _progressed = Signal(object)
    _ended = Signal(object, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(WORKERS, "walkscope")
        self._running: dict[Job, _CallBacks] = {}
        self._work: dict[Job, object] = {}
        """Work that a worker may still refer to."""
        self._ended_work: list[object] = []
        self._let_go: list[object] = []
        _alive.append(self)
        gc.disable()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._collect)
        self._timer.start(COLLECT)
        # Emitted by workers: the receiver lives in the window's thread, so Qt queues them.
        self._progressed.connect(self._on_progress)
        self._ended.connect(self._on_end)

    @property
    def running(self) -> tuple[Job, ...]:
        """The jobs whose results are still wanted, oldest first."""
        return tuple(self._running)

    def start(
        self,
        text: str,
        work: Callable[[Report], T],
        done: Callable[[T], None],
        *,
        key: str,
        failed: Callable[[str], None] | None = None,
        stopped: Callable[[], None] | None = None,
        crashed: Callable[[BaseException], None] | None = None,
        group: int = 0,
    ) -> Job:
        """Run ``work`` and give what it returns to ``done``; an `InputError`'s sentence goes to ``failed``.

        ``stopped`` is called where it was the user who cancelled; ``crashed`` takes the place of the signal. A job
        takes the place of the one with the same ``key`` in its ``group``: that is cancelled and its result dropped.
        """
        self.cancel(key, group)
        job = Job(text, key, group)
        self._running[job] = _CallBacks(done, failed, stopped, crashed)
        self._work[job] = work
        self._pool.submit(self._run, job, work)
        self.changed.emit()
        return job

    def cancel(self, key: str | None = None, group: int | None = None) -> None:
        """Cancel the jobs with ``key`` (default: any) in ``group`` (default: any), whose results are not wanted any
        more; no call-back is called."""
        stopped = [job for job in self._running if key in (None, job.key) and group in (None, job.group)]
        for job in stopped:
            job.cancel()
            del self._running[job]
        if stopped:
            self.changed.emit()

    def cancel_for_user(self, job: Job) -> None:
        """Cancel ``job`` because the user said so."""
        if job in self._running:
            stopped = self._running[job].stopped
            self.cancel(job.key, job.group)
            if stopped is not None:
                stopped()

    def stop(self) -> None:
        """Cancel everything and wait until the workers have ended; nothing can be started after that."""
        self.cancel()
        self._pool.shutdown(cancel_futures=True)
        self._timer.stop()
        if self in _alive:
            _alive.remove(self)
        if not _alive:
            gc.enable()

    def _run(self, job: Job, work: Callable[[Report], Any]) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            if not job.cancelled:
                result = work(Report(job, self._progressed.emit))
        except Exception as caught:
            error = caught
        self._ended.emit(job, result, error)

    def _on_progress(self, job: Job) -> None:
        if job in self._running:
            self.changed.emit()

    def _collect(self) -> None:
        """As Python itself would, but here. What ended before the last look has been let go by its worker by now."""
        self._let_go, self._ended_work = self._ended_work, []
        counts, limits = gc.get_count(), gc.get_threshold()
        for generation in (2, 1, 0):
            if counts[generation] > limits[generation]:
                gc.collect(generation)
                break

    def _on_end(self, job: Job, result: Any, error: Exception | None) -> None:
        self._ended_work.append(self._work.pop(job, None))
        if job not in self._running:
            return
        call = self._running.pop(job)
        self.changed.emit()
        if error is None:
            call.done(result)
        elif isinstance(error, InputError):
            if call.failed is not None:
                call.failed(str(error))
        elif not isinstance(error, Cancelled):
            (call.crashed or self.crashed.emit)(error)


_runner: Jobs | None = None


def runner() -> Jobs:
    """The one runner of the application."""
    global _runner
    if _runner is None:
        _runner = Jobs()
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(_end)
    return _runner


def _end() -> None:
    global _runner
    if _runner is not None:
        _runner.stop()
        _runner = None


class WindowJobs(QObject):
    """The jobs of one window: their keys are its own, it shows no others, and they end with it."""

    changed = Signal()
    """As `Jobs.changed`, also for the jobs of others."""
    crashed = Signal(object)
    """As `Jobs.crashed`, for the jobs of this window."""

    @classmethod
    def of(cls, document: QObject) -> "WindowJobs":
        """Those of the window that shows ``document``."""
        found = document.findChild(cls)
        return found if found is not None else cls(document)

    def __init__(self, document: QObject) -> None:
        super().__init__(document)
        self._group = id(self)
        runner().changed.connect(self.changed)

    @property
    def running(self) -> tuple[Job, ...]:
        return tuple(job for job in runner().running if job.group == self._group)

    def start(self, text: str, work: Callable[[Report], T], done: Callable[[T], None], **how: Any) -> Job:
        """As `Jobs.start`."""
        return runner().start(text, work, done, crashed=self.crashed.emit, group=self._group, **how)

    def cancel(self, key: str | None = None) -> None:
        """Cancel the window's job with ``key`` (default: all of its jobs)."""
        runner().cancel(key, self._group)

    def cancel_for_user(self, job: Job) -> None:
        runner().cancel_for_user(job)
