"""Every command once, as data: id, text, icon, shortcut, when it is enabled, what it does.

Menus and tool bar name commands by id.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QApplication

from gui.theme import Scheme

if TYPE_CHECKING:
    from gui.main_window import MainWindow

translate = QCoreApplication.translate
Test = Callable[["MainWindow"], bool]


def _always(window: MainWindow) -> bool:
    return True


class Command(NamedTuple):
    """``timeline``: its shortcut counts only while the timeline has the focus. ``checked``: it is a choice."""

    id: str
    text: str
    run: Callable[[MainWindow], object]
    shortcuts: tuple[str, ...] = ()
    icon: str = ""
    enabled: Test = _always
    checked: Test | None = None
    timeline: bool = False


def _edits() -> ModuleType:
    from gui import edits

    return edits


def _has_event(window: MainWindow) -> bool:
    return window.document.step > 0


def _has_events(window: MainWindow) -> bool:
    return bool(window.document.scenario.events)


def _has_walk(window: MainWindow) -> bool:
    return bool(window.document.walk and window.document.walk.steps)


def _before_end(window: MainWindow) -> bool:
    return _has_walk(window) and window.document.reference != len(window.document.walk.steps) - 1  # type: ignore[union-attr]


def _after_start(window: MainWindow) -> bool:
    return _has_walk(window) and window.document.reference != 0


def _on_image(window: MainWindow) -> bool:
    return window.document.state.image is not None


def _has_stops(window: MainWindow) -> bool:
    return bool(window.document.scenario.demo.stops)


def _on_host(window: MainWindow) -> bool:
    return window.document.state.host is not None


def _scheme(scheme: Scheme) -> Callable[[MainWindow], None]:
    return lambda window: window.use_scheme(scheme)


def _is_scheme(scheme: Scheme) -> Test:
    return lambda window: window.scheme is scheme


def _tab(number: int) -> Callable[[MainWindow], None]:
    return lambda window: window.tabs.setCurrentIndex(number)


def commands() -> tuple[Command, ...]:
    """All of them, in the user's language."""
    return (
        Command("open", translate("Actions", "&Open…"), lambda w: w.opener.ask(), ("Ctrl+O",)),
        Command("open-built-in", translate("Actions", "Open the &built-in image"), lambda w: w.opener.open_built_in()),
        Command("save", translate("Actions", "&Save"), lambda w: w.files.save(), ("Ctrl+S",), enabled=_has_events),
        Command("save-as", translate("Actions", "Save &as…"),
            lambda w: w.files.save_as(), ("Ctrl+Shift+S",), enabled=_has_events,
        ),
        Command("save-copy", translate("Actions", "Save a &copy…"), lambda w: w.files.save_copy(), enabled=_has_events),
        Command("revert", translate("Actions", "Re&vert"), lambda w: w.opener.revert(),
            enabled=lambda w: w.files.file is not None,
        ),
        Command("export-report", translate("Actions", "&Export report…"),
            lambda w: w.exporter.export_scenario(), enabled=_has_events,
        ),
        Command("new-window", translate("Actions", "New &window"),
            lambda w: w.window_wanted.emit(None), ("Ctrl+Shift+N",),
        ),
        Command("close", translate("Actions", "C&lose window"), lambda w: w.close(), ("Ctrl+W",)),
        Command("quit", translate("Actions", "&Quit"), lambda w: QApplication.closeAllWindows(), ("Ctrl+Q",)),
        Command("undo", translate("Actions", "&Undo"),
            lambda w: w.document.undo(), ("Ctrl+Z",), enabled=lambda w: w.document.undo_stack.canUndo(),
        ),
        Command("redo", translate("Actions", "&Redo"),
            lambda w: w.document.undo_stack.redo(), ("Ctrl+Shift+Z", "Ctrl+Y"),
            enabled=lambda w: w.document.undo_stack.canRedo(),
        ),
        Command("edit-event", translate("Actions", "&Change event…"),
            lambda w: w.edit_event(), ("Return",), "edit", _has_event, timeline=True,
        ),
        Command("duplicate-event", translate("Actions", "&Duplicate event"),
            lambda w: _edits().duplicate(w.document), ("Ctrl+D",), "duplicate", _has_event, timeline=True,
        ),
        Command("delete-event", translate("Actions", "D&elete event"),
            lambda w: _edits().remove(w.document), ("Del",), "delete", _has_event, timeline=True,
        ),
        Command("event-up", translate("Actions", "Move event e&arlier"),
            lambda w: _edits().move(w.document, -1), ("Ctrl+Shift+Up",), "up",
            lambda w: w.document.step > 1, timeline=True,
        ),
        Command("event-down", translate("Actions", "Move event &later"),
            lambda w: _edits().move(w.document, 1), ("Ctrl+Shift+Down",), "down",
            lambda w: 0 < w.document.step < w.document.last_step, timeline=True,
        ),
        Command("show-hierarchy", translate("Actions", "&Hierarchy"), _tab(0), ("Ctrl+1",)),
        Command("show-walk", translate("Actions", "&Walk"), _tab(1), ("Ctrl+2",)),
        Command("show-effects", translate("Actions", "&Effects"), _tab(2), ("Ctrl+3",)),
        Command("show-mappings", translate("Actions", "&Mappings"), _tab(3), ("Ctrl+4",)),
        Command("pin-a", translate("Actions", "Pin this &step as A"),
            lambda w: w.document.pin_a(w.document.step), ("Ctrl+Shift+A",), enabled=_on_host,
        ),
        Command("pin-b", translate("Actions", "Pin this step as &B"),
            lambda w: w.document.pin_b(w.document.step), ("Ctrl+Shift+B",), enabled=_on_host,
        ),
        Command("unpin", translate("Actions", "&Unpin A and B"),
            lambda w: w.document.unpin(), enabled=lambda w: w.document.is_pinned,
        ),
        Command("scheme-system", translate("Actions", "As the &desktop"),
            _scheme(Scheme.SYSTEM), checked=_is_scheme(Scheme.SYSTEM),
        ),
        Command("scheme-light", translate("Actions", "&Light"),
            _scheme(Scheme.LIGHT), checked=_is_scheme(Scheme.LIGHT),
        ),
        Command("scheme-dark", translate("Actions", "&Dark"), _scheme(Scheme.DARK), checked=_is_scheme(Scheme.DARK)),
        Command("larger-text", translate("Actions", "&Larger text"), lambda w: w.scale_text(1), ("Ctrl++", "Ctrl+=")),
        Command("smaller-text", translate("Actions", "&Smaller text"), lambda w: w.scale_text(-1), ("Ctrl+-",)),
        Command("normal-text", translate("Actions", "&Normal text"), lambda w: w.scale_text(0), ("Ctrl+0",)),
        Command("reset-layout", translate("Actions", "&Reset layout"), lambda w: w.layout_.reset()),
        Command("edit-register", translate("Actions", "Change a &register…"),
            lambda w: w.edit_register("cr4"), enabled=_on_image,
        ),
        Command("choose-root", translate("Actions", "Choose the root &table"),
            lambda w: w.focus_root(), enabled=_on_image,
        ),
        Command("first", translate("Actions", "&First reference"),
            lambda w: w.document.go_to_reference(0), ("Home",), "first", _after_start,
        ),
        Command("previous", translate("Actions", "&Previous reference"),
            lambda w: w.step_reference(-1), ("Left",), "previous", _after_start,
        ),
        Command("next", translate("Actions", "&Next reference"),
            lambda w: w.step_reference(1), ("Right",), "next", _before_end,
        ),
        Command("last", translate("Actions", "&Last reference"),
            lambda w: w.last_reference(), ("End",), "last", _before_end,
        ),
        Command("play", translate("Actions", "Pla&y"), lambda w: w.player.toggle(), ("Space",), "play", _has_walk),
        Command("logical", translate("Actions", "As L&1 sees it"),
            lambda w: w.document.show_logical(not w.document.is_logical), ("Ctrl+Shift+L",),
            enabled=lambda w: w.document.logical is not None, checked=lambda w: w.document.is_logical,
        ),
        Command("address", translate("Actions", "&Address…"), lambda w: w.address_bar.focus(), ("Ctrl+L",)),
        Command("perform", translate("Actions", "Perform this a&ccess"),
            lambda w: w.perform_access(), ("Ctrl+Return",),
            enabled=lambda w: w.document.query is not None and _on_image(w),
        ),
        Command("previous-event", translate("Actions", "Previous &event"),
            lambda w: w.document.go_to_step(w.document.step - 1), ("Alt+Left", "Ctrl+Left"), enabled=_has_event,
        ),
        Command("next-event", translate("Actions", "Next e&vent"),
            lambda w: w.document.go_to_step(w.document.step + 1), ("Alt+Right", "Ctrl+Right"),
            enabled=lambda w: w.document.step < w.document.last_step,
        ),
        Command("gallery", translate("Actions", "&Start page"), lambda w: w.show_gallery(), ("Alt+Home",)),
        Command("present", translate("Actions", "&Play this demo"),
            lambda w: w.present(), ("F5",), "play", _has_stops,
        ),
        Command("present-here", translate("Actions", "Play from this s&top"),
            lambda w: w.present(w.author.number), ("Shift+F5",), enabled=_has_stops,
        ),
        Command("record-stop", translate("Actions", "&Record what is shown as a stop"),
            lambda w: w.record_stop(), ("F8",), enabled=_has_events,
        ),
        Command("record-pictures", translate("Actions", "Save a picture of &each stop…"),
            lambda w: w.record_pictures(), enabled=_has_stops,
        ),
        Command("help", translate("Actions", "&Help for this view"), lambda w: w.show_help(), ("F1",)),
        Command("keys", translate("Actions", "&Keys"), lambda w: w.show_help("keys")),
        Command("about", translate("Actions", "&About Walkscope"), lambda w: w.about()),
    )  # fmt: skip


