"""The one connection that writes a journal: many writes, one transaction; and forgets in slices."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

from coherd.errors import JournalDamaged
from coherd.journal import Durability
from coherd.journal.codec import (
    LINK_BYTES,
    encode_block,
    links_of,
    pack_ids,
    pack_ranges,
    seal,
)
from coherd.journal.held import StreamEntry
from coherd.journal.schema import (
    BLOCKS,
    CURSORS,
    ERAS,
    FORMAT,
    FORMAT_BEFORE_ERAS,
    LIVES,
    MEMBERS,
    META,
    NAMESPACES,
    PAGE_BYTES,
    STREAMS,
    Table,
)
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from coherd.journal import Write
    from coherd.journal.check import Repair
    from coherd.journal.codec import Row
    from coherd.journal.held import Held, NamespaceEntry
    from coherd.model import Origin, Stream

_T = TypeVar("_T")

CHECKPOINT_BYTES = 16 << 20
"""About so much is written to the log before it is moved into the file."""

BUSY_TIMEOUT = 10.0
"""Seconds that another process may hold the file's lock: an operator who looks at it."""

FORGOTTEN_AT_ONCE = 1000
"""How many blocks a transaction drops; a write that comes meanwhile waits for it."""

_POSITIONS_A_PAGE = 32
"""About so many positions share a page. Too few only means that the log is moved too often."""


