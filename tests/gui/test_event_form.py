"""One form for every event: made from its type, with legal values only, and telling beforehand what would happen."""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec.inspect as mi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtWidgets import QComboBox, QDialog, QLabel, QWidget
from pytestqt.qtbot import QtBot

from engine import events as ev
from engine.arch.registers import Features, Registers, Vendor
from engine.arch.rights import Kind
from engine.arch.second_stage import EptCapabilities
from engine.codec import decode_event, encode_event
from engine.errors import InputError
from engine.host.machine import PcpuSetup
from engine.host.mm import Placement
from engine.host.modes import Way
from engine.kvm.kernels import KERNELS, Bug
from engine.kvm.memslots import Backing, Pages
from engine.kvm.module import Parameters
from engine.memory.library import Library
from engine.scenario import Scenario
from gui import jobs
from gui.dialogs.editors import ChoiceEditor, OptionalEditor, SizeEditor
from gui.dialogs.event_form import EventForm, ask_event
from gui.dialogs.event_texts import field, told
from gui.dialogs.registers_editor import RegistersEditor
from gui.dialogs.setups_editor import SetupsEditor
from gui.dialogs.struct_editor import StructEditor
from gui.dialogs.suggestions import suggested
from gui.document import Document
from gui.presets import preset
from gui.sizes import exact_size, parse_size
from gui.templates import templates

EVENTS = get_args(ev.Event)
IMAGE = ev.OpenImage(ev.ImageRef("resource:debian-6.1-4level.core.gz"))


@pytest.fixture
def document(qapp: Any) -> Iterator[Document]:
    """A guest at work, after the last step of the scenario with a 4-level AMD host."""
    made = Document(Library())
    made.open(next(t for t in templates() if t.key == "amd-4").scenario())
    yield made
    jobs.runner().cancel()


@pytest.fixture
def form(document: Document, qtbot: QtBot):  # type: ignore[no-untyped-def]
    """Makes forms, whose editors are those of structs."""

    def make(event_type: type, initial: ev.Event | None = None, step: int | None = None) -> EventForm:
        if step is not None:
            document.go_to_step(step)
        made = EventForm(document, event_type, initial)
        qtbot.addWidget(made)
        return made

    return make


def editors(form: EventForm) -> dict[str, Any]:
    assert isinstance(form.editor, StructEditor)
    return form.editor.editors


def offered(editor: Any) -> list[str]:
    assert isinstance(editor, ChoiceEditor)
    return [editor.box.itemText(n) for n in range(editor.box.count())]


# --- every event


def test_every_event_has_a_name_and_a_sentence() -> None:
    assert set(told()) == set(EVENTS)
    assert all(words.name and words.help.endswith(".") for words in told().values())


def structs_of(kind: type) -> Iterator[type]:
    """``kind`` and all structs within it."""
    shape = mi.type_info(kind)
    assert isinstance(shape, mi.StructType)
    yield kind
    for inner in shape.fields:
        for item in (inner.type, *getattr(inner.type, "types", ()), getattr(inner.type, "item_type", None)):
            if isinstance(item, mi.StructType):
                yield from structs_of(item.cls)


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda t: t.__name__)
def test_no_field_goes_by_its_name_in_the_code(event_type: type) -> None:
    named_alike = {
        "npt",
        "ept",
        "eptad",
        "tdp_mmu",
        "nested",
        "nx_huge_pages",
        "allow_smaller_maxphyaddr",
        "mmio_caching",
    }
    for struct in structs_of(event_type):
        for name in struct.__struct_fields__:  # type: ignore[attr-defined]
            assert field(struct, name).label != name or name in named_alike


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda t: t.__name__)
def test_a_form_gives_back_what_it_was_given(event_type: type, form, document: Document) -> None:  # type: ignore[no-untyped-def]
    event = suggested(event_type, document.state)
    assert form(event_type, event).editor.value == event


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda t: t.__name__)
def test_every_editor_can_be_named_by_those_who_cannot_see_it(event_type: type, form) -> None:  # type: ignore[no-untyped-def]
    for editor in editors(form(event_type)).values():
        assert editor.main.accessibleName() or isinstance(editor, (OptionalEditor, StructEditor))


