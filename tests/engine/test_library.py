"""Images by name: opened once, told apart when the file changes, refused with a sentence."""

import gc
import gzip
import os
import weakref
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.events import ImageRef, OpenImage
from engine.machine import Refusal, State, apply, start
from engine.memory.library import KEPT, Library
from engine.scenario import Scenario

BUILT_IN = "resource:debian-6.1-4level.core.gz"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "memory.raw"
    path.write_bytes(bytes(8192))
    return path


def test_a_resource_is_an_image_that_comes_with_the_program() -> None:
    image = Library()(ImageRef(BUILT_IN))
    assert image.format == "ELF64 core"
    assert image.cpus[0].registers.cr3 == 0x35DE000


@pytest.mark.parametrize("name", ["", "../pyproject.toml", "a/b", ".hidden", ".."])
def test_a_resource_can_only_be_a_plain_name(name: str) -> None:
    with pytest.raises(InputError, match="is not the name of an image"):
        Library().load(f"resource:{name}")


def test_an_image_is_opened_once_and_shared(raw: Path) -> None:
    library = Library()
    assert library.load(str(raw)) is library.load(str(raw))


def test_a_file_that_changed_is_opened_again(raw: Path) -> None:
    library = Library()
    before = library.load(str(raw))
    raw.write_bytes(bytes(12288))
    assert library.load(str(raw)) is not before


def test_a_file_of_another_size_than_the_scenario_was_made_on_is_refused(raw: Path) -> None:
    library = Library()
    assert library.load(str(raw), library.size(str(raw))).size == 8192
    with pytest.raises(InputError, match="had 4,096 bytes, and has 8,192 now"):
        library(ImageRef(str(raw), 4096))


def test_an_image_nobody_uses_any_more_is_let_go(tmp_path: Path) -> None:
    library = Library()
    images = []
    for number in range(KEPT + 3):
        path = tmp_path / f"{number}.raw"
        path.write_bytes(bytes(4096))
        images.append(weakref.ref(library.load(str(path))))
    gc.collect()
    assert [image() is not None for image in images] == [False] * 3 + [True] * KEPT


def test_unpacking_reports_its_progress(tmp_path: Path) -> None:
    path = tmp_path / "memory.gz"
    path.write_bytes(gzip.compress(os.urandom(1 << 20)))
    seen: list[tuple[int, int]] = []
    Library().load(str(path), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_a_scenario_whose_image_is_missing_is_refused_with_the_name_of_the_file() -> None:
    state = start(Scenario().configuration)
    after = apply(state, OpenImage(ImageRef("/nowhere/guest.core")), Library())
    assert isinstance(after, Refusal)
    assert after.reason.startswith("guest.core: ")


def test_a_state_over_the_built_in_image_reads_its_tables() -> None:
    after = apply(start(Scenario().configuration), OpenImage(ImageRef(BUILT_IN)), Library())
    assert isinstance(after, State)
    assert after.memory.word(0x35DE000 + 254 * 8) == 0x1D38C067
