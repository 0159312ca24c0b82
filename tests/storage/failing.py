"""Every call to the system fails in turn, while a file is saved and while an edit is recorded.

``python -m tests.storage.failing LIBRARY FOLDER``, with LIBRARY (``failing.c``) preloaded, prints a JSON object a line:
``{"doing", "call", "error", "said", "found"}``: what was done, which call failed how, the sentence that came of it (''
where all went well), and which document is there after that.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from engine import events as ev
from engine.edits import Edit, Insert
from engine.errors import InputError
from engine.scenario import Scenario
from storage import files, recovery
from storage.content import Content

ERRORS = (errno.EIO, errno.ENOSPC)
CONTENTS = {
    name: Content(Scenario(events=tuple(ev.Poke(8 * n, n) for n in range(length))))
    for length, name in enumerate(("none", "old", "new", "newer"))
}


class Library:
    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.disarm.restype = ctypes.c_char_p

    def failing(self, nth: int, error: int, act: Callable[[], object]) -> tuple[str, str]:
        """Does ``act`` with its ``nth`` call failing: which call that was ('': there was none), and what came of it."""
        said = ""
        self._library.arm(nth, error)
        try:
            act()
        except InputError as refused:
            said = str(refused)
        finally:
            call = self._library.disarm().decode()
        return call, said


def saving(library: Library, folder: Path, error: int) -> Iterator[dict[str, Any]]:
    path = str(folder / "a.wscope")
    for nth in count():
        for leftover in os.listdir(folder):
            os.unlink(folder / leftover)
        old = files.save(CONTENTS["old"], path)
        with suppress(OSError):
            os.setxattr(path, "user.note", b"kept")
        call, said = library.failing(nth, error, lambda old=old: files.save(CONTENTS["new"], path, old))  # type: ignore[misc]
        yield {"call": call, "said": said, "found": name_of(files.open_file(path).content)}
        if not call:
            return


def recording(library: Library, folder: Path, error: int) -> Iterator[dict[str, Any]]:
    """The edit after the one that could not be recorded is there, with all before it, when the program dies then."""
    for nth in count():
        state, after = folder / f"state-{error}-{nth}", folder / f"after-{error}-{nth}"
        session = recovery.begin(state, CONTENTS["none"])
        session.record(CONTENTS["old"], "old")
        insert: Edit = Insert(1, ev.Poke(8, 1))
        call, said = library.failing(nth, error, lambda s=session, i=insert: s.record(CONTENTS["new"], "new", i))  # type: ignore[misc]
        session.record(CONTENTS["newer"], "newer", Insert(2, ev.Poke(16, 2)))
        shutil.copytree(state, after)
        session.discard()
        (lost,) = recovery.find(after)
        yield {"call": call, "said": said, "found": name_of(lost.content)}
        lost.discard()
        if not call:
            return


def name_of(content: Content | None) -> str:
    return next(name for name, known in CONTENTS.items() if known == content)


def main(path: str, folder: str) -> None:
    library = Library(path)
    for error in ERRORS:
        for doing in (saving, recording):
            place = Path(folder) / f"{doing.__name__}-{error}"
            place.mkdir()
            for verdict in doing(library, place, error):
                print(json.dumps({"doing": doing.__name__, "error": error, **verdict}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
