"""Renders every view in light and dark, at 100 % and 150 %, into build/shots.

A scale holds for a whole process, so each has one of its own.
"""

import os
import subprocess
import sys

from tests.conftest import ROOT

FOLDER = ROOT / "build" / "shots"
SCALES = ("1", "1.5")


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for scale in SCALES:
        environment = {"QT_QPA_PLATFORM": "offscreen"} | os.environ | {"QT_SCALE_FACTOR": scale}
        command = [sys.executable, "-m", "tests.shots.scenes", str(FOLDER), scale]
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if ended.returncode:
            return ended.returncode
    print(f"{len(list(FOLDER.glob('*.png')))} pictures in {FOLDER.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
