"""The machine at a glance: what KVM captured beside what the hardware does, and what can be done about it."""

from typing import Any

import pytest
from PySide6.QtCore import QEvent, QRectF, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.edits import Insert
from engine.host.machine import PcpuSetup
from engine.host.modes import Root, Way
from engine.kvm.role import ROLE_FIELDS
from engine.machine import State
from engine.memory.library import Library
from engine.scenario import Replay, Scenario
from gui.document import Document
from gui.models.card import Card, Face
from gui.models.host_cards import cards
from gui.models.next_step import next_step
from gui.paint.cards import INDENT, card_height, chip_rect, fold_rect, row_rects
from gui.presets import preset
from gui.templates import ROOT, templates
from gui.theme import Scheme, theme, use
from gui.views.host_cards import HostCards
from gui.widgets.card import CardWidget
from gui.widgets.mode_menu import mode_menu


def events(key: str = "amd-4") -> tuple[ev.Event, ...]:
    return next(t for t in templates() if t.key == key).events()


def state_after(*happened: ev.Event) -> State:
    return Replay(Scenario(events=happened), Library()).state(len(happened))


def card(key: str, *happened: ev.Event, unfolded: bool = False) -> Card:
    return next(c for c in cards(state_after(*happened), {key} if unfolded else ()) if c.key == key)


def cells(shown: Card) -> list[tuple[str, ...]]:
    return [row.cells for row in shown.rows]


LOST = ev.ChangeMode(pcpu=1, la57=True, root=Root.SAME)

# --- what the cards say


def test_without_a_host_there_are_no_cards() -> None:
    assert cards(state_after()) == ()


def test_the_cards_stand_in_the_order_of_the_machine() -> None:
    keys = [c.key for c in cards(state_after(*events()))]
    assert keys == ["pcpu 0", "pcpu 1", "kvm", "vm 0", "vcpu 0 0"]


def test_a_pcpu_shows_its_mode_and_who_is_on_it() -> None:
    shown = card("pcpu 1", *events("mode-change"))
    assert shown.chip == (5, "5-level")
    assert shown.side == "vCPU 0"
    assert cells(shown) == [("CR4.LA57 = 1", "EFER.LMA = 1")]
    assert card("pcpu 0", *events("mode-change")).side == ""


def test_a_lost_pcpu_says_why_and_has_no_switch() -> None:
    shown = card("pcpu 1", ev.BootHost(), LOST)
    assert shown.hazard
    assert not shown.switch
    assert shown.rows[-1].cells[0].startswith("Lost: its next instruction at ")


def test_several_vms_are_told_apart() -> None:
    second = (ev.CreateVm(), ev.CreateVcpu(vm=1))
    assert card("pcpu 0", *events(), *second).side == "VM 0 vCPU 0, VM 1 vCPU 0"


def test_kvm_shows_the_captured_depth_beside_what_each_pcpu_walks() -> None:
    shown = card("kvm", *events())
    assert ("max TDP level", "4", "4 | 4") in cells(shown)
    assert not shown.hazard


def test_where_a_pcpu_walks_another_depth_the_card_is_a_hazard() -> None:
    shown = card("kvm", *events("mode-change"))
    row = next(row for row in shown.rows if row.cells[0] == "max TDP level")
    assert row.cells == ("max TDP level", "4", "4 | 5")
    assert row.marked
    assert shown.hazard


def test_intel_is_not_concerned_by_the_host_mode() -> None:
    shown = card("kvm", *events("intel-ept"), ev.ChangeMode(pcpu=1, la57=True))
    assert ("max TDP level", "5", "5") in cells(shown)
    assert not shown.hazard


def test_a_lost_pcpu_walks_nothing() -> None:
    assert ("max TDP level", "4", "4 | –") in cells(card("kvm", ev.BootHost(), LOST, ev.LoadKvm()))


def test_many_pcpus_are_counted() -> None:
    boot = ev.BootHost(pcpus=(PcpuSetup(),) * 6)
    change = ev.ChangeMode(pcpu=3, la57=True)
    assert ("max TDP level", "4", "4 ×5 | 5 ×1") in cells(card("kvm", boot, ev.LoadKvm(), change))


