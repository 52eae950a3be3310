"""The tables of a journal on disk, and what its file must look like.

Every row of every table carries a CRC over its other columns. The blocks of a namespace are chained
besides: each has a hash and names that of the one before it, and the row of the namespace knows how
many there are and the hash of the last. The one row of `meta` is rewritten by every commit and knows
number and sum of the CRCs of all rows but the blocks; so a row that is missing, or is an older one, is
noticed as surely as one that was changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

APPLICATION_ID = 0x636F6864
"""SQLite's application_id of a journal: "cohd"."""

FORMAT = 3
"""SQLite's user_version of the format that this release writes."""

FORMAT_BEFORE_ERAS = 2
"""The format that only lacks the table `eras`, which is added when such a file is opened."""

PAGE_BYTES = 4096
"""A commit of one row rewrites four pages; larger ones would cost more than overflow chains save."""


ROWS_PER_STATEMENT = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""How many rows a statement may take. Each lets go of the interpreter's lock and has to get it back, which
under load costs more than the statement does."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table and the statements on it."""

    name: str
    columns: tuple[str, ...]
    """Definitions in order; the last is the CRC."""
    key: str
    """Column whose value names a row, in messages too."""
    tail: str = ""

    @cached_property
    def create(self) -> str:
        """The statement that makes it, exactly as SQLite keeps it."""
        return f"CREATE TABLE {self.name} ({', '.join(self.columns)}){self.tail}"

    @cached_property
    def select(self) -> str:
        """The statement that reads all rows in order of their keys."""
        return self.select_where(f"true ORDER BY {self.key}")

    def select_where(self, condition: str) -> str:
        """Give the statement that reads the rows that meet `condition`."""
        names = ", ".join(column.split()[0] for column in self.columns)
        return f"SELECT {names} FROM {self.name} WHERE {condition}"  # noqa: S608  # our own names

    @cached_property
    def inserts(self) -> dict[int, str]:
        """The statements that write so many rows at once."""
        row = f"({', '.join('?' * len(self.columns))})"
        start = f"REPLACE INTO {self.name} VALUES "  # noqa: S608
        return {rows: start + ", ".join([row] * rows) for rows in ROWS_PER_STATEMENT}

    @cached_property
    def deletes(self) -> dict[int, str]:
        """The statements that remove so many rows at once, by their keys."""
        start = f"DELETE FROM {self.name} WHERE {self.key} IN "  # noqa: S608
        return {rows: f"{start}({', '.join('?' * rows)})" for rows in ROWS_PER_STATEMENT}


META = Table(
    "meta",
    (
        "id INTEGER PRIMARY KEY",
        "cluster TEXT",
        "name TEXT",
        "boot_id TEXT",
        "durability TEXT",
        "closed INTEGER",
        "whole INTEGER",
        "running_time REAL",
        "position INTEGER",
        "side_rows INTEGER",
        "side_sum INTEGER",
        "crc INTEGER",
    ),
    "id",
)
LIVES = Table(
    "lives",
    (
        "id INTEGER PRIMARY KEY",
        "name TEXT",
        "epoch INTEGER",
        "first_position INTEGER",
        "crc INTEGER",
    ),
    "id",
)
STREAMS = Table(
    "streams",
    (
        "id INTEGER PRIMARY KEY",
        "namespace TEXT",
        "origin TEXT",
        "epoch INTEGER",
        "lane INTEGER",
        "floor INTEGER",
        "floor_accepted_at REAL",
        "vector BLOB",
        "crc INTEGER",
    ),
    "id",
)
NAMESPACES = Table(
    "namespaces",
    (
        "namespace TEXT PRIMARY KEY",
        "position INTEGER",
        "blocks INTEGER",
        "chain BLOB",
        "starts BLOB",
        "damaged INTEGER",
        "floor INTEGER",
        "floor_accepted_at REAL",
        "max_ttls BLOB",
        "crc INTEGER",
    ),
    "namespace",
    " WITHOUT ROWID",
)
CURSORS = Table(
    "cursors",
    (
        "reader TEXT PRIMARY KEY",
        "name TEXT",
        "epoch INTEGER",
        "n INTEGER",
        "crc INTEGER",
    ),
    "reader",
    " WITHOUT ROWID",
)
MEMBERS = Table(
    "members",
    ("name TEXT PRIMARY KEY", "entry BLOB", "crc INTEGER"),
    "name",
    " WITHOUT ROWID",
)
ERAS = Table(
    "eras",
    (
        "namespace TEXT PRIMARY KEY",
        "number INTEGER",
        "since REAL",
        "marked BLOB",
        "retired BLOB",
        "crc INTEGER",
    ),
    "namespace",
    " WITHOUT ROWID",
)
BLOCKS = Table(
    "blocks",
    (
        "position INTEGER PRIMARY KEY",
        "rows INTEGER",
        "stream INTEGER",
        "namespace TEXT",
        "first INTEGER",
        "last INTEGER",
        "numbers BLOB",
        "accepted_at REAL",
        "cause TEXT",
        "payload BLOB",
        "links BLOB",
        "crc INTEGER",
    ),
    "position",
)
INDEX_NAME = "blocks_of_stream"
INDEX = f"CREATE INDEX {INDEX_NAME} ON blocks (stream, first, last)"

SIDE_TABLES = (LIVES, STREAMS, NAMESPACES, CURSORS, MEMBERS, ERAS)
"""Those whose rows are counted and summed in `meta`."""

TABLES = (META, *SIDE_TABLES, BLOCKS)

SCHEMA = sorted([(table.name, table.create) for table in TABLES] + [(INDEX_NAME, INDEX)])
"""Name and statement of everything that a journal's schema holds, in order."""

SCHEMA_BEFORE_ERAS = [entry for entry in SCHEMA if entry[0] != ERAS.name]
