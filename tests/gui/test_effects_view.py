"""The effects view: A beside B, as values, as pictures, and as something to move in."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.faults import NestedPageFault, Translated
from engine.arch.rights import Access, Kind
from engine.arch.walk import Stage
from engine.effects.axis import GRAVITY, axis, strips
from engine.effects.compare import Class, side
from engine.effects.comparison import compare
from engine.machine.look import Place, look
from gui import theme
from gui.document import Document, Query
from gui.effect_texts import OUTCOMES, class_name, summary
from gui.jobs import runner
from gui.models.effects import Picture, answer, question, selected
from gui.models.readings import Readings, readings
from gui.paint.bands import View, frame, paint_bands
from gui.paint.readings import paint_readings, places
from gui.pins import Pin
from gui.templates import templates
from gui.theme import Outcome, Scheme
from gui.views.effects import EffectsView
from tests.gui.hosts import ACCESSED, CHANGED, INTEL, MOVED, PAGE, POPULATED, SIZE, host_document, mode_change

pytestmark = pytest.mark.usefixtures("dressed")

FOUR, FIVE = mode_change(False), mode_change(True)


def physical(gpa: int) -> Query:
    return Query(gpa, place=Place(physical=True))


def picture_of(document: Document) -> Picture:
    asked = question(document)
    return answer(asked, lambda *done: None)  # type: ignore[arg-type]


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator["Shown"]:
    yield Shown(qtbot)
    runner().cancel()


class Shown:
    """Makes views and waits for their answers."""

    def __init__(self, qtbot: QtBot) -> None:
        self._qtbot = qtbot

    def view(self, document: Document) -> EffectsView:
        view = EffectsView(document)
        self._qtbot.addWidget(view)
        view.resize(900, 800)
        view.show()
        self.wait()
        return view

    def wait(self) -> None:
        self._qtbot.waitUntil(lambda: not runner().running, timeout=10000)


# --- the same bytes read in two ways


def read(events: tuple[ev.Event, ...], gpa: int) -> Readings:
    asked = picture_of(host_document(events)).asked
    return readings(asked.a, asked.b, gpa)


def test_five_levels_read_the_guests_page_as_the_last_table() -> None:
    """Reference 9.3, case A: the final PTE of g is the guest's own word at (g >> 9) & ~7."""
    gpa = PAGE & 0x3F_FFFF
    found = read(FOUR, gpa)
    assert [pair.a.name if pair.a else "" for pair in found.pairs][:4] == ["PML4", "PDPT", "PD", "PT"]
    assert [pair.b.name if pair.b else "" for pair in found.pairs][:5] == ["PML5", "PML4", "PDPT", "PD", "PT"]
    assert all(pair.joined for pair in found.pairs[:5])
    assert found.gpa_a == (gpa >> 9) & ~7
    last = found.pairs[4]
    assert last.a is not None
    assert last.b is not None
    assert last.a.node is None, "side A: a page of data"
    assert last.b.odd == "is read as a PT: the guest writes its own nested entries"
    assert last.b.slot == last.a.slot
    assert isinstance(found.end_a, Translated)


def test_four_levels_give_the_guest_the_last_table_as_its_page() -> None:
    """Reference 9.3, case B: a load at g returns the SPTE of (g & ~7) << 9."""
    found = read(FIVE, 0x1238)
    assert found.gpa_a == (0x1238 & ~7) << 9
    page = found.pairs[4]
    assert page.a is not None
    assert page.b is not None
    assert (page.a.name, page.b.name) == ("PT", "page, 4 KiB")
    assert page.joined
    assert page.b.odd == "is the guest's page now: it reads and writes KVM's table"
    assert found.pairs[5].b is None


def test_both_directions_are_each_others_mirror() -> None:
    asked = picture_of(host_document(FIVE)).asked
    there = readings(asked.a, asked.b, 0x1238)
    back = readings(asked.b, asked.a, there.gpa_a)
    shared = [(pair.a.frame, pair.b.frame) for pair in there.pairs if pair.a and pair.b]
    assert [(pair.b.frame, pair.a.frame) for pair in back.pairs if pair.a and pair.b] == shared


