"""One simulated host: its agent's cores, and around them a journal, a cache and a watcher.

A life ends with a crash. Another one begins with what the disk has, or, without disk, with nothing; the cache
of the host, and its copies, outlive both.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from math import inf
from random import Random
from typing import TYPE_CHECKING

from coherd.model import EVERY_NAMESPACE, Cause, Origin
from coherd.replication.intervals import Intervals
from coherd.replication.replica import Replica
from coherd.replication.ring import View
from coherd.replication.spread import Spread
from coherd.sim.faults.compaction import superseded
from coherd.sim.faults.disk import Disk, Journal, Write
from coherd.sim.faults.host import DRIFT_MAX, Host
from coherd.sim.faults.mending import Mending
from coherd.sim.faults.readers import Cache, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from coherd.model import Batch, Stream
    from coherd.replication.eras import Turn
    from coherd.replication.repair import Adoption
    from coherd.replication.replica import Arrival
    from coherd.sim.faults.links import Arrival as Incoming
    from coherd.sim.faults.messages import Message
    from coherd.sim.faults.readers import Reader
    from coherd.sim.faults.world import FaultWorld

EPOCH_MS = 1_700_000_000_000
"""The wall clock of a host that is right, when the virtual time is 0."""
APPLYING = 0.001
"""Seconds until a cache has applied what arrived, in the mean; exponential."""
WATCHING = 0.005
"""Seconds after which a watcher reads."""
RECONNECTED_WITHIN = 15.0
"""Seconds after which a reader goes on with another life of its agent, at most."""
FORGET_INTERVAL = 5.0
REFUSED_MAX = 200
"""Arrivals that the journal refused and that are kept in memory; older ones are given up."""
RUNNING_TIME_INTERVAL = 10.0


class Member(Host):
    """One host."""

    def __init__(self, world: FaultWorld, index: int, holds: Sequence[str], seed: int) -> None:
        self.random = Random(seed)
        super().__init__(
            world, f"member-{index}", holds, self.random.uniform(-DRIFT_MAX, DRIFT_MAX)
        )
        self.index = index
        everything = len(holds) == len(world.namespaces)
        self.interest = (EVERY_NAMESPACE,) if everything else self.holds
        self.cache = Cache(self.name)
        self.watcher = Watcher(self.name)
        self.disk = Disk()
        self.reset_jitter = 5.0
        self.commit_interval = self.usual_interval = 0.005
        self.rows_max = 20_000
        self.compacts = False
        self.stalled_until = self.awake_since = -inf
        self.inbox: list[Incoming] = []
        self.armed = inf
        """In world time."""
        self.life = 0
        self.linked_at: dict[str, float] = {}
        """The members with an open link, and since when, in true time."""
        self.peers: list[str] = []
        """Their names, in order."""
        self.unknown: set[str] = set()
        """Whom this member does not know, although it should."""
        self.justified: dict[Stream, Intervals] = {}
        """The truth: numbers whose rows arrived in this life or before, or that were rightly adopted."""

    # ------------------------------------------------------------------ lives

    def begin(self, epoch_known: int = 0) -> None:
        """Begin a life with what the disk has."""
        world, disk, random = self.world, self.disk, self.random
        self.life += 1
        self.is_up, self.stalled_until, self.awake_since = True, -inf, world.now
        self.armed = inf
        if not disk.lives:
            self.forget_past_ttls()
            for namespace, copies in self.cache.copies.items():
                for copy in copies.values():
                    upto = world.now + self.policies[namespace].max_ttl
                    copy.expires_at = min(copy.expires_at, upto)
        self.begin_clock(disk.running_time, disk.max_ttls)
        self.inbox, self.linked_at, self.peers = [], {}, []
        self.journal = Journal(disk)
        self.journal.rows_max = self.rows_max
        self.replica = Replica(self.keep)
        self.log: list[Arrival] = []
        self._entered: dict[int, float] = {}
        self._restore(disk)
        self.dropped = disk.dropped.copy()
        self.justified = {stream: numbers.copy() for stream, numbers in disk.justified.items()}
        self.commit_at = self.apply_at = self.watch_at = inf
        self._forget_at = self.now
        self._noted_at = self.now
        self._unwritten: list[tuple[str, int, Collection[Stream]]] = []
        self._refused: list[Arrival] = []
        self._questions: list[tuple[int, int]] = []
        self.lives = list(disk.lives)
        self.view = View({self.name: self.interest})
        self.mending = Mending(self, Random(random.getrandbits(64)))
        self.spread_life = 0
        self.begin_epoch(epoch_known)
        self.store_ttls(world.namespaces)
        self._reconnect()

    def begin_epoch(self, known: int) -> None:
        """Number own rows anew, under an epoch later than every one that is known of this name."""
        wall = EPOCH_MS + int((self.world.now + self.skew) * 1_000)
        epoch = max(wall, known + 1, *(e + 1 for e, _ in self.lives), 1)
        self.epoch = epoch
        self.epochs[self.name] = epoch
        life = (epoch, self.replica.position + 1)
        self.lives.append(life)
        self.write(Write(life=life))
        self.replica.begin_life(Origin(self.name, epoch))
        if self.spread_life != self.life:  # a new epoch alone does not end it
            origin = blake2b(f"{self.name}\0{epoch}".encode(), digest_size=8).digest()
            self.spread = Spread(self.name, int.from_bytes(origin, "big"), self.view)
            self.spread_life = self.life

    def _restore(self, disk: Disk) -> None:
        vector = self.replica.vector
        for stream, numbers in disk.have.items():
            vector.state(stream).have.update(numbers)
        for stream, floor in disk.floors.items():
            vector.state(stream).floor = floor
        self.replica.floors.update(disk.namespace_floors)
        for arrival in disk.log:
            self.replica.restore(arrival)
            self.log.append(arrival)
        for stream, gone in disk.compacted.items():
            vector.compact(stream, gone.ranges())
        self.replica.position = max(self.replica.position, disk.position)

    def end(self, *, with_disk: bool) -> dict[Stream, Intervals]:
        """Crash; give the numbers that this host has no longer."""
        self.is_up = False
        self.inbox.clear()
        kept = self.disk.have if with_disk else {}
        lost = {
            stream: gone
            for stream, state in self.replica.vector
            if (gone := state.have - kept.get(stream, Intervals()))
        }
        if not with_disk:
            self.disk = Disk()
        return lost

    # ------------------------------------------------------------------ time

    def store_ttls(self, namespaces: Sequence[str]) -> None:
        """Store the settings that count, present and past."""
        self.write(Write(max_ttls={name: self._ttls[name].history for name in namespaces}))

    def next_timer(self) -> float:
        """Give when `handle_timer` wants to be called, in the host's running time."""
        due = min(self.mending.next_timer(), self.commit_at, self.apply_at, self.watch_at)
        spread = self.spread.next_timer()
        return due if spread is None else min(due, spread)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        spread = self.spread.next_timer()
        if spread is not None and spread <= now:
            self.spread.handle_timer(now)
        if self.commit_at <= now:
            self._commit(now)
        if self.apply_at <= now:
            self._apply()
        if self.watch_at <= now:
            self.watch_at = inf
            if self.watcher.is_open:
                self.watcher.read(self, self.world.now)
        if self.mending.next_timer() <= now:
            self.mending.handle_timer(now)

    def look_after(self, now: float) -> None:
        """Do now and then what need not be done at once."""
        if now >= self._forget_at:
            self._forget_at = now + FORGET_INTERVAL
            self._forget(now)
            if now >= self._noted_at + RUNNING_TIME_INTERVAL and self.journal.is_idle:
                self._noted_at = now
                self.disk.running_time = now

    # ------------------------------------------------------------------ others

    def say(self, name: str, message: Message) -> None:
        """Send another member a message about repair."""
        self.world.send(self, name, message)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while, unless this life has ended by then."""
        self.world.when_awake(self, self.life, seconds, action)

    # ------------------------------------------------------------------ rows

    def take(self, batch: Batch, age: float, cause: Cause) -> None:
        """Take rows of a peer."""
        now = self.now
        arrival = self.replica.receive(batch, now - age, cause, now)
        if arrival is not None:
            self.enter(arrival)
            self.adopt(self.mending.repair.touch(batch.stream))
            self.mending.look()

    def adopt(self, adoptions: Iterable[Adoption]) -> None:
        """Journal what repair took into the vector without a row."""
        for adoption in adoptions:
            stream, numbers, floor = adoption
            self.world.checks.adopted(self, adoption)
            self.justified.setdefault(stream, Intervals()).update(numbers)
            floors = {} if floor is None else self.replica.vector.floors([stream])
            self.write(Write(adopted={stream: numbers}, floors=floors))
            self.mending.note_changed(stream)

    def reset(self, namespace: str, cause: Cause, turn: Callable[[], Turn] | None = None) -> None:
        """Declare every copy of a namespace doubtful, and adopt what is missing, in one write.

        `turn` goes to another era with it.
        """
        if self.journal.is_full:
            return
        adopted = self.mending.repair.reset(namespace)
        self.world.checks.resets(self, namespace, cause, adopted)
        arrival = self.replica.reset(namespace, adopted, cause, self.now)
        self.enter(arrival, turn() if turn is not None else None)

    def enter(self, arrival: Arrival, turn: Turn | None = None) -> None:
        """Journal an arrival and show it to the readers."""
        adopted = arrival.adopted
        stored = self.write(
            Write(
                [arrival],
                adopted,
                self.replica.vector.floors(adopted),
                eras={turn.namespace: turn.era} if turn else {},
                dropped=turn.dropped if turn else (),
            )
        )
        self.log.append(arrival)
        self._entered[arrival.position] = self.world.now
        if arrival.batch.numbers:
            stream = arrival.batch.stream
            self.mending.note_changed(stream)
            justified = self.justified.setdefault(stream, Intervals())
            for low, high in arrival.batch.numbers:
                justified.add(low, high)
        for stream, numbers in adopted.items():
            self.mending.note_changed(stream)
            self.justified.setdefault(stream, Intervals()).update(numbers)
        if not stored:
            self._refused.append(arrival)
            if len(self._refused) > REFUSED_MAX:
                self._give_up(self._refused.pop(0))
        if self.replica.is_due:
            self._forget(self.now)
        self._read_later()

    def rows(self, stream: Stream, numbers: Intervals) -> list[tuple[Batch, float]]:
        """Give rows that are held, in batches, with the running times of their acceptance."""
        found, left = [], numbers
        for arrival in self.log:
            batch = arrival.batch
            if batch.stream == stream and (part := left & Intervals(batch.numbers)):
                found.append((batch.select(part.ranges()), arrival.accepted_at))
                left = left - part  # what was dropped and came again may be here twice
        assert not left, "what is held is stored"
        return found

    def held_since(self, stream: Stream, number: int) -> float:
        """Give since when, in true time, this life holds a row."""
        for arrival in self.log:
            batch = arrival.batch
            if batch.stream == stream and number in Intervals(batch.numbers):
                return self._entered.get(arrival.position, self.awake_since)
        return inf

    def compact(self) -> None:
        """Give up rows that later ones, which are held, make needless."""
        for stream, state in self.replica.vector:
            stored = state.held & self.disk.have.get(stream, Intervals())
            gone = superseded(self.world.truth, stream, stored)
            if gone and self.write(Write(compacted={stream: gone})):
                self.replica.vector.compact(stream, gone.ranges())

    # ------------------------------------------------------------------ the journal

    def write(self, write: Write) -> bool:
        """Queue a write to the journal; False when it is refused."""
        if not self.journal.append(write):
            self.world.refused += 1
            return False
        if self.commit_at == inf:
            self.commit_at = self.now + self.commit_interval
        return True

    def _commit(self, now: float) -> None:
        self.commit_at = inf
        for write in self.journal.commit(now):
            for arrival in write.arrivals:
                if arrival.cause is Cause.LOCAL:
                    self.world.committed(self, arrival)
        if self._unwritten:
            self._write_floors()

    def _forget(self, now: float) -> None:
        for namespace, position, streams, _rows in self.replica.forget_due(now):
            self._unwritten.append((namespace, position, streams))
            self.log = [a for a in self.log if a.namespace != namespace or a.last > position]
        if self._unwritten:
            self._write_floors()

    def _give_up(self, arrival: Arrival) -> None:
        """Let go what the journal refused and memory keeps no longer."""
        if arrival in self.log:
            self.log.remove(arrival)
            if arrival.batch.numbers:
                self.replica.forget(arrival)
            self._forget(self.now)

    def _write_floors(self) -> None:
        vector, floors = self.replica.vector, self.replica.floors
        while self._unwritten:
            namespace, position, streams = self._unwritten[0]
            write = Write(  # with the floors of now: higher ones may be stored by now
                floors=vector.floors(streams),
                namespace_floors={namespace: floors[namespace]},
                forgotten={namespace: position},
            )
            if not self.write(write):
                return
            del self._unwritten[0]

    # ------------------------------------------------------------------ readers and receipts

    def _read_later(self) -> None:
        if self.apply_at == inf and self.cache.is_open:
            self.apply_at = self.now + self.random.expovariate(1 / APPLYING)
        if self.watch_at == inf and self.watcher.is_open:
            self.watch_at = self.now + WATCHING

    def close_reader(self, reader: Reader) -> None:
        """Let the cache, or the watcher, not be reachable until it is opened as often as it was closed."""
        reader.away += 1

    def open_reader(self, reader: Reader) -> None:
        """Let a reader be reachable again: it goes on from its cursor."""
        reader.away -= 1
        if self.is_up and reader.is_open:
            reader.locate(self.lives, self.replica.position)
            self._read_later()

    def _reconnect(self) -> None:
        """Let readers find the new life, each after a while."""
        for reader in (self.cache, self.watcher):
            reader.begin(self.disk.have, self.replica.position)
            self.close_reader(reader)
            seconds = self.random.choice((0.01, 1.0, RECONNECTED_WITHIN))
            self.world.at(self.world.now + seconds, partial(self._reconnected, reader))

    def _reconnected(self, reader: Reader) -> None:
        self.open_reader(reader)
        if self.is_up and self.stalled_until <= self.world.now:
            self.world.settle(self)

    def _apply(self) -> None:
        self.apply_at = inf
        if not self.cache.is_open:
            return
        self.cache.read(self, self.world.now)
        questions, position = self._questions, self.cache.position
        while questions and questions[0][0] <= position:
            self.spread.applied(questions.pop(0)[1], self.now)

    def ask(self, payload: int) -> None:
        """Say that a payload is applied here once the cache has reached what is the newest position now."""
        if self.cache.position >= self.replica.position:
            self.spread.applied(payload, self.now)
        else:
            self._questions.append((self.replica.position, payload))
