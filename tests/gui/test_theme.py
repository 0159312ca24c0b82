"""The look: legible in both schemes, switched at once, and remembered."""

from itertools import product

import pytest
from PySide6.QtCore import QSettings
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication

from gui import theme as look
from gui.main_window import MainWindow
from gui.settings import Appearance
from gui.theme import DARK, LIGHT, Outcome, Scheme, Theme, theme


def luminance(color: QColor) -> float:
    parts = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color.getRgbF()[:3])
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: QColor, other: QColor) -> float:
    """As WCAG 2 defines it, 1 .. 21."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("t", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_legible_on_every_ground(t: Theme) -> None:
    grounds = {"window": t.window, "panel": t.panel, "accent ground": t.accent_ground}
    inks = {"text": t.text, "muted": t.muted}
    pairs = {(a, b): contrast(inks[a], grounds[b]) for a, b in product(inks, grounds)}
    pairs["hazard", "panel"] = contrast(t.hazard_text, t.panel)
    pairs["hazard", "its ground"] = contrast(t.hazard_text, t.hazard_ground)
    pairs["text", "hazard ground"] = contrast(t.text, t.hazard_ground)
    assert {pair: round(value, 2) for pair, value in pairs.items() if value < 4.5} == {}


@pytest.mark.parametrize("t", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_that_carry_meaning_stand_out(t: Theme) -> None:
    assert contrast(t.accent, t.panel) >= 3
    assert contrast(t.hazard_mark, t.panel) >= 3


def test_what_could_be_confused_is_hatched() -> None:
    assert set(LIGHT.outcomes) == set(Outcome)
    plain = [outcome for outcome, fill in LIGHT.outcomes.items() if not fill.hatch.value]
    assert plain == [Outcome.SAME, Outcome.ANOTHER_PAGE]


def test_the_schemes_can_be_switched_and_are_remembered(window: MainWindow, settings: QSettings) -> None:
    window.actions_["scheme-dark"].trigger()
    assert theme() is DARK
    assert QApplication.palette().color(QPalette.ColorRole.Window) == DARK.panel
    assert window.actions_["scheme-dark"].isChecked()
    assert Appearance(settings).scheme is Scheme.DARK
    window.actions_["scheme-light"].trigger()
    assert theme() is LIGHT
    assert QApplication.palette().color(QPalette.ColorRole.Window) == LIGHT.panel


def test_text_grows_and_the_numbers_with_it(window: MainWindow) -> None:
    before, numbers = QApplication.font().pointSizeF(), look.mono_font().pointSizeF()
    window.actions_["larger-text"].trigger()
    assert QApplication.font().pointSizeF() == pytest.approx(before * 1.1)
    assert look.mono_font().pointSizeF() == pytest.approx(numbers * 1.1)
    window.actions_["normal-text"].trigger()
    assert QApplication.font().pointSizeF() == pytest.approx(before)


@pytest.mark.parametrize("stored", ["nonsense", "99", "-99", ""])
def test_damaged_settings_do_no_harm(settings: QSettings, stored: str) -> None:
    settings.setValue("look/text", stored)
    settings.setValue("look/scheme", stored)
    appearance = Appearance(settings)
    assert appearance.scheme is Scheme.SYSTEM
    assert -4 <= appearance.steps <= 8
