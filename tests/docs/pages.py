"""The pages of resources/docs that hold computed figures: each a template with fields, or a report as a whole.

A template is the page with ``{name}`` where a figure or a table stands; what computes them gives each name its text.
Nothing else in a page is computed, and no figure is typed.
"""

import string
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.conftest import ROOT
from tests.docs import amd_report, host_mode, linux_guest, mirroring

FOLDER = ROOT / "resources" / "docs"
TEMPLATES = Path(__file__).parent / "templates"
Fields = Callable[[], dict[str, str]]


class Page(msgspec.Struct, frozen=True):
    """``name``: of the file, and of its template. ``needs``: a file that it is computed from and that may be absent."""

    name: str
    fields: Fields
    needs: Path | None = None

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    @property
    def is_possible(self) -> bool:
        return self.needs is None or self.needs.exists()

    def render(self, given: dict[str, str] | None = None) -> str:
        """The page as it is computed now, or with the fields ``given``.

        Raises KeyError where the template has a field that nobody gives, and ValueError where it lacks one.
        """
        template = (TEMPLATES / self.name).read_text(encoding="utf-8")
        fields = self.fields() if given is None else given
        wanted = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        if unused := fields.keys() - wanted:
            raise ValueError(f"{self.name} has no place for {', '.join(sorted(unused))}")
        return template.format_map(fields)


PAGES = (
    Page("effects-on-a-linux-guest.md", linux_guest.fields, linux_guest.IMAGE),
    Page("host-mode-after-kvm-init.md", host_mode.fields),
    Page("mirroring-l1.md", mirroring.fields),
    Page("report-amd-4-to-5.txt", amd_report.fields),
)
