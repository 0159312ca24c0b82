"""Every call to the system fails in turn, by a library that is preloaded: a document is the old one or the new one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SOURCE = Path(__file__).with_name("failing.c")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `tests.storage.failing` saw."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("no gcc to build the library that makes calls fail")
    place = tmp_path_factory.mktemp("failing")
    library = place / "failing.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.storage.failing", str(library), str(place)]
    preloaded = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(command, cwd=ROOT, env=preloaded, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(verdicts: list[dict[str, Any]], doing: str) -> list[dict[str, Any]]:
    """Those of one activity in which a call did fail."""
    return [verdict for verdict in verdicts if verdict["doing"] == doing and verdict["call"]]


def test_a_save_in_which_a_call_fails_leaves_the_old_file_or_makes_the_new(verdicts: list[dict[str, Any]]) -> None:
    for verdict in of(verdicts, "saving"):
        assert verdict["found"] == ("old" if verdict["said"] else "new"), verdict
        if verdict["said"]:
            assert verdict["said"].startswith("a.wscope: "), verdict
            assert verdict["said"].count(". ") == 0, verdict


def test_all_that_a_save_needs_was_made_to_fail(verdicts: list[dict[str, Any]]) -> None:
    failed = {verdict["call"].removesuffix("64") for verdict in of(verdicts, "saving")}
    needed = {"open", "openat", "fstat", "write", "fchown", "fchmod", "pread", "renameat"}
    assert failed >= needed | {"flock", "fsync", "close"}
    assert all(v["said"] for v in of(verdicts, "saving") if v["call"].removesuffix("64") in needed)


def test_a_full_disk_is_called_that(verdicts: list[dict[str, Any]]) -> None:
    said = {v["said"] for v in of(verdicts, "saving") if v["error"] == errno.ENOSPC and v["call"] == "write"}
    assert said == {"a.wscope: the disk is full; make room and save again, or save it on another one."}


def test_after_an_edit_that_could_not_be_kept_the_next_keeps_everything(verdicts: list[dict[str, Any]]) -> None:
    failed = of(verdicts, "recording")
    assert {verdict["found"] for verdict in failed} == {"newer"}
    assert all(verdict["said"].endswith("; save soon.") for verdict in failed)
    assert {verdict["call"] for verdict in failed} >= {"pwrite64", "fdatasync"}
