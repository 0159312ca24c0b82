"""The processor: its mode and registers, which CPU and which tables; changes as a debugger's or as instructions."""

from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialogButtonBox
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.registers import CR4, Features, Mode
from gui.dialogs.image_dialog import ImageDialog
from gui.dialogs.register_dialog import RegisterDialog
from gui.main_window import MainWindow
from gui.models.registers import Role, Row
from tests.gui.conftest import Answers


def register(window: MainWindow, name: str) -> Row:
    model = window.machine.registers.model()
    rows = [model.index(row, 0).data(Role.ROW) for row in range(model.rowCount())]
    return next(row for row in rows if row.name == name)


def edit(window: MainWindow, answers: Answers, name: ev.RegisterName, value: int, by: str = "debugger") -> str:
    """Change a register by the dialog; gives what the dialog said would come of it. Cancels where that is refused."""
    said: list[str] = []

    def fill(dialog: Any) -> bool:
        assert isinstance(dialog, RegisterDialog)
        (dialog.by_processor if by == "processor" else dialog.by_debugger).setChecked(True)
        dialog.field.setText(hex(value))
        said.append(dialog.verdict.text())
        return dialog.buttons.button(QDialogButtonBox.StandardButton.Ok).isEnabled()

    answers.fill = fill
    window.machine.edit_register.emit(name)
    return said[0]


def test_it_shows_the_mode_and_what_decides_it(window: MainWindow) -> None:
    machine = window.machine
    assert machine.title.accessibleName() == "CPU 0, paging mode 4-level"
    assert machine.vendor.text() == "Intel, MAXPHYADDR 52, CPL 3"
    assert register(window, "cr3").text == "0x0000_0000_035d_e000"
    assert register(window, "cr4").deciding == "PSE PAE PGE SMEP SMAP PKE"
    assert register(window, "efer").deciding == "LME LMA NXE"
    assert register(window, "cpl").text == "3"


def test_what_is_assumed_is_named(window: MainWindow) -> None:
    assert window.machine.assumed.isVisible()
    assert window.machine.assumed.text() == "Not in the image, assumed: EFER.NXE, PKRU."


def test_a_register_set_as_a_debugger_would(window: MainWindow, answers: Answers) -> None:
    said = edit(window, answers, "cr4", register(window, "cr4").value & ~CR4.PAE)
    assert said == "Paging mode afterwards: 32-bit."
    assert window.document.state.registers.mode is Mode.LEGACY
    assert register(window, "cr4").changed
    assert not register(window, "cr3").changed
    assert window.machine.title.accessibleName() == "CPU 0, paging mode 32-bit"
    window.actions_["undo"].trigger()
    assert window.document.state.registers.mode is Mode.LEVEL4


def test_only_the_kernel_can_execute_mov_to_cr(window: MainWindow, answers: Answers) -> None:
    said = edit(window, answers, "cr4", register(window, "cr4").value | CR4.LA57, by="processor")
    assert said == "Only CPL 0 can write CR4; the CPL is 3."
    assert window.document.last_step == 1


def test_a_general_protection_fault_is_told_with_its_reason_and_changes_nothing(
    window: MainWindow, answers: Answers
) -> None:
    edit(window, answers, "cpl", 0)
    before = window.document.state.registers
    said = edit(window, answers, "cr4", before.cr4 | CR4.LA57, by="processor")
    assert said == "#GP(0): CR4.LA57 cannot change while EFER.LMA = 1. Nothing changes."
    assert window.document.state.registers == before
    assert window.document.scenario.events[-1] == ev.WriteRegister("cr4", before.cr4 | CR4.LA57)
    assert "CR4.LA57 cannot change" in window.timeline.model.line(3).subtitle


def test_a_legal_mov_changes_the_register(window: MainWindow, answers: Answers) -> None:
    edit(window, answers, "cpl", 0)
    said = edit(window, answers, "cr4", register(window, "cr4").value & ~CR4.SMAP, by="processor")
    assert said == "Paging mode afterwards: 4-level."
    assert "SMAP" not in register(window, "cr4").deciding


def test_a_value_that_cannot_be_is_refused_in_the_dialog(window: MainWindow, answers: Answers) -> None:
    assert edit(window, answers, "cpl", 7) == "CPL is 7; it must be 0 .. 3."
    assert window.document.last_step == 1


def test_flags_and_number_of_the_dialog_go_together(window: MainWindow, qtbot: QtBot) -> None:
    dialog = RegisterDialog(window.document, "cr4", window)
    box = dialog.flags[int(CR4.LA57)]
    assert not box.isChecked()
    box.setChecked(True)
    assert dialog.field.value == register(window, "cr4").value | CR4.LA57
    dialog.field.setText("0")
    assert not any(box.isChecked() for box in dialog.flags.values())
    dialog.field.setText("zz")
    assert not box.isEnabled()
    assert "is not an address" in dialog.verdict.text()
    assert dialog.event is None


