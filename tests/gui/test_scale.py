"""On a screen with more pixels the same window is drawn larger; in the dark scheme it is dark."""

import os
import subprocess
import sys
from pathlib import Path

from PySide6.QtGui import QImage

from tests.conftest import ROOT


def test_the_window_at_150_percent_in_both_schemes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.shots.scenes", str(tmp_path), "1.5", "walk"]
    environment = os.environ | {"QT_SCALE_FACTOR": "1.5"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    light, dark = (QImage(str(tmp_path / f"walk-{scheme}-150.png")) for scheme in ("light", "dark"))
    assert (light.width(), light.height()) == (dark.width(), dark.height()) == (2160, 1350)
    assert brightness(light) > 200
    assert brightness(dark) < 60
    assert details(light) > 2_000, "letters and lines are drawn with all the pixels there are"


def brightness(image: QImage) -> float:
    """The mean of a few thousand pixels, 0 .. 255."""
    values = [
        image.pixelColor(x, y).lightness() for x in range(0, image.width(), 23) for y in range(0, image.height(), 23)
    ]
    return sum(values) / len(values)


def details(image: QImage) -> int:
    """How often neighbouring pixels of some lines differ where a picture that was only blown up repeats them."""
    rows = range(0, image.height(), 50)
    return sum(image.pixel(x, y) != image.pixel(x + 1, y) for y in rows for x in range(image.width() - 1))
