"""The findings view: cards by severity, since when, their evidence, and the way to it."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.walk import Stage
from engine.machine.look import Place
from engine.memory.library import Library
from gui import theme
from gui.document import Document, Query
from gui.jobs import runner
from gui.models import findings as model
from gui.paint.findings import HAZARD, NOTE, WARNING, paint_sign
from gui.sights import opening
from gui.theme import Scheme
from gui.views.findings import FindingsView
from tests.gui.hosts import ACCESSED, CHANGED, MOVED, PAGE, POPULATED, host_document, mode_change

pytestmark = pytest.mark.usefixtures("dressed")

FOUR, FIVE = mode_change(False), mode_change(True)


@pytest.fixture
def shown(qtbot: QtBot) -> Iterator["Shown"]:
    yield Shown(qtbot)
    runner().cancel()


class Shown:
    """Makes views and waits for what they find."""

    def __init__(self, qtbot: QtBot) -> None:
        self._qtbot = qtbot

    def view(self, document: Document) -> FindingsView:
        view = FindingsView(document)
        self._qtbot.addWidget(view)
        view.resize(300, 900)
        view.show()
        view.refresh()
        self.wait()
        return view

    def wait(self) -> None:
        QTest.qWait(1)  # a change is looked at once the window is idle
        self._qtbot.waitUntil(lambda: not runner().running, timeout=10000)


def keys(view: FindingsView) -> list[str]:
    return [card.shown.finding.key for card in view.cards]


def card_of(view: FindingsView, key: str) -> model.Shown:
    return next(card.shown for card in view.cards if card.shown.finding.key == key)


# --- what is found


def test_the_gravest_come_first_each_with_the_step_since_which_it_holds(shown: Shown) -> None:
    view = shown.view(host_document(FIVE))
    severities = [int(card.shown.finding.severity) for card in view.cards]
    assert severities == sorted(severities, reverse=True)
    since = {card.shown.finding.key: card.shown.since for card in view.cards}
    assert since["mixed-modes"] == CHANGED
    assert since["stale-level"] == MOVED
    assert since["exposed-table-page"] == MOVED
    assert since["livelock"] == ACCESSED
    assert view.summary.text().startswith(f"Step {ACCESSED}: 3 hazards, 1 warning")


def test_a_break_starts_the_count_anew(shown: Shown) -> None:
    document = host_document(FIVE[:MOVED])
    document.append(ev.MoveVcpu(pcpu=0), "back")
    document.append(ev.MoveVcpu(pcpu=1), "there")
    view = shown.view(document)
    assert card_of(view, "stale-level").since == MOVED + 2
    assert card_of(view, "mixed-modes").since == CHANGED


def test_steps_that_were_looked_at_are_not_looked_at_again() -> None:
    document = host_document(FIVE)
    states = [document.replay.state(step) for step in range(ACCESSED + 1)]
    first = model.look(states, {}, lambda *done: None)  # type: ignore[arg-type]
    again = model.look(states[: MOVED + 1], first.known, lambda *done: None)  # type: ignore[arg-type]
    assert again.known[MOVED][1] is first.known[MOVED][1]
    other = host_document(FIVE)
    fresh = [other.replay.state(step) for step in range(MOVED + 1)]
    anew = model.look(fresh, first.known, lambda *done: None)  # type: ignore[arg-type]
    assert anew.known[MOVED][1] is not first.known[MOVED][1]
    assert anew.shown == again.shown


def test_where_all_is_well_it_says_so_and_what_to_try(shown: Shown) -> None:
    view = shown.view(host_document(FIVE, POPULATED))
    assert view.cards == []
    assert view.advice is not None
    assert view.advice[0] == "No hazard at this step"
    assert view.summary.text() == f"Step {POPULATED}"
    assert view.copy.isHidden()
    assert view.export.isHidden()


def test_with_nothing_open_it_says_what_to_open(shown: Shown) -> None:
    document = Document(lambda reference: None)
    view = shown.view(document)
    assert view.advice == ("Nothing to check yet", "Open a memory image, or boot a host.")


def test_an_image_is_searched_for_pages_that_are_writable_and_executable(shown: Shown) -> None:
    document = Document(Library())
    document.open(opening())
    view = shown.view(document)
    assert keys(view) == ["writable-executable"]
    view.cards[0].click()
    assert document.query == Query(0x7F56_4230_9000)
    assert view.cards[0].shown.finding.sentence.startswith("1 page of 4 KiB, in 1 range, ")


# --- the way to the evidence


@pytest.mark.parametrize("events", [FOUR, FIVE], ids=["to 5", "to 4"])
def test_a_page_that_is_exposed_is_walked(shown: Shown, events: tuple[ev.Event, ...]) -> None:
    document = host_document(events)
    view = shown.view(document)
    card = next(card for card in view.cards if card.shown.finding.key.startswith("exposed-"))
    card.click()
    evidence = card.shown.finding.evidence[0]
    assert document.query == Query(evidence.address, place=Place(physical=True))  # type: ignore[arg-type]


def test_a_stale_level_shows_the_root_as_the_hardware_reads_it(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    next(card for card in view.cards if card.shown.finding.key == "stale-level").click()
    root = document.state.vms[0].vcpus[0].root  # type: ignore[union-attr]
    chosen = document.selection
    assert chosen is not None
    assert root is not None
    assert (chosen.stage, chosen.level.name, chosen.table, chosen.index) == (Stage.NESTED, "PML4", root.hpa, 0)


def test_an_endless_access_is_walked(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    next(card for card in view.cards if card.shown.finding.key == "livelock").click()
    assert document.query is not None
    assert (document.query.address, document.query.place) == (PAGE, Place())
    assert document.query.access.size == 4


def test_mixed_modes_lead_to_the_step_where_they_began(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    next(card for card in view.cards if card.shown.finding.key == "mixed-modes").click()
    assert document.step == CHANGED


# --- cards


def test_stepping_keeps_the_cards_that_are_there(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    before = view.cards
    document.go_to_step(MOVED)
    assert view.cards == before, "until the answer is there"
    shown.wait()
    assert keys(view) == ["stale-level", "exposed-table-page", "mixed-modes"]
    assert view.cards == before[:3]


def test_a_card_unfolds_and_its_kind_stays_unfolded(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    card = view.cards[0]
    low = card.heightForWidth(260)
    card.fold.click()
    assert card.heightForWidth(260) > low
    assert card.fold.accessibleName() == "Less"
    document.go_to_step(MOVED)
    shown.wait()
    assert view.cards[0].fold.accessibleName() == "Less"
    view.cards[0].fold.click()
    assert view.cards[0].heightForWidth(260) == low


def test_cards_are_pressed_and_copied_by_keys(shown: Shown, qtbot: QtBot) -> None:
    view = shown.view(host_document(FIVE))
    card = view.cards[0]
    with qtbot.waitSignal(card.clicked):
        qtbot.keyClick(card, Qt.Key.Key_Return)
    qtbot.keyClick(card, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    text = QGuiApplication.clipboard().text()
    assert text.startswith("Hazard: KVM's level is not the hardware's\n")
    assert "What would help: " in text
    assert "captured max TDP level: 5" in text


def test_cards_tell_those_who_hear_them(shown: Shown) -> None:
    card = shown.view(host_document(FIVE)).cards[0]
    assert card.accessibleName() == "Hazard: KVM's level is not the hardware's"
    assert card.accessibleDescription().endswith(f"Since step {MOVED}.")


def test_the_report_has_every_finding(shown: Shown, qtbot: QtBot) -> None:
    view = shown.view(host_document(FIVE))
    qtbot.mouseClick(view.copy, Qt.MouseButton.LeftButton)
    lines = QGuiApplication.clipboard().text().splitlines()
    assert lines[0] == f"Findings at step {ACCESSED}"
    titles = [f"{number}. {card.accessibleName()}" for number, card in enumerate(view.cards, 1)]
    assert [line for line in lines if line in titles] == titles
    assert any(line.startswith("  rests on          kernel source: ") for line in lines)


def test_the_findings_are_handed_over_for_a_file(shown: Shown, qtbot: QtBot) -> None:
    view = shown.view(host_document(FIVE))
    with qtbot.waitSignal(view.exported) as given:
        qtbot.mouseClick(view.export, Qt.MouseButton.LeftButton)
    assert [each.finding.title for each in given.args[0].shown] == [card.shown.finding.title for card in view.cards]


def test_a_cancelled_search_says_so(shown: Shown) -> None:
    document = host_document(FIVE)
    view = shown.view(document)
    view.refresh()
    runner().cancel_for_user(runner().running[0])
    assert view.advice is not None
    assert view.advice[0] == "Not looked at"
    document.go_to_step(MOVED)
    shown.wait()
    assert view.cards


@pytest.mark.parametrize("scheme", [Scheme.LIGHT, Scheme.DARK])
def test_the_signs_of_severity_differ_in_shape(scheme: Scheme) -> None:
    """Painted in one colour, no two of them are the same picture."""
    theme.use(scheme)
    shapes = set()
    for severity in (NOTE, WARNING, HAZARD):
        image = QImage(24, 24, QImage.Format.Format_RGB32)
        image.fill(theme.theme().panel)
        painter = QPainter(image)
        paint_sign(painter, QPointF(12, 12), severity, 18)
        painter.end()
        ground = theme.theme().panel
        shapes.add(bytes(image.pixelColor(x, y) != ground for y in range(24) for x in range(24)))
    theme.use(Scheme.LIGHT)
    assert len(shapes) == 3


def test_a_long_title_wraps_and_nothing_is_cut(shown: Shown) -> None:
    card = shown.view(host_document(FIVE)).cards[0]
    heights = [card.heightForWidth(width) for width in (400, 260, 160)]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]
    assert card.sizeHint() == QSize(240, card.heightForWidth(240))
    assert QRectF(card.rect()).contains(QRectF(card.fold.geometry()))
