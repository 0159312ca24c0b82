"""A display of its own for a program, and somebody at its keyboard."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

PATIENCE = 60.0
"""Seconds after which nothing is waited for any more: the first start reads 180 MB from a cold disk."""


def tool(name: str) -> str:
    """The program ``name``; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here (.ci/packaging-packages)")
    return found


def wait(until: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


class Desktop:
    """``display`` is the name of the X server."""

    def __init__(self, display: str) -> None:
        self.display = display

    def titles(self) -> dict[str, str]:
        """The titles of all windows that are seen, by the window's number."""
        windows = self._xdotool("search", "--onlyvisible", "--name", ".").split()
        return {window: self._xdotool("getwindowname", window).strip() for window in windows}

    def shows(self, pattern: str) -> bool:
        """Whether there is a window whose title matches ``pattern``."""
        return bool(self._xdotool("search", "--onlyvisible", "--name", pattern))

    def window(self, pattern: str) -> str:
        """Wait for a window whose title matches ``pattern``, and give it the focus."""

        def find() -> str:
            return next((window for window, title in self.titles().items() if re.search(pattern, title)), "")

        wait(find, f"a window named {pattern}")
        found = find()
        self._xdotool("windowfocus", "--sync", found)
        return found

    def press(self, *keys: str) -> None:
        for key in keys:
            self._xdotool("key", key)
            time.sleep(0.3)

    def type(self, text: str) -> None:
        self._xdotool("type", "--delay", "20", text)

    def _xdotool(self, *words: str) -> str:
        environment = os.environ | {"DISPLAY": self.display}
        return subprocess.run(
            [tool("xdotool"), *words], env=environment, capture_output=True, text=True, check=False
        ).stdout


@contextmanager
def desktop() -> Iterator[Desktop]:
    tool("xdotool")
    command = [tool("Xvfb"), "-displayfd", "1", "-screen", "0", "1500x950x24", "-ac", "-noreset", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield Desktop(f":{server.stdout.readline().strip()}")
        finally:
            server.terminate()
