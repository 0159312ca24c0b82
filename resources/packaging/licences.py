"""The licences of everything in a bundle: each file is traced to the package that it came from; none is left over."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution, distributions, packages_distributions
from pathlib import Path
from typing import NamedTuple

import msgspec

from gui import components
from gui.components import Component

DEBIANS = "/usr/share/common-licenses"
COMMON = Path(os.environ.get("LICENCES", DEBIANS))
"""Licences that packages refer to instead of repeating them, each in a file named as Debian names it."""
OUR_MODULES = {"engine", "gui", "storage"}
QT_DISTRIBUTIONS = {"PySide6_Essentials", "shiboken6"}
QT_TERMS = """{name} is used under the GNU Lesser General Public License, version 3, whose text is in LGPL-3.txt and
GPL-3.txt beside this file. Its libraries lie in the program's folder, in files of their own, and may be replaced by
others that work with the program. Its source code: https://www.qt.io/download-open-source. What third parties
contributed to it, and on which terms: https://doc.qt.io/qt-6/licenses-used-in-qt.html.
"""


class Sources(NamedTuple):
    """What is in a bundle: where each binary file was taken from, and the top-level names of the modules."""

    binaries: dict[str, Path]
    modules: list[str]


class Licensed(NamedTuple):
    component: Component
    text: str


def write_licences(sources: Sources, folder: Path) -> None:
    """A file for each component, one of the list that About shows, and the texts that they refer to."""
    folder.mkdir()
    found = {each.component.name: each for each in _all(sources)}
    parts = sorted((each.component for each in found.values()), key=lambda each: each.name.lower())
    (folder / components.LIST).write_bytes(msgspec.json.format(msgspec.json.encode(parts), indent=1))
    for component, text in found.values():
        if not text:
            raise SystemExit(f"walkscope: {component.name} comes without the text of its licence; nothing was bundled.")
        (folder / component.file).write_text(text, encoding="utf-8")
    texts = " ".join(each.text for each in found.values())
    for name in {"LGPL-3", "GPL-3", *re.findall(rf"{DEBIANS}/([A-Z][\w.-]*\w)", texts)}:
        if not (COMMON / name).is_file():
            raise SystemExit(f"walkscope: {COMMON} has no {name}; name a folder with the licences' texts in LICENCES.")
        shutil.copyfile(COMMON / name, folder / f"{name}.txt")


def _all(sources: Sources) -> Iterable[Licensed]:
    yield Licensed(components.python(), components.python_text())
    yield Licensed(components.qt(), QT_TERMS.format(name="Qt"))
    yield _of_distribution(distribution("pyinstaller"))  # whose starter the program file begins with
    owners = _owners()
    for path in sources.binaries.values():
        yield from _of_file(path, owners)
    by_module = packages_distributions()
    for module in sources.modules:
        if module not in sys.stdlib_module_names and module not in OUR_MODULES:
            yield from (_of_distribution(distribution(name)) for name in by_module.get(module, []))


def _owners() -> dict[Path, Distribution]:
    return {Path(str(one.locate_file(file))).resolve(): one for one in distributions() for file in one.files or []}


def _of_file(path: Path, owners: dict[Path, Distribution]) -> Iterable[Licensed]:
    real = path.resolve()
    if real in owners:
        yield _of_distribution(owners[real])
    elif is_of_system(path):
        yield _of_system(real)


def is_of_system(path: Path) -> bool:
    """Whether a file came neither with a package nor with Python: it is a library of the system."""
    real = path.resolve()
    is_of_package = real.is_relative_to(Path(sys.prefix).resolve())
    return not is_of_package and not is_of_python(real)


def is_of_python(real: Path) -> bool:
    """Debian's Python lies among everything else, so its prefix says nothing."""
    return real.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve()) or real.name.startswith("libpython3")


def _of_distribution(one: Distribution) -> Licensed:
    component = components.of_distribution(one)
    if component.name in QT_DISTRIBUTIONS:
        return Licensed(component, QT_TERMS.format(name=component.name))
    return Licensed(component, components.distribution_text(one))


def _of_system(path: Path) -> Licensed:
    """A library of the system's package manager, and what that says about it."""
    names = [str(path), str(path).removeprefix("/usr")]  # the same place on a system of today
    if shutil.which("dpkg-query") is None:
        raise SystemExit(f"walkscope: only Debian tells whose {path} is, and so its licence; nothing was bundled.")
    told = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False).stdout
    if not told:
        raise SystemExit(f"walkscope: no package knows {path}, so its licence is not known; nothing was bundled.")
    package = told.partition(":")[0]
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    version = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    text = Path(f"/usr/share/doc/{package}/copyright").read_text(encoding="utf-8")
    named = sorted(set(re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE)))
    return Licensed(Component(package, version, ", ".join(named) or "as its text says"), text)
