"""Icons: one style, in the colour of the theme, and none missing or forgotten."""

import re

import pytest
from PySide6.QtGui import QColor, QIcon
from PySide6.QtWidgets import QApplication

from gui import resources
from gui.actions import commands
from gui.icons import APPLICATION_SIZES, application_icon, icon, pixmap
from gui.theme import DARK, LIGHT
from gui.titles import ICONS

FILES = {path.stem: path.read_text() for path in (resources.RESOURCES / "icons").glob("*.svg")}
OF_THE_STYLE_SHEET = {"arrow", "tick-light", "tick-dark"}
"""Have a colour of their own: Qt reads them itself."""
TINTED = FILES.keys() - OF_THE_STYLE_SHEET - {"walkscope"}
IN_CODE = {"close", "float", "pause", "start", "tick"}


def test_every_icon_that_is_named_is_there_and_none_is_left_over() -> None:
    named = {command.icon for command in commands() if command.icon} | ICONS | IN_CODE
    assert named == TINTED
    used = " ".join(path.read_text() for path in (resources.RESOURCES.parent / "gui").rglob("*.py"))
    assert [name for name in IN_CODE if f'"{name}"' not in used] == []


@pytest.mark.parametrize("name", sorted(TINTED))
def test_all_are_of_one_style(name: str) -> None:
    head = re.match(r"<svg [^>]*>", FILES[name])
    assert head is not None
    assert 'viewBox="0 0 24 24"' in head[0]
    assert 'stroke="currentColor"' in head[0]
    assert 'stroke-width="1.75"' in head[0]
    assert set(re.findall(r"#\w{3,6}", FILES[name])) == set()


@pytest.mark.parametrize("color", [LIGHT.text, DARK.text])
def test_it_is_drawn_in_the_colour_asked_for(dressed: QApplication, color: QColor) -> None:
    image = icon("pause", color).pixmap(20, 20).toImage()
    drawn = [image.pixelColor(x, y) for x in range(image.width()) for y in range(image.height())]
    solid = [pixel for pixel in drawn if pixel.alpha() == 255]
    assert solid
    assert {pixel.rgb() for pixel in solid} == {color.rgb()}


def test_a_disabled_icon_is_faint(dressed: QApplication) -> None:
    made = icon("play")
    assert made.pixmap(20, 20, QIcon.Mode.Disabled).toImage() != made.pixmap(20, 20).toImage()


def test_a_picture_is_drawn_once(dressed: QApplication) -> None:
    one, other = pixmap("host", LIGHT.muted, 16), pixmap("host", LIGHT.muted, 16)
    assert one.cacheKey() == other.cacheKey()
    assert pixmap("host", DARK.muted, 16).cacheKey() != one.cacheKey()


def test_no_two_look_alike() -> None:
    drawn = {name: svg.partition(">")[2] for name, svg in FILES.items() if name in TINTED}
    assert len(set(drawn.values())) == len(drawn)


def test_the_application_has_an_icon_in_every_size_that_desktops_ask_for(dressed: QApplication) -> None:
    assert {size.width() for size in application_icon().availableSizes()} == set(APPLICATION_SIZES)
    for side in APPLICATION_SIZES:
        assert not application_icon().pixmap(side, side).toImage().allGray()
