"""What the user chose about looks, kept between starts: colours, and the size of text."""

from PySide6.QtCore import QSettings
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QApplication

from gui import theme
from gui.theme import Scheme

_SCHEME, _SCALE = "look/scheme", "look/text"
_FACTOR = "textFactor"
STEP, LEAST, MOST = 1.1, -4, 8
"""Each step makes text so many times as large; the least and the most of them."""


class Appearance:
    def __init__(self, settings: QSettings) -> None:
        self._settings = settings

    @property
    def scheme(self) -> Scheme:
        stored = self._settings.value(_SCHEME, Scheme.SYSTEM.value)
        return next((scheme for scheme in Scheme if scheme.value == stored), Scheme.SYSTEM)

    def use_scheme(self, scheme: Scheme) -> None:
        self._settings.setValue(_SCHEME, scheme.value)
        theme.use(scheme)

    @property
    def steps(self) -> int:
        """How many steps larger text is than the desktop has it."""
        stored = str(self._settings.value(_SCALE, 0))
        return max(LEAST, min(int(stored), MOST)) if stored.lstrip("-").isdecimal() else 0

    def scale_text(self, by: int) -> None:
        """``by`` steps larger; 0: back to what the desktop has."""
        self._settings.setValue(_SCALE, max(LEAST, min(self.steps + by, MOST)) if by else 0)
        self.apply()

    def enlarge(self, factor: float) -> None:
        """All text so many times as large until further notice, for an audience; 1: as the user has it."""
        QApplication.instance().setProperty(_FACTOR, factor)  # type: ignore[union-attr]
        self.apply()

    def apply(self) -> None:
        """Put colours and text size on the application."""
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        font = QFont(_desktop_font(application))
        font.setPointSizeF(font.pointSizeF() * STEP**self.steps * (application.property(_FACTOR) or 1.0))
        application.setFont(font)
        theme.use(self.scheme)


def _desktop_font(application: QApplication) -> QFont:
    """The application's font before we changed it."""
    stored = application.property("desktopFont")
    if stored is None:
        application.setProperty("desktopFont", application.font())
        return application.font()
    return stored
