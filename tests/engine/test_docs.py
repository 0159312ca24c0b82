"""The computed pages of resources/docs say what the engine says today."""

import re

import pytest

from engine.memory.image import open_image
from engine.report.text import WIDTH
from tests.docs import linux_guest
from tests.docs.host_mode import CASES, KERNEL_KEYS, merged
from tests.docs.pages import FOLDER, PAGES, TEMPLATES, Page

BY_NAME = {page.name: page for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if page.needs is None], ids=lambda page: page.name)
def test_pages_are_as_computed(page: Page) -> None:
    assert page.render() == page.path.read_text(encoding="utf-8"), "run make docs"


def test_the_effects_on_a_real_guest_are_as_documented(golden):
    page = BY_NAME["effects-on-a-linux-guest.md"]
    with open_image(str(golden / "images" / linux_guest.IMAGE.name)) as image:
        assert page.render(linux_guest.of_image(image)) == page.path.read_text(encoding="utf-8"), "run make docs"


def test_the_real_guests_tables_keep_running_in_the_vm(golden):
    """The kernel's own code is reached through the guest's tables and the nested ones: 24 references, or 19."""
    from engine.kvm.memslots import Pages
    from engine.machine.look import look

    with open_image(str(golden / "images" / linux_guest.IMAGE.name)) as image:
        rip = dict(image.cpus[0].pointers)["RIP"]
        for pages, references in ((Pages.SMALL, 24), (Pages.THP, 19)):
            state = linux_guest.sides(image, False, pages)[0].state
            walk = look(state, rip)
            assert (walk.ok, walk.references) == (True, references)
            assert state.memory.word(walk.outcome.address & ~7) == image.word(walk.gpa & ~7)


# --- the mechanism


def test_every_template_has_its_page() -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == set(BY_NAME)


def test_a_field_without_a_place_is_noticed() -> None:
    page = BY_NAME["report-amd-4-to-5.txt"]
    with pytest.raises(ValueError, match="has no place for other"):
        page.render({"report": "", "other": ""})
    with pytest.raises(KeyError):
        page.render({})


def test_figures_are_computed_and_not_typed() -> None:
    """In the template of the host-mode page no address, SPTE or count of references is written out."""
    template = (TEMPLATES / "host-mode-after-kvm-init.md").read_text(encoding="utf-8")
    assert set(re.findall(r"0x[0-9a-f]+", template)) <= {"0xfff", "0x8", "0x1000", "0xfffff000"}
    assert not re.search(r"\d+ references", template)


# --- the host-mode page


def rows_of(head: str) -> list[list[str]]:
    """The rows of the table whose first heading is ``head``."""
    lines = (FOLDER / "host-mode-after-kvm-init.md").read_text(encoding="utf-8").splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_amd_is_concerned_and_intel_is_not() -> None:
    for row in rows_of("host"):
        name, _, who, built, walked, there, back, _ = row
        if name == "AMD, NPT" or name.startswith("AMD, a nested guest"):
            assert built != walked
            assert there.startswith("endless")
            assert back.startswith("reads its data" if who == "pCPU 1" else "endless")
        else:
            assert built == walked
            assert there == back
            assert there.startswith("reads its data")
    assert {row[0] for row in rows_of("host")} == {case.name for case in CASES}


def test_the_depth_is_what_goes_stale_on_amd_and_nothing_of_kvms_on_intel() -> None:
    lines = (FOLDER / "host-mode-after-kvm-init.md").read_text(encoding="utf-8")
    amd, intel = lines.split("From those values")[0].split("\nIntel:\n")
    stale = re.compile(r"^\| `([^`]+)` \|.*\| hardware: ", re.MULTILINE)
    assert set(stale.findall(amd)) == {"tdp_root_level", "max_tdp_level", "pgtable_l5_enabled()"}
    assert set(stale.findall(intel)) == {"pgtable_l5_enabled()"}


def test_every_kernel_has_its_row() -> None:
    assert len(rows_of("kernel")) == len(KERNEL_KEYS)


def test_no_host_survives_with_the_root_of_the_other_depth() -> None:
    for way, root, change, host, *_ in rows_of("way"):
        assert change == "either"
        if way == "MOV to CR4":
            assert host.startswith("#GP")
        elif root == "the same root":
            assert host.startswith("lost")


def test_rows_that_differ_in_one_cell_are_merged() -> None:
    assert merged([["a", "1", "x"], ["a", "2", "x"], ["b", "1", "x"]], 1) == [["a", "either", "x"], ["b", "1", "x"]]


def test_the_amd_report_can_be_sent() -> None:
    told = (FOLDER / "report-amd-4-to-5.txt").read_text(encoding="utf-8")
    assert told.isascii()
    assert max(map(len, told.splitlines())) <= WIDTH
