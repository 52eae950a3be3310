"""What one agent has and in which order it got it: numbering, positions, ledgers, resets.

Rows are applied on first arrival and in any order; the vector is the only memory of what was seen. Every
row gets the next *position*, the agent's own arrival number, in which handlers and watchers read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coherd.model import EVERYTHING, Batch, Cause, Effect, Lane, Origin, Selector, Stream
from coherd.replication.intervals import Intervals
from coherd.replication.ledger import Ledger
from coherd.replication.retention import Floor
from coherd.replication.vector import Vector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch that was new here, or a reset: a batch of the whole namespace without numbers."""

    position: int
    """Of the first row; the others follow without a gap."""
    batch: Batch
    accepted_at: float
    """Running time (seconds) at which the youngest row was accepted at its origin."""
    cause: Cause
    adopted: Mapping[Stream, Intervals] = field(default_factory=dict)
    """What a reset took into the vector without a row."""

    @property
    def last(self) -> int:
        """The position of the last row."""
        return self.position + len(self.batch) - 1

    @property
    def namespace(self) -> str:
        """The namespace of every row."""
        return self.batch.stream.namespace


class Replica:
    """The vector, the ledgers and the sequence of positions of one agent."""

    def __init__(self) -> None:
        self.vector = Vector()
        self.ledgers: dict[str, Ledger] = {}
        self.position = 0
        """The last position given."""
        self.life: Origin | None = None
        """Whose streams own rows go into; none before `begin_life`."""
        self.floors: dict[str, Floor] = {}
        """Per namespace the floor of its positions."""

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
    ) -> Arrival:
        """Number rows of an application as the next ones of their own stream."""
        assert self.life is not None, "a life begins before rows are accepted"
        stream = Stream(namespace, self.life, lane)
        first = self.vector.state(stream).have.last + 1
        numbers = ((first, first + len(selectors) - 1),)
        batch = Batch(stream, numbers, selectors, effect, versions, stamp, reason)
        self.vector.take_rows(stream, numbers)
        return self._arrive(batch, now, Cause.LOCAL)

    def receive(self, batch: Batch, accepted_at: float, cause: Cause) -> Arrival | None:
        """Take the rows of a peer's batch that are new; None when there are none."""
        new = self.vector.take_rows(batch.stream, batch.numbers)
        return self._arrive(batch.select(new), accepted_at, cause) if new else None

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
        return self._arrive(batch, now, cause, adopted)

    def adopt(self, stream: Stream, numbers: Intervals, floor: Floor | None) -> None:
        """Take covered numbers, or with `floor` blank ones, into the vector without rows."""
        self.vector.adopt(stream, numbers, floor)

    def forget(self, arrival: Arrival) -> None:
        """Give up the rows of an arrival: neither peers nor readers can be given them any more."""
        batch = arrival.batch
        self.vector.forget(batch.stream, batch.numbers, arrival.accepted_at)
        floor = self.floors.get(arrival.namespace, Floor())
        self.floors[arrival.namespace] = floor.raised(arrival.last, arrival.accepted_at)

    def restore(self, arrival: Arrival) -> None:
        """Take in again what a journal remembers; its numbers are in the vector already."""
        for low, high in arrival.batch.numbers:
            self.vector.state(arrival.batch.stream).held.add(low, high)
        self.position = arrival.position - 1
        self._enter(arrival)

    def ledger(self, namespace: str) -> Ledger:
        """Give the ledger of a namespace."""
        ledger = self.ledgers.get(namespace)
        if ledger is None:
            ledger = self.ledgers[namespace] = Ledger()
        return ledger

    def _arrive(
        self,
        batch: Batch,
        accepted_at: float,
        cause: Cause,
        adopted: Mapping[Stream, Intervals] | None = None,
    ) -> Arrival:
        arrival = Arrival(self.position + 1, batch, accepted_at, cause, adopted or {})
        self._enter(arrival)
        return arrival

    def _enter(self, arrival: Arrival) -> None:
        batch = arrival.batch
        self.position = arrival.last
        self.ledger(arrival.namespace).record(
            batch.selectors, batch.effect, batch.versions, arrival.position
        )


def resume(position: int, floor: Floor, horizon: float, now: float) -> int | None:
    """Tell from which position a reader may go on, or None when it must be reset.

    The one rule for every reader, be it a handler or a watcher: above the floor everything it has not
    seen can be read; below it only if what was forgotten is older than any copy can be.
    """
    if position >= floor.n:
        return position
    return floor.n if floor.age(now) >= horizon else None
