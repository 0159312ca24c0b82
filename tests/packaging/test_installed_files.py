"""What desktops want to know is valid and true; it is put where they look for it, and taken away without a trace."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from gui import components
from gui.icons import APPLICATION_SIZES
from gui.version import VERSION
from resources.packaging import bundle
from resources.packaging.bundle import HERE, ID
from storage import files
from storage.content import Content
from storage.schema import APPLICATION_ID
from tests.packaging.desktop import tool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the desktop files are those of Linux")
ENTRY, METAINFO = HERE / f"{ID}.desktop", HERE / f"{ID}.metainfo.xml"


@pytest.fixture
def made(tmp_path: Path, qapp: QApplication) -> Path:
    """A bundle with a program that does nothing."""
    folder = tmp_path / "made" / "walkscope"
    (folder / "_internal").mkdir(parents=True)
    (folder / "_internal" / "library.so").write_bytes(b"\x7fELF")
    (folder / "walkscope").write_text("#!/bin/sh\n")
    (folder / "walkscope").chmod(0o755)
    bundle.share(folder / "share")
    (folder / "install").write_bytes((HERE / "install").read_bytes())
    (folder / "install").chmod(0o755)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a folder and a file of somebody else's where the program goes."""
    applications = tmp_path / "home" / ".local" / "share" / "applications"
    applications.mkdir(parents=True)
    (applications / "other.desktop").write_text("[Desktop Entry]\nType=Application\nName=Other\nExec=true\n")
    return tmp_path / "home"


def everything(folder: Path) -> dict[str, bytes]:
    """All files and folders below ``folder``, with their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in folder.rglob("*")
    }


def run(made: Path, *words: str, prefix: Path | str, **environment: str) -> str:
    """The script's word about installing into ``prefix``."""
    own = {"PREFIX": str(prefix)} | environment
    ended = subprocess.run(
        [made / "install", *words], env=os.environ | own, capture_output=True, text=True, check=False, cwd="/"
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def asked(home: Path, *words: str) -> str:
    """What a command of the desktop says to a user whose home is ``home``."""
    own = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CURRENT_DESKTOP": "X-Generic",
    }
    ended = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, check=False)
    return (ended.stdout + ended.stderr).strip()


# --- what is in them