def menus() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Titles, and ids of commands; "-" is a separator, and "@..." a menu or section that the window fills."""
    return (
        (translate("Actions", "&File"), (
            "@templates", "open", "open-built-in", "@recent", "new-window", "-", "save", "save-as", "save-copy",
            "revert", "-", "export-report", "-", "close", "quit",
        )),
        (translate("Actions", "&Edit"), (
            "undo", "redo", "-", "@events", "edit-event", "duplicate-event", "delete-event", "event-up", "event-down",
        )),
        (translate("Actions", "&View"), (
            "show-hierarchy", "show-walk", "show-effects", "show-mappings", "-", "@docks", "-", "@scheme",
            "larger-text", "smaller-text", "normal-text", "-", "reset-layout",
        )),
        (translate("Actions", "&Machine"), ("choose-root", "edit-register")),
        (translate("Actions", "&Walk"), (
            "address", "perform", "@sights", "-", "first", "previous", "next", "last", "play", "logical", "-",
            "previous-event",
            "next-event", "-", "pin-a", "pin-b", "unpin",
        )),
        (translate("Actions", "&Demo"), (
            "gallery", "@demos", "-", "present", "present-here", "record-pictures", "-", "record-stop",
        )),
        (translate("Actions", "&Help"), ("help", "keys", "-", "about")),
    )  # fmt: skip


TOOL_BAR = ("first", "previous", "next", "last", "play")
CONTEXT = ("edit-event", "duplicate-event", "delete-event", "event-up", "event-down", "pin-a", "pin-b")
"""The context menu of the timeline."""
