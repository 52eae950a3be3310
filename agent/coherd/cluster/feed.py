"""Arrivals in the order of their positions, for everybody who reads them: handlers and watchers.

The newest arrivals are kept in memory (the *tail*), older ones are read from the journal, so a slow or
returning reader costs no memory. An arrival leaves the tail only when it is committed or, where the
journal refused it, when it is given up, which raises the floors.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

import trio

from coherd.cluster.moments import ARRIVALS_MAX, Moments
from coherd.cluster.tail import StreamTail
from coherd.errors import JournalDamaged
from coherd.journal import Block
from coherd.model import EVERYTHING, Batch, Cause, Lane, Origin, Stream
from coherd.replication.replica import Arrival, resume
from coherd.wire import decode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from coherd.clock import Clock
    from coherd.journal import Journal
    from coherd.replication.intervals import Intervals
    from coherd.replication.replica import Replica

TAIL_BYTES_MAX = 8 * 1024 * 1024
TAIL_BYTES_LIMIT = 4 * TAIL_BYTES_MAX
"""Bytes from which even arrivals that are not committed yet are given up: the disk stalls."""
READ_BYTES_MAX = 256 * 1024
"""Payload bytes that a reader is given at once."""
ROW_OVERHEAD_BYTES = 100
"""What a row in the tail counts beside its payload."""


class Entry(NamedTuple):
    """An arrival in the tail."""

    arrival: Arrival
    payload: bytes
    ticket: int
    """Of its write to the journal; 0 when the journal refused it."""

    @property
    def size(self) -> int:
        """Bytes that it counts."""
        return len(self.payload) + len(self.arrival.batch.selectors) * ROW_OVERHEAD_BYTES


class Portion(NamedTuple):
    """What a reader is given: arrivals in order, and the position after all that it may skip."""

    arrivals: Sequence[Arrival]
    upto: int


class Feed:
    """The tail, and behind it the journal."""

    def __init__(
        self,
        replica: Replica,
        journal: Journal,
        clock: Clock,
        horizon: Callable[[str, float], float],
    ) -> None:
        self._replica = replica
        self._journal = journal
        self._clock = clock
        self._horizon = horizon
        self._entries: list[Entry] = []
        self._lasts: list[int] = []
        self._of_stream: dict[Stream, StreamTail[Entry]] = {}
        self._bytes = 0
        self._start = replica.position
        """Everything above this position is in the tail."""
        self._appended = trio.lowlevel.ParkingLot()
        self.moments = Moments(replica.position, ARRIVALS_MAX)
        """When what came since the start has arrived."""
        self.on_damage: Callable[[JournalDamaged], None] = lambda _error: None
        """Called with what the journal could not read, so that it is given up."""

    @property
    def position(self) -> int:
        """The newest position."""
        return self._replica.position

    def append(self, entries: Sequence[Entry]) -> None:
        """Add arrivals and wake the readers."""
        tail: StreamTail[Entry] | None = None
        stream = None
        for entry in entries:
            self._entries.append(entry)
            self._lasts.append(entry.arrival.last)
            self._bytes += entry.size
            batch = entry.arrival.batch
            if batch.numbers:
                if tail is None or batch.stream is not stream:  # many of one come together
                    stream = batch.stream
                    tail = self._of_stream.get(stream)
                    if tail is None:
                        tail = self._of_stream[stream] = StreamTail()
                tail.add(batch.numbers, entry)
        if entries:
            self.moments.note(self._lasts[-1], self._clock.now())
        if self._bytes > TAIL_BYTES_MAX:
            self._trim()
        self._appended.unpark_all()

    async def wait(self, position: int) -> None:
        """Wait until there is something above `position`."""
        while self.position <= position:
            await self._appended.park()

    def rows(self, stream: Stream, numbers: Intervals) -> list[Entry]:
        """Give the entries of the tail that hold some of these rows, in order of numbers."""
        tail = self._of_stream.get(stream)
        return tail.find(numbers) if tail is not None else []

    async def at(self, position: int) -> Arrival | None:
        """Give the arrival that took a position; None when it is not kept any more."""
        found: list[Arrival] = []
        if position > self._start:
            at = bisect_left(self._lasts, position)
            found = [entry.arrival for entry in self._entries[at : at + 1]]
        else:
            try:
                found = [arrival_of(block) for block in await self._journal.read(position - 1, 1)]
            except JournalDamaged as error:
                self.on_damage(error)
        return next((each for each in found if each.position <= position <= each.last), None)

    async def read(self, after: int) -> Portion:
        """Give what comes after a position, at least one arrival where there is one."""
        if after >= self._start:
            at = bisect_right(self._lasts, after)
            size, stop = 0, at
            while stop < len(self._entries) and size < READ_BYTES_MAX:
                size += len(self._entries[stop].payload)
                stop += 1
            arrivals = [entry.arrival for entry in self._entries[at:stop]]
            return Portion(arrivals, arrivals[-1].last if arrivals else after)
        start = self._start  # it may rise meanwhile, over what this reading did not see yet
        try:
            blocks = await self._journal.read(after, READ_BYTES_MAX)
        except JournalDamaged as error:
            self.on_damage(error)  # raises the floor to the end of what is lost, or above
            return Portion((), min(start, error.positions[1]))
        # Only up to the tail: above it the journal lacks what it refused, and the tail does not. What it
        # lacks below was given up; the floors tell.
        arrivals = [a for a in map(arrival_of, blocks) if a.last <= start]
        return Portion(arrivals, arrivals[-1].last if arrivals else max(after, start))

    def resume(self, namespace: str, position: int) -> int | None:
        """Tell from where a reader may go on, or None when it must be reset."""
        now = self._clock.now()
        if position >= self._start and not self._replica.is_doubted(namespace, position):
            return position
        horizon = self._horizon(namespace, now)
        return resume(position, self._replica.floor(namespace), horizon, now)

    def _is_above_start(self, entry: Entry) -> bool:
        return entry.arrival.position > self._start

    def _trim(self) -> None:
        """Let the oldest half of the tail go, as far as it is committed or was refused."""
        gone = 0
        committed = self._journal.committed_ticket
        closed = bool(self._journal.error)
        for entry in self._entries:
            if self._bytes <= TAIL_BYTES_MAX // 2:
                break
            uncommitted = entry.ticket > committed
            if uncommitted and not closed and self._bytes <= TAIL_BYTES_LIMIT:
                break
            if uncommitted or entry.ticket == 0:
                self._replica.forget(entry.arrival)
            self._bytes -= entry.size
            gone += 1
        if gone:
            self._start = self._lasts[gone - 1]
            for stream in {entry.arrival.batch.stream for entry in self._entries[:gone]}:
                tail = self._of_stream.get(stream)
                if tail is not None and not tail.keep(self._is_above_start):
                    del self._of_stream[stream]
            del self._entries[:gone]
            del self._lasts[:gone]


class Reader:
    """Goes through the arrivals of some namespaces, from a position on."""

    def __init__(self, feed: Feed, namespaces: Collection[str], position: int) -> None:
        self._feed = feed
        self._namespaces = namespaces
        self._reset_at: dict[str, int] = {}
        self.position = position
        """Everything up to here was given."""

    async def next(self) -> Portion:
        """Wait for arrivals of the namespaces, or for a later position to skip to.

        Where the position lies below a floor, the namespace is reset: the portion then begins with an
        arrival that drops everything.
        """
        if self._feed.position > self.position:
            await trio.lowlevel.checkpoint()  # who never waits gives way, too
        await self._feed.wait(self.position)
        portion = await self._feed.read(self.position)
        # Looked at after reading: what was given up meanwhile is missing from the portion.
        resets = [name for name in sorted(self._namespaces) if self._must_reset(name)]
        arrivals = [reader_reset(name, self.position) for name in resets]
        arrivals += [a for a in portion.arrivals if a.namespace in self._namespaces]
        self.position = portion.upto
        return Portion(arrivals, portion.upto)

    def _must_reset(self, namespace: str) -> bool:
        position = max(self.position, self._reset_at.get(namespace, 0))
        if self._feed.resume(namespace, position) is not None:
            return False
        self._reset_at[namespace] = self._feed.position
        return True


def reader_reset(namespace: str, position: int) -> Arrival:
    """Give the reset of one reader."""
    batch = Batch(Stream(namespace, Origin("", 0), Lane.NORMAL), (), [EVERYTHING])
    return Arrival(position, batch, 0.0, Cause.CURSOR)


def block_of(arrival: Arrival, payload: bytes) -> Block:
    """Give an arrival as it is stored."""
    batch = arrival.batch
    return Block(
        position=arrival.position,
        rows=len(batch.selectors),
        namespace=arrival.namespace,
        stream=batch.stream if batch.numbers else None,
        numbers=batch.numbers,
        accepted_at=arrival.accepted_at,
        cause=arrival.cause,
        payload=payload,
    )


def arrival_of(block: Block) -> Arrival:
    """Read a stored block."""
    if block.stream is None:
        batch = Batch(Stream(block.namespace, Origin("", 0), Lane.NORMAL), (), [EVERYTHING])
    else:
        batch = decode_batch(block.payload)
    return Arrival(block.position, batch, block.accepted_at, block.cause)
