"""Starting: painted before anything heavy is imported; faults of ours are reported and the window goes on."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from gui import app
from gui.dialogs.crash import CrashDialog, report_text
from gui.main_window import MainWindow
from gui.uncaught import Uncaught
from gui.version import VERSION
from tests.conftest import ROOT

AT_FIRST_PAINT = """
import sys
from PySide6.QtCore import QSettings, QTimer
from gui import app, windows

application = app.create_application(["walkscope"])
window = app.create_window(QSettings(sys.argv[1], QSettings.Format.IniFormat))

def painted():
    print(*sorted({name.partition(".")[0] for name in sys.modules}))
    window.close()

windows.AfterFirstPaint(window, painted)
window.show()
application.exec()
"""
STARTS_AND_ENDS = """
import sys
from PySide6.QtCore import QTimer
from gui import app, main_window

def end():
    for widget in app.QApplication.topLevelWidgets():
        if isinstance(widget, main_window.MainWindow) and widget.is_filled and widget.document.walk is not None:
            timer.stop()
            print(hex(widget.document.walk.outcome.address))
            print(*{"pyqtgraph", "sqlalchemy"} & set(sys.modules))
            widget.close()

timer = QTimer()
begin = app.begin
def begin_and_watch(window, path):
    begin(window, path)
    window.opener.open_built_in()
    timer.timeout.connect(end)
    timer.start(10)
app.begin = begin_and_watch
sys.exit(app.main(["main.py", *sys.argv[1:]]))
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_nothing_heavy_is_imported_at_the_first_paint(tmp_path: Path) -> None:
    ended = run(AT_FIRST_PAINT, str(tmp_path / "settings.ini"))
    assert ended.returncode == 0, ended.stderr
    imported = set(ended.stdout.split())
    assert "PySide6" in imported
    assert imported & {"pyqtgraph", "sqlalchemy", "numpy"} == set()


def test_the_program_walks_its_first_address_and_ends_without_a_word() -> None:
    ended = run(STARTS_AND_ENDS)
    assert ended.returncode == 0, ended.stderr
    address, heavy = ended.stdout.splitlines()
    assert address == "0x3ff67abc"
    assert heavy == "", "plots and databases wait until they are needed"
    assert [line for line in ended.stderr.splitlines() if "propagateSizeHints" not in line] == []


def test_its_version_is_that_of_the_project() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_an_option_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        app.parse(["--full-screen"])
    assert end.value.code == 2
    assert "unrecognized arguments: --full-screen" in capsys.readouterr().err


# --- faults of ours


def test_an_uncaught_exception_becomes_a_report_and_the_window_goes_on(
    window: MainWindow, qtbot: QtBot, capsys: pytest.CaptureFixture[str]
) -> None:
    uncaught = Uncaught()
    uncaught.caught.connect(window.report)
    error = ZeroDivisionError("in a slot")
    uncaught._hook(ZeroDivisionError, error, None)
    dialog = window.findChild(CrashDialog)
    assert dialog is not None
    assert dialog.isVisible()
    assert not dialog.isModal()
    assert "ZeroDivisionError: in a slot" in dialog.report.toPlainText()
    assert "ZeroDivisionError: in a slot" in capsys.readouterr().err
    window.address_bar.walk(0x401000)
    assert window.document.walk is not None
    assert window.document.walk.ok


def test_a_fault_that_comes_again_and_again_is_reported_once(window: MainWindow) -> None:
    for _ in range(3):
        window.report(ValueError("in every paint"))
    assert len(window.findChildren(CrashDialog)) == 1


def test_the_report_tells_the_versions_and_the_place() -> None:
    try:
        _ = {}["missing"]
    except KeyError as error:
        text = report_text(error)
    assert f"Walkscope {VERSION}" in text
    assert "test_start.py" in text
    assert "KeyError: 'missing'" in text
