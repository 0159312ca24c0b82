"""Scenes of hosts: walks in two dimensions, faults of every stage, effects of a mode change both ways, forms."""

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDockWidget, QWidget

from engine import events as ev
from engine.arch.walk import Rule, Stage
from engine.cli.run import read_scenario
from engine.kvm.memslots import Pages
from engine.machine.look import Place
from engine.scenario import Scenario
from gui import scenarios
from gui.dialogs.event_form import EventForm
from gui.document import Query
from gui.main_window import MainWindow
from gui.presets import preset
from gui.templates import AMD, PAGE, ROOT, TABLES, TARGET, templates
from gui.views.hierarchy import HierarchyView
from gui.views.host_cards import HostCards
from gui.views.walk import WalkView
from tests.conftest import ROOT as ROOT_FOLDER
from tests.engine.three_stages import system

Scene = Callable[[MainWindow], QWidget]
LOW = 0x7456_7000
"""A page that a 32-bit guest can name."""


def _open(window: MainWindow, events: tuple[ev.Event, ...], page: str) -> None:
    scenarios.show(window.document, Scenario(events=events))
    window.tabs.setCurrentWidget(window.lazy(page))


def _template(key: str) -> tuple[ev.Event, ...]:
    return next(t for t in templates() if t.key == key).events()


def _two_stages(key: str, page: str = "walk") -> Scene:
    def scene(window: MainWindow) -> QWidget:
        _open(window, _template(key), page)
        return window

    return scene


def _pae_guest(window: MainWindow) -> QWidget:
    events = (
        ev.BootHost(pcpus=(AMD, AMD), five_level=True), ev.LoadKvm(), ev.CreateVm(), ev.SetMemslot(), ev.CreateVcpu(),
        ev.MapGuestPages(root=ROOT, tables=TABLES, address=LOW, target=TARGET, size=4096, mode="PAE"),
        ev.SetGuestRegisters(registers=preset("PAE").at(ROOT, cpl=3)), ev.GuestAccess(address=LOW + 0xABC, size=4),
    )  # fmt: skip
    _open(window, events, "walk")
    return window


def _poked(key: str, stage: Stage, row: int, change: Callable[[int], int]) -> Scene:
    """The template with the last entry of ``stage`` for guest level ``row`` changed, and its address walked again."""

    def scene(window: MainWindow) -> QWidget:
        _open(window, _template(key), "walk")
        walk = window.document.walk
        assert walk is not None
        step = [s for s in walk.steps if s.stage is stage and s.row == row][-1]
        assert step.address is not None
        assert step.value is not None
        window.document.append(ev.Poke(step.address, change(step.value)), "Poke")
        return window

    return scene


def _effects(five: bool, pages: Pages, page: str = "effects") -> Scene:
    def scene(window: MainWindow) -> QWidget:
        backing = ev.Backing(pages=pages)
        events = (
            ev.BootHost(five_level=five), ev.LoadKvm(), ev.CreateVm(), ev.SetMemslot(backing=backing), ev.CreateVcpu(),
            ev.Populate(), ev.ChangeMode(pcpu=1, la57=not five), ev.MoveVcpu(pcpu=1),
        )  # fmt: skip
        _open(window, events, page)
        window.document.ask(Query(0x1000, cpl=0, place=Place(physical=True)))
        return window

    return scene


def _logical(
    l2: str = "4-level", l1: str = "4-level NPT", l0: str = "4-level NPT", lit: int | None = None, folded: bool = False,
    stop: int | None = None,
) -> Scene:  # fmt: skip
    """The walk of three stages; ``lit``: a step of it, ``stop``: one whose entry is 0."""

    def scene(window: MainWindow) -> QWidget:
        document, made = window.document, system(l2, l1, l0)
        step = made.walk().steps[stop] if stop is not None else None
        changes = {step.address: 0} if step is not None and step.address is not None else {}
        document.look_logical = lambda state, address, access, place, cpl: made.walk(access, changes)
        _open(window, _template("amd-4"), "walk")
        document.show_logical(True)
        if lit is not None:
            document.go_to_reference(lit)
        view = window.lazy("walk").view
        assert isinstance(view, WalkView)
        if folded:
            view.bar.turn()
        return window

    return scene


def _collapsed(window: MainWindow) -> QWidget:
    _logical()(window)
    window.document.show_logical(False)
    return window


def _mirror(name: str, step: int, side: int, level: int, nth: int = 0) -> Scene:
    """A scenario that comes with the program, at ``step``; the ``nth`` entry in use of the first table of ``level`` of
    that side (0: what is mirrored, 1: KVM's) is selected."""

    def scene(window: MainWindow) -> QWidget:
        scenario, _ = read_scenario(str(ROOT_FOLDER / "resources" / "scenarios" / f"{name}.json"))
        window.document.open(scenario, step)
        window.tabs.setCurrentWidget(window.lazy("hierarchy"))
        view = window.lazy("hierarchy").view
        assert isinstance(view, HierarchyView)
        assert view.canvas.pair is not None
        node = next(node for node in view.canvas.pair.trees[side].nodes if node.level.level == level)
        used = (range(run.first, run.last + 1) for run in node.runs if run.rule is not Rule.NOT_PRESENT)
        view.canvas.choose(side, node.path, [slot for run in used for slot in run][nth])
        return window

    return scene


