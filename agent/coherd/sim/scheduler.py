"""Virtual time: what happens next, in one order that is the same in every process.

Simultaneous events happen in the order in which they were scheduled.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

E = TypeVar("E")


class Scheduler(Generic[E]):
    """A queue of events by time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, E]] = []
        self._count = 0

    def add(self, at: float, event: E) -> None:
        """Let an event happen at a time; at once if that has passed."""
        self._count += 1
        heappush(self._heap, (at, self._count, event))

    def pass_to(self, until: float) -> Iterator[E]:
        """Go from one event to the next and give each, also those that are added meanwhile; then be there."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            at, _, event = heappop(heap)
            self.now = max(self.now, at)
            yield event
        self.now = until
