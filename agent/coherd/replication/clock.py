"""A hybrid logical clock: stamps that people can read and traces can order.

Kulkarni et al., "Logical Physical Clocks" (2014), §3: 48 bits of wall-clock milliseconds, 16 bits of
counter. No decision of correctness reads a stamp, so a peer whose clock is wrong does no harm: its rows
are applied, the local clock stays, and the skew is reported.
"""

from __future__ import annotations

from coherd.limits import EPOCH_AHEAD_MAX_MS, STAMP_AHEAD_MAX_MS

COUNTER_BITS = 16
STAMP_MAX = 2**64 - 1


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
        if stamp >> COUNTER_BITS > wall_ms + STAMP_AHEAD_MAX_MS:
            self.skewed += 1
            return False
        self.stamp = max(self.stamp, stamp)
        return True


def wall_ms(stamp: int) -> int:
    """Give the milliseconds since 1970 of a stamp."""
    return stamp >> COUNTER_BITS


def is_far_ahead(epoch: int, wall_ms: int) -> bool:
    """Tell whether an epoch, drawn from a wall clock as a rule, shows that a clock is wrong."""
    return epoch > wall_ms + EPOCH_AHEAD_MAX_MS
