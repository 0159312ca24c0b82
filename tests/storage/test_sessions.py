"""A document's life, step by random step: edited, saved, crashed, recovered. What it shows is always a fresh replay."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from engine import events as ev
from engine.edits import Configure, Edit, Insert, Move, Remove, Replace
from engine.machine import Configuration, State
from engine.memory.library import Library
from engine.scenario import Replay
from storage import files, recovery
from storage.content import Bookmark, Content, Note, Pin
from storage.files import File
from storage.recovery import Session, Situation
from tests.conftest import SLOW, scaled
from tests.storage import strategies

IMAGES = Library()
BEGINNING = (ev.BootHost(), ev.LoadKvm(), ev.CreateVm(), ev.SetMemslot(size=1 << 20), ev.CreateVcpu())
EVENTS = st.one_of(
    st.sampled_from(BEGINNING),
    st.builds(ev.Poke, address=st.integers(0, 1 << 20).map(lambda n: n * 8), value=strategies.addresses),
    st.builds(ev.GuestAccess, address=st.integers(0, (1 << 20) - 8)),
    st.builds(ev.FillGuestPages, gpa=st.integers(0, 200).map(lambda n: n << 12), words=st.just((1, 2))),
    st.builds(ev.SetRegister, name=st.sampled_from(["cr2", "cr3"]), value=strategies.addresses),
    st.builds(ev.ChangeMode, pcpu=st.integers(0, 2), la57=st.booleans()),
    st.just(ev.ZapGuest()),
)
NOTES = st.lists(st.builds(Note, strategies.steps, st.text(max_size=5)), max_size=2).map(tuple)
MARKS = st.lists(st.builds(Bookmark, strategies.names, strategies.steps, strategies.addresses), max_size=2).map(tuple)


def shown(state: State) -> tuple[Any, ...]:
    """What a state shows, in a form that can be compared with that of another replay."""
    host = state.host.pcpus if state.host else None
    return state.memory.digest(), state.registers, host, state.module, state.vms, state.effect


class Documents(RuleBasedStateMachine):
    """A window with one document, as the storage sees it. A crash is what the disk holds at that moment."""

    content: Content
    session: Session
    replay: Replay

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="walkscope-life-"))
        self.state_folder = self.place / "state-0"
        self.path = str(self.place / "a.wscope")
        self.file: File | None = None
        self.saved = Content()
        self.undone: list[Content] = []
        self.done: list[Content] = []
        self.step = 0
        self.crashes = 0

    def teardown(self) -> None:
        self.look(1.0)
        self.session.discard()
        assert recovery.find(self.state_folder) == []
        shutil.rmtree(self.place)

    @initialize(ready=st.booleans())
    def start(self, ready: bool) -> None:
        self.content = Content()
        self.session = recovery.begin(self.state_folder, self.content)
        self.replay = Replay(self.content.scenario, IMAGES)
        for event in BEGINNING if ready else ():
            self.edit(Insert(len(self.events), event))

    @property
    def events(self) -> tuple[ev.Event, ...]:
        return self.content.scenario.events

    # --- edits, each recorded at once

    def edit(self, edit: Edit) -> None:
        after = msgspec.structs.replace(self.content, scenario=edit.apply(self.content.scenario))
        self.change(after, edit)

    def change(self, after: Content, edit: Edit | None = None) -> None:
        self.done.append(self.content)
        self.undone.clear()
        self.show(after, edit)

    def show(self, after: Content, edit: Edit | None) -> None:
        self.content = after
        self.session.record(after, type(edit).__name__, edit)
        self.replay.edit(after.scenario)
        self.step = min(self.step, len(self.events))

    @rule(event=EVENTS, where=st.floats(0, 1))
    def insert(self, event: ev.Event, where: float) -> None:
        self.edit(Insert(int(where * len(self.events)), event))

    @precondition(lambda self: self.events)
    @rule(event=EVENTS, where=st.floats(0, 0.99), to=st.floats(0, 0.99))
    def remove_replace_or_move(self, event: ev.Event, where: float, to: float) -> None:
        at, there = int(where * len(self.events)), int(to * len(self.events))
        self.edit({0: Remove(at), 1: Replace(at, event), 2: Move(at, there)}[(at + there) % 3])

    @rule(configuration=strategies.configurations)
    def configure(self, configuration: Configuration) -> None:
        self.edit(Configure(configuration))

    @rule(notes=NOTES, marks=MARKS)
    def annotate(self, notes: tuple[Note, ...], marks: tuple[Bookmark, ...]) -> None:
        pins = (Pin("A", self.step, 0), Pin("B", self.step))
        self.change(msgspec.structs.replace(self.content, notes=notes, bookmarks=marks, pins=pins))

    @precondition(lambda self: self.done)
    @rule()
    def undo(self) -> None:
        self.undone.append(self.content)
        self.show(self.done.pop(), None)

    @precondition(lambda self: self.undone)
    @rule()
    def redo(self) -> None:
        self.done.append(self.content)
        self.show(self.undone.pop(), None)

    # --- looking

    @rule(where=st.floats(0, 1))
    def look(self, where: float) -> None:
        self.step = int(where * len(self.events))
        fresh = Replay(self.content.scenario, IMAGES)
        assert shown(self.replay.state(self.step)) == shown(fresh.state(self.step))

    # --- the disk

    @rule()
    def save(self) -> None:
        self.file = files.save(self.content, self.path, self.file)
        self.session.saved(self.content, self.file)
        self.saved = self.content

    @precondition(lambda self: self.file)
    @rule()
    def reopen(self) -> None:
        """Revert, or close without saving and open again."""
        self.session.discard()
        opened = files.open_file(self.path)
        assert opened.content == self.saved
        self.session = recovery.begin(self.state_folder, opened.content, opened.file)
        self.take_up(opened.content, opened.file)

    @rule(saving=st.booleans())
    def crash_and_recover(self, saving: bool) -> None:
        """The program dies: at work, or after it saved and before it could note that.

        In that moment a document that had no file before is offered, though it has one: rather twice than never.
        """
        expected = Situation.AS_IT_WAS if self.file else Situation.UNTITLED
        if saving:
            self.file = files.save(self.content, self.path, self.file)
            self.saved = self.content
        unsaved = self.session.unsaved
        self.crashes += 1
        after = self.place / f"state-{self.crashes}"
        shutil.copytree(self.state_folder, after)
        self.session.discard()
        self.state_folder = after
        lost = recovery.find(after)
        if not lost:
            # Of an untitled document all was undone, whatever was saved of it unnoted.
            assert self.content == (self.saved if self.file else Content())
            self.session = recovery.begin(after, self.content, self.file)
            return
        (found,) = lost
        assert found.content == self.content
        assert [entry.text for entry in found.entries] == [entry.text for entry in unsaved]
        assert found.situation is expected
        self.session, content = found.resume()
        self.take_up(content, self.file if found.path else None)

    def take_up(self, content: Content, file: File | None) -> None:
        self.content, self.file = content, file
        self.done.clear()
        self.undone.clear()
        self.replay = Replay(content.scenario, IMAGES)
        self.look(1.0)


TestDocuments = Documents.TestCase
TestDocuments.settings = settings(max_examples=scaled(200), stateful_step_count=50, derandomize=not SLOW)
