"""Adding and editing events through the form, and the menu that offers all events that there can be next."""

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QDialog, QMenu, QWidget

from engine import events as ev
from engine.edits import Insert
from engine.machine import Refusal, State
from gui.describe import describe
from gui.dialogs.event_form import ask_event
from gui.dialogs.event_texts import told
from gui.document import Document

translate = QCoreApplication.translate
Run = Callable[[QDialog], bool]

START = (ev.BootHost, ev.OpenImage)
HOST = (
    (ev.LoadKvm, ev.CreateVm, ev.SetMemslot, ev.CreateVcpu, ev.RestoreGuest),
    (ev.MapGuestPages, ev.FillGuestPages, ev.SetGuestRegisters, ev.GuestAccess, ev.Populate),
    (ev.WriteGuestRegister, ev.InvalidatePage),
    (ev.LoadNestedKvm, ev.MapNestedPages, ev.MapL2Pages, ev.FillL2Pages, ev.EnterNested, ev.LeaveNested,
     ev.InvalidateNested),
    (ev.ChangeMode, ev.MoveVcpu, ev.HostMemory, ev.ZapGuest, ev.DirtyLogging, ev.FlushTlb, ev.Poke),
    (ev.DeleteMemslot, ev.DestroyVm, ev.UnloadKvm),
)  # fmt: skip
IMAGE = (
    (ev.AccessMemory, ev.Poke),
    (ev.ChooseCpu, ev.ChooseRoot, ev.SetRegister, ev.WriteRegister, ev.ChooseSecondStage),
)


def offered(state: State) -> tuple[tuple[type, ...], ...]:
    """The events that suit what there is, in groups: a host's, an image's, or those that a scenario begins with."""
    if state.host is not None:
        return HOST
    return IMAGE if state.image is not None else (START,)


def fill_event_menu(menu: QMenu, document: Document, choose: Callable[[type], object]) -> None:
    """Let ``menu`` offer, whenever it opens, the events that suit the current step; ``choose`` gets the type."""

    def refill() -> None:
        menu.clear()
        menu.setToolTipsVisible(True)
        for number, group in enumerate(offered(document.state)):
            if number:
                menu.addSeparator()
            for event_type in group:
                words = told()[event_type]
                action = menu.addAction(translate("EventCommands", "{event}…").format(event=words.name))
                action.setToolTip(words.help)
                action.triggered.connect(partial(_chosen, choose, event_type))

    menu.aboutToShow.connect(refill)
    refill()


def _chosen(choose: Callable[[type], object], event_type: type, checked: bool = False) -> None:
    choose(event_type)


def add_event(document: Document, event_type: type, parent: QWidget | None = None, run: Run | None = None) -> bool:
    """Let the user make an event, and insert it after the current step; whether he did."""
    event = ask_event(document, event_type, None, parent, None, run)
    if event is None:
        return False
    at = document.step
    document.edit(Insert(at, event), _title(document, event, at), at + 1)
    return True


def edit_event(document: Document, at: int, parent: QWidget | None = None, run: Run | None = None) -> bool:
    """Let the user change event number ``at`` (from 0); whether he did."""
    old = document.scenario.events[at]
    event = ask_event(document, type(old), old, parent, at, run)
    if event is None or event == old:
        return False
    text = translate("EventCommands", "Change to “{event}”").format(event=_title(document, event, at))
    document.replace_event(at, event, text)
    return True


def _title(document: Document, event: ev.Event, at: int) -> str:
    after = document.after(event, at)
    if isinstance(after, Refusal):
        return describe(event, document.replay.state(at), after).title
    return describe(event, after).title
