"""What the program is, and what it is made of: versions and licences."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QHeaderView,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from gui import components
from gui.icons import application_icon
from gui.theme import GRID, MARGIN, mono_font, ui_font
from gui.version import VERSION

ICON = 16 * GRID
SIZE = (180 * GRID, 150 * GRID)


class AboutDialog(QDialog):
    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("About Walkscope"))
        self._components = components.components()
        self.list = QTreeWidget()
        self.licence = QPlainTextEdit()
        self._fill()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        copy = QPushButton(self.tr("Copy versions"))
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.versions()))
        buttons.addButton(copy, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        layout.setSpacing(3 * GRID)
        layout.addLayout(self._head())
        layout.addWidget(self.list, 2)
        layout.addWidget(self.licence, 3)
        layout.addWidget(buttons)
        self.resize(*SIZE)

    def versions(self) -> str:
        """What a report of a fault should begin with."""
        lines = [f"{each.name} {each.version}" for each in self._components]
        return "\n".join([f"Walkscope {VERSION}", *lines])

    def _head(self) -> QGridLayout:
        picture = QLabel()
        picture.setPixmap(application_icon().pixmap(ICON, ICON))
        name = QLabel(self.tr("Walkscope {version}").format(version=VERSION))
        name.setFont(ui_font(1.5, bold=True))
        what = QLabel(self.tr("An explorer of x86 page tables: of real memory images, and under KVM."))
        terms = QLabel(self.tr("Free software under the MIT licence. It is made with the parts below."))
        terms.setProperty("role", "muted")
        for label in (name, what, terms):
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        head = QGridLayout()
        head.setHorizontalSpacing(4 * GRID)
        head.setVerticalSpacing(GRID)
        head.setColumnStretch(1, 1)
        head.addWidget(picture, 0, 0, 3, 1, Qt.AlignmentFlag.AlignTop)
        for row, label in enumerate((name, what, terms)):
            head.addWidget(label, row, 1)
        return head

    def _fill(self) -> None:
        self.list.setHeaderLabels([self.tr("Part"), self.tr("Version"), self.tr("Licence")])
        self.list.setAccessibleName(self.tr("Parts and their licences"))
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        items = [QTreeWidgetItem([each.name, each.version, each.licence]) for each in self._components]
        for item in items:
            item.setToolTip(2, item.text(2))
        self.list.addTopLevelItems(items)
        header = self.list.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.licence.setReadOnly(True)
        self.licence.setFont(mono_font())
        self.licence.setAccessibleName(self.tr("Licence of the selected part"))
        self.list.currentItemChanged.connect(self._show_licence)
        self.list.setCurrentItem(items[0])

    def _show_licence(self, item: QTreeWidgetItem) -> None:
        part = self._components[self.list.indexOfTopLevelItem(item)]
        nothing = self.tr("{name} comes without the text of its licence: {licence}.")
        text = components.text(part) or nothing.format(name=part.name, licence=part.licence)
        self.licence.setPlainText(text)
