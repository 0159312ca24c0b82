"""The sample of the golden cases that lies in the repository, so that tests say something without ../shared.

``python -m tests.golden.sample`` draws it anew from there: some cases of every file, by a seed made of the file's name,
and of those that an emulator gets wrong some of every kind.
"""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from random import Random

from tests.conftest import ROOT

GOLDEN = ROOT.parent / "shared" / "golden"
SAMPLE = ROOT / "tests" / "data" / "golden"
SETS = ("access", "nested")
"""The folders of the golden data that hold cases, and the files of the sample."""
PER_FILE = 20
PER_QUIRK = 5


def lines_of(path: Path) -> list[bytes]:
    with gzip.open(path) as file:
        return file.read().splitlines()


def draw(folder: Path) -> list[bytes]:
    """The lines of the sample of one folder."""
    drawn: list[bytes] = []
    quirky: dict[str, list[bytes]] = defaultdict(list)
    for path in sorted(folder.glob("*.jsonl.gz")):
        plain: list[bytes] = []
        for line in lines_of(path):
            quirks = json.loads(line)["quirks"] if b'"quirks"' in line else None
            (quirky[quirks[-1]] if quirks else plain).append(line)
        drawn += Random(path.name).sample(plain, min(PER_FILE, len(plain)))
    for quirk, lines in sorted(quirky.items()):
        drawn += Random(quirk).sample(lines, min(PER_QUIRK, len(lines)))
    return drawn


def main() -> None:
    for name in SETS:
        packed = gzip.compress(b"\n".join(draw(GOLDEN / name)) + b"\n", mtime=0)
        (SAMPLE / f"{name}.jsonl.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
