"""walk.c, built and run: the floors of the array walker."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

SOURCE = Path(__file__).with_name("walk.c")


class Native(NamedTuple):
    seconds: float
    checksum: int
    rows: int


def build() -> Path | None:
    """The program; None where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    program = ROOT / "build" / "bench-walk"
    program.parent.mkdir(exist_ok=True)
    subprocess.run([compiler, "-O3", "-march=native", "-o", str(program), str(SOURCE)], check=True)
    return program


def run(program: Path, *arguments: object) -> dict[str, Native]:
    """What the program measured, by name."""
    done = subprocess.run([str(program), *map(str, arguments)], check=True, capture_output=True, text=True)
    rows = (row.split() for row in done.stdout.splitlines())
    return {name: Native(float(seconds), int(checksum), int(count)) for name, seconds, checksum, count in rows}
