"""What stops and waits for the user: it says its sentence and goes away at a key."""

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QApplication, QDialog, QMessageBox
from pytestqt.qtbot import QtBot

from gui.dialogs.prompts import Prompts


def answer_with(qtbot: QtBot, key: Qt.Key, seen: list[QDialog]) -> None:
    """Press ``key`` in the dialog that comes up next."""

    def press() -> None:
        dialog = QApplication.activeModalWidget()
        assert isinstance(dialog, QDialog)
        seen.append(dialog)
        qtbot.keyClick(dialog, key)

    QTimer.singleShot(0, press)


def test_an_error_is_one_sentence(dressed: QApplication, qtbot: QtBot) -> None:
    seen: list[QDialog] = []
    answer_with(qtbot, Qt.Key.Key_Return, seen)
    Prompts().error(None, "guest.core: there is no such file; check the name.")
    (box,) = seen
    assert isinstance(box, QMessageBox)
    assert box.text() == "guest.core: there is no such file; check the name."
    assert not box.isVisible()


def test_a_name_like_html_is_shown_as_it_is(dressed: QApplication, qtbot: QtBot) -> None:
    seen: list[QDialog] = []
    answer_with(qtbot, Qt.Key.Key_Return, seen)
    Prompts().error(None, "<b>guest</b>: there is no such file; check the name.")
    assert isinstance(seen[0], QMessageBox)
    assert seen[0].textFormat() is Qt.TextFormat.PlainText


def test_a_dialog_is_accepted_or_not(dressed: QApplication, qtbot: QtBot) -> None:
    seen: list[QDialog] = []
    dialog = QDialog()
    qtbot.addWidget(dialog)
    answer_with(qtbot, Qt.Key.Key_Escape, seen)
    assert not Prompts().run(dialog)
    QTimer.singleShot(0, dialog.accept)
    assert Prompts().run(dialog)