def test_a_kernel_that_reads_cr4_when_it_loads_would_capture_another_depth_now() -> None:
    change = ev.ChangeMode(pcpu=0, la57=True)
    shown = card("kvm", ev.BootHost(), ev.LoadKvm(kernel="series-v2"), change)
    assert ("forced level", "4", "5") in cells(shown), "a row that differs is shown though the card is folded"


def test_unfolded_all_that_was_captured_is_shown_with_who_captured_it() -> None:
    happened = events()
    module = state_after(*happened).module
    assert module is not None
    shown = card("kvm", *happened, unfolded=True)
    told = [row for row in shown.rows if row.tip]
    assert len(told) == len(module.captured)
    assert all(captured.function in tip for captured, tip in zip(
        sorted(module.captured, key=lambda c: c.name != "max_tdp_level"), [row.tip for row in told], strict=True
    ))  # fmt: skip
    assert (shown.fold, card("kvm", *happened).fold) == ("Fewer values", f"{len(told) - 1} more values")


def test_a_vm_lists_its_memory() -> None:
    assert cells(card("vm 0", *events())) == [("0x0", "64 MiB", "4K"), ("0xfffe_0000", "128 KiB", "4K, read-only")]
    assert cells(card("vm 0", *events()[:3])) == [("no memory yet",)]


def test_a_vcpu_shows_its_root_and_what_it_counted() -> None:
    shown = card("vcpu 0 0", *events())
    rows = {row.cells[0]: row.cells[1] for row in shown.rows if row.face is Face.NAMED}
    assert rows["TDP level"] == "4"
    assert rows["nCR3"].startswith("0x")
    assert rows["exits"] == rows["pf_fixed"] == "5"
    assert "pf_spurious" not in rows, "what has not counted is not shown"
    assert shown.chip == (4, "4-level")


def test_a_vcpu_on_a_pcpu_that_walks_its_tables_otherwise_is_a_hazard() -> None:
    shown = card("vcpu 0 0", *events("mode-change"))
    assert ("TDP level", "4, walked as 5") in cells(shown)
    assert shown.hazard


def test_ept_tables_go_by_their_own_register() -> None:
    assert any(row.cells[0] == "EPTP" for row in card("vcpu 0 0", *events("intel-ept")).rows)


def test_a_card_can_be_heard() -> None:
    said = card("kvm", *events("mode-change")).spoken()
    assert "KVM, AMD" in said
    assert "max TDP level 4 4 | 5" in said


def test_where_nothing_has_changed_since_it_says_so() -> None:
    shown = card("kvm", *events(), unfolded=True)
    assert {row.cells[2] for row in shown.rows if row.tip} == {"4 | 4", "same"}


# --- nested cards


def named(shown: Card) -> dict[str, str]:
    return {row.cells[0]: row.cells[1] for row in shown.rows if len(row.cells) == 2}


def prose(shown: Card) -> list[str]:
    return [row.cells[0] for row in shown.rows if row.face is Face.PROSE]


def l1(mode: str = "4-level") -> tuple[ev.Event, ...]:
    """The template with a hypervisor in the guest, in another mode of its own."""
    start = ev.SetGuestRegisters(preset(mode).at(ROOT))
    return tuple(start if isinstance(event, ev.SetGuestRegisters) else event for event in events("nested"))


def test_what_runs_in_another_stands_in_it() -> None:
    made = cards(state_after(*events("nested")))
    assert [(c.key, c.depth) for c in made[2:]] == [
        ("kvm", 0), ("vm 0", 0), ("l1 0", 1), ("vcpu 0 0", 1), ("l2 0 0", 2)
    ]  # fmt: skip
    assert [c.title for c in made[3:]] == ["VM 0 (L1)", "Hypervisor", "vCPU 0", "L2"]
    left = cards(state_after(*events("nested"), ev.LeaveNested()))
    assert [c.key for c in left[3:]] == ["vm 0", "l1 0", "vcpu 0 0"]


