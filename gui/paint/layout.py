"""Where the tables of a hierarchy stand: a column a level, a row a branch, the stages one above the other.

Zooming in makes the strips wider, until single slots can be told apart; zooming out makes everything smaller and leaves
the texts out. All in device-independent pixels.
"""

import msgspec
from PySide6.QtCore import QPointF, QRectF, QSizeF

from engine.arch.faults import Outcome
from engine.arch.paging import Level
from gui.models.hierarchy import Node, Path, Tree
from gui.paint.hierarchy_texts import EndText, end_text, stage_note, stage_title
from gui.paint.marks import SMALL, line_height, text_width
from gui.theme import GAP, GRID, MARGIN, mono_font, ui_font

NARROWEST, WIDEST = 14 * GRID, 50 * GRID
"""Of a card, before zooming."""
STAGE_GAP, FOOT = 4 * GRID, 6 * GRID
"""Below each stage, and below the whole picture."""
TEXT_FROM = 0.7
"""The zoom below which texts are left out."""


class Card(msgspec.Struct, frozen=True):
    """A table: its place in the picture, and that of its strip of slots."""

    tree: int
    node: Node
    rect: QRectF
    strip: QRectF

    @property
    def slot_width(self) -> float:
        return self.strip.width() / self.node.level.entries

    def slot_rect(self, slot: int) -> QRectF:
        return QRectF(
            self.strip.left() + slot * self.slot_width, self.strip.top(), self.slot_width, self.strip.height()
        )

    def slot_at(self, x: float) -> int:
        """The slot at ``x``, or the nearest one."""
        slot = int((x - self.strip.left()) / self.slot_width)
        return max(0, min(slot, self.node.level.entries - 1))


class Edge(msgspec.Struct, frozen=True):
    """The way from an entry to what it points at. ``level``: of the entry. ``walked``: the walk took it."""

    start: QPointF
    end: QPointF
    level: int
    walked: bool
    lit: bool


class End(msgspec.Struct, frozen=True):
    """Where the walk of a tree ended: in a page, or in a fault (``bad``)."""

    rect: QRectF
    title: str
    note: str
    bad: bool


class Gap(msgspec.Struct, frozen=True):
    """The place of a level that what is mirrored has not, over the tables of KVM's that have it."""

    rect: QRectF
    level: Level


class Layout(msgspec.Struct, frozen=True):
    """A picture of the hierarchy. ``ends``: for each tree where its walk ended, None where it goes on elsewhere.

    ``links``: lines from the guest's entry whose address the nested stage translates to that stage's heading. ``gaps``:
    where two sides are compared, levels that the upper one has not.
    """

    cards: tuple[Card, ...]
    edges: tuple[Edge, ...]
    headings: tuple[QRectF, ...]
    ends: tuple[End | None, ...]
    links: tuple[tuple[QPointF, ...], ...]
    size: QSizeF
    zoom: float
    gaps: tuple[Gap, ...] = ()

    @property
    def has_text(self) -> bool:
        return self.zoom >= TEXT_FROM

    def card(self, tree: int, path: Path) -> Card | None:
        return next((card for card in self.cards if card.tree == tree and card.node.path == path), None)

    def card_at(self, point: QPointF) -> Card | None:
        return next((card for card in self.cards if card.rect.contains(point)), None)


class _Measures(msgspec.Struct, frozen=True):
    card: QSizeF
    end: float
    gap: float
    row: float
    heading: float
    pad: float
    title: float
    strip: float


