"""Since when each number of a changing set has been in it.

A hole is left alone while it is young, because its parcel may be under way; so each hole has an age.
Numbers that came in together share a generation, and a generation only shrinks.
"""

from __future__ import annotations

from coherd.replication.intervals import Intervals

GENERATIONS_MAX = 64
"""More are merged, the youngest first, under the younger one's time: that only makes them wait longer."""


class Aging:
    """A set of numbers with the time at which each entered it."""

    __slots__ = ("_generations",)

    def __init__(self) -> None:
        self._generations: list[tuple[float, Intervals]] = []

    def update(self, current: Intervals, now: float) -> None:
        """Make `current` the set: what is new entered it `now`."""
        kept: list[tuple[float, Intervals]] = []
        new = current
        for since, numbers in self._generations:
            if still := numbers & current:
                kept.append((since, still))
                new = new - still
        if new:
            kept.append((now, new))
        if len(kept) > GENERATIONS_MAX:
            (_, older), (since, younger) = kept[-2:]
            kept[-2:] = [(since, older | younger)]
        self._generations = kept

    def older_than(self, age: float, now: float) -> Intervals:
        """Give the numbers that have been in the set for `age` seconds or more."""
        result = Intervals()
        for since, numbers in self._generations:
            if now - since >= age:
                result.update(numbers)
        return result

    def oldest(self, now: float) -> float:
        """Give the age in seconds of the oldest number; 0 when the set is empty."""
        return now - self._generations[0][0] if self._generations else 0.0
