"""How long rows matter: effective time to live, the horizon, and what may be forgotten.

A namespace's `max_ttl` is a promise of its owners: no cache keeps a copy longer. A row that is older
than `max_ttl` and some slack covers no copy that can still be alive. Ages are running time since the
acceptance at the origin; no two clocks are compared.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SLACK_SECONDS = 60.0
SLACK_SHARE = 0.02


class Floor(NamedTuple):
    """Everything up to `n` that is not held was accepted at running time `accepted_at` or before."""

    n: int = 0
    accepted_at: float = -inf

    def raised(self, n: int, accepted_at: float) -> Floor:
        """Give the floor after also forgetting numbers up to `n`, the youngest of that time."""
        return Floor(max(self.n, n), max(self.accepted_at, accepted_at))

    def age(self, now: float) -> float:
        """Give the least age in seconds of what was forgotten."""
        return now - self.accepted_at


def horizon(max_ttl: float) -> float:
    """Give the age in seconds from which a row covers no copy that can still be alive."""
    return max_ttl + SLACK_SECONDS + SLACK_SHARE * max_ttl


class EffectiveTtl:
    """The largest `max_ttl` in force during the last such span.

    Copies were kept under the setting of their time: after it is lowered from an hour to a minute, a
    copy of the old setting may live for another hour. Without any setting it is unlimited.
    """

    def __init__(self, history: Sequence[tuple[float, float]] = ()) -> None:
        self._history = list(history)

    @property
    def history(self) -> Sequence[tuple[float, float]]:
        """The settings that count: (since when, max_ttl), oldest first."""
        return self._history

    def set(self, max_ttl: float, now: float) -> None:
        """Put `max_ttl` (seconds; infinite for none) in force from `now` on."""
        if not self._history or self._history[-1][1] != max_ttl:
            self._history.append((now, max_ttl))
        self._prune(now)

    def at(self, now: float) -> float:
        """Give the effective value in seconds; infinite while nothing was ever set."""
        self._prune(now)
        return max((ttl for _, ttl in self._history), default=inf)

    def _prune(self, now: float) -> None:
        """Drop the settings under which no copy can be alive."""
        history = self._history
        self._history = [
            entry
            for entry, (end, _) in pairwise([*history, (inf, inf)])
            if end == inf or now - end <= horizon(entry[1])
        ]
