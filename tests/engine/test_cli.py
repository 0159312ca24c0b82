"""``python -m engine``: stable for other tools, so its output is held to the byte; bad input is one sentence."""

import gzip
import io
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.__main__ import main
from tests.conftest import ROOT
from tests.golden.sample import SAMPLE, lines_of

DUMPS = ROOT / "tests" / "data" / "dumps"
CORE = str(DUMPS / "debian-6.1-4level.core.gz")
PAE_CORE = str(DUMPS / "debian-6.1-686-pae.core.gz")
LA = "0x7f12_3456_7890"
RAW_REGISTERS = ["--cr0", "0x80010001", "--cr3", "1000", "--cr4", "20", "--efer", "d00"]
WORDS = {0x17F0: 0x2007, 0x2240: 0x3007, 0x3D10: 0x4007, 0x4B38: 0xABC_D007}


class Standard:
    """Standard input with given bytes, and what a run wrote to standard output."""

    def __init__(self, given: bytes) -> None:
        self.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(given)))
        self.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")

    def written(self) -> str:
        self.stdout.flush()
        return self.stdout.buffer.getvalue().decode()


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a run in this process."""
    standard, errors = Standard(stdin), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", standard.stdin)
        patch.setattr(sys, "stdout", standard.stdout)
        patch.setattr(sys, "stderr", errors)
        code = main(list(arguments))
        return code, standard.written(), errors.getvalue()


def rows(*arguments: str, stdin: bytes = b"") -> list[dict]:
    """The JSON Lines of a run that must go well."""
    code, out, errors = run(*arguments, stdin=stdin)
    assert (code, errors) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Raw memory of 64 KiB with the tables of `WORDS`."""
    memory = bytearray(0x10000)
    for address, word in WORDS.items():
        memory[address : address + 8] = word.to_bytes(8, "little")
    path = tmp_path_factory.mktemp("raw") / "memory.raw"
    path.write_bytes(memory)
    return str(path)


# --- walk


def test_walk_prints_the_steps() -> None:
    code, out, errors = run("walk", CORE, "0x402a82")
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "read of 1 byte at 0x40_2a82, user, CPL 3"
    assert lines[3].split() == ["#", "entry", "read", "at", "value", "flags", "verdict"]
    assert [line.split()[1] for line in lines[4:8]] == ["PML4[0]", "PDPT[0]", "PD[2]", "PT[2]"]
    assert "-> 0x1f9_7a82   4 KiB page   rights R – X U   key 0" in lines
    assert lines[-1] == "not in the image, assumed: EFER.NXE, PKRU"


def test_walk_as_json() -> None:
    (told,) = rows("walk", CORE, "402a82", "--json")
    assert told["outcome"]["kind"] == "translated"
    assert told["outcome"]["pa"] == "0x1f97a82"
    assert [step["table"] for step in told["steps"]] == ["PML4", "PDPT", "PD", "PT"]
    assert told["assumed"] == ["EFER.NXE", "PKRU"]


def test_a_walk_that_faults_is_an_answer() -> None:
    (told,) = rows("walk", CORE, "0", "--access", "w", "--json")
    assert (told["outcome"]["kind"], told["outcome"]["error_code"]) == ("page fault", 6)


def test_options_override_the_notes() -> None:
    (told,) = rows("walk", CORE, "0x402a82", "--cr3", "0x3000", "--cpl", "0", "--efer", "500", "--pkru", "1", "--json")
    assert (told["paging"]["cr3"], told["paging"]["efer"], told["paging"]["pkru"]) == ("0x3000", "0x500", "0x1")
    assert (told["access"]["cpl"], told["assumed"]) == (0, [])


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (["--cpl", "0"], "translated"),
        (["--access", "w", "--cpl", "3"], "translated"),
        (["--access", "x", "--cpl", "0", "--cr4", "100020"], "page fault"),  # SMEP
        (["--cpl", "0", "--cr4", "200020"], "page fault"),  # SMAP
        (["--cpl", "0", "--cr4", "200020", "--ac"], "translated"),
        (["--cpl", "0", "--cr4", "200020", "--rflags", "40002"], "translated"),
        (["--cr4", "1020"], "page fault"),  # LA57
        (["--cr0", "1"], "translated"),  # no paging
    ],
)
def test_raw_memory_is_walked_with_registers_given(raw: str, options: list[str], outcome: str) -> None:
    (told,) = rows("walk", raw, LA, *RAW_REGISTERS, *options, "--json")
    assert told["outcome"]["kind"] == outcome


