"""The door to time (floor 2): running time for durations, wall time for people.

Cores are given *running time*: seconds that agents have run on this data directory. It goes on over
restarts and through suspend, and stands still while the agent is down, so an age never counts time in
which nobody can tell what happened. It comes from CLOCK_BOOTTIME; the wall clock decides nothing.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> float:
        """Give the running time in seconds."""

    def wall_ms(self) -> int:
        """Give the wall-clock time in milliseconds since 1970."""

    def wall_us(self) -> int:
        """Give the same in microseconds."""


class BootClock:
    """The real clock, going on from the running time that the journal remembers."""

    def __init__(self, running_time: float = 0.0) -> None:
        self._clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._offset = running_time - time.clock_gettime(self._clock)

    def now(self) -> float:
        """Give the running time in seconds."""
        return time.clock_gettime(self._clock) + self._offset

    def wall_ms(self) -> int:
        """Give the wall-clock time in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def wall_us(self) -> int:
        """Give the same in microseconds."""
        return time.time_ns() // 1_000


class ManualClock:
    """The twin: stands still until it is moved."""

    def __init__(self, running_time: float = 0.0) -> None:
        self.time = running_time

    def now(self) -> float:
        """Give the running time in seconds."""
        return self.time

    def wall_ms(self) -> int:
        """Give milliseconds since 1970, as if that had been at running time 0."""
        return int(self.time * 1000)

    def wall_us(self) -> int:
        """Give the same in microseconds."""
        return int(self.time * 1_000_000)
