"""The pictures of the views are made with nobody there to answer, whatever a scene changed."""

from pathlib import Path

from tests.shots.__main__ import render


def test_a_changed_document_does_not_stop_the_pictures(tmp_path: Path) -> None:
    assert render(tmp_path, "1", "timeline", "walk") == 0
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {f"{scene}-{scheme}-100.png" for scene in ("timeline", "walk") for scheme in ("light", "dark")}
