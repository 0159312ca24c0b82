"""Reports and ``run`` of shadow paging and of nested guests: who did what, who got which exit, with which fields."""

import json
from functools import cache
from pathlib import Path

import pytest

from engine import codec
from engine import events as ev
from engine.arch.rights import Kind
from engine.memory.library import Library
from engine.report import text
from engine.report.compose import Asked, report
from engine.report.model import Report
from engine.scenario import Scenario
from tests.engine.kvm_fixture import MIB, VM, booted, guest, slot
from tests.engine.test_cli import run
from tests.engine.test_scenario_reports import check_text, words

PAGE, MORE = 0x4000_0000, 0x4000_1000
ENTER = ev.EnterNested(guest("4-level", 0x1000))
NESTED = (
    *booted(five=True), *VM, slot(0, 16 * MIB), ev.SetGuestRegisters(guest("4-level", 0x1000)),
    ev.LoadNestedKvm(0x20000, 0x40000), ev.MapNestedPages(0, 0x40_0000, 0x20_0000),
    ev.MapL2Pages(0x1000, 0x2000, PAGE, 0x10_0000, 0x1000), ev.MapL2Pages(0x1000, 0x5000, MORE, 0x80_0000, 0x1000),
    ENTER, ev.GuestAccess(PAGE), ev.GuestAccess(MORE, Kind.WRITE, value=1),
)  # fmt: skip
"""L2 reads a page that it has, and writes one that L1 has given it no memory for."""
ENTRY = 0x4000_8000 + 0x1000
"""Where a guest without nested paging sees its own directory."""
SHADOWED = (
    *booted(npt=False), *VM, slot(0, 16 * MIB), ev.MapGuestPages(0x1000, 0x2000, PAGE, 0x10_0000, 0x1000),
    ev.MapGuestPages(0x1000, 0x8000, 0x4000_8000, 0x2000, 0x3000), ev.SetGuestRegisters(guest("4-level", 0x1000)),
    ev.GuestAccess(PAGE), ev.GuestAccess(ENTRY, Kind.WRITE, value=0x4027), ev.WriteGuestRegister("cr3", 0x1000),
    ev.GuestAccess(0x5000),
)  # fmt: skip


@cache
def made(*events: ev.Event) -> Report:
    return report(Scenario(events=events), Library(), Asked("made"), lambda share: None)


def told(*events: ev.Event) -> str:
    said = text.render(made(*events))
    check_text(said)
    return words(said)


def test_an_exit_for_l1_is_told_with_every_field_it_finds() -> None:
    said = told(*NESTED)
    assert "the nested guest on vCPU 0 of VM 0 on pCPU 0 writes 8 bytes at GVA 0x40001000" in said
    assert "#NPF goes to L1: #NPF: not present" in said
    assert "#NPF: what L1 finds" in said
    assert "exit_info_2 0x800000 kept from the hardware's exit" in said


def test_the_machine_tells_of_the_hypervisor_and_of_who_runs_on_its_tables() -> None:
    said = told(*NESTED, ENTER)
    assert "a hypervisor in it, loaded on vCPU 0, builds 4-level NPT tables from L1-physical 0x20000 on" in said
    assert "vCPU 0 runs a nested guest, 4-level paging, CR3 0x1000, through L1's 4-level NPT, root 0x20000" in said
    assert "they are read as" not in said
    change = ev.SetGuestRegisters(guest("5-level", 0x1000))
    changed = told(*NESTED, change, ENTER)
    assert "on; they are read as 5-level now" in changed
    assert "Hazard: L1's tables are read in another format" in changed


def test_nothing_is_amiss_under_a_nested_guest_that_l0_serves_well() -> None:
    assert "No hazard is found at any step." in told(*NESTED)


def test_a_write_to_a_mirrored_table_says_what_went() -> None:
    said = told(*SHADOWED)
    assert "nested paging is off: KVM mirrors the guest's own tables (shadow paging)" in said
    assert "KVM emulates it in memory, in a table that it mirrors: 1 SPTE dropped" in said
    assert "without nested paging, so it mirrors the guests' tables." in said
    assert "CR3 0x" in said
    assert "nCR3 0x" not in said
    assert "No vCPU has nested tables at two moments that differ" in said


def test_a_fault_that_kvm_found_in_the_guests_own_tables_is_told_as_its_own() -> None:
    assert "by KVM's own walk: #PF: not present, error code 0x0, CR2 0x5000" in told(*SHADOWED)


def test_moments_of_l1_and_of_its_guest_are_not_compared() -> None:
    said = told(*NESTED, ev.GuestAccess(0x1000), ENTER, ev.GuestAccess(PAGE))
    assert "On A a nested guest runs" not in said
    assert "On B a nested guest runs" not in said


# --- run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nested.json"
    path.write_text(codec.encode_scenario(Scenario(events=NESTED)))
    return path


def test_run_prints_the_exit_that_l1_gets(file: Path) -> None:
    code, out, errors = run("run", str(file))
    assert (code, errors) == (0, "")
    last = out.split(f"\n{len(NESTED)} ")[1]
    assert last.startswith("GuestAccess ")
    assert ": reflected to L1" in last.splitlines()[0]
    assert "   #NPF goes to L1: #NPF: not present" in last
    assert "      exit_info_1, bits 31:0 = 0x6: KVM's walk of L1's tables" in last


def test_run_gives_the_exit_to_other_tools_too(file: Path) -> None:
    _, out, _ = run("run", str(file), "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    reflected = rows[-1]["reflected"]
    assert rows[-1]["result"] == "reflected to L1"
    assert rows[-2]["reflected"] is None
    assert reflected["name"] == "#NPF"
    assert {"name": "exit_code", "value": "0x400", "source": "always SVM_EXIT_NPF"} in reflected["fields"]
