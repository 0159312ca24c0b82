"""File > Export report: three forms, in a worker, whole or not at all; and what the pages are like."""

from pathlib import Path

import pytest
from PySide6.QtCore import QSizeF, Qt
from PySide6.QtGui import QTextDocument
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication, QFileDialog
from pytestqt.qtbot import QtBot

from engine.cli.run import read_scenario
from engine.effects.compare import Class
from engine.errors import InputError
from engine.report import style, svg, text
from engine.report.compose import Asked, report
from engine.report.findings import of_step
from engine.report.model import Bands, Grid, Items, Paragraph, Report, Section
from gui import report_pdf, scenarios
from gui.dialogs.prompts import report_dialog
from gui.effect_texts import OUTCOMES
from gui.jobs import runner
from gui.main_window import MainWindow
from gui.paint.hatch import _DIRECTIONS
from gui.report_pdf import KEPT, pdf
from gui.theme import DARK, LIGHT, Theme
from gui.views.findings import FindingsView
from tests.conftest import ROOT
from tests.engine.pages import Page
from tests.gui.conftest import Answers

SCENARIO = ROOT / "resources" / "scenarios" / "amd-4-to-5-after-kvm-init.json"


@pytest.fixture
def open_window(empty_window: MainWindow) -> MainWindow:
    """The window with the AMD case."""
    scenarios.show(empty_window.document, read_scenario(str(SCENARIO))[0])
    empty_window.files.begun("amd.json")
    return empty_window


def exported(window: MainWindow, qtbot: QtBot, answers: Answers, path: Path) -> bytes:
    answers.path = str(path)
    with qtbot.waitSignal(window.exporter.done) as done:
        window.actions_["export-report"].trigger()
    return Path(done.args[0]).read_bytes()


@pytest.fixture(scope="module")
def made() -> Report:
    return report(*read_scenario(str(SCENARIO)), Asked("amd.json"))


# --- files


def test_text_is_the_engines(
    open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path, made: Report
) -> None:
    assert exported(open_window, qtbot, answers, tmp_path / "amd.txt").decode() == text.render(made)
    assert Path(answers.suggested).name == "amd"


def test_a_page_and_pdf(open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path) -> None:
    page = exported(open_window, qtbot, answers, tmp_path / "amd.html").decode()
    assert "Walkscope report: amd.json" in Page(page).said
    assert exported(open_window, qtbot, answers, tmp_path / "AMD.PDF").startswith(b"%PDF-1")
    assert exported(open_window, qtbot, answers, tmp_path / "without ending").decode() == page
    assert (tmp_path / "without ending.html").is_file()


def test_pins_say_what_is_compared(open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path) -> None:
    open_window.document.pin_a(12, 0)
    open_window.document.pin_b(12, 1)
    told = exported(open_window, qtbot, answers, tmp_path / "amd.txt").decode()
    assert "A  step 12, VM 0 vCPU 0 as pCPU 0 walks it" in told
    assert "B  step 12, VM 0 vCPU 0 as pCPU 1 walks it" in told


def test_all_steps_are_told_wherever_one_is(
    open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path, made: Report
) -> None:
    open_window.document.go_to_step(3)
    assert exported(open_window, qtbot, answers, tmp_path / "amd.txt").decode() == text.render(made)


def test_there_is_nothing_to_export_before_the_first_event(empty_window: MainWindow) -> None:
    assert not empty_window.actions_["export-report"].isEnabled()


def test_whoever_changes_his_mind_gets_nothing(open_window: MainWindow, answers: Answers) -> None:
    answers.path = ""
    open_window.actions_["export-report"].trigger()
    assert not [job for job in runner().running if job.key == "export"]


def test_cancelled_work_leaves_no_file(open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path) -> None:
    answers.path = str(tmp_path / "amd.pdf")
    open_window.actions_["export-report"].trigger()
    (job,) = (job for job in runner().running if job.key == "export")
    assert job.text == "Writing amd.pdf"
    runner().cancel_for_user(job)
    qtbot.waitUntil(lambda: job not in runner()._work)
    assert not (tmp_path / "amd.pdf").exists()
    assert not list(tmp_path.glob(".walkscope*"))


