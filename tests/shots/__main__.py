"""Renders every view in light and dark, at 100 % and 150 %, into build/shots.

A scale holds for a whole process, so each has one of its own.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import ROOT

FOLDER = ROOT / "build" / "shots"
SCALES = ("1", "1.5")


def render(folder: Path, scale: str, *names: str) -> int:
    """Picture ``names`` (default: all) at ``scale``; the exit status. What the user had not saved is left alone."""
    with TemporaryDirectory() as state:
        own = {"QT_SCALE_FACTOR": scale, "XDG_STATE_HOME": state}
        environment = {"QT_QPA_PLATFORM": "offscreen"} | os.environ | own
        command = [sys.executable, "-m", "tests.shots.scenes", str(folder), scale, *names]
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=300, check=False).returncode


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scale in SCALES:
        ended = render(FOLDER, scale)
        if ended:
            return ended
    print(f"{len(list(FOLDER.glob('*.png')))} pictures in {FOLDER.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
