"""``make bundle``: the program as a folder that needs no Python (step ``folder``), and that packed (step ``archive``).

Both are put into build/.

PyInstaller puts Python, Qt and the program together (walkscope.spec); licences, icons and what desktops want to know
are added here. Linux, macOS and Windows each make their own.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from PySide6.QtGui import QGuiApplication

from gui.icons import APPLICATION_SIZES, application_pixmap
from gui.version import VERSION
from resources.packaging.licences import Sources, write_licences

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "bundle"
BUNDLE = WORK / "walkscope"
ID = "org.walkscope.Walkscope"
SHARED = {
    f"{ID}.desktop": "applications",
    f"{ID}.metainfo.xml": "metainfo",
    "walkscope-mime.xml": "mime/packages/walkscope.xml",
    "walkscope.1": "man/man1",
}
"""Where below share/ each file of this folder goes."""
KEPT_WHOLE = {"numpy", "PySide6", "shiboken6"}
"""Whose libraries stay as they are: they were changed after they were linked, and break when they are stripped."""


def freeze() -> Sources:
    """Make the folder anew; what is in it, and where that came from."""
    options = ["--noconfirm", "--log-level", "ERROR", "--distpath", str(WORK), "--workpath", str(WORK / "work")]
    subprocess.run([sys.executable, "-m", "PyInstaller", *options, str(HERE / "walkscope.spec")], cwd=ROOT, check=True)
    return sources()


def sources() -> Sources:
    """What is in the folder that was made last."""
    found = json.loads((WORK / "work" / "walkscope" / "sources.json").read_text(encoding="utf-8"))
    return Sources({name: Path(source) for name, source in found["binaries"].items()}, found["modules"])


def strip(made: Sources) -> None:
    """Take out of the libraries what only a debugger reads, and where this machine would look for others."""
    if sys.platform != "linux":
        return
    for name in made.binaries:
        if Path(name).parts[0].partition(".")[0] not in KEPT_WHOLE:
            path = BUNDLE / "_internal" / name
            subprocess.run(["strip", "--strip-unneeded", path], check=True)
            subprocess.run(["chrpath", "--delete", path], check=True, stdout=subprocess.DEVNULL)


def share(folder: Path) -> None:
    """What Linux desktops want to know: the menu's entry, icons, the type of our files, and a manual page."""
    for name, place in SHARED.items():
        target = folder / place if Path(place).suffix else folder / place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / name, target)
    icons = folder / "icons" / "hicolor"
    for side in APPLICATION_SIZES:
        for target in ("apps/walkscope.png", "mimetypes/application-x-walkscope.png"):
            path = icons / f"{side}x{side}" / target
            path.parent.mkdir(parents=True, exist_ok=True)
            assert application_pixmap(side).save(str(path))
    for target in ("apps/walkscope.svg", "mimetypes/application-x-walkscope.svg"):
        path = icons / "scalable" / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "resources" / "icons" / "walkscope.svg", path)


def archive() -> Path:
    """Pack the folder as its system likes it."""
    name = f"walkscope-{VERSION}-{sysconfig.get_platform()}"
    kind = "zip" if sys.platform == "win32" else "xztar"
    return Path(shutil.make_archive(str(ROOT / "build" / name), kind, WORK, BUNDLE.name))


def tell(path: Path) -> None:
    """What was made, and how large it is."""
    files = [path, *path.rglob("*")]
    print(f"{path.relative_to(ROOT)}: {sum(each.lstat().st_size for each in files) / 1e6:.0f} MB")


def folder() -> Path:
    QGuiApplication(["bundle", "-platform", "offscreen"])
    made = freeze()
    strip(made)
    write_licences(made, BUNDLE / "_internal" / "resources" / "licences")
    shutil.copyfile(ROOT / "LICENSE", BUNDLE / "LICENSE")
    if sys.platform == "linux":
        share(BUNDLE / "share")
        shutil.copy(HERE / "install", BUNDLE / "install")
    return BUNDLE


if __name__ == "__main__":
    steps = {"folder": folder, "archive": archive}
    for step in sys.argv[1:] or steps:
        tell(steps[step]())
