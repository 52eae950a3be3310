"""Reads a journal and tells what in it is not as it was written.

SQLite alone does not notice damage, so nothing is believed that does not match its CRC, its place in
the chain, and the counts in `meta`. Damage is reported by positions and streams, and the reading goes
on behind it as far as it can.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from coherd.errors import JournalDamaged
from coherd.journal import Block, Floor
from coherd.journal.codec import CHANGED, check_block, decode_block, is_intact, unpack_ranges
from coherd.journal.held import Held, Meta, StreamEntry
from coherd.journal.schema import (
    BLOCKS,
    CURSORS,
    FLOORS,
    LIVES,
    MEMBERS,
    META,
    SCHEMA,
    SIDE_TABLES,
    STREAMS,
)
from coherd.model import Lane, Origin, Position, Stream
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coherd.journal.codec import Row
    from coherd.journal.schema import Table
    from coherd.model import Range


UNREADABLE = (sqlite3.Error, ValueError)
"""What SQLite's module raises for bytes that make no sense, text that is not UTF-8 among it."""


class Damage(NamedTuple):
    """One thing that is not as it was written."""

    what: str
    """Table and row, and what is wrong with it."""
    positions: Range | None = None
    """Positions whose blocks are damaged or gone; None when no block is."""
    streams: tuple[Stream, ...] = ()
    """Streams that have lost rows or their entry, as far as it can be told."""


def load(connection: sqlite3.Connection) -> tuple[Held, list[Damage]]:
    """Read everything but the blocks, and tell what is damaged.

    Raises `JournalDamaged` when so much is that nothing can be told.
    """
    try:
        schema = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name")
        if schema.fetchall() != SCHEMA:
            raise JournalDamaged("its tables are not those of a journal")
        metas = connection.execute(META.select).fetchall()
        if len(metas) != 1 or not is_intact(metas[0]):
            raise JournalDamaged("table meta: its row is not what was written")
        held = Held(Meta(*metas[0][:-1]))
        damages = [
            Damage(f"SQLite says: {text}")
            for (text,) in connection.execute("PRAGMA integrity_check(10)")
            if text != "ok"
        ]
        for table in SIDE_TABLES:
            damages += _load_table(connection, table, held)
    except UNREADABLE as error:
        raise JournalDamaged(f"SQLite says: {error}") from error
    found = (len(held.checksums), sum(held.checksums.values()))
    if found != (held.meta.side_rows, held.meta.side_sum):
        names = ", ".join(table.name for table in SIDE_TABLES)
        damages.append(Damage(f"tables {names}: a row is missing, or is an older one"))
    return held, damages


def _load_table(connection: sqlite3.Connection, table: Table, held: Held) -> Iterator[Damage]:
    for row in connection.execute(table.select):
        if is_intact(row):
            held.checksums[table.name, row[0]] = row[-1]
            _take(table, row, held)
        else:
            yield Damage(f"table {table.name}, {table.key} {row[0]!r}: it is not what was written")


def _take(table: Table, row: Row, held: Held) -> None:
    """Put an intact row of a side table where it belongs."""
    if table is LIVES:
        held.lives.append((Origin(row[1], row[2]), row[3]))
    elif table is STREAMS:
        stream = Stream(row[1], Origin(row[2], row[3]), Lane(row[4]))
        floor = None if row[5] is None else Floor(row[5], row[6])
        held.add_stream(stream, StreamEntry(row[0], Intervals(unpack_ranges(row[7])), floor))
    elif table is FLOORS:
        held.namespace_floors[row[0]] = Floor(row[1], row[2])
    elif table is CURSORS:
        held.cursors[row[0]] = Position(row[1], row[2], row[3])
    elif table is MEMBERS:
        held.members[row[0]] = row[1]


def scan(connection: sqlite3.Connection, held: Held) -> Iterator[Block | Damage]:
    """Give all blocks in order, and in their places what is damaged."""
    meta = held.meta
    chain: bytes | None = meta.chain_start
    last = count = 0
    whole, wrong = True, ""
    rows = connection.execute(BLOCKS.select)
    while True:
        try:
            row = rows.fetchone()
        except UNREADABLE as error:
            wrong = wrong or f"table blocks, behind position {last}: {error}"
            break
        if row is None:
            break
        count += 1
        fault = check_block(row, chain)
        if not fault and row[2] and row[2] not in held.names:
            fault = CHANGED
        if fault:
            wrong = wrong or f"table blocks, position {row[0]!r}: {fault}"
        if fault == CHANGED:  # nothing is known of its place: all up to the next intact one is lost
            chain = None
            continue
        if wrong:
            yield Damage(wrong, (last + 1, max(last + 1, row[0] - 1)))
            whole, wrong = False, ""
        chain = row[-2]
        last = row[0] + row[1] - 1
        yield decode_block(row, held.names)
    if not wrong and (chain != meta.chain_head or (whole and count != meta.blocks)):
        wrong = (
            f"table blocks: {count} blocks up to position {last}, "
            f"not {meta.blocks} up to {meta.position}"
        )
    if wrong:
        yield Damage(wrong, (last + 1, max(last + 1, meta.position)))
