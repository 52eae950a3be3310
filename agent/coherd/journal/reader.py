"""The connection that reads a journal while it is being written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from coherd.errors import JournalDamaged
from coherd.journal import Block, Damage
from coherd.journal.base import cut_page, shares
from coherd.journal.check import UNREADABLE
from coherd.journal.codec import CHANGED, decode_block, is_block_intact
from coherd.journal.schema import BLOCKS
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from coherd.journal.held import Held
    from coherd.model import Range, Stream

    _Found = Generator[Block | JournalDamaged, None, None]

_JOINED_MAX = 8
"""Numbers between two ranges up to which they are looked for together: reading a block that is not wanted
costs less than another statement."""

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
    # Text that is not UTF-8 was not written so; its CRC tells.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH_MAX)
    for pragma in ("cell_size_check = ON", "trusted_schema = OFF", "query_only = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class Reader:
    """Reads committed blocks; each is checked against its CRC. Used by one thread at a time.

    A damaged block is told once, by `JournalDamaged`, and added to `damages`; from then on the reading
    goes on as if it were not there. Blocks before it are given first.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, held: Held) -> None:
        self.damages: list[Damage] = []
        self._path = path
        self._connection = connection
        self._held = held
        self._told: set[int] = set()
        """Positions of damaged blocks."""

    def read(self, after: int, bytes_max: int) -> Sequence[Block]:
        """Give the blocks with a row above position `after`."""
        with closing(
            self._select(_BEHIND, (after,), (after + 1, self._held.meta.position))
        ) as found:
            return cut_page(self._believe(item for item in found if _last(item) > after), bytes_max)

    def fetch(self, stream: Stream, numbers: Sequence[Range], bytes_max: int) -> Sequence[Block]:
        """Give the blocks that share a number with `numbers`."""
        with closing(self._find(stream, numbers)) as found:
            return cut_page(self._believe(found), bytes_max)

    def _find(self, stream: Stream, numbers: Sequence[Range]) -> _Found:
        entry = self._held.streams.get(stream)
        if entry is None:
            return
        seen: set[int] = set()
        anywhere = (1, self._held.meta.position)
        wanted = Intervals(numbers)
        for low, high in _joined(numbers):
            # No block reaches further than the span: what begins before that cannot share a number.
            arguments = (entry.id, low - entry.span, high, low)
            with closing(self._select(_SHARING, arguments, anywhere, stream.namespace)) as found:
                for item in found:
                    if isinstance(item, JournalDamaged):
                        yield item
                    elif item.position not in seen and shares(item, stream, wanted):
                        seen.add(item.position)
                        yield item

    def _select(
        self,
        statement: str,
        arguments: tuple[int, ...],
        positions: Range,
        namespace: str | None = None,
    ) -> _Found:
        """Give what a statement finds.

        `positions` and `namespace` say what is lost when SQLite cannot go on.
        """
        try:
            with closing(self._connection.execute(statement, arguments)) as rows:
                for row in rows:
                    if is_block_intact(row):
                        yield decode_block(row, self._held.names)
                    elif row[0] not in self._told:
                        owner, last = self._held.locate(row[0])
                        what = f"{self._path}: table blocks, position {row[0]}: {CHANGED}"
                        yield JournalDamaged(what, owner, (row[0], last))
        except UNREADABLE as error:
            damaged = JournalDamaged(f"{self._path}: SQLite says: {error}", namespace, positions)
            damaged.__cause__ = error
            yield damaged

    def _believe(self, found: Iterable[Block | JournalDamaged]) -> Iterator[Block]:
        """Give blocks up to the first damaged one; raise when that comes first."""
        given = False
        for item in found:
            if isinstance(item, Block):
                given = True
                yield item
            elif given:
                return
            else:
                first, last = item.positions
                if item.__cause__ is None:  # one block; what SQLite cannot read is told every time
                    self._told.add(first)
                damage = Damage(str(item), item.namespace, last)
                if damage not in self.damages:
                    self.damages.append(damage)
                raise item

    def close(self) -> None:
        """Close the connection; the files stay as they are."""
        self._connection.close()


def _last(found: Block | JournalDamaged) -> int:
    """Tell the last position of what was found."""
    if isinstance(found, Block):
        return found.position + found.rows - 1
    return found.positions[1]


def _joined(ranges: Sequence[Range]) -> Iterator[Range]:
    """Give ranges that contain `ranges`, which ascend: those close together as one."""
    low, high = ranges[0] if ranges else (1, 0)
    for first, last in ranges:
        if first - high > _JOINED_MAX:
            yield low, high
            low = first
        high = max(high, last)
    if ranges:
        yield low, high