FULL = [
    ev.BootHost(
        pcpus=(
            PcpuSetup(features=Features(vendor=Vendor.INTEL, la57=False), ept=EptCapabilities(page1gb=False)),
            PcpuSetup(features=Features(vendor=Vendor.INTEL, maxphyaddr=40), ept=EptCapabilities()),
        ),
        five_level=True,
        ram_size=1 << 36,
        seed=77,
        ram=(ev.RamRange(0, 3 << 30), ev.RamRange(1 << 32, 5 << 30)),
    ),
    ev.LoadKvm(kernel="5.12", parameters=Parameters(tdp_mmu=False, nx_huge_pages=True, bugs=(Bug.WALK_START,)), pcpu=1),
    ev.SetMemslot(
        gpa=1 << 32,
        backing=Backing(pages=Pages.HUGE_2M, placement=Placement.CONTIGUOUS, at=1 << 30),
        image=ev.ImageRef("somewhere/else.core", 12345),
    ),
    ev.SetGuestRegisters(Registers(cr0=1, cr3=0xFFFF_FFFF_FFFF_F000, cr2=5, pdptes=(1, 2, 3, 4), cpl=3)),
    ev.FillGuestPages(0, (1, 0xFFFF_FFFF_FFFF_FFFF), 1 << 20),
    ev.MoveVcpu(pcpu=7, vm=3, vcpu=2),
    ev.ChooseSecondStage("npt", 0x1000, preset("5-level").at(0x5000)),
    ev.SetRegister("cr4", 0xFFFF_FFFF_FFFF_FFFF),
]


@pytest.mark.parametrize("event", FULL, ids=lambda e: type(e).__name__)
def test_nothing_of_an_event_is_lost_by_editing_it(event: ev.Event, form) -> None:  # type: ignore[no-untyped-def]
    assert decode_event(encode_event(form(type(event), event).editor.value)) == event


# --- legal values


@pytest.mark.parametrize("text", ["0x0", "0x0 much", "here 1 GiB", "0x0 1 GiB, 5"])
def test_a_ram_map_that_cannot_be_read_is_said_to_be_wrong(text: str, form, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.BootHost, step=0)
    editors(made)["ram"].line.setText(text)
    assert editors(made)["ram"].line.property("invalid")
    with pytest.raises(InputError):
        _ = made.editor.value


def test_kernels_are_offered_by_name(form) -> None:  # type: ignore[no-untyped-def]
    assert offered(editors(form(ev.LoadKvm))["kernel"]) == [kernel.label for kernel in KERNELS.values()]


def test_enumerations_and_literals_are_offered_and_nothing_else(form) -> None:  # type: ignore[no-untyped-def]
    assert offered(editors(form(ev.ChangeMode))["way"]) == [way.value for way in Way]
    assert offered(editors(form(ev.MapGuestPages))["mode"]) == ["32-bit", "PAE", "4-level", "5-level"]
    assert offered(editors(form(ev.SetRegister))["name"])[:3] == ["CR0", "CR2", "CR3"]
    for box in form(ev.GuestAccess).findChildren(QComboBox):
        assert not box.isEditable()


def test_what_exists_is_offered(form) -> None:  # type: ignore[no-untyped-def]
    assert offered(editors(form(ev.ChangeMode))["pcpu"]) == ["pCPU 0, 4-level", "pCPU 1, 4-level"]
    assert offered(editors(form(ev.GuestAccess))["vcpu"]) == ["vCPU 0 on pCPU 0"]
    assert offered(editors(form(ev.DeleteMemslot))["slot"]) == ["0: 64 MiB at 0x0", "1: 128 KiB at 0xfffe_0000"]


def test_where_nothing_exists_the_box_says_so(form) -> None:  # type: ignore[no-untyped-def]
    vm = editors(form(ev.CreateVcpu, step=2))["vm"]
    assert offered(vm) == ["no VM yet"]
    assert not vm.box.isEnabled()


