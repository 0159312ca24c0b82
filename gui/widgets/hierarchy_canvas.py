"""The picture of the hierarchy as something to move in: zoom, pan, peek, select, follow."""

from functools import partial

import msgspec
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSizeF, Qt
from PySide6.QtGui import (
    QContextMenuEvent,
    QGuiApplication,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QFrame, QMenu, QToolTip, QWidget

from engine.arch.addresses import grouped
from engine.arch.rights import READ
from engine.arch.walk import Rule, Stage
from engine.machine import Refusal
from engine.machine.mirror import Mirror
from gui.document import Change, Document, Query, Selection
from gui.mirror_texts import MANY
from gui.models.hierarchy import Node, Opened, Path, Tables, Tree, trees
from gui.models.mirror import Bundle, Pair, Wire, bundles, pair
from gui.models.peek import name_of, peek
from gui.paint.hierarchy import Marked, paint_hierarchy
from gui.paint.layout import Card, Layout, lay_out
from gui.paint.marks import empty_state
from gui.paint.mirror import Wiring
from gui.theme import GRID, MARGIN, signals, theme
from gui.widgets.zoom_buttons import ZoomButtons, zoom_by_key

NEAR = 5
"""How far (pixels) from an entry a click may be and still mean it."""
APART = 1.5
"""How far (pixels) lines between two sides must be from each other to be drawn apart."""
LEAST_ZOOM, MOST_ZOOM = 0.25, 96.0
STEP_KEYS = (Qt.Key.Key_Left, Qt.Key.Key_Right)
OWN_KEYS = (
    Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Home, Qt.Key.Key_End, Qt.Key.Key_Return, Qt.Key.Key_Enter,
    Qt.Key.Key_Delete, Qt.Key.Key_Plus, Qt.Key.Key_Minus, Qt.Key.Key_0, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown,
)  # fmt: skip


class HierarchyCanvas(QAbstractScrollArea):
    """Up and Down move among the entries of a table, Left and Right among levels, Enter follows, Delete closes; Page Up
    and Page Down go to the other side of a mirror."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._tables = Tables(document.state.memory)
        self._opened: Opened = frozenset()
        self._trees: tuple[Tree, ...] = ()
        self._pair: Pair | None = None
        self._bundles: tuple[Bundle, ...] = ()
        self._reach = 1
        self._hovered: tuple[int, Path] | None = None
        self._layout: Layout = lay_out((), QSizeF(800, 600))
        self._zoom = 1.0
        self._marked: Marked | None = None
        self._pressed: QPoint | None = None
        self._panning = False
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.viewport().setMouseTracking(True)
        self.setAccessibleName(self.tr("Hierarchy of tables"))
        self._buttons = ZoomButtons(self.zoom_by, self.fit, self)
        document.changed.connect(self._on_change)
        signals().changed.connect(self._lay_out)
        self._rebuild()
        self._mark()

    @property
    def layout_(self) -> Layout:
        """Where everything stands now; for tests and for saving the picture."""
        return self._layout

    @property
    def marked(self) -> Marked | None:
        return self._marked

    # --- what is shown

    def _on_change(self, change: Change) -> None:
        if change == Change.ALL:
            self._opened = frozenset()
        if change & (Change.STATE | Change.SCENARIO | Change.WALK | Change.REFERENCE):
            self._rebuild()
        self._mark()
        if change & Change.REFERENCE and self._marked:
            self._reveal()
        self.viewport().update()

    def _rebuild(self) -> None:
        document = self._document
        if self._tables.memory is not document.state.memory:
            self._tables = Tables(document.state.memory)
        stages = document.stages
        self._pair, self._hovered = self._mirrored(), None
        if self._pair is not None:
            self._trees = self._pair.trees
        elif isinstance(stages, Refusal) or not document.last_step:
            self._trees = ()
        else:
            # The tables are those that hardware walks: of the logical walk's references L2's alone are among them.
            reference = None if document.is_logical else document.reference
            self._trees = trees(self._tables, stages, document.hardware, reference, self._opened)
        self._lay_out()

    def _mirrored(self) -> Pair | None:
        """What KVM mirrors beside its tables, where that is wanted and there is any."""
        document = self._document
        found = document.mirror if document.wants_mirror else None
        if not isinstance(found, Mirror):
            return None
        reference = None if document.is_logical else document.reference
        return pair(
            self._tables, document.state, document.place.vm, found, document.hardware, reference, self._opened
        )  # fmt: skip

    @property
    def is_mirror(self) -> bool:
        """Whether the tables that KVM mirrors stand above its own, instead of those that the walk goes through."""
        return self._pair is not None

    @property
    def pair(self) -> Pair | None:
        return self._pair

    def _wiring(self) -> Wiring | None:
        """The lines, with those of the selected entry and of the table under the pointer lit."""
        if self._pair is None:
            return None
        lit: dict[Wire, None] = {}
        partners: tuple[tuple[int, Path, int], ...] = ()
        if self._hovered is not None:
            tree, path = self._hovered
            lit |= dict.fromkeys(self._pair.touching(self._trees[tree].is_above, path))
        marked = self._marked
        if marked is not None and marked.tree < len(self._trees):
            is_above = self._trees[marked.tree].is_above
            lit |= dict.fromkeys(self._pair.touching(is_above, marked.path, marked.slot))
            partners = self._partners(marked.tree, marked.path, marked.slot)
        return Wiring(self._pair.mirror, self._bundles, tuple(lit), partners, self._reach)

    def _partners(self, tree: int, path: Path, slot: int) -> tuple[tuple[int, Path, int], ...]:
        """The counterparts of an entry on the other side of a mirror."""
        if self._pair is None:
            return ()
        is_above = self._trees[tree].is_above
        wires = self._pair.touching(is_above, path, slot)
        return tuple((1, w.below, w.slot) if is_above else (0, w.above, w.above_slot) for w in wires)

    def _lay_out(self) -> None:
        walk = self._document.hardware
        self._layout = lay_out(self._trees, QSizeF(self.viewport().size()), self._zoom, walk.outcome if walk else None)
        if self._pair is not None:
            narrowest = min((card.slot_width for card in self._layout.cards), default=1.0)
            self._reach = max(1, round(APART / narrowest))
            self._bundles = bundles(self._pair.wires, self._reach)
        size, view = self._layout.size, self.viewport().size()
        for bar, length, page in (
            (self.horizontalScrollBar(), size.width(), view.width()),
            (self.verticalScrollBar(), size.height(), view.height()),
        ):
            bar.setRange(0, max(0, round(length - page)))
            bar.setPageStep(page)
            bar.setSingleStep(10 * GRID)
        self.viewport().update()

    def _mark(self) -> None:
        """The selected entry, in the table that the user pointed at where several nodes are that table."""
        selection = self._document.selection
        self._marked = self._find(selection) if selection else None
        if self._marked and selection:
            node = self._node(self._marked)
            title = peek(self._trees[self._marked.tree], node, self._marked.slot) if node else ""
            self.setAccessibleDescription(title)

    def _find(self, selection: Selection) -> Marked | None:
        def fits(node: Node) -> bool:
            return node.address == selection.table and node.level == selection.level

        if self._marked is not None:
            node = self._node(self._marked)
            if node and fits(node) and self._reads(self._trees[self._marked.tree], selection):
                return msgspec.structs.replace(self._marked, slot=selection.index)
        found = [
            (node.walked != selection.index, Marked(number, node.path, selection.index))
            for number, tree in enumerate(self._trees)
            if self._reads(tree, selection)
            for node in tree.nodes
            if fits(node)
        ]
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _reads(self, tree: Tree, selection: Selection) -> bool:
        """Whether entries of the tree are read as the selected one is; the sides of a mirror differ by their bytes."""
        return tree.mirror is not None or tree.stage is selection.stage

    def _node(self, marked: Marked) -> Node | None:
        return self._trees[marked.tree].node(marked.path) if marked.tree < len(self._trees) else None

    # --- what the user does

    def choose(self, tree: int, path: Path, slot: int) -> None:
        """Select an entry."""
        node = self._trees[tree].node(path)
        if node is None:
            return
        self._marked = Marked(tree, path, slot)
        if node.registers and node.walked == slot:
            self._document.go_to_reference(0)
        elif node.address is not None:
            self._document.select(Selection(self._trees[tree].stage, node.level, node.address, slot))
        self._reveal()

    def follow(self, tree: int, path: Path, slot: int) -> None:
        """Open the table that an entry points at and go there; of any other entry walk its first address."""
        node = self._trees[tree].node(path)
        if node is None:
            return
        if node.rule(slot) is not Rule.TABLE:
            self.walk_to(tree, path, slot)
            return
        child = (*path, slot)
        self._opened |= {(self._trees[tree].key, child)}
        self._rebuild()
        below = self._trees[tree].node(child)
        if below is not None:
            first = below.walked if below.walked is not None else below.occupied(-1, True)
            self.choose(tree, child, first or 0)

    def close_table(self, tree: int, path: Path) -> None:
        """Close a table that the user opened, with all below it; its entry is selected instead."""
        own = self._trees[tree].key
        self._opened = frozenset(key for key in self._opened if key[0] != own or key[1][: len(path)] != path)
        self._rebuild()
        if path and self._trees[tree].node(path) is None:
            self.choose(tree, path[:-1], path[-1])

    def walk_to(self, tree: int, path: Path, slot: int) -> None:
        """Walk the first address that an entry translates."""
        shown = self._trees[tree]
        node = shown.node(path)
        if node is None or not _is_walked(shown):
            return
        query = self._document.query or Query(0, READ, self._document.state.registers.cpl)
        address = shown.shown_address(node.input_address(slot))
        place = msgspec.structs.replace(query.place, physical=shown.stage is Stage.NESTED)
        self._document.ask(msgspec.structs.replace(query, address=address, place=place))

    def zoom_by(self, factor: float, about: QPointF | None = None) -> None:
        """Zoom, with what is at ``about`` (in the viewport; default: the selected entry, or the middle) staying."""
        at = about or self._focus()
        before = at + self._offset()
        zoom = max(LEAST_ZOOM, min(MOST_ZOOM, self._zoom * factor))
        cards = self._layout.cards
        anchor = min(cards, key=lambda card: _distance(card.rect, before), default=None)
        self._zoom = zoom
        self._lay_out()
        if anchor is None:
            return
        after = self._layout.card(anchor.tree, anchor.node.path)
        assert after is not None
        across = (before.x() - anchor.strip.left()) / anchor.strip.width()
        down = (before.y() - anchor.rect.top()) / anchor.rect.height()
        x = after.strip.left() + across * after.strip.width()
        y = after.rect.top() + down * after.rect.height()
        self.horizontalScrollBar().setValue(round(x - at.x()))
        self.verticalScrollBar().setValue(round(y - at.y()))

    def _focus(self) -> QPointF:
        """Where in the viewport the selected entry is; its middle where that is out of sight."""
        view = QRectF(self.viewport().rect())
        card = self._layout.card(self._marked.tree, self._marked.path) if self._marked else None
        if card is not None and self._marked is not None:
            at = card.slot_rect(self._marked.slot).center() - self._offset()
            if view.contains(at):
                return at
        return view.center()

    @property
    def zoom(self) -> float:
        """How many times the whole width is as wide as the window."""
        return self._zoom

    def fit(self) -> None:
        """The whole width in the window."""
        self.zoom_to(1.0)

    def zoom_to(self, zoom: float) -> None:
        """Zoom, with the selected entry in sight."""
        self._zoom = max(LEAST_ZOOM, min(MOST_ZOOM, zoom))
        self._lay_out()
        self._reveal()

    def _offset(self) -> QPointF:
        return QPointF(self.horizontalScrollBar().value(), self.verticalScrollBar().value())

    def _reveal(self) -> None:
        """Scroll as little as it takes to see the selected entry."""
        card = self._layout.card(self._marked.tree, self._marked.path) if self._marked else None
        if card is None or self._marked is None:
            return
        slot = card.slot_rect(self._marked.slot)
        for bar, low, high, page in (
            (self.horizontalScrollBar(), slot.left(), slot.right(), self.viewport().width()),
            (self.verticalScrollBar(), card.rect.top(), card.rect.bottom(), self.viewport().height()),
        ):
            room = min(MARGIN * 2, max(0, (page - (high - low)) / 2))
            bar.setValue(round(max(min(bar.value(), low - room), high + room - page)))

    def _hit(self, position: QPointF) -> tuple[Card, int] | None:
        """The table under the pointer and the slot meant: where slots are narrow, an occupied one close by."""
        point = position + self._offset()
        card = self._layout.card_at(point)
        if card is None:
            return None
        slot, node = card.slot_at(point.x()), card.node
        reach = int(NEAR / card.slot_width)
        if not reach or not card.strip.adjusted(-NEAR, -NEAR, NEAR, 5 * GRID).contains(point):
            return card, slot
        if node.walked is not None and abs(node.walked - slot) <= reach:
            return card, node.walked
        around = (node.occupied(slot - 1, True), node.occupied(slot + 1, False))
        near = [other for other in around if other is not None and abs(other - slot) <= reach]
        return card, min(near, key=lambda other: abs(other - slot), default=slot)

    # --- events

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.fillRect(self.viewport().rect(), theme().window)
        if not self._trees:
            empty_state(painter, QRectF(self.viewport().rect()), *self._empty())
            return
        offset = self._offset()
        painter.translate(-offset)
        exposed = QRectF(self.viewport().rect()).translated(offset)
        paint_hierarchy(painter, self._layout, self._trees, self._marked, exposed, self._wiring())

    def _empty(self) -> tuple[str, str]:
        stages = self._document.stages
        if not self._document.last_step:
            advice = self.tr("Open a memory image (Ctrl+O) or drop one on this window.")
            return self.tr("No memory yet"), advice
        if self._pair is not None:
            return self.tr("No tables yet"), self.tr("KVM makes its tables with the first access of the guest.")
        if isinstance(stages, Refusal):
            return self.tr("No tables to show"), stages.reason
        return self.tr("Paging is off"), self.tr("Linear addresses are physical as they are: there are no tables.")

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._lay_out()
        self._buttons.place(self.viewport().width(), self.viewport().height())

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        self.viewport().update()

    def wheelEvent(self, event: QWheelEvent) -> None:
        delta = event.angleDelta()
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom_by(1.0015 ** delta.y(), event.position())
        elif event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            bar = self.horizontalScrollBar()
            bar.setValue(bar.value() - delta.y() - delta.x())
        else:
            super().wheelEvent(event)
            return
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            self._pressed, self._panning = event.position().toPoint(), False

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        point = event.position().toPoint()
        if self._pressed is not None:
            moved = point - self._pressed
            if self._panning or moved.manhattanLength() >= QGuiApplication.styleHints().startDragDistance():
                self._panning = True
                self._pressed = point
                self.viewport().setCursor(Qt.CursorShape.ClosedHandCursor)
                self.horizontalScrollBar().setValue(self.horizontalScrollBar().value() - moved.x())
                self.verticalScrollBar().setValue(self.verticalScrollBar().value() - moved.y())
            return
        self._peek(event)

    def _peek(self, event: QMouseEvent) -> None:
        hit = self._hit(event.position())
        self._hover(None if hit is None else (hit[0].tree, hit[0].node.path))
        if hit is None:
            QToolTip.hideText()
            return
        card, slot = hit
        area = card.rect.translated(-self._offset()).toRect()
        QToolTip.showText(
            event.globalPosition().toPoint() + QPoint(0, 4 * GRID), peek(self._trees[card.tree], card.node, slot),
            self.viewport(), area,
        )  # fmt: skip

    def _hover(self, table: tuple[int, Path] | None) -> None:
        if table != self._hovered and self._pair is not None:
            self._hovered = table
            self.viewport().update()

    def leaveEvent(self, event: QEvent) -> None:
        self._hover(None)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        was_click = self._pressed is not None and not self._panning and event.button() == Qt.MouseButton.LeftButton
        self._pressed, self._panning = None, False
        self.viewport().unsetCursor()
        hit = self._hit(event.position())
        if was_click and hit is not None:
            self.choose(hit[0].tree, hit[0].node.path, hit[1])

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        hit = self._hit(event.position())
        if hit is not None:
            self.follow(hit[0].tree, hit[0].node.path, hit[1])

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        hit = self._hit(QPointF(event.pos()))
        if hit is None:
            return
        (card, slot), node = hit, hit[0].node
        menu = QMenu(self)
        if node.rule(slot) is Rule.TABLE:
            menu.addAction(self.tr("Open its table"), lambda: self.follow(card.tree, node.path, slot))
        address = grouped(self._trees[card.tree].shown_address(node.input_address(slot)))
        if _is_walked(self._trees[card.tree]):
            text = self.tr("Walk {address}").format(address=address)
            menu.addAction(text, lambda: self.walk_to(card.tree, node.path, slot))
        for tree, path, other in self._partners(card.tree, node.path, slot)[:MANY]:
            beyond = self._trees[tree].node(path)
            assert beyond is not None
            text = self.tr("Go to {entry}").format(entry=name_of(self._trees[tree], beyond, other))
            menu.addAction(text, partial(self.choose, tree, path, other))
        if (self._trees[card.tree].key, node.path) in self._opened:
            menu.addAction(self.tr("Close this table"), lambda: self.close_table(card.tree, node.path))
        value = node.values[slot]
        if value is not None:
            text = self.tr("Copy {value}").format(value=grouped(value))
            menu.addAction(text, lambda: QGuiApplication.clipboard().setText(hex(value)))
        menu.exec(event.globalPos())

    def event(self, event: QEvent) -> bool:
        """Left and Right stay the window's steps while the selected entry is the lit reference."""
        if event.type() is QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent):
            key = Qt.Key(event.key())
            if event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier) and (
                key in OWN_KEYS or (key in STEP_KEYS and not self._is_lit())
            ):
                event.accept()
                return True
        return super().event(event)

    def _is_lit(self) -> bool:
        node = self._node(self._marked) if self._marked else None
        return node is None or (self._marked is not None and node.walked == self._marked.slot)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = Qt.Key(event.key())
        if zoom_by_key(self, key):
            event.accept()
        elif not self._trees:
            super().keyPressEvent(event)
        else:
            self._move(key, event)

    def _move(self, key: Qt.Key, event: QKeyEvent) -> None:
        marked = self._marked or Marked(0, (), self._trees[0].nodes[0].walked or 0)
        node = self._node(marked)
        if node is None:
            return
        tree, path, slot = marked.tree, marked.path, marked.slot
        below = self._trees[tree].node((*path, slot))
        last = node.level.entries
        to = {
            Qt.Key.Key_Up: node.occupied(slot, False),
            Qt.Key.Key_Down: node.occupied(slot, True),
            Qt.Key.Key_Home: node.occupied(-1, True),
            Qt.Key.Key_End: node.occupied(last, False),
        }
        if key in to:
            if (slot_to := to[key]) is not None:
                self.choose(tree, path, slot_to)
        elif key is Qt.Key.Key_Left and path:
            self.choose(tree, path[:-1], path[-1])
        elif key is Qt.Key.Key_Right and below is not None:
            self.choose(tree, below.path, below.walked if below.walked is not None else below.occupied(-1, True) or 0)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.follow(tree, path, slot)
        elif key in (Qt.Key.Key_PageUp, Qt.Key.Key_PageDown) and self._pair is not None:
            self._cross(marked)
        elif key is Qt.Key.Key_Delete and (self._trees[tree].key, path) in self._opened:
            self.close_table(tree, path)
        else:
            super().keyPressEvent(event)

    def _cross(self, marked: Marked) -> None:
        """To the counterpart on the other side of the mirror; to its root where there is none."""
        partners = self._partners(marked.tree, marked.path, marked.slot)
        if partners:
            self.choose(*partners[0])
        elif len(self._trees) > 1:
            other = 1 - marked.tree
            self.choose(other, (), self._trees[other].nodes[0].occupied(-1, True) or 0)


def _is_walked(tree: Tree) -> bool:
    """Whether a processor would walk the tree now: not while a hypervisor runs in place of its guest."""
    return tree.mirror is None or not tree.mirror.is_parked


def _distance(rect: QRectF, point: QPointF) -> float:
    dx = max(rect.left() - point.x(), 0, point.x() - rect.right())
    dy = max(rect.top() - point.y(), 0, point.y() - rect.bottom())
    return dx + dy
