"""Version 1 of the file format, as released: frozen. What files of it hold is for `storage.schema` to say.

The statements are compared with a file's ``sqlite_schema`` letter by letter, hence written out here and not made by a
library, whose spelling may change.
"""

CREATE = (
    "CREATE TABLE scenario (number INTEGER PRIMARY KEY, format INTEGER NOT NULL, configuration TEXT NOT NULL) STRICT",
    "CREATE TABLE event (number INTEGER PRIMARY KEY, body TEXT NOT NULL, checksum BLOB NOT NULL) STRICT",
    "CREATE TABLE pin (number INTEGER PRIMARY KEY, name TEXT NOT NULL, step INTEGER NOT NULL, pcpu INTEGER) STRICT",
    "CREATE TABLE bookmark (number INTEGER PRIMARY KEY, name TEXT NOT NULL, step INTEGER NOT NULL, address TEXT,"
    " view TEXT NOT NULL) STRICT",
    "CREATE TABLE note (number INTEGER PRIMARY KEY, step INTEGER NOT NULL, text TEXT NOT NULL) STRICT",
    "CREATE TABLE narration (number INTEGER PRIMARY KEY, step INTEGER NOT NULL, title TEXT NOT NULL,"
    " text TEXT NOT NULL, view TEXT NOT NULL) STRICT",
    "CREATE TABLE image (number INTEGER PRIMARY KEY, path TEXT NOT NULL, size INTEGER, sha256 BLOB,"
    " format TEXT NOT NULL, machine INTEGER, notes BLOB) STRICT",
    "CREATE TABLE frame (number INTEGER PRIMARY KEY, sha256 BLOB NOT NULL, data BLOB NOT NULL) STRICT",
    "CREATE TABLE image_frame (image INTEGER NOT NULL, pfn INTEGER NOT NULL, frame INTEGER NOT NULL, known BLOB,"
    " PRIMARY KEY (image, pfn)) STRICT, WITHOUT ROWID",
    "CREATE TABLE view_state (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE thumbnail (number INTEGER PRIMARY KEY, png BLOB NOT NULL) STRICT",
    "CREATE TABLE seal (part TEXT NOT NULL PRIMARY KEY, rows INTEGER NOT NULL, checksum BLOB NOT NULL)"
    " STRICT, WITHOUT ROWID",
)

ADDED = {
    1: ("CREATE TABLE demo (number INTEGER PRIMARY KEY, title TEXT NOT NULL, summary TEXT NOT NULL) STRICT",),
}
"""What each minor version added, frozen like the rest. 1.1: what a demo is called; ``narration`` has its stops."""
