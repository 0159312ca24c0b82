"""The guides name what is there: files, names in them, commands, and pages of help."""

import re

import pytest

from gui.actions import commands
from tests.conftest import ROOT

DOCS = ROOT / "resources" / "docs"
GUIDES = ("user-guide", "developer-guide")
FILE = re.compile(r"`((?:engine|gui|storage|tests|resources|requirements)/[\w./-]+)`")
NAMED_IN = re.compile(r"`(\w+)`(?: and `(\w+)`)? in `([\w./]+\.py)`")


@pytest.mark.parametrize("guide", GUIDES)
def test_every_file_that_a_guide_names_is_there(guide: str) -> None:
    text = (DOCS / f"{guide}.md").read_text(encoding="utf-8")
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not (DOCS / f"{link}.md").is_file()] == []


def test_every_name_is_in_the_file_that_it_is_said_to_be_in() -> None:
    text = (DOCS / "developer-guide.md").read_text(encoding="utf-8")
    found = [(name, file) for *names, file in NAMED_IN.findall(text) for name in names if name]
    assert len(found) >= 7
    assert [(name, file) for name, file in found if name not in (ROOT / file).read_text(encoding="utf-8")] == []


def test_every_make_target_is_one() -> None:
    text = "".join((DOCS / f"{guide}.md").read_text(encoding="utf-8") for guide in GUIDES)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([\w-]+)`", text))
    assert {"bundle", "install", "uninstall", "deb"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_every_key_of_the_user_guide_is_a_command_s() -> None:
    text = (DOCS / "user-guide.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"\b(?:Ctrl|Alt|Shift)\+[\w+]+", text))
    known = {keys for command in commands() for keys in command.shortcuts}
    assert keys
    assert keys <= known
