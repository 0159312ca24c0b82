"""Our icons, drawn from SVG in the colour of the theme. They are 24 units wide, in strokes of ``currentColor``."""

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QSize
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QImageReader, QPixmap, QPixmapCache

from gui import resources
from gui.theme import theme

SIZE = 20
"""Device-independent pixels of an icon in a tool bar."""
APPLICATION_SIZES = (16, 22, 24, 32, 48, 64, 128, 256)
"""Pixels of the program's own icon that desktops ask for."""


def icon(name: str, color: QColor | None = None) -> QIcon:
    """Icon ``name`` in ``color`` (default: the text's), and faint where it is disabled."""
    svg = resources.text("icons", f"{name}.svg")
    made = QIcon()
    made.addPixmap(_pixmap(svg, color or theme().text), QIcon.Mode.Normal)
    made.addPixmap(_pixmap(svg, theme().faint), QIcon.Mode.Disabled)
    return made


def application_icon() -> QIcon:
    made = QIcon()
    for side in APPLICATION_SIZES:
        made.addPixmap(application_pixmap(side))
    return made


def application_pixmap(side: int) -> QPixmap:
    """The program's own icon, ``side`` pixels wide."""
    return _rendered(resources.text("icons", "walkscope.svg"), side)


def pixmap(name: str, color: QColor, side: int = SIZE) -> QPixmap:
    """Icon ``name`` as a picture, ``side`` device-independent pixels wide. It is drawn once."""
    key = f"walkscope/{name}/{color.name()}/{side}"
    made = QPixmap()
    if not QPixmapCache.find(key, made):
        made = _pixmap(resources.text("icons", f"{name}.svg"), color, side)
        QPixmapCache.insert(key, made)
    return made


def _pixmap(svg: str, color: QColor, side: int = SIZE) -> QPixmap:
    ratio = QGuiApplication.primaryScreen().devicePixelRatio()
    made = _rendered(svg.replace("currentColor", color.name()), round(side * ratio))
    made.setDevicePixelRatio(ratio)
    return made


def _rendered(svg: str, pixels: int) -> QPixmap:
    buffer = QBuffer()
    buffer.setData(QByteArray(svg.encode()))
    buffer.open(QIODevice.OpenModeFlag.ReadOnly)
    reader = QImageReader(buffer, QByteArray(b"svg"))
    reader.setScaledSize(QSize(pixels, pixels))
    return QPixmap.fromImage(reader.read())