def test_vendor_and_address_width_count(raw: str, tmp_path: Path) -> None:
    memory = bytearray(Path(raw).read_bytes())
    memory[0x17F1] |= 1  # bit 8 of the PML4E
    memory[0x4B3C] |= 1  # bit 32 of the PTE
    changed = tmp_path / "changed.raw"
    changed.write_bytes(memory)
    kinds = [
        rows("walk", str(changed), LA, *RAW_REGISTERS, "--cpl", "3", *options, "--json")[0]["outcome"]["kind"]
        for options in ([], ["--vendor", "amd"], ["--maxphyaddr", "32"], ["--maxphyaddr", "33"])
    ]
    assert kinds == ["translated", "page fault", "page fault", "translated"]


def test_an_access_across_a_page_is_two_walks(raw: str) -> None:
    told = rows("walk", raw, "0x7f1234567ffd", *RAW_REGISTERS, "--cpl", "3", "--size", "8", "--json")
    assert [walk["outcome"]["kind"] for walk in told] == ["translated", "page fault"]
    assert told[1]["outcome"]["cr2"] == "0x7f1234568000"


def test_what_the_image_does_not_hold_is_unknown(raw: str) -> None:
    (told,) = rows("walk", raw, LA, *RAW_REGISTERS, "--cr3", "20000", "--json")
    assert told["outcome"] == {"kind": "unknown", "address": "0x207f0"}


def test_a_processor_that_runs_under_pae_walks_although_its_pdptes_have_bit_5_set() -> None:
    (told,) = rows("walk", PAE_CORE, "b7ef6000", "--json")
    assert int(told["steps"][0]["value"], 16) & 1 << 5
    assert told["outcome"]["kind"] == "translated"


