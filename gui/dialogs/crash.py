"""The report of a fault of ours: what happened, in the words of Python. The window stays."""

import platform
import traceback

from PySide6.QtCore import Qt, qVersion
from PySide6.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from gui.theme import GRID, MARGIN, mono_font
from gui.version import VERSION


def report_text(error: BaseException) -> str:
    """What a developer needs to know of ``error``: versions and the traceback."""
    versions = f"Walkscope {VERSION}, Python {platform.python_version()}, Qt {qVersion()}, {platform.platform()}"
    return "\n".join([versions, "", *(line.rstrip() for line in traceback.format_exception(error))])


class CrashDialog(QDialog):
    """Not modal: the user may go on at once."""

    def __init__(self, error: BaseException, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Something went wrong in Walkscope"))
        told = QLabel(
            self.tr(
                "This is a fault of the program, not of yours. The window goes on; what you did last may not have "
                "happened. The report below helps to mend it."
            )
        )
        told.setWordWrap(True)
        self.report = QPlainTextEdit(report_text(error))
        self.report.setReadOnly(True)
        self.report.setFont(mono_font())
        self.report.setAccessibleName(self.tr("Report"))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        copy = QPushButton(self.tr("Copy report"))
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.report.toPlainText()))
        buttons.addButton(copy, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        layout.setSpacing(2 * GRID)
        for widget in (told, self.report, buttons):
            layout.addWidget(widget)
        self.resize(180 * GRID, 100 * GRID)