def test_the_hypervisor_shows_what_it_captured_beside_the_mode_of_its_vcpu() -> None:
    calm = card("l1 0", *events("nested"))
    assert ("its tables", "4-level", "same") in cells(calm)
    assert (calm.side, calm.hazard) == ("vCPU 0", False)
    change = ev.SetGuestRegisters(preset("5-level").at(ROOT))
    for more in ((), (ev.EnterNested(preset("4-level").at(ROOT)),)):
        shown = card("l1 0", *events("nested"), ev.LeaveNested(), change, *more)
        assert next(row for row in shown.rows if row.marked and row.face is Face.NAMED).cells[1:] == (
            "4-level",
            "5-level",
        )
        assert prose(shown) == ["Built as 4-level, read as 5-level at VMRUN: nothing checks it."]
        assert shown.hazard


def test_a_nested_guest_shows_l1s_tables_and_those_of_l0_that_mirror_them() -> None:
    shown = card("l2 0 0", *events("nested"))
    rows = named(shown)
    assert prose(shown) == ["nested guest: 4-level paging"]
    assert rows["L1's nCR3"] == "0x40_0000"
    assert rows["read as"] == "4-level NPT"
    assert (rows["TDP level"], rows["mirrored level"], rows["passthrough"]) == ("5", "4", "the root")
    assert (shown.chip, shown.side) == ((5, "5-level"), "vCPU 0")


def test_while_a_nested_guest_runs_the_vcpu_shows_l1() -> None:
    shown = card("vcpu 0 0", *l1("PAE"))
    assert prose(shown)[0] == "L1 at its entry: PAE paging, MAXPHYADDR 48"
    assert named(shown)["role"] == "0x3785"
    back = card("vcpu 0 0", *l1("PAE"), ev.LeaveNested())
    assert prose(back)[0] == "guest: PAE paging, MAXPHYADDR 48"


def test_special_roots_stand_from_the_top_and_say_what_they_are() -> None:
    shown = card("l2 0 0", *l1("PAE"))
    names = [row.cells[0] for row in shown.rows]
    at = names.index("pml5_root")
    assert names[at : at + 3] == ["pml5_root", "pml4_root", "pae_root"]
    assert "mirrors nothing" in shown.rows[at].tip
    assert named(shown)["nCR3"] == named(shown)["pml5_root"]
    assert named(shown)["mirrored level"] == "3"


def test_l1_without_nested_paging_runs_its_guest_on_the_vcpus_own_mmu() -> None:
    without = ev.EnterNested(preset("4-level").at(ROOT), paging=False)
    happened = (*events("nested")[:7], without)
    assert "The nested guest runs on its MMU." in prose(card("vcpu 0 0", *happened))
    assert "no nested paging" in prose(card("l2 0 0", *happened))[1]


def test_a_vm_tells_what_is_mirrored_and_counts_it() -> None:
    rows = named(card("vm 0", *events("npt-0")))
    state = state_after(*events("npt-0"))
    vm = state.vms[0]
    assert vm is not None
    assert rows["mirror tables"] == str(len(vm.shadow.pages)) == "6"
    assert rows["out of sync"] == str(len(vm.shadow.unsync)) == "1"
    assert rows["mmu_pte_write"] == rows["mmu_pde_zapped"] == "1"
    assert "mmu_flooded" not in rows
    assert named(card("vm 0", *events())) == {}


def test_without_nested_paging_the_shadow_root_and_the_guests_level_are_shown() -> None:
    happened = events("npt-0")
    assert "Shadow paging (npt=0): it mirrors the guests' own tables." in prose(card("kvm", *happened))
    shown = card("vcpu 0 0", *happened, ev.ChangeMode(pcpu=1, la57=True), ev.MoveVcpu(pcpu=1))
    rows = named(shown)
    assert (rows["shadow level"], rows["mirrored level"]) == ("4", "4")
    assert "CR3 in use" in rows
    assert not shown.hazard, "its depth is the guest's, whatever the pCPU's is"
    assert card("vcpu 0 0", *happened[:6]).chip == (3, "PAE"), "a guest without paging runs on PAE tables"


