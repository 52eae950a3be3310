"""A simulated journal: writes wait for a group commit, and only what is committed survives.

The queue to the disk is bounded. What is refused because it is full stays in memory, and out of the stored
vector. Positions are written outside with the epoch of the life that gave them, and read as agents read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from coherd.model import Stream
    from coherd.replication.eras import Era
    from coherd.replication.replica import Arrival
    from coherd.replication.retention import Floor

QUEUE_ROWS_MAX = 20_000
"""Rows that may wait for the disk."""
ROOM_ROWS = 50
"""More than one call is to invalidate."""
WRITE_ROWS = 1
"""What a write counts besides its rows."""


@dataclass(frozen=True, slots=True)
class Write:
    """What commits together, or not at all."""

    arrivals: Sequence[Arrival] = ()
    adopted: Mapping[Stream, Intervals] = field(default_factory=dict)
    floors: Mapping[Stream, Floor] = field(default_factory=dict)
    namespace_floors: Mapping[str, Floor] = field(default_factory=dict)
    forgotten: Mapping[str, int] = field(default_factory=dict)
    compacted: Mapping[Stream, Intervals] = field(default_factory=dict)
    max_ttls: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    eras: Mapping[str, Era] = field(default_factory=dict)
    dropped: Collection[Stream] = ()
    life: tuple[int, int] | None = None
    """A new epoch, and the first position it can write."""

    @property
    def rows(self) -> int:
        """What it counts in the queue."""
        return WRITE_ROWS + sum(len(arrival.batch) for arrival in self.arrivals)


class Disk:
    """What is committed."""

    def __init__(self) -> None:
        self.have: dict[Stream, Intervals] = {}
        """The stored vector."""
        self.log: list[Arrival] = []
        """What is stored of arrivals, by position."""
        self.floors: dict[Stream, Floor] = {}
        self.namespace_floors: dict[str, Floor] = {}
        self.compacted: dict[Stream, Intervals] = {}
        self.max_ttls: dict[str, Sequence[tuple[float, float]]] = {}
        self.lives: list[tuple[int, int]] = []
        self.position = 0
        self.running_time = 0.0
        self.eras: dict[str, Era] = {}
        self.dropped: set[Stream] = set()
        """The truth: streams that were known once, and are forgotten."""
        self.justified: dict[Stream, Intervals] = {}
        """The truth: the numbers whose rows, or right adoptions, were committed."""

    def take(self, write: Write) -> None:
        """Store a write."""
        for arrival in write.arrivals:
            self.log.append(arrival)
            self.position = arrival.last
            if arrival.batch.numbers:
                for numbers in (self.have, self.justified):
                    known = numbers.setdefault(arrival.batch.stream, Intervals())
                    for low, high in arrival.batch.numbers:
                        known.add(low, high)
        for stream, adopted in write.adopted.items():
            for numbers in (self.have, self.justified):
                numbers.setdefault(stream, Intervals()).update(adopted)
        self.floors.update(write.floors)
        self.namespace_floors.update(write.namespace_floors)
        self.max_ttls.update(write.max_ttls)
        for stream, gone in write.compacted.items():
            self.compacted.setdefault(stream, Intervals()).update(gone)
        if write.forgotten:
            upto = write.forgotten
            self.log = [a for a in self.log if a.last > upto.get(a.namespace, 0)]
        self._turn(write)
        if write.life is not None:
            self.lives.append(write.life)

    def _turn(self, write: Write) -> None:
        for stream in write.dropped:
            for known in (self.have, self.compacted, self.justified):
                known.pop(stream, None)
            self.floors.pop(stream, None)
        self.dropped.update(write.dropped)
        self.eras.update(write.eras)


class Journal:
    """The queue to a disk."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.rows_max = QUEUE_ROWS_MAX
        self._waiting: list[Write] = []
        self.queued = 0
        """Rows that wait for the disk."""

    @property
    def is_full(self) -> bool:
        """Whether callers are refused."""
        return self.queued > 0 and self.queued + ROOM_ROWS > self.rows_max

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def append(self, write: Write) -> bool:
        """Queue a write; False when it is refused."""
        rows = write.rows
        if self.queued and self.queued + rows > self.rows_max:
            return False
        self.queued += rows
        self._waiting.append(write)
        return True

    def commit(self, running_time: float) -> list[Write]:
        """Store all that waits, and give it."""
        done, self._waiting, self.queued = self._waiting, [], 0
        for write in done:
            self.disk.take(write)
        self.disk.running_time = max(self.disk.running_time, running_time)
        return done


def written(lives: Sequence[tuple[int, int]], n: int) -> tuple[int, int]:
    """Give a position as it is written outside: the epoch of the life that gave it, and its number."""
    epoch = lives[0][0]
    for known, first in lives:
        if first <= n:
            epoch = known
    return epoch, n


def located(lives: Sequence[tuple[int, int]], position: tuple[int, int], end: int) -> int:
    """Read a position that was written outside; one that the journal lacks as the last that it has before."""
    for epoch, first in reversed(lives):
        if epoch <= position[0]:
            return min(position[1], end)
        end = first - 1
    return 0
