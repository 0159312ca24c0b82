"""Old files to new ones. A release is frozen: its schema, and the function that makes the next one out of it.

When version 2 comes, ``v2.py`` gets its statements and ``v1.py`` a function ``to_v2``; nothing else in ``v1.py`` may
change, ever. Functions work on a copy in memory that passed the guard; they import nothing from `storage`.
"""

import re
import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from storage.migrations import v1


class Release(NamedTuple):
    """``create``: the statements that make the schema. ``upgrade``: to the next major version; None: the newest."""

    create: tuple[str, ...]
    upgrade: Callable[[sqlite3.Connection], None] | None = None


RELEASES: dict[int, Release] = {1: Release(v1.CREATE)}

_COLUMN = r"[a-z_0-9]+ (INTEGER|TEXT|BLOB|REAL)( NOT NULL)?( PRIMARY KEY)?"
PLAIN_TABLE = re.compile(rf"CREATE TABLE [a-z_0-9]+ \({_COLUMN}(, {_COLUMN}){{0,30}}\) STRICT(, WITHOUT ROWID)?")
"""All that a minor version may add to the schema: tables without an expression in them. SQLite runs nothing of such."""
