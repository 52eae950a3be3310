"""Driving the core of spreading: what it wants sent goes over links, what comes in over links goes to it.

Whom there is to be handed anything the `View` says, which `linking` keeps: members that have spoken to this
agent and can be reached, as far as it knows. A member without an open link is dialled when the core first
hands it something; until then its messages wait.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

import structlog
import trio

from coherd.alarm import Alarm
from coherd.cluster.link import LOOK_INTERVAL, SILENT_MAX, Link
from coherd.errors import RpcFailed, one_failure
from coherd.net.peer import LinkReply
from coherd.net.peer import Parcel as Wrapped
from coherd.replication.parcels import LinkSilent, Parcel, Parcels, Payload, ReceiptGrew, Reply
from coherd.replication.ring import View
from coherd.replication.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.clock import Clock
    from coherd.cluster.receipts import Receipt
    from coherd.model import Batch
    from coherd.net.peer import MemberInfo, Peer
    from coherd.replication.parcels import LinkKey

log = structlog.get_logger("coherd.links")

ALARM_MIN = 0.0002
"""Seconds: what is left of a deadline by rounding alone must not keep the loop busy."""
Say: TypeAlias = Callable[[LinkReply], None]


def payload_id(data: bytes) -> int:
    """Name a payload, the same on every host."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def origin_id(cluster: str, name: str, epoch: int) -> int:
    """Name one life of one agent in 8 bytes."""
    text = f"{cluster}\0{name}\0{epoch}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Spreading:
    """One member's part in spreading."""

    def __init__(self, cluster: str, me: MemberInfo, clock: Clock) -> None:
        self._clock = clock
        self.view = View({me.name: me.namespaces})
        self._spread = Spread(me.name, origin_id(cluster, me.name, me.epoch), self.view)
        self.links: dict[str, tuple[Link, Link]] = {}
        """Per member the link of the urgent lane and that of the rest."""
        self._listeners: dict[LinkKey, Say] = {}
        """How the senders of open links are told something."""
        self._receipts: WeakValueDictionary[int, Receipt] = WeakValueDictionary()
        """By payload; a receipt lives as long as somebody waits for it."""
        self._alarm = Alarm()
        self.on_needed: Callable[[str], None] = lambda _name: None
        """Called with a member that is handed something and has no open link."""
        self.on_silent: Callable[[str], None] = lambda _name: None
        """Called with a member that does not acknowledge in time: a hint, never a verdict."""

    @property
    def statistics(self) -> dict[str, int]:
        """What the core counts."""
        return self._spread.statistics()

    def neighbours(self) -> list[str]:
        """Name the members to whom links are worth keeping open."""
        return self._spread.neighbours()

    # ------------------------------------------------------------------ payloads

    def spread(
        self, batch: Batch, data: bytes, accepted_at: float, receipt: Receipt | None
    ) -> None:
        """Hand rows that were accepted here to every holder of their namespace."""
        payload = self._payload(batch, data, accepted_at, wants_receipt=receipt is not None)
        if receipt is not None:
            self._receipts[payload.id] = receipt
        self._spread.originate(payload, self._clock.now())
        self._act()

    def take(
        self, source: str, *, urgent: bool, parcels: Sequence[tuple[Wrapped, Batch | None]]
    ) -> list[int]:
        """Forward what came over a link, each with what was read in it; give the payloads' names.

        What could not be read goes no further.
        """
        now = self._clock.now()
        readable = [
            Parcel(self._payload(batch, p.payload, now - p.age, wants_receipt=p.receipt), p.arcs)
            for p, batch in parcels
            if batch is not None
        ]
        last = parcels[-1][0].sequence if parcels else 0
        self._spread.receive(Parcels(urgent, last, tuple(readable)), source, now)
        self._act()
        return [parcel.payload.id for parcel in readable]

    def applied(self, payloads: Sequence[int]) -> None:
        """Note that this host has applied payloads, for those that asked."""
        now = self._clock.now()
        for payload in payloads:
            self._spread.applied(payload, now)
        self._act()

    def _payload(
        self, batch: Batch, data: bytes, accepted_at: float, *, wants_receipt: bool
    ) -> Payload:
        namespace, _, lane = batch.stream
        name = payload_id(data)
        return Payload(name, namespace, lane, len(data), wants_receipt, data, accepted_at)

    # ------------------------------------------------------------------ driving the core

    async def run(self) -> None:
        """Call the core whenever it wants to be called."""
        while True:
            await self._alarm.wait()
            now = self._clock.now()
            due = self._spread.next_timer()
            if due is not None and due <= now:
                self._spread.handle_timer(now)
            self._act()

    async def look_after_links(self) -> None:
        """Have all links beat where they are quiet, and break where nobody answers."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            now = self._clock.now()
            for links in self.links.values():
                for link in links:
                    link.look(now)

    def _act(self) -> None:
        """Send what the core wants sent, and act on what has happened."""
        now = self._clock.now()
        for target, message in self._spread.messages():
            if type(message) is Parcels:
                self._send(target, message, now)
            elif type(message) is Reply and (say := self._listeners.get((target, message.urgent))):
                say(LinkReply(message.acknowledged, message.applied))
        for event in self._spread.events():
            if isinstance(event, LinkSilent):
                self.on_silent(event.name)
            elif isinstance(event, ReceiptGrew) and (receipt := self._receipts.get(event.payload)):
                receipt.add(event.names)
        due = self._spread.next_timer()
        if due is not None:
            self._alarm.ring_within(max(ALARM_MIN, due - now))

    def _send(self, target: str, message: Parcels, now: float) -> None:
        first = message.last - len(message.parcels) + 1
        link = self._links(target)[not message.urgent]
        link.send(
            [
                Wrapped(n, p.data, now - p.accepted_at, p.wants_receipt, arcs)
                for n, (p, arcs) in enumerate(message.parcels, first)
            ]
        )
        if not link.is_open:
            self.on_needed(target)

    def _links(self, name: str) -> tuple[Link, Link]:
        links = self.links.get(name)
        if links is None:
            links = self.links[name] = (
                self._link(name, urgent=True),
                self._link(name, urgent=False),
            )
        return links

    def _link(self, name: str, *, urgent: bool) -> Link:
        return Link(
            name,
            urgent=urgent,
            clock=self._clock,
            core=lambda: self._spread.link(name, urgent=urgent),
            heard=self._hear,
        )

    def _hear(self, link: Link, reply: LinkReply) -> None:
        message = Reply(link.urgent, reply.acknowledged, tuple(reply.applied))
        self._spread.receive(message, link.name, self._clock.now())
        self._act()

    # ------------------------------------------------------------------ connections

    def listen(self, source: str, *, urgent: bool, say: Say) -> None:
        """A member has opened a link to this agent: `say(reply)` tells it what it is to be told."""
        self._spread.closed_in(source, urgent=urgent)
        self._listeners[source, urgent] = say

    def ended(self, source: str, *, urgent: bool, say: Say) -> None:
        """The link that was opened with `say` has ended; another may have taken its place."""
        if (
            self._listeners.get((source, urgent)) == say
        ):  # of a method each look makes another object
            del self._listeners[source, urgent]
            self._spread.closed_in(source, urgent=urgent)

    def closed(self, name: str) -> None:
        """The links to a member broke, or do not open: what was handed to it goes to others."""
        for link in self.links.get(name, ()):
            link.drop()
        self._spread.closed_out(name, self._clock.now())
        self._act()

    def forget(self, name: str) -> None:
        """Know nothing of a member any more."""
        self.links.pop(name, None)
        self._spread.forget(name)

    async def connect(
        self, name: str, peer: Peer, me: MemberInfo, opened: Callable[[], None]
    ) -> None:
        """Open both links to a member and use them until one breaks. Raises RpcFailed."""
        urgent, rest = self._links(name)
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
                    opened()
        except trio.TooSlowError:
            raise RpcFailed("DEADLINE_EXCEEDED", "the link did not open") from None
