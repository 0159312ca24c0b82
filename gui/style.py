"""Puts the theme on Qt's own widgets: the Fusion style, a palette and a style sheet."""

from string import Template

from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication

from gui import resources
from gui.theme import Theme, palette, signals, theme


def install(application: QApplication) -> None:
    """Dress ``application`` in the theme, now and whenever that changes."""
    application.setStyle("Fusion")
    sheet = Template(resources.text("styles", "walkscope.qss"))

    def dress() -> None:
        application.setPalette(palette(theme()))
        icons = (resources.RESOURCES / "icons").as_posix()
        application.setStyleSheet(
            sheet.substitute(colors(theme()), icons=icons, scheme="dark" if theme().dark else "light")
        )

    signals().changed.connect(dress)
    dress()


def colors(theme: Theme) -> dict[str, str]:
    """The colours of ``theme`` by name, as #rrggbb."""
    tokens = ((name, getattr(theme, name)) for name in theme._fields)
    return {name: color.name() for name, color in tokens if isinstance(color, QColor)}
