"""The open scenario and all that views share: step, what is walked, what is selected, undo.

Views read it and ask it to change; it tells them by one signal what changed. It decides nothing about paging: every
value comes from the engine.
"""

from collections.abc import Callable
from enum import Flag, auto

import msgspec
from PySide6.QtCore import QCoreApplication, QObject, Signal
from PySide6.QtGui import QUndoCommand, QUndoStack

from engine import events as ev
from engine.arch.paging import Level, Paging
from engine.arch.rights import READ, Access
from engine.arch.walk import Stage, Walk
from engine.edits import Edit, Insert, Move, Narrate, Remove, Replace
from engine.machine import Images, Refusal, State, apply
from engine.machine.look import HERE, Place, Stages, look, look_logical, stages
from engine.machine.mirror import Mirror, mirror
from engine.scenario import Replay, Scenario
from gui.pins import Pin, Pins


class Change(Flag):
    """What a `Document.changed` signal is about; a view refreshes where it shares a bit."""

    SCENARIO = auto()
    """Events were edited, or another scenario was opened."""
    STATE = auto()
    """Another step is current, or the current one replays to another state."""
    WALK = auto()
    """Another address, access or privilege is walked, or the same walk reads other bytes."""
    REFERENCE = auto()
    """Another reference of the walk is lit."""
    SELECTION = auto()
    """Another entry is selected."""
    PINS = auto()
    """Another moment is pinned as A or B."""
    DEMO = auto()
    """The demo is another, and nothing else."""
    ALL = SCENARIO | STATE | WALK | REFERENCE | SELECTION | PINS | DEMO


class Query(msgspec.Struct, frozen=True):
    """What is walked: a look without side effects. ``cpl`` is the privilege asked about, whatever the registers say.

    ``place``: whose address it is (the image's processor, a vCPU, a pCPU of the host).
    """

    address: int
    access: Access = READ
    cpl: int = 3
    place: Place = HERE


Look = Callable[[State, int, Access, Place, int], Walk | Refusal]
"""What walks an address in a state: address, access, whose, and the privilege asked about."""


class Selection(msgspec.Struct, frozen=True):
    """An entry: slot ``index`` of the table at physical byte address ``table``, read as ``level`` of ``stage``."""

    stage: Stage
    level: Level
    table: int
    index: int

    @property
    def address(self) -> int:
        """The physical byte address of the entry."""
        return self.table + (self.index << self.level.entry_shift)