def test_a_walk_that_stops_in_a_table_of_another_level_says_so() -> None:
    found = read(FIVE, 32 << 20)
    last = found.pairs[-1].b
    assert last is not None
    assert last.stop == "not present"
    assert last.odd == "is read as a PD, though KVM made it a PDPT"
    assert isinstance(found.end_b, NestedPageFault)


def test_with_ept_nothing_is_odd_and_all_is_joined() -> None:
    found = read(mode_change(False, INTEL), 0x5000)
    assert all(pair.joined for pair in found.pairs)
    assert [pair.b.odd for pair in found.pairs if pair.b] == [""] * 5
    assert found.gpa_a == found.gpa


def test_an_entry_that_was_written_over_is_named_with_both_values() -> None:
    document = host_document(FOUR, POPULATED)
    walk = look(document.state, 0x5000, place=Place(physical=True))
    step = walk.steps[-1]  # type: ignore[union-attr]
    document.append(ev.Poke(step.address, step.value ^ 1 << 20), "flip")
    asked = picture_of(document).asked
    odd = [pair.b.odd for pair in readings(asked.a, asked.b, 0x5000).pairs if pair.b and pair.b.node and pair.b.odd]
    assert len(odd) == 1
    assert odd[0].startswith("entry 5 is 0x")


# --- the axis and the bands


