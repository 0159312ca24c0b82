"""Batches of mutated files, each opened in a process of its own that cannot take more memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

_BATCH = 500


def verdicts(module: str, total: int, folder: Path) -> list[dict[str, Any]]:
    """What ``python -m module FIRST COUNT FOLDER`` says became of the mutants of seeds 0 .. ``total`` - 1."""
    return [v for first in range(0, total, _BATCH) for v in _judged(module, first, min(_BATCH, total - first), folder)]


def _judged(module: str, first: int, count: int, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", module, str(first), str(count), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + count, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
