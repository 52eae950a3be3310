"""Handing new rows to peers over open links, and hearing who has taken and applied them.

In a region of at most `DIRECT_MAX` members every other member is a finger: each parcel goes to every
holder over its own link, one hop. Delegation along rings will choose fewer links here and hand out arcs.
A link sends at once while few messages are under way; what comes meanwhile goes with the next. Its queue
is bounded in bytes: what does not fit is dropped and counted, and the hole is repaired.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

import structlog
import trio

from coherd.errors import RpcFailed, one_failure
from coherd.model import Lane
from coherd.net.peer import LinkReply, Parcel

if TYPE_CHECKING:
    from collections.abc import Callable

    from coherd.clock import Clock
    from coherd.cluster.receipts import Receipt
    from coherd.cluster.roster import Roster
    from coherd.net.peer import MemberInfo, OutgoingLink, Peer

log = structlog.get_logger("coherd.links")

DIRECT_MAX = 17
"""Members of a region up to which everybody is linked with everybody."""
LINK_BYTES_MAX = 8 * 1024 * 1024
"""Payload bytes that may wait on a link or be unacknowledged."""
MESSAGES_MAX = 4
"""Messages under way from which on parcels wait for an acknowledgement, to go together."""
MESSAGE_BYTES_MAX = 1024 * 1024
"""Payload bytes of one message."""
HEARTBEAT_AFTER = 1.0
"""Seconds of silence after which an empty message shows that the link lives."""
SILENT_MAX = 3.0
"""Seconds without a reply to anything after which a link counts as broken."""


class _Sent(NamedTuple):
    last: int
    size: int
    at: float


class Link:
    """One direction to one peer, for one class of lanes; survives the connections that carry it."""

    def __init__(self, name: str, *, urgent: bool, clock: Clock) -> None:
        self.name = name
        self.urgent = urgent
        self.sent = 0
        self.dropped = 0
        self.round_trip = 0.0
        self._clock = clock
        self._connection: OutgoingLink | None = None
        self._sequence = 0
        self._bytes = 0
        self._waiting: deque[tuple[bytes, float, Receipt | None]] = deque()
        self._under_way: deque[_Sent] = deque()
        self._receipts: WeakValueDictionary[int, Receipt] = WeakValueDictionary()
        """By parcel; a receipt lives as long as somebody waits for it."""
        self._replied_at = 0.0
        self._beat_at = 0.0
        """When a heartbeat was sent that was not answered yet."""

    @property
    def is_open(self) -> bool:
        """Whether a connection carries it now."""
        return self._connection is not None

    @property
    def queued_bytes(self) -> int:
        """Payload bytes that wait or are not acknowledged."""
        return self._bytes

    def unacknowledged_age(self, now: float) -> float:
        """Give for how many seconds the oldest message under way has been; 0 when there is none."""
        return now - self._under_way[0].at if self._under_way else 0.0

    def offer(self, payload: bytes, accepted_at: float, receipt: Receipt | None) -> None:
        """Send a payload as soon as the link allows; drop and count it when it can't be queued."""
        if self._connection is None or self._bytes + len(payload) > LINK_BYTES_MAX:
            self.dropped += 1
            return
        self._bytes += len(payload)
        self._waiting.append((payload, accepted_at, receipt))
        if len(self._under_way) < MESSAGES_MAX:
            # A call that just ended refuses messages before `carry` hears of it. That must not reach
            # who accepts rows: they would be numbered and never be journaled or applied.
            with suppress(RpcFailed):
                self._send()

    async def carry(self, connection: OutgoingLink) -> None:
        """Use `connection` until it breaks. Raises RpcFailed."""
        self._connection = connection
        self._replied_at = self._clock.now()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heartbeat)
                while replies := await connection.receive():
                    self._replied_at = self._clock.now()
                    for reply in replies:
                        self._take(reply)
                raise RpcFailed("UNAVAILABLE", "the peer ended the link")
        finally:
            self.dropped += len(self._waiting)
            self._connection = None
            self._bytes = 0
            self._waiting.clear()
            self._under_way.clear()
            self._receipts.clear()

    async def _heartbeat(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_AFTER)
            now = self._clock.now()
            if now - self._replied_at > SILENT_MAX:
                raise RpcFailed("UNAVAILABLE", f"no reply for {SILENT_MAX:.0f} s")
            if not self._under_way:
                self._send()

    def _send(self) -> None:
        """Send what waits, up to a message; nothing is a heartbeat."""
        connection = self._connection
        if connection is None:
            return
        now = self._clock.now()
        parcels: list[Parcel] = []
        size = 0
        while self._waiting and size < MESSAGE_BYTES_MAX:
            payload, accepted_at, receipt = self._waiting.popleft()
            self._sequence += 1
            size += len(payload)
            if receipt is not None:
                self._receipts[self._sequence] = receipt
            parcels.append(Parcel(self._sequence, payload, now - accepted_at, receipt is not None))
        self.sent += len(parcels)
        if parcels:
            self._under_way.append(_Sent(self._sequence, size, now))
        else:
            self._beat_at = now
        connection.send_nowait(parcels)

    def _take(self, reply: LinkReply) -> None:
        now = self._clock.now()
        while self._under_way and self._under_way[0].last <= reply.acknowledged:
            sent = self._under_way.popleft()
            self._bytes -= sent.size
            self._measure(now - sent.at)
        if self._beat_at:
            self._measure(now - self._beat_at)
            self._beat_at = 0.0
        for sequence, names in reply.receipts:
            receipt = self._receipts.get(sequence)
            if receipt is not None:
                receipt.add(names)
        while self._waiting and len(self._under_way) < MESSAGES_MAX:
            self._send()

    def _measure(self, sample: float) -> None:
        """Smooth the round trip, as RFC 6298 (2.3) does."""
        self.round_trip += (sample - self.round_trip) / 8 if self.round_trip else sample


class Spreading:
    """The links to all members."""

    def __init__(self, roster: Roster, clock: Clock) -> None:
        self._roster = roster
        self._clock = clock
        self.links: dict[str, tuple[Link, Link]] = {}
        """Per member the link of the urgent lane and that of the rest."""

    def spread(
        self,
        namespace: str,
        lane: Lane,
        payload: bytes,
        accepted_at: float,
        receipt: Receipt | None,
    ) -> None:
        """Hand a payload to every holder of its namespace."""
        for member in self._roster.holders(namespace):
            if links := self.links.get(member.info.name):
                links[lane is not Lane.URGENT].offer(payload, accepted_at, receipt)

    async def connect(
        self, name: str, peer: Peer, me: MemberInfo, opened: Callable[[MemberInfo], None]
    ) -> None:
        """Open both links to a member and use them until one breaks. Raises RpcFailed."""
        links = self.links.get(name)
        if links is None:
            links = self.links[name] = (
                Link(name, urgent=True, clock=self._clock),
                Link(name, urgent=False, clock=self._clock),
            )
        urgent, rest = links
        try:
            with one_failure(), trio.fail_after(SILENT_MAX) as opening:
                async with (
                    peer.link(me, urgent=True) as first,
                    peer.link(me, urgent=False) as second,
                    trio.open_nursery() as nursery,
                ):
                    if second.peer.name != name:
                        raise RpcFailed("FAILED_PRECONDITION", f"{second.peer.name} answers there")
                    opening.deadline = inf
                    nursery.start_soon(urgent.carry, first)
                    nursery.start_soon(rest.carry, second)
                    opened(second.peer)
        except trio.TooSlowError:
            raise RpcFailed("DEADLINE_EXCEEDED", "the link did not open") from None
