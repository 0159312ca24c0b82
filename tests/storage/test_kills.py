"""kill -9 at any moment: the old document or the new one is there, and no edit that was recorded is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, scaled

KILLS = scaled(300)


def verdicts(mode: str, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.storage.victim", mode, "7", str(KILLS), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + KILLS, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == KILLS
    return found


def test_a_file_is_the_old_or_the_new_one_whenever_its_program_dies(tmp_path: Path) -> None:
    found = verdicts("saving", tmp_path)
    for verdict in found:
        assert verdict["found"] in (verdict["acknowledged"], verdict["acknowledged"] + 1), verdict
    assert all(verdict["at_work"] for verdict in found)
    assert any(verdict["cut_short"] for verdict in found), "some should have been killed while they wrote"


def test_no_edit_is_lost_once_it_was_recorded(tmp_path: Path) -> None:
    found = verdicts("editing", tmp_path)
    for verdict in found:
        assert verdict["found"] in (verdict["acknowledged"], verdict["acknowledged"] + 1), verdict
    assert sum(verdict["at_work"] for verdict in found) > KILLS // 2
