"""``make bundle``: the program as a folder that needs no Python, and the archive of it, in build/.

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


def freeze() -> Sources:
    """Make the folder anew; what is in it, and where that came from."""
    options = ["--noconfirm", "--log-level", "ERROR", "--distpath", str(WORK), "--workpath", str(WORK / "work")]
    subprocess.run([sys.executable, "-m", "PyInstaller", *options, str(HERE / "walkscope.spec")], cwd=ROOT, check=True)
    found = json.loads((WORK / "work" / "walkscope" / "sources.json").read_text(encoding="utf-8"))
    return Sources({name: Path(source) for name, source in found["binaries"].items()}, found["modules"])


def strip(sources: Sources) -> None:
    """Take the debugger's data out of Python's own libraries. Those of packages stay as they are: numpy's would break."""
    tool = shutil.which("strip")
    if tool is None or sys.platform != "linux":
        return
    for name, source in sources.binaries.items():
        if source.is_relative_to(sys.base_prefix):
            subprocess.run([tool, "--strip-unneeded", str(BUNDLE / "_internal" / name)], check=True)


def share(folder: Path) -> None:
    """What Linux desktops want to know: the menu's entry, icons, the type of our files, and a manual page."""
    for name, place in SHARED.items():
        target = folder / place if Path(place).suffix else folder / place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / name, target)
    icons = folder / "icons" / "hicolor"
    for side in APPLICATION_SIZES:
        for target in (f"apps/walkscope.png", f"mimetypes/application-x-walkscope.png"):
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


def main() -> int:
    QGuiApplication(["bundle", "-platform", "offscreen"])
    sources = freeze()
    strip(sources)
    write_licences(sources, BUNDLE / "_internal" / "resources" / "licences")
    shutil.copyfile(ROOT / "LICENSE", BUNDLE / "LICENSE")
    if sys.platform == "linux":
        share(BUNDLE / "share")
        shutil.copy(HERE / "install", BUNDLE / "install")
    packed = archive()
    size = sum(path.lstat().st_size for path in BUNDLE.rglob("*"))
    print(f"{BUNDLE.relative_to(ROOT)}: {size / 1e6:.0f} MB; {packed.relative_to(ROOT)}: {packed.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