def test_the_vcpus_offered_are_those_of_the_vm_that_is_chosen(document: Document, form) -> None:  # type: ignore[no-untyped-def]
    document.append(ev.CreateVm(), "")
    document.append(ev.CreateVcpu(vm=1, pcpu=1), "")
    document.append(ev.CreateVcpu(vm=1, pcpu=0), "")
    boxes = editors(form(ev.GuestAccess, ev.GuestAccess(0)))
    assert len(offered(boxes["vcpu"])) == 1
    boxes["vm"].set_value(1)
    assert offered(boxes["vcpu"]) == ["vCPU 0 on pCPU 1", "vCPU 1 on pCPU 0"]


def test_a_value_that_is_not_there_is_shown_and_kept(form) -> None:  # type: ignore[no-untyped-def]
    pcpu = editors(form(ev.MoveVcpu, ev.MoveVcpu(pcpu=7)))["pcpu"]
    assert pcpu.box.currentText() == "7, not there"
    assert pcpu.value == 7


# --- fields that depend on others


def test_a_value_counts_only_for_a_store(form) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.GuestAccess, ev.GuestAccess(0x1000))
    value, kind = editors(made)["value"], editors(made)["kind"]
    assert value.isHidden()
    kind.set_value(Kind.WRITE)
    assert not value.isHidden()
    value.set_value(5)
    assert made.editor.value == ev.GuestAccess(0x1000, Kind.WRITE, value=5)
    kind.set_value(Kind.READ)
    assert made.editor.value == ev.GuestAccess(0x1000)


def test_an_intel_host_gets_ept_and_no_npt_to_choose(form) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.BootHost, step=0)
    setups = editors(made)["pcpus"]
    assert isinstance(setups, SetupsEditor)
    setup = setups.tabs.widget(0)
    assert isinstance(setup, StructEditor)
    features = setup.editors["features"]
    assert isinstance(features, StructEditor)
    assert setup.editors["ept"].isHidden()
    features.editors["vendor"].set_value(Vendor.INTEL)
    assert setup.editors["npt"].isHidden()
    assert made.editor.value.pcpus[0].ept == EptCapabilities()


def test_pcpus_are_alike_until_they_are_not(form) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.BootHost, step=0)
    setups = editors(made)["pcpus"]
    setups.count.setValue(3)
    assert made.editor.value.pcpus == (PcpuSetup(),) * 3
    setups.alike.setChecked(False)
    assert setups.tabs.count() == 3
    setups.tabs.widget(2).editors["features"].editors["la57"].set_value(False)
    assert [p.features.la57 for p in made.editor.value.pcpus] == [True, True, False]


# --- registers


@pytest.mark.parametrize("key", ["reset", "32-bit", "PAE", "4-level", "5-level", "compat"])
def test_a_preset_sets_all_but_the_tables_and_the_privilege(key: str, form) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.SetGuestRegisters, ev.SetGuestRegisters(Registers(cr3=0x7000, cpl=3)))
    registers = editors(made)["registers"]
    assert isinstance(registers, RegistersEditor)
    assert registers.preset.value is None, "these are the registers of no preset"
    registers.preset.set_value(preset(key))
    assert made.editor.value.registers == preset(key).at(0x7000, 3)


def test_the_preset_says_what_the_registers_are_after_an_edit(form) -> None:  # type: ignore[no-untyped-def]
    registers = editors(form(ev.SetGuestRegisters, ev.SetGuestRegisters(preset("4-level").at(0))))["registers"]
    assert registers.preset.value.key == "4-level"
    assert registers.inner.editors["cr4"].isHidden()
    registers.inner.editors["cr4"].set_value(preset("5-level").registers.cr4)
    assert registers.preset.value.key == "5-level"
    registers.inner.editors["cr4"].set_value(0)
    assert registers.preset.value is None


# --- what would happen


def test_it_says_what_would_happen_before_it_happens(form, qtbot: QtBot, document: Document) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.ChangeMode)
    before = document.scenario
    qtbot.waitUntil(lambda: made.verdict.text() == "pCPU 1 goes 5-level: trampoline: CR4.LA57 = 1")
    assert made.notes.text().startswith("Assumed: root")
    assert document.scenario is before


