"""Spreading: how one member passes payloads on, as a pure state machine.

    originate(payload, now)            something begins here
    receive(message, source, now)      something came in
    handle_timer(now)                  `next_timer()` has passed
    next_timer()                       the one moment at which `handle_timer` wants to be called
    messages()                         what to send now
    events()                           what happened

Beside these the shell says what only it knows: `applied`, `closed_in`, `closed_out`, `forget`, `note_late`;
whom there is says the `View` that both share.

A payload goes to the delegates of each arc (`ring`), those with most to reach first; urgent ones on both
rings and over links of their own, all others on one ring. Whoever takes a parcel forwards it, says so
soon, and forwards nothing twice: per payload and ring it remembers how far it has forwarded, so a wider arc
makes it forward the difference only. A delegate that does not acknowledge in time loses its arc to the next
live holder. It may have forwarded it after all, so that costs copies: therefore re-delegation is paid from a
bucket that fills with a share of what is sent, and stops while this member itself is late. Until a silent
delegate acknowledges again it is given payloads alone, and the next live holder the arcs: that costs nothing,
because what it was not asked to forward it will not. What still does not get through is dropped and counted,
and repair mends it.

No clock, no socket, no thread; nothing here is random. What a peer sends never raises.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from coherd.model import Lane
from coherd.replication.outlink import TIMEOUT_MIN, OutLink
from coherd.replication.parcels import (
    Arc,
    Arrived,
    LinkSilent,
    Outgoing,
    Parcel,
    Parcels,
    Reply,
    widest,
)
from coherd.replication.replies import Replies
from coherd.replication.ring import CIRCLE, RINGS, hash64
from coherd.replication.spread_config import SpreadConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coherd.replication.parcels import Event, LinkKey, Message, Payload
    from coherd.replication.ring import View

DEFAULTS = SpreadConfig()
COUNTED = (
    "originated", "received", "duplicates", "repeated", "sent", "dropped", "bypassed", "redelegated",
    "unpaid", "late", "forgotten_early",
)  # fmt: skip


class _Forwarded:
    """How far one payload was forwarded."""

    __slots__ = ("at", "reach")

    def __init__(self, now: float) -> None:
        self.at = now
        self.reach = [1] * RINGS
        """Per ring the distance up to which holders were handed it: all its arcs begin here."""


class _Bucket:
    """What may be spent on re-delegation."""

    def __init__(self, share: float, burst: float) -> None:
        self._share, self._burst = share, burst
        self._tokens = burst

    def earn(self, parcels: int) -> None:
        self._tokens = min(self._burst, self._tokens + self._share * parcels)

    def spend(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Spread:
    """One member of a region."""

    def __init__(self, me: str, origin: int, view: View, config: SpreadConfig = DEFAULTS) -> None:
        """`origin`: the 8-byte id of this life as a number; it chooses the ring of what is not urgent."""
        self.me = me
        self.view = view
        self.config = config
        self._ring = origin % RINGS
        self._places = tuple(hash64(number, me) for number in range(RINGS))
        self._forwarded: dict[int, _Forwarded] = {}
        """By payload; what was forwarded last stands last."""
        self._out: dict[LinkKey, OutLink] = {}
        self._dirty: dict[OutLink, None] = {}
        """Links that may have something to send, in the order in which it is to go."""
        self._bucket = _Bucket(config.redelegated_share, config.redelegated_burst)
        self._replies = Replies(me, config, partial(self._set_timer, came_in=True))
        self._timers: list[tuple[float, int, bool, LinkKey]] = []
        """When to look at a link; whether at what came in over it (True) or what went out (False)."""
        self._timers_set = 0
        self._late_until = -inf
        self._events: list[Event] = []
        self._counts: Counter[str] = Counter()

    # ------------------------------------------------------------------ the five verbs

    def originate(self, payload: Payload, now: float) -> None:
        """Begin to spread a payload whose rows were accepted on this host."""
        self._counts["originated"] += 1
        self._forget(now)
        rings = range(RINGS) if payload.lane is Lane.URGENT else (self._ring,)
        if payload.wants_receipt:
            for ring in rings:
                self._replies.begin(payload.id, ring)
        self._forward(payload, [(ring, CIRCLE) for ring in rings], now)

    def receive(self, message: Message, source: str, now: float) -> None:
        """Take a message of the member `source`."""
        if type(message) is Parcels:
            self._take_parcels(message, source, now)
        elif type(message) is Reply:
            self._take_reply(message, source, now)

    def handle_timer(self, now: float) -> None:
        """Do what is due. Called late, this member doubts itself before it doubts others."""
        timers = self._timers
        if timers and now - timers[0][0] > self.config.late_after:
            self.note_late(now)
        while timers and timers[0][0] <= now:
            _, _, came_in, key = heappop(timers)
            if came_in:
                self._replies.reply(key, now)
            else:
                self._look_for_overdue(key, now)

    def next_timer(self) -> float | None:
        """Give the moment at which `handle_timer` wants to be called; it changes with every other call."""
        return self._timers[0][0] if self._timers else None

    def messages(self) -> list[Outgoing]:
        """Take what is to be sent, in that order."""
        result = []
        for link in sorted(self._dirty, key=lambda link: not link.urgent):
            while (message := link.take()) is not None:
                self._counts["sent"] += len(message.parcels)
                self._bucket.earn(len(message.parcels))
                result.append(Outgoing(link.name, message))
        self._dirty.clear()
        return result + self._replies.messages()

    def events(self) -> list[Event]:
        """Take what has happened."""
        events = self._events
        self._events = []
        return events + self._replies.events()

    # ------------------------------------------------------------------ what the shell may say

    def applied(self, payload: int, now: float) -> None:
        """Note that this host has applied a payload: every handler and acknowledging watcher of it."""
        self._replies.applied(payload, now)

    def closed_in(self, name: str, *, urgent: bool) -> None:
        """Note that a link from a member ended: it is told nothing more over it."""
        self._replies.closed((name, urgent))

    def closed_out(self, name: str, now: float) -> None:
        """Note that the links to a member broke, or do not open: its arcs go to others."""
        for urgent in (True, False):
            if link := self._out.get((name, urgent)):
                for parcel in link.close():
                    self._counts["dropped"] += 1
                    self._redelegate(parcel, name, now)

    def forget(self, name: str) -> None:
        """Forget the links to a member that is gone for good."""
        for urgent in (True, False):
            if link := self._out.pop((name, urgent), None):
                self._dirty.pop(link, None)

    def link(self, name: str, *, urgent: bool) -> OutLink | None:
        """Give what is known of the link to a member; None when it was never handed anything."""
        return self._out.get((name, urgent))

    def note_late(self, now: float) -> None:
        """Note that this member is late: others may have answered long ago."""
        self._counts["late"] += 1
        self._late_until = now + TIMEOUT_MIN

    def neighbours(self) -> list[str]:
        """Name the members to whom links are worth keeping open: the fingers on both rings."""
        return list(
            dict.fromkeys(name for ring in self.view.rings for name in ring.fingers_of(self.me))
        )

    def statistics(self) -> dict[str, int]:
        """Give what was counted and what is kept.

        `dropped` parcels found no room or lost their connection; `unpaid` arcs were overdue while the bucket
        was empty; `repeated` arcs were forwarded before.
        """
        links = self._out.values()
        counted = {name: self._counts[name] for name in COUNTED}
        return (
            counted
            | self._replies.statistics()
            | {
                "remembered": len(self._forwarded),
                "links": len(links),
                "links_silent": sum(link.is_silent for link in links),
                "queued_bytes": sum(link.queued_bytes for link in links),
            }
        )

    # ------------------------------------------------------------------ handing on

    def _take_parcels(self, message: Parcels, source: str, now: float) -> None:
        key = source, message.urgent
        if not message.parcels:
            self._replies.beat(key, now)
            return
        self._forget(now)
        for payload, arcs in message.parcels:
            self._counts["received"] += 1
            if payload.id in self._forwarded:
                self._counts["duplicates"] += 1
            else:
                self._events.append(Arrived(payload, source))
            todo = []
            for ring, end in arcs:
                if not 0 <= ring < RINGS:
                    continue
                if payload.wants_receipt:
                    self._replies.ask(payload.id, ring, key, now)
                todo.append((ring, (end - self._places[ring]) % CIRCLE))
            self._forward(payload, todo, now)
        self._replies.took(key, message.last, now)

    def _forward(self, payload: Payload, arcs: Iterable[tuple[int, int]], now: float) -> None:
        """Hand a payload to the delegates of arcs, given as ring and distance, as far as that is not done."""
        forwarded = self._forwarded.get(payload.id) or _Forwarded(now)
        delegates: list[tuple[int, str, Arc]] = []
        for ring, end in arcs:
            begin = forwarded.reach[ring]
            if end <= begin:
                self._counts["repeated"] += end > 1
                continue
            forwarded.reach[ring] = end
            delegates += [
                (holders, name, Arc(ring, until))
                for name, until, holders in self.view.rings[ring].delegates(
                    self._places[ring], begin, end, payload.namespace
                )
            ]
        if delegates:  # it stands last now
            self._forwarded.pop(payload.id, None)
            forwarded.at = now
        self._forwarded[payload.id] = forwarded
        self._forget(now)
        delegates.sort(key=lambda delegate: -delegate[0])
        parcels: dict[str, tuple[Arc, ...]] = {}
        for _, name, arc in delegates:
            taker = name
            if self._is_silent(name, payload):
                passed_over, heir = self._heir(name, arc, payload)
                if heir is not None:
                    self._counts["bypassed"] += 1
                    taker = heir
                    for silent in (name, *passed_over):
                        alone = Arc.nobody(arc.ring, silent)
                        parcels[silent] = (*parcels.get(silent, ()), alone)
            parcels[taker] = (*parcels.get(taker, ()), arc)
        for name, handed in parcels.items():
            self._hand(name, Parcel(payload, widest(name, handed)), now)

    def _forget(self, now: float) -> None:
        """Forget what was not forwarded for long, and what is too much."""
        memory = self._forwarded
        while memory:
            oldest = next(iter(memory))
            if len(memory) > self.config.remembered_max:
                self._counts["forgotten_early"] += 1
            elif memory[oldest].at + self.config.remembered_for > now:
                return
            del memory[oldest]

    def _hand(self, name: str, parcel: Parcel, now: float) -> None:
        """Queue a parcel for a member; where there is no room for it, others get its arcs."""
        key = name, parcel.payload.lane is Lane.URGENT
        link = self._out.get(key)
        if link is None:
            link = self._out[key] = OutLink(
                name, urgent=key[1], held_back=self.config.acknowledge_lone_after
            )
        if not link.offer(parcel, now):
            self._counts["dropped"] += 1
            self._redelegate(parcel, name, now)
            return
        self._dirty[link] = None
        self._arm(link)

    # ------------------------------------------------------------------ handing on again

    def _arm(self, link: OutLink) -> None:
        """See to it that somebody looks for what is overdue on a link."""
        if not link.is_armed and (due := link.due) is not None:
            link.is_armed = True
            self._set_timer(max(due, self._late_until), (link.name, link.urgent), came_in=False)

    def _look_for_overdue(self, key: LinkKey, now: float) -> None:
        link = self._out.get(key)
        if link is None:
            return
        link.is_armed = False
        if now >= self._late_until:
            was_silent = link.is_silent
            for parcel in link.take_overdue(now):
                self._redelegate(parcel, link.name, now)
            if link.is_silent and not was_silent:
                self._events.append(LinkSilent(*key))
        self._arm(link)

    def _redelegate(self, parcel: Parcel, instead_of: str, now: float) -> None:
        """Give a parcel's arcs to the next live holders in them, as far as that can be paid."""
        for arc in parcel.arcs:
            passed_over, heir = self._heir(instead_of, arc, parcel.payload)
            if heir is None:
                continue
            if now < self._late_until or not self._bucket.spend():
                self._counts["unpaid"] += 1
                continue
            self._counts["redelegated"] += 1
            self._hand(heir, Parcel(parcel.payload, (arc,)), now)
            for silent in passed_over:
                alone = Arc.nobody(arc.ring, silent)
                self._hand(silent, Parcel(parcel.payload, (alone,)), now)

    def _heir(self, name: str, arc: Arc, payload: Payload) -> tuple[list[str], str | None]:
        """Give the next live holder after a delegate in its arc, and the silent ones before it.

        These would be cut off with the delegate. There is no heir where nobody after it answers, either.
        """
        passed_over: list[str] = []
        for heir in self.view.rings[arc.ring].successors(name, arc.end, payload.namespace):
            if not self._is_silent(heir, payload):
                return passed_over, heir
            passed_over.append(heir)
        return passed_over, None

    def _is_silent(self, name: str, payload: Payload) -> bool:
        link = self._out.get((name, payload.lane is Lane.URGENT))
        return link is not None and link.is_silent

    def _take_reply(self, reply: Reply, source: str, now: float) -> None:
        link = self._out.get((source, reply.urgent))
        if link is not None:
            link.acknowledge(reply.acknowledged, now)
            self._dirty[link] = None
        self._replies.hear(reply.applied, now)

    def _set_timer(self, at: float, key: LinkKey, *, came_in: bool) -> None:
        self._timers_set += 1
        heappush(self._timers, (at, self._timers_set, came_in, key))