def test_the_axis_has_slots_in_proportion_and_no_gap_between_them() -> None:
    document = host_document((*FOUR[:4], ev.SetMemslot(gpa=1 << 32, size=SIZE // 2), *FOUR[4:]))
    found = picture_of(document).axis
    assert [(span.start, span.end) for span in found.spans[:1]] == [(0, SIZE)]
    last = found.spans[-1]
    assert (last.start, last.end) == (1 << 32, (1 << 32) + SIZE // 2)
    assert last.right == pytest.approx(1.0)
    for span in found.spans:
        assert found.address(span.left + 1e-9) == span.start
        assert found.place(span.start) == pytest.approx(span.left)
        assert found.place(span.end) is None or found.spans.index(span) + 1 < len(found.spans)
    assert found.place((1 << 32) - 1) is None


@pytest.mark.parametrize("place", [0.0, 0.1234, 0.5, 0.77])
def test_an_address_is_drawn_where_a_click_finds_it(place: float) -> None:
    found = picture_of(host_document(FIVE)).axis
    gpa = found.address(place)
    assert gpa is not None
    assert found.place(gpa) == pytest.approx(place, abs=1e-4)


def test_exposures_are_never_too_narrow_to_be_seen() -> None:
    picture = picture_of(host_document(FIVE))
    drawn = strips(picture.comparison.band_b, picture.axis, 0.0, 1.0, 700)
    table = [strip for strip in drawn if strip.kind is Class.TABLE_PAGE]
    assert len(table) == 1
    assert table[0].right - table[0].left >= 4
    assert drawn[-1] is table[0], "the gravest is drawn last"


def test_there_are_never_more_strips_than_pixels_however_many_ranges_there_are() -> None:
    """Every second page of 1 MiB is unmapped."""
    document = host_document(FOUR[:POPULATED])
    for gpa in range(0, 1 << 20, 0x2000):
        document.append(ev.ZapGuest(gpa=gpa, size=4096), "zap")
    document.pin_a(POPULATED)
    picture = picture_of(document)
    assert len(picture.comparison) == 128
    assert picture.comparison.pages[Class.NOT_PRESENT] == 128
    drawn = strips(picture.comparison.band_b, picture.axis, 0.0, 1.0, 50)
    assert len(drawn) < 10
    close = strips(picture.comparison.band_b, picture.axis, 0.0, 1 / 64, 4000)
    assert sum(strip.kind is Class.NOT_PRESENT for strip in close) > 100


def test_zooming_stays_within_the_axis_and_around_its_point() -> None:
    view = View().zoomed(4, 0.5)
    assert (view.low, view.high) == (0.375, 0.625)
    assert View().zoomed(4, 0.0) == View(0.0, 0.25)
    assert view.zoomed(1 / 100, 0.5) == View()
    assert view.moved(9) == View(0.75, 1.0)


def test_every_class_has_a_fill_and_a_name_of_its_own() -> None:
    assert set(GRAVITY) == set(OUTCOMES) == set(Class)
    fills = {(fill.color.name(), fill.hatch) for fill in theme.LIGHT.outcomes.values()}
    assert len(fills) == len(Outcome)
    names = [class_name(kind) for kind in Class if kind is not Class.RESTORED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scheme", [Scheme.LIGHT, Scheme.DARK])
@pytest.mark.parametrize("events", [FOUR, FIVE], ids=["to 5", "to 4"])
def test_bands_are_painted_in_the_colours_of_their_classes(events: tuple[ev.Event, ...], scheme: Scheme) -> None:
    theme.use(scheme)
    picture = picture_of(host_document(events))
    image = QImage(800, 120, QImage.Format.Format_RGB32)
    image.fill(theme.theme().window)
    painter = QPainter(image)
    paint_bands(painter, QRectF(0, 0, 800, 120), picture, View(), None, None)
    painter.end()
    bands = frame(QRectF(0, 0, 800, 120))
    same, faults = (theme.theme().outcomes[kind].color for kind in (Outcome.SAME, Outcome.NOT_PRESENT))
    at_a, at_b = (band.topLeft() + QPointF(200, 12) for band in (bands.a, bands.b))
    assert image.pixelColor(at_a.toPoint()) == same
    around = {image.pixelColor(int(at_b.x()) + x, int(at_b.y())).name() for x in range(12)}
    assert faults.name() in around
    assert len(around) > 1, "hatched"
    theme.use(Scheme.LIGHT)


def test_an_odd_card_is_framed_in_the_colour_of_hazard() -> None:
    found = read(FIVE, 0x1238)
    rect = QRectF(0, 0, 860, 400)
    image = QImage(860, 400, QImage.Format.Format_RGB32)
    image.fill(theme.theme().window)
    painter = QPainter(image)
    paint_readings(painter, rect, found)
    painter.end()
    rows = places(rect, found)
    edge = theme.theme().hazard_mark
    odd = [image.pixelColor(int(rows[4].b.center().x()), int(rows[4].b.top()) + y) for y in (0, 1, 2)]
    assert edge in odd
    assert image.pixelColor(int(rows[0].b.center().x()), int(rows[0].b.top())) != edge


# --- the view


def test_it_compares_before_the_mode_change_with_now(shown: Shown) -> None:
    view = shown.view(host_document(FIVE))
    assert view.advice is None
    assert view.head_a.button.text() == f"step {POPULATED}, pCPU 0 ▾"
    assert view.head_b.button.text() == f"step {ACCESSED}, pCPU 1 ▾"
    assert view.head_a.label.whole.startswith("5-level NPT, nCR3 0x")
    assert view.head_b.label.whole == "4-level NPT, the same nCR3"
    assert view.summary.whole == "None of 16,384 pages translates as on A"
    texts = [[view.model.index(row, column).data() for column in range(6)] for row in range(view.model.rowCount())]
    assert texts[0][0] == "0x0000_0000 – 0x0001_ffff"
    assert texts[0][1] == "32"
    assert texts[0][4:] == ["reaches its own nested PT", "never asked"]
    assert {row[3] for row in texts[1:]} == {"not present"}
    assert {row[5] for row in texts[1:]} == {"loops: RET_PF_SPURIOUS"}


def test_figures_are_those_of_the_engine(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    expected = compare(side(document.replay.state(POPULATED)), side(document.state))  # type: ignore[arg-type]
    assert view.picture is not None
    assert view.picture.comparison.pages == expected.pages
    assert summary(expected) == view.summary.whole
    assert {button.kind: button.accessibleName() for button in view.legend.buttons} == {
        Class.SAME: "as mapped, 0 pages",
        Class.NOT_PRESENT: "faults (not present), 16,352 pages",
        Class.TABLE_PAGE: "a page-table page, 32 pages",
    }


def test_before_any_walk_the_first_exposed_page_is_selected(shown: Shown) -> None:
    view = shown.view(host_document(FOUR))
    assert view.readings.shown is not None
    assert view.picture is not None
    kind = view.picture.comparison.band_b.at(view.readings.shown.gpa)
    assert kind is not None
    assert kind[2] is Class.HOST_PAGE


def test_a_guest_virtual_address_is_shown_where_side_a_leads_it(shown: Shown) -> None:
    document = host_document(FOUR)
    document.ask(Query(PAGE + 0xABC))
    view = shown.view(document)
    assert view.readings.shown is not None
    assert view.readings.shown.gpa == 0x200_0ABC


def test_a_row_a_click_and_the_document_select_the_same_address(shown: Shown, qtbot: QtBot) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    view.table.setCurrentIndex(view.model.index(2, 0))
    assert document.query == physical(view.model.gpa(2))
    document.ask(physical(0x3_4000))
    assert view.table.currentIndex().row() == 1
    assert view.readings.shown is not None
    assert view.readings.shown.gpa == 0x3_4000
    bands = frame(QRectF(view.bands.rect()))
    qtbot.mouseClick(view.bands, Qt.MouseButton.LeftButton, pos=(bands.b.topLeft() + QPointF(2, 5)).toPoint())
    assert document.query is not None
    assert document.query.address < 0x2_0000
    assert document.query.place.physical
    assert view.table.currentIndex().row() == 0


def test_a_click_on_a_card_selects_its_entry(shown: Shown, qtbot: QtBot) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    assert view.readings.shown is not None
    place = places(QRectF(view.readings.rect()), view.readings.shown)[2]
    qtbot.mouseClick(view.readings, Qt.MouseButton.LeftButton, pos=place.b.center().toPoint())
    pair = view.readings.shown.pairs[2]
    assert pair.b is not None
    chosen = document.selection
    assert chosen is not None
    assert (chosen.stage, chosen.table >> 12, chosen.index) == (Stage.NESTED, pair.b.frame, pair.b.slot)
    assert chosen.level.name == "PD"
    qtbot.mouseClick(view.readings, Qt.MouseButton.LeftButton, pos=place.a.center().toPoint())
    assert document.selection is not None
    assert document.selection.level.name == "PDPT", "the same bytes, as A reads them"


def test_keys_go_from_range_to_range_and_zoom(shown: Shown, qtbot: QtBot) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    view.bands.setFocus()
    qtbot.keyClick(view.bands, Qt.Key.Key_Home)
    assert document.query == physical(0)
    qtbot.keyClick(view.bands, Qt.Key.Key_Right)
    assert document.query == physical(0x2_0000)
    qtbot.keyClick(view.bands, Qt.Key.Key_Right)
    assert document.query == physical(0x2_0000), "there is no further range"
    qtbot.keyClick(view.bands, Qt.Key.Key_Left)
    assert document.query == physical(0)
    qtbot.keyClick(view.bands, Qt.Key.Key_Plus)
    assert view.bands.view.high < 1
    qtbot.keyClick(view.bands, Qt.Key.Key_0)
    assert view.bands.view == View()


def test_the_bands_say_what_is_at_the_selected_address(shown: Shown) -> None:
    document = host_document(FIVE)
    document.ask(physical(0x1000))
    view = shown.view(document)
    assert view.bands.accessibleDescription().splitlines() == [
        "GPA 0x0000_1000",
        "A: as mapped, 0x0000_0000 – 0x03ff_ffff, 16,384 pages",
        "B: a page-table page, 0x0000_0000 – 0x0001_ffff, 32 pages",
    ]


def test_a_pressed_class_lists_only_its_ranges(shown: Shown, qtbot: QtBot) -> None:
    view = shown.view(host_document(FIVE))
    whole = view.model.rowCount()
    button = next(button for button in view.legend.buttons if button.kind is Class.TABLE_PAGE)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert view.model.rowCount() == 1
    assert view.model.gpa(0) == 0
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert view.model.rowCount() == whole


def test_a_row_is_copied_as_text(shown: Shown, qtbot: QtBot) -> None:
    view = shown.view(host_document(FIVE))
    view.table.setCurrentIndex(view.model.index(0, 0))
    QTest.keyClick(view.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text().split("\t")[4] == "reaches its own nested PT"


def test_pins_choose_the_sides(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    document.pin_a(CHANGED, 1)
    document.pin_b(CHANGED, 0)
    shown.wait()
    assert view.picture is not None
    assert view.picture.asked.pins == (Pin(CHANGED, 1), Pin(CHANGED, 0))
    assert view.picture.comparison.pages == {Class.RESTORED: 16384}
    document.pin_b(CHANGED, 1)
    shown.wait()
    assert view.advice is not None


def test_the_menu_of_a_side_pins_steps_and_pcpus(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    view.head_b.fill_menu()
    texts = [action.text() for action in view.head_b.menu.actions() if action.text()]
    assert texts == [
        "Follow: the current step", f"Pin the current step ({ACCESSED})", "On the vCPU's own pCPU",
        "As pCPU 0 walks it, 5-level", "As pCPU 1 walks it, 4-level",
    ]  # fmt: skip
    next(action for action in view.head_b.menu.actions() if "pCPU 0" in action.text()).trigger()
    assert document.pins[1] == Pin(ACCESSED, 0)
    shown.wait()
    assert view.summary.whole.startswith("All ")


def test_the_access_that_is_looked_at_is_the_one_that_kvm_answers(shown: Shown) -> None:
    document = host_document(FOUR)
    document.ask(Query(0x5000, Access(Kind.WRITE, 1), 3, Place(physical=True)))
    view = shown.view(document)
    assert view.picture is not None
    assert view.picture.comparison.kind is Kind.WRITE


def test_a_flipped_bit_is_shown_within_150_ms(shown: Shown) -> None:
    """Timed by the clock of the test, with room for a machine that others use too."""
    from time import perf_counter

    document = host_document(FIVE, POPULATED)
    document.ask(physical(0x5000))
    view = shown.view(document)
    step = look(document.state, 0x5000, place=Place(physical=True)).steps[-1]  # type: ignore[union-attr]
    spent = []
    for bit in range(20, 25):
        start = perf_counter()
        document.append(ev.Poke(step.address, step.value ^ 1 << bit), "flip")
        shown.wait()
        view.grab()
        spent.append(perf_counter() - start)
        assert view.model.rowCount() == 1
    assert min(spent) < 0.15


def test_what_is_shown_stays_until_the_next_answer_is_there(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    before = view.picture
    document.go_to_step(MOVED)
    assert view.picture is before
    assert view.advice is None
    shown.wait()
    assert view.picture is not before


def test_late_answers_are_dropped(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    document.go_to_step(MOVED)
    document.go_to_step(CHANGED)
    document.pin_b(CHANGED, 1)
    shown.wait()
    assert view.picture is not None
    assert view.picture.asked.pins[1] == Pin(CHANGED, 1)


def test_a_cancelled_comparison_says_so_and_starts_again_with_the_next_step(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    document.go_to_step(MOVED)
    runner().cancel_for_user(runner().running[0])
    assert view.advice is not None
    assert view.advice.title == "Not compared"
    document.go_to_step(ACCESSED)
    shown.wait()
    assert view.picture is not None


def test_a_hidden_view_works_only_when_it_is_seen_again(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    view.hide()
    document.go_to_step(MOVED)
    assert not runner().running
    view.show()
    shown.wait()
    assert view.picture is not None
    assert view.picture.asked.pins[1] == Pin(MOVED)


@pytest.mark.parametrize(
    ("step", "title", "words"),
    [
        (0, "No host yet", "boot a host"),
        (2, "Nothing to walk on A yet", "A is step 1. There is no VM 0."),
        (POPULATED, "Nothing to walk on A yet", "before its first access: make one"),
    ],
)
def test_where_there_is_nothing_to_compare_it_says_what_to_do(shown: Shown, step: int, title: str, words: str) -> None:
    view = shown.view(host_document(FIVE, step))
    assert view.advice is not None
    assert view.advice.title == title
    assert words in view.advice.text


def test_the_same_step_twice_is_nothing_to_compare(shown: Shown) -> None:
    document = host_document(FIVE, POPULATED)
    document.pin_a(POPULATED)
    view = shown.view(document)
    assert view.advice is not None
    assert view.advice.text.startswith("A and B are the same step:")


@pytest.mark.parametrize("template", templates(), ids=lambda template: template.key)
def test_every_step_of_every_template_can_be_looked_at(shown: Shown, template: object) -> None:
    document = Document(lambda reference: None)
    document.open(template.scenario(), 0)  # type: ignore[attr-defined]
    view = shown.view(document)
    for step in range(document.last_step + 1):
        document.go_to_step(step)
        shown.wait()
        assert (view.advice is None) == (view.picture is not None)
        if view.picture is not None:
            assert view.readings.shown is not None
            assert view.readings.shown.gpa == selected(document, view.picture)
            assert axis(view.picture.comparison) == view.picture.axis
        assert not view.grab().isNull()
