"""A document with something of everything, and the file that a release makes of it.

``python -m tests.storage.fixture FILE.wscope`` was run once for each version in tests/data/wscope. Those files are
never made anew, so that what people have kept for years is what is opened here.
"""

from __future__ import annotations

import sys

from engine import events as ev
from engine.arch.registers import Features, Registers, Vendor
from engine.arch.rights import Kind
from engine.arch.walk import Stage
from engine.demo import Claim, Demo, Entry, Look, Moment, Stop
from engine.host.machine import PcpuSetup
from engine.host.modes import Root, Way
from engine.kvm.memslots import Backing, Pages
from engine.kvm.vm import GuestCpu
from engine.machine import Configuration
from engine.memory.library import Library
from engine.scenario import Scenario
from storage import embedding, files
from storage.content import Bookmark, Content, Note, Pin
from tests.storage.strategies import PNG

IMAGE = "resource:debian-6.1-4level.core.gz"
ADDRESS = 0x40_1B78
EVENTS = (
    ev.OpenImage(ev.ImageRef(IMAGE)),
    ev.ChooseCpu(0),
    ev.AccessMemory(ADDRESS, Kind.FETCH),
    ev.SetRegister("cr2", (1 << 64) - 1),
    ev.Poke(0x1000, 0x8000_0000_0000_0067),
    ev.BootHost(pcpus=(PcpuSetup(features=Features(vendor=Vendor.AMD, maxphyaddr=52)),) * 2, seed=7),
    ev.LoadKvm(),
    ev.CreateVm(),
    ev.SetMemslot(size=64 << 20, backing=Backing(pages=Pages.THP)),
    ev.CreateVcpu(cpuid=GuestCpu(maxphyaddr=48)),
    ev.MapGuestPages(root=0x10_0000, tables=0x10_1000, address=0x7F00_0000_0000, target=0x20_0000, size=0x4000),
    ev.FillGuestPages(0x20_0000, (0x1122_3344_5566_7788, 1 << 63), 0x1000),
    ev.SetGuestRegisters(Registers(cr0=0x8000_0001, cr3=0x10_0000, cr4=0xA0, efer=0xD01, cs_l=True)),
    ev.GuestAccess(0x7F00_0000_0000, Kind.WRITE, 8, 0xDEAD_BEEF),
    ev.ChangeMode(1, True, Way.TRAMPOLINE, Root.REBUILT),
    ev.MoveVcpu(1),
    ev.ZapGuest(),
    ev.GuestAccess(0x7F00_0000_0008, Kind.READ, 4),
)


DEMO_1_0 = Demo(stops=(Stop(3, "A fetch", "Four references, and the page."), Stop(18)))
"""Stops as version 1.0 had them."""
DEMO = Demo(
    "One address", "From a fetch to “five levels”.",
    (
        Stop(
            3, "A fetch", "{references} references, and the page.", beside="inspector",
            look=Look(ADDRESS, Kind.FETCH, 1, 3), reference=1, entry=Entry(Stage.ONE, 4, 0x1000, 511), zoom=250,
            question="How many?", answer="{references}.", notes="Wait.", name="fetch",
            claims=(Claim("references", "=", 4), Claim("reached", "!=", other="address")),
        ),
        Stop(18, "After the change", view="effects", a=Moment(14), b=Moment(17, 1)),
    ),
)  # fmt: skip


def document(demo: Demo = DEMO) -> Content:
    """What version 1.1 can hold; with `DEMO_1_0` what version 1.0 could."""
    scenario = Scenario(Configuration(features=Features(maxphyaddr=46)), EVENTS, demo)
    plain = Content(
        scenario=scenario,
        pins=(Pin("A", 14), Pin("B", 17, 1)),
        bookmarks=(Bookmark("NX", 4, 0x8000_0000_0000_0067, {"view": "inspector", "scale": 1.5}), Bookmark("“è”", 0)),
        notes=(Note(0, "Made with version 1.0.\nKept for ever."), Note(15, "5 levels now")),
        view_state={"docks": {"timeline": [0, 240]}, "theme": "dark", "nothing": None},
        thumbnail=PNG,
    )
    images = Library()
    return embedding.embed(plain, IMAGE, images(ev.ImageRef(IMAGE)), embedding.needed(scenario, images)[IMAGE])


if __name__ == "__main__":
    files.save(document(), sys.argv[1])
