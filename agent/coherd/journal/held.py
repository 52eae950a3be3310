"""What a journal holds besides its blocks, as it is in memory: by the writer, and when it is opened."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING

from coherd.journal import Contents
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from coherd.journal import Block, Floor
    from coherd.journal.codec import Row
    from coherd.model import Origin, Position, Stream


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
    """0 from a loss of power on until what was lost is made good."""
    running_time: float
    position: int
    blocks: int
    chain_start: bytes
    """The chain before the first block that is kept."""
    chain_head: bytes
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


@dataclass(slots=True)
class Held:
    """The whole of it."""

    meta: Meta
    lives: list[tuple[Origin, int]] = field(default_factory=list)
    streams: dict[Stream, StreamEntry] = field(default_factory=dict)
    names: dict[int, Stream] = field(default_factory=dict)
    """The streams by id."""
    namespace_floors: dict[str, Floor] = field(default_factory=dict)
    cursors: dict[str, Position] = field(default_factory=dict)
    members: dict[str, bytes] = field(default_factory=dict)
    checksums: dict[tuple[str, int | str], int] = field(default_factory=dict)
    """CRCs of the rows of the side tables, by table and key."""

    def add_stream(self, stream: Stream, entry: StreamEntry) -> None:
        """Take in `stream`."""
        self.streams[stream] = entry
        self.names[entry.id] = stream

    def note_span(self, block: Block) -> None:
        """Remember how far apart the numbers of `block` are."""
        if block.stream is not None and block.numbers:
            entry = self.streams[block.stream]
            span = max(high for _, high in block.numbers) - min(block.numbers)[0]
            entry.span = max(entry.span, span)

    def contents(self, clean: bool) -> Contents:
        """Give a copy for the caller."""
        return Contents(
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
            namespace_floors=dict(self.namespace_floors),
            cursors=dict(self.cursors),
            members=dict(self.members),
            clean=clean,
        )
