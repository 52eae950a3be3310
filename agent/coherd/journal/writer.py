"""The one connection that writes a journal: many writes, one transaction."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from coherd.journal import Durability
from coherd.journal.codec import encode_block, pack_ranges, seal
from coherd.journal.held import StreamEntry
from coherd.journal.schema import (
    BLOCKS,
    CURSORS,
    FLOORS,
    LIVES,
    MEMBERS,
    META,
    PAGE_BYTES,
    STREAMS,
    Table,
)
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from coherd.journal import Write
    from coherd.journal.codec import Row
    from coherd.journal.held import Held
    from coherd.model import Origin, Stream

CHECKPOINT_BYTES = 16 << 20
"""About so much is written to the log before it is moved into the file."""

BUSY_TIMEOUT = 10.0
"""Seconds that another process may hold the file's lock: an operator who looks at it."""


class Writer:
    """Commits writes and knows what is committed. Used by one thread at a time.

    After any exception nothing may be called but `close`: what was queued is lost, nothing is retried.
    """

    def __init__(self, path: Path, held: Held) -> None:
        self._held = held
        self._meta = held.meta
        self._rows: dict[Table, list[Row]] = {}
        self._touched: dict[Stream, StreamEntry] = {}
        self._next_id = max(held.names, default=0) + 1
        self._log_bytes = 0
        self._connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )

    def mark_open(self, boot_id: str, durability: Durability, whole: bool) -> None:
        """Store, so that no loss of power takes it back, that the journal is in use."""
        # Checkpoints are asked for here: SQLite's own would swallow a failed fsync, and try it again.
        for pragma in (
            "journal_mode = WAL",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {2 * CHECKPOINT_BYTES}",
            "trusted_schema = OFF",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        meta = self._meta
        meta.boot_id, meta.durability = boot_id, durability.value
        meta.closed, meta.whole = 0, int(whole)
        self._synchronize(Durability.DISK)
        self._store_mark()
        self._synchronize(durability)

    def mark_closed(self, running_time: float) -> None:
        """Store that the journal was closed in order."""
        self._meta.closed = 1
        self._meta.running_time = max(self._meta.running_time, running_time)
        self._synchronize(Durability.DISK)
        self._store_mark()

    def _store_mark(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._store()
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _synchronize(self, durability: Durability) -> None:
        full = durability is Durability.DISK
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        self._connection.execute(f"PRAGMA fullfsync = {int(full)}")

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self._connection.close()

    def commit(self, writes: Iterable[Write], running_time: float, size_bytes: int) -> None:
        """Commit `writes`, in order, in one transaction; together they take about `size_bytes`."""
        self._connection.execute("BEGIN IMMEDIATE")
        for write in writes:
            self._take(write)
        self._meta.running_time = max(self._meta.running_time, running_time)
        self._store()
        self._connection.execute("COMMIT")
        self._log_bytes += size_bytes + 4 * PAGE_BYTES

    def checkpoint(self) -> None:
        """Move the log into the file if it has grown."""
        if self._log_bytes > CHECKPOINT_BYTES:
            self._log_bytes = 0
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _take(self, write: Write) -> None:
        if write.life is not None:
            self._begin_life(write.life)
        if write.blocks:
            self._take_blocks(write)
        for stream, ranges in write.adopted.items():
            numbers = self._touch(stream).numbers
            for low, high in ranges:
                numbers.add(low, high)
        for stream, floor in write.stream_floors.items():
            self._touch(stream).floor = floor
        if write.namespace_floors or write.cursors or write.members:
            self._take_side(write)
        if write.healed:
            self._meta.whole = 1

    def _take_side(self, write: Write) -> None:
        for namespace, floor in write.namespace_floors.items():
            self._put(FLOORS, (namespace, floor.n, float(floor.accepted_at)))
        for reader, position in write.cursors.items():
            if position is None:
                self._drop(CURSORS, reader)
            else:
                self._put(CURSORS, (reader, *position))
        for name, entry in write.members.items():
            if entry is None:
                self._drop(MEMBERS, name)
            else:
                self._put(MEMBERS, (name, entry))

    def _begin_life(self, life: Origin) -> None:
        self._held.lives.append((life, self._meta.position + 1))
        self._put(LIVES, (len(self._held.lives), *life, self._meta.position + 1))

    def _take_blocks(self, write: Write) -> None:
        meta, rows = self._meta, self._rows.setdefault(BLOCKS, [])
        for block in write.blocks:
            entry = None if block.stream is None else self._touch(block.stream)
            row = encode_block(block, None if entry is None else entry.id, meta.chain_head)
            rows.append(row)
            meta.chain_head = row[-2]
            meta.blocks += 1
            meta.position = block.position + block.rows - 1
            if entry is not None:
                for low, high in block.numbers:
                    entry.numbers.add(low, high)
                self._held.note_span(block)

    def _touch(self, stream: Stream) -> StreamEntry:
        """Give the entry of `stream`, to be stored with this commit."""
        entry = self._touched.get(stream)
        if entry is None:
            entry = self._held.streams.get(stream)
            if entry is None:
                entry = StreamEntry(self._next_id, Intervals())
                self._next_id += 1
                self._held.add_stream(stream, entry)
            self._touched[stream] = entry
        return entry

    def _put(self, table: Table, columns: Row) -> None:
        """Let a row of a side table be written."""
        row = seal(columns)
        key, meta = (table.name, row[0]), self._meta
        old = self._held.checksums.get(key)
        meta.side_sum += row[-1] - (old or 0)
        meta.side_rows += old is None
        self._held.checksums[key] = row[-1]
        self._rows.setdefault(table, []).append(row)

    def _drop(self, table: Table, key: str) -> None:
        """Remove a row of a side table, if it is there."""
        old = self._held.checksums.pop((table.name, key), None)
        if old is not None:
            self._meta.side_sum -= old
            self._meta.side_rows -= 1
            self._write(table)
            self._connection.execute(table.delete, (key,))

    def _store(self) -> None:
        """Write what was taken, then `meta`, which vouches for it."""
        for (namespace, origin, lane), entry in self._touched.items():
            floor = entry.floor
            n, accepted_at = (None, None) if floor is None else (floor.n, float(floor.accepted_at))
            vector = pack_ranges(entry.numbers.ranges())
            self._put(STREAMS, (entry.id, namespace, *origin, int(lane), n, accepted_at, vector))
        self._touched.clear()
        for table in self._rows:
            self._write(table)
        self._insert(META, [seal(self._meta.row())])

    def _write(self, table: Table) -> None:
        rows = self._rows.get(table)
        if rows:
            self._insert(table, rows)
            rows.clear()

    def _insert(self, table: Table, rows: Sequence[Row]) -> None:
        at = 0
        for size, statement in table.inserts.items():
            while len(rows) - at >= size:
                values = [value for row in rows[at : at + size] for value in row]
                self._connection.execute(statement, values)
                at += size