class Writer:
    """Commits writes and knows what is committed. Used by one thread at a time.

    After any exception nothing may be called but `close`: what was queued is lost, nothing is retried.
    """

    def __init__(self, path: Path, held: Held) -> None:
        self._held = held
        self._meta = held.meta
        self._rows: dict[Table, list[Row]] = {}
        self._touched: dict[Stream, StreamEntry] = {}
        self._touched_namespaces: dict[str, NamespaceEntry] = {}
        self._forgotten: dict[str, int] = {}
        """Up to which position blocks of a namespace are still to be dropped."""
        self._committed_blocks = 0
        self._dropping = True
        """Whether there may be entries of streams that are to be removed."""
        self._durability = Durability.DISK
        self._next_id = max(held.names, default=0) + 1
        self._log_bytes = 0
        self._connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )

    def mark_open(
        self, name: str, boot_id: str, durability: Durability, whole: bool, repair: Repair | None
    ) -> None:
        """Store, so that no loss of power takes it back, that agent `name` has the journal in use.

        In the same transaction what was found damaged is removed, and noted until a floor accounts
        for it.
        """
        # Checkpoints are asked for here: SQLite's own would swallow a failed fsync, and try it again.
        for pragma in (
            "journal_mode = WAL",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {2 * CHECKPOINT_BYTES}",
            "trusted_schema = OFF",
            "secure_delete = FAST",  # in full it would write every page that becomes free
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        meta = self._meta
        meta.name, meta.boot_id, meta.durability = name, boot_id, durability.value
        meta.closed, meta.whole = 0, int(whole)
        self._synchronize(Durability.DISK)
        self._store_mark(repair)
        self._durability = durability
        self._synchronize(durability)

    def mark_closed(self, running_time: float) -> None:
        """Store that the journal was closed in order."""
        self._meta.closed = 1
        self._meta.running_time = max(self._meta.running_time, running_time)
        self._synchronize(Durability.DISK)
        self._store_mark()

    def _store_mark(self, repair: Repair | None = None) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        if self._connection.execute("PRAGMA user_version").fetchone() == (FORMAT_BEFORE_ERAS,):
            self._connection.execute(ERAS.create)
            self._connection.execute(f"PRAGMA user_version = {FORMAT}")
        if repair is not None:
            self._repair(repair)
        self._store()
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _repair(self, repair: Repair) -> None:
        if repair.reindex:  # first: a row that is not in the index cannot be deleted
            self._connection.execute("REINDEX")
        self._delete(BLOCKS, repair.wrong)
        if repair.cut is not None:
            self._connection.execute("DELETE FROM blocks WHERE position > ?", (repair.cut,))
        for namespace in repair.namespaces:
            self._touch_namespace(namespace)

    def _synchronize(self, durability: Durability) -> None:
        full = durability is Durability.DISK
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        self._connection.execute(f"PRAGMA fullfsync = {int(full)}")

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self._connection.close()

    def commit(self, writes: Iterable[Write], running_time: float, size_bytes: int) -> None:
        """Commit `writes`, in order, in one transaction; together they take about `size_bytes`."""
        self._committed_blocks = 0
        self._connection.execute("BEGIN IMMEDIATE")
        for write in writes:
            self._take(write)
        self._meta.running_time = max(self._meta.running_time, running_time)
        self._store()
        self._connection.execute("COMMIT")
        self._log_bytes += size_bytes + 4 * PAGE_BYTES

    @property
    def forgets(self) -> bool:
        """Whether there are blocks to be dropped."""
        return bool(self._forgotten)

    def forget(self) -> None:
        """Drop the oldest blocks that may go, in one transaction: enough to keep up with the commits.

        It need not be durable: a crash leaves blocks that are still held.
        """
        self._synchronize(Durability.OS)
        self._connection.execute("BEGIN IMMEDIATE")
        left = max(FORGOTTEN_AT_ONCE, 2 * self._committed_blocks)
        while left > 0 and self._forgotten:
            namespace, position = next(iter(self._forgotten.items()))
            gone = self._held.namespace(namespace).positions.up_to(position, left)
            if len(gone) < left:
                del self._forgotten[namespace]
                gone = gone[: len(gone) - self._reaches_above(gone, position)]
            left -= len(gone)
            if gone:
                self._forget(namespace, gone)
        self._store()
        self._connection.execute("COMMIT")
        self._committed_blocks = 0
        self._log_bytes += 4 * PAGE_BYTES
        self._synchronize(self._durability)

    def _reaches_above(self, positions: Sequence[int], position: int) -> bool:
        """Tell whether the last of some blocks ends above a position."""
        found = self._connection.execute(
            "SELECT 1 FROM blocks WHERE position = ? AND position + rows - 1 > ?",
            (positions[-1] if positions else 0, position),
        )
        return found.fetchone() is not None

    def _forget(self, namespace: str, gone: Sequence[int]) -> None:
        """Drop the first blocks of a namespace."""
        entry = self._touch_namespace(namespace)
        self._delete(BLOCKS, gone)
        entry.positions.drop(len(gone))
        entry.blocks -= len(gone)
        starts = {at: start for at, start in entry.starts.items() if at > gone[-1]}
        first = entry.positions.after(gone[-1])
        if first is not None and first not in starts:
            row = self._connection.execute(BLOCKS.select_where("position = ?"), (first,)).fetchone()
            if row is None:
                raise JournalDamaged(f"table blocks, position {first}: it is missing")
            starts = {first: links_of(row)[1], **starts}
        entry.starts = starts
        pages = min(len(gone), 1 + (gone[-1] - gone[0]) // _POSITIONS_A_PAGE)
        self._log_bytes += pages * PAGE_BYTES

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
        self._take_side(write)
        if write.forgotten:
            for namespace, position in write.forgotten.items():
                self._forgotten[namespace] = max(position, self._forgotten.get(namespace, 0))
        if write.healed:
            self._meta.whole = 1

    def _take_side(self, write: Write) -> None:
        if write.dropped or write.eras:
            self._take_eras(write)
        for namespace, floor in write.namespace_floors.items():
            entry = self._touch_namespace(namespace)
            entry.floor = floor
            if floor.n >= entry.damaged:
                entry.damaged = 0
        for namespace, max_ttls in write.max_ttls.items():
            self._touch_namespace(namespace).max_ttls = tuple(max_ttls)
        for reader, position in write.cursors.items():
            if position is None:
                self._drop(CURSORS, reader)
            else:
                self._put(CURSORS, (reader, *position))
        for name, member in write.members.items():
            if member is None:
                self._drop(MEMBERS, name)
            else:
                self._put(MEMBERS, (name, member))

    def _take_eras(self, write: Write) -> None:
        for stream in write.dropped:
            if stream in self._held.streams:
                entry = self._touch(stream)
                entry.numbers, entry.floor = Intervals(), None
        if write.dropped:
            self._dropping = True
        for namespace, era in write.eras.items():
            known = self._held.streams
            ids = [
                pack_ids([known[stream].id for stream in streams if stream in known])
                for streams in (era.marked, era.retired)
            ]
            self._put(ERAS, (namespace, era.number, float(era.since), *ids))

    def _drop_streams(self) -> None:
        """Remove the entries of streams that were dropped and have no block any more.

        Their names stay for whoever is reading.
        """
        self._dropping = False
        for stream, entry in list(self._held.streams.items()):
            if not entry.numbers and entry.floor is None:
                query = "SELECT 1 FROM blocks WHERE stream = ? LIMIT 1"
                if self._connection.execute(query, (entry.id,)).fetchone() is None:
                    del self._held.streams[stream]
                    self._drop(STREAMS, entry.id)

    def _begin_life(self, life: Origin) -> None:
        self._held.lives.append((life, self._meta.position + 1))
        self._put(LIVES, (len(self._held.lives), *life, self._meta.position + 1))

    def _take_blocks(self, write: Write) -> None:
        rows = self._rows.setdefault(BLOCKS, [])
        touched, touched_namespaces = self._touched, self._touched_namespaces
        for block in write.blocks:
            stream = block.stream and (touched.get(block.stream) or self._touch(block.stream))
            name = block.namespace
            namespace = touched_namespaces.get(name) or self._touch_namespace(name)
            row = encode_block(block, None if stream is None else stream.id, namespace.chain)
            rows.append(row)
            namespace.add(block.position, block.rows, row[-2][LINK_BYTES:])
            if stream is not None:
                for low, high in block.numbers:
                    stream.numbers.add(low, high)
                if block.numbers:
                    stream.note_span(block.numbers)
        self._committed_blocks += len(write.blocks)
        self._meta.position = namespace.position

    def _touch_namespace(self, name: str) -> NamespaceEntry:
        """Give the entry of a namespace, to be stored with this commit."""
        entry = self._touched_namespaces.get(name)
        if entry is None:
            entry = self._touched_namespaces[name] = self._held.namespace(name)
        return entry

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

    def _drop(self, table: Table, key: str | int) -> None:
        """Remove a row of a side table, if it is there."""
        old = self._held.checksums.pop((table.name, key), None)
        if old is not None:
            self._meta.side_sum -= old
            self._meta.side_rows -= 1
            self._write(table)
            self._delete(table, [key])

    def _store(self) -> None:
        """Write what was taken, then `meta`, which vouches for it."""
        for (namespace, origin, lane), entry in self._touched.items():
            floor = entry.floor
            n, accepted_at = (None, None) if floor is None else (floor.n, float(floor.accepted_at))
            vector = pack_ranges(entry.numbers.ranges())
            self._put(STREAMS, (entry.id, namespace, *origin, int(lane), n, accepted_at, vector))
        self._touched.clear()
        for name, namespace_entry in self._touched_namespaces.items():
            self._put(NAMESPACES, namespace_entry.row(name))
        self._touched_namespaces.clear()
        for table in self._rows:
            self._write(table)
        if self._dropping:
            self._drop_streams()
        self._insert(META, [seal(self._meta.row())])

    def _write(self, table: Table) -> None:
        rows = self._rows.get(table)
        if rows:
            self._insert(table, rows)
            rows.clear()

    def _insert(self, table: Table, rows: Sequence[Row]) -> None:
        for statement, part in _portions(table.inserts, rows):
            self._connection.execute(statement, [value for row in part for value in row])

    def _delete(self, table: Table, keys: Sequence[int | str]) -> None:
        for statement, part in _portions(table.deletes, keys):
            self._connection.execute(statement, part)


def _portions(
    statements: Mapping[int, str], items: Sequence[_T]
) -> Iterator[tuple[str, Sequence[_T]]]:
    """Cut `items` into as many as a statement takes at once."""
    at = 0
    for size, statement in statements.items():
        while len(items) - at >= size:
            yield statement, items[at : at + size]
            at += size
