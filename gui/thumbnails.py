"""Small pictures of scenarios: taken of the open view when a file is saved, shown in the list of recent files."""

import os
from functools import lru_cache

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QSize, Qt
from PySide6.QtGui import QIcon, QImageWriter, QPixmap
from PySide6.QtWidgets import QWidget

from engine.errors import InputError

SIZE = QSize(192, 120)
"""Pixels at the most: twice what the list shows (`icon-size` in the style sheet), for dense screens."""


def picture(widget: QWidget) -> bytes:
    """``widget`` as it is now, as a small PNG."""
    small = widget.grab().toImage().scaled(
        SIZE, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )  # fmt: skip
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    QImageWriter(buffer, QByteArray(b"png")).write(small)
    return bytes(data.data())


def icon(path: str) -> QIcon:
    """The picture in the scenario at ``path``; none where there is none, or no scenario that can be read."""
    try:
        now = os.stat(path)
    except OSError:
        return QIcon()
    return _icon(path, now.st_ino, now.st_size, now.st_mtime_ns)


@lru_cache(32)
def _icon(path: str, *_stamp: int) -> QIcon:
    from storage import files

    pixmap = QPixmap()
    try:
        pixmap.loadFromData(files.peek(path).thumbnail, "PNG")
    except InputError:
        return QIcon()
    return QIcon(pixmap) if not pixmap.isNull() else QIcon()
