"""The Debian package: of good form, at work on a system with what it depends on, and removed without a trace."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gui.version import VERSION
from resources.packaging.bundle import HERE
from tests.packaging.conftest import System
from tests.packaging.desktop import tool
from tests.packaging.test_bundle import use

pytestmark = pytest.mark.slow
NOT_OF_THE_PACKAGE = ("root/", "run/", "tmp/", "var/lib/dpkg/", "var/log/", "var/cache/")
"""Where the user, running programs and dpkg itself write."""


def field(package: Path, name: str) -> str:
    command = ["dpkg-deb", "--field", str(package), name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_lintian_has_no_complaint(package: Path) -> None:
    command = [tool("lintian"), "--fail-on", "error,warning", "--allow-root", package]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_every_override_gives_its_reason() -> None:
    lines = (HERE / "lintian-overrides").read_text().splitlines()
    assert lines[0].startswith("#")
    assert all(re.match(r"# \S|walkscope: [\w-]+ ", line) for line in lines)


def test_it_holds_no_library_that_debian_has(package: Path) -> None:
    told = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
    assert "libQt6Core.so.6" in told
    assert not re.search(r"_internal/lib(xcb|X11|z|sqlite3|dbus|krb5|systemd|fontconfig)\b.*\.so", told)
    depends = field(package, "Depends")
    for name in ("libc6 ", "libegl1", "libxcb-cursor0", "libsqlite3-0 ", "libdbus-1-3 "):
        assert name in depends
    assert "python" not in depends


def test_it_is_installed_works_and_is_removed_without_a_trace(package: Path, systems: Callable[..., System]) -> None:
    needed = re.sub(r" \([^)]*\)", "", field(package, "Depends")).split(", ")
    system = systems(*needed, "fonts-dejavu-core", "dpkg")
    shutil.copy(package, system.root / "root" / "walkscope.deb")
    before = system.files()
    system.run("dpkg", "--install", "/root/walkscope.deb")
    assert system.run("/usr/bin/walkscope", "--version") == f"Walkscope {VERSION}\n"
    use(system, "/usr/bin/walkscope")
    system.run("dpkg", "--purge", "walkscope")
    left = {name for name in system.files() - before if not name.startswith(NOT_OF_THE_PACKAGE)}
    assert left == set()
