"""The computed pages of resources/docs say what the engine says today."""

from engine.memory.image import open_image
from tests import docs


def test_the_effects_on_a_real_guest_are_as_documented(golden):
    with open_image(str(golden / "images" / docs.IMAGE.name)) as image:
        assert docs.render(image) == docs.PAGE.read_text(encoding="utf-8"), "run make docs"


def test_the_real_guests_tables_keep_running_in_the_vm(golden):
    """The kernel's own code is reached through the guest's tables and the nested ones: 24 references, or 19."""
    from engine.kvm.memslots import Pages
    from engine.machine.look import look

    with open_image(str(golden / "images" / docs.IMAGE.name)) as image:
        rip = dict(image.cpus[0].pointers)["RIP"]
        for pages, references in ((Pages.SMALL, 24), (Pages.THP, 19)):
            state = docs.sides(image, False, pages)[0].state
            walk = look(state, rip)
            assert (walk.ok, walk.references) == (True, references)
            assert state.memory.word(walk.outcome.address & ~7) == image.word(walk.gpa & ~7)
