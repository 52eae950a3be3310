"""By what an agent is known to others, who was turned away, and why others cannot be spoken with."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING

from coherd.net.obstacles import Obstacle, why_unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from coherd.audit import Event
    from coherd.config import Address
    from coherd.net.credentials import Credentials
    from coherd.net.obstacles import Explain


class Protection:
    """What the agent, its operators and its figures are told of it; whoever opens the doors fills it in."""

    def __init__(self) -> None:
        self.credentials: Credentials | None = None
        """By what this agent is known to others; None where nobody asks."""
        self._denied: Counter[str] = Counter()
        self._lock = Lock()
        self.audit: Callable[[Event], None] = lambda _event: None
        """Notes who did what, from any thread; for good where the agent is a process."""
        self.explain: Explain = _explain
        """Finds out in words why an agent cannot be spoken with."""

    def count_denied(self, rpc: str) -> None:
        """Note that a call was refused because of who called; from any thread."""
        with self._lock:
            self._denied[rpc] += 1

    @property
    def denied(self) -> Counter[str]:
        """Calls that were refused because of who called, by RPC; "": before one was looked at."""
        with self._lock:
            return self._denied.copy()


async def _explain(address: Address, _name: str | None) -> Obstacle | None:
    return await why_unreachable(address)
