"""Old files to new ones. A release is frozen: its schema, and the function that makes the next one out of it.

When version 2 comes, ``v2.py`` gets its statements and ``v1.py`` a function ``to_v2``; nothing else in ``v1.py`` may
change, ever. A minor version adds tables, which are empty in older files of its major version. Functions work on a
copy in memory that passed the guard; they import nothing from `storage`.
"""

import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import NamedTuple

from storage.migrations import v1


class Release(NamedTuple):
    """``create``: the statements that make the schema of minor version 0; ``added``: by those that came later.
    ``upgrade``: to the next major version; None: the newest."""

    create: tuple[str, ...]
    upgrade: Callable[[sqlite3.Connection], None] | None = None
    added: Mapping[int, tuple[str, ...]] = {}

    def schema(self, minor: int) -> tuple[str, ...]:
        """The statements that make the schema of a minor version."""
        return self.create + tuple(sql for n in sorted(self.added) if n <= minor for sql in self.added[n])


RELEASES: dict[int, Release] = {1: Release(v1.CREATE, added=v1.ADDED)}

_COLUMN = r"[a-z_0-9]+ (INTEGER|TEXT|BLOB|REAL)( NOT NULL)?( PRIMARY KEY)?"
PLAIN_TABLE = re.compile(rf"CREATE TABLE [a-z_0-9]+ \({_COLUMN}(, {_COLUMN}){{0,30}}\) STRICT(, WITHOUT ROWID)?")
"""All that a minor version may add to the schema: tables without an expression in them. SQLite runs nothing of such."""
