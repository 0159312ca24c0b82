"""Scenarios as JSON: ``python -m storage export`` and ``import``; and what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine import codec
from engine import events as ev
from engine.scenario import Scenario
from storage import files
from storage.__main__ import main
from storage.content import Content, Note
from tests.conftest import ROOT


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "storage", *arguments]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, check=False)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return Content(Scenario(events=(ev.OpenImage(ev.ImageRef(str(tmp_path / "x.core"))), ev.Poke(8, (1 << 64) - 1))))


def test_a_scenario_goes_out_and_comes_back(tmp_path: Path, content: Content) -> None:
    files.save(Content(content.scenario, notes=(Note(0, "stays behind"),)), str(tmp_path / "a.wscope"))
    assert main(["export", str(tmp_path / "a.wscope"), str(tmp_path / "a.json")]) == 0
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text)["events"][0]["image"]["path"] == "x.core"
    assert main(["import", str(tmp_path / "a.json"), str(tmp_path / "b.wscope")]) == 0
    assert files.open_file(str(tmp_path / "b.wscope")).content == content
    assert main(["export", str(tmp_path / "b.wscope"), str(tmp_path / "b.json")]) == 0
    assert (tmp_path / "b.json").read_text() == text


def test_standard_input_and_output(tmp_path: Path) -> None:
    scenario = Scenario(events=(ev.Poke(8, 1),))
    made = run("import", "-", str(tmp_path / "a.wscope"), stdin=codec.encode_scenario(scenario).encode())
    assert (made.returncode, made.stdout, made.stderr) == (0, b"", b"")
    given = run("export", str(tmp_path / "a.wscope"))
    assert codec.decode_scenario(given.stdout) == scenario
    assert (given.returncode, given.stderr) == (0, b"")


def test_a_file_that_is_there_is_replaced_only_by_force(
    tmp_path: Path, content: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    files.save(content, str(tmp_path / "a.wscope"))
    (tmp_path / "a.json").write_text(codec.encode_scenario(Scenario()))
    arguments = ["import", str(tmp_path / "a.json"), str(tmp_path / "a.wscope")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "a.wscope: it is there already; --force replaces it.\n"
    assert files.open_file(str(tmp_path / "a.wscope")).content == content
    assert main([*arguments, "--force"]) == 0
    assert files.open_file(str(tmp_path / "a.wscope")).content == Content()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "nowhere.wscope"], "nowhere.wscope: there is no such file"),
        (["export", "{json}"], "a.json: this is not a Walkscope scenario: it is text, perhaps a scenario as JSON"),
        (["export", "{file}", "/nowhere/a.json"], "a.json: its folder is not there any more"),
        (["import", "{file}", "{json}"], "This scenario is not JSON"),
        (["import", "nowhere.json", "b.wscope"], "nowhere.json: there is no such file"),
        (["import", "{json}", "/nowhere/b.wscope"], "b.wscope: its folder is not there any more"),
        (["convert"], "python -m storage: argument COMMAND: invalid choice"),
        ([], "python -m storage: the following arguments are required: COMMAND; --help tells what can be given."),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files.save(Content(), str(tmp_path / "a.wscope"))
    (tmp_path / "a.json").write_text(codec.encode_scenario(Scenario()))
    places = {"file": str(tmp_path / "a.wscope"), "json": str(tmp_path / "a.json")}
    assert main([argument.format(**places) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert said.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    scenario = Scenario(events=tuple(ev.Poke(8, n) for n in range(5000)))
    files.save(Content(scenario), str(tmp_path / "a.wscope"))
    command = f"{sys.executable} -m storage export {tmp_path / 'a.wscope'} | head -c 10"
    done = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_package_costs_nothing_before_a_file_is_opened() -> None:
    """SQLAlchemy takes 0.1 s to import, which the first picture does not wait for."""
    program = "import sys, storage, storage.content, storage.errors; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
