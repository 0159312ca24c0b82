"""How each view is made, by the name that layouts and demos have for it. A view is imported when it is first made."""

from collections.abc import Callable

from PySide6.QtWidgets import QWidget

from gui.document import Document

Maker = Callable[[Document, QWidget | None], QWidget]


def _hierarchy(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.hierarchy import HierarchyView

    return HierarchyView(document, parent)


def _walk(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.walk import WalkView

    return WalkView(document, parent)


def _effects(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.effects import EffectsView

    return EffectsView(document, parent)


def _mappings(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.mappings import MappingsView

    return MappingsView(document, parent)


def _inspector(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.inspector import InspectorView

    return InspectorView(document, parent)


def _findings(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.findings import FindingsView

    return FindingsView(document, parent)


def _machine(document: Document, parent: QWidget | None) -> QWidget:
    from gui.machine_dock import MachineDock
    from gui.views.machine import MachineView

    return MachineDock(document, MachineView(document), parent)


def _timeline(document: Document, parent: QWidget | None) -> QWidget:
    from gui.views.timeline import TimelineView

    return TimelineView(document, parent)


MAKERS: dict[str, Maker] = {
    "hierarchy": _hierarchy, "walk": _walk, "effects": _effects, "mappings": _mappings, "machine": _machine,
    "inspector": _inspector, "findings": _findings, "timeline": _timeline,
}  # fmt: skip
