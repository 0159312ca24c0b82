"""Memory images of a scenario: named relative to the file, opened only with leave, and sent along inside it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events as ev
from engine.arch.memory import FRAME_SIZE
from engine.errors import InputError
from engine.events import ImageRef
from engine.memory.image import Image, open_image
from engine.memory.library import Library
from engine.scenario import Replay, Scenario
from storage import container, embedding, files, images
from storage.content import Content, Embedding, ImageFile
from storage.embedding import Shelf
from storage.errors import Problem, StorageError
from storage.images import Permit
from tests.elfwriter import Load, core, cpu_note, note
from tests.storage import fixture

REAL = Library()


@pytest.fixture(scope="module")
def real() -> Image:
    return REAL(ImageRef(fixture.IMAGE))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_core(tmp_path_factory.mktemp("small") / "x.core")


def small_core(path: Path) -> Path:
    loads = [Load(0x3000, b"\x11" * 0x2000), Load(0x9000, b"\x22" * 0x1000), Load(0x20_0010, b"\x33" * 100)]
    path.write_bytes(core(loads, notes=cpu_note(cr3=0x3000, rip=0x1234) + note("VMCOREINFO", b"OSRELEASE=6.1\n")))
    return path


# --- names


@given(st.text(st.sampled_from("/.ab:\n%\udcff"), max_size=12))
def test_a_path_finds_its_way_back(path: str) -> None:
    content = Content(Scenario(events=(ev.OpenImage(ImageRef(path)), ev.SetMemslot(image=ImageRef(path)))))
    inside = images.relative(images.resolved(content, "/a/b"), "/a/b")
    assert images.resolved(inside, "/a/b") == images.resolved(content, "/a/b")


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/a/b/x.core", "x.core"),
        ("/a/x.core", "../x.core"),
        ("/x.core", "../../x.core"),
        ("/a/b/../x.core", "/a/b/../x.core"),
        ("resource:x", "resource:x"),
        ("/a/b/resource:x", "./resource:x"),
    ],
)
def test_how_paths_stand_in_a_file(path: str, inside: str) -> None:
    content = Content(Scenario(events=(ev.OpenImage(ImageRef(path)),)))
    assert images.paths(images.relative(content, "/a/b")) == {inside}
    assert images.paths(images.resolved(images.relative(content, "/a/b"), "/a/b")) == {path}


# --- leave to open


def test_only_images_beside_the_file_need_no_question(tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "deeper").mkdir(parents=True)
    (here / "way out").symlink_to(tmp_path)
    (here / "loop").symlink_to("loop")
    inside = [*(str(here / name) for name in ("a.core", "deeper/b.core", "deeper/../c")), "resource:debian"]
    outside = [str(tmp_path / "x"), "/etc/passwd", str(here / ".." / "x"), str(here / "way out" / "x"), "/dev/zero"]
    odd = [str(here / "loop" / "x"), "a\0b"]
    permit = Permit(str(here))
    assert [permit.allows(path) for path in inside] == [True] * 4
    assert [permit.allows(path) for path in outside + odd] == [False] * 7
    content = Content(Scenario(events=tuple(ev.OpenImage(ImageRef(path)) for path in inside + outside)))
    assert permit.to_ask(content) == sorted(outside)
    permit.allow("/etc/passwd")
    assert "/etc/passwd" not in permit.to_ask(content)
    assert Permit(None).to_ask(content) == []


def test_an_image_outside_is_not_touched_before_it_is_allowed(tmp_path: Path) -> None:
    """Nothing looks at it: not even whether it is there."""
    asked: list[str] = []

    def never(ref: ImageRef) -> Image:
        asked.append(ref.path)
        raise InputError("no")

    content = Content(Scenario(events=(ev.OpenImage(ImageRef("/elsewhere/x.core")),)))
    permit = Permit(str(tmp_path))
    replay = Replay(content.scenario, Shelf(content, permit, never))
    refusal = replay.refusal(1)
    assert refusal is not None
    assert refusal.reason == "x.core: it lies outside the scenario's folder; allow it, or move the image there."
    assert asked == []
    permit.allow("/elsewhere/x.core")
    Replay(content.scenario, Shelf(content, permit, never)).state(1)
    assert asked == ["/elsewhere/x.core"]


# --- frames that travel


def test_a_scenario_is_sent_without_its_image(tmp_path: Path) -> None:
    """The receiver has nothing but the file, and sees the very same."""
    path = str(small_core(tmp_path / "x.core"))
    paging = ev.SetRegister("cr0", 0x8000_0001)
    scenario = Scenario(events=(ev.OpenImage(ImageRef(path)), paging, ev.AccessMemory(0), ev.Poke(0x9000, 5)))
    content = embedding.embed(Content(scenario), path, open_image(path), embedding.needed(scenario, REAL)[path])
    files.save(content, str(tmp_path / "a.wscope"))
    there = Replay(scenario, REAL).state(4)
    os.unlink(path)
    received = files.open_file(str(tmp_path / "a.wscope"))
    shelf = Shelf(received.content, Permit(received.file.folder), REAL)
    here = Replay(received.content.scenario, shelf).state(4)
    assert here.registers == there.registers
    assert Replay(received.content.scenario, shelf).state(3).effect == Replay(scenario, shelf).state(3).effect


def test_a_real_image_replays_the_same_from_what_is_embedded(real: Image) -> None:
    scenario = Scenario(events=fixture.EVENTS[:5])
    needed = embedding.needed(scenario, REAL)
    assert set(needed) == {fixture.IMAGE}
    assert 4 <= len(needed[fixture.IMAGE]) <= 6, "four tables, and at most the page and its neighbour"
    content = embedding.embed(Content(scenario), fixture.IMAGE, real, needed[fixture.IMAGE])
    rebuilt = embedding.rebuild(content, content.images[0])
    assert rebuilt.cpus == real.cpus
    assert rebuilt.vmcoreinfo == real.vmcoreinfo
    one, other = (Replay(scenario, images) for images in (REAL, lambda ref: rebuilt))
    assert [one.state(n).effect for n in range(6)] == [other.state(n).effect for n in range(6)]


@given(st.sets(st.sampled_from([2, 3, 4, 5, 8, 9, 10, 0x1FF, 0x200, 0x201])))
def test_an_embedded_image_is_the_image_where_it_has_frames(small: Path, pfns: set[int]) -> None:
    with open_image(small) as image:
        content = embedding.embed(Content(), "x.core", image, pfns)
        content, _ = container.unpack(container.pack(content))
        assert set(content.images[0].embedded.frames) == pfns & {3, 4, 9, 0x200}  # type: ignore[union-attr]
        if not pfns & {3, 4, 9, 0x200}:
            return
        with embedding.rebuild(content, content.images[0]) as rebuilt:
            assert rebuilt.cpus == image.cpus
            for pfn in (2, 3, 4, 5, 8, 9, 10, 0x1FF, 0x200, 0x201):
                expected = image if pfn in pfns else None
                assert rebuilt.frame(pfn) == (expected.frame(pfn) if expected else None)
                assert rebuilt.partial(pfn) == (expected.partial(pfn) if expected else None)


def test_equal_frames_are_kept_once_and_go_with_the_last_image(tmp_path: Path) -> None:
    path = small_core(tmp_path / "x.core")
    with open_image(path) as image:
        content = embedding.embed(Content(), "one", image, [3, 4])
        content = embedding.embed(content, "two", image, [4, 9])
        content = embedding.embed(content, "one", image, [9])
    assert len(content.frames) == 2
    assert [sorted(file.embedded.frames) for file in content.images if file.embedded] == [[3, 4, 9], [4, 9]]
    content = embedding.remove(content, "one")
    assert len(content.frames) == 2
    assert embedding.remove(content, "two").frames == {}


def test_the_image_itself_is_better_than_what_is_embedded(tmp_path: Path) -> None:
    path = str(small_core(tmp_path / "x.core"))
    with open_image(path) as image:
        content = embedding.embed(Content(), path, image, [3])
    shelf = Shelf(content, Permit(str(tmp_path)), REAL)
    assert shelf(ImageRef(path)).frame(9) is not None
    os.unlink(path)
    assert shelf(ImageRef(path)).frame(9) is None
    assert shelf(ImageRef(path)).frame(3) is not None
    assert shelf(ImageRef(path)) is shelf(ImageRef(path))


def test_too_many_pieces_are_refused(tmp_path: Path) -> None:
    loads = [Load(2 * n, b"\xaa") for n in range(65_534)]
    (tmp_path / "x.core").write_bytes(core(loads, xnum=65_535))
    with open_image(tmp_path / "x.core") as image, pytest.raises(StorageError, match="too many pieces") as caught:
        embedding.embed(Content(), "x", image, range(40))
    assert caught.value.problem is Problem.TOO_LARGE


def test_frames_that_are_not_what_they_were_are_refused() -> None:
    file = ImageFile("x", embedded=Embedding({1: bytes(32)}, {}, 62))
    for data in (zlib.compress(bytes(FRAME_SIZE)), zlib.compress(bytes(FRAME_SIZE + 1)), b"nonsense", b""):
        with pytest.raises(StorageError, match="what the scenario holds of it is damaged"):
            embedding.rebuild(Content(frames={bytes(32): data}, images=(file,)), file)