def test_it_says_why_an_event_cannot_happen_and_cannot_be_accepted_then(form, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.SetMemslot, ev.SetMemslot(gpa=0x1000))
    qtbot.waitUntil(lambda: made.verdict.text() == "The slot overlaps slot 0 at 0x0.")
    assert not made._ok.isEnabled()
    editors(made)["gpa"].set_value(1 << 30)
    qtbot.waitUntil(made._ok.isEnabled)
    assert made.verdict.text() == "Memslot of 64 MiB at 0x4000_0000: 4K pages, scattered"


@pytest.mark.parametrize(
    ("text", "start"),
    [("nonsense", "“nonsense” is not an address"), ("0x1_0000_0000_0000_0000", "0x1_0000_0000_0000_0000 has more")],
)
def test_what_cannot_be_read_is_said_at_once(text: str, start: str, form, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.GuestAccess)
    editors(made)["address"].field.setText(text)
    qtbot.waitUntil(lambda: made.verdict.text().startswith(start))
    assert not made._ok.isEnabled()


def test_typing_and_accepting_at_once_looks_before_it_accepts(form) -> None:  # type: ignore[no-untyped-def]
    made = form(ev.SetMemslot, ev.SetMemslot(gpa=1 << 30))
    editors(made)["gpa"].set_value(0x1000)
    made.accept()
    assert made.result() != QDialog.DialogCode.Accepted
    assert made.event_made is None
    editors(made)["gpa"].set_value(2 << 30)
    made.accept()
    assert made.event_made == ev.SetMemslot(gpa=2 << 30)


def test_an_event_in_the_past_is_looked_at_where_it_stands(form, document: Document, qtbot: QtBot) -> None:  # type: ignore[no-untyped-def]
    made = EventForm(document, ev.BootHost, document.scenario.events[0], at=0)
    qtbot.addWidget(made)
    qtbot.waitUntil(made._ok.isEnabled)
    assert made.verdict.text() == "Host boots, 2 pCPUs: 4-level"


def test_asking_gives_the_event_or_nothing(document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(accept: bool) -> Any:
        def exec_(form: EventForm) -> int:
            form.accept() if accept else form.reject()
            return form.result()

        return exec_

    monkeypatch.setattr(EventForm, "exec", answer(True))
    assert ask_event(document, ev.CreateVm) == ev.CreateVm()
    monkeypatch.setattr(EventForm, "exec", answer(False))
    assert ask_event(document, ev.CreateVm) is None


def test_labels_lead_to_their_editors(form) -> None:  # type: ignore[no-untyped-def]
    buddies = [label.buddy() for label in form(ev.MapGuestPages).findChildren(QLabel) if label.buddy()]
    assert len(buddies) >= 8
    assert all(isinstance(buddy, QWidget) and buddy.isEnabled() for buddy in buddies)


def test_an_image_of_the_program_can_be_picked(form, document: Document) -> None:  # type: ignore[no-untyped-def]
    document.open(Scenario())
    made = form(ev.OpenImage)
    assert made.editor.value == IMAGE


# --- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 MiB", 64 << 20), ("4K", 4096), ("0x1000", 4096), ("1.5 GiB", 3 << 29), ("12", 12), ("3 bytes", 3),
     ("2mb", 2 << 20), ("1,024", 1024), ("16 TiB", 16 << 40)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-4", "1.3 B", "4 miles", "0x", "99999999999999 TiB"])
def test_what_is_no_size_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


@given(st.integers(0, 2**64 - 1))
def test_a_size_that_is_shown_can_be_read_again(size: int) -> None:
    assert parse_size(exact_size(size)) == size


def test_a_size_field_marks_what_it_cannot_read(qtbot: QtBot) -> None:
    editor = SizeEditor()
    qtbot.addWidget(editor)
    editor.line.setText("much")
    assert editor.line.property("invalid")
    editor.set_value(4096)
    assert editor.line.text() == "4 KiB"
    assert not editor.line.property("invalid")
