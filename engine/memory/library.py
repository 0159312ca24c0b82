"""The images that scenarios name: opened once, shared by all that ask for them."""

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Protocol

from engine.errors import InputError
from engine.memory.image import Image, open_image
from engine.memory.unpack import Progress

RESOURCES = Path(__file__).resolve().parents[2] / "resources" / "images"
"""The images that come with the program."""
SCHEME = "resource:"
KEPT = 4
"""Images that stay open though nobody uses them: undo and redo do not unpack them again."""

_Key = tuple[str, int, int]


class Named(Protocol):
    """What names an image: `engine.events.ImageRef`."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int | None: ...


class Library:
    """Gives the image that a name stands for. May be asked from any thread."""

    def __init__(self, resources: Path = RESOURCES) -> None:
        self._resources = resources
        self._images: OrderedDict[_Key, Image] = OrderedDict()
        self._lock = Lock()

    def __call__(self, image: Named) -> Image:
        """The image that ``image`` names, as `engine.machine.Images` asks for it."""
        return self.load(image.path, image.size)

    def load(self, path: str, size: int | None = None, *, progress: Progress | None = None) -> Image:
        """The image in the file ``path`` or, for ``resource:NAME``, in one that comes with the program.

        ``size``: the file's bytes when it was named, None if not recorded. ``progress(done, total)`` is called while it
        is unpacked. Raises InputError with one sentence where there is no such image, or it has changed.
        """
        file = self.file(path)
        key = self._key(file)
        if key is not None and size not in (None, key[1]):
            raise InputError(
                f"{file.name}: this is not the file that the scenario was made on: it had {size:,} bytes, and has "
                f"{key[1]:,} now; put the old one back."
            )
        with self._lock:
            found = self._images.get(key) if key else None
            if found is not None and key:
                self._images.move_to_end(key)
                return found
        image = open_image(file, progress=progress)
        if key is not None:
            with self._lock:
                self._images[key] = image
                while len(self._images) > KEPT:
                    self._images.popitem(last=False)  # closed once no state holds it
        return image

    def file(self, path: str) -> Path:
        """Where the file named ``path`` lies. Raises InputError for a ``resource:`` that can be none of ours."""
        if not path.startswith(SCHEME):
            return Path(path)
        name = path.removeprefix(SCHEME)
        if not name or name != os.path.basename(name) or name.startswith("."):
            raise InputError(f"“{name[:60]}” is not the name of an image that comes with the program.")
        return self._resources / name

    def size(self, path: str) -> int | None:
        """Bytes of the file ``path`` as it lies on the disk; None where there is none."""
        key = self._key(self.file(path))
        return key[1] if key else None

    @staticmethod
    def _key(file: Path) -> _Key | None:
        """What tells one state of a file from another; None where it cannot be looked at."""
        try:
            status = file.stat()
        except (OSError, ValueError):
            return None
        return str(file), status.st_size, status.st_mtime_ns
