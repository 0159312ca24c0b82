"""The address bar: which address is walked, by what access, with which privilege, and whose address it is."""

from collections.abc import Iterator

import msgspec
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QLabel, QSizePolicy, QWidget

from engine.arch.rights import Kind
from engine.machine import State
from engine.machine.look import HERE, Place
from gui.document import Change, Document, Query
from gui.explain import engine_text
from gui.hex_field import HexField
from gui.theme import GRID

KINDS = (Kind.READ, Kind.WRITE, Kind.FETCH)
CPLS = (3, 0)
"""As a query asks about user and supervisor accesses."""


class AddressBar(QFrame):
    """Asks the document to walk. ``failed`` is emitted with a sentence where the text is no address, '' once it is."""

    failed = Signal(str)

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._shown: int | None = None
        self._places: tuple[Place, ...] = ()
        self.setObjectName("addressBar")
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)
        self.field = HexField()
        self.field.setPlaceholderText(self.tr("address, in hex"))
        self.field.setAccessibleName(self.tr("Address to walk"))
        self.field.setFrame(False)
        self.access = self._combo(self.tr("Access"))
        for kind in KINDS:
            self.access.addItem(engine_text(kind.value))
        self.privilege = self._combo(self.tr("Privilege"))
        self.privilege.addItems([self.tr("user"), self.tr("supervisor")])
        self.place = self._combo(self.tr("Whose address"))
        label = QLabel(self.tr("Walk"))
        label.setProperty("role", "muted")
        label.setBuddy(self.field)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(3 * GRID, 0, 2 * GRID, 0)
        layout.setSpacing(GRID)
        for widget in (label, self.field, self.access, self.privilege, self.place):
            layout.addWidget(widget)
        self.field.returnPressed.connect(self.go)
        self.field.edited.connect(lambda: self.failed.emit(""))
        for combo in (self.access, self.privilege, self.place):
            combo.activated.connect(lambda _: self._ask_again())
        document.changed.connect(self._on_change)
        self._show()

    def _combo(self, name: str) -> QComboBox:
        combo = QComboBox()
        combo.setFrame(False)
        combo.setAccessibleName(name)
        combo.setToolTip(name)
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        return combo

    def focus(self) -> None:
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()

    def walk(self, address: int) -> None:
        """Walk ``address`` by the access and with the privilege that are chosen."""
        self._document.ask(self._query(address))

    def go(self) -> None:
        """Walk what the field says; where it says nothing that can be walked, the text stays as it is."""
        address = self.field.value
        self.failed.emit(self.field.error)
        if address is not None:
            self.walk(address)

    def _ask_again(self) -> None:
        """Another access or privilege for the address that is walked, whatever is being typed."""
        query = self._document.query
        if query is not None:
            self._document.ask(self._query(query.address))

    def _query(self, address: int) -> Query:
        before = self._document.query or Query(address)
        return Query(
            address,
            msgspec.structs.replace(before.access, kind=KINDS[self.access.currentIndex()]),
            CPLS[self.privilege.currentIndex()],
            self._places[self.place.currentIndex()] if self._places else HERE,
        )

    def _on_change(self, change: Change) -> None:
        if change & (Change.SCENARIO | Change.STATE | Change.WALK):
            self._show()

    def _show(self) -> None:
        self._offer_places()
        query = self._document.query
        if query is None:
            if self._shown is not None:
                self._shown = None
                self.field.clear()
            return
        if query.address != self._shown:
            self._shown = query.address
            self.field.set_value(query.address)
            self.failed.emit("")
        if query.access.kind in KINDS:
            self.access.setCurrentIndex(KINDS.index(query.access.kind))
        self.privilege.setCurrentIndex(0 if query.cpl == 3 else 1)

    def _offer_places(self) -> None:
        offered = dict(self._find_places(self._document.state))
        if tuple(offered) != self._places:
            self._places = tuple(offered)
            self.place.clear()
            self.place.addItems(list(offered.values()))
        place = self._document.place
        self.place.setCurrentIndex(self._places.index(place) if place in self._places else 0)

    def _find_places(self, state: State) -> Iterator[tuple[Place, str]]:
        """Every kind of address there is in ``state``."""
        if state.host is None:
            yield HERE, self.tr("GVA")
            if state.second is not None:
                yield Place(physical=True), self.tr("GPA")
            return
        for vm in filter(None, state.vms):
            for vcpu in vm.vcpus:
                text = self.tr("GVA, VM {vm} vCPU {vcpu}")
                yield Place(vm.index, vcpu.index), text.format(vm=vm.index, vcpu=vcpu.index)
                text = self.tr("GPA, VM {vm} vCPU {vcpu}")
                yield Place(vm.index, vcpu.index, physical=True), text.format(vm=vm.index, vcpu=vcpu.index)
        for pcpu in state.host.pcpus:
            yield Place(pcpu=pcpu.index), self.tr("HVA, pCPU {pcpu}").format(pcpu=pcpu.index)
