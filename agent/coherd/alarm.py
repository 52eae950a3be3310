"""A moment for which one task waits, and which others move without waking it.

Waking a task costs tens of microseconds, far more when the processor has done other things since; most
deadlines of an agent are moved many times before one of them passes.
"""

from __future__ import annotations

import trio


class Alarm:
    """Rings once, and may then be set again."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def ring_within(self, seconds: float) -> None:
        """Ring in so many seconds, unless it rings sooner anyway; under trio only."""
        at = trio.current_time() + seconds
        if self._scope.deadline <= at:  # to look at it costs far less than to set it
            return
        self._scope.deadline = at

    async def wait(self) -> None:
        """Wait until it rings; for one task at a time."""
        try:
            with self._scope:
                await trio.sleep_forever()
        finally:
            self._scope = trio.CancelScope()
