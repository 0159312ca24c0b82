"""The layout that the rows of all forms share."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFormLayout, QLabel

from gui.dialogs.editors import Editor
from gui.theme import GRID, ui_font

LABEL_WIDTH = 28 * GRID
"""All forms of a dialog have their fields at the same place."""


def form() -> QFormLayout:
    made = QFormLayout()
    made.setHorizontalSpacing(3 * GRID)
    made.setVerticalSpacing(2 * GRID)
    made.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    made.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    return made


def label(text: str, editor: Editor, help_: str = "") -> QLabel:
    made = QLabel(text)
    made.setMinimumWidth(LABEL_WIDTH)
    made.setBuddy(editor.main)
    made.setToolTip(help_)
    return made


def heading(text: str) -> QLabel:
    made = QLabel(text)
    made.setFont(ui_font(bold=True))
    made.setContentsMargins(0, 2 * GRID, 0, 0)
    return made