def test_what_cannot_be_written_is_a_sentence_and_a_way_out(
    open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere" / "amd.txt"
    answers.path, answers.choices = str(nowhere), ["other"]
    asked = open_window.exporter._prompts.report_to_save

    def elsewhere(*given: object) -> str:
        path = asked(*given)  # type: ignore[arg-type]
        answers.path = str(tmp_path / "there.txt")
        return path

    answers.report_to_save = elsewhere  # type: ignore[method-assign]
    with qtbot.waitSignal(open_window.exporter.done) as done:
        open_window.actions_["export-report"].trigger()
    assert done.args == [str(tmp_path / "there.txt")]
    (sentence,) = answers.asked
    assert "amd.txt" in sentence
    assert sentence.endswith(".")


def test_findings_go_into_a_file_too(open_window: MainWindow, qtbot: QtBot, answers: Answers, tmp_path: Path) -> None:
    open_window.document.go_to_step(13)
    open_window.docks["findings"].show()
    open_window.docks["findings"].raise_()
    view = open_window.lazy("findings").open()
    assert isinstance(view, FindingsView)
    view.refresh()
    qtbot.waitUntil(lambda: bool(view.cards), timeout=10000)
    answers.path = str(tmp_path / "findings.txt")
    with qtbot.waitSignal(open_window.exporter.done):
        qtbot.mouseClick(view.export, Qt.MouseButton.LeftButton)
    told = (tmp_path / "findings.txt").read_text()
    assert told.startswith("Findings at step 13: amd.json\n")
    assert all(card.accessibleName() in told for card in view.cards)
    assert Path(answers.suggested).name == "amd, findings at step 13"


def test_no_findings_are_told_as_none() -> None:
    assert "No hazard." in text.render(of_step("", 3, ()))


# --- the dialog


def test_a_name_gets_the_ending_of_the_form(dressed: QApplication, qtbot: QtBot, tmp_path: Path) -> None:
    dialog = report_dialog(None, "Export", str(tmp_path / "amd 1.5"))
    qtbot.addWidget(dialog)
    assert dialog.acceptMode() is QFileDialog.AcceptMode.AcceptSave
    assert dialog.defaultSuffix() == "html"
    for form, ending in zip(dialog.nameFilters(), ("html", "pdf", "txt"), strict=True):
        dialog.filterSelected.emit(form)
        assert dialog.defaultSuffix() == ending
        assert form.endswith(f"(*.{ending})")


# --- pages


def blocks(found: Report | Section, kind: type) -> list[Grid | Bands]:
    every = [section for part in found.sections for section in (part, *part.parts)] if isinstance(found, Report) else []
    return [block for section in every for block in section.blocks if isinstance(block, kind)]


def test_pages_have_their_title_and_come_one_after_the_other(dressed: QApplication, made: Report) -> None:
    shares: list[float] = []
    data = pdf(made, shares.append)
    assert len(shares) == data.count(b"/Type /Page\n") >= 4
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "Walkscope report: amd.json".encode("utf-16-be") in data


@pytest.mark.parametrize("height", [600, 700, 800, 900, 1000])
def test_headings_stay_with_what_they_announce(dressed: QApplication, made: Report, height: int) -> None:
    document = QTextDocument()
    page = QSizeF(680, height)
    pictures = report_pdf._Pictures()
    document.documentLayout().registerHandler(report_pdf.PICTURE, pictures)
    report_pdf._Writer(document, page.width()).write(made)
    document.setPageSize(page)
    report_pdf._keep_together(document, page.height())
    document.pageCount()
    layout, block, kept = document.documentLayout(), document.begin(), 0
    while block.isValid():
        if block.blockFormat().hasProperty(KEPT):
            after = block.next()
            while report_pdf._is_gap(after):
                after = after.next()
            here, below = (layout.blockBoundingRect(each).top() // page.height() for each in (block, after))
            assert here == below, block.text()
            kept += 1
        block = block.next()
    assert kept > 15


def test_pictures_are_drawn_by_themselves(dressed: QApplication, made: Report) -> None:
    found = [*blocks(made, Grid), *blocks(made, Bands)]
    assert len(found) == 3
    for number, block in enumerate(found):
        drawn = svg.picture(block, f"p{number}", svg.on_paper)
        assert "var(" not in drawn
        renderer = QSvgRenderer(drawn.encode())
        assert renderer.isValid()
        assert renderer.viewBoxF().width() > 600


def test_many_pages_in_workers(dressed: QApplication, qtbot: QtBot, made: Report) -> None:
    """Qt's objects are made and end in the worker."""
    sizes: list[int] = []
    for number in range(8):
        runner().start("", lambda progress: len(pdf(made, progress)), sizes.append, key=f"pdf {number}")
    qtbot.waitUntil(lambda: len(sizes) == 8, timeout=30000)
    assert len({size // 100 for size in sizes}) == 1


def test_pages_that_are_given_up_leave_nothing_behind(dressed: QApplication, qtbot: QtBot, made: Report) -> None:
    """Nothing is told by Qt, and the next pages are as they should be."""

    def stop(share: float) -> None:
        raise InputError("stopped")

    with pytest.raises(InputError, match="stopped") as caught:
        pdf(made, stop)
    assert "_paint" not in [entry.name for entry in caught.traceback]
    told: list[str] = []
    runner().start("", lambda progress: pdf(made, stop), lambda data: None, key="stopped pdf", failed=told.append)
    qtbot.waitUntil(lambda: told == ["stopped"])
    assert pdf(made).startswith(b"%PDF")


def test_whatever_a_name_is_pages_can_be_made(dressed: QApplication) -> None:
    name = "a\nb\x1b\u202ec\ufffc<b>"
    assert pdf(Report(name, (Paragraph(name), Items((name,))), (Section("one", name),))).startswith(b"%PDF")


# --- the look


@pytest.mark.parametrize(("colors", "theme"), [(style.LIGHT, LIGHT), (style.DARK, DARK)], ids=["light", "dark"])
def test_the_colours_are_those_of_the_window(colors: dict[str, str], theme: Theme) -> None:
    tokens = {name: name.replace("-", "_") for name in colors} | {"ground": "panel", "hazard": "hazard_mark"}
    for name, token in tokens.items():
        assert colors[name] == getattr(theme, token).name().upper(), name
    assert [color.name().upper() for color in theme.levels] == list(style.LEVELS)
    for kind in Class:
        assert style.OUTCOMES[kind] == theme.outcomes[OUTCOMES[kind]].color.name().upper()


def test_what_is_hatched_in_the_window_is_hatched_in_a_report() -> None:
    for kind in Class:
        hatched = bool(_DIRECTIONS.get(LIGHT.outcomes[OUTCOMES[kind]].hatch, ""))
        assert hatched is (kind in style.HATCHES), kind
    assert len({*style.HATCHES.values()}) >= len(style.HATCHES) - 1
