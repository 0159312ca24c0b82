"""The memory images that a scenario names: where they lie, and which of them may be opened.

In a file, a path is relative to the file, so that both can move together; in an open document it is absolute. A file
can name any path, so one outside the file's folder is only opened after somebody was asked.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from engine.events import Event, ImageRef
from engine.memory.library import SCHEME
from storage.content import Content

_FIELDS: dict[type, tuple[str, ...]] = {}
"""The fields of an event's type that are, or can be, an image."""


def _image_fields(event: Event) -> tuple[str, ...]:
    kind = type(event)
    if kind not in _FIELDS:
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        _FIELDS[kind] = tuple(field.encode_name for field in info.fields if _names_image(field.type))
    return _FIELDS[kind]


def _names_image(kind: msgspec.inspect.Type) -> bool:
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return any(isinstance(kind, msgspec.inspect.StructType) and kind.cls is ImageRef for kind in kinds)


def image_refs(event: Event) -> dict[str, ImageRef]:
    """The images that ``event`` names, by field."""
    named = {field: getattr(event, field) for field in _image_fields(event)}
    return {field: ref for field, ref in named.items() if ref is not None}


def paths(content: Content) -> set[str]:
    """The paths of all images that a scenario's events name."""
    return {ref.path for event in content.scenario.events for ref in image_refs(event).values()}


def _map_paths(content: Content, change: Callable[[str], str]) -> Content:
    def events() -> Iterator[Event]:
        for event in content.scenario.events:
            changed = {
                field: msgspec.structs.replace(ref, path=change(ref.path)) for field, ref in image_refs(event).items()
            }
            yield msgspec.structs.replace(event, **changed) if changed else event

    scenario = msgspec.structs.replace(content.scenario, events=tuple(events()))
    images = tuple(msgspec.structs.replace(image, path=change(image.path)) for image in content.images)
    return msgspec.structs.replace(content, scenario=scenario, images=images)


def resolved(content: Content, folder: str) -> Content:
    """``content`` with absolute paths, of a file in ``folder`` (absolute)."""
    return _map_paths(content, lambda path: _resolved(path, folder))


def _resolved(path: str, folder: str) -> str:
    if path.startswith(SCHEME) or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, path))


def relative(content: Content, folder: str) -> Content:
    """The inverse of `resolved`. A path that is not in its shortest form stays: “..” after a link means something."""
    return _map_paths(content, lambda path: _relative(path, folder))


def _relative(path: str, folder: str) -> str:
    if not os.path.isabs(path):
        return path
    found = os.path.relpath(path, folder)
    if found.startswith(SCHEME):
        found = f"./{found}"
    return found if _resolved(found, folder) == path else path


class Permit:
    """Lets an opened scenario have the images that it may have, and says no to others with a sentence.

    Those in the file's ``folder`` (None: not saved yet, hence nobody else's) and those that come with the program need
    no leave; ask before `allow`.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._allowed: set[str] = set()

    def allow(self, path: str) -> None:
        self._allowed.add(path)

    def allows(self, path: str) -> bool:
        if self._folder is None or path.startswith(SCHEME) or path in self._allowed:
            return True
        # A look at the name comes first: even to ask the system about a path can wake up another computer.
        if not Path(os.path.normpath(path)).is_relative_to(self._folder):
            return False
        try:
            return Path(path).resolve().is_relative_to(Path(self._folder).resolve())
        except (OSError, RuntimeError, ValueError):  # links in a circle; a zero byte
            return False

    def to_ask(self, content: Content) -> list[str]:
        """The images of ``content`` that somebody must be asked about, sorted."""
        return sorted(path for path in paths(content) if not self.allows(path))
