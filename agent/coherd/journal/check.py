"""Reads a journal and tells what in it is not as it was written.

SQLite alone does not notice damage, so nothing is believed that does not match its CRC and its place
in the chain of its namespace. Side tables must be whole. Blocks are believed one by one: those linked to
the first block that was kept, and those linked to the last.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from coherd.errors import JournalDamaged
from coherd.journal import Damage, Era, Floor
from coherd.journal.codec import (
    CHANGED,
    UNLINKED,
    decode_block,
    is_block_intact,
    is_block_linked,
    is_intact,
    links_of,
    unpack_ids,
    unpack_pairs,
    unpack_ranges,
    unpack_starts,
)
from coherd.journal.held import Held, Meta, NamespaceEntry, StreamEntry
from coherd.journal.schema import (
    BLOCKS,
    CURSORS,
    ERAS,
    LIVES,
    MEMBERS,
    META,
    NAMESPACES,
    SCHEMA,
    SCHEMA_BEFORE_ERAS,
    SIDE_TABLES,
    STREAMS,
)
from coherd.model import Lane, Origin, Position, Stream
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from coherd.journal import Block
    from coherd.journal.codec import Row
    from coherd.journal.schema import Table


UNREADABLE = (sqlite3.Error, ValueError)
"""What SQLite's module raises for bytes that make no sense."""

NO_LINK = b"-"
"""Not the link of any block."""

_LINKS_BACKWARDS = (
    "SELECT stream, namespace, position, links, crc FROM blocks "
    "WHERE position >= ? ORDER BY position DESC"
)


def load(connection: sqlite3.Connection) -> tuple[Held, str]:
    """Read everything but the blocks; and what is wrong with the index of blocks, "" if nothing.

    Raises `JournalDamaged` when nothing can be believed.
    """
    schema = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name")
    tables = schema.fetchall()
    if tables not in (SCHEMA, SCHEMA_BEFORE_ERAS):
        raise JournalDamaged("its tables are not those of a journal")
    metas = connection.execute(META.select).fetchall()
    if len(metas) != 1 or not is_intact(metas[0]):
        raise JournalDamaged("table meta: its row is not what was written")
    held = Held(Meta(*metas[0][:-1]))
    # Blocks are believed by their CRCs, and their index can be made anew; the trees must be sound.
    index_fault = _ask_sqlite(connection, "integrity_check")
    if index_fault and (fault := _ask_sqlite(connection, "quick_check")):
        raise JournalDamaged(f"SQLite says: {fault}")
    for table in SIDE_TABLES:
        if table is ERAS and tables == SCHEMA_BEFORE_ERAS:
            continue
        for row in connection.execute(table.select):
            if not is_intact(row):
                raise JournalDamaged(
                    f"table {table.name}, {table.key} {row[0]!r}: it is not what was written"
                )
            held.checksums[table.name, row[0]] = row[-1]
            _take(table, row, held)
    found = (len(held.checksums), sum(held.checksums.values()))
    if found != (held.meta.side_rows, held.meta.side_sum):
        names = ", ".join(table.name for table in SIDE_TABLES)
        raise JournalDamaged(f"tables {names}: a row is missing, or is an older one")
    return held, index_fault


