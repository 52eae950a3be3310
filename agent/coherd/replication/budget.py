"""How much each client may ask for: token buckets, as many as fit in a table of bounded size.

A bucket begins full, with a burst; each row takes a token, and tokens come back at a steady rate. So in any
t seconds no more than rate * t + burst rows are let through. What is refused takes nothing.

A bucket that is full again says no more than one that was never made, and is thrown away when the table has
no room. Who invents names thus gets no more memory than the table has: while it holds only buckets in use,
everybody who is new shares one bucket with the others of the same rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.limits import BATCH_ROWS_MAX

if TYPE_CHECKING:
    from collections.abc import Hashable

BUCKETS_MAX = 10_000
"""About 200 bytes each."""
SWEEP_INTERVAL = 1.0
"""Seconds between two looks for buckets that are full again."""
_ROUNDING = 1e-6
"""Tokens that may be lacking: who comes back when told to must not be sent away once more."""


def burst_of(rate: float) -> float:
    """Give what is let through at once: one second's worth, and always a whole batch."""
    return max(rate, float(BATCH_ROWS_MAX))


class Bucket:
    """The tokens of one client."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """`rate`: tokens a second; `burst`: how many there are at most."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, count: int, now: float) -> float:
        """Take tokens and give 0.0, or give the seconds until there are so many and take none.

        More than the burst there never are.
        """
        self._fill(now)
        if count <= self._tokens + _ROUNDING:
            self._tokens -= count
            return 0.0
        return (count - self._tokens) / self._rate

    def give_back(self, count: int) -> None:
        """Put tokens back that were taken for nothing."""
        self._tokens = min(self._burst, self._tokens + count)

    def is_full(self, now: float) -> bool:
        """Tell whether everything is back that was taken."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now


class Buckets:
    """The buckets of all clients, made when they are needed."""

    def __init__(self, count_max: int = BUCKETS_MAX) -> None:
        self._count_max = count_max
        self._buckets: dict[Hashable, Bucket] = {}
        self._common: dict[float, Bucket] = {}
        """By rate; there are as many rates as settings."""
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self._buckets) + len(self._common)

    def find(self, key: Hashable, rate: float, now: float) -> Bucket:
        """Give the bucket of `key`; the rate of a key does not change."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            return bucket
        if len(self._buckets) >= self._count_max and now >= self._sweep_at:
            self._sweep_at = now + SWEEP_INTERVAL
            self._buckets = {k: b for k, b in self._buckets.items() if not b.is_full(now)}
        if len(self._buckets) < self._count_max:
            bucket = self._buckets[key] = Bucket(rate, burst_of(rate), now)
            return bucket
        bucket = self._common.get(rate)
        if bucket is None:
            bucket = self._common[rate] = Bucket(rate, burst_of(rate), now)
        return bucket