def test_roots_that_a_vcpu_had_before_are_shown_with_what_they_mirror() -> None:
    other = ROOT + 0x8_0000
    switch = (ev.WriteGuestRegister("cr3", other), ev.GuestAccess(0x1000))
    kept = [row for row in card("vcpu 0 0", *events("npt-0"), *switch).rows if row.cells[0] == "kept root"]
    assert len(kept) == 1
    assert "this one mirrors 0x10_0000" in kept[0].tip


@pytest.mark.parametrize(("kernel", "name"), [("5.15", "gpte_is_8_bytes"), ("latest", "has_4_byte_gpte")])
def test_the_role_word_can_be_read_bit_by_bit(kernel: str, name: str) -> None:
    load = ev.LoadKvm(kernel=kernel)
    happened = tuple(load if isinstance(event, ev.LoadKvm) else event for event in events("nested"))
    shown = card("l2 0 0", *happened, unfolded=True)
    fields = [row for row in shown.rows if len(row.cells) == 3 and row.face is Face.NAMED]
    assert len(fields) == len(ROLE_FIELDS)
    word = 0
    for row in fields:
        low = int(row.cells[1].split(":")[-1])
        word |= int(row.cells[2], 0) << low
        assert row.tip.endswith(".")
    assert f"{word:#x}" == named(shown)["role"]
    assert fields[1].cells[0] == name
    assert (shown.fold, card("l2 0 0", *happened).fold) == ("Role word only", "Role bit by bit")


# --- what to do next


@pytest.mark.parametrize(
    ("step", "offers"),
    [
        (0, ["Boot a host…"]),
        (1, ["Load KVM…"]),
        (2, ["Create a VM"]),
        (3, ["Add memory…", "Add a vCPU…"]),
        (5, ["Add a vCPU…"]),
        (6, ["Map guest pages…", "Set registers…"]),
    ],
)
def test_an_unfinished_machine_says_what_is_missing(step: int, offers: list[str]) -> None:
    following = next_step(state_after(*events()[:step]))
    assert following is not None
    assert following.advice.endswith(".")
    assert [offer.label for offer in following.offers] == offers


def test_a_machine_that_works_needs_nothing() -> None:
    assert next_step(state_after(*events())) is None
    without_paging = ev.EnterNested(preset("reset").at(0))
    assert next_step(state_after(*events("nested"), ev.LeaveNested(), without_paging)) is None, "L2 may do as it likes"


# --- the view


@pytest.fixture
def document(qapp: Any) -> Document:
    made = Document(Library())
    made.open(Scenario(events=events("mode-change")), 10)
    return made


class Asked:
    """Answers in the user's place: with the event that the form begins with."""

    def __init__(self) -> None:
        self.initial: list[ev.Event | None] = []

    def __call__(
        self, document: Document, event_type: type, initial: ev.Event | None, parent: QWidget | None
    ) -> ev.Event | None:
        self.initial.append(initial)
        return initial


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def view(document: Document, asked: Asked, qtbot: QtBot) -> HostCards:
    made = HostCards(document, ask=asked)
    qtbot.addWidget(made)
    made.resize(280, 600)
    with qtbot.waitExposed(made):
        made.show()
    return made


def shown(view: HostCards, key: str) -> CardWidget:
    return next(widget for widget in view.cards if widget.card.key == key)


def action(menu: Any, text: str) -> QAction:
    found: QAction = next(a for a in menu.actions() if a.text() == text)
    return found


def test_stepping_shows_other_cards_in_the_same_widgets(view: HostCards, document: Document) -> None:
    before = list(view.cards)
    document.go_to_step(12)
    assert list(view.cards) == before
    assert shown(view, "pcpu 1").card.side == "vCPU 0"
    document.go_to_step(2)
    assert list(view.cards) == before[:3], "the cards that stay are the same widgets"


