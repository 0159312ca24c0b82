"""What painters owe everybody: contrast, any painter, every theme, and nothing outside their rectangle."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QRectF, QSizeF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPicture

from engine.arch.faults import EPT_VIOLATION_BITS, NPF_BITS, PF_BITS, CodeBit
from engine.arch.walk import Rule
from gui import theme as themes
from gui.models.hierarchy import Tables, trees
from gui.paint import breakdown, fault_code
from gui.paint.bits import BitCells, _ink, cell_rects, paint_bits, role_color
from gui.paint.hierarchy import Marked, paint_hierarchy
from gui.paint.layout import lay_out
from gui.paint.marks import chip, chip_size, empty_state
from gui.paint.tables import fill_slot
from gui.paint.walk_grid import LIT, SPOT, VISITED
from gui.theme import Scheme, Theme, theme
from tests.gui.tiny import tiny_document

pytestmark = pytest.mark.usefixtures("dressed")


@pytest.fixture(params=[Scheme.LIGHT, Scheme.DARK], ids=lambda scheme: scheme.value)
def scheme(request: pytest.FixtureRequest) -> Iterator[Theme]:
    before = Scheme.DARK if theme().dark else Scheme.LIGHT
    themes.use(request.param)
    yield theme()
    themes.use(before)


def contrast(a: QColor, b: QColor) -> float:
    """WCAG 2.1 contrast of two colours."""

    def luminance(color: QColor) -> float:
        parts = (color.redF(), color.greenF(), color.blueF())
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("level", range(6))
@pytest.mark.parametrize("strength", [0.2, VISITED, SPOT, LIT], ids=["chip", "visited", "spot", "lit"])
def test_text_is_legible_on_the_grounds_of_all_levels(scheme: Theme, level: int, strength: float) -> None:
    assert contrast(scheme.text, scheme.tint(scheme.level(level), strength)) >= 4.5


@pytest.mark.parametrize("level", range(6))
@pytest.mark.parametrize("strength", [VISITED, breakdown.GROUND], ids=["visited", "address"])
def test_quiet_text_is_legible_where_it_is_used(scheme: Theme, level: int, strength: float) -> None:
    assert contrast(scheme.muted, scheme.tint(scheme.level(level), strength)) >= 4.5


def test_faults_are_legible_on_their_ground(scheme: Theme) -> None:
    assert contrast(scheme.hazard_text, scheme.hazard_ground) >= 4.5
    assert contrast(scheme.text, scheme.hazard_ground) >= 4.5


def test_digits_are_legible_on_every_cell(scheme: Theme, tmp_path: Path) -> None:
    document = tiny_document(tmp_path)
    assert document.walk is not None
    for step in document.walk.steps:
        for field in step.decoded():
            color = role_color(field.role, step.level.level)
            assert contrast(_ink(color), color) >= 4.5


def picture(paint: Callable[[QPainter], None], size: QSizeF, scale: float = 1.0) -> QImage:
    image = QImage((size * scale).toSize(), QImage.Format.Format_ARGB32_Premultiplied)
    image.setDevicePixelRatio(scale)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    paint(painter)
    painter.end()
    return image


def is_blank(image: QImage, rect: QRectF) -> bool:
    area = image.copy(rect.toRect()).convertToFormat(QImage.Format.Format_ARGB32)
    return bytes(area.constBits()).count(0) == area.sizeInBytes()


CODES: list[tuple[int, tuple[CodeBit, ...]]] = [(0x17, PF_BITS), (1 << 33 | 6, NPF_BITS), (0x1AA, EPT_VIOLATION_BITS)]


@pytest.mark.parametrize(("code", "table"), CODES, ids=["#PF", "#NPF", "EPT"])
@pytest.mark.parametrize("width", [300, 700])
def test_a_code_stays_within_the_height_it_asks_for(code: int, table: tuple[CodeBit, ...], width: int) -> None:
    high = fault_code.height(width, table)
    image = picture(
        lambda painter: fault_code.paint_fault_code(painter, QRectF(0, 0, width, high), code, table),
        QSizeF(width, high + 40),
    )
    assert not is_blank(image, QRectF(0, 0, width, high))
    assert is_blank(image, QRectF(0, high + 1, width, 38))


def test_a_code_in_words_has_a_line_a_bit() -> None:
    assert fault_code.code_lines(0x6, PF_BITS)[:3] == [
        "bit 0, P = 0: an entry was not present",
        "bit 1, W/R = 1: the access was a write",
        "bit 2, U/S = 1: a user access",
    ]


@pytest.mark.parametrize("width", [180.0, 260.0, 900.0])
def test_bit_cells_fill_both_rows_from_the_highest_bit_down(tmp_path: Path, width: float) -> None:
    document = tiny_document(tmp_path)
    assert document.walk is not None
    step = document.walk.steps[-1]
    cells = BitCells(step.value or 0, 64, 1, tuple(step.decoded()))
    rects = cell_rects(cells, QRectF(10, 10, width, 80))
    for high, low in ((63, 32), (31, 0)):
        assert rects[high].left() == pytest.approx(10)
        assert rects[low].right() == pytest.approx(10 + width)
        assert all(rects[bit].right() <= rects[bit - 1].left() for bit in range(high, low, -1))
    assert rects[63].bottom() < rects[31].top()


def test_bits_of_one_field_stand_closer_than_fields_do(tmp_path: Path) -> None:
    document = tiny_document(tmp_path)
    assert document.walk is not None
    step = document.walk.steps[-1]
    rects = cell_rects(BitCells(0, 64, 1, tuple(step.decoded())), QRectF(0, 0, 400, 80))
    inside, between = rects[19].left() - rects[20].right(), rects[0].left() - rects[1].right()
    assert 0 < inside < between


def test_kinds_of_slots_differ_by_more_than_colour() -> None:
    """In grey, a table, a large page and unknown bytes still look different."""
    pictures = []
    for rule, large in ((Rule.TABLE, False), (Rule.PAGE, True), (Rule.UNKNOWN, False)):
        image = picture(lambda p, r=rule, la=large: fill_slot(p, QRectF(0, 0, 12, 12), r, 2, la), QSizeF(12, 12))
        mask = image.convertToFormat(QImage.Format.Format_Grayscale8)
        first = mask.pixelColor(6, 8).lightness()
        pictures.append([[mask.pixelColor(x, y).lightness() == first for x in range(12)] for y in range(12)])
    assert pictures[0] != pictures[1]
    assert pictures[0] != pictures[2]
    assert pictures[1] != pictures[2]


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("address", [0x1ABC, 0x20_0000, 0x3000, 0x40_0000, 0x60_0000, 1 << 47])
def test_a_hierarchy_paints_at_any_scale_and_zoom(scheme: Theme, tmp_path: Path, scale: float, address: int) -> None:
    document = tiny_document(tmp_path, address)
    walk = document.walk
    stages = document.stages
    assert walk is not None
    shown = trees(Tables(document.state.memory), stages, walk, document.reference, frozenset())  # type: ignore[arg-type]
    for zoom in (0.3, 1.0, 40.0):
        layout = lay_out(shown, QSizeF(600, 400), zoom, walk.outcome)
        exposed = QRectF(0, 0, 600, 400)
        image = picture(
            lambda p, la=layout, ex=exposed: paint_hierarchy(p, la, shown, Marked(0, (), 0), ex),
            QSizeF(600, 400), scale,
        )  # fmt: skip
        assert not is_blank(image, QRectF(0, 0, 600, 400))


def test_painters_take_any_painter(tmp_path: Path) -> None:
    """A QPicture records what a printer or an SVG would get."""
    document = tiny_document(tmp_path)
    walk = document.walk
    assert walk is not None
    step = walk.steps[-1]
    cells = BitCells(step.value or 0, 64, 1, tuple(step.decoded()))
    paints: list[Callable[[QPainter], None]] = [
        lambda p: breakdown.paint_breakdown(p, QRectF(0, 0, 700, breakdown.height()), walk, 1),
        lambda p: paint_bits(p, QRectF(0, 0, 300, 80), cells, 5, True),
        lambda p: chip(p, QRectF(0, 0, chip_size("PD").width(), chip_size("PD").height()), 2, "PD"),
        lambda p: empty_state(p, QRectF(0, 0, 300, 200), "Nothing yet", "Open an image."),
    ]
    for paint in paints:
        recorded = QPicture()
        painter = QPainter(recorded)
        paint(painter)
        painter.end()
        assert recorded.size() > 0


def test_the_address_is_taken_apart_down_to_the_page_that_was_found(tmp_path: Path) -> None:
    small, large = tiny_document(tmp_path).walk, tiny_document(tmp_path, 0x20_0000).walk
    assert small is not None
    assert large is not None
    assert [level.name for level in breakdown.used_levels(small)[0]] == ["PML4", "PDPT", "PD", "PT"]
    assert [level.name for level in breakdown.used_levels(large)[0]] == ["PML4", "PDPT", "PD"]
    assert breakdown.used_levels(large)[1] == 21
    assert breakdown.verdict(large) == "3 references · user read allowed · 2 MiB page"
