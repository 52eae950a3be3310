"""The one way in: rows of applications and of peers become arrivals.

In one step, without waiting, new rows are numbered, entered in the ledger, queued for the journal and put
in the feed. Callers wait for the disk; handlers and watchers do not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from coherd.cluster.feed import Entry, Feed
from coherd.errors import MalformedMessage, NotDurable, Overloaded
from coherd.journal import Block, Journal, Write
from coherd.model import Batch, Cause, Effect, Lane, Origin, Position, Selector, Stream
from coherd.wire import decode_batch, encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coherd.clock import Clock
    from coherd.replication.clock import HybridClock
    from coherd.replication.repair import Adoption, Repair
    from coherd.replication.replica import Arrival, Replica

log = structlog.get_logger("coherd.ingest")


@dataclass(slots=True)
class NamespaceCounts:
    """What one namespace has seen since the agent started."""

    accepted: int = 0
    received: int = 0
    repaired: int = 0
    resets: Counter[str] = field(default_factory=Counter)


class Accepted(NamedTuple):
    """Rows that were just accepted."""

    arrival: Arrival
    payload: bytes
    ticket: int


class Ingest:
    """Turns rows into arrivals."""

    def __init__(
        self,
        replica: Replica,
        repair: Repair,
        journal: Journal,
        feed: Feed,
        clock: Clock,
        stamps: HybridClock,
        name: str,
    ) -> None:
        self.replica = replica
        self.counts: dict[str, NamespaceCounts] = {}
        self.malformed = 0
        """Payloads of peers that were dropped because they are not what they should be."""
        self.on_gap: Callable[[], None] = lambda: None
        """Called when rows show that others are missing."""
        self.changed: set[Stream] = set()
        """Streams whose numbers changed; taken by whoever tells peers."""
        self._repair = repair
        self._journal = journal
        self._feed = feed
        self._clock = clock
        self._stamps = stamps
        self._name = name
        self._arrived = trio.lowlevel.ParkingLot()
        self._lives = [*journal.contents.lives]

    # ------------------------------------------------------------------ lives and positions

    def begin_life(self, epoch: int) -> None:
        """Number own rows and positions under a new epoch from here on."""
        life = Origin(self._name, epoch)
        self._journal.append_nowait(Write(life=life))
        self._lives.append((life, self.replica.position + 1))
        self.replica.begin_life(life)

    @property
    def life(self) -> Origin:
        """The life that rows are accepted in."""
        assert self.replica.life is not None
        return self.replica.life

    def write_out(self, n: int) -> Position:
        """Give a position as it is written outside."""
        for life, first in reversed(self._lives):
            if n >= first:
                return Position(self._name, life.epoch, n)
        return Position(self._name, self._lives[0][0].epoch, n)

    def locate(self, position: Position) -> int | None:
        """Read a position that was written outside; None when its name never wrote this journal.

        One that the journal lacks is read as the last one before it that it has.
        """
        if position.name != self._name:
            return None
        end = self.replica.position
        for life, first in reversed(self._lives):
            if life.epoch <= position.epoch:
                return min(position.n, end)
            end = first - 1
        return 0

    def remember_watcher(self, key: str, position: int | None) -> None:
        """Store how far an acknowledging watcher is, or with None that it does not count any more."""
        self._append(Write(cursors={key: None if position is None else self.write_out(position)}))

    def watchers(self) -> dict[str, int]:
        """Give the acknowledging watchers of earlier lives, with the positions they had reached."""
        cursors = self._journal.contents.cursors
        return {key: self.locate(position) or 0 for key, position in cursors.items()}

    # ------------------------------------------------------------------ rows

    def accept(
        self,
        namespace: str,
        lane: Lane,
        selectors: Sequence[Selector],
        effect: Effect,
        versions: Sequence[int] | None,
        reason: str,
    ) -> Accepted:
        """Number rows of an application and let them go everywhere but to peers.

        Raises `Overloaded` or `NotDurable` before anything changed.
        """
        self._journal.check_room()
        now = self._clock.now()
        stamp = self._stamps.tick(self._clock.wall_ms())
        arrival = self.replica.accept(
            namespace,
            lane,
            selectors,
            effect=effect,
            versions=versions,
            stamp=stamp,
            now=now,
            reason=reason,
        )
        payload = encode_batch(arrival.batch)
        ticket = self._enter([(arrival, payload)])
        self._count(namespace).accepted += len(arrival.batch)
        return Accepted(arrival, payload, ticket)

    def has(self, stream: Stream, first: int, last: int) -> bool:
        """Tell whether numbers of a stream are in the vector."""
        state = self.replica.vector.get(stream)  # a question does not make a stream known
        return state is not None and state.have.covers(first, last)

    async def wait_for(self, stream: Stream, first: int, last: int) -> None:
        """Wait until numbers of a stream are in the vector."""
        while not self.has(stream, first, last):
            await self._arrived.park()

    def receive(self, payloads: Iterable[tuple[bytes, float]], cause: Cause) -> list[str | None]:
        """Take payloads of a peer, each with the age in seconds of its youngest row.

        Gives the namespace of each, whether or not something was new; None for one that was dropped
        because it can't be read.
        """
        now, wall = self._clock.now(), self._clock.wall_ms()
        read = [(payload, age, self._read(payload)) for payload, age in payloads]
        had_gaps = self._repair.has_gaps
        arrivals: list[tuple[Arrival, bytes]] = []
        for payload, age, batch in read:
            if batch is None:
                continue
            self._stamps.observe(batch.stamp, wall)
            arrival = self.replica.receive(batch, now - age, cause)
            if arrival is not None:
                whole = len(arrival.batch) == len(batch)
                arrivals.append((arrival, payload if whole else encode_batch(arrival.batch)))
                counts = self._count(arrival.namespace)
                if cause is Cause.REPAIR:
                    counts.repaired += len(arrival.batch)
                else:
                    counts.received += len(arrival.batch)
        if arrivals:
            self._enter(arrivals)
            for arrival, _ in arrivals:
                self.adopt(self._repair.touch(arrival.batch.stream))
            if self._repair.has_gaps and not had_gaps:
                self.on_gap()
        return [None if batch is None else batch.stream.namespace for _, _, batch in read]

    def _read(self, payload: bytes) -> Batch | None:
        try:
            return decode_batch(payload)
        except MalformedMessage as error:
            self.malformed += 1
            log.warning("payload dropped", error=str(error))
            return None

    def adopt(self, adoptions: Iterable[Adoption]) -> None:
        """Journal numbers that repair took into the vector without a row."""
        for stream, numbers, floor in adoptions:
            floors = {} if floor is None else {stream: self.replica.vector.state(stream).floor}
            self._append(Write(adopted={stream: numbers.ranges()}, stream_floors=floors))
            self.changed.add(stream)
            self._arrived.unpark_all()

    def reset(self, namespace: str, cause: Cause) -> None:
        """Declare every copy of the namespace doubtful, and adopt what is missing, in one write."""
        adopted = self._repair.reset(namespace)
        arrival = self.replica.reset(namespace, adopted, cause, self._clock.now())
        log.warning(
            "namespace reset",
            namespace=namespace,
            cause=cause.value,
            missing=sum(map(len, adopted.values())),
        )
        self._enter([(arrival, b"")])
        self.changed.update(adopted)
        self._count(namespace).resets[cause.value] += 1

    def _enter(self, arrivals: Sequence[tuple[Arrival, bytes]]) -> int:
        """Journal arrivals in one write and show them to the readers."""
        blocks = [block_of(arrival, payload) for arrival, payload in arrivals]
        adopted = {s: n for arrival, _ in arrivals for s, n in arrival.adopted.items()}
        floors = {stream: self.replica.vector.state(stream).floor for stream in adopted}
        ranges = {stream: numbers.ranges() for stream, numbers in adopted.items()}
        ticket = self._append(Write(blocks, adopted=ranges, stream_floors=floors))
        self._feed.append([Entry(arrival, payload, ticket) for arrival, payload in arrivals])
        self.changed.update(a.batch.stream for a, _ in arrivals if a.batch.numbers)
        self._arrived.unpark_all()
        return ticket

    def _append(self, write: Write) -> int:
        """Queue a write; 0 when the journal refuses it, so that it stays out of the stored vector."""
        try:
            return self._journal.append_nowait(write)
        except (Overloaded, NotDurable):
            return 0

    def _count(self, namespace: str) -> NamespaceCounts:
        counts = self.counts.get(namespace)
        if counts is None:
            counts = self.counts[namespace] = NamespaceCounts()
        return counts


def block_of(arrival: Arrival, payload: bytes) -> Block:
    """Give an arrival as it is stored."""
    batch: Batch = arrival.batch
    return Block(
        position=arrival.position,
        rows=len(batch),
        namespace=arrival.namespace,
        stream=batch.stream if batch.numbers else None,
        numbers=batch.numbers,
        accepted_at=arrival.accepted_at,
        cause=arrival.cause,
        payload=payload,
    )
