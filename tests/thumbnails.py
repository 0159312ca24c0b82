"""``python -m tests.thumbnails``: the small pictures of demos on the start page, made anew."""

import sys
from pathlib import Path

from PySide6.QtCore import QSettings, QSize, Qt
from PySide6.QtGui import QImage

from engine.memory.library import Library
from gui import app, demos
from gui.presenter import Presenter
from gui.recorder import FIRST_LOOK, rest
from gui.settings import Appearance
from gui.theme import Scheme

WINDOW = QSize(1500, 640)
SIZE = QSize(456, 256)
"""One and a half times what a card shows, for dense screens."""
COVERS = {
    "npt-depth": 4, "ept-depth": 3, "amd-4-to-5": 3, "amd-5-to-4": 3, "intel-mode-change": 6, "two-modes": 4,
    "linux-5.12": 4, "why-forced": 3, "kernel-versions": 1, "whose-fault": 5, "accessed-and-dirty": 1,
    "shadow-paging": 6, "l1-npt": 2, "nested-ept": 4,
}  # fmt: skip
"""The number (from 1) of the stop that is pictured, where it is not the first."""


def picture(settings: QSettings, name: str) -> QImage:
    """The view of a stop of a demo, without what is said about it."""
    presenter = Presenter(settings, demos.load(name), Library(), name)
    presenter.resize(WINDOW)
    presenter.show()
    presenter.go_to(COVERS.get(name, 1) - 1)
    rest(FIRST_LOOK)
    view = presenter.main.currentWidget()
    grabbed = view.grab().toImage()
    presenter.close()
    presenter.deleteLater()
    scaled = grabbed.scaled(
        SIZE, Qt.AspectRatioMode.KeepAspectRatioByExpanding, Qt.TransformationMode.SmoothTransformation
    )
    return scaled.copy(0, 0, SIZE.width(), SIZE.height())


def main(folder: Path) -> int:
    application = app.create_application(["walkscope"])
    settings = QSettings(str(folder / "settings.ini"), QSettings.Format.IniFormat)
    for scheme in (Scheme.LIGHT, Scheme.DARK):
        settings.setValue("look/scheme", scheme.value)
        Appearance(settings).apply()
        for shown in demos.shown():
            small = picture(settings, shown.name).convertToFormat(QImage.Format.Format_RGB888)
            small.save(str(shown.picture(scheme is Scheme.DARK)), quality=0)  # quality 0: the smallest PNG
    application.quit()
    return 0


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as home:
        sys.exit(main(Path(home)))
