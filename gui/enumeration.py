"""Every mapping of the address space that is looked at, enumerated once, in a worker, for all that want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from PySide6.QtCore import QObject, Signal

from engine.arch.memory import PhysicalMemory
from engine.arch.paging import Paging, bind
from engine.arch.second_stage import SecondStage
from engine.machine import Refusal
from gui.document import Document
from gui.jobs import Report, WindowJobs

if TYPE_CHECKING:
    from engine.arch.mappings import Mappings

KEY = "mappings"
Subject = tuple[PhysicalMemory, Paging, SecondStage | None]
"""What is enumerated: the memory, the first stage and the second, if there is one."""


class Enumeration(QObject):
    """``ready`` is emitted with the `Mappings` that were asked for; a later question takes the place of an earlier one.

    `mappings` are those of the document's current state, or None while they are not known.
    """

    ready = Signal(object)
    failed = Signal(str)

    @classmethod
    def of(cls, document: Document) -> Enumeration:
        """The one that belongs to ``document``."""
        found = document.findChild(cls)
        return found if found is not None else cls(document)

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self._document = document
        self._jobs = WindowJobs.of(document)
        self._of: Subject | None = None
        self._mappings: Mappings | None = None

    @property
    def mappings(self) -> Mappings | None:
        return self._mappings if self._subject() == self._of else None

    def ask(self) -> None:
        """Have ``ready`` emitted, now or when the work is done. Where nothing translates, it never is."""
        subject = self._subject()
        if subject is None:
            return
        if subject == self._of and self._mappings is not None:
            self.ready.emit(self._mappings)
        elif subject != self._of or not self._under_way():
            self._of, self._mappings = subject, None
            text = self.tr("Reading the page tables")
            self._jobs.start(text, lambda report: _enumerate(subject, report), self._done, key=KEY,
                             failed=self.failed.emit, stopped=self._stopped)  # fmt: skip

    def _subject(self) -> Subject | None:
        """What is enumerated. Privilege does not count: it would only make the same work be done twice."""
        stages = self._document.stages
        if isinstance(stages, Refusal):
            return None
        first = stages.first
        registers = msgspec.structs.replace(first.registers, cpl=0, cr2=0)
        paging = bind(registers, first.features, first.rules, pdptes_from_memory=first.pdptes_from_memory)
        return self._document.state.memory, paging, stages.second

    def _under_way(self) -> bool:
        return any(job.key == KEY for job in self._jobs.running)

    def _stopped(self) -> None:
        self.failed.emit(self.tr("You cancelled the reading: leave this view and come back to start it again."))

    def _done(self, mappings: Mappings) -> None:
        self._mappings = mappings
        self.ready.emit(mappings)


def _enumerate(subject: Subject, report: Report) -> Mappings:
    from engine.arch.mappings import mappings

    memory, paging, second = subject
    if second is not None and paging.format is None:
        return mappings(memory, second.paging, progress=report)  # the addresses are guest-physical
    return mappings(memory, paging, second, progress=report)
