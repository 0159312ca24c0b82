"""The scenarios that come with the program: each replays without a refusal but where that is its point."""

import json

import pytest

from engine.__main__ import main
from engine.arch.faults import EntryFailure, GeneralProtection, Translated
from engine.cli.run import read_scenario, replayed, result
from engine.codec import encode_scenario
from engine.machine import State
from engine.machine.look import look_logical
from engine.machine.mirror import Mirror, Status, TableKind, mirror
from tests.conftest import ROOT

FOLDER = ROOT / "resources" / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def outcomes(name: str) -> list[str]:
    """What each guest access, mode change and loading of KVM came to, in order."""
    told = ("GuestAccess", "ChangeMode", "LoadKvm")
    steps = replayed(*read_scenario(str(FOLDER / f"{name}.json")))
    return [result(state.effect, refusal) for _, event, state, refusal in steps if type(event).__name__ in told]


def last(name: str) -> State:
    return list(replayed(*read_scenario(str(FOLDER / f"{name}.json"))))[-1][2]


EXPECTED = {
    # LoadKvm, the guest reads, pCPU 1 changes, there it reads for ever, back it reads again
    "amd-4-to-5-after-kvm-init": ["done", "done", "done", "endless", "done"],
    "amd-5-to-4": ["done", "done", "done", "endless", "done"],
    "amd-4-to-5-same-root": ["done", "done", "fault"],
    "amd-reset-vector-4-to-5": ["done", "done", "endless", "done"],
    "amd-reset-vector-5-to-4": ["done", "done", "endless", "done"],
    "amd-mov-cr4": ["done", "fault"],
    "intel-ept-unaffected": ["done", "done", "done", "done"],
    "intel-guest-maxphyaddr-48-and-52": ["done", "done", "done", "done", "done", "done"],
    "intel-pcpu-without-5-level-ept": ["done", "done", "entry failed"],
    "linux-5.12-on-la57": ["done", "endless"],
    "linux-5.13-refuses-la57": ["refused"],
    "series-v1-mixed-depths": ["done", "done", "done", "done", "endless"],
    "unforced-guest-maxphyaddr-48-and-52": ["done", "done", "endless"],
    # LoadKvm; L2 reads, writes into a large page; L1 changes an entry; L2 reads again; L2 reads what L1 has not mapped
    "l1-4-level-npt-on-5-level-host": ["done", "done", "done", "done", "done", "reflected to L1"],
    "l1-32-bit-npt": ["done", "done", "done", "done", "done", "reflected to L1"],
    "l1-pae-npt": ["done", "done", "done", "done", "done", "reflected to L1"],
    # as these, but L2 reads once more, after INVEPT
    "nested-ept": ["done", "done", "done", "done", "done", "done", "reflected to L1"],
    # the guest reads, writes, writes into a large page; changes an entry, reads before and after INVLPG; clears one
    "shadow-paging-pae-guest": ["done", "done", "done", "done", "done", "done", "done", "emulated", "fault", "done"],
    "guest-writes-its-nested-table": ["done", "done", "done", "done", "done", "done", "done"],
}


def test_every_scenario_has_its_outcome_here() -> None:
    assert set(NAMES) == set(EXPECTED)


@pytest.mark.parametrize("name", NAMES)
def test_outcomes(name: str) -> None:
    assert outcomes(name) == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_as_the_program_writes_them(name: str) -> None:
    path = FOLDER / f"{name}.json"
    assert encode_scenario(read_scenario(str(path))[0]) == path.read_text(encoding="utf-8")


def test_the_pcpu_that_keeps_its_root_is_lost_before_any_vm_entry() -> None:
    state = last("amd-4-to-5-same-root")
    assert state.host is not None
    assert state.host.pcpus[1].lost


def test_mov_to_cr4_is_a_gp() -> None:
    assert isinstance(last("amd-mov-cr4").effect.fault, GeneralProtection)


def test_the_entry_failure_names_the_walk_length() -> None:
    fault = last("intel-pcpu-without-5-level-ept").effect.fault
    assert isinstance(fault, EntryFailure)
    assert "walk length" in fault.reason


def test_ept_has_as_many_references_before_and_after() -> None:
    steps = list(replayed(*read_scenario(str(FOLDER / "intel-ept-unaffected.json"))))
    counts = [s.effect.walks[-1].references for _, event, s, _ in steps if type(event).__name__ == "GuestAccess"]
    assert counts == [24, 24]
    steps = list(replayed(*read_scenario(str(FOLDER / "intel-guest-maxphyaddr-48-and-52.json"))))
    counts = [s.effect.walks[-1].references for _, event, s, _ in steps if type(event).__name__ == "GuestAccess"]
    assert counts == [4, 5, 4, 5]


def test_the_guest_ends_in_the_hosts_kernel() -> None:
    """It read its own SPTE, wrote another in its place, and its next store lies in the kernel's text."""
    steps = list(replayed(*read_scenario(str(FOLDER / "guest-writes-its-nested-table.json"))))
    accesses = [state for _, event, state, _ in steps if type(event).__name__ == "GuestAccess"]
    assert accesses[1].effect.loaded is not None
    assert accesses[1].effect.loaded & 0xFFF == 0xE67
    outcome = accesses[-1].effect.walks[-1].outcome
    assert isinstance(outcome, Translated)
    assert outcome.address == 16 << 20
    assert accesses[-1].memory.word(16 << 20) == 0x2222
    assert accesses[-1].effect.exits == ()


# --- guests whose tables KVM mirrors


def mirrored_after(name: str, step: int) -> tuple[State, Mirror]:
    """The state after event number ``step``, and what mirrors what in it."""
    state = list(replayed(*read_scenario(str(FOLDER / f"{name}.json"))))[step - 1][2]
    found = mirror(state)
    assert isinstance(found, Mirror), found
    return state, found