def _ask_sqlite(connection: sqlite3.Connection, pragma: str) -> str:
    """Run one of SQLite's own checks; "" when it finds nothing."""
    (text,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
    return "" if text == "ok" else " ".join(str(text).split())


def _take(table: Table, row: Row, held: Held) -> None:
    """Put an intact row of a side table where it belongs."""
    if table is LIVES:
        held.lives.append((Origin(row[1], row[2]), row[3]))
    elif table is STREAMS:
        stream = Stream(row[1], Origin(row[2], row[3]), Lane(row[4]))
        floor = None if row[5] is None else Floor(row[5], row[6])
        held.add_stream(stream, StreamEntry(row[0], Intervals(unpack_ranges(row[7])), floor))
    elif table is NAMESPACES:
        entry = held.namespaces[row[0]] = NamespaceEntry(row[3])
        entry.position, entry.blocks, entry.starts = row[1], row[2], unpack_starts(row[4])
        entry.damaged = row[5]
        entry.floor = None if row[6] is None else Floor(row[6], row[7])
        entry.max_ttls = unpack_pairs(row[8])
    elif table is CURSORS:
        held.cursors[row[0]] = Position(row[1], row[2], row[3])
    elif table is MEMBERS:
        held.members[row[0]] = row[1]
    elif table is ERAS:  # the streams were read before
        marked, retired = (
            frozenset(held.names[i] for i in unpack_ids(blob) if i in held.names)
            for blob in row[3:5]
        )
        held.eras[row[0]] = Era(row[1], row[2], marked, retired)


class Repair(NamedTuple):
    """What makes a journal whole again once its intact blocks were read."""

    wrong: Sequence[int]
    """Keys of the rows of blocks that are to go."""
    cut: int | None
    """Everything above this key is to go, too."""
    namespaces: Sequence[str]
    """Those whose row changes."""
    reindex: bool
    """Whether the index of blocks is to be made anew."""


class _Chain:
    """What is found of one namespace's blocks while they are read."""

    __slots__ = (
        "backwards",
        "entry",
        "fault",
        "gap",
        "last",
        "link",
        "lost_up_to",
        "read",
        "starts",
    )

    def __init__(self, entry: NamespaceEntry) -> None:
        self.entry = entry
        self.link = NO_LINK
        """Of the last block in its place, damaged or not."""
        self.last = entry.chain
        """Of the last block that was given."""
        self.read = 0
        self.starts: dict[int, bytes] = {}
        """Those of the blocks that were given."""
        self.gap = False
        """Whether blocks are missing since the last one that was given."""
        self.lost_up_to = 0
        self.fault = ""
        """The first thing wrong."""
        self.backwards: tuple[int, set[int]] | None = None
        """Down to which position blocks are linked to the last one, but for some."""

    def is_next(self, position: int, before: bytes, own: bytes) -> bool:
        """Tell whether a block with these links belongs here."""
        start = self.entry.starts.get(position)
        return before == self.link if start is None else own == start

    def lose(self, fault: str) -> None:
        """Note that blocks are missing here."""
        self.gap = True
        self.fault = self.fault or fault

    def give(self, position: int, link: bytes) -> None:
        """Take a block for one of ours."""
        if self.gap or position in self.entry.starts:
            self.starts[position] = link
        if self.gap:
            self.lost_up_to = position - 1
            self.gap = False
        self.read += 1
        self.link = self.last = link

    def end(self) -> None:
        """Compare with what is known of the whole, and let that be what was found."""
        entry = self.entry
        ends = self.link == entry.chain if self.read else not entry.blocks
        if self.gap or not ends or not (self.fault or self.read == entry.blocks):
            self.lose(f"the last ones up to position {entry.position} are missing")
            self.lost_up_to = entry.position
        if self.fault:
            entry.blocks, entry.starts = self.read, self.starts
            entry.chain = self.last
            entry.damaged = max(entry.damaged, self.lost_up_to)


class Scan:
    """One reading of all blocks, in order."""

    def __init__(self, path: Path, connection: sqlite3.Connection, held: Held) -> None:
        self.damages: list[Damage] = []
        """One a namespace; complete once all blocks were read."""
        self._path = path
        self._connection = connection
        self._held = held
        self._chains = {name: _Chain(entry) for name, entry in held.namespaces.items()}
        self._wrong: list[int] = []
        self._cut: int | None = None

    def blocks(self) -> Iterator[Block]:
        """Give the intact ones that are in their places, and let `held` know what there is."""
        for row in self._rows():
            if self._belongs(row):
                block = decode_block(row, self._held.names)
                self._held.note_span(block)
                self._held.namespaces[block.namespace].positions.append(block.position)
                yield block
            else:
                self._wrong.append(row[0])
        for name, chain in self._chains.items():
            blocks = chain.entry.blocks
            chain.end()
            self._tell(name, chain, blocks)
        if self._wrong and not self.damages:
            what = f"{self._path}: {len(self._wrong)} rows of table blocks belong to no namespace"
            self.damages.append(Damage(what))

    def repair(self, reindex: bool) -> Repair | None:
        """Tell what is to be changed; None when all is well."""
        changed = [name for name, chain in self._chains.items() if chain.fault]
        if not (reindex or changed or self._wrong or self._cut is not None):
            return None
        return Repair(self._wrong, self._cut, changed, reindex)

    def _tell(self, name: str, chain: _Chain, blocks: int) -> None:
        what = ""
        if chain.fault:
            what = f"{blocks - chain.read} of {blocks} blocks are damaged or missing: {chain.fault}"
        elif chain.entry.damaged:
            what = "blocks were found damaged before, and are not made good yet"
        if what:
            what = f"{self._path}, namespace {name!r}, up to position {chain.entry.damaged}: {what}"
            self.damages.append(Damage(what, name, chain.entry.damaged))

    def _rows(self) -> Iterator[Row]:
        """Give the rows as far as they can be read."""
        last = 0
        rows = self._connection.execute(BLOCKS.select)
        while True:
            try:
                row = rows.fetchone()
            except UNREADABLE as error:
                self._cut = last
                for chain in self._chains.values():
                    if chain.read < chain.entry.blocks:
                        chain.lose(f"table blocks behind position {last}: SQLite says: {error}")
                return
            if row is None:
                return
            last = row[0]
            yield row

    def _belongs(self, row: Row) -> bool:
        """Tell whether the row of a block is intact and in its place."""
        position, (before, own) = row[0], links_of(row)
        intact = is_block_intact(row) and is_block_linked(row)
        name = self._namespace(row[2], row[3]) if intact else None
        if name is None:
            # What it says of itself is not believed, but its links are: no other block has them.
            for chain in self._chains.values():
                if chain.is_next(position, before, own):
                    chain.lose(f"table blocks, position {position}: {CHANGED}")
                    chain.link = own
                    break
            return False
        chain = self._chains[name]
        if not chain.is_next(position, before, own):
            chain.lose(f"table blocks, position {position}: {UNLINKED}")
            if not self._is_linked_backwards(name, position):
                return False
        chain.give(position, own)
        return True

    def _namespace(self, stream_id: int | None, namespace: str | None) -> str | None:
        """Tell the namespace of a block; None when nothing here knows of it."""
        if stream_id:
            stream = self._held.names.get(stream_id)
            namespace = None if stream is None else stream.namespace
        return namespace if namespace in self._chains else None

    def _is_linked_backwards(self, name: str, position: int) -> bool:
        """Tell whether the blocks of a namespace from a position on lead to its last one."""
        chain = self._chains[name]
        if chain.backwards is None:
            chain.backwards = self._follow_backwards(name, position)
        first, others = chain.backwards
        return position >= first and position not in others

    def _follow_backwards(self, name: str, position: int) -> tuple[int, set[int]]:
        """Go from a namespace's last block back to a position."""
        first, others = self._held.meta.position + 1, set[int]()
        due = self._held.namespaces[name].chain
        try:
            for row in self._connection.execute(_LINKS_BACKWARDS, (position,)):
                if self._namespace(row[0], row[1]) == name:
                    before, own = links_of(row)
                    if own == due:
                        first, due = row[2], before
                    else:
                        others.add(row[2])
        except UNREADABLE:  # told when the reading comes to it
            pass
        return first, others
