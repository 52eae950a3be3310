"""What one agent has and in which order it got it: numbering, positions, ledgers, resets, forgetting.

Rows are applied on first arrival and in any order; the vector is the only memory of what was seen. Every
row gets the next *position*, the agent's own arrival number, in which handlers and watchers read.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import (
    EVERY_NAMESPACE,
    EVERYTHING,
    Batch,
    Cause,
    Effect,
    Lane,
    Origin,
    Selector,
    Stream,
    join,
)
from coherd.replication.intervals import Intervals
from coherd.replication.ledger import Keep, Ledger, Run
from coherd.replication.retention import Floor
from coherd.replication.vector import Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


_NOTHING: Mapping[Stream, Intervals] = MappingProxyType({})


class Arrival(NamedTuple):
    """A batch that was new here, or a reset: a batch of the whole namespace without numbers."""

    position: int
    """Of the first row; the others follow without a gap."""
    batch: Batch
    accepted_at: float
    """Running time (seconds) at which the youngest row was accepted at its origin."""
    cause: Cause
    adopted: Mapping[Stream, Intervals] = _NOTHING
    """What a reset took into the vector without a row."""

    @property
    def last(self) -> int:
        """The position of the last row."""
        return self.position + len(self.batch.selectors) - 1

    @property
    def namespace(self) -> str:
        """The namespace of every row."""
        return self.batch.stream.namespace


class Forgotten(NamedTuple):
    """What was given up of a namespace, or found lost: everything up to a position."""

    namespace: str
    position: int
    """The floor of the namespace is there, or above."""
    streams: Collection[Stream]
    """Those whose floors rose."""
    rows: int


class Replica:
    """The vector, the ledgers and the sequence of positions of one agent."""

    def __init__(self, keep: Callable[[str], Keep] = lambda _namespace: Keep()) -> None:
        """`keep(namespace)`: how much of it is remembered."""
        self._keep = keep
        self.vector = Vector()
        self.ledgers: dict[str, Ledger] = {}
        self.position = 0
        """The last position given."""
        self.life: Origin | None = None
        """Whose streams own rows go into; none before `begin_life`."""
        self.floors: dict[str, Floor] = {}
        """Per namespace the floor of its positions; EVERY_NAMESPACE: those of which nothing is known."""
        self.is_due = False
        """Whether something may have to be forgotten since `forget_due` was called last."""
        self._read_upto = -inf
        """Running time up to which a journal was read."""

    def begin_life(self, life: Origin) -> None:
        """Number own rows from 1 again, as another origin."""
        self.life = life

    def accept(
        self,
        namespace: str,
        lane: Lane,
        selectors: Sequence[Selector],
        *,
        effect: Effect,
        versions: Sequence[int] | None,
        stamp: int,
        now: float,
        reason: str = "",
        issuer: str = "",
    ) -> Arrival:
        """Number rows of an application as the next ones of their own stream."""
        assert self.life is not None, "a life begins before rows are accepted"
        stream = Stream(namespace, self.life, lane)
        first = self.vector.state(stream).have.last + 1
        numbers = ((first, first + len(selectors) - 1),)
        batch = Batch(stream, numbers, selectors, effect, versions, stamp, reason, issuer)
        self.vector.take_rows(stream, numbers)
        return self._arrive(batch, now, Cause.LOCAL, now)

    def receive(self, batch: Batch, accepted_at: float, cause: Cause, now: float) -> Arrival | None:
        """Take the rows of a peer's batch that are new; None when there are none."""
        new = self.vector.take_rows(batch.stream, batch.numbers)
        return self._arrive(batch.select(new), accepted_at, cause, now) if new else None

    def receive_all(
        self, batches: Sequence[tuple[Batch, float]], cause: Cause, now: float
    ) -> list[Arrival | None]:
        """Take batches of one stream and effect, each as `receive` with the time of its acceptance.

        Many small ones that are new and in order, as a repair brings them, cost little more than their rows.
        """
        joined = join([batch for batch, _ in batches]) if len(batches) > 1 else None
        if joined is None or self.vector.missing(joined.stream, joined.numbers) != joined.numbers:
            return [self.receive(batch, at, cause, now) for batch, at in batches]
        self.vector.take_rows(joined.stream, joined.numbers)
        position = self.position + 1
        arrivals: list[Arrival | None] = []
        for batch, accepted_at in batches:
            arrivals.append(Arrival(position, batch, accepted_at, cause))
            position += len(batch.selectors)
        youngest = max([at for _, at in batches])
        self._enter(Arrival(self.position + 1, joined, youngest, cause), now, len(batches))
        return arrivals

    def reset(
        self, namespace: str, adopted: Mapping[Stream, Intervals], cause: Cause, now: float
    ) -> Arrival:
        """Declare every copy of the namespace doubtful and adopt what was missing.

        `adopted` must have been known *before* the flush that this row orders: a row accepted later than
        that is not covered by it. The streams' floors rise with age 0.
        """
        assert self.life is not None, "a life begins before a namespace is reset"
        for stream, numbers in adopted.items():
            self.vector.adopt(stream, numbers, Floor(numbers.last, now))
        batch = Batch(Stream(namespace, self.life, Lane.NORMAL), (), [EVERYTHING])
        return self._arrive(batch, now, cause, now, adopted)

    def adopt(self, stream: Stream, numbers: Intervals, floor: Floor | None) -> None:
        """Take covered numbers, or with `floor` blank ones, into the vector without rows."""
        self.vector.adopt(stream, numbers, floor)

    def floor(self, namespace: str) -> Floor:
        """Give the floor of a namespace's positions."""
        return self.floors.get(namespace) or self.floors.get(EVERY_NAMESPACE) or Floor()

    def forget(self, arrival: Arrival) -> None:
        """Give up the rows of one arrival: neither peers nor readers can be given them any more."""
        batch = arrival.batch
        self.vector.forget(batch.stream, batch.numbers, arrival.accepted_at)
        self._raise_floor(arrival.namespace, arrival.last, arrival.accepted_at)

    def forget_due(self, now: float, bytes_max: float = inf) -> list[Forgotten]:
        """Forget what is too much or too old, and what takes more than `bytes_max` of the journal."""
        self.is_due = False
        result = []
        for namespace, ledger in self.ledgers.items():
            ledger.keep = self._keep(namespace)
            while ledger.is_due(now):
                result.append(self._forget_run(namespace, ledger.forget()))
        excess = sum(ledger.size_bytes for ledger in self.ledgers.values()) - bytes_max
        while excess > 0:
            _, namespace = min((o.oldest.youngest, n) for n, o in self.ledgers.items() if o.oldest)
            run = self.ledgers[namespace].forget()
            excess -= run.size_bytes
            result.append(self._forget_run(namespace, run))
        return result

    def _forget_run(self, namespace: str, run: Run) -> Forgotten:
        for stream, numbers in run.numbers.items():
            self.vector.forget(stream, numbers.ranges(), run.youngest)
        self._raise_floor(namespace, run.last, run.youngest)
        return Forgotten(namespace, run.last, run.numbers, run.rows)

    def lose(self, namespace: str, position: int, now: float) -> Forgotten:
        """Admit that rows up to a position are damaged: what is not held any more is forgotten, age 0."""
        streams = []
        rows = 0
        for stream, state in self.vector.streams(namespace).items():
            if lost := state.have.above(state.floor.n) - state.held:
                self.vector.forget(stream, lost.ranges(), now)
                streams.append(stream)
                rows += len(lost)
        self._raise_floor(namespace, position, now)
        return Forgotten(namespace, position, streams, rows)

    def doubt(self, namespaces: Collection[str], now: float) -> None:
        """Doubt every reader of any other namespace: what it has not read may be lost."""
        for namespace in namespaces:
            self.floors.setdefault(namespace, self.floor(namespace))
        self._raise_floor(EVERY_NAMESPACE, self.position, now)

    def is_doubted(self, namespace: str, position: int) -> bool:
        """Tell whether a reader at `position` may lack rows of which nothing is known here."""
        doubt = self.floors.get(EVERY_NAMESPACE, Floor())
        return position < doubt.n <= self.floor(namespace).n

    def _raise_floor(self, namespace: str, position: int, accepted_at: float) -> None:
        self.floors[namespace] = self.floor(namespace).raised(position, accepted_at)

    def restore(self, arrival: Arrival) -> None:
        """Take in again what a journal remembers; its numbers are in the vector already."""
        state = self.vector.get(arrival.batch.stream)
        if state is not None:  # else it was dropped since
            for low, high in arrival.batch.numbers:
                state.held.add(low, high)
        self.position = arrival.position - 1
        self._read_upto = max(self._read_upto, arrival.accepted_at)
        self._enter(arrival, self._read_upto)

    def ledger(self, namespace: str) -> Ledger:
        """Give the ledger of a namespace."""
        ledger = self.ledgers.get(namespace)
        if ledger is None:
            ledger = self.ledgers[namespace] = Ledger(self._keep(namespace))
        return ledger

    def _arrive(
        self,
        batch: Batch,
        accepted_at: float,
        cause: Cause,
        now: float,
        adopted: Mapping[Stream, Intervals] | None = None,
    ) -> Arrival:
        arrival = Arrival(self.position + 1, batch, accepted_at, cause, adopted or _NOTHING)
        self._enter(arrival, now)
        return arrival

    def _enter(self, arrival: Arrival, now: float, batches: int = 1) -> None:
        self.position = arrival.last
        ledger = self.ledger(arrival.namespace)
        if ledger.record(arrival.batch, arrival.position, arrival.accepted_at, now, batches):
            self.is_due = True


def resume(position: int, floor: Floor, horizon: float, now: float) -> int | None:
    """Tell from which position a reader may go on, or None when it must be reset.

    The one rule for every reader, be it a handler or a watcher: above the floor everything it has not
    seen can be read; below it only if what was forgotten is older than any copy can be.
    """
    if position >= floor.n:
        return position
    return floor.n if floor.age(now) >= horizon else None
