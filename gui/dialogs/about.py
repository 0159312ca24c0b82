"""What the program is, with versions."""

from PySide6.QtCore import QCoreApplication, qVersion

from gui.version import VERSION


def about_text() -> str:
    text = QCoreApplication.translate(
        "About",
        "Walkscope {version}\n\nAn explorer of x86 page tables: of real memory images, and under KVM.\n\n"
        "Qt {qt}. MIT licence.",
    )
    return text.format(version=VERSION, qt=qVersion())
