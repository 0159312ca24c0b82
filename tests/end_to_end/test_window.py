"""End to end: main.py IMAGE on a real X server. What is typed is walked, stepped through, and all views agree."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtGui import QImage

from engine.arch.addresses import grouped
from engine.memory.library import RESOURCES
from tests.conftest import ROOT

IMAGE = RESOURCES / "debian-6.1-4level.core.gz"
PICTURES = ROOT / "build" / "end-to-end"
ADDRESSES = {"huge-page": "7f5642501234", "four-levels": "0x7f56_4230_9abc", "prot-none": "7f56 42a0 0000"}


def session(picture: Path, address: str) -> list[dict[str, Any]]:
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        pytest.skip("no xvfb-run here")
    screen = "-screen 0 1600x1000x24"
    command = [xvfb, "-a", "-s", screen, sys.executable, "-m", "tests.end_to_end.session", picture, address, IMAGE]
    environment = os.environ | {"QT_QPA_PLATFORM": "xcb", "QT_SCALE_FACTOR": "1"}
    ended = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def engine_steps(address: str) -> list[dict[str, Any]]:
    """The same walk by the command line. The window asks as the image's CPU was about to fetch: as user, a fetch."""
    command = [sys.executable, "-m", "engine", "walk", IMAGE, address, "--access", "x", "--json"]
    ended = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True)
    steps: list[dict[str, Any]] = json.loads(ended.stdout)["steps"]
    return steps


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_is_typed_and_stepped_through_and_all_views_agree(name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"{name}.png"
    picture.unlink(missing_ok=True)
    shown = session(picture, ADDRESSES[name])
    steps = engine_steps(ADDRESSES[name])
    assert len(shown) == len(steps)
    for number, (views, step) in enumerate(zip(shown, steps, strict=True), 1):
        entry = f"{step['table']} entry {step['index']}"
        value, address = int(step["value"], 16), int(step["address"], 16)
        assert views["tool bar"] == f"step {number} / {len(steps)}"
        assert views["address bar"] == ADDRESSES[name]
        assert views["inspector"]["title"] == entry
        assert views["inspector"]["value"] == grouped(value, 16)
        assert grouped(address) in views["inspector"]["address"]
        assert entry in views["hierarchy"]
        assert views["walk"]["count"] == f"{number} of {len(steps)} references"
        assert entry in views["walk"]["title"]
        assert grouped(address) in views["walk"]["reads"]
        assert grouped(value, 16) in views["walk"]["reads"]
    image = QImage(str(picture))
    assert (image.width(), image.height()) == (1440, 900)
    assert len({image.pixel(x, y) for x in range(0, 1440, 9) for y in range(0, 900, 9)}) > 20, "the picture is empty"
