"""What one namespace has seen since the agent started: plain counts, for metrics and status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from coherd.model import Cause


class LastReset(NamedTuple):
    """Why and when a namespace was reset last."""

    cause: Cause
    at: float
    """Running time in seconds."""
    missing: int
    """Numbers that were missing."""


@dataclass(slots=True)
class NamespaceCounts:
    """What one namespace has seen since the agent started."""

    accepted: int = 0
    received: int = 0
    repaired: int = 0
    covered: int = 0
    """Numbers of rows that a later one supersedes."""
    blank: int = 0
    """Numbers of rows that are too old to matter."""
    flushed: int = 0
    """Numbers that were missing when the namespace was reset."""
    forgotten: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    last_reset: LastReset | None = None

    def note(self, cause: Cause, rows: int) -> None:
        """Count rows of a peer that were new."""
        if cause is Cause.REPAIR:
            self.repaired += rows
        else:
            self.received += rows
