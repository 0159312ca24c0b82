"""What the bytes of an unknown file must pass before anything in them is believed.

A file is read once, as a whole, and SQLite gets a copy in memory: what others do to the file meanwhile, a lock that
does not work or a journal beside it cannot matter, and nothing is ever written. Then, in this order: the header, the
list of schema objects, the structure of all pages (quick_check evaluates the CHECKs of a table, hence not before it is
known to be ours). A trigger, a view, an index or a table that is not ours is refused. Rows are checked by
`storage.container`.
"""

import sqlite3
import struct
import time
from typing import NamedTuple

from storage import migrations
from storage.errors import Problem, StorageError
from storage.schema import APPLICATION_ID, MAJOR, MAX_FILE, MINOR, TABLES
from storage.seal import damaged

MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">16s H BBBBBB I I I I I I I I I I I I 20x I I")
HEADER_SIZE = _HEADER.size
SECONDS, BYTES_A_SECOND = 0.5, 20 << 20
"""How long the checks may take: so long, and for larger files in proportion. A sound file needs a hundredth."""
_STEPS = 20_000
"""Instructions of SQLite's virtual machine between two looks at the clock: about a millisecond."""

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 72 << 20, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4096, sqlite3.SQLITE_LIMIT_COLUMN: 32,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 16, sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 2, sqlite3.SQLITE_LIMIT_VDBE_OP: 4096,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8, sqlite3.SQLITE_LIMIT_ATTACHED: 0, sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 64, sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}  # fmt: skip
_PRAGMAS = ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON", "foreign_keys = OFF", "mmap_size = 0")
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION)
_OTHERS = {
    b"\x7fELF": "it is a memory image; open it as one",
    b"\x1f\x8b": "it is packed, perhaps a memory image; open it as one",
    b"\xfd7zXZ": "it is packed, perhaps a memory image; open it as one",
    b"{": "it is text, perhaps a scenario as JSON; import it",
}


class Version(NamedTuple):
    major: int
    minor: int

    @property
    def is_newer(self) -> bool:
        """Whether the file may hold what this program does not know."""
        return self.major == MAJOR and self.minor > MINOR


def check_header(head: bytes, size: int) -> Version:
    """The version of the file of ``size`` bytes that starts with ``head``. Raises StorageError."""
    if size == 0:
        raise StorageError(Problem.EMPTY, "the file is empty; take a backup of it")
    if not head.startswith(MAGIC):
        what = next((text for magic, text in _OTHERS.items() if head.startswith(magic)), "")
        raise _foreign(what or "it was not saved by Walkscope; choose another file")
    if len(head) < HEADER_SIZE:
        raise damaged("it is cut off within its header")
    if size > MAX_FILE:
        what = f"it has {size >> 20:,} MiB, and no scenario more than {MAX_FILE >> 20}; choose another file"
        raise StorageError(Problem.TOO_LARGE, what)
    (_, page_size, write_format, read_format, reserved, _, _, _, _, pages, _, _, _, _, _, _, encoding, user_version, _,
     application_id, _, _) = _HEADER.unpack(head[:HEADER_SIZE])  # fmt: skip
    if application_id != APPLICATION_ID:
        raise _foreign("it is a database of another program; choose another file")
    version = Version(user_version >> 16, user_version & 0xFFFF)
    if version.major > MAJOR:
        raise StorageError(
            Problem.TOO_NEW,
            f"it was saved by a newer Walkscope, in version {version.major}.{version.minor} of the file format, and "
            f"this one reads up to version {MAJOR}; get a newer one",
        )
    if version.major not in migrations.RELEASES:
        raise damaged(f"it claims version {version.major} of the file format, which never was")
    page_size = 65_536 if page_size == 1 else page_size
    if pages * page_size != size:
        raise damaged(f"it has {size:,} bytes and should have {pages * page_size:,}")
    if (write_format, read_format, reserved, encoding) != (1, 1, 0, 1):
        raise damaged("another program changed the form of its pages")
    return version


def open_bytes(data: bytes) -> tuple[sqlite3.Connection, Version]:
    """A connection to a copy of ``data``: only for reading, and only our tables. Raises StorageError, sqlite3.Error."""
    version = check_header(data[:HEADER_SIZE], len(data))
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    try:
        connection.deserialize(data)
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        end = time.monotonic() + max(SECONDS, len(data) / BYTES_A_SECOND)
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _check_schema(connection, version)
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()
        if problem != ("ok",):
            raise damaged("its pages do not fit together")
        connection.set_authorizer(_authorize)
    except BaseException:
        connection.close()
        raise
    return connection, version


def _check_schema(connection: sqlite3.Connection, version: Version) -> None:
    """Holds the file's schema against the one that its version was released with, letter by letter.

    A newer minor version may have more tables of plain columns; they are never read.
    """
    ours = {(sql.split()[2], sql) for sql in migrations.RELEASES[version.major].schema(version.minor)}
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchmany(len(ours) + 64)
    found = {(name, sql) for kind, name, table, sql in rows if kind == "table" and name == table}
    additions = found - ours
    plain = all(migrations.PLAIN_TABLE.fullmatch(sql or "") for _, sql in additions)
    if len(found) != len(rows) or not ours <= found or (additions and not (version.is_newer and plain)):
        raise StorageError(
            Problem.DAMAGED,
            "it holds other things than a scenario does, so it is damaged or was tampered with; it is not opened",
        )


def _authorize(action: int, subject: str | None, *_: str | None) -> int:
    """Past the checks, only our tables are read. SQLAlchemy asks how reading is isolated when it connects."""
    allowed = (
        action in _ALLOWED
        or (action == sqlite3.SQLITE_READ and subject in TABLES)
        or (action == sqlite3.SQLITE_PRAGMA and subject == "read_uncommitted")
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _foreign(what: str) -> StorageError:
    return StorageError(Problem.FOREIGN, f"this is not a Walkscope scenario: {what}")
