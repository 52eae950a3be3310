"""Covers that wait until everything that their holder retains is here, whoever brings it.

Each entry watches the first number that it lacks. So an arrival costs a look at the numbers that are
watched, not at all that is lacked, and an entry that goes on never looks back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Entry:
    __slots__ = ("at", "covers", "lacking")

    def __init__(self, covers: Intervals, lacking: Intervals) -> None:
        self.covers = covers
        self.lacking = lacking.ranges()
        self.at = 0
        """All ranges before this one are here."""

    def first_missing(self, have: Intervals) -> int:
        """Give the first number that is lacked still; 0 when none is."""
        while self.at < len(self.lacking):
            if number := have.first_missing(*self.lacking[self.at]):
                return number
            self.at += 1
        return 0


class Waiting:
    """The waiting covers of one stream."""

    __slots__ = ("_covers", "_due", "_entries", "_numbers")

    def __init__(self) -> None:
        self._entries: dict[int, list[_Entry]] = {}
        """By the number that they watch."""
        self._numbers: list[int] = []
        """Those numbers, ascending."""
        self._due: list[Intervals] = []
        self._covers: Intervals | None = Intervals()

    def __bool__(self) -> bool:
        return bool(self._entries or self._due)

    def covers(self) -> Intervals:
        """Give everything that waits; not to be changed."""
        if self._covers is None:
            self._covers = Intervals()
            for entries in self._entries.values():
                for entry in entries:
                    self._covers.update(entry.covers)
            for covers in self._due:
                self._covers.update(covers)
        return self._covers

    def add(self, covers: Intervals, lacking: Intervals, have: Intervals) -> None:
        """Let `covers` wait until all of `lacking` is in `have`."""
        self.covers().update(covers)
        self._watch(_Entry(covers, lacking), have)

    def take_due(self, have: Intervals) -> Intervals:
        """Give the covers that lack nothing any more, and whatever these make due in turn."""
        result = Intervals()
        if not self:
            return result
        self._look(self._numbers.copy(), have)
        if self._due:
            have = have.copy()
        while self._due:
            new = self._due.pop() - have
            self._covers = None
            if new:
                result.update(new)
                have.update(new)
                self._look(self._watched(new), have)
        return result

    def _watched(self, numbers: Intervals) -> list[int]:
        return [
            number
            for low, high in numbers.ranges()
            for number in self._numbers[
                bisect_left(self._numbers, low) : bisect_left(self._numbers, high + 1)
            ]
        ]

    def _look(self, numbers: Iterable[int], have: Intervals) -> None:
        """Let the entries that watch these numbers go on where they are here."""
        for number in numbers:
            if number in have:
                entries = self._entries.pop(number)
                del self._numbers[bisect_left(self._numbers, number)]
                for entry in entries:
                    self._watch(entry, have)

    def _watch(self, entry: _Entry, have: Intervals) -> None:
        number = entry.first_missing(have)
        if not number:
            self._due.append(entry.covers)
        elif number in self._entries:
            self._entries[number].append(entry)
        else:
            self._entries[number] = [entry]
            insort(self._numbers, number)
