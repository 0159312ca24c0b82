"""The bundle: its size, and from a double-click to the built-in walk in the window's title, against the checkout.

Both are started as a user would, on a display of their own, and watched from outside. Cold: nothing of the disk is in
memory, which only root can bring about.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pytest

from tests.bench.lines import Line
from tests.conftest import ROOT
from tests.packaging.conftest import make
from tests.packaging.desktop import Desktop, desktop

FOLDER = ROOT / "build" / "bundle" / "walkscope"
BUNDLE = [str(FOLDER / "walkscope")]
CHECKOUT = [sys.executable, str(ROOT / "main.py")]
WARM, COLD = 7, 3
CACHES = Path("/proc/sys/vm/drop_caches")
PATIENCE = 30


def lines() -> Iterator[Line]:
    make("bundle")
    (archive,) = (ROOT / "build").glob("walkscope-*.tar.xz")
    size = sum(path.lstat().st_size for path in FOLDER.rglob("*"))
    yield Line("bundle, unpacked", size / 1e6, "MB", goal="<= 200")
    yield Line("bundle, packed", archive.stat().st_size / 1e6, "MB", goal="<= 60")
    try:
        with desktop() as at:
            ours, floor = _both(at, WARM, lambda: None)
            yield Line("bundle, warm start", min(ours) * 1e3, "ms", min(floor) * 1e3, "<= 1.25")
            if os.access(CACHES, os.W_OK):
                ours, floor = _both(at, COLD, _forget)
                yield Line("bundle, cold start", median(ours) * 1e3, "ms", median(floor) * 1e3, "<= 1.25")
            else:
                print("bundle: only root can make the system forget what it has read, so without a cold start")
    except pytest.skip.Exception as missing:
        print(f"bundle: {missing}, so without starts")


def _both(at: Desktop, runs: int, before: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Seconds of ``runs`` starts of the bundle and, in turns with them, of the checkout."""
    times: tuple[list[float], list[float]] = [], []
    for _ in range(runs):
        for command, found in zip((BUNDLE, CHECKOUT), times, strict=True):
            before()
            found.append(_start(at, command))
    return times


def _start(at: Desktop, command: list[str]) -> float:
    with TemporaryDirectory() as home:
        own = {"DISPLAY": at.display, "HOME": home, "XDG_RUNTIME_DIR": home, "QT_QPA_PLATFORM": "xcb"}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        begun = time.monotonic()
        with subprocess.Popen(command, env=environment | own, stderr=subprocess.DEVNULL, cwd=home) as started:
            while not at.shows("4level.*Walkscope"):
                assert time.monotonic() < begun + PATIENCE, f"{command[0]} shows nothing"
            took = time.monotonic() - begun
            started.terminate()
    return took


def _forget() -> None:
    os.sync()
    CACHES.write_text("3\n")
