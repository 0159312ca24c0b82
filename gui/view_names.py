"""What the views that a demo can show are called."""

from PySide6.QtCore import QCoreApplication

translate = QCoreApplication.translate


def view_names() -> dict[str, str]:
    """By the names that demos have for them, in the user's language."""
    return {
        "hierarchy": translate("Views", "Hierarchy"),
        "walk": translate("Views", "Walk"),
        "effects": translate("Views", "Effects"),
        "mappings": translate("Views", "Mappings"),
        "machine": translate("Views", "Machine"),
        "inspector": translate("Views", "Inspector"),
        "findings": translate("Views", "Findings"),
        "timeline": translate("Views", "Timeline"),
    }