# --- walk through two stages


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A host's raw memory: nested tables at 1 MiB, the guest's memory, with the tables of `WORDS`, at 2 MiB."""
    words = {0x100000: 0x101007, 0x101000: 0x102007, 0x102000: 0x103007}
    words |= {0x103000 + 8 * n: 0x200037 + 0x1000 * n for n in range(16)}
    words |= {0x200000 + address: word for address, word in (WORDS | {0x4B38: 0x5007}).items()}
    words |= {0x105000: 0x100007}
    memory = bytearray(0x400000)
    for address, word in words.items():
        memory[address : address + 8] = word.to_bytes(8, "little")
    path = tmp_path_factory.mktemp("host") / "host.raw"
    path.write_bytes(memory)
    return str(path)


HOST = ["--host-cr0", "80010001", "--host-cr4", "20", "--host-efer", "d00"]


def test_an_ept_walk_of_a_hosts_memory(host: str) -> None:
    (told,) = rows("walk", host, LA, "--eptp", "10005e", *RAW_REGISTERS, "--cpl", "3", "--json")
    assert (told["outcome"]["pa"], told["gpa"], told["references"]) == ("0x205890", "0x5890", 24)
    assert told["second"] == {"kind": "EPT", "mode": "4-level EPT", "root": "0x100000"}


def test_an_npt_walk_takes_its_depth_from_the_host(host: str) -> None:
    arguments = ["walk", host, LA, *RAW_REGISTERS, "--cpl", "3", "--json"]
    (four,) = rows(*arguments, "--npt", "100000", *HOST)
    (five,) = rows(*arguments, "--npt", "105000", *HOST[:2], "--host-cr4", "1020", "--host-efer", "d00")
    (mistaken,) = rows(*arguments, "--npt", "100000", *HOST[:2], "--host-cr4", "1020", "--host-efer", "d00")
    assert (four["outcome"]["pa"], four["references"]) == ("0x205890", 24)
    assert (five["outcome"]["pa"], five["references"]) == ("0x205890", 29)
    assert mistaken["outcome"]["kind"] == "nested page fault"


def test_without_registers_the_guest_has_no_paging(host: str) -> None:
    (told,) = rows("walk", host, "0x5678", "--eptp", "10005e", "--json")
    assert (told["outcome"]["pa"], told["references"]) == ("0x205678", 4)


def test_two_stages_as_text_are_a_grid(host: str) -> None:
    code, out, _ = run("walk", host, LA, "--eptp", "10005e", *RAW_REGISTERS, "--cpl", "3")
    assert code == 0
    assert "gPML4  1 [0]   2 [0]   3 [0]   4 [1]   5 gPML4[254]" in out


def test_the_registers_of_an_image_are_the_hosts() -> None:
    (told,) = rows("walk", CORE, "0x1000", "--npt", "0x35de000", "--json")
    assert (told["paging"]["mode"], told["second"]["mode"], told["assumed"]) == ("none", "4-level", ["EFER.NXE"])


# --- translate


@pytest.mark.parametrize("name", ["4level", "5level", "686-pae", "686"])
def test_translate_answers_as_gva2gpa(name: str) -> None:
    packed = DUMPS / f"debian-6.1-{name}.gva2gpa.json.gz"
    asked = json.loads(gzip.decompress(packed.read_bytes()))["rows"]
    stdin = "\n".join(row["va"] for row in asked).encode()
    told = rows("translate", str(DUMPS / f"debian-6.1-{name}.core.gz"), stdin=stdin)
    assert told == [{"va": row["va"], "pa": row["pa"]} for row in asked]


def test_translate_takes_addresses_in_any_writing() -> None:
    told = rows("translate", CORE, stdin=b" 402A82\n\n0x40_2a82\r\n402a82")
    assert told == [{"va": "0x402a82", "pa": "0x1f97a82"}] * 3


def test_translate_tells_what_it_cannot_know(raw: str) -> None:
    told = rows("translate", raw, *RAW_REGISTERS, "--cr3", "20000", stdin=b"7f1234567890\n800000000000")
    assert told == [{"va": "0x7f1234567890", "pa": None, "unknown": "0x207f0"}, {"va": "0x800000000000", "pa": None}]


def test_translate_answers_what_comes_before_a_bad_line() -> None:
    code, out, errors = run("translate", CORE, stdin=b"402a82\n\nhello\n402a82")
    assert (code, out) == (2, '{"va":"0x402a82","pa":"0x1f97a82"}\n')
    assert errors == "Line 3: “hello” is not an address: write it in hex, such as 0x7f12_3456_7000.\n"


# --- map


def test_map_lists_runs_of_pages(raw: str) -> None:
    assert rows("map", raw, *RAW_REGISTERS, "--json") == [
        {"va": "0x7f1234567000", "pa": "0xabcd000", "size": 4096, "page_size": 4096, "w": True, "u": True, "nx": False}
    ]


def test_map_is_sorted_and_coalesced() -> None:
    told = rows("map", CORE, "--json")
    assert len(told) > 100
    assert {row["page_size"] for row in told} == {1 << 12, 1 << 21}
    for row, after in pairwise(told):
        start, end, size = int(row["va"], 16), int(after["va"], 16), row["size"]
        assert start + size <= end
        same = all(row[name] == after[name] for name in ("page_size", "w", "u", "nx"))
        assert not (same and start + size == end and int(row["pa"], 16) + size == int(after["pa"], 16)), (row, after)


def test_map_as_text() -> None:
    code, out, errors = run("map", CORE)
    assert (code, errors) == (0, "")
    assert out.splitlines()[1] == (
        "0x0000_0000_0040_1000 0x0000_0000_0046_afff 0x0_0000_01f9_6000 -UX    424 KiB 4 KiB pages"
    )
    assert max(map(len, out.splitlines())) <= 100


def test_map_says_what_it_cannot_list(raw: str, tmp_path: Path) -> None:
    memory = bytearray(Path(raw).read_bytes())
    memory[0x1000:0x1008] = (0x50007).to_bytes(8, "little")  # a table beyond the image
    memory[0x1008:0x1010] = (0x2087).to_bytes(8, "little")  # a reserved bit
    holed = tmp_path / "holed.raw"
    holed.write_bytes(memory)
    code, out, errors = run("map", str(holed), *RAW_REGISTERS, "--json")
    assert (code, len(out.splitlines())) == (0, 1)
    assert errors.splitlines() == [
        "0x8000000000 bytes of addresses are not listed: an entry has a reserved bit set.",
        "0x8000000000 bytes of addresses are not listed: the image does not hold the tables.",
    ]


# --- cases


@pytest.mark.parametrize("name", ["access", "nested"])
def test_cases_are_answered_line_by_line(name: str) -> None:
    lines = [json.loads(line) for line in lines_of(SAMPLE / f"{name}.jsonl.gz") if b'"quirks"' not in line][::10]
    asked = [{key: value for key, value in line.items() if key not in ("expect", "ad_after")} for line in lines]
    told = rows("cases", stdin="\n".join(map(json.dumps, asked)).encode())
    assert [row["id"] for row in told] == [line["id"] for line in lines]
    assert all(row.keys() == {"id", "expect", "ad_after"} for row in told)
    assert [row["expect"]["ok"] for row in told] == [line["expect"]["ok"] for line in lines]


CASE = json.loads(lines_of(SAMPLE / "access.jsonl.gz")[0])
NESTED = json.loads(lines_of(SAMPLE / "nested.jsonl.gz")[0])
BAD_CASES = [
    (b"{", "Line 1 is not a case"),
    (b"\xff\xfe", "Line 1 is not a case"),
    (b"[]", "Expected `object`, got `array`"),
    (b"\n\n[]", "Line 3 is not a case"),
    (b"[" * 100_000, "Line 1 is not a case"),
    ({**CASE, "cr0": 5}, "Expected `str`, got `int` - at `$.cr0`"),
    ({**CASE, "cr0": "five"}, "five"),
    ({**CASE, "cr3": "0x1" + "0" * 16}, "unsigned 64-bit"),
    ({**CASE, "cr3": "-1"}, "unsigned 64-bit"),
    ({**CASE, "cpl": 4}, "CPL is 4"),
    ({**CASE, "maxphyaddr": 53}, "MAXPHYADDR is 53"),
    ({**CASE, "access": {"type": "jump", "va": "0x0"}}, "Invalid enum value 'jump'"),
    ({**CASE, "memory": [["0x1001", ["0x0"]]]}, "0x1001"),
    ({**CASE, "memory": [["0xffffffffffffff", ["0x0"]]]}, "not the address of a word"),
    ({name: value for name, value in CASE.items() if name != "access"}, "missing required field `access`"),
    ({name: value for name, value in NESTED.items() if name not in ("ncr3", "eptp")}, "needs eptp"),
]


@pytest.mark.parametrize(("line", "part"), BAD_CASES, ids=[part for _, part in BAD_CASES])
def test_a_line_that_is_no_case_is_named(line, part):
    code, out, errors = run("cases", stdin=line if isinstance(line, bytes) else json.dumps(line).encode())
    assert (code, out) == (2, "")
    assert part in errors
    assert errors.count("\n") == 1


def test_the_answers_before_a_bad_line_are_given() -> None:
    code, out, errors = run("cases", stdin=json.dumps(CASE).encode() + b"\n{}")
    assert code == 2
    assert json.loads(out)["id"] == CASE["id"]
    assert errors.startswith("Line 2 is not a case: ")


# --- bad input


BAD_ARGUMENTS = [
    ([], "COMMAND"),
    (["fly"], "invalid choice"),
    (["walk"], "SOURCE, ADDRESS"),
    (["walk", CORE], "ADDRESS"),
    (["walk", CORE, "0xzz"], "is not an address"),
    (["walk", CORE, "0x12345678901234567"], "more than 64 bits"),
    (["walk", CORE, "0", "--access", "q"], "--access"),
    (["walk", CORE, "0", "--cpl", "4"], "--cpl"),
    (["walk", CORE, "0", "--size", "3"], "--size"),
    (["walk", CORE, "0", "--cr3", "oops"], "--cr3"),
    (["walk", CORE, "0", "--maxphyaddr", "53"], "32 to 52"),
    (["walk", CORE, "0", "--maxphyaddr", "²"], "32 to 52"),
    (["walk", CORE, "0", "--vendor", "via"], "--vendor"),
    (["walk", CORE, "0", "--cpu", "1"], "There is no CPU 1: the image has the registers of 1."),
    (["walk", CORE, "0", "--cpu", "-1"], "--cpu"),
    (["walk", CORE, "0", "--json5"], "--json5"),
    (["walk", CORE, "0", "--npt", "0", "--eptp", "1e"], "not allowed with"),
    (["walk", CORE, "0", "--eptp", "0"], "The guest cannot be entered: EPTP: walk length"),
    (["walk", CORE, "0", "--npt", "0", "--host-cr0", "1"], "The guest cannot be entered: VMRUN"),
    (["walk", "no such file", "0"], "no such file"),
    (["walk", str(DUMPS), "0"], "folder"),
    (["walk", __file__, "0"], "text file"),
    (["map", "no such file"], "no such file"),
    (["translate", "no such file"], "no such file"),
    (["cases", "more"], "more"),
]


@pytest.mark.parametrize(("arguments", "part"), BAD_ARGUMENTS, ids=[" ".join(a)[-40:] for a, _ in BAD_ARGUMENTS])
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], part: str) -> None:
    code, out, errors = run(*arguments)
    assert (code, out) == (2, "")
    assert part in errors
    assert errors.count("\n") == 1
    assert errors.endswith(".\n")


@pytest.mark.parametrize("command", [["walk", "0"], ["map"], ["translate"]], ids=lambda command: command[0])
def test_an_image_without_registers_asks_for_them(raw: str, command: list[str]) -> None:
    code, _, errors = run(command[0], raw, *command[1:])
    assert code == 2
    assert "holds no registers: give at least --cr0 and --cr3" in errors


def test_an_image_without_registers_asks_for_the_hosts(host: str) -> None:
    code, _, errors = run("walk", host, "0", "--npt", "100000", "--host-cr4", "20")
    assert code == 2
    assert "give --host-cr0, --host-cr4 and --host-efer" in errors


@given(stdin=st.binary(max_size=200))
def test_no_input_breaks_translate_or_cases(stdin):
    for command in (["cases"], ["translate", CORE]):
        code, _, errors = run(*command, stdin=stdin)
        assert code in (0, 2)
        assert bool(errors) == (code == 2)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("0x1000"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(CASE)), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(case=st.sampled_from([CASE, NESTED]), data=st.data())
def test_no_case_with_a_wrong_value_breaks_it(case, data):
    changed = {**case, data.draw(st.sampled_from(sorted(case))): data.draw(values)}
    code, _, errors = run("cases", stdin=json.dumps(changed).encode())
    assert code in (0, 2)
    assert errors.count("\n") == (code == 2)


# --- as a process


def process(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "engine", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, **options)


def test_it_runs_as_a_module() -> None:
    result = process("walk", CORE, "0x402a82", "--json")
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(result.stdout)["outcome"]["pa"] == "0x1f97a82"


def test_help_is_there_for_every_command() -> None:
    for command in ([], ["walk"], ["translate"], ["map"], ["cases"]):
        result = process(*command, "--help")
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout.startswith(b"usage: python -m engine")


def test_a_walk_does_not_load_numpy() -> None:
    script = (
        "import sys; from engine.__main__ import main\n"
        f"main(['walk', {CORE!r}, '0x402a82'])\n"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "engine", "map", CORE, "--json"]
    result = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("stream", ["<&-", ">&-"])
def test_a_closed_stream_is_one_sentence(stream: str) -> None:
    shell = f'"{sys.executable}" -m engine cases {stream}'
    result = subprocess.run(shell, shell=True, cwd=ROOT, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (2, b"Standard input and standard output must be open.\n")


def test_an_answer_comes_as_soon_as_its_line() -> None:
    command = [sys.executable, "-m", "engine", "translate", CORE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for _ in range(3):
            running.stdin.write(b"402a82\n")
            running.stdin.flush()
            assert running.stdout.readline() == b'{"va":"0x402a82","pa":"0x1f97a82"}\n'
        running.stdin.close()
    assert running.returncode == 0
