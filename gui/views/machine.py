"""The machine: the processor of a memory image, its mode and registers, which of its CPUs, and which tables."""

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeyEvent, QKeySequence, QPainter, QPaintEvent, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFrame,
    QGridLayout,
    QLabel,
    QLineEdit,
    QListView,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from engine import events as ev
from engine.arch.addresses import grouped, parse_address
from engine.arch.registers import Mode
from engine.errors import InputError
from engine.machine import State
from gui.describe import describe
from gui.document import Change, Document
from gui.explain import engine_text
from gui.models.registers import RegistersModel, Role, Row
from gui.paint.marks import SMALL, chip, chip_size, draw_text, line_height, text_width
from gui.theme import GRID, RADIUS, follow, mono_font, signals, theme, ui_font

LEVELS = {Mode.NONE: 0, Mode.LEGACY: 2, Mode.PAE: 3, Mode.LEVEL4: 4, Mode.LEVEL5: 5}
"""The level whose colour stands for a mode: that of its root."""


class MachineView(QWidget):
    """``edit_register`` is emitted with the name of the register that the user wants to change."""

    edit_register = Signal(str)
    refused = Signal(str)
    """A sentence: what the user asked for cannot be."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.title = _Title()
        self.vendor = _note()
        self.assumed = _note()
        self.cpus = QComboBox()
        self.cpus.setAccessibleName(self.tr("CPU"))
        self.roots = _Roots()
        self.roots.setAccessibleName(self.tr("Root table (CR3)"))
        self.registers = _RegisterList(RegistersModel(document, self))
        self.registers.setAccessibleName(self.tr("Registers"))
        self._lay_out()
        self.setFocusProxy(self.registers)
        self.cpus.activated.connect(self._choose_cpu)
        self.roots.activated.connect(self._choose_root)
        self.registers.chosen.connect(self.edit_register)
        document.changed.connect(self._on_change)
        self._show()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4 * GRID, 2 * GRID, 4 * GRID, 2 * GRID)
        layout.setSpacing(GRID)
        choices = QGridLayout()
        choices.setContentsMargins(0, GRID, 0, GRID)
        choices.setHorizontalSpacing(2 * GRID)
        choices.setVerticalSpacing(GRID)
        for row, (text, box) in enumerate(((self.tr("CPU"), self.cpus), (self.tr("Root"), self.roots))):
            choices.addWidget(_label(text), row, 0)
            choices.addWidget(box, row, 1)
        choices.setColumnStretch(1, 1)
        layout.addWidget(self.title)
        layout.addWidget(self.vendor)
        layout.addLayout(choices)
        layout.addWidget(self.registers, 1)
        layout.addWidget(self.assumed)

    def _on_change(self, change: Change) -> None:
        if change & (Change.SCENARIO | Change.STATE):
            self._show()

    def _show(self) -> None:
        state = self._document.state
        self.title.show_state(self._name(state), engine_text(state.registers.mode.value), LEVELS[state.registers.mode])
        features = state.features
        text = self.tr("{vendor}, MAXPHYADDR {bits}, CPL {cpl}")
        vendor = {"intel": "Intel", "amd": "AMD"}[features.vendor.value]
        self.vendor.setText(text.format(vendor=vendor, bits=features.maxphyaddr, cpl=state.registers.cpl))
        self._show_cpus(state)
        self._show_roots(state)
        assumed = state.image.cpus[state.cpu].assumed if state.image and state.cpu is not None else ()
        self.assumed.setVisible(bool(assumed))
        text = self.tr("Not in the image, assumed: {names}.")
        self.assumed.setText(text.format(names=", ".join(assumed)))

    def _name(self, state: State) -> str:
        if state.cpu is None:
            return self.tr("Processor")
        return self.tr("CPU {number}").format(number=state.cpu)

    def _show_cpus(self, state: State) -> None:
        cpus = state.image.cpus if state.image else ()
        self.cpus.clear()
        for cpu in cpus:
            self.cpus.addItem(self.tr("CPU {number}").format(number=cpu.index), cpu.index)
        if state.cpu is None:
            self.cpus.insertItem(0, self.tr("registers as given"))
        self.cpus.setCurrentIndex(0 if state.cpu is None else state.cpu)
        self.cpus.setEnabled(self.cpus.count() > 0)

    def _show_roots(self, state: State) -> None:
        """CR3 of each CPU of the image, and every root that an event of this scenario chose."""
        known = {cpu.registers.cr3: self._cpu_root(cpu.index) for cpu in (state.image.cpus if state.image else ())}
        for event in self._document.scenario.events:
            if isinstance(event, ev.ChooseRoot):
                known.setdefault(event.cr3, self.tr("chosen before"))
        self.roots.offer(known, state.registers.cr3)

    def _cpu_root(self, cpu: int) -> str:
        return self.tr("CR3 of CPU {number}").format(number=cpu)

    def _choose_cpu(self, row: int) -> None:
        cpu = self.cpus.itemData(row)
        if cpu is not None and cpu != self._document.state.cpu:
            self._append(ev.ChooseCpu(cpu))

    def _choose_root(self) -> None:
        try:
            cr3 = self.roots.root()
        except InputError as error:
            self.refused.emit(str(error))
            return
        if cr3 != self._document.state.registers.cr3:
            self._append(ev.ChooseRoot(cr3))

    def _append(self, event: ev.ChooseCpu | ev.ChooseRoot) -> None:
        after = self._document.after(event)
        text = describe(event, after).title if isinstance(after, State) else ""
        refused = self._document.append(event, text)
        if refused is not None:
            self.refused.emit(engine_text(refused))
            self._show()


def _label(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "muted")
    return label


def _note() -> QLabel:
    label = _label("")
    label.setWordWrap(True)
    follow(label, lambda: label.setFont(ui_font(SMALL)))
    return label


class _Title(QWidget):
    """What processor it is, and a chip with its mode."""

    def __init__(self) -> None:
        super().__init__()
        self._name = self._mode = ""
        self._level = 0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_state(self, name: str, mode: str, level: int) -> None:
        self._name, self._mode, self._level = name, mode, level
        self.setAccessibleName(self.tr("{processor}, paging mode {mode}").format(processor=name, mode=mode))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(40 * GRID, round(line_height(ui_font())) + GRID)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect = QRectF(self.rect())
        bold = ui_font(bold=True)
        draw_text(painter, rect, self._name, bold)
        size = chip_size(self._mode)
        left = rect.left() + text_width(self._name, bold) + 2 * GRID
        chip(painter, QRectF(left, rect.center().y() - size.height() / 2, size.width(), size.height()), self._level,
             self._mode)  # fmt: skip
        painter.end()


class _Roots(QComboBox):
    """Roots by address with where they come from; any other address can be typed."""

    def __init__(self) -> None:
        super().__init__()
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setCompleter(None)  # type: ignore[arg-type]
        follow(self, lambda: self.setFont(mono_font()))
        self.line = QLineEdit()
        self.setLineEdit(self.line)
        self.line.returnPressed.connect(lambda: self.activated.emit(-1))

    def offer(self, known: dict[int, str], current: int) -> None:
        self.clear()
        for root, origin in known.items():
            self.addItem(grouped(root), str(root))
            self.setItemData(self.count() - 1, origin, Qt.ItemDataRole.ToolTipRole)
        self.setEditText(grouped(current))
        self.setToolTip(known.get(current, ""))
        self.line.setCursorPosition(0)

    def root(self) -> int:
        """Raises InputError with a sentence where the text is no address."""
        return parse_address(self.currentText())


class _RegisterList(QListView):
    chosen = Signal(str)

    def __init__(self, model: RegistersModel) -> None:
        super().__init__()
        self._model = model
        self.setModel(model)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setItemDelegate(_Delegate(self))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        self.doubleClicked.connect(lambda index: self.chosen.emit(model.row(index).name))
        signals().changed.connect(self.doItemsLayout)
        copy = QShortcut(QKeySequence.StandardKey.Copy, self, context=Qt.ShortcutContext.WidgetShortcut)
        copy.activated.connect(self.copy)

    def copy(self) -> None:
        """The value of the selected register, to the clipboard."""
        index = self.currentIndex()
        if index.isValid():
            QGuiApplication.clipboard().setText(self._model.row(index).short_text)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        index = self.currentIndex()
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_F2) and index.isValid():
            self.chosen.emit(self._model.row(index).name)
            return
        super().keyPressEvent(event)


class _Delegate(QStyledItemDelegate):
    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        row: Row = index.data(Role.ROW)
        flags = line_height(ui_font(SMALL)) if row.deciding else 0
        return QSize(30 * GRID, round(line_height(mono_font()) + flags + GRID))

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        paint_register(painter, QRectF(option.rect), index.data(Role.ROW), selected=selected, hovered=hovered)
        painter.restore()


def paint_register(painter: QPainter, rect: QRectF, row: Row, *, selected: bool = False, hovered: bool = False) -> None:
    """A register: its name, its value, and below it the flags that are set. A changed one stands in the accent."""
    t = theme()
    if selected or hovered:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(t.accent_ground if selected else t.tint(t.text, 0.04))
        painter.drawRoundedRect(rect, RADIUS, RADIUS)
    inner = rect.adjusted(GRID, GRID / 2, -GRID, -GRID / 2)
    first = line_height(mono_font())
    name_width = text_width("RFLAGS", ui_font()) + 2 * GRID
    draw_text(painter, QRectF(inner.left(), inner.top(), name_width, first), row.title, ui_font(), t.muted)
    value = QRectF(inner.left() + name_width, inner.top(), inner.width() - name_width, first)
    font = mono_font(bold=row.changed)
    text = row.text if text_width(row.text, font) <= value.width() else row.short_text
    draw_text(painter, value, text, font, t.accent if row.changed else t.text)
    if row.deciding:
        below = QRectF(value.left(), inner.top() + first, value.width(), line_height(ui_font(SMALL)))
        draw_text(painter, below, row.deciding, ui_font(SMALL), t.muted)
