"""Doubt of oneself: the local health (Lifeguard §IV-A) and the sick observer.

A member whose probes fail may itself be the slow one. The health score counts what speaks for that: 0 is
well, and at `health_max` interval and timeout of its probes are stretched to `health_max + 1` times.
When even more than half of its last probes failed, it is taken to be cut off or half dead: it accuses
nobody until that is better, or until one maximal suspicion is over, because then it may be right.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherd_membership._config import SwimConfig


class Health:
    """The score of one member."""

    def __init__(self, config: SwimConfig) -> None:
        self._max = config.health_max
        self.score = 0
        self._outcomes: deque[bool] = deque(maxlen=config.outcomes)
        self._sick_until: float | None = None

    @property
    def stretch(self) -> int:
        """The factor for interval and timeout of probes."""
        return self.score + 1

    def add(self, points: int) -> None:
        """Note what speaks for (positive) or against a slow member here."""
        self.score = min(self._max, max(0, self.score + points))

    def probed(self, *, failed: bool, now: float, silence: float) -> bool:
        """Note the outcome of a probe; True when the observer is sick from now on, for at most `silence`."""
        outcomes = self._outcomes
        outcomes.append(failed)
        if not outcomes.maxlen or sum(outcomes) * 2 <= outcomes.maxlen:
            self._sick_until = None
            return False
        if self._sick_until is not None:
            return False
        self._sick_until = now + silence
        return True

    def is_sick(self, now: float) -> bool:
        """Tell whether this member should accuse nobody."""
        return self._sick_until is not None and now < self._sick_until
