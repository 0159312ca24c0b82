"""Where the program's own files lie: icons, styles, pages of help."""

from pathlib import Path

RESOURCES = Path(__file__).resolve().parent.parent / "resources"


def text(*names: str) -> str:
    """The text of ``resources/NAME/NAME...``."""
    return RESOURCES.joinpath(*names).read_text(encoding="utf-8")
