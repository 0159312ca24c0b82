"""The bundle: complete, and at work on a Debian system without Python, as somebody sits in front of it."""

import ctypes
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import events as ev
from engine.scenario import Scenario
from gui.components import LIST, Component
from gui.sights import IMAGE
from gui.version import VERSION
from storage import files
from storage.content import Content
from tests.packaging.conftest import BARE, System
from tests.packaging.desktop import desktop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(systems: Callable[..., System], bundle: Path) -> System:
    system = systems(*BARE)
    subprocess.run(["cp", "-a", bundle, system.root / "opt"], check=True)
    return system


def use(system: System, program: str) -> None:
    """Open a scenario, walk an address in it, perform the access, save, hand a second file over, and quit."""
    saved, second = system.root / "root" / "guest.wscope", system.root / "root" / "second.wscope"
    for path in (saved, second):
        files.save(Content(scenario=Scenario(events=(ev.OpenImage(ev.ImageRef(IMAGE)),))), str(path))
    (system.root / "run" / "user").mkdir(mode=0o700)
    with desktop() as at:
        seen = {"DISPLAY": at.display, "XDG_RUNTIME_DIR": "/run/user"}
        with system.start(program, "/root/guest.wscope", **seen) as started:
            at.window(r"^guest\.wscope — Walkscope$")
            at.press("ctrl+l")
            at.type("0x401000")
            at.press("Return", "ctrl+Return")
            at.window(r"^guest\.wscope\* — Walkscope$")
            at.press("ctrl+s")
            at.window(r"^guest\.wscope — Walkscope$")
            assert system.run(program, "/root/second.wscope", **seen) == ""
            at.window(r"^second\.wscope — Walkscope$")
            assert started.poll() is None
            at.press("ctrl+q")
            told, _ = started.communicate(timeout=60)
    assert (started.returncode, told) == (0, "")
    _, performed = files.open_file(str(saved)).content.scenario.events
    assert isinstance(performed, ev.AccessMemory)
    assert performed.address == 0x401000


def test_it_starts_opens_walks_saves_and_ends_without_python(bare: System) -> None:
    use(bare, "/opt/walkscope/walkscope")


def test_it_tells_its_version_without_a_display(bare: System) -> None:
    assert bare.run("/opt/walkscope/walkscope", "--version") == f"Walkscope {VERSION}\n"


def test_its_demos_are_recorded_without_a_display(bare: System) -> None:
    told = bare.run("/opt/walkscope/walkscope", "--record", "/root/pictures", "--demo", "four-references")
    assert "8 pictures in /root/pictures" in told


def test_it_is_installed_and_taken_away_there(bare: System) -> None:
    before = bare.files()
    bare.run("/opt/walkscope/install")
    assert bare.run("/usr/local/bin/walkscope", "--version") == f"Walkscope {VERSION}\n"
    bare.run("/usr/local/lib/walkscope/install", "uninstall")
    assert bare.files() == before


def test_no_link_leads_nowhere_and_nothing_is_of_this_machine(bundle: Path) -> None:
    links = [path for path in bundle.rglob("*") if path.is_symlink()]
    assert [path for path in links if not path.exists()] == []
    place = str(Path(__file__).resolve().parents[2]).encode()
    assert [path for path in bundle.rglob("*") if path.is_file() and place in path.read_bytes()] == []


def test_what_nobody_uses_is_not_in_it(bundle: Path) -> None:
    names = {path.name for path in bundle.rglob("*")}
    assert not [name for name in names if re.search(r"(?i)tkinter|Qt6(Qml|Quick|OpenGL|Sql|Designer)|gtk|_ssl", name)]


def test_every_part_has_its_licence(bundle: Path) -> None:
    folder = bundle / "_internal" / "resources" / "licences"
    parts = [Component(**each) for each in json.loads((folder / LIST).read_text())]
    names = {part.name for part in parts}
    assert names >= {"Python", "Qt", "numpy", "SQLAlchemy", "msgspec", "pyinstaller", "libxcb-cursor0"}
    for part in parts:
        text = (folder / part.file).read_text(encoding="utf-8")
        assert part.version
        assert part.licence
        assert len(text) > 200, part.name
        for name in re.findall(r"/usr/share/common-licenses/([A-Z][\w.-]*\w)", text):
            assert (folder / f"{name}.txt").is_file(), f"{part.name} refers to {name}"
    assert (bundle / "LICENSE").is_file()


def test_its_libraries_can_be_loaded(bundle: Path) -> None:
    """What was stripped is not broken: the loader maps each library of ours that needs no other."""
    for name in ("libsqlite3.so.0", "libz.so.1", "libexpat.so.1"):
        assert ctypes.CDLL(str(bundle / "_internal" / name))
