"""A hybrid logical clock: stamps that people can read and traces can order.

Kulkarni et al., "Logical Physical Clocks" (2014), §3: 48 bits of wall-clock milliseconds, 16 bits of
counter. No decision of correctness reads a stamp, so a peer whose clock is wrong does no harm: its rows
are applied, the local clock stays, and the skew is reported.
"""

from __future__ import annotations

COUNTER_BITS = 16
STAMP_MAX = 2**64 - 1
AHEAD_MAX_MS = 5_000
"""A stamp that is further ahead of the local wall clock does not move the local clock."""


class HybridClock:
    """Gives ascending stamps and follows those that it sees."""

    def __init__(self) -> None:
        self.stamp = 0
        self.skewed = 0
        """How many stamps were too far ahead to follow."""

    def tick(self, wall_ms: int) -> int:
        """Give a stamp for something that happens now (`wall_ms`: milliseconds since 1970)."""
        self.stamp = max(self.stamp + 1, wall_ms << COUNTER_BITS)
        return self.stamp

    def observe(self, stamp: int, wall_ms: int) -> bool:
        """Follow a stamp that was received; False when it is too far ahead to be followed."""
        if stamp >> COUNTER_BITS > wall_ms + AHEAD_MAX_MS:
            self.skewed += 1
            return False
        self.stamp = max(self.stamp, stamp)
        return True


def wall_ms(stamp: int) -> int:
    """Give the milliseconds since 1970 of a stamp."""
    return stamp >> COUNTER_BITS