def _measures(
    size: QSizeF, columns: int, rows: int, stages: int, zoom: float, ends: list[EndText | None], has_ends: bool
) -> _Measures:
    """``size``: of the viewport; ``columns`` of tables, beside that of the ends, if there is one."""
    scale = max(0.3, min(zoom, 1.0))
    has_text = zoom >= TEXT_FROM
    texts = [max(text_width(e.title, ui_font(bold=True)), text_width(e.note, mono_font())) for e in ends if e]
    end = (max(texts, default=12 * GRID) + 2 * GAP + 4 * GRID) * (1 if has_text else scale) if has_ends else 0
    gap = 6 * GRID * scale
    room = (size.width() - 2 * MARGIN - end + (0 if has_ends else gap)) / columns - gap
    if room < 24 * GRID:
        gap = 3 * GRID * scale
        room = (size.width() - 2 * MARGIN - end + (0 if has_ends else gap)) / columns - gap
    card = max(NARROWEST, min(room, WIDEST)) * zoom
    title = line_height(ui_font(bold=True)) if has_text else 0
    index = line_height(mono_font(SMALL)) if has_text else 0
    strip = 5 * GRID * scale if zoom <= 1 else min(5 * GRID * zoom**0.25, 10 * GRID)
    pad = (GAP if card >= 24 * GRID else GRID) * scale
    height = title + strip + index + GAP * scale
    heading = line_height(ui_font(bold=True)) + 2 * GRID if has_text else 2 * GRID
    row = height + 3 * GRID * scale
    if zoom == 1:
        left_over = size.height() - MARGIN - FOOT - stages * (heading + STAGE_GAP) - rows * row
        taller = max(0.0, min(left_over / max(rows, 1), 8 * GRID))
        height, strip, row = height + taller * 0.8, strip + taller * 0.8, row + taller
    return _Measures(QSizeF(card, height), end, gap, row, heading, pad, title, strip)


def lay_out(trees: tuple[Tree, ...], size: QSizeF, zoom: float = 1.0, outcome: Outcome | None = None) -> Layout:
    """A picture of ``trees`` that fits the width of ``size`` at zoom 1, as far as cards of the least width do.

    ``outcome``: of the walk whose steps the trees have.
    """
    columns = max((len(tree.paging.levels) for tree in trees), default=1)
    # Two sides that are compared have the same levels one below the other.
    shifts = [columns - len(tree.paging.levels) if tree.mirror else 0 for tree in trees]
    texts = [end_text(tree, outcome) for tree in trees]
    rows = [_rows(tree, text is not None) for tree, text in zip(trees, texts, strict=True)]
    has_ends = not any(tree.mirror for tree in trees)
    m = _measures(size, columns, sum(count for _, count in rows), len(trees), zoom, texts, has_ends)
    cards: list[Card] = []
    edges: list[Edge] = []
    headings: list[QRectF] = []
    ends: list[End | None] = []
    gaps: list[Gap] = []
    top = float(MARGIN)
    right = MARGIN + columns * (m.card.width() + m.gap) + (m.end if has_ends else -m.gap)
    for number, tree in enumerate(trees):
        headings.append(QRectF(MARGIN, top, right - MARGIN, m.heading))
        top += m.heading
        row_of, count = rows[number]
        shift = shifts[number]
        placed = [_card(m, number, node, top + row_of[node.path] * m.row, shift) for node in tree.nodes]
        if tree.is_above and len(trees) > 1:
            gaps = [Gap(_place(m, n, top), trees[1].paging.levels[n]) for n in range(shift)]
        cards += placed
        edges += _edges(placed)
        ends.append(_end(m, texts[number], placed, columns, edges, top + row_of.get(tree.walked, 0) * m.row))
        top += count * m.row + (2 * STAGE_GAP if tree.is_above else STAGE_GAP)
    links = _links(trees, cards, ends, headings)
    return Layout(
        tuple(cards), tuple(edges), tuple(headings), tuple(ends), links, QSizeF(right + MARGIN, top + FOOT), zoom,
        tuple(gaps),
    )  # fmt: skip


