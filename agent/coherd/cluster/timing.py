"""How long things take, as counts in fixed buckets: cheap enough to be noted for every batch."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coherd.clock import Clock
    from coherd.model import Cause, Lane, Stream
    from coherd.replication.replica import Arrival

APPLY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)
"""Seconds from the acceptance of a row to its application; few: each namespace, lane and path has them."""


class Histogram:
    """How many durations there were, by size, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        """The upper bounds of the buckets in seconds, ascending; above them is one bucket more."""
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        """Of all durations, in seconds."""

    def note(self, seconds: float, times: int = 1) -> None:
        """Count a duration so many times."""
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.sum += seconds * times

    def copy(self) -> Histogram:
        """Give one that does not change any more."""
        copied = Histogram(self.bounds)
        copied.add(self)
        return copied

    def add(self, other: Histogram) -> None:
        """Count everything that another one with the same bounds has counted."""
        self.counts = [
            mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)
        ]
        self.sum += other.sum


class ApplyTimes:
    """How long rows took from the acceptance at their origin until a handler here had applied them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.histograms: dict[tuple[str, Lane, Cause], Histogram] = {}
        """By namespace, lane and path. A row counts once for each handler, and again when it is replayed."""

    def applied(self, arrivals: Iterable[Arrival]) -> None:
        """Note that a handler has just applied arrivals. Resets do not count: they are no rows."""
        now = self._clock.now()
        found: tuple[Stream, Cause, Histogram] | None = None
        for arrival in arrivals:
            batch = arrival.batch
            if batch.numbers:
                if found is None or found[0] != batch.stream or found[1] is not arrival.cause:
                    found = batch.stream, arrival.cause, self._histogram(arrival)
                found[2].note(now - arrival.accepted_at, len(batch.selectors))

    def _histogram(self, arrival: Arrival) -> Histogram:
        stream = arrival.batch.stream
        key = stream.namespace, stream.lane, arrival.cause
        histogram = self.histograms.get(key)
        if histogram is None:
            histogram = self.histograms[key] = Histogram(APPLY_BOUNDS)
        return histogram
