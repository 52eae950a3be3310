"""The newest batches of one stream, found by number: what peers fetch most is what has just arrived."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coherd.model import Range
    from coherd.replication.intervals import Intervals

T = TypeVar("T")


class StreamTail(Generic[T]):
    """Batches, or whatever stands for them, in the order of their first numbers."""

    __slots__ = ("_entries", "_firsts", "_is_sorted", "_span")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._entries: list[tuple[Sequence[Range], T]] = []
        self._is_sorted = True
        self._span = 0
        """The most by which a last number is above its first."""

    def add(self, numbers: Sequence[Range], entry: T) -> None:
        """Take in a batch with these numbers, which ascend; nearly always the highest so far.

        Who catches up takes them in by turns from several ends: they are put in order once that is asked.
        """
        first, firsts = numbers[0][0], self._firsts
        if firsts and first < firsts[-1]:
            self._is_sorted = False
        firsts.append(first)
        self._entries.append((numbers, entry))
        span = numbers[-1][1] - first
        self._span = max(self._span, span)

    def _sort(self) -> None:
        """Put them in order; those that came in ascending runs are only merged."""
        self._entries.sort(key=_first)
        self._firsts.sort()
        self._is_sorted = True

    def find(self, wanted: Intervals) -> list[T]:
        """Give those that hold some of these numbers, each once, in order."""
        if not self._is_sorted:
            self._sort()
        found: list[T] = []
        firsts, entries = self._firsts, self._entries
        at = 0
        for low, high in wanted.ranges():
            at = max(at, bisect_left(firsts, low - self._span))
            while at < len(firsts) and firsts[at] <= high:
                numbers, entry = entries[at]
                if any(wanted.meets(*each) for each in numbers):
                    found.append(entry)
                at += 1
        return found

    def keep(self, is_kept: Callable[[T], bool]) -> bool:
        """Let go of what is not kept; tells whether something is left."""
        self._entries = [each for each in self._entries if is_kept(each[1])]
        self._firsts = [numbers[0][0] for numbers, _ in self._entries]
        return bool(self._entries)


def _first(entry: tuple[Sequence[Range], object]) -> int:
    return entry[0][0][0]