@pytest.mark.parametrize(
    ("name", "extra", "references", "logical"),
    [
        ("l1-4-level-npt-on-5-level-host", [TableKind.PASSTHROUGH], (29, 24), 149),
        ("l1-32-bit-npt", [TableKind.PML5_ROOT, TableKind.PML4_ROOT, TableKind.PAE_ROOT], (17, 8), 53),
        ("l1-pae-npt", [TableKind.PML5_ROOT, TableKind.PML4_ROOT], (23, 15), 95),
        ("nested-ept", [], (24, 24), 124),
    ],
)
def test_what_l0_needs_beyond_l1s_own_levels(
    name: str, extra: list[TableKind], references: tuple[int, int], logical: int
) -> None:
    state, found = mirrored_after(name, 15)
    assert [table.kind for table in found.extra] == extra
    assert (found.references, found.bare) == references
    assert state.effect.walks[-1].references == references[0]
    walk = look_logical(state, 0x4000_1000)
    assert getattr(walk, "references", walk) == logical


@pytest.mark.parametrize("name", ["l1-4-level-npt-on-5-level-host", "l1-32-bit-npt", "l1-pae-npt", "nested-ept"])
def test_l1s_store_makes_a_shadow_entry_out_of_date_until_l1_flushes(name: str) -> None:
    flushed = 24 if name == "nested-ept" else 20
    for step, stale in ((17, 0), (18, 1), (flushed, 0)):
        assert mirrored_after(name, step)[1].count(Status.STALE) == stale, step
    walks = [mirrored_after(name, step)[0].effect.walks[-1].outcome for step in (15, flushed)]
    assert len({outcome.address for outcome in walks if isinstance(outcome, Translated)}) == 2
    assert last(name).effect.reflected is not None


def test_without_invept_l2_goes_on_reading_the_old_page() -> None:
    old, new = (mirrored_after("nested-ept", step)[0].effect.walks[-1].outcome for step in (15, 20))
    assert isinstance(old, Translated)
    assert isinstance(new, Translated)
    assert old.address == new.address
    assert mirrored_after("nested-ept", 20)[1].count(Status.STALE) == 1


def test_a_large_page_of_l1_is_mirrored_by_a_direct_table() -> None:
    for name, level in (("l1-32-bit-npt", 2), ("nested-ept", 2)):
        _, found = mirrored_after(name, 16)
        (direct,) = [table for table in found.shadow if table.kind is TableKind.DIRECT]
        assert {link.guest_level for link in found.links if link.table == direct.hpa} == {level}


def test_a_pae_guest_without_nested_paging_reads_the_old_page_until_invlpg() -> None:
    name = "shadow-paging-pae-guest"
    stale = [mirrored_after(name, step)[1].count(Status.STALE) for step in (12, 13, 14, 15, 16)]
    assert stale == [0, 1, 1, 0, 0]
    pages = [mirrored_after(name, step)[0].effect.walks[-1].outcome for step in (11, 14, 16)]
    assert [isinstance(page, Translated) for page in pages] == [True] * 3
    assert pages[0].address == pages[1].address != pages[2].address  # type: ignore[union-attr]


# --- on the command line


@pytest.mark.parametrize("name", NAMES)
def test_run_prints_every_event_with_its_outcome(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(FOLDER / f"{name}.json")]) == 0
    text = capsys.readouterr().out
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert [int(head.split(" ", 1)[0]) for head in heads] == list(range(1, len(heads) + 1))
    told = ("GuestAccess", "ChangeMode", "LoadKvm")
    assert [h.rsplit(": ", 1)[1] for h in heads if h.split()[1].rstrip(":") in told] == EXPECTED[name]
    assert all(len(line) < 400 for line in text.splitlines())


def test_run_names_the_kernels_functions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(FOLDER / "linux-5.12-on-la57.json")]) == 0
    text = capsys.readouterr().out
    for piece in (
        "kvm_configure_mmu() from svm_hardware_setup(); get_max_npt_level(): the constant 4: max_tdp_level = 4",
        "npf_interception(): GPA 0xfffffff0, error 0x14",
        "mmu_set_spte(): SPTE ",
        "RET_PF_SPURIOUS",
        "endless: exit 3 is exit 2 again",
        "each round: exits +1\n",
        "a trace shows: kvm_exit, kvm_page_fault, kvm_mmu_spte_requested, kvm_entry",
        "assumed: npt_depth",
    ):
        assert piece in text


def test_run_with_walks_shows_every_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--walks", str(FOLDER / "amd-5-to-4.json")]) == 0
    text = capsys.readouterr().out
    assert "nPML5[0]" in text
    assert "29 references" in text


@pytest.mark.parametrize("name", NAMES)
def test_run_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", str(FOLDER / f"{name}.json")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert row["event"]["type"]
        if row["result"] == "endless":
            assert row["livelock"]["growth"]["exits"] >= 1
            assert row["exits"][-1]["actions"][0]["function"].endswith("()")
            assert row["exits"][-1]["walk"]["outcome"]["kind"] == "nested page fault"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "/nowhere/at/all.json"], "the scenario cannot be read (No such file or directory)."),
        (["run", str(ROOT)], "the scenario cannot be read (Is a directory)."),
        (["run", "a\0b"], "that is no name of a file"),
        (["run", str(ROOT / "pyproject.toml")], "This scenario is not JSON"),
        (["run"], "the following arguments are required"),
        (["run", "--json", "--walks", "x"], "not allowed with"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert says in errors
    assert errors.count("\n") == 1
