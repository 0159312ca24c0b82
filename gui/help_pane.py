"""Help beside the work: the pages of resources/docs, with links from one to another."""

from PySide6.QtGui import QTextCharFormat, QTextCursor, QTextDocument
from PySide6.QtWidgets import QFrame, QTextBrowser, QWidget

from gui import resources
from gui.layout import HELP_PAGE
from gui.theme import GRID, follow, ui_font

FRONT = "index"
"""The page where no view has the focus."""


class HelpPane(QTextBrowser):
    """A link names another page, without its ending."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.page = FRONT
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setAccessibleName(self.tr("Help"))
        self.setOpenLinks(False)
        self.document().setDocumentMargin(4 * GRID)
        self.anchorClicked.connect(lambda url: self.show_page(url.path()))
        follow(self, lambda: self.show_page(self.page))

    def show_page(self, page: str) -> None:
        """Show ``page``; the front page where there is none of that name."""
        if page:
            names = {path.stem for path in resources.RESOURCES.joinpath("docs").glob("*.md")}
            self.page = page if page in names else FRONT
            features = (
                QTextDocument.MarkdownFeature.MarkdownDialectGitHub | QTextDocument.MarkdownFeature.MarkdownNoHTML
            )
            self.document().setMarkdown(resources.text("docs", f"{self.page}.md"), features)
            self._quiet_headings()
            self.moveCursor(QTextCursor.MoveOperation.Start)

    def _quiet_headings(self) -> None:
        """Headings a little larger than text: the pane is narrow."""
        block = self.document().begin()
        while block.isValid():
            if block.blockFormat().headingLevel():
                cursor = QTextCursor(block)
                cursor.select(QTextCursor.SelectionType.BlockUnderCursor)
                heading = QTextCharFormat()
                heading.setFont(ui_font(1.25, bold=True))
                cursor.mergeCharFormat(heading)
            block = block.next()


def page_about(widget: QWidget | None) -> str:
    """The page about the view that ``widget`` is in."""
    while widget is not None:
        page = widget.property(HELP_PAGE)
        if page:
            return str(page)
        widget = widget.parentWidget()
    return FRONT