def _rows(tree: Tree, has_end: bool) -> tuple[dict[Path, float], int]:
    """The row of each table and of the end of the walk, and how many rows there are.

    A table stands beside the child that the walk took, so that the walk is a straight line; in a mirror beside the
    first, so that what both sides have stands as near as can be.
    """
    children: dict[Path, list[Path]] = {}
    ends = [tree.walked] if has_end else []
    for path in sorted([*(node.path for node in tree.nodes if node.path), *ends]):
        children.setdefault(path[:-1], []).append(path)
    rows: dict[Path, float] = {}
    used = 0

    def place(path: Path) -> float:
        nonlocal used
        below = {child: place(child) for child in children.get(path, [])}
        on_walk = next((child for child in below if child == tree.walked[: len(child)]), None)
        if not below:
            rows[path] = used
            used += 1
        else:
            middle = min(below.values()) if tree.mirror else sum(below.values()) / len(below)
            rows[path] = below[on_walk] if on_walk else middle
        return rows[path]

    place(())
    return rows, used


def _place(m: _Measures, column: int, top: float) -> QRectF:
    return QRectF(QPointF(MARGIN + column * (m.card.width() + m.gap), top), m.card)


def _card(m: _Measures, tree: int, node: Node, top: float, shift: int) -> Card:
    rect = _place(m, len(node.path) + shift, top)
    left = rect.left()
    strip = QRectF(left + m.pad, top + GRID / 2 + m.title, m.card.width() - 2 * m.pad, m.strip)
    return Card(tree, node, rect, strip)


def _edges(cards: list[Card]) -> list[Edge]:
    by_path = {card.node.path: card for card in cards}
    found = []
    for card in cards:
        path = card.node.path
        if path:
            parent = by_path[path[:-1]]
            walked = card.node.walked is not None and parent.node.walked == path[-1]
            start = QPointF(parent.rect.right(), parent.strip.center().y())
            end = QPointF(card.rect.left(), card.strip.center().y())
            found.append(Edge(start, end, parent.node.level.level, walked, card.node.lit))
    return found


def _end(
    m: _Measures, text: EndText | None, cards: list[Card], columns: int, edges: list[Edge], top: float
) -> End | None:
    """The page after the last column, or the fault beside the table that stopped the walk."""
    last = next((card for card in reversed(cards) if card.node.walked is not None), None)
    if last is None or text is None:
        return None
    column = len(last.node.path) + 1 if text.bad else columns
    rect = QRectF(MARGIN + column * (m.card.width() + m.gap), top, m.end, m.card.height())
    start = QPointF(last.rect.right(), last.strip.center().y())
    goal = QPointF(rect.left(), top + (start.y() - last.rect.top()))
    edges.append(Edge(start, goal, last.node.level.level, True, last.node.lit))
    return End(rect, text.title, text.note, text.bad)


def _links(
    trees: tuple[Tree, ...], cards: list[Card], ends: list[End | None], headings: list[QRectF]
) -> tuple[tuple[QPointF, ...], ...]:
    """From the guest's entry (or page) whose address the nested stage translates, down and along to its heading."""
    if len(trees) < 2 or not trees[1].steps:
        return ()
    row, x, top = trees[1].steps[0].row, 0.0, 0.0
    if row == 0 and ends[0] is not None:
        x, top = ends[0].rect.center().x(), ends[0].rect.bottom()
    for card in cards:
        if card.tree == 0 and row == card.node.level.level and card.node.walked is not None:
            x, top = card.slot_rect(card.node.walked).center().x(), card.rect.bottom()
    if not top:
        return ()
    heading = headings[1]
    words = text_width(stage_title(trees[1]), ui_font(bold=True)) + text_width(stage_note(trees[1]), mono_font(SMALL))
    goal, middle = heading.left() + words + 5 * GRID, heading.top() + line_height(ui_font(bold=True)) / 2
    if x <= goal + 2 * GRID:
        return ((QPointF(x, top), QPointF(x, heading.top())),)
    return ((QPointF(x, top), QPointF(x, middle), QPointF(goal, middle)),)
