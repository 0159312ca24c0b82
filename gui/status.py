"""The status bar: what is open, how it is paged, and long work with its progress and a way out."""

from pathlib import PurePath

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QStatusBar, QToolButton, QWidget

from engine.arch.addresses import grouped, size_name
from engine.arch.registers import Mode, Vendor
from engine.machine import State
from gui.document import Change, Document
from gui.explain import engine_text
from gui.icons import icon
from gui.jobs import WindowJobs
from gui.theme import GRID, follow

DELAY = 200
"""Milliseconds after which work is shown."""


class StatusBar(QStatusBar):
    def __init__(self, document: Document, jobs: WindowJobs, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._jobs = jobs
        self.image = QLabel()
        self.image.setTextFormat(Qt.TextFormat.PlainText)  # a file may be named like a piece of HTML
        self.file = QLabel()
        self.file.setTextFormat(Qt.TextFormat.PlainText)
        self.mode = QLabel()
        self.mode.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.work = QLabel()
        self.work.setTextFormat(Qt.TextFormat.PlainText)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedSize(40 * GRID, 2 * GRID)
        self.cancel = QToolButton()
        self.cancel.setToolTip(self.tr("Cancel"))
        self.cancel.setAccessibleName(self.tr("Cancel"))
        self.cancel.clicked.connect(self._cancel)
        follow(self.cancel, lambda: self.cancel.setIcon(icon("close")))
        self._panel = QWidget()
        layout = QHBoxLayout(self._panel)
        layout.setContentsMargins(0, 0, GRID, 0)
        layout.setSpacing(GRID)
        for widget in (self.work, self.progress, self.cancel):
            layout.addWidget(widget)
        self.addWidget(self.image)
        self.addWidget(self.mode, 1)
        self.addPermanentWidget(self._panel)
        self.addPermanentWidget(self.file)
        document.changed.connect(self._on_change)
        jobs.changed.connect(self._on_work)
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY)
        self._delay.timeout.connect(self._show_work)
        self._show_state()
        self._show_work()

    def show_file(self, name: str, is_modified: bool, is_in_file: bool) -> None:
        """Whether what is open is saved, and as what."""
        text = self.tr("{name}: modified") if is_modified else self.tr("{name}: saved") if is_in_file else name
        self.file.setText(text.format(name=name))

    def _on_change(self, change: Change) -> None:
        if change & (Change.SCENARIO | Change.STATE):
            self._show_state()

    def _show_state(self) -> None:
        state = self._document.state
        self.image.setText(self._image(state))
        self.mode.setText(self._mode(state))

    def _image(self, state: State) -> str:
        if state.image is None:
            events = len(self._document.scenario.events)
            return (
                self.tr("no image open")
                if state.host is None
                else self.tr("scenario, {count} events").format(count=events)
            )
        text = self.tr("{name}, {format}, {size}")
        return text.format(
            name=PurePath(state.image.path).name, format=state.image.format, size=size_name(state.image.size)
        )

    def _mode(self, state: State) -> str:
        if state.host is not None:
            return self._host(state)
        if state.image is None:
            return ""
        registers = state.registers
        if registers.mode is Mode.NONE:
            return self.tr("paging off")
        text = self.tr("{mode} paging, CR3 {cr3}")
        return text.format(mode=engine_text(registers.mode.value), cr3=grouped(registers.cr3))

    def _host(self, state: State) -> str:
        """The machine in a line: vendor, what KVM walks in two dimensions, VMs, vCPUs and pCPUs."""
        assert state.host is not None
        vms = [vm for vm in state.vms if vm is not None]
        is_amd = state.host.vendor is Vendor.AMD
        parts = ["AMD" if is_amd else "Intel"]
        if state.module is not None:
            name = "NPT" if is_amd else "EPT"
            parts.append(name if state.module.tdp_enabled else self.tr("shadow paging"))
        parts += [
            self.tr("VMs: {count}").format(count=len(vms)),
            self.tr("vCPUs: {count}").format(count=sum(len(vm.vcpus) for vm in vms)),
            self.tr("pCPUs: {count}").format(count=len(state.host.pcpus)),
        ]
        return " · ".join(parts)

    def _on_work(self) -> None:
        """Work that is over soon is not worth a flicker."""
        if self._panel.isVisible() or not self._jobs.running:
            self._show_work()
        elif not self._delay.isActive():
            self._delay.start()

    def _show_work(self) -> None:
        running = self._jobs.running
        self._panel.setVisible(bool(running))
        if running:
            job = running[0]
            self.work.setText(job.text)
            self.progress.setRange(0, 0 if job.fraction is None else 1000)
            self.progress.setValue(round((job.fraction or 0) * 1000))
            self.progress.setAccessibleName(job.text)

    def _cancel(self) -> None:
        for job in self._jobs.running[:1]:
            self._jobs.cancel_for_user(job)
