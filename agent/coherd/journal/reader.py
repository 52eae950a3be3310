"""The connection that reads a journal while it is being written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from coherd.errors import JournalDamaged
from coherd.journal.base import cut_page, shares
from coherd.journal.check import UNREADABLE, Damage, scan
from coherd.journal.codec import check_block, decode_block
from coherd.journal.schema import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from coherd.journal import Block
    from coherd.journal.held import Held
    from coherd.model import Range, Stream

    _Blocks = Generator[Block, None, None]

_LENGTH_MAX = 256 << 20
"""Longest value that is believed; a flipped bit may ask for more."""

_BEHIND = BLOCKS.select_where(
    "position >= coalesce((SELECT max(position) FROM blocks WHERE position <= ?), 0) "
    "ORDER BY position"
)
_SHARING = BLOCKS.select_where(
    "stream = ? AND first BETWEEN ? AND ? AND last >= ? ORDER BY first, last, position"
)


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that can change neither the file nor, when it is the last, the log."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH_MAX)
    for pragma in ("cell_size_check = ON", "trusted_schema = OFF", "query_only = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class Reader:
    """Reads committed blocks; each is checked against its CRC. Used by one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection, held: Held) -> None:
        self._path = path
        self._connection = connection
        self._held = held

    def scan(self) -> Iterator[Block]:
        """Give all blocks, in order, and check each and their chain."""
        for found in scan(self._connection, self._held):
            if isinstance(found, Damage):
                raise JournalDamaged(describe(self._path, found))
            self._held.note_span(found)
            yield found

    def read(self, after: int, bytes_max: int) -> Sequence[Block]:
        """Give the blocks with a row above position `after`."""
        with closing(self._select(_BEHIND, (after,))) as found:
            return cut_page((b for b in found if b.position + b.rows - 1 > after), bytes_max)

    def fetch(self, stream: Stream, numbers: Sequence[Range], bytes_max: int) -> Sequence[Block]:
        """Give the blocks that share a number with `numbers`."""
        with closing(self._find(stream, numbers)) as found:
            return cut_page(found, bytes_max)

    def _find(self, stream: Stream, numbers: Sequence[Range]) -> _Blocks:
        entry = self._held.streams.get(stream)
        if entry is None:
            return
        seen: set[int] = set()
        for low, high in numbers:
            # No block reaches further than the span: what begins before that cannot share a number.
            arguments = (entry.id, low - entry.span, high, low)
            with closing(self._select(_SHARING, arguments)) as found:
                for block in found:
                    if block.position not in seen and shares(block, stream, (low, high)):
                        seen.add(block.position)
                        yield block

    def _select(self, statement: str, arguments: tuple[int, ...]) -> _Blocks:
        try:
            with closing(self._connection.execute(statement, arguments)) as rows:
                for row in rows:
                    fault = check_block(row, None)
                    if fault:
                        raise JournalDamaged(
                            describe(
                                self._path, Damage(f"table blocks, position {row[0]}: {fault}")
                            )
                        )
                    yield decode_block(row, self._held.names)
        except UNREADABLE as error:
            raise JournalDamaged(describe(self._path, Damage(f"SQLite says: {error}"))) from error

    def close(self) -> None:
        """Close the connection; the files stay as they are."""
        self._connection.close()


def describe(path: Path, damage: Damage) -> str:
    """Give the line that an operator reads."""
    return (
        f"{path} is damaged: {damage.what}; move it away and start again: "
        "the agent fetches what it needs from its peers"
    )
