"""``python -m engine effects``: two steps of a scenario file, or two pCPUs at one step, compared."""

import json

import pytest

from engine import codec, events
from engine.scenario import Scenario
from tests.engine.test_cli import run

EVENTS = (
    events.BootHost(five_level=True), events.LoadKvm(), events.CreateVm(), events.CreateVcpu(),
    events.SetMemslot(size=16 << 20), events.Populate(), events.ChangeMode(pcpu=1, la57=False),
    events.MoveVcpu(pcpu=1),
)  # fmt: skip
POPULATED, MOVED = 6, 8


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    file = tmp_path_factory.mktemp("effects") / "change.json"
    file.write_text(codec.encode_scenario(Scenario(events=EVENTS)))
    return str(file)


def steps(a, b):
    return ["--from", str(a), "--to", str(b)]


def test_json_holds_sides_figures_and_ranges(scenario):
    code, out, errors = run("effects", scenario, *steps(POPULATED, MOVED), "--json")
    assert (code, errors) == (0, "")
    found = json.loads(out)
    assert found["from"] | {"root": ""} == {
        "step": 6, "vm": 0, "vcpu": 0, "pcpu": 0, "walked_as": "5-level NPT", "root": "",
    }  # fmt: skip
    assert found["to"]["pcpu"] == 1
    assert found["to"]["walked_as"] == "4-level NPT"
    assert found["to"]["root"] == found["from"]["root"]
    assert found["pages"] == {"table-page": 8, "not-present": 4088}
    tables, rest = found["ranges"][0], found["ranges"][1:]
    assert (tables["gpa"], tables["pages"], tables["class"]) == ("0x0", 8, "table-page")
    assert tables["b_owner"] == "KVM page table, level 1, of VM 0"
    assert tables["b_rights"] == "RWX"
    assert tables["kvm"]["answer"] == "never-asked"
    assert sum(row["pages"] for row in rest) == 4088
    assert {(row["b"], row["kvm"]["answer"]) for row in rest} == {("not-present", "spurious-loop")}
    assert rest[0]["kvm"]["each_round"]["pf_spurious"] == 1


def test_two_pcpus_at_one_step_are_two_sides(scenario):
    code, out, _ = run("effects", scenario, *steps(MOVED, MOVED), "--from-pcpu", "0", "--to-pcpu", "1", "--json")
    assert code == 0
    assert json.loads(out)["pages"] == {"table-page": 8, "not-present": 4088}
    _, back, _ = run("effects", scenario, *steps(MOVED, MOVED), "--to-pcpu", "0", "--json")
    assert json.loads(back)["pages"] == {"restored": 4096}


def test_text_says_the_same_in_lines(scenario):
    code, out, errors = run("effects", scenario, *steps(POPULATED, MOVED))
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("A: step 6, VM 0 vCPU 0 on pCPU 0, 5-level NPT, nCR3 0x")
    assert lines[1].startswith("B: step 8, VM 0 vCPU 0 on pCPU 1, 4-level NPT, nCR3 0x")
    assert "     4,088 pages  not-present" in lines
    assert "GPA range, pages, class: A -> B, what KVM does with a read" in lines
    table = next(line for line in lines if line.startswith("0x0000_0000 0x0000_7fff"))
    assert "table-page" in table
    assert table.endswith("never asked: no exit")


def test_the_same_step_twice_has_no_ranges(scenario):
    _, out, _ = run("effects", scenario, *steps(POPULATED, POPULATED))
    assert out.splitlines()[3:] == ["     4,096 pages  same"]


def test_events_that_did_not_happen_are_told(tmp_path):
    file = tmp_path / "refused.json"
    file.write_text(codec.encode_scenario(Scenario(events=(*EVENTS[:6], events.LoadKvm()))))
    code, _, errors = run("effects", str(file), *steps(6, 7))
    assert code == 0
    assert errors.splitlines() == ["Event 7 (LoadKvm) did not happen: KVM is loaded already: unload it first."]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (steps(6, 99), "--to 99: the scenario has steps 0 to 8."),
        (steps(0, 8), "--from 0: there is no host at this step, so no VM to compare."),
        (steps(2, 8), "--from 2: There is no VM 0."),
        (steps(5, 8), "--from 5: vCPU 0 has no tables of KVM's before its first access: make one."),
        ([*steps(6, 8), "--to-pcpu", "7"], "--to 8: There is no pCPU 7."),
        ([*steps(6, 8), "--vcpu", "3"], "--from 6: VM 0 has no vCPU 3: it has 1."),
        (["--from", "x", "--to", "8"], "python -m engine effects: argument --from: x is not the number of a step; "
                                       "--help tells what can be given."),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(scenario, arguments, sentence):
    assert run("effects", scenario, *arguments) == (2, "", sentence + "\n")
