"""What the user can start from: every template replays, and shows what its title says."""

import pytest

from engine.arch.registers import Vendor
from engine.machine import State
from engine.scenario import Replay
from gui.presets import Preset, presets
from gui.templates import ADDRESS, PATTERN, Template, templates

READ = int.from_bytes(PATTERN.to_bytes(8, "little")[ADDRESS % 8 : ADDRESS % 8 + 4], "little")


def no_images(reference: object) -> None:
    raise AssertionError(f"a template opens no image: {reference}")


def replay(template: Template) -> Replay:
    return Replay(template.scenario(), no_images)  # type: ignore[arg-type]


def last_state(key: str) -> State:
    template = next(t for t in templates() if t.key == key)
    return replay(template).state(len(template.events()))


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.key)
def test_no_event_of_a_template_is_refused(template: Template) -> None:
    played = replay(template)
    steps = range(1, len(template.events()) + 1)
    assert [played.refusal(step) for step in steps] == [None] * len(steps)


@pytest.mark.parametrize("template", templates(), ids=lambda t: t.key)
def test_every_template_has_a_name_and_one_sentence(template: Template) -> None:
    assert template.name
    assert template.summary.endswith(".")


@pytest.mark.parametrize(("key", "references"), [("amd-4", 24), ("amd-5", 35), ("intel-ept", 24)])
def test_the_guest_reads_its_page_at_the_cost_of_its_depths(key: str, references: int) -> None:
    effect = last_state(key).effect
    assert effect.walks[-1].references == references
    assert effect.loaded == READ
    assert effect.livelock is None


def test_intel_translates_with_ept() -> None:
    state = last_state("intel-ept")
    assert state.host is not None
    assert state.host.vendor is Vendor.INTEL


@pytest.mark.parametrize("key", ["linux-5.12", "mode-change"])
def test_where_kvm_and_the_processor_disagree_the_access_never_ends(key: str) -> None:
    assert last_state(key).effect.livelock is not None


def test_the_mode_changes_only_after_kvm_has_captured_it() -> None:
    state = last_state("mode-change")
    assert state.host is not None
    assert state.module is not None
    assert [p.levels for p in state.host.pcpus] == [4, 5]
    assert state.module.max_tdp_level == 4


@pytest.mark.parametrize("preset", presets(), ids=lambda p: p.key)
def test_a_preset_is_recognised_whatever_its_tables_and_privilege(preset: Preset) -> None:
    registers = preset.at(0x1000, cpl=3)
    assert [p.key for p in presets() if p.fits(registers)] == [preset.key]


def test_presets_are_in_the_modes_they_name() -> None:
    modes = {p.key: p.registers.mode.value for p in presets()}
    assert modes == {
        "reset": "none", "32-bit": "32-bit", "PAE": "PAE", "4-level": "4-level", "5-level": "5-level",
        "compat": "4-level",
    }  # fmt: skip
