"""A report as PDF pages, laid out by Qt from the same document that becomes text and HTML.

Everything is laid out in the light colours in pixels of 96 dpi, and scaled when it is painted: texts and pictures stay
vectors. May run in a worker: it makes all its objects itself, and none of them lives longer than the call.
"""

from collections.abc import Callable
from itertools import count

from PySide6.QtCore import QBuffer, QByteArray, QEventLoop, QIODevice, QMarginsF, QRect, QRectF, QSizeF, Qt
from PySide6.QtGui import (
    QAbstractTextDocumentLayout,
    QColor,
    QFont,
    QPageLayout,
    QPageSize,
    QPainter,
    QPdfWriter,
    QPyTextObject,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
    QTextFormat,
    QTextOption,
    QTextTable,
    QTextTableCellFormat,
    QTextTableFormat,
)
from PySide6.QtSvg import QSvgRenderer

from engine.report.model import Bands, Block, Entries, Fields, Grid, Items, Paragraph, Report, Row, Section, Table
from engine.report.style import LIGHT
from engine.report.svg import on_paper, picture, printable, sample

DPI = 96
MARGIN = 18.0
"""Millimetres of paper around the text."""
RESOLUTION = 1200
FOOT = 24.0
"""Pixels below the text, for the number of the page."""
TEXT, SMALL = 9.5, 8.5
HEADINGS = (18.0, 13.0, 10.5)
"""Points: running text, what stands in tables, headings of each depth."""
OBJECT = "\ufffc"
"""The character that stands for a picture."""
STEP = 36.0
"""Pixels before the title of a step, for its number."""
PICTURE = int(QTextFormat.ObjectTypes.UserObject) + 1
SVG = int(QTextFormat.Property.UserProperty) + 1
KEPT = SVG + 1
"""Of a block that must not be the last of its page: what it announces comes below it."""
Progress = Callable[[float], None]


def pdf(report: Report, progress: Progress = lambda share: None) -> bytes:
    """The bytes of the file."""
    loop = QEventLoop()  # a document lays itself out with a timer, which wants a thread that could have events
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    writer = QPdfWriter(buffer)
    writer.setTitle(printable(report.title))
    writer.setCreator("Walkscope")
    writer.setResolution(RESOLUTION)
    writer.setPageLayout(
        QPageLayout(
            QPageSize(QPageSize.PageSizeId.A4), QPageLayout.Orientation.Portrait,
            QMarginsF(MARGIN, MARGIN, MARGIN, MARGIN), QPageLayout.Unit.Millimeter,
        )
    )  # fmt: skip
    document = QTextDocument()
    pictures = _Pictures()
    document.documentLayout().registerHandler(PICTURE, pictures)
    scale = RESOLUTION / DPI
    page = QSizeF(writer.width() / scale, writer.height() / scale - FOOT)
    _Writer(document, page.width()).write(report)
    document.setPageSize(page)
    _keep_together(document, page.height())
    painter = QPainter(writer)
    painter.scale(scale, scale)
    stopped = None
    try:
        _paint(painter, document, page, writer, printable(report.title), progress)
    except Exception as error:
        stopped = error.with_traceback(None)  # its frames hold Qt's objects, which must end here
    painter.end()
    buffer.close()
    del painter, document, pictures, writer, buffer, loop  # in this order
    if stopped is not None:
        raise stopped
    return bytes(data.data())


