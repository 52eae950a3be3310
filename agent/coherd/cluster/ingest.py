"""The one way in: rows of applications and of peers become arrivals.

In one step, without waiting, new rows are numbered, entered in the ledger, queued for the journal and put
in the feed. Callers wait for the disk; handlers and watchers do not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import structlog
import trio

from coherd.cluster.changes import Changes
from coherd.cluster.counts import LastReset, NamespaceCounts
from coherd.cluster.feed import Entry, Feed, block_of
from coherd.cluster.foreign import Foreign
from coherd.cluster.lives import Lives
from coherd.cluster.runs import runs
from coherd.errors import JournalDamaged, MalformedMessage, NotDurable, Overloaded
from coherd.journal import Journal, Write
from coherd.model import (
    EVERY_NAMESPACE,
    Batch,
    Cause,
    Effect,
    Lane,
    Origin,
    Position,
    Selector,
    Stream,
)
from coherd.replication.ahead import check_ahead
from coherd.wire import decode_batch, encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from coherd.clock import Clock
    from coherd.replication.clock import HybridClock
    from coherd.replication.eras import Turn
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Adoption, Repair
    from coherd.replication.replica import Arrival, Replica
    from coherd.replication.retention import Floor

log = structlog.get_logger("coherd.ingest")


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
        journal_bytes_max: float = inf,
    ) -> None:
        self.replica = replica
        self.counts: defaultdict[str, NamespaceCounts] = defaultdict(NamespaceCounts)
        self.malformed = 0
        """Payloads of peers that were dropped because they are not what they should be."""
        self.rows: Counter[tuple[str, Lane, Cause]] = Counter()
        """How many were new here, by namespace, lane and path."""
        self.on_gap: Callable[[], None] = lambda: None
        """Called when rows show that others are missing."""
        self.foreign = Foreign()
        self.changes = Changes()
        """What whoever tells peers is to take."""
        self.is_held: Callable[[str], bool] = lambda _namespace: True
        """Tells whether copies of a namespace are kept here."""
        self._repair = repair
        self._journal = journal
        self._feed = feed
        self._clock = clock
        self._stamps = stamps
        self._name = name
        self._arrived = trio.lowlevel.ParkingLot()
        self._lives = Lives(name, journal.contents.lives)
        self._journal_bytes_max = journal_bytes_max
        self._unwritten: list[tuple[Collection[Stream], Collection[str], Mapping[str, int]]] = []
        """Whose floors are to be stored, and up to where blocks may go; the journal had no room for it."""

    # ------------------------------------------------------------------ lives and positions

    def begin_life(self, epoch: int) -> None:
        """Number own rows and positions under a new epoch from here on."""
        life = Origin(self._name, epoch)
        self._journal.append_nowait(Write(life=life))
        self._lives.begin(life, self.replica.position + 1)
        self.replica.begin_life(life)

    def confirm_life(self, *, confirmed: bool = True) -> None:
        """Note that others were met and know of no later life, or with False that they do after all.

        Where they have brought rows of a later one, that is not so.
        """
        if (
            self._lives.is_confirmed is confirmed
            or self._lives.is_renounced
            or (confirmed and self.replica.vector.last_epoch(self._name) > self.life.epoch)
        ):
            return
        if self._append(Write(life=self.life)):
            self._lives.begin(self.life, self.replica.position + 1)

    @property
    def life(self) -> Origin:
        """The life that rows are accepted in."""
        assert self.replica.life is not None
        return self.replica.life

    def write_out(self, n: int) -> Position:
        """Give a position as it is written outside."""
        return self._lives.write_out(n)

    def locate(self, position: Position) -> int | None:
        """Read a position that was written outside; None when its name never wrote this journal."""
        return self._lives.locate(position, self.replica.position)

    def remember_watcher(self, key: str, position: int | None) -> int:
        """Store how far an acknowledging watcher is, or with None that it does not count any more."""
        cursor = None if position is None else self.write_out(position)
        return self._append(Write(cursors={key: cursor}))

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
        issuer: str = "",
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
            issuer=issuer,
        )
        payload = encode_batch(arrival.batch)
        ticket = self._enter([(arrival, payload)])
        self._note_new(arrival.batch.stream, Cause.LOCAL, len(arrival.batch))
        self.counts[namespace].accepted += len(arrival.batch)
        return Accepted(arrival, payload, ticket)

    def has(self, stream: Stream, first: int, last: int) -> bool:
        """Tell whether numbers of a stream are in the vector."""
        state = self.replica.vector.get(stream)  # a question does not make a stream known
        return state is not None and state.have.covers(first, last)

    async def wait_for(self, stream: Stream, first: int, last: int) -> None:
        """Wait until numbers of a stream are in the vector."""
        while not self.has(stream, first, last):
            await self._arrived.park()

    def receive(self, payloads: Iterable[tuple[bytes, float]], cause: Cause) -> None:
        """Take payloads of a peer, each with the age in seconds of its youngest row."""
        self.take(((payload, age, self.read(payload)) for payload, age in payloads), cause)

    def take(self, read: Iterable[tuple[bytes, float, Batch | None]], cause: Cause) -> None:
        """Take payloads as `receive`, each with what was read in it; None where nothing could be.

        Rows of namespaces that are not held here are left out.
        """
        had_gaps = self._repair.has_gaps
        arrivals: list[tuple[Arrival, bytes]] = []
        streams: dict[Stream, None] = {}
        for run in runs(read):
            stream = run[0][2].stream
            if self.keeps(stream) and (new := self._take_run(run, stream, cause)):
                arrivals += new
                streams[stream] = None
        if arrivals:
            self._enter(arrivals)
            for stream in streams:
                self.adopt(self._repair.touch(stream))
            if self._repair.has_gaps and not had_gaps:
                self.on_gap()

    def _take_run(
        self, run: Sequence[tuple[bytes, float, Batch]], stream: Stream, cause: Cause
    ) -> list[tuple[Arrival, bytes]]:
        """Take payloads of one stream; give what was new, each as it is kept."""
        now, wall = self._clock.now(), self._clock.wall_ms()
        for _, _, batch in run:
            self._stamps.observe(batch.stamp, wall)
        found = self.replica.receive_all([(batch, now - age) for _, age, batch in run], cause, now)
        arrivals = [
            (arrival, payload if arrival.batch is batch else encode_batch(arrival.batch))
            for arrival, (payload, _, batch) in zip(found, run, strict=True)
            if arrival is not None
        ]
        if arrivals:
            rows = sum([len(arrival.batch.selectors) for arrival, _ in arrivals])
            self.counts[stream.namespace].note(cause, rows)
            self.foreign.look(stream.namespace, (arrival.batch for arrival, _ in arrivals))
            self._note_new(stream, cause, rows)
        return arrivals

    def _note_new(self, stream: Stream, cause: Cause, rows: int) -> None:
        """Note that rows of a stream are new here."""
        self.changes.note((stream,))
        self.rows[stream.namespace, stream.lane, cause] += rows

    def keeps(self, stream: Stream) -> bool:
        """Tell whether rows of a stream are kept here: of a namespace that is held, and all own ones."""
        return stream.origin.name == self._name or self.is_held(stream.namespace)

    def read(self, payload: bytes) -> Batch | None:
        """Read a payload; None, counted, for one that can't be."""
        try:
            batch = decode_batch(payload)
            check_ahead(self.replica.vector, batch.stream, batch.numbers[-1][1])
        except MalformedMessage as error:
            self.malformed += 1
            log.warning("payload dropped", error=str(error))
            return None
        return batch

    def adopt(self, adoptions: Iterable[Adoption]) -> None:
        """Journal numbers that repair took into the vector without a row."""
        for stream, numbers, floor in adoptions:
            floors = {} if floor is None else self.replica.vector.floors([stream])
            self._append(Write(adopted={stream: numbers.ranges()}, stream_floors=floors))
            counts = self.counts[stream.namespace]
            if floor is None:
                counts.covered += len(numbers)
            else:
                counts.blank += len(numbers)
            self.changes.note((stream,))
            self._arrived.unpark_all()

    def reset(
        self,
        namespaces: Collection[str],
        cause: Cause,
        *,
        healed: bool = False,
        turn: Callable[[], Turn] | None = None,
    ) -> bool:
        """Declare every copy of the namespaces doubtful, and adopt what is missing, in one write.

        False when the journal is busy: nothing was changed. With `healed` whatever a loss of power may
        have taken is made good by it, in every other namespace too. A journal that is closed stores
        nothing any more, what was adopted neither. `turn` goes to another era with it.
        """
        try:
            self._journal.check_room()
        except Overloaded:
            return False
        except NotDurable:
            pass
        now = self._clock.now()
        arrivals = []
        for namespace in namespaces:
            adopted = self._repair.reset(namespace)
            missing = sum(map(len, adopted.values()))
            arrivals.append((self.replica.reset(namespace, adopted, cause, now), b""))
            self.changes.note(adopted)
            counts = self.counts[namespace]
            counts.resets[cause.value] += 1
            counts.flushed += missing
            counts.last_reset = LastReset(cause, now, missing)
            log.warning("namespace reset", namespace=namespace, cause=cause.value, missing=missing)
        floors: dict[str, Floor] = {}
        if healed:
            self.replica.doubt(namespaces, now)
            floors = {name: self.replica.floors[name] for name in (*namespaces, EVERY_NAMESPACE)}
        self._enter(arrivals, healed=healed, namespace_floors=floors, turn=turn() if turn else None)
        return True

    def heal(self) -> bool:
        """Store that what a loss of power may have taken was made good; False where it can't be now."""
        return bool(self._append(Write(healed=True)))

    # ------------------------------------------------------------------ forgetting

    def forget(self) -> None:
        """Forget what is too much or too old."""
        for each in self.replica.forget_due(self._clock.now(), self._journal_bytes_max):
            self.counts[each.namespace].forgotten += each.rows
            name, position = each.namespace, each.position
            self._unwritten.append((each.streams, [name], {name: position}))
        self._write_floors()

    def lose(self, namespace: str | None, position: int) -> int:
        """Admit that rows of a namespace (None: of any) up to a position are damaged.

        Gives how many are not held any more.
        """
        rows = 0
        for name in [*self.replica.ledgers] if namespace is None else [namespace]:
            lost = self.replica.lose(name, position, self._clock.now())
            self._unwritten.append((lost.streams, [lost.namespace], {}))
            rows += lost.rows
        self._write_floors()
        return rows

    def damaged(self, error: JournalDamaged) -> None:
        """Give up what was found damaged while it was read."""
        self.lose(error.namespace, error.positions[1])
        log.error("journal damaged", what=str(error))

    def lose_rows(self, stream: Stream, numbers: Intervals) -> None:
        """Admit that rows which the journal should have are gone."""
        self.replica.vector.forget(stream, numbers.ranges(), self._clock.now())
        self._unwritten.append(([stream], (), {}))
        self._write_floors()

    def _write_floors(self) -> None:
        """Store what was given up, as far as the journal has room now."""
        vector, floors = self.replica.vector, self.replica.floors
        while self._unwritten:
            streams, namespaces, positions = self._unwritten[0]
            write = Write(  # with the floors of now: higher ones may be stored by now
                stream_floors=vector.floors(streams),
                namespace_floors={name: floors[name] for name in namespaces},
                forgotten=positions,
            )
            if not self._append(write):
                break
            del self._unwritten[0]
        if self._journal.error:
            self._unwritten.clear()

    def _enter(
        self,
        arrivals: Sequence[tuple[Arrival, bytes]],
        *,
        healed: bool = False,
        namespace_floors: Mapping[str, Floor] | None = None,
        turn: Turn | None = None,
    ) -> int:
        """Journal arrivals in one write and show them to the readers."""
        blocks = [block_of(arrival, payload) for arrival, payload in arrivals]
        adopted = {s: n for arrival, _ in arrivals for s, n in arrival.adopted.items()}
        ticket = self._append(
            Write(
                blocks,
                adopted={stream: numbers.ranges() for stream, numbers in adopted.items()},
                stream_floors=self.replica.vector.floors(adopted),
                namespace_floors=namespace_floors or {},
                healed=healed,
                eras={turn.namespace: turn.era} if turn else {},
                dropped=turn.dropped if turn else (),
            )
        )
        self._feed.append([Entry(arrival, payload, ticket) for arrival, payload in arrivals])
        self._arrived.unpark_all()
        if self.replica.is_due:
            self.forget()
        return ticket

    def turned(self, turn: Turn) -> bool:
        """Store a change of era; False where it can't be now."""
        write = Write(eras={turn.namespace: turn.era}, dropped=turn.dropped)
        return bool(self._append(write))

    def _append(self, write: Write) -> int:
        """Queue a write; 0 when the journal refuses it, so that it stays out of the stored vector."""
        try:
            return self._journal.append_nowait(write)
        except (Overloaded, NotDurable):
            return 0
