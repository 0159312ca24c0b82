"""Markdown to read, not to click: what a stop of a demo says."""

from typing import Any

from PySide6.QtCore import QUrl
from PySide6.QtGui import QTextBlockFormat, QTextCursor, QTextDocument
from PySide6.QtWidgets import QFrame, QTextBrowser, QWidget

from gui.theme import follow, ui_font

FEATURES = QTextDocument.MarkdownFeature.MarkdownDialectGitHub | QTextDocument.MarkdownFeature.MarkdownNoHTML
LEADING = 118
"""Percent of a line's height from line to line."""
NOT_READ: Any = None


class Prose(QTextBrowser):
    """``scale``: of the text, to the application's font. Links go nowhere and pictures are not read: the text may be
    anybody's."""

    def __init__(self, scale: float = 1.0, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = ""
        self._scale = scale
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setOpenLinks(False)
        self.document().setDocumentMargin(0)
        self.viewport().setAutoFillBackground(False)
        follow(self, self._show)

    @property
    def text(self) -> str:
        """The Markdown that is shown."""
        return self._text

    def show_text(self, text: str, scale: float | None = None) -> None:
        self._text, self._scale = text, self._scale if scale is None else scale
        self._show()

    def text_height(self, width: int, scale: float) -> float:
        """How high the text would be in a column of ``width`` pixels."""
        document = QTextDocument()
        document.setDocumentMargin(0)
        _fill(document, self._text, scale)
        document.setTextWidth(width)
        return document.size().height()

    def loadResource(self, kind: int, name: QUrl | str) -> Any:
        return NOT_READ

    def _show(self) -> None:
        _fill(self.document(), self._text, self._scale)


def _fill(document: QTextDocument, text: str, scale: float) -> None:
    document.setDefaultFont(ui_font(scale))
    document.setMarkdown(text, FEATURES)
    cursor = QTextCursor(document)
    cursor.select(QTextCursor.SelectionType.Document)
    leading = QTextBlockFormat()
    leading.setLineHeight(LEADING, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
    cursor.mergeBlockFormat(leading)
