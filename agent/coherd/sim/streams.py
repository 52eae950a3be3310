"""What becomes of a message on a reliable connection: it is slow, or late, and never lost or overtaken.

A hop takes a lognormal time. A lost segment is sent again by TCP 200 ms later, and what was sent after it on
the same connection waits for it. Replies may be late for other reasons: the member was busy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable
    from random import Random


@dataclass(frozen=True, slots=True)
class Conditions:
    """How all connections are; seconds and shares."""

    hop: float = 0.0015
    """Median of a hop."""
    sigma: float = 0.4
    """Of the logarithm of a hop."""
    send_cost: float = 0.0003
    """Computing for each message that a member sends; one after another."""
    loss: float = 0.0
    """Share of messages whose segment is lost, in both directions."""
    retransmitted_after: float = 0.2
    late_replies: float = 0.0
    """Share of acknowledgements that are held up."""
    late_by: float = 0.2


class Streams:
    """All connections."""

    def __init__(self, conditions: Conditions, random: Random) -> None:
        self._conditions = conditions
        self._random = random
        self._mu = log(conditions.hop)
        self._last: dict[Hashable, float] = {}

    def arrival(self, connection: Hashable, sent_at: float, *, is_reply: bool = False) -> float:
        """Give when a message arrives that is sent on a connection, in one direction of it."""
        conditions, random = self._conditions, self._random
        at = sent_at + random.lognormvariate(self._mu, conditions.sigma)
        while conditions.loss and random.random() < conditions.loss:
            at += conditions.retransmitted_after
        if is_reply and conditions.late_replies and random.random() < conditions.late_replies:
            at += conditions.late_by
        at = self._last[connection] = max(at, self._last.get(connection, at))
        return at
