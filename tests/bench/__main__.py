"""``make bench [SUBJECT ...]``: prints each line as it is measured and writes build/bench.json."""

import importlib
import json
import sys

from tests.bench.lines import Line
from tests.conftest import ROOT

SUBJECTS = ("walks", "paint", "arrays", "events", "effects", "nested", "storage", "bundle")
"""Modules of this package with a function ``lines()``, in order."""


def main(chosen: list[str]) -> int:
    done: list[Line] = []
    for subject in chosen or SUBJECTS:
        for line in importlib.import_module(f"tests.bench.{subject}").lines():
            print(line.text(), flush=True)
            done.append(line)
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([line.plain() for line in done], indent=1) + "\n", encoding="utf-8")
    missed = [line.name for line in done if line.ok is False]
    print(f"{len(done)} figures in {target.relative_to(ROOT)}, {len(missed)} goals missed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
