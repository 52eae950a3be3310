"""A set of numbers kept as disjoint ranges: what one agent has of one stream.

Streams are numbered without gaps, so such a set is nearly always one range, 1..n; the second range
appears with the first hole. All operations are by range, never by number. `bounds` is a flat ascending
list ``[first, end, first, end, …]`` with `end` exclusive, so that one bisection tells inside (odd) from
outside (even).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coherd.model import Range


FEW_BOUNDS = 16
"""Bounds up to which each range is looked up in the other set; more are swept over together with it."""


class Intervals:
    """A mutable set of non-negative integers, as disjoint ranges that do not touch."""

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._bounds: list[int] = []
        for low, high in ranges:
            self.add(low, high)

    @classmethod
    def ascending(cls, ranges: Iterable[Range]) -> Intervals:
        """Give the set of ranges that ascend and do not touch: quicker than adding them."""
        result = cls()
        result._bounds = [bound for low, high in ranges for bound in (low, high + 1)]
        return result

    def __repr__(self) -> str:
        return f"Intervals({self.ranges()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __len__(self) -> int:
        """Count the numbers."""
        bounds = self._bounds
        return sum(bounds[1::2]) - sum(bounds[::2])

    def __iter__(self) -> Iterator[int]:
        for low, high in self.ranges():
            yield from range(low, high + 1)

    def __contains__(self, number: int) -> bool:
        return bisect_right(self._bounds, number) % 2 == 1

    def __or__(self, other: Intervals) -> Intervals:
        result = self.copy()
        result.update(other)
        return result

    def __and__(self, other: Intervals) -> Intervals:
        result = Intervals()
        result._bounds = _intersect(self._bounds, other._bounds)
        return result

    def __sub__(self, other: Intervals) -> Intervals:
        result = self.copy()
        if len(other._bounds) * 8 < len(result._bounds):
            for low, high in other.ranges():
                result.discard(low, high)
            return result
        result._bounds = _subtract(self._bounds, other._bounds)
        return result

    def __le__(self, other: Intervals) -> bool:
        """Tell whether every number of this set is in `other`."""
        return all(other.covers(low, high) for low, high in self.ranges())

    @property
    def first(self) -> int:
        """The smallest number; 0 when empty."""
        return self._bounds[0] if self._bounds else 0

    @property
    def last(self) -> int:
        """The greatest number; 0 when empty."""
        return self._bounds[-1] - 1 if self._bounds else 0

    def copy(self) -> Intervals:
        """Give an independent set of the same numbers."""
        result = Intervals()
        result._bounds = self._bounds.copy()
        return result

    def ranges(self) -> tuple[Range, ...]:
        """Give the ranges in ascending order, both ends included."""
        bounds = self._bounds
        return tuple((bounds[i], bounds[i + 1] - 1) for i in range(0, len(bounds), 2))

    def covers(self, low: int, high: int) -> bool:
        """Tell whether low..high is in the set, all of it."""
        at = bisect_right(self._bounds, low)
        return at % 2 == 1 and high < self._bounds[at]

    def meets(self, low: int, high: int) -> bool:
        """Tell whether any of low..high is in the set."""
        bounds = self._bounds
        at = bisect_right(bounds, low)
        return at % 2 == 1 or (at < len(bounds) and bounds[at] <= high)

    def first_missing(self, low: int, high: int) -> int:
        """Give the smallest number of low..high that is not in the set; 0 when all are."""
        bounds = self._bounds
        at = bisect_right(bounds, low)
        number = low if at % 2 == 0 else bounds[at]
        return number if number <= high else 0

    def add(self, low: int, high: int) -> None:
        """Add low..high."""
        if low > high:
            raise ValueError(f"an empty range: {low}..{high}")
        bounds, end = self._bounds, high + 1
        if not bounds or low > bounds[-1]:
            bounds += (low, end)
        elif low == bounds[-1]:
            bounds[-1] = end
        else:
            left = bisect_left(bounds, low)
            right = bisect_right(bounds, end)
            bounds[left:right] = ([low] if left % 2 == 0 else []) + (
                [end] if right % 2 == 0 else []
            )

    def discard(self, low: int, high: int) -> None:
        """Take out low..high, as far as it is there."""
        bounds, end = self._bounds, high + 1
        left = bisect_left(bounds, low)
        right = bisect_right(bounds, end)
        bounds[left:right] = ([low] if left % 2 == 1 else []) + ([end] if right % 2 == 1 else [])

    def update(self, other: Intervals) -> None:
        """Add every number of `other`."""
        if not self._bounds or other.first > self._bounds[-1]:
            self._bounds += other._bounds
        elif len(other._bounds) <= FEW_BOUNDS:
            for low, high in other.ranges():
                self.add(low, high)
        else:
            self._bounds = _unite(self.ranges(), other.ranges())

    def missing(self, ranges: Iterable[Range]) -> tuple[Range, ...]:
        """Give those of `ranges` (ascending, disjoint) that are not in the set."""
        bounds, result = self._bounds, []
        for low, high in ranges:
            at = bisect_right(bounds, low)
            start = low if at % 2 == 0 else bounds[at]
            at += at % 2
            while start <= high:
                if at >= len(bounds) or bounds[at] > high:
                    result.append((start, high))
                    break
                if start < bounds[at]:
                    result.append((start, bounds[at] - 1))
                start = bounds[at + 1]
                at += 2
        return tuple(result)

    def holes(self) -> Intervals:
        """Give the numbers from 1 to the last that are not in the set."""
        return Intervals(self.missing([(1, self.last)])) if self._bounds else Intervals()

    @property
    def range_count(self) -> int:
        """Count the ranges."""
        return len(self._bounds) // 2

    def chunks(self, count: int) -> Iterator[Intervals]:
        """Give the set in parts of at most `count` ranges, ascending."""
        for at in range(0, len(self._bounds), 2 * count):
            part = Intervals()
            part._bounds = self._bounds[at : at + 2 * count]
            yield part

    def up_to(self, number: int) -> Intervals:
        """Give the part that is not above `number`."""
        result = self.copy()
        if result.last > number:
            result.discard(number + 1, result.last)
        return result

    def above(self, number: int) -> Intervals:
        """Give the part that is above `number`."""
        result = self.copy()
        if result._bounds and result.first <= number:
            result.discard(0, number)
        return result

    def take(self, count: int) -> Intervals:
        """Give the `count` smallest numbers."""
        result = Intervals()
        for low, high in self.ranges():
            if count <= 0:
                break
            high = min(high, low + count - 1)  # noqa: PLW2901
            result.add(low, high)
            count -= high - low + 1
        return result


def _subtract(left: list[int], right: list[int]) -> list[int]:
    """Sweep over both lists of bounds once and keep what is in `left` only."""
    result: list[int] = []
    at = 0
    for i in range(0, len(left), 2):
        low, end = left[i], left[i + 1]
        while at < len(right) and right[at + 1] <= low:
            at += 2
        j = at
        while j < len(right) and right[j] < end:
            if low < right[j]:
                result += (low, right[j])
            low = max(low, right[j + 1])
            j += 2
        if low < end:
            result += (low, end)
    return result


def _unite(left: Iterable[Range], right: Iterable[Range]) -> list[int]:
    """Sweep over both lists of ranges once and join what overlaps or touches."""
    ranges = sorted([*left, *right])  # two ascending runs: sorting only merges them
    result = [ranges[0][0], ranges[0][1] + 1]
    for low, high in ranges:
        if low > result[-1]:
            result += (low, high + 1)
        elif high >= result[-1]:
            result[-1] = high + 1
    return result


def _intersect(left: list[int], right: list[int]) -> list[int]:
    """Give the bounds of what is in both: look the fewer up in the more where they are few."""
    if len(left) > len(right):
        left, right = right, left
    result: list[int] = []
    few = len(left) * FEW_BOUNDS < len(right)
    at = 0
    for i in range(0, len(left), 2):
        low, end = left[i], left[i + 1]
        if few:
            at = bisect_right(right, low) & ~1
        while at < len(right) and right[at + 1] <= low:
            at += 2
        j = at
        while j < len(right) and right[j] < end:
            result += (max(low, right[j]), min(end, right[j + 1]))
            j += 2
    return result