def test_the_entry_of_the_menu_is_valid() -> None:
    ended = subprocess.run([tool("desktop-file-validate"), ENTRY], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_what_software_centres_show_is_valid() -> None:
    command = [tool("appstreamcli"), "validate", "--no-net", METAINFO]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_manual_page_is_well_formed() -> None:
    command = [tool("man"), "--warnings", "-l", str(HERE / "walkscope.1")]
    ended = subprocess.run(command, env=os.environ | {"MANWIDTH": "80"}, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "walkscope [FILE...]" in ended.stdout


def test_they_name_the_version_and_the_window_of_the_program(qapp: QApplication) -> None:
    assert f'<release version="{VERSION}"' in METAINFO.read_text()
    assert f"<id>{ID}</id>" in METAINFO.read_text()
    code = "from gui import app; print(app.create_application(['walkscope']).desktopFileName())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == f"{ID}\n"


def test_the_magic_of_our_files_is_what_is_written_into_them(tmp_path: Path) -> None:
    rules = re.findall(r'offset="(\d+)" value="([^"]+)"', (HERE / "walkscope-mime.xml").read_text())
    files.save(Content(), str(tmp_path / "empty.wscope"))
    data = (tmp_path / "empty.wscope").read_bytes()
    for offset, value in rules:
        wanted = value.replace("\\0", "\0").encode()
        assert data[int(offset) :].startswith(wanted)
    assert APPLICATION_ID.to_bytes(4, "big").decode() in dict(rules).values()


def test_there_is_an_icon_of_every_size(made: Path) -> None:
    icons = made / "share" / "icons" / "hicolor"
    for side in APPLICATION_SIZES:
        for name in ("apps/walkscope", "mimetypes/application-x-walkscope"):
            assert QImage(str(icons / f"{side}x{side}" / f"{name}.png")).width() == side
    assert (icons / "scalable" / "apps" / "walkscope.svg").is_file()


# --- putting them there, and taking them away


def test_a_user_finds_the_program_and_uninstalling_leaves_nothing(made: Path, home: Path) -> None:
    before, local = everything(home), home / ".local"
    run(made, prefix=local)
    program = local / "bin" / "walkscope"
    assert program.resolve() == (local / "lib" / "walkscope" / "walkscope").resolve()
    assert os.access(program, os.X_OK)
    entry = (local / "share" / "applications" / ENTRY.name).read_text()
    assert f"Exec={program} %F\n" in entry
    assert (local / "share" / "man" / "man1" / "walkscope.1").is_file()
    assert not (local / "lib" / "walkscope" / "share").exists(), "nothing is there twice"
    run(local / "lib" / "walkscope", "uninstall", prefix=local)
    after = everything(home)
    after.pop(".local/share/applications/mimeinfo.cache", None)  # of the desktop, about the other program
    assert after == before


def test_installing_again_replaces_what_was_there(made: Path, home: Path) -> None:
    local = home / ".local"
    run(made, prefix=local)
    first = everything(home)
    (made / "_internal" / "library.so").rename(made / "_internal" / "newer.so")
    run(made, prefix=local)
    second = everything(home)
    assert first.keys() - second.keys() == {".local/lib/walkscope/_internal/library.so"}
    assert second.keys() - first.keys() == {".local/lib/walkscope/_internal/newer.so"}


def test_a_folder_that_will_be_a_system_gets_files_and_nothing_else(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    run(made, prefix="/usr", DESTDIR=str(root))
    assert (root / "usr" / "bin" / "walkscope").readlink() == Path("../lib/walkscope/walkscope")
    entry = (root / "usr" / "share" / "applications" / ENTRY.name).read_text()
    assert "Exec=/usr/bin/walkscope %F\n" in entry
    assert not list(root.rglob("mimeinfo.cache"))
    assert not (root / "usr" / "share" / "mime" / "mime.cache").exists()
    assert str(root) not in (root / "usr" / "lib" / "walkscope" / "installed").read_text()
    run(made, "uninstall", prefix="/usr", DESTDIR=str(root))
    assert everything(root) == {}


def test_what_is_there_and_not_ours_is_left_alone(made: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "prefix" / "lib" / "walkscope"
    theirs.mkdir(parents=True)
    environment = os.environ | {"PREFIX": str(tmp_path / "prefix")}
    for words, told in (([], "not by this script"), (["uninstall"], "nothing to take away")):
        ended = subprocess.run([made / "install", *words], env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert told in ended.stderr
    assert theirs.is_dir()


@pytest.mark.parametrize(
    ("prefix", "told"), [("relative", "must begin with /"), ("/with a space", "would not understand")]
)
def test_a_place_that_cannot_be_named_is_a_sentence(made: Path, prefix: str, told: str) -> None:
    environment = os.environ | {"PREFIX": prefix}
    ended = subprocess.run([made / "install"], env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert ended.returncode == 1
    assert told in ended.stderr


def test_the_desktop_knows_our_files_and_who_opens_them(made: Path, home: Path, tmp_path: Path) -> None:
    for name in ("update-mime-database", "update-desktop-database", "mimetype"):
        tool(name)
    run(made, prefix=home / ".local")
    named, nameless = tmp_path / "one.wscope", tmp_path / "nameless"
    files.save(Content(), str(named))
    nameless.write_bytes(named.read_bytes())
    assert asked(home, tool("xdg-mime"), "query", "filetype", str(named)) == "application/x-walkscope"
    assert asked(home, tool("xdg-mime"), "query", "default", "application/x-walkscope") == ENTRY.name
    code = (
        "import sys; from PySide6.QtCore import QMimeDatabase;"
        "print(*(QMimeDatabase().mimeTypeForFile(name).name() for name in sys.argv[1:]))"
    )
    told = asked(home, sys.executable, "-c", code, str(named), str(nameless))
    assert told == "application/x-walkscope application/x-walkscope"
    run(home / ".local" / "lib" / "walkscope", "uninstall", prefix=home / ".local")
    assert asked(home, tool("xdg-mime"), "query", "default", "application/x-walkscope") == ""


# --- licences


def test_every_part_that_is_declared_tells_version_and_licence() -> None:
    found = {each.name: each for each in components.components()}
    assert found.keys() >= {"Python", "Qt", "numpy", "pyqtgraph", "SQLAlchemy", "msgspec", "PySide6_Essentials"}
    for each in found.values():
        assert each.version
        assert each.licence
        if each.name != "Qt" and each.licence != found["Qt"].licence:
            assert len(components.text(each)) > 200, each.name
