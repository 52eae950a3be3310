"""All deadlines of one member: at most one for each key, and only the nearest is told.

A heap with lazy deletion: setting and clearing are O(log n), and what was replaced is passed over.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TypeAlias

Key: TypeAlias = tuple[str, object]
"""What is due, and of whom."""


class Timers:
    """Deadlines by key."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def at(self, key: Key) -> float | None:
        """Give the deadline of a key."""
        return self._at.get(key)

    def set(self, key: Key, at: float) -> None:
        """Let a key be due at a time; an earlier setting of it is forgotten."""
        self._at[key] = at
        self._count += 1  # of equal deadlines the one set first: the same in every process
        heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 4 * len(self._at) + 64:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapify(self._heap)

    def clear(self, key: Key) -> None:
        """Let a key be due no more."""
        self._at.pop(key, None)

    def clear_all(self) -> None:
        """Let nothing be due any more."""
        self._at.clear()

    def next(self) -> float | None:
        """Give the nearest deadline."""
        heap = self._heap
        while heap:
            at, _, key = heap[0]
            if self._at.get(key) == at:
                return at
            heappop(heap)
        return None

    def pop(self, now: float) -> Key | None:
        """Take the nearest key that is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, key = heappop(heap)
            if self._at.get(key) == at:
                del self._at[key]
                return key
        return None

    def due(self, now: float) -> list[Key]:
        """Give the keys that are due, and leave them."""
        return [key for key, at in self._at.items() if at <= now]
