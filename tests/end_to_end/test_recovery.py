"""End to end: a scenario is edited in the window, the process killed, started again, recovered, saved and opened."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gui.templates import templates
from storage import files
from storage.content import Content
from tests.conftest import ROOT


def test_what_was_edited_outlives_the_process(tmp_path: Path) -> None:
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        pytest.skip("no xvfb-run here")
    scenario = templates()[0].scenario()
    path, state = tmp_path / "host.wscope", tmp_path / "state"
    files.save(Content(scenario=scenario), str(path))
    before = path.read_bytes()
    environment = os.environ | {"QT_QPA_PLATFORM": "xcb"}
    command = [xvfb, "-a", "-s", "-screen 0 1600x1000x24", sys.executable, "-m", "tests.end_to_end.edit_and_die"]

    with subprocess.Popen(
        [*command, "edit", str(path), str(state)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"edited {len(scenario.events) - 1}\n"
        os.kill(_program(path), signal.SIGKILL)
    assert path.read_bytes() == before

    second = subprocess.run(
        [*command, "recover", str(path), str(state)], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    offered, recovered = second.stdout.splitlines()
    assert offered.startswith("offered host.wscope, changes: 1")
    assert recovered == f"recovered {len(scenario.events) - 1}"
    assert files.open_file(str(path)).content.scenario.events == scenario.events[:-1]
    assert list(state.rglob("*.sqlite")) == []


def _program(path: Path) -> int:
    """The process that has ``path`` as an argument and is the program, not what started its X server."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0] == sys.executable.encode() and os.fsencode(path) in words:
                return int(folder.name)
    raise AssertionError("the program does not run")
