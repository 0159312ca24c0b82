"""Long work: results come back on the window's thread, late ones are dropped, failures are told apart."""

import threading
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from engine.errors import InputError
from gui.jobs import Jobs, Report


@pytest.fixture
def jobs(qtbot: QtBot) -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.stop()


def test_work_is_done_elsewhere_and_its_result_comes_home(qtbot: QtBot, jobs: Jobs) -> None:
    homes: list[int] = []
    results: list[int] = []

    def done(thread: int) -> None:
        homes.append(threading.get_ident())
        results.append(thread)

    jobs.start("work", lambda report: threading.get_ident(), done, key="a")
    qtbot.waitUntil(lambda: bool(results))
    assert homes == [threading.get_ident()]
    assert results != homes
    assert jobs.running == ()


def test_progress_is_told(qtbot: QtBot, jobs: Jobs) -> None:
    go_on = threading.Event()

    def work(report: Report) -> str:
        report(1, 4)
        assert go_on.wait(5)
        return "end"

    results: list[str] = []
    jobs.start("work", work, results.append, key="a")
    qtbot.waitUntil(lambda: [job.fraction for job in jobs.running] == [0.25])
    go_on.set()
    qtbot.waitUntil(lambda: results == ["end"])


def test_cancelled_work_unwinds_and_says_nothing(qtbot: QtBot, jobs: Jobs) -> None:
    unwound = threading.Event()
    begun = threading.Event()

    def work(report: Report) -> None:
        begun.set()
        try:
            while True:
                report(0.5)
        finally:
            unwound.set()

    said: list[object] = []
    jobs.start("work", work, said.append, key="a", failed=said.append)
    assert begun.wait(5)
    jobs.cancel("a")
    assert unwound.wait(5)
    qtbot.wait(20)
    assert said == []


def test_who_asked_is_told_when_the_user_cancels(qtbot: QtBot, jobs: Jobs) -> None:
    release = threading.Event()
    said: list[str] = []
    job = jobs.start(
        "work",
        lambda report: release.wait(5),
        lambda _: said.append("done"),
        key="a",
        stopped=lambda: said.append("stopped"),
    )
    jobs.cancel_for_user(job)
    jobs.cancel_for_user(job)
    release.set()
    qtbot.wait(20)
    assert said == ["stopped"]


def test_a_later_question_takes_the_place_of_an_earlier_one(qtbot: QtBot, jobs: Jobs) -> None:
    release = threading.Event()
    results: list[str] = []

    def slow(report: Report) -> str:
        assert release.wait(5)
        return "late"

    jobs.start("first", slow, results.append, key="same")
    jobs.start("second", lambda report: "wanted", results.append, key="same")
    qtbot.waitUntil(lambda: results == ["wanted"])
    release.set()
    jobs.stop()
    qtbot.wait(20)
    assert results == ["wanted"]


def test_bad_input_is_a_sentence_and_a_fault_of_ours_is_a_report(qtbot: QtBot, jobs: Jobs) -> None:
    sentences: list[str] = []
    crashes: list[BaseException] = []
    jobs.crashed.connect(crashes.append)

    def bad_input(report: Report) -> None:
        raise InputError("This is no image.")

    def fault(report: Report) -> None:
        raise ZeroDivisionError

    jobs.start("work", bad_input, lambda _: None, key="a", failed=sentences.append)
    jobs.start("work", fault, lambda _: None, key="b", failed=sentences.append)
    qtbot.waitUntil(lambda: bool(sentences and crashes))
    assert sentences == ["This is no image."]
    assert isinstance(crashes[0], ZeroDivisionError)


def test_garbage_with_qt_objects_in_it_dies_on_the_windows_thread(qtbot: QtBot) -> None:
    """A worker that makes much garbage does not collect a cycle which holds a Qt object; the timer does."""
    died: list[int] = []

    class Cycle(QObject):
        def __init__(self) -> None:
            super().__init__()
            self.me = self

        def __del__(self) -> None:
            died.append(threading.get_ident())

    def work(report: Report) -> int:
        return len([[n] for n in range(200_000)])

    jobs = Jobs()
    try:
        Cycle()
        done: list[int] = []
        jobs.start("garbage", work, done.append, key="garbage")
        qtbot.waitUntil(lambda: bool(done), timeout=5000)
        keep = [[n] for n in range(2_000)]
        qtbot.waitUntil(lambda: bool(died), timeout=5000)
        assert died == [threading.get_ident()]
        assert len(keep) == 2_000
    finally:
        jobs.stop()
