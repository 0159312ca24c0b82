"""The look that everything shares: colours for light and dark, fonts, spacing. Painters name no colour themselves.

Levels have fixed colours everywhere (Okabe-Ito, safe for colour-blind eyes). They are fills and strokes, never text.
"""

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import NamedTuple

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QGuiApplication, QPalette

GRID = 4
"""All distances are multiples of this (device-independent pixels)."""
GAP, PAD, MARGIN = 2 * GRID, 3 * GRID, 4 * GRID
"""Between neighbours, inside a card, around a view."""
RADIUS = 4
"""Of the corners of cards and fields."""


class Outcome(Enum):
    """What becomes of an address where two moments are compared; see `Theme.outcomes`."""

    SAME = "same"
    NOT_PRESENT = "not present"
    RESERVED = "reserved"
    PERMISSION = "permission"
    ANOTHER_PAGE = "another page"
    TABLE_PAGE = "table page"
    HOST_PAGE = "host page"
    OTHER_VM = "another VM's page"
    OUTSIDE_RAM = "not RAM"
    UNKNOWN = "unknown"


class Fill(NamedTuple):
    """A colour and, where colour alone would not tell, the brush laid over it (`Qt.NoBrush`: none)."""

    color: QColor
    hatch: Qt.BrushStyle = Qt.BrushStyle.NoBrush


class Theme(NamedTuple):
    """The colours of one scheme. Text is legible (>= 4.5) on ``window``, ``panel`` and the grounds; ``faint`` not."""

    dark: bool
    window: QColor
    panel: QColor
    line: QColor
    text: QColor
    muted: QColor
    faint: QColor
    accent: QColor
    accent_ground: QColor
    hazard_mark: QColor
    hazard_text: QColor
    hazard_ground: QColor
    levels: tuple[QColor, ...]
    """Fill of each level, 1 .. 5; 0 is the page."""
    outcomes: dict[Outcome, Fill]

    def level(self, level: int) -> QColor:
        """The fill of paging level 1 .. 5, or of the page (0)."""
        return self.levels[level]

    def tint(self, color: QColor, strength: float, ground: QColor | None = None) -> QColor:
        """``color`` laid over ``ground`` (default: the panel) with opacity ``strength``, 0 .. 1."""
        base = self.panel if ground is None else ground
        mixed = (
            round(b + (c - b) * strength)
            for c, b in zip(color.getRgb()[:3], base.getRgb()[:3], strict=True)  # type: ignore[index]
        )
        return QColor(*mixed)


class Scheme(Enum):
    """What the user asked for."""

    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


_LEVELS = tuple(map(QColor, ("#8A8F98", "#E69F00", "#009E73", "#56B4E9", "#3A86C8", "#CC79A7")))
_OUTCOMES = {
    Outcome.SAME: Fill(QColor("#7D93A8")),
    Outcome.NOT_PRESENT: Fill(QColor("#C9CED6"), Qt.BrushStyle.BDiagPattern),
    Outcome.RESERVED: Fill(QColor("#B7A6DE"), Qt.BrushStyle.FDiagPattern),
    Outcome.PERMISSION: Fill(QColor("#E0B84C"), Qt.BrushStyle.HorPattern),
    Outcome.ANOTHER_PAGE: Fill(QColor("#C9847E")),
    Outcome.TABLE_PAGE: Fill(QColor("#B3261E"), Qt.BrushStyle.DiagCrossPattern),
    Outcome.HOST_PAGE: Fill(QColor("#8C2F5A"), Qt.BrushStyle.VerPattern),
    Outcome.OTHER_VM: Fill(QColor("#B0529E"), Qt.BrushStyle.CrossPattern),
    Outcome.OUTSIDE_RAM: Fill(QColor("#4A5058"), Qt.BrushStyle.HorPattern),
    Outcome.UNKNOWN: Fill(QColor("#8A8F98"), Qt.BrushStyle.Dense6Pattern),
}


def _theme(dark: bool, **colors: str) -> Theme:
    return Theme(
        dark=dark, levels=_LEVELS, outcomes=_OUTCOMES, **{name: QColor(value) for name, value in colors.items()}
    )


