"""One direction to one peer, for one class of lanes: the connections that carry it, one after the other.

What waits, what is under way and what is overdue the core knows (`replication.outlink`); here are the open
connection, its heartbeat, and the messages that wait until one opens.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from coherd.errors import RpcFailed
from coherd.replication.ring import CIRCLE, hash64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coherd.clock import Clock
    from coherd.net.peer import LinkReply, OutgoingLink, Parcel
    from coherd.replication.outlink import OutLink

HEARTBEAT_AFTER = 5.0
"""Seconds of silence after which an empty message shows that the link lives. At rest beats cost most: sixteen
agents that beat every second took a third of two processors. That a member is gone its probes tell."""
LOOK_INTERVAL = 1.0
"""Seconds between two looks at how long a link has been quiet."""
SILENT_MAX = 3.0
"""Seconds without a reply to anything after which a link counts as broken."""


class Link:
    """What is sent over one link, and what is said back; survives the connections that carry it."""

    def __init__(
        self,
        name: str,
        *,
        urgent: bool,
        clock: Clock,
        core: Callable[[], OutLink | None],
        heard: Callable[[Link, LinkReply], None],
    ) -> None:
        """`core()`: what the core knows of it; None while nothing was handed over.

        `heard(link, reply)` takes what the peer says.
        """
        self.name = name
        self.urgent = urgent
        self._clock = clock
        self._core = core
        self._heard = heard
        self._connection: OutgoingLink | None = None
        self._early: list[Sequence[Parcel]] = []
        """Messages that wait for a connection; the core bounds them."""
        self._unanswered_since: float | None = None
        """When the first message was sent to which there was no reply yet, nor to a later one."""
        self._beat_at = 0.0
        """When a heartbeat was sent that was not answered yet."""
        self._sent_at = 0.0
        self._answered = trio.CancelScope()
        """Cancelled when nobody has answered for too long."""
        self._beat = 0.0
        """How long the last heartbeat took to be answered."""

    @property
    def is_open(self) -> bool:
        """Whether a connection carries it now."""
        return self._connection is not None

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait or are not acknowledged."""
        return core.queued_bytes if (core := self._core()) else 0

    @property
    def sent(self) -> int:
        """Parcels sent."""
        return core.sent if (core := self._core()) else 0

    @property
    def dropped(self) -> int:
        """Parcels that found no room, or waited when the connection broke."""
        return core.dropped if (core := self._core()) else 0

    @property
    def round_trip(self) -> float:
        """Seconds from sending to the acknowledgement, smoothed; of the last heartbeat before the first."""
        core = self._core()
        return core.round_trip if core and core.round_trip else self._beat

    def unacknowledged_age(self, now: float) -> float:
        """Give for how many seconds the oldest parcel under way has been; 0 when there is none."""
        return core.unacknowledged_age(now) if (core := self._core()) else 0.0

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Send a message; one that comes before the link is open waits for that."""
        if self._connection is None:
            self._early.append(parcels)
        else:
            # A call that just ended refuses messages before `carry` hears of it. That must not reach
            # who accepts rows: they would be numbered and never be journaled or applied.
            with suppress(RpcFailed):
                self._send(self._connection, parcels)

    def drop(self) -> None:
        """Forget what waits for a connection."""
        self._early.clear()

    async def carry(self, connection: OutgoingLink) -> None:
        """Use `connection` until it breaks. Raises RpcFailed."""
        self._connection = connection
        self._unanswered_since = None
        self._beat_at = 0.0
        # Links that open together do not beat together.
        self._sent_at = self._clock.now() - HEARTBEAT_AFTER / 2 * hash64(0, self.name) / CIRCLE
        early, self._early = self._early, []
        try:
            for parcels in early:
                self._send(connection, parcels)
            with trio.CancelScope() as self._answered:
                while replies := await connection.receive():
                    self._unanswered_since = None
                    if self._beat_at:
                        self._beat, self._beat_at = self._clock.now() - self._beat_at, 0.0
                    for reply in replies:
                        self._heard(self, reply)
                raise RpcFailed("UNAVAILABLE", "the peer ended the link")
            raise RpcFailed("UNAVAILABLE", f"no reply for {SILENT_MAX:.0f} s")
        finally:
            self._connection = None

    def look(self, now: float) -> None:
        """Beat if the link is quiet, and break it if nobody answers; called every `LOOK_INTERVAL`."""
        since = self._unanswered_since
        if self._connection is None:
            return
        if since is not None and now - since >= SILENT_MAX:
            self._answered.cancel()
        elif since is None and now - self._sent_at >= HEARTBEAT_AFTER:
            self._beat_at = now
            self.send(())

    def _send(self, connection: OutgoingLink, parcels: Sequence[Parcel]) -> None:
        self._sent_at = self._clock.now()
        if self._unanswered_since is None:
            self._unanswered_since = self._sent_at
        connection.send_nowait(parcels)
