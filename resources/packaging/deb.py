"""``make deb``: a Debian package of the bundle, in build/. What Debian has packages of itself is left to them."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gui import components
from gui.version import VERSION
from resources.packaging.bundle import BUNDLE, HERE, ROOT, sources
from resources.packaging.licences import Sources, is_of_system, write_licences

TREE = ROOT / "build" / "deb" / "tree"
PROGRAM = TREE / "usr" / "lib" / "walkscope"
LICENCES = PROGRAM / "_internal" / "resources" / "licences"
MAINTAINER = "Walkscope authors <authors@walkscope.invalid>"
DATE = "Wed, 25 Nov 2026 00:00:00 +0000"
CONTROL = f"""Package: walkscope
Version: {VERSION}
Architecture: {{architecture}}
Maintainer: {MAINTAINER}
Installed-Size: {{size}}
Depends: {{depends}}
Recommends: fonts-dejavu-core, shared-mime-info, xdg-desktop-portal
Section: devel
Priority: optional
Description: explorer of x86 page tables, in memory images and under KVM
 Walkscope shows what x86 processors and KVM do with page tables: every memory
 reference of a translation, in order, with the entry that was found, the rule
 that was applied, and the fault with its error code bit by bit.
 .
 It reads real memory images, and it replays what a host, KVM and a guest
 write into theirs.
"""
COPYRIGHT = """Walkscope, copyright 2026 the Walkscope authors

{licence}
This package also holds the programs and libraries that Walkscope is made with. Their licences, each in a file of its
own, are in /usr/lib/walkscope/_internal/resources/licences. They are:

{parts}

On Debian systems, the complete text of the GNU Lesser General Public License, version 3, can be found in
/usr/share/common-licenses/LGPL-3.
"""
CHANGELOG = f"""walkscope ({VERSION}) unstable; urgency=medium

  * What changed is told in changelog.gz.

 -- {MAINTAINER}  {DATE}
"""


def install() -> None:
    """The bundle as it is installed, without what only `install` needs."""
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    environment = os.environ | {"DESTDIR": str(TREE), "PREFIX": "/usr"}
    subprocess.run([BUNDLE / "install"], env=environment, check=True, stdout=subprocess.DEVNULL)
    for name in ("install", "installed", "LICENSE"):
        (PROGRAM / name).unlink()


def leave_to_debian(made: Sources) -> Sources:
    """Take away the libraries that Debian's packages have; what is left."""
    own = {name: source for name, source in made.binaries.items() if not is_of_system(source)}
    for name in made.binaries.keys() - own.keys():
        (PROGRAM / "_internal" / name).unlink()
    for name in own:
        (PROGRAM / "_internal" / name).chmod(0o644)
    shutil.rmtree(LICENCES)
    left = Sources(own, made.modules)
    write_licences(left, LICENCES)
    return left


def depends(left: Sources) -> str:
    """The packages with the libraries that those in the package need."""
    folder = TREE.parent / "shlibdeps"
    (folder / "debian").mkdir(parents=True, exist_ok=True)
    (folder / "debian" / "control").write_text("Source: walkscope\n\nPackage: walkscope\nArchitecture: any\n")
    internal = PROGRAM / "_internal"
    files = [PROGRAM / "walkscope", *(internal / name for name in left.binaries)]
    private = sorted({path.parent for path in files})
    command = ["dpkg-shlibdeps", "-O", "--ignore-missing-info", *(f"-l{path}" for path in private), *map(str, files)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return ended.stdout.strip().partition("=")[2]


def documents() -> None:
    """What Debian's policy wants to be said about a package."""
    folder = TREE / "usr" / "share" / "doc" / "walkscope"
    folder.mkdir(parents=True)
    parts = "\n".join(f"  {each.name} {each.version}: {each.licence}" for each in _parts())
    text = COPYRIGHT.format(licence=(ROOT / "LICENSE").read_text(encoding="utf-8"), parts=parts)
    (folder / "copyright").write_text(text, encoding="utf-8")
    _gzip(folder / "changelog.Debian.gz", CHANGELOG.encode())
    _gzip(folder / "changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())
    page = TREE / "usr" / "share" / "man" / "man1" / "walkscope.1"
    _gzip(page.with_name(f"{page.name}.gz"), page.read_bytes())
    page.unlink()
    overrides = TREE / "usr" / "share" / "lintian" / "overrides" / "walkscope"
    overrides.parent.mkdir(parents=True)
    shutil.copyfile(HERE / "lintian-overrides", overrides)


def _parts() -> list[components.Component]:
    import msgspec

    return msgspec.json.decode((LICENCES / components.LIST).read_bytes(), type=list[components.Component])


def _gzip(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, 9, mtime=0))


def pack(needed: str) -> Path:
    """Write the package's own description of itself, and pack it."""
    files = sorted(path for path in TREE.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(path.stat().st_size for path in files) >> 10
    about = TREE / "DEBIAN"
    about.mkdir()
    query = ["dpkg", "--print-architecture"]
    architecture = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    control = CONTROL.format(architecture=architecture, size=size, depends=needed)
    (about / "control").write_text(control, encoding="utf-8")
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(TREE)}\n" for path in files]
    (about / "md5sums").write_text("".join(sums), encoding="utf-8")
    target = ROOT / "build" / f"walkscope_{VERSION}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", TREE, target], check=True, stdout=subprocess.DEVNULL
    )
    return target


def main() -> int:
    install()
    needed = depends(leave_to_debian(sources()))
    documents()
    package = pack(needed)
    print(f"{package.relative_to(ROOT)}: {package.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
