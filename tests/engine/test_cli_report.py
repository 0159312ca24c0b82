"""``python -m engine report``: text or a page, to standard output or into a file that is written whole."""

import os
import stat
from pathlib import Path

import pytest

from engine.cli import whole
from engine.errors import InputError
from tests.engine.pages import Page
from tests.engine.test_cli import run
from tests.engine.test_scenario_reports import AMD, FOLDER, check_text

PATH = str(FOLDER / f"{AMD}.json")


def test_text_is_what_one_gets() -> None:
    code, out, errors = run("report", PATH)
    assert (code, errors) == (0, "")
    check_text(out)
    assert out.startswith(f"Walkscope report: {AMD}.json\n=====")


def test_a_page_on_request() -> None:
    code, out, errors = run("report", PATH, "--format", "html")
    assert (code, errors) == (0, "")
    assert f"Walkscope report: {AMD}.json" in Page(out).said


def test_standard_input_is_a_scenario_too() -> None:
    code, out, errors = run("report", "-", stdin=Path(PATH).read_bytes())
    assert (code, errors) == (0, "")
    assert out.splitlines()[2:] == run("report", PATH)[1].splitlines()[2:]


def test_sides_can_be_chosen() -> None:
    _, out, _ = run("report", PATH, "--from", "12", "--to", "12", "--from-pcpu", "0", "--to-pcpu", "1")
    assert "A  step 12, VM 0 vCPU 0 as pCPU 0 walks it" in out
    assert "B  step 12, VM 0 vCPU 0 as pCPU 1 walks it" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from", "3"], "Give both --from and --to, or neither."),
        (["--to-pcpu", "1"], "--from-pcpu and --to-pcpu say whose hardware walks at a step: give --from and --to too."),
        (["--from", "3", "--to", "16"], "--to 16: the scenario has steps 0 to 15."),
        (["-o", "/nowhere/report.txt"], "report.txt: it cannot be written (No such file or directory)."),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert run("report", PATH, *arguments) == (2, "", f"{sentence}\n")


def test_a_scenario_file_of_the_window_is_sent_on(tmp_path: Path) -> None:
    file = tmp_path / "mine.wscope"
    file.write_bytes(b"SQLite format 3\0" + bytes(100))
    code, _, errors = run("report", str(file))
    assert code == 2
    assert errors.startswith("mine.wscope is a scenario file of the window: python -m storage export makes JSON of it")


# --- the file


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(file)
    assert run("report", PATH, "-o", str(link)) == (0, "", "")
    assert link.is_symlink()
    assert file.read_text() == run("report", PATH)[1]
    assert set(os.listdir(tmp_path)) == {"report.txt", "link.txt"}


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        whole.write(str(tmp_path / "new"), b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_the_old_file_stays_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.txt"
    file.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"report\.txt: it cannot be written \(No space left on device\)\."):
        whole.write(str(file), b"new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.txt"]
