"""The rules of the house: what may be imported, locked, committed and warned about."""

import logging
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from tests.conftest import ROOT

ROOMS = {"main.py", "gui", "engine", "storage", "tests", "resources", "README.md"}
TOOL_FILES = {"pyproject.toml", "Makefile", "requirements", ".ci", "LICENSE", "CHANGELOG.md", ".gitignore"}
LOCKS = [ROOT / "requirements" / f"{name}.txt" for name in ("run", "dev", "bundle")]
OUR_ENVIRONMENT = Path(sys.prefix) == ROOT / ".venv"


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Paths of the files that git knows, relative to the checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [name for name in listing.split("\0") if name]


def test_every_module_imports_only_what_stands_below_it() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_top_level_holds_nothing_else(tracked: list[str]) -> None:
    assert {name.split("/")[0] for name in tracked} <= ROOMS | TOOL_FILES


def test_no_file_names_the_place_of_this_checkout(tracked: list[str]) -> None:
    place = re.compile(re.escape(bytes(ROOT)) + rb"(?![\w-])")
    paths = [ROOT / name for name in tracked]
    assert [path for path in paths if path.is_file() and place.search(path.read_bytes())] == []


def locked(lock: Path) -> dict[str, str]:
    """The requirements of a lock file: name to version. Any line but `name==version` with hashes fails."""
    entries = lock.read_text().replace("\\\n", " ").splitlines()
    pin = re.compile(r"([a-z0-9-]+)==([\w.]+)(?: ; [^@/]+?)?(?:\s+--hash=sha256:[0-9a-f]{64})+\s*")
    matches = [(entry, pin.fullmatch(entry)) for entry in entries if entry and not entry.startswith("#")]
    assert [entry for entry, match in matches if match is None] == []
    return {match[1]: match[2] for _, match in matches if match}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_hold_versions_and_hashes_only(lock: Path) -> None:
    assert locked(lock)
    places = re.compile(r"https?:|file:|--index|--extra-index|--find-links|--trusted-host")
    assert not places.search(lock.read_text())


def test_the_checks_run_on_what_users_run() -> None:
    run, dev, bundle = map(locked, LOCKS)
    assert run.items() <= dev.items()
    assert run.items() <= bundle.items(), "and the bundle holds what was checked"


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=]", text)[0].lower() for text in project["dependencies"]}
    assert declared <= locked(LOCKS[0]).keys()


def test_without_a_display_run_says_so_in_one_sentence() -> None:
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    bare = {name: value for name, value in os.environ.items() if name not in displays}
    command = ["make", "display"]
    result = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert result.stderr.startswith("There is no display here")
    assert "xvfb-run make run" in result.stderr.splitlines()[0]


@pytest.mark.skipif(not OUR_ENVIRONMENT, reason="runs outside .venv")
def test_a_second_start_spends_nothing_on_set_up() -> None:
    result = subprocess.run(["make", "-n", "setup"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ".ci/setup" not in result.stdout


def test_qt_calls_keep_the_count_of_none(qtbot: QtBot) -> None:
    """PySide6 6.12.0 on Python 3.11 drops one reference to None a call, until the process aborts."""
    from PySide6.QtWidgets import QWidget

    widget = QWidget()
    qtbot.addWidget(widget)
    before = sys.getrefcount(None)
    for _ in range(1000):
        widget.update()
    assert before - sys.getrefcount(None) < 50


def exit_code_of_a_test(body: str, folder: Path) -> int:
    """pytest's exit code for a test of its own, under this project's settings and conftest."""
    (folder / "test_one.py").write_text(f"import logging, warnings, PySide6.QtCore\ndef test(qapp): {body}\n")
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("pass", 0, id="no warning"),
        pytest.param("logging.getLogger('x').info('busy')", 0, id="log information"),
        pytest.param("logging.getLogger('x').warning('odd')", 1, id="log warning"),
        pytest.param("warnings.warn('odd')", 1, id="Python warning"),
        pytest.param("PySide6.QtCore.qWarning('odd')", 1, id="Qt warning"),
    ],
)
def test_a_test_fails_exactly_on_warnings(body: str, code: int, tmp_path: Path) -> None:
    assert exit_code_of_a_test(body, tmp_path) == code


@pytest.mark.logs("^WARNING house: expected$")
def test_an_expected_log_warning_passes() -> None:
    logging.getLogger("house").warning("expected")
