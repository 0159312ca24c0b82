"""The events of the scenario as a list: row n is the state after n events, so row 0 is the start."""

from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractListModel, QMimeData, QModelIndex, QObject, QPersistentModelIndex, Qt

from gui.describe import Line, describe
from gui.document import Change, Document
from gui.outcomes import Mark

MIME = "application/x-walkscope-event"
Index = QModelIndex | QPersistentModelIndex
ROOT = QModelIndex()


class Role(IntEnum):
    LINE = Qt.ItemDataRole.UserRole
    """The `Line` of the row, to be painted."""
    STEP = Qt.ItemDataRole.UserRole + 1
    PINS = Qt.ItemDataRole.UserRole + 2
    """Of A and B those that are at the row, each with whether the user pinned it there."""


class TimelineModel(QAbstractListModel):
    """Dragging a row somewhere else moves its event, as an edit that can be undone."""

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._lines: dict[int, Line] = {}
        document.changed.connect(self._on_change)

    def line(self, step: int) -> Line:
        """What row ``step`` says."""
        if step not in self._lines:
            self._lines[step] = self._describe(step)
        return self._lines[step]

    def _describe(self, step: int) -> Line:
        if step == 0:
            return Line("start", self.tr("Start"), self.tr("nothing has happened yet"))
        replay = self._document.replay
        return describe(self._document.scenario.events[step - 1], replay.state(step), replay.refusal(step))

    def _on_change(self, change: Change) -> None:
        if change & Change.SCENARIO:
            self.beginResetModel()
            self._lines.clear()
            self.endResetModel()

    # --- the model

    def rowCount(self, parent: Index = ROOT) -> int:
        return 0 if parent.isValid() else self._document.last_step + 1

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() > self._document.last_step:
            return None
        if role == Role.STEP:
            return index.row()
        if role == Role.PINS:
            return self._pins(index.row())
        line = self.line(index.row())
        match role:
            case Role.LINE:
                return line
            case Qt.ItemDataRole.DisplayRole:
                return line.title
            case Qt.ItemDataRole.ToolTipRole:
                return "\n".join(filter(None, (line.title, line.subtitle, line.tip)))
            case Qt.ItemDataRole.AccessibleTextRole:
                return self._spoken(index.row(), line)
        return None

    def _pins(self, step: int) -> tuple[tuple[str, bool], ...]:
        """None before there is a host: there is nothing to compare."""
        if self._document.state.host is None:
            return ()
        pinned = self._document.pinned
        both = zip("AB", self._document.pins, (pinned.a, pinned.b), strict=True)
        return tuple((name, own is not None) for name, pin, own in both if pin.step == step)

    def _spoken(self, step: int, line: Line) -> str:
        news = {
            Mark.REFUSED: self.tr("Step {step}, refused: {title}. {outcome}"),
            Mark.FAULT: self.tr("Step {step}, a fault: {title}. {outcome}"),
            Mark.HAZARD: self.tr("Step {step}, a hazard: {title}. {outcome}"),
            Mark.ASSUMED: self.tr("Step {step}, by assumption: {title}. {outcome}"),
            Mark.OK: self.tr("Step {step}: {title}. {outcome}"),
        }
        return news[line.mark].format(step=step, title=line.title, outcome=line.subtitle)

    # --- dragging

    def flags(self, index: Index) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.ItemIsDropEnabled  # between rows
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsDragEnabled if index.row() else flags

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.MoveAction

    def mimeTypes(self) -> list[str]:
        return [MIME]

    def mimeData(self, indexes: list[Index]) -> QMimeData:  # type: ignore[override]
        data = QMimeData()
        data.setData(MIME, str(indexes[0].row()).encode())
        return data

    def dropMimeData(self, data: QMimeData, action: Qt.DropAction, row: int, column: int, parent: Index) -> bool:
        """Moves the event. False, for the view would else remove the dragged row by itself."""
        if data.hasFormat(MIME):
            moved = int(bytes(data.data(MIME).data()).decode()) - 1
            before = (row if row >= 0 else self.rowCount()) - 1
            target = max(0, before - 1 if before > moved else before)
            if target != moved:
                self._document.move_event(moved, target, self.tr("Move event"))
        return False
