"""Whatever stops and waits for the user goes through `Prompts`, so that a test can answer in the user's place."""

from pathlib import Path

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QDialog, QFileDialog, QMessageBox, QWidget

translate = QCoreApplication.translate


class Prompts:
    """Asks and tells, over ``parent`` where there is one."""

    def error(self, parent: QWidget | None, sentence: str) -> None:
        """What could not be done, why, and what to do: one sentence."""
        box = QMessageBox(QMessageBox.Icon.Warning, "Walkscope", sentence, parent=parent)
        box.setTextFormat(Qt.TextFormat.PlainText)  # a file may be named like a piece of HTML
        box.exec()

    def run(self, dialog: QDialog) -> bool:
        """Show ``dialog`` and wait; whether the user accepted it."""
        return dialog.exec() == QDialog.DialogCode.Accepted

    def choose(self, parent: QWidget | None, sentence: str, ways: dict[str, str]) -> str:
        """The key of the way that the user chose among ``ways`` (key to text); '' where he goes none of them."""
        box = QMessageBox(QMessageBox.Icon.Warning, "Walkscope", sentence, parent=parent)
        box.setTextFormat(Qt.TextFormat.PlainText)
        buttons = {box.addButton(text, QMessageBox.ButtonRole.ActionRole): key for key, text in ways.items()}
        box.setDefaultButton(next(iter(buttons)))
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.exec()
        return next((key for button, key in buttons.items() if button is box.clickedButton()), "")

    def scenario_to_save(self, parent: QWidget | None, title: str, suggested: str) -> str:
        """The path for a scenario; empty where the user changed his mind."""
        filters = (
            translate("Prompts", "Scenarios (*.wscope)"),
            translate("Prompts", "Scenarios for exchange (*.json)"),
        )
        return QFileDialog.getSaveFileName(parent, title, suggested, ";;".join(filters))[0]

    def folder(self, parent: QWidget | None, title: str, suggested: str) -> str:
        """A folder to write into; empty where the user changed his mind."""
        return QFileDialog.getExistingDirectory(parent, title, suggested)

    def report_to_save(self, parent: QWidget | None, title: str, suggested: str) -> str:
        """The path for a report, whose ending says what it becomes; empty where the user changed his mind."""
        dialog = report_dialog(parent, title, suggested)
        path = dialog.selectedFiles()[0] if self.run(dialog) else ""
        dialog.deleteLater()
        return path

    def image_to_open(self, parent: QWidget | None, folder: str) -> str:
        """The path of a memory image; empty where the user changed his mind."""
        path, _ = QFileDialog.getOpenFileName(
            parent,
            translate("Prompts", "Open a memory image or a scenario"),
            folder,
            ";;".join(
                (
                    translate("Prompts", "All files (*)"),
                    translate("Prompts", "Memory images (*.core *.elf *.dump *.raw *.bin *.gz *.xz)"),
                    translate("Prompts", "Scenarios (*.wscope *.json)"),
                )
            ),
        )
        return path


def report_dialog(parent: QWidget | None, title: str, suggested: str) -> QFileDialog:
    """Asks for the file of a report. A name without an ending gets that of the form that is chosen."""
    forms = {
        translate("Prompts", "Web page (*.html)"): "html",
        translate("Prompts", "PDF (*.pdf)"): "pdf",
        translate("Prompts", "Text for a mail (*.txt)"): "txt",
    }
    dialog = QFileDialog(parent, title, str(Path(suggested).parent))
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setNameFilters(list(forms))
    dialog.filterSelected.connect(lambda form: dialog.setDefaultSuffix(forms.get(form, "html")))
    dialog.setDefaultSuffix("html")
    dialog.selectFile(Path(suggested).name)
    return dialog
