"""Every view at every step of scenarios in which KVM mirrors somebody's tables: a picture, or a sensible sentence."""

from typing import Any

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.rights import READ
from engine.machine.look import Place
from engine.scenario import Scenario
from gui import jobs, scenarios
from gui.document import Query
from gui.main_window import MainWindow
from gui.models.readings import readings
from gui.presets import preset
from gui.templates import ADDRESS, L1_ROOT, L1_TABLES, PAGE, ROOT, TABLES, templates
from gui.views.effects import EffectsView
from gui.views.walk import WalkView

PAGES = ("hierarchy", "walk", "effects", "mappings")
L1_PAE = ev.SetGuestRegisters(preset("PAE").at(ROOT))


def events(key: str) -> tuple[ev.Event, ...]:
    if key == "nested-pae":
        return tuple(L1_PAE if isinstance(event, ev.SetGuestRegisters) else event for event in events("nested"))
    made = next(t for t in templates() if t.key == key).events()
    return (*made, ev.GuestAccess(0x1000)) if key == "npt-0" else made


def shown(window: MainWindow, happened: tuple[ev.Event, ...], page: str, qtbot: QtBot) -> Any:
    scenarios.show(window.document, Scenario(events=happened))
    window.tabs.setCurrentWidget(window.lazy(page))
    qtbot.waitUntil(lambda: not jobs.runner().running)
    return window.lazy(page).view


@pytest.mark.parametrize("key", ["npt-0", "nested", "nested-pae"])
@pytest.mark.parametrize("page", PAGES)
def test_every_view_has_something_to_show_at_every_step(window: MainWindow, qtbot: QtBot, key: str, page: str) -> None:
    happened = events(key)
    shown(window, happened, page, qtbot)
    for step in range(len(happened) + 1):
        window.document.go_to_step(step)
        for place in (Place(), Place(physical=True), Place(pcpu=1)):
            window.document.ask(Query(ADDRESS if not place.physical else 0x1000, READ, 0, place))
            assert not window.grab().isNull()
            assert window.document.walk is not None or window.document.walk_refusal
    qtbot.waitUntil(lambda: not jobs.runner().running)


def sentences(view: WalkView) -> str:
    return view.panel.text()


def test_a_fault_in_a_mirror_says_that_it_is_an_exit(window: MainWindow, qtbot: QtBot) -> None:
    view = shown(window, events("npt-0"), "walk", qtbot)
    assert "These are KVM's tables, so the #PF is an exit" in sentences(view)
    window.document.ask(Query(ADDRESS, READ, 0))
    assert "is an exit" not in sentences(view)
    view = shown(window, events("amd-4"), "walk", qtbot)
    window.document.ask(Query(0x1000, READ, 0))
    assert "is an exit" not in sentences(view), "with nested paging a #PF is the guest's own"


def test_a_fault_in_l0s_tables_for_l2_says_who_gets_it(window: MainWindow, qtbot: QtBot) -> None:
    more = ev.MapL2Pages(ROOT, TABLES + 0x8000, PAGE + 0x1000, 0x40_0000, 4096)
    view = shown(window, (*events("nested"), more), "walk", qtbot)
    window.document.ask(Query(PAGE + 0x1000, READ, 3))
    assert "L0 gets this exit: it walks L1's tables" in sentences(view)
    window.document.ask(Query(0x1000, READ, 3))
    assert "L0 gets this exit" not in sentences(view), "L2's own #PF is nobody else's"


def test_effects_of_a_mirrored_guest_say_why_there_are_none(window: MainWindow, qtbot: QtBot) -> None:
    view = shown(window, events("npt-0"), "effects", qtbot)
    assert isinstance(view, EffectsView)
    assert view.advice is not None
    assert view.advice.title == "Nothing to compare"
    assert view.advice.text.startswith("Nested paging is off, so KVM mirrors this guest's own tables")


def test_effects_between_l1_and_its_guest_are_refused(window: MainWindow, qtbot: QtBot) -> None:
    view = shown(window, (*events("nested"), ev.LeaveNested(), ev.GuestAccess(0x1000)), "effects", qtbot)
    window.document.pin_a(len(events("nested")))
    assert view.advice is not None
    assert view.advice.title == "Not the same memory"


def test_effects_under_a_nested_guest_are_about_its_own_memory(window: MainWindow, qtbot: QtBot) -> None:
    view = shown(window, (*events("nested-pae"), ev.ChangeMode(pcpu=1, la57=False)), "effects", qtbot)
    assert isinstance(view, EffectsView)
    assert view.picture is not None
    assert "What every L2-physical address translates to" in [label.text() for label in view.findChildren(QLabel)]
    asked = view.picture.asked
    every = [pair.a for pair in readings(asked.a, asked.b, 0x18_0000).pairs if pair.a is not None]
    assert [reading.odd for reading in every] == [""] * 6
    assert [reading.about for reading in every[:3]] == [
        "KVM made it a PML5, for a level that L1 lacks", "KVM made it a PML4, for a level that L1 lacks",
        "KVM made it a PDPT, for a level that L1 lacks",
    ]  # fmt: skip
    assert every[3].about == f"KVM made it a PD, a mirror of that at L1-physical {L1_TABLES:#_x}"
    assert L1_ROOT != L1_TABLES


def test_the_status_bar_says_how_kvm_translates(window: MainWindow) -> None:
    for key, said in (("npt-0", "shadow paging"), ("nested", "NPT")):
        window.begin(next(t for t in templates() if t.key == key))
        assert window.statusBar().mode.text() == f"AMD · {said} · VMs: 1 · vCPUs: 1 · pCPUs: 2"
