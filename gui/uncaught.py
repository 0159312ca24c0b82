"""Exceptions that nobody caught: they are told and the program goes on."""

import sys
from types import TracebackType

from PySide6.QtCore import QCoreApplication, QObject, Signal


class Uncaught(QObject):
    """``caught`` is emitted with the exception, once `install` has taken the place of ``sys.excepthook``.

    Exceptions in slots end up here.
    """

    caught = Signal(object)

    def install(self) -> None:
        sys.excepthook = self._hook

    def _hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            QCoreApplication.quit()
            return
        sys.__excepthook__(kind, error, trace)
        self.caught.emit(error)
