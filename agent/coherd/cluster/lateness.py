"""How late the event loop runs: a timer that should fire at once shows how long other work holds it up."""

from __future__ import annotations

from collections import deque

import trio

from coherd.cluster.timing import Histogram

INTERVAL = 0.1
"""Seconds between two looks."""
WINDOW = 60.0
"""Seconds over which the greatest lateness is remembered."""
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Lateness:
    """How late a timer fired: last, at most during the last minute, and how often how late."""

    def __init__(self) -> None:
        self.last = 0.0
        """Seconds."""
        self.histogram = Histogram(BOUNDS)
        self._peaks: deque[tuple[float, float]] = deque()
        """(when, how late): each is greater than all that came after it."""

    @property
    def peak(self) -> float:
        """The greatest lateness of the last minute, in seconds."""
        self._prune(trio.current_time())
        return self._peaks[0][1] if self._peaks else 0.0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            now = trio.current_time()
            self.note(now - due, now)

    def note(self, seconds: float, now: float) -> None:
        """Take what one look at trio's time `now` found."""
        self.last = seconds
        self.histogram.note(seconds)
        while self._peaks and self._peaks[-1][1] <= seconds:
            self._peaks.pop()
        self._peaks.append((now, seconds))
        self._prune(now)

    def _prune(self, now: float) -> None:
        while self._peaks and now - self._peaks[0][0] > WINDOW:
            self._peaks.popleft()