LIGHT = _theme(
    False,
    window="#F6F6F4",
    panel="#FFFFFF",
    line="#E3E3DF",
    text="#1F2328",
    muted="#5F6670",
    faint="#A3A8B0",
    accent="#2563EB",
    accent_ground="#E8EEFD",
    hazard_mark="#D55E00",
    hazard_text="#A84300",
    hazard_ground="#FCEBDD",
)
DARK = _theme(
    True,
    window="#17191C",
    panel="#1F2226",
    line="#32363B",
    text="#E6E8EA",
    muted="#9AA2AC",
    faint="#6A717A",
    accent="#6EA1FF",
    accent_ground="#253552",
    hazard_mark="#FF8A3D",
    hazard_text="#FFA76B",
    hazard_ground="#46301F",
)


class _Signals(QObject):
    changed = Signal()


_signals: _Signals | None = None
_current = LIGHT


def theme() -> Theme:
    """The theme in use now; ask for it while painting."""
    return _current


def signals() -> _Signals:
    """``signals().changed`` is emitted after another theme or another application font came into use."""
    global _signals
    if _signals is None:
        _signals = _Signals()
    return _signals


def follow(owner: QObject, apply: Callable[[], object]) -> None:
    """Call ``apply`` now and at every change of the theme, as long as ``owner`` lives."""
    connection = signals().changed.connect(apply)
    owner.destroyed.connect(lambda: QObject.disconnect(connection))
    apply()


def use(scheme: Scheme) -> None:
    """Take the light or dark theme, or the one that the desktop prefers. `gui.app` puts it on the application."""
    global _current
    dark = scheme is Scheme.DARK or (scheme is Scheme.SYSTEM and _desktop_is_dark())
    _current = DARK if dark else LIGHT
    _mono.cache_clear()
    signals().changed.emit()


def _desktop_is_dark() -> bool:
    return QGuiApplication.styleHints().colorScheme() is Qt.ColorScheme.Dark


def ui_font(scale: float = 1.0, bold: bool = False) -> QFont:
    """The application's font, ``scale`` times as large."""
    return _scaled(QFont(QGuiApplication.font()), scale, bold)


def mono_font(scale: float = 1.0, bold: bool = False) -> QFont:
    """The face for numbers, at ``scale`` times the size of the application's font."""
    return _mono(QGuiApplication.font().key(), scale, bold)


@cache
def _mono(key: str, scale: float, bold: bool) -> QFont:
    font = QFont(QGuiApplication.font())
    font.setFamilies(["JetBrains Mono", "DejaVu Sans Mono", "Liberation Mono", "monospace"])
    font.setStyleHint(QFont.StyleHint.Monospace)
    font.setFixedPitch(True)
    return _scaled(font, scale * 0.95, bold)


def _scaled(font: QFont, scale: float, bold: bool) -> QFont:
    if font.pointSizeF() > 0:
        font.setPointSizeF(font.pointSizeF() * scale)
    else:
        font.setPixelSize(max(1, round(font.pixelSize() * scale)))
    font.setBold(bold)
    return font


def palette(theme: Theme) -> QPalette:
    """``theme`` for Qt's own widgets in the Fusion style."""
    role, group = QPalette.ColorRole, QPalette.ColorGroup
    colors = {
        role.Window: theme.panel,
        role.WindowText: theme.text,
        role.Base: theme.panel,
        role.AlternateBase: theme.window,
        role.Text: theme.text,
        role.PlaceholderText: theme.muted,
        role.Button: theme.panel,
        role.ButtonText: theme.text,
        role.BrightText: theme.hazard_text,
        role.Highlight: theme.accent_ground,
        role.HighlightedText: theme.text,
        role.Accent: theme.accent,
        role.Link: theme.accent,
        role.LinkVisited: theme.accent,
        role.ToolTipBase: theme.panel,
        role.ToolTipText: theme.text,
        role.Light: theme.panel,
        role.Midlight: theme.line,
        role.Mid: theme.line,
        role.Dark: theme.line,
        role.Shadow: theme.line,
    }
    made = QPalette()
    for name, color in colors.items():
        made.setColor(name, color)
    for name in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
        made.setColor(group.Disabled, name, theme.faint)
    return made
