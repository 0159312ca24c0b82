"""The menu that changes a pCPU's mode: the ways there are, those that cannot be gone greyed out with the reason."""

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QLabel, QMenu, QWidget, QWidgetAction

from engine import events as ev
from engine.host.modes import Root, Way, cannot
from engine.machine import State
from gui.explain import engine_text
from gui.theme import GRID
from gui.titles import way_name

translate = QCoreApplication.translate
Choose = Callable[[ev.ChangeMode], None]


def mode_menu(state: State, index: int, choose: Choose, parent: QWidget | None = None) -> QMenu:
    """A menu for pCPU ``index``; ``choose`` gets the event that the user picks."""
    assert state.host is not None
    pcpu = state.host.pcpus[index]
    to_five = not pcpu.la57
    menu = QMenu(parent)
    menu.setToolTipsVisible(True)
    heading = translate("ModeMenu", "Go 5-level by") if to_five else translate("ModeMenu", "Go 4-level by")
    menu.addAction(_heading(heading, menu))
    same = QMenu(translate("ModeMenu", "Keep the same root, by"), menu)
    same.setToolTipsVisible(True)
    for root, target in ((Root.REBUILT, menu), (Root.SAME, same)):
        for way in Way:
            _add(target, state, ev.ChangeMode(index, to_five, way, root), choose)
    menu.addSeparator()
    menu.addMenu(same)
    return menu


def _heading(text: str, menu: QMenu) -> QWidgetAction:
    label = QLabel(text)
    label.setProperty("role", "muted")
    label.setContentsMargins(6 * GRID, GRID, 6 * GRID, GRID)
    action = QWidgetAction(menu)
    action.setDefaultWidget(label)
    action.setEnabled(False)
    return action


def _add(menu: QMenu, state: State, event: ev.ChangeMode, choose: Choose) -> None:
    assert state.host is not None
    busy = any(vcpu.pcpu == event.pcpu for vm in state.vms if vm for vcpu in vm.vcpus)
    refused = cannot(state.host, event.pcpu, event.way, event.la57, busy)
    action = menu.addAction(_label(event.way))
    action.setEnabled(refused is None)
    action.setToolTip(engine_text(refused) if refused else engine_text(event.way.value))
    action.triggered.connect(lambda: choose(event))


def _label(way: Way) -> str:
    """The way, and whom it takes along where that is more than the one pCPU."""
    text = {
        Way.SUSPEND: translate("ModeMenu", "{way} (all pCPUs)"),
        Way.KEXEC: translate("ModeMenu", "{way} (all pCPUs; KVM goes)"),
        Way.PARENT: translate("ModeMenu", "{way} hypervisor"),
    }.get(way, "{way}")
    name = text.format(way=way_name(way))
    return name[:1].upper() + name[1:]