def _keep_together(document: QTextDocument, height: float) -> None:
    """Take headings and captions to the page of what they announce."""
    layout = document.documentLayout()

    def page_of(block: QTextBlock) -> int:
        return int(layout.blockBoundingRect(block).top() // height)

    block = document.begin()
    while block.isValid():
        first = block
        while block.isValid() and (block.blockFormat().hasProperty(KEPT) or (first != block and _is_gap(block))):
            block = block.next()
        if first != block and block.isValid() and page_of(first) != page_of(block):
            format = first.blockFormat()
            format.setPageBreakPolicy(QTextFormat.PageBreakFlag.PageBreak_AlwaysBefore)
            QTextCursor(first).setBlockFormat(format)
            document.pageCount()  # lays all of it out again; asked for a block alone, Qt tells of lines it has not made
        block = block.next() if first == block else block


def _is_gap(block: QTextBlock) -> bool:
    """Whether there is nothing in ``block``, as in the one that Qt keeps before a table."""
    return block.length() == 1 and QTextCursor(block).currentTable() is None


def _paint(
    painter: QPainter, document: QTextDocument, page: QSizeF, writer: QPdfWriter, title: str, progress: Progress
) -> None:
    pages = document.pageCount()
    for number in range(pages):
        if number:
            writer.newPage()
        painter.save()
        top = number * page.height()
        painter.translate(0, -top)
        context = QAbstractTextDocumentLayout.PaintContext()
        context.clip = QRectF(0, top, page.width(), page.height())
        painter.setClipRect(context.clip)
        document.documentLayout().draw(painter, context)
        painter.restore()
        _foot(painter, page, title, f"{number + 1} / {pages}")
        progress((number + 1) / pages)


def _foot(painter: QPainter, page: QSizeF, title: str, number: str) -> None:
    painter.save()
    painter.setFont(_font(SMALL))
    painter.setPen(QColor(LIGHT["muted"]))
    place = QRectF(0, page.height() + FOOT / 3, page.width(), FOOT * 2 / 3)
    painter.drawText(place, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignBottom, number)
    room = place.adjusted(0, 0, -painter.fontMetrics().horizontalAdvance(f"  {number}"), 0)
    shown = painter.fontMetrics().elidedText(title, Qt.TextElideMode.ElideMiddle, int(room.width()))
    painter.drawText(room, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignBottom, shown)
    painter.restore()


def _font(points: float, bold: bool = False, mono: bool = False) -> QFont:
    font = QFont()
    font.setFamilies(["DejaVu Sans Mono", "Liberation Mono", "monospace"] if mono else ["DejaVu Sans", "sans-serif"])
    if mono:
        font.setFixedPitch(True)
    font.setPixelSize(max(1, round(points * DPI / 72)))
    font.setBold(bold)
    font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    return font


class _Pictures(QPyTextObject):
    """Draws the SVG that a character of the document stands for."""

    def intrinsicSize(self, document: QTextDocument, position: int, format: QTextFormat) -> QSizeF:
        return _size(QSvgRenderer(QByteArray(format.property(SVG).encode())), document)

    def drawObject(
        self, painter: QPainter, rect: QRectF | QRect, document: QTextDocument, position: int, format: QTextFormat
    ) -> None:
        QSvgRenderer(QByteArray(format.property(SVG).encode())).render(painter, QRectF(rect))


def _size(renderer: QSvgRenderer, document: QTextDocument) -> QSizeF:
    """The picture's own size, or as much smaller as the page is narrow."""
    size = renderer.viewBoxF().size()
    room = document.textWidth()
    if room <= 0:
        room = document.pageSize().width()
    return size * min(1.0, room / size.width()) if size.width() else size


class _Writer:
    """Puts the blocks of a report into a document, one below the other."""

    def __init__(self, document: QTextDocument, width: float) -> None:
        document.setDefaultFont(_font(TEXT))
        document.setDocumentMargin(0)
        document.setTextWidth(width)
        document.setUseDesignMetrics(True)
        self._cursor = QTextCursor(document)
        self._numbers = count(1)
        self._fresh = True

    def write(self, report: Report) -> None:
        self._cursor.beginEditBlock()  # laid out once, at its end
        self._heading(report.title, 0)
        self._blocks(report.lead)
        for number, section in enumerate(report.sections, 1):
            self._section(section, f"{number}. ", 1)
        self._cursor.endEditBlock()

    def _section(self, section: Section, number: str, depth: int) -> None:
        self._heading(f"{number}{section.title}", depth, section.marked and depth > 1)
        self._blocks(section.blocks)
        for part in section.parts:
            self._section(part, "", depth + 1)

    # --- paragraphs

    def _begin(self, top: float = 0, bottom: float = 6, indent: float = 0) -> QTextBlockFormat:
        """A new block, or the first one there is."""
        format = QTextBlockFormat()
        format.setTopMargin(top)
        format.setBottomMargin(bottom)
        format.setLeftMargin(indent)
        format.setLineHeight(125, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
        if self._fresh and top and not self._cursor.atStart():
            self._space(top)
        if self._fresh:
            self._cursor.setBlockFormat(format)
        else:
            self._cursor.insertBlock(format)
        self._fresh = False
        return format

    def _space(self, height: float) -> None:
        """Make the block that stands below a table a gap: a margin does not count there."""
        format = QTextBlockFormat()
        format.setLineHeight(height, QTextBlockFormat.LineHeightTypes.FixedHeight.value)
        self._cursor.setBlockFormat(format)
        self._fresh = False

    def _say(self, text: str, style: QTextCharFormat) -> None:
        self._cursor.insertText(printable(text), style)

    def _heading(self, text: str, depth: int, bad: bool = False) -> None:
        format = self._begin(top=(0, 20, 12)[depth], bottom=(12, 8, 6)[depth])
        format.setHeadingLevel(depth + 1)
        format.setProperty(KEPT, True)
        self._cursor.setBlockFormat(format)
        self._say(text, _style(HEADINGS[depth], bold=True, ink="hazard-text" if bad else "text"))

    def _blocks(self, blocks: tuple[Block, ...], indent: float = 0) -> None:
        for block in blocks:
            match block:
                case Paragraph():
                    self._begin(indent=indent)
                    self._say(block.text, _style(TEXT))
                case Items():
                    self._items(block, indent)
                case Fields():
                    self._fields(block, indent)
                case Table():
                    self._table(block, indent)
                case Entries():
                    self._entries(block)
                case Grid() | Bands():
                    self._figure(block)

    def _items(self, block: Items, indent: float) -> None:
        for item in block.items:
            self._hanging("•", _style(TEXT), 14, indent)
            self._say(item, _style(TEXT))

    def _entries(self, block: Entries) -> None:
        for entry in block.entries:
            ink = "hazard-text" if entry.marked else "muted"
            sign = f"{'! ' * entry.marked}{entry.number}"
            self._hanging(sign, _style(TEXT, bold=entry.marked, ink=ink), STEP, 0, top=8)
            self._say(entry.title, _style(TEXT, bold=True))
            self._blocks(entry.blocks, indent=STEP)

    def _hanging(self, sign: str, style: QTextCharFormat, width: float, indent: float, top: float = 0) -> None:
        """Begin a block whose first line has ``sign`` before it, ``width`` to the left of the others."""
        format = self._begin(top=top, bottom=3, indent=indent + width)
        format.setTextIndent(-width)
        format.setTabPositions([QTextOption.Tab(width, QTextOption.TabType.LeftTab)])
        self._cursor.setBlockFormat(format)
        self._say(sign, style)
        self._cursor.insertText("\t", style)

    def _caption(self, text: str, indent: float) -> None:
        format = self._begin(top=4, bottom=2, indent=indent)
        format.setProperty(KEPT, True)
        self._cursor.setBlockFormat(format)
        self._say(text, _style(SMALL, ink="muted"))

    # --- tables

    def _fields(self, block: Fields, indent: float) -> None:
        table = self._grid(len(block.rows), 2, indent)
        for row, (name, text) in enumerate(block.rows):
            self._cell(table, row, 0, name, _style(SMALL, ink="muted"))
            self._cell(table, row, 1, text, _style(SMALL))
        self._end(table)

    def _table(self, block: Table, indent: float) -> None:
        if block.titled:
            self._caption(block.title, indent)
        table = self._grid(len(block.rows) + 1, len(block.head), indent, heads=1)
        for column, text in enumerate(block.head):
            self._cell(table, 0, column, text, _style(SMALL, bold=True, ink="muted"), right=column in block.right)
        for number, row in enumerate(block.rows, 1):
            self._row(table, number, row, block)
        self._end(table)

    def _row(self, table: QTextTable, number: int, row: Row, block: Table) -> None:
        if len(row.cells) == 1:
            table.mergeCells(number, 0, 1, len(block.head))
            self._cell(table, number, 0, row.cells[0], _style(SMALL, bold=True, ink="muted"))
            return
        for column, text in enumerate(row.cells):
            style = _style(SMALL, mono=column in block.code)
            sign = "! " if row.marked and column == 0 else ""
            self._cell(table, number, column, f"{sign}{text}", style, column in block.right, row.marked)

    def _grid(self, rows: int, columns: int, indent: float, heads: int = 0) -> QTextTable:
        format = QTextTableFormat()
        format.setBorder(0)
        format.setCellPadding(2)
        format.setCellSpacing(0)
        format.setLeftMargin(indent)
        format.setBottomMargin(8)
        format.setHeaderRowCount(heads)
        self._begin(bottom=0)
        return self._cursor.insertTable(rows, columns, format)

    def _cell(
        self, table: QTextTable, row: int, column: int, text: str, style: QTextCharFormat, right: bool = False,
        marked: bool = False,
    ) -> None:  # fmt: skip
        cell = table.cellAt(row, column)
        look = QTextTableCellFormat()
        look.setRightPadding(14)
        if marked:
            look.setBackground(QColor(LIGHT["hazard-ground"]))
        cell.setFormat(look)
        at = cell.firstCursorPosition()
        block = QTextBlockFormat()
        block.setAlignment(Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft)
        at.setBlockFormat(block)
        at.insertText(printable(text), style)

    def _end(self, table: QTextTable) -> None:
        """Go on below ``table``, in the block that Qt leaves there."""
        self._cursor.setPosition(table.lastPosition() + 1)
        self._fresh = True

    # --- pictures

    def _figure(self, block: Grid | Bands) -> None:
        self._caption(block.title, 0)
        format = self._begin(bottom=8)
        format.setLineHeight(100, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
        self._cursor.setBlockFormat(format)
        self._insert(picture(block, f"picture-{next(self._numbers)}", on_paper))
        if isinstance(block, Bands):
            self._begin(bottom=8)
            for text, kind in {text: kind for kind, text in block.legend}.items():
                self._insert(sample(kind))
                self._say(f" {text}     ", _style(SMALL))
            self._say("blank: mapped on neither side", _style(SMALL))

    def _insert(self, svg: str) -> None:
        format = QTextCharFormat()
        format.setObjectType(PICTURE)
        format.setProperty(SVG, svg)
        self._cursor.insertText(OBJECT, format)


def _style(points: float, bold: bool = False, mono: bool = False, ink: str = "text") -> QTextCharFormat:
    format = QTextCharFormat()
    format.setFont(_font(points, bold, mono))
    format.setForeground(QColor(LIGHT[ink]))
    return format
