"""A second start hands its files to the running program; nobody else's program, and no nonsense, is listened to."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtNetwork import QLocalSocket
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from gui import instance
from gui.instance import MAX_BYTES, TAKEN, Instance
from tests.conftest import ROOT

SECOND = """
import sys
from gui import app
from gui.instance import Instance
application = app.create_application(["walkscope"])
sys.exit(0 if Instance(print).hand_over(sys.argv[1:]) else 3)
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("XDG_ACTIVATION_TOKEN", raising=False)
    return folder


@pytest.fixture
def wanted() -> list[list[str]]:
    return []


@pytest.fixture
def first(qapp: QApplication, wanted: list[list[str]]) -> Iterator[Instance]:
    """The program that runs."""
    made = Instance(wanted.append)
    assert not made.hand_over(["/images/own.core"])
    yield made
    made._server.close()


def start_second(*paths: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SECOND, *paths], cwd=ROOT, env=os.environ | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(second: subprocess.Popen[str], qtbot: QtBot) -> int:
    qtbot.waitUntil(lambda: second.poll() is not None, timeout=20000)
    with second:
        return second.returncode


def test_the_files_of_a_second_start_arrive_as_absolute_paths(
    first: Instance, wanted: list[list[str]], qtbot: QtBot
) -> None:
    assert wanted == [], "its own files are not handed to itself"
    second = start_second("one.wscope", "/images/a b\nc.core", os.fsdecode(b"/images/\xff.core"))
    assert ended(second, qtbot) == 0
    assert wanted == [[str(ROOT / "one.wscope"), "/images/a b\nc.core", os.fsdecode(b"/images/\xff.core")]]


def test_a_start_without_files_asks_for_a_window(first: Instance, wanted: list[list[str]], qtbot: QtBot) -> None:
    assert ended(start_second(), qtbot) == 0
    assert wanted == [[]]


def test_the_right_to_come_to_the_front_is_handed_on(first: Instance, qtbot: QtBot) -> None:
    assert ended(start_second(XDG_ACTIVATION_TOKEN="from-the-desktop"), qtbot) == 0
    assert os.environ["XDG_ACTIVATION_TOKEN"] == "from-the-desktop"


def test_another_display_has_a_program_of_its_own(first: Instance, wanted: list[list[str]], qtbot: QtBot) -> None:
    assert ended(start_second("/images/a.core", DISPLAY=":42"), qtbot) == 3
    assert wanted == []


def test_what_a_killed_program_left_is_no_obstacle(qapp: QApplication, wanted: list[list[str]], qtbot: QtBot) -> None:
    Path(instance.address()).touch()
    made = Instance(wanted.append)
    assert not made.hand_over([])
    assert made._server.isListening()
    assert ended(start_second("/images/a.core"), qtbot) == 0
    assert wanted == [["/images/a.core"]]


def test_nobody_else_may_use_the_socket(first: Instance) -> None:
    assert Path(instance.address()).stat().st_mode & 0o077 == 0


def test_a_socket_of_another_user_is_not_spoken_to(
    first: Instance, wanted: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not instance._given(instance.address(), instance.encode(["/images/secret.core"]))
    assert wanted == []


@pytest.mark.parametrize(
    "message",
    [
        (MAX_BYTES + 1).to_bytes(4, "big"),
        b"\0\0\0\5noise",
        len(instance.OURS).to_bytes(4, "big") + instance.OURS,
        instance.encode(["/a"]).replace(b"/a", b"aa"),
        instance.encode(["/a"]).replace(b"/a", b"/\0"),
    ],
    ids=["too long", "noise", "cut short", "a relative path", "a NUL"],
)
def test_nonsense_is_not_listened_to(first: Instance, wanted: list[list[str]], message: bytes, qtbot: QtBot) -> None:
    socket = QLocalSocket()
    socket.connectToServer(instance.address())
    assert socket.waitForConnected(1000)
    socket.write(message)
    qtbot.waitUntil(lambda: socket.state() is QLocalSocket.LocalSocketState.UnconnectedState)
    assert bytes(socket.readAll().data()) != TAKEN
    assert wanted == []


def test_a_program_that_does_not_answer_keeps_nobody_waiting(first: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "PATIENCE", 50)
    assert not instance._given(instance.address(), b"\0\0\0\5"), "the answer waits for the rest of the message"
