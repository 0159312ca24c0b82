"""What the program is made of, with versions and licences, as the packages say it themselves.

A bundle has its list and the texts in resources/licences, written by resources/packaging; where it runs from a
checkout, both are read from what is installed.
"""

import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import msgspec
from PySide6.QtCore import qVersion

from gui.resources import RESOURCES

FOLDER = RESOURCES / "licences"
LIST = "components.json"
OURS = ("PySide6-Essentials", "pyqtgraph", "numpy", "SQLAlchemy", "msgspec")
"""The distributions that pyproject.toml declares."""
LONGEST = 100
"""Letters of a name of a licence; what is longer is the licence itself."""


class Component(msgspec.Struct, frozen=True, order=True):
    """``licence``: by its SPDX name, where the package says it."""

    name: str
    version: str
    licence: str

    @property
    def file(self) -> str:
        """The name of the file with its licence, in a bundle."""
        return re.sub(r"[^\w.+-]", "-", self.name) + ".txt"


def components() -> tuple[Component, ...]:
    """All of them but Walkscope, by name."""
    listed = FOLDER / LIST
    if listed.is_file():
        return msgspec.json.decode(listed.read_bytes(), type=tuple[Component, ...])
    found = [python(), qt(), *(of_distribution(each) for each in installed(OURS))]
    return tuple(sorted(found, key=lambda each: each.name.lower()))


def text(component: Component) -> str:
    """The licence of ``component``; '' where its package holds none."""
    if FOLDER.is_dir():
        return (FOLDER / component.file).read_text(encoding="utf-8")
    if component == python():
        return python_text()
    try:
        return distribution_text(distribution(component.name))
    except PackageNotFoundError:
        return ""


def python() -> Component:
    return Component("Python", platform.python_version(), "PSF-2.0")


def qt() -> Component:
    """Qt comes in the packages of PySide6, and has their licence."""
    return Component("Qt", qVersion(), of_distribution(distribution("PySide6-Essentials")).licence)


def python_text() -> str:
    """Python's licence, which lies where whoever built it wanted it."""
    debians = Path("/usr/share/doc") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "copyright"
    places = (Path(os.__file__).with_name("LICENSE.txt"), Path(sys.base_prefix) / "LICENSE.txt", debians)
    return next((path.read_text(encoding="utf-8") for path in places if path.is_file()), "")


def installed(names: Iterable[str]) -> list[Distribution]:
    """The distributions ``names`` and those that they need, each once."""
    found: dict[str, Distribution] = {}
    ahead = list(names)
    while ahead:
        try:
            one = distribution(ahead.pop(0))
        except PackageNotFoundError:
            continue  # needed on other systems only
        if one.metadata["Name"] not in found:
            found[one.metadata["Name"]] = one
            needed = [line for line in one.requires or [] if "extra ==" not in line]
            ahead += [match[0] for line in needed if (match := re.match(r"[\w.-]+", line))]
    return list(found.values())


def of_distribution(one: Distribution) -> Component:
    """Name, version and licence from the package's metadata."""
    about = one.metadata
    told = [*about.get_all("License-Expression", []), *about.get_all("License", [])]
    classes = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License")]
    named = next((name for name in told if len(name) <= LONGEST), ", ".join(classes))
    return Component(about["Name"], about["Version"], named)


def distribution_text(one: Distribution) -> str:
    """All licences that the package holds, each under its file's name where there are several."""
    files = [file for file in one.files or [] if _is_licence(file.parts)]
    texts = {"/".join(file.parts[2:] or file.parts[1:]): file.read_text(encoding="utf-8").strip() for file in files}
    if len(texts) == 1:
        return next(iter(texts.values())) + "\n"
    return "\n\n".join(f"{name}\n{'=' * len(name)}\n\n{each}" for name, each in sorted(texts.items()))


def _is_licence(parts: tuple[str, ...]) -> bool:
    in_metadata = parts[0].endswith(".dist-info")
    return in_metadata and bool(re.match(r"(?i)(licen[sc]e|copying|authors|notice)", parts[1]))
