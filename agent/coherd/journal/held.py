"""What a journal holds besides its blocks, as it is in memory: by the writer, and when it is opened."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING

from coherd.journal import Contents
from coherd.journal.codec import pack_pairs, pack_starts, start_chain
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.journal import Block, Era, Floor
    from coherd.journal.codec import Row
    from coherd.model import Origin, Position, Range, Stream


@dataclass(slots=True)
class Meta:
    """The one row of `meta`, without its CRC."""

    id: int
    cluster: str
    name: str
    boot_id: str
    durability: str
    closed: int
    """1 when it was closed in order, 0 while it is open."""
    whole: int
    """0 from a loss of power, or damage like one, on until what was lost is made good."""
    running_time: float
    position: int
    side_rows: int
    side_sum: int

    def row(self) -> Row:
        """Give its columns."""
        return astuple(self)


class StreamEntry:
    """What is committed of one stream."""

    __slots__ = ("floor", "id", "numbers", "span")

    def __init__(self, id_: int, numbers: Intervals, floor: Floor | None = None) -> None:
        self.id = id_
        self.numbers = numbers
        self.floor = floor
        self.span = 0
        """The most by which one block's last number is above its first."""

    def note_span(self, numbers: Sequence[Range]) -> None:
        """Remember how far apart the numbers of a block are."""
        span = numbers[-1][1] - numbers[0][0]
        self.span = max(self.span, span)


class Positions:
    """Where the blocks of a namespace begin, ascending, at 8 bytes each; taken away from the front."""

    __slots__ = ("_array", "_start")

    def __init__(self) -> None:
        self._array = array("q")
        self._start = 0

    def __len__(self) -> int:
        return len(self._array) - self._start

    def append(self, position: int) -> None:
        """Add the newest."""
        self._array.append(position)

    def up_to(self, position: int, count: int) -> Sequence[int]:
        """Give the first that are not above `position`, `count` at most."""
        end = bisect_right(self._array, position, self._start)
        return self._array[self._start : min(end, self._start + count)]

    def after(self, position: int) -> int | None:
        """Give the first that is above `position`; None when there is none."""
        at = bisect_right(self._array, position, self._start)
        return self._array[at] if at < len(self._array) else None

    def drop(self, count: int) -> None:
        """Take away the first `count`."""
        self._start += count
        if self._start * 2 > len(self._array):
            rest = self._array[self._start :]
            self._start = 0  # first: a thread that looks meanwhile sees too many, not too few
            self._array = rest


class NamespaceEntry:
    """What is committed of one namespace."""

    __slots__ = (
        "blocks",
        "chain",
        "damaged",
        "floor",
        "max_ttls",
        "position",
        "positions",
        "starts",
    )

    def __init__(self, chain: bytes) -> None:
        self.position = 0
        """Where its last block ends, be it still held or not."""
        self.blocks = 0
        self.chain = chain
        """The link of its last block."""
        self.starts: dict[int, bytes] = {}
        """Links, by position, of the blocks whose predecessor is not held: the first one, and the first
        one behind damage."""
        self.damaged = 0
        """Up to which position damage took blocks that no floor accounts for yet."""
        self.floor: Floor | None = None
        self.max_ttls: Sequence[tuple[float, float]] = ()
        self.positions = Positions()

    def add(self, position: int, rows: int, link: bytes) -> None:
        """Take in its next block."""
        if not self.blocks:
            self.starts = {position: link}
        self.blocks += 1
        self.chain = link
        self.position = position + rows - 1
        self.positions.append(position)

    def row(self, namespace: str) -> Row:
        """Give its columns, without the CRC."""
        floor = self.floor
        n, accepted_at = (None, None) if floor is None else (floor.n, float(floor.accepted_at))
        return (
            namespace,
            self.position,
            self.blocks,
            self.chain,
            pack_starts(self.starts),
            self.damaged,
            n,
            accepted_at,
            pack_pairs(self.max_ttls),
        )


@dataclass(slots=True)
class Held:
    """The whole of it."""

    meta: Meta
    lives: list[tuple[Origin, int]] = field(default_factory=list)
    streams: dict[Stream, StreamEntry] = field(default_factory=dict)
    names: dict[int, Stream] = field(default_factory=dict)
    """The streams by id."""
    namespaces: dict[str, NamespaceEntry] = field(default_factory=dict)
    cursors: dict[str, Position] = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)
    eras: dict[str, Era] = field(default_factory=dict)
    checksums: dict[tuple[str, int | str], int] = field(default_factory=dict)
    """CRCs of the rows of the side tables, by table and key."""

    def add_stream(self, stream: Stream, entry: StreamEntry) -> None:
        """Take in `stream`."""
        self.streams[stream] = entry
        self.names[entry.id] = stream

    def namespace(self, namespace: str) -> NamespaceEntry:
        """Give the entry of a namespace; a new one when it has none."""
        entry = self.namespaces.get(namespace)
        if entry is None:
            entry = NamespaceEntry(start_chain(self.meta.cluster, self.meta.name, namespace))
            self.namespaces[namespace] = entry
        return entry

    def note_span(self, block: Block) -> None:
        """Remember how far apart the numbers of `block` are."""
        if block.stream is not None and block.numbers:
            self.streams[block.stream].note_span(block.numbers)

    def locate(self, position: int) -> tuple[str | None, int]:
        """Tell whose block begins at a position, None for nobody's, and where it ends at the latest."""
        namespace, end = None, self.meta.position
        for name, entry in tuple(self.namespaces.items()):  # the writer may add one meanwhile
            if entry.positions.after(position - 1) == position:
                namespace = name
            following = entry.positions.after(position)
            if following is not None:
                end = min(end, following - 1)
        return namespace, max(position, end)

    def contents(self, clean: bool) -> Contents:
        """Give a copy for the caller."""
        namespaces = self.namespaces.items()
        return Contents(
            name=self.meta.name,
            running_time=self.meta.running_time,
            lives=tuple(self.lives),
            position=self.meta.position,
            vector={
                stream: entry.numbers.ranges()
                for stream, entry in self.streams.items()
                if entry.numbers
            },
            stream_floors={
                stream: entry.floor
                for stream, entry in self.streams.items()
                if entry.floor is not None
            },
            namespace_floors={n: entry.floor for n, entry in namespaces if entry.floor is not None},
            cursors=dict(self.cursors),
            members=dict(self.members),
            max_ttls={n: entry.max_ttls for n, entry in namespaces if entry.max_ttls},
            eras=dict(self.eras),
            clean=clean,
        )
