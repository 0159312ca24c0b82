"""A file that is written whole or not at all."""

import os
import tempfile
from contextlib import suppress

from engine.errors import InputError


def write(path: str, data: bytes) -> None:
    """Puts ``data`` at ``path``: what was there stays until all of it is on the disk. Raises InputError."""
    target = os.path.realpath(path)
    try:
        mask = os.umask(0)
        os.umask(mask)
        descriptor, part = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".walkscope-", suffix=".part")
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), 0o666 & ~mask)
                os.fsync(stream.fileno())
            os.replace(part, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "that is no name of a file"
        raise InputError(f"{os.path.basename(path) or path}: it cannot be written ({why}).") from error