def test_registers_without_an_instruction_of_their_own_are_only_set(window: MainWindow) -> None:
    assert not RegisterDialog(window.document, "pkru", window).by_processor.isEnabled()
    assert RegisterDialog(window.document, "efer", window).by_processor.text() == "Execute WRMSR to EFER"


def test_a_double_click_or_return_edits_the_register(window: MainWindow, qtbot: QtBot) -> None:
    registers = window.machine.registers
    registers.setCurrentIndex(registers.model().index(3, 0))
    with qtbot.waitSignal(window.machine.edit_register) as chosen:
        qtbot.keyClick(registers, Qt.Key.Key_Return)
    assert chosen.args == ["cr4"]


def test_a_value_is_copied_with_ctrl_c(window: MainWindow, qtbot: QtBot) -> None:
    registers = window.machine.registers
    window.activateWindow()
    registers.setFocus()
    registers.setCurrentIndex(registers.model().index(2, 0))
    qtbot.keyClick(registers, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text() == "0x35d_e000"


def test_another_root_can_be_typed(window: MainWindow, qtbot: QtBot) -> None:
    roots = window.machine.roots
    roots.line.setText("0x9c000")
    qtbot.keyClick(roots.line, Qt.Key.Key_Return)
    assert window.document.scenario.events[1:] == (ev.ChooseRoot(0x9C000),)
    assert window.document.paging.root == 0x9C000
    window.document.go_to_step(1)
    assert {roots.itemText(n) for n in range(roots.count())} == {"0x35d_e000", "0x9_c000"}
    roots.setCurrentIndex(1)
    roots.activated.emit(1)
    assert window.document.state.registers.cr3 == 0x9C000


def test_the_same_root_again_is_no_event(window: MainWindow, qtbot: QtBot) -> None:
    qtbot.keyClick(window.machine.roots.line, Qt.Key.Key_Return)
    assert window.document.last_step == 1


def test_a_root_that_is_no_number_is_a_sentence(window: MainWindow, qtbot: QtBot) -> None:
    window.machine.roots.line.setText("nonsense")
    qtbot.keyClick(window.machine.roots.line, Qt.Key.Key_Return)
    assert window.notice.label.text().startswith("“nonsense” is not an address")
    assert window.document.last_step == 1


# --- the dialog for images without registers


@pytest.fixture
def dialog(window: MainWindow) -> ImageDialog:
    return ImageDialog("memory.raw", Features(), window)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({}, "4-level"),
        ({"cr4": "0x10a0"}, "5-level"),
        ({"efer": "0x800"}, "PAE"),
        ({"efer": "0", "cr4": "0"}, "32-bit"),
        ({"cr0": "0x11", "efer": "0"}, "none"),
    ],
)
def test_the_paging_mode_is_told_as_one_types(dialog: ImageDialog, values: dict[str, str], mode: str) -> None:
    for name, text in values.items():
        dialog.fields[name].setText(text)
    assert dialog.mode.text() == mode
    assert dialog.registers is not None
    assert dialog.registers.mode.value == mode
    assert dialog.buttons.button(QDialogButtonBox.StandardButton.Open).isEnabled()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"efer": "0x100"}, "EFER.LME = 1 and CR0.PG = 1 make EFER.LMA 1"),
        ({"cr4": "0"}, "EFER.LMA = 1 needs CR4.PAE = 1"),
        ({"cr0": "0x80000000"}, "CR0.PG = 1 needs CR0.PE = 1"),
        ({"cr3": "0x8000000000000000"}, "CR3 has bits set that must be 0: 63"),
        ({"cr3": "xyz"}, "CR3: “xyz” is not an address"),
    ],
)
def test_an_impossible_combination_is_told_with_its_reason(
    dialog: ImageDialog, values: dict[str, str], reason: str
) -> None:
    for name, text in values.items():
        dialog.fields[name].setText(text)
    assert reason in dialog.verdict.text()
    assert dialog.registers is None
    assert not dialog.buttons.button(QDialogButtonBox.StandardButton.Open).isEnabled()


def test_a_preset_fills_in_all_but_the_root(dialog: ImageDialog) -> None:
    dialog.fields["cr3"].setText("0x1234000")
    for row in range(dialog.presets.count()):
        dialog.presets.setCurrentIndex(row)
        assert dialog.registers is not None, dialog.verdict.text()
        assert dialog.registers.cr3 == 0x1234000