def _machine(
    events: tuple[ev.Event, ...], *unfolded: str, page: str = "walk", shares: tuple[int, int] = (1, 3)
) -> Scene:
    """A high window with its cards of these keys unfolded. ``shares``: of the timeline and the machine."""

    def scene(window: MainWindow) -> QWidget:
        window.resize(1440, 1400)
        _open(window, events, page)
        cards = window.findChild(HostCards)
        assert cards is not None
        for card in cards.cards:
            if card.card.key in unfolded:
                card.fold.click()
        docks = [dock for name in ("timeline", "machine") if (dock := window.findChild(QDockWidget, name))]
        window.resizeDocks(docks, list(shares), Qt.Orientation.Vertical)
        return window

    return scene


_L1_CHANGED = (
    ev.LeaveNested(),
    ev.SetGuestRegisters(preset("5-level").at(ROOT)),
    ev.EnterNested(preset("4-level").at(ROOT)),
)
"""L1 goes to five levels with tables of four, and enters its guest."""
_REFLECTED = (ev.MapL2Pages(ROOT, TABLES + 0x8000, PAGE + 0x1000, 0x40_0000, 4096), ev.GuestAccess(PAGE + 0x1000))
"""L2 maps a page to memory that L1 has not given it, and reads there."""


def _pae_hypervisor() -> tuple[ev.Event, ...]:
    start = ev.SetGuestRegisters(registers=preset("PAE").at(ROOT))
    return tuple(start if isinstance(event, ev.SetGuestRegisters) else event for event in _template("nested"))


def _nested_form(window: MainWindow) -> QWidget:
    _open(window, _template("nested"), "walk")
    return EventForm(window.document, ev.EnterNested, None, window)


def _form(window: MainWindow) -> QWidget:
    _open(window, _template("amd-4"), "walk")
    return EventForm(window.document, ev.ChangeMode, None, window)


def _empty(window: MainWindow) -> QWidget:
    window.begin(None)
    return window


HOST_SCENES: dict[str, Scene] = {
    "host-4x4": _two_stages("amd-4"),
    "host-5x5": _two_stages("amd-5"),
    "host-ept": _two_stages("intel-ept"),
    "host-hierarchy": _two_stages("amd-4", "hierarchy"),
    "host-pae-under-5": _pae_guest,
    "host-npf-in-the-middle": _poked("amd-4", Stage.NESTED, 2, lambda entry: 0),
    "host-ept-misconfiguration": _poked("intel-ept", Stage.NESTED, 1, lambda entry: entry & ~0b101 | 0b010),
    "host-guest-fault": _poked("amd-4", Stage.GUEST, 1, lambda entry: entry & ~0b100),
    "nested-4x4x4": _logical(lit=71),
    "nested-end": _logical(),
    "nested-folded": _logical(lit=71, folded=True),
    "nested-5x5x5": _logical("5-level", "5-level EPT", "5-level EPT", lit=130),
    "nested-pae-in-32-bit": _logical("PAE", "32-bit NPT", "5-level NPT"),
    "nested-l0-stops": _logical(stop=58),
    "nested-l1-stops": _logical(stop=59),
    "nested-collapsed": _collapsed,
    "mirror-4-level-npt": _mirror("l1-4-level-npt-on-5-level-host", 16, 1, 2, 1),
    "mirror-out-of-date": _mirror("l1-4-level-npt-on-5-level-host", 18, 0, 1, 17),
    "mirror-32-bit-npt": _mirror("l1-32-bit-npt", 16, 1, 2, 1),
    "mirror-pae-npt": _mirror("l1-pae-npt", 16, 1, 3),
    "mirror-nested-ept": _mirror("nested-ept", 20, 1, 1),
    "mirror-shadow-paging": _mirror("shadow-paging-pae-guest", 14, 1, 1, 1),
    "host-mode-change": _two_stages("mode-change", "hierarchy"),
    "machine-nested": _machine(_template("nested"), "l2 0 0"),
    "machine-nested-changed": _machine((*_template("nested"), *_L1_CHANGED)),
    "machine-nested-pae": _machine(_pae_hypervisor()),
    "machine-npt-0": _machine(_template("npt-0"), "vcpu 0 0"),
    "nested-timeline": _machine((*_template("nested"), *_REFLECTED), page="hierarchy", shares=(3, 2)),
    "nested-form": _nested_form,
    "nested-effects": _machine((*_template("nested"), ev.ChangeMode(pcpu=1, la57=False)), page="effects"),
    "npt-0-effects": _machine(_template("npt-0"), page="effects"),
    "host-empty": _empty,
    "host-form": _form,
    "effects-4-to-5-4k": _effects(False, Pages.SMALL),
    "effects-4-to-5-2m": _effects(False, Pages.HUGE_2M),
    "effects-5-to-4-4k": _effects(True, Pages.SMALL),
    "effects-5-to-4-2m": _effects(True, Pages.HUGE_2M),
}