class Paints(QWidget):
    """Counts how often a widget is asked to paint."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def eventFilter(self, watched: Any, event: QEvent) -> bool:
        self.count += event.type() is QEvent.Type.Paint
        return False


def test_a_card_that_says_the_same_is_not_painted_again(view: HostCards, document: Document, qtbot: QtBot) -> None:
    qtbot.wait(20)
    paints = Paints()
    qtbot.addWidget(paints)
    shown(view, "vm 0").installEventFilter(paints)
    document.go_to_step(9)
    document.go_to_step(8)
    qtbot.wait(20)
    assert paints.count == 0


def test_cards_are_as_high_as_what_they_say(view: HostCards, qtbot: QtBot) -> None:
    def fit() -> bool:
        return all(w.height() == round(card_height(w.card, w.width() - INDENT * w.card.depth)) for w in view.cards)

    qtbot.waitUntil(fit)
    qtbot.mouseClick(shown(view, "kvm").fold, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: view.verticalScrollBar().isVisible() and fit())
    for width in range(190, 330, 20):
        view.resize(width, 300)
        qtbot.waitUntil(fit)


def test_unfolding_shows_all_values(view: HostCards, qtbot: QtBot) -> None:
    kvm = shown(view, "kvm")
    few = len(kvm.card.rows)
    qtbot.keyClick(kvm.fold, Qt.Key.Key_Return)
    assert len(kvm.card.rows) > few
    qtbot.mouseClick(kvm.fold, Qt.MouseButton.LeftButton)
    assert len(kvm.card.rows) == few


@pytest.mark.qt_log_ignore("does not support raise")
def test_the_keys_go_through_the_rows_that_have_more_to_tell(view: HostCards, qtbot: QtBot) -> None:
    vm = shown(view, "vm 0")
    qtbot.keyClick(vm, Qt.Key.Key_Down)
    assert vm.accessibleDescription().startswith("Slot 0: guest-physical 0x0 is 0x7f")
    qtbot.keyClick(vm, Qt.Key.Key_Down)
    assert vm.accessibleDescription().startswith("Slot 1")
    qtbot.keyClick(vm, Qt.Key.Key_Up)
    assert vm.accessibleDescription().startswith("Slot 0")


def test_everything_can_be_reached_with_tab_and_has_a_name(view: HostCards) -> None:
    for widget in view.cards:
        assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus
        assert widget.accessibleName()
        assert widget.accessibleDescription()
    switch = shown(view, "pcpu 1").switch
    assert switch.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert switch.accessibleName() == "Mode of pCPU 1: 4-level. Change it"


def test_a_way_of_the_menu_changes_the_mode_as_an_event_that_can_be_undone(view: HostCards, document: Document) -> None:
    action(view.mode_menu(1), "Trampoline").trigger()
    assert document.scenario.events[10] == ev.ChangeMode(1, True, Way.TRAMPOLINE, Root.REBUILT)
    assert document.step == 11
    assert document.undo_stack.undoText() == "pCPU 1 goes 5-level"
    assert shown(view, "kvm").card.hazard
    document.undo_stack.undo()
    assert not shown(view, "kvm").card.hazard


def test_the_same_root_is_a_choice_of_its_own(view: HostCards, document: Document) -> None:
    menu = view.mode_menu(1)
    same = action(menu, "Keep the same root, by").menu()
    action(same, "Trampoline").trigger()
    assert shown(view, "pcpu 1").card.hazard
    assert shown(view, "pcpu 1").switch.isHidden()


def test_a_way_that_cannot_be_gone_says_why(document: Document, qapp: Any) -> None:
    menu = mode_menu(document.state, 0, lambda event: None)
    hotplug = action(menu, "Hotplug")
    assert not hotplug.isEnabled()
    assert hotplug.toolTip() == "pCPU 0, the boot processor, cannot be taken offline."


@pytest.mark.qt_log_ignore("does not support (raise|grabbing the keyboard)")
def test_the_switch_opens_the_menu_from_the_keyboard(view: HostCards, qtbot: QtBot, qapp: Any) -> None:
    qtbot.keyClick(shown(view, "pcpu 1").switch, Qt.Key.Key_Down)
    menu = qapp.activePopupWidget()
    assert menu is not None
    assert "Suspend (all pCPUs)" in [a.text() for a in menu.actions()]
    menu.close()


def test_more_can_be_chosen_in_the_form(view: HostCards, asked: Asked) -> None:
    action(view.mode_menu(1), "Choose more…").trigger()
    assert asked.initial == [ev.ChangeMode(1, True)]


def test_what_to_do_next_is_a_button(view: HostCards, document: Document, asked: Asked, qtbot: QtBot) -> None:
    assert view.next_step.isHidden(), "this machine works"
    document.go_to_step(2)
    (create,) = view.next_step.buttons
    qtbot.mouseClick(create, Qt.MouseButton.LeftButton)
    assert document.scenario.events[2:4] == (ev.CreateVm(), ev.CreateVm()), "it needs no form"
    assert asked.initial == []
    qtbot.mouseClick(view.next_step.buttons[0], Qt.MouseButton.LeftButton)
    assert asked.initial == [ev.SetMemslot()]
    assert document.scenario.events[3] == ev.SetMemslot()


def test_a_ready_scenario_is_one_step_of_undo(view: HostCards, document: Document) -> None:
    document.open(Scenario())
    assert view.cards == ()
    menu = view.next_step.buttons[-1].menu()
    assert [a.text() for a in menu.actions()] == [t.name for t in templates()]
    menu.actions()[0].trigger()
    assert document.scenario.events == events()
    assert document.step == len(events())
    document.undo_stack.undo()
    assert document.scenario.events == ()


def test_what_cannot_be_is_told(view: HostCards, document: Document, asked: Asked, qtbot: QtBot) -> None:
    document.go_to_step(1)
    document.edit(Insert(1, LOST), "", 2)
    document.edit(Insert(2, ev.ChangeMode(pcpu=0, la57=True, root=Root.SAME)), "", 3)
    with qtbot.waitSignal(view.refused) as told:
        qtbot.mouseClick(view.next_step.buttons[0], Qt.MouseButton.LeftButton)
    assert told.args is not None
    assert told.args[0] == "kvm_init refuses: pCPU 0 cannot run module init: it is lost."


def test_a_view_of_nothing_asks_for_no_room(document: Document, qtbot: QtBot) -> None:
    document.open(Scenario())
    made = HostCards(document)
    qtbot.addWidget(made)
    made.next_step.hide()
    made.show()
    made.resize(280, 601)  # whatever Qt warns of fails the test


# --- the picture


@pytest.fixture
def _light_afterwards(qapp: Any):  # type: ignore[no-untyped-def]
    yield
    use(Scheme.LIGHT)


@pytest.mark.parametrize("scheme", [Scheme.LIGHT, Scheme.DARK])
@pytest.mark.usefixtures("_light_afterwards")
def test_a_hazard_is_seen_in_both_schemes(scheme: Scheme, view: HostCards, document: Document) -> None:
    use(scheme)
    kvm = shown(view, "kvm")
    calm = kvm.grab().toImage()
    document.go_to_step(11)
    alarmed = kvm.grab().toImage()
    corner = round(calm.width() / 2), calm.height() - 6
    assert calm.pixelColor(*corner).name() == theme().window.name()
    assert alarmed.pixelColor(*corner).name() == theme().hazard_ground.name()


@pytest.mark.parametrize("width", [140, 220, 300])
def test_nothing_of_a_card_leaves_it(width: int, qapp: Any) -> None:
    shown = (*cards(state_after(*events("mode-change"), LOST), {"kvm"}), *cards(state_after(*l1("PAE")), {"l2 0 0"}))
    for made in shown:
        whole = QRectF(0, 0, width, card_height(made, width))
        spots = [fold_rect(whole, made)] if made.fold else []
        for rect in (*row_rects(whole, made), *spots):
            assert whole.contains(rect)
        assert chip_rect(whole, made).bottom() <= whole.bottom()
