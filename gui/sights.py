"""The image that comes with the program, and addresses in it that are worth seeing, each with a true sentence."""

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.rights import FETCH, READ, Access
from engine.scenario import Scenario
from gui.document import Query

translate = QCoreApplication.translate

IMAGE = "resource:debian-6.1-4level.core.gz"
"""A Debian 12 guest with 4 levels, stopped in a user program: its page tables, and nothing else of its memory."""


class Sight(msgspec.Struct, frozen=True):
    """``title`` in a word or two, ``sentence`` for what there is to see."""

    address: int
    title: str
    sentence: str
    access: Access = READ
    cpl: int = 3

    @property
    def query(self) -> Query:
        return Query(self.address, self.access, self.cpl)


def sights() -> tuple[Sight, ...]:
    """All of them, in the user's language; the first is shown at the start."""
    return (
        Sight(
            0x7F56_4230_9ABC,
            translate("Sights", "Write and execute"),
            translate(
                "Sights",
                "This page may be written and executed: every entry on the way has R/W = 1, and none has XD = 1.",
            ),
        ),
        Sight(
            0x7F56_4250_1234,
            translate("Sights", "Huge page"),
            translate(
                "Sights",
                "The walk ends one level early: the PD entry has PS = 1 and maps 2 MiB, so 21 bits of the address "
                "are offset.",
            ),
        ),
        Sight(
            0x7F56_42A0_0000,
            translate("Sights", "PROT_NONE"),
            translate(
                "Sights",
                "P is 0, yet the entry is not empty: Linux keeps the page of a PROT_NONE mapping there, with the bits "
                "of its address inverted.",
            ),
        ),
        Sight(
            0xFFFF_FFFF_FF5F_C000,
            translate("Sights", "Device"),
            translate(
                "Sights",
                "No RAM is behind this page: physical 0xfec0_0000 is the I/O APIC, so the entry has PCD = 1 and "
                "PWT = 1, uncached.",
            ),
            cpl=0,
        ),
        Sight(
            0xFFFF_FFFF_8340_0000,
            translate("Sights", "Kernel text"),
            translate(
                "Sights",
                "The kernel's code is in every program's tables. A user fetch faults, since U/S is 0 in the PDPT and "
                "the PD entry.",
            ),
            FETCH,
        ),
    )


def opening() -> Scenario:
    """The scenario that the program starts with."""
    return Scenario(events=(ev.OpenImage(ev.ImageRef(IMAGE)),))


def is_shown(scenario: Scenario) -> bool:
    """Whether ``scenario`` is about the image that the sights are in."""
    return any(isinstance(event, ev.OpenImage) and event.image.path == IMAGE for event in scenario.events)