class Document(QObject):
    """``changed`` carries a `Change`; ``edited`` the edit just done, undone or redone, and what it is called.

    ``settling`` asks whoever still holds back what the user typed to make an edit of it: see `settle`.
    """

    changed = Signal(object)
    edited = Signal(object, str)
    settling = Signal()

    def __init__(self, images: Images, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._images = self._library = images
        self._replay = Replay(Scenario(), images)
        self._step = 0
        self._query: Query | None = None
        self.look_logical: Look = look_logical
        """The walk as L2 and L1 take it to be, of an address of a vCPU that runs a nested guest."""
        self._hardware: Walk | Refusal | None = None
        self._logical: Walk | Refusal | None = None
        self._is_logical = False
        self._wants_mirror = True
        self._mirror: tuple[State, int, int, Mirror | Refusal] | None = None
        """The last `mirror`, with the state, the VM and the vCPU that it is of."""
        self._reference: int | None = None
        self._selection: Selection | None = None
        self._pins = Pins()
        self.undo_stack = QUndoStack(self)
        self.is_open = False
        """Something was opened, be it a scenario without an event."""

    # --- the scenario and its steps

    @property
    def scenario(self) -> Scenario:
        return self._replay.scenario

    @property
    def replay(self) -> Replay:
        return self._replay

    @property
    def images(self) -> Images:
        """What gives the images that the scenario names; may be asked from any thread."""
        return self._images

    @property
    def step(self) -> int:
        """How many events have happened: 0 .. ``last_step``."""
        return self._step

    @property
    def last_step(self) -> int:
        return len(self.scenario.events)

    @property
    def state(self) -> State:
        return self._replay.state(self._step)

    def open(self, scenario: Scenario, step: int | None = None, images: Images | None = None) -> None:
        """Show ``scenario``, at ``step`` (default: after its last event). Undo starts afresh.

        ``images``: where its images come from (default: whatever they name is opened).
        """
        self._images = images or self._library
        self._replay = Replay(scenario, self._images)
        self._step = len(scenario.events) if step is None else step
        self._query = self._hardware = self._logical = self._reference = self._selection = None
        self._pins = Pins()
        self.is_open = True
        self.undo_stack.clear()  # tells who listens to it, so all else is in place by now
        self.changed.emit(Change.ALL)

    def go_to_step(self, step: int) -> None:
        step = max(0, min(step, self.last_step))
        if step != self._step:
            self._step = step
            self._refresh(Change.STATE)

    def refusal(self, event: ev.Event) -> str | None:
        """Why ``event`` cannot happen next; None where it can."""
        after = self.after(event)
        return after.reason if isinstance(after, Refusal) else None

    def after(self, event: ev.Event, step: int | None = None) -> State | Refusal:
        """What ``event`` would come to after ``step`` events (default: next); nothing changes."""
        before = self.state if step is None else self._replay.state(step)
        return apply(before, event, self._images)

    def append(self, event: ev.Event, text: str) -> str | None:
        """Insert ``event`` after the current step and go there; a sentence instead where it cannot happen."""
        refused = self.refusal(event)
        if refused is None:
            self.edit(Insert(self._step, event), text, self._step + 1)
        return refused

    def edit(self, edit: Edit, text: str, step: int | None = None) -> None:
        """Apply ``edit`` as an undoable command called ``text`` and show ``step`` (default: the current one)."""
        self.undo_stack.push(_EditCommand(self, edit, text, self._step if step is None else step))

    def remove_event(self, at: int, text: str) -> None:
        self.edit(Remove(at), text, self._step - 1 if at < self._step else self._step)

    def replace_event(self, at: int, event: ev.Event, text: str) -> None:
        self.edit(Replace(at, event), text)

    def move_event(self, at: int, to: int, text: str) -> None:
        self.edit(Move(at, to), text)

    def settle(self) -> None:
        """Call before the scenario is saved, played or undone: everything typed is in it after that."""
        self.settling.emit()

    def undo(self) -> None:
        self.settle()
        self.undo_stack.undo()

    def _show_edited(self, scenario: Scenario, step: int, edit: Edit, text: str) -> None:
        self._replay.edit(scenario)
        if isinstance(edit, Narrate):
            self.changed.emit(Change.DEMO)
            self.edited.emit(edit, text)
            return
        self._pins = self._pins.after(edit)
        self._step = max(0, min(step, len(scenario.events)))
        self._refresh(Change.SCENARIO | Change.STATE | Change.DEMO)
        self.edited.emit(edit, text)

    # --- the moments that are compared

    @property
    def pinned(self) -> Pins:
        """What the user pinned."""
        return self._pins

    @property
    def is_pinned(self) -> bool:
        """Whether the user pinned anything."""
        return self._pins != Pins()

    @property
    def pins(self) -> tuple[Pin, Pin]:
        """A and B as they are now, pinned or not."""
        return self._pins.resolve(self.scenario.events, self._step)

    def pin_a(self, step: int | None, pcpu: int | None = None) -> None:
        """Compare from the state after ``step`` events on; None: from before the last mode change."""
        self._pin(msgspec.structs.replace(self._pins, a=None if step is None else Pin(step, pcpu)))

    def pin_b(self, step: int | None, pcpu: int | None = None) -> None:
        """Compare with the state after ``step`` events; None: with the current one."""
        self._pin(msgspec.structs.replace(self._pins, b=None if step is None else Pin(step, pcpu)))

    def unpin(self) -> None:
        """Let A and B follow again."""
        self._pin(Pins())

    def _pin(self, pins: Pins) -> None:
        if pins != self._pins:
            self._pins = pins
            self.changed.emit(Change.PINS)

    # --- the walk

    @property
    def query(self) -> Query | None:
        return self._query

    @property
    def place(self) -> Place:
        """Whose address the query is."""
        return self._query.place if self._query else HERE

    @property
    def stages(self) -> Stages | Refusal:
        """What translates the query's addresses in the current state, for its privilege; or why nothing does."""
        return stages(self.state, self.place, self._query.cpl if self._query else None)

    @property
    def paging(self) -> Paging:
        """The first stage of `stages`; of the image's registers where there are none."""
        found = self.stages
        return self.state.paging if isinstance(found, Refusal) else found.first

    @property
    def walk(self) -> Walk | None:
        """The walk of the query in the current state, by hardware or the logical one, whichever is looked at.

        None before the first query, or where it is refused.
        """
        return self.logical if self.is_logical else self.hardware

    @property
    def hardware(self) -> Walk | None:
        """The walk that the processor makes."""
        found = self._looked()
        return None if isinstance(found, Refusal) else found

    @property
    def logical(self) -> Walk | None:
        """The walk of three stages that L2 and L1 take for granted; None where no nested guest runs."""
        query = self._query
        if self._logical is None and query is not None:
            self._logical = self.look_logical(self.state, query.address, query.access, query.place, query.cpl)
        return None if isinstance(self._logical, Refusal) else self._logical

    @property
    def is_logical(self) -> bool:
        """Whether the logical walk is looked at: it was chosen, and there is one."""
        return self._is_logical and self.logical is not None

    def show_logical(self, on: bool) -> None:
        """Look at the logical walk, where there is one, or at the hardware's; its last reference is lit."""
        if on != self._is_logical:
            self._is_logical = on
            if self.logical is not None:
                self._refresh(Change.WALK)

    @property
    def wants_mirror(self) -> bool:
        """Whether what KVM mirrors shall stand above its own tables, where it mirrors any, and not the tables that the
        hardware walks."""
        return self._wants_mirror

    def show_mirror(self, on: bool) -> None:
        """Show both sides of a mirror, where there is one, or the tables that the hardware walks."""
        if on != self._wants_mirror:
            self._wants_mirror = on
            self.changed.emit(Change.WALK | Change.REFERENCE)

    @property
    def mirror(self) -> Mirror | Refusal:
        """What KVM mirrors for the vCPU that is looked at beside its own tables; or why nothing is mirrored."""
        state, place = self.state, self.place
        known = self._mirror
        if known is None or known[0] is not state or known[1:3] != (place.vm, place.vcpu):
            known = self._mirror = (state, place.vm, place.vcpu, mirror(state, place.vm, place.vcpu))
        return known[3] if place.pcpu is None else Refusal("These are the host's own tables: they mirror nothing.")

    @property
    def walk_refusal(self) -> str | None:
        """Why the query cannot be walked here (one sentence); None where it can."""
        found = self._looked()
        return found.reason if isinstance(found, Refusal) else None

    def _looked(self) -> Walk | Refusal | None:
        query = self._query
        if self._hardware is None and query is not None:
            self._hardware = look(self.state, query.address, query.access, query.place, query.cpl)
        return self._hardware

    def ask(self, query: Query | None) -> None:
        """Walk another address; its last reference is lit. None: nothing is walked."""
        if query != self._query:
            self._query = query
            self._refresh(Change.WALK)

    @property
    def reference(self) -> int | None:
        """The number (from 0) of the lit step in ``walk.steps``; None where the walk has none."""
        return self._reference

    def go_to_reference(self, number: int) -> None:
        """Light step ``number`` of the walk and select its entry."""
        steps = self.walk.steps if self.walk else ()
        if not steps:
            return
        number = max(0, min(number, len(steps) - 1))
        if number == self._reference:
            return
        self._reference = number
        self._select_reference()
        self.changed.emit(Change.REFERENCE | Change.SELECTION)

    def _select_reference(self) -> None:
        steps = self.walk.steps if self.walk else ()
        if self._reference is None or not steps:
            return
        step = steps[self._reference]
        # A PDPTE register is in no table: the lit reference alone tells of it.
        self._selection = Selection(step.stage, step.level, step.table, step.index) if step.table is not None else None

    # --- the selection

    @property
    def selection(self) -> Selection | None:
        return self._selection

    def select(self, selection: Selection | None) -> None:
        """Select an entry; where the walk used it, that reference is lit too."""
        if selection == self._selection:
            return
        self._selection = selection
        change = Change.SELECTION
        if selection is not None and self.walk is not None:
            for number, step in enumerate(self.walk.steps):
                if step.table == selection.table and step.index == selection.index and step.level == selection.level:
                    if self._reference != number:
                        self._reference = number
                        change |= Change.REFERENCE
                    break
        self.changed.emit(change)

    def _refresh(self, change: Change) -> None:
        """The state or the query changed: walk again, keep the lit reference where it still exists."""
        before = self._reference
        self._hardware = self._logical = None
        steps = self.walk.steps if self.walk else ()
        keep = before is not None and before < len(steps) and Change.WALK not in change
        self._reference = before if keep else (len(steps) - 1 if steps else None)
        self._select_reference()
        self.changed.emit(change | Change.WALK | Change.REFERENCE | Change.SELECTION)


class _EditCommand(QUndoCommand):
    def __init__(self, document: Document, edit: Edit, text: str, step: int) -> None:
        super().__init__(text)
        self._document = document
        self._edit = edit
        self._before, self._before_step, self._after_step = document.scenario, document.step, step
        self._inverse = edit.inverse(document.scenario)

    def redo(self) -> None:
        after = self._edit.apply(self._document.scenario)
        self._document._show_edited(after, self._after_step, self._edit, self.text())

    def undo(self) -> None:
        before = self._inverse.apply(self._document.scenario)
        text = QCoreApplication.translate("Document", "Undo: {what}").format(what=self.text())
        self._document._show_edited(before, self._before_step, self._inverse, text)
