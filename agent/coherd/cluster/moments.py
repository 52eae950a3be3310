"""When positions were reached: by arriving here, or by being applied to a cache.

For people who ask later: a bounded record of (position, running time), one entry a batch and never one a
row, 16 bytes each. What it forgot, or never knew, was reached at an unknown time before what it knows.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from math import isnan, nan

ARRIVALS_MAX = 100_000
"""How many batches at least the record of arrivals holds; at most twice as many."""
STEPS_MAX = 20_000
"""How many steps at least the record of one handler holds."""
WATCHER_STEPS_MAX = 1_000
"""How many that of one watcher holds: there may be thousands of watchers."""


class Moments:
    """One record."""

    __slots__ = ("_entries_max", "_positions", "_times", "since")

    def __init__(self, position: int, entries_max: int) -> None:
        """Up to `position` everything was reached before the record begins."""
        self._entries_max = entries_max
        self._positions = array("q", [position])
        self._times = array("d", [nan])
        self.since: float | None = None
        """Running time in seconds from which on it knows; None: from its beginning on."""

    def note(self, position: int, now: float) -> None:
        """Everything up to `position`, which is the highest so far, is reached at running time `now`."""
        self._positions.append(position)
        self._times.append(now)
        if len(self._positions) > 2 * self._entries_max:
            count = self._entries_max
            self.since = self._times[count]
            del self._positions[:count], self._times[:count]
            self._times[0] = nan  # it stands for all that came before it

    def begin(self, position: int) -> None:
        """Everything up to `position` is reached, whenever that was, and nothing above it is."""
        at = bisect_left(self._positions, position)
        moment = self._times[at] if at < len(self._times) else nan
        del self._positions[at:], self._times[at:]
        self._positions.append(position)
        self._times.append(moment)

    def of(self, position: int) -> float | None:
        """Give the running time at which a position was reached; None where that is not known."""
        at = bisect_left(self._positions, position)
        if at == len(self._times) or isnan(self._times[at]):
            return None
        return self._times[at]
