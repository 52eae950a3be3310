"""A region of spreading cores in virtual time: payloads, what befalls the members, and who got what when.

Everything follows from the seed. A member's sends go out one after another; a stalled member does nothing at
all, and when it goes on its timers come first, late, and then all that came in meanwhile. A crashed member is
gone; after a while everybody notices. What does not arrive is mended (`mender`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from zlib import crc32

from coherd.model import EVERY_NAMESPACE, Lane, Origin, Stream
from coherd.replication.parcels import Arrived, Parcels, Payload, ReceiptGrew, Reply
from coherd.replication.ring import View
from coherd.replication.spread import Spread
from coherd.replication.spread_config import SpreadConfig
from coherd.sim import mender
from coherd.sim.mender import Fetched, Mender
from coherd.sim.scheduler import Scheduler
from coherd.sim.streams import Conditions, Streams

if TYPE_CHECKING:
    from coherd.replication.parcels import Event

Action: TypeAlias = Callable[[], None]
Message: TypeAlias = Parcels | Reply | mender.Message
Arrival: TypeAlias = "tuple[Node, Message, Node]"
NAMESPACE = "simulated"
OTHER = "other"
"""What members hold that do not hold the namespace."""
NOTICED_AFTER = 3.0
"""Seconds after which a crash is noticed by the silence of the links."""
APPLYING = 0.001
"""Seconds until a cache has applied a row, in the mean; exponential."""
PARCEL_BYTES, REPLY_BYTES, NAME_BYTES = 24, 8, 12
"""Estimates: an arc and its frame, an acknowledgement, a name in a receipt."""
DIFFERING_VIEWS = 8
"""So many wrong views there are at most, shared by those that have one."""


@dataclass(frozen=True, slots=True)
class Region:
    """Members, and what they know of each other."""

    members: int = 1_000
    interest: float = 1.0
    """Share of them that hold the namespace."""
    differing: float = 0.0
    """Share of them that know only a part of the others."""
    lacking: float = 0.02
    """How large a share of all members these do not know."""
    conditions: Conditions = field(default_factory=Conditions)
    config: SpreadConfig = field(default_factory=SpreadConfig)


class Node:
    """One member, and how it is."""

    __slots__ = (
        "applied", "armed", "busy_until", "core", "inbox", "index", "is_up", "mender", "name", "stalled_from",
        "stalled_until", "view",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.name = f"member-{index}"
        self.is_up = True
        self.stalled_from = self.stalled_until = -inf
        """When the last stall began and will have ended."""
        self.busy_until = 0.0
        self.armed = inf
        self.inbox: list[tuple[Message, Node]] = []
        self.applied: set[int] = set()
        """Payloads that want receipts and are applied here."""
        self.core: Spread
        self.mender: Mender
        self.view: View


class Sent(NamedTuple):
    """One payload, and what became of it."""

    payload: Payload
    stream: Stream
    number: int
    at: float
    arrived: array[float]
    """Per member when it had it; infinity until it does."""
    stalled: set[int]
    """Members that stood still at some time between."""


class SpreadWorld:
    """Members, the connections between them, and the truth about every payload."""

    def __init__(self, region: Region, seed: int) -> None:
        self.region = region
        self.random = Random(seed)
        self._streams = Streams(region.conditions, Random(self.random.getrandbits(64)))
        self._scheduler: Scheduler[Node | Arrival | Action] = Scheduler()
        self.nodes = [Node(index) for index in range(region.members)]
        self.holders = sorted(
            self.random.sample(
                range(region.members), max(2, round(region.members * region.interest))
            )
        )
        self._by_name = {node.name: node for node in self.nodes}
        self.sent: list[Sent] = []
        self._dots: dict[tuple[Stream, int], int] = {}
        self._numbers: dict[Stream, int] = {}
        self.copies = 0
        """Payloads that came along links, as often as they came."""
        self.mended = 0
        """Payloads that a member had first by repair."""
        self.bytes_spread = self.bytes_repair = self.events = 0
        self.receipts: dict[int, float] = {}
        """Payloads of which everybody required is known to have applied them, and when that was known."""
        self.traced = 0
        """A checksum of all that arrived, of when and where; 0 until `trace` is set."""
        self.trace = False
        self.on_receipt: Callable[[int, Node, ReceiptGrew], None] = lambda _payload, _node, _event: (
            None
        )
        self._views = self._make_views()
        self._begin()

    def _make_views(self) -> list[View]:
        region, holders = self.region, set(self.holders)
        everybody = {
            node.name: (EVERY_NAMESPACE,) if region.interest >= 1
            else (NAMESPACE,) if node.index in holders else (OTHER,)
            for node in self.nodes
        }  # fmt: skip
        views = [View(everybody)]
        for _ in range(DIFFERING_VIEWS if region.differing else 0):
            unknown = self.random.sample(self.nodes, round(region.members * region.lacking))
            names = {node.name for node in unknown}
            views.append(View({n: held for n, held in everybody.items() if n not in names}))
        return views

    def _begin(self) -> None:
        region, random = self.region, self.random
        names = [self.nodes[index].name for index in self.holders]
        odd = set(random.sample(range(region.members), round(region.members * region.differing)))
        for node in self.nodes:
            node.view = random.choice(self._views[1:]) if node.index in odd else self._views[0]
            node.core = Spread(node.name, random.getrandbits(64), node.view, region.config)
            node.mender = Mender(node.name, NAMESPACE, names, Random(random.getrandbits(64)))
            self._arm(node)

    @property
    def now(self) -> float:
        """The virtual time in seconds."""
        return self._scheduler.now

    def at(self, when: float, action: Action) -> None:
        """Do something at a virtual time."""
        self._scheduler.add(when, action)

    def run(self, until: float) -> None:
        """Let time go on to a moment."""
        scheduler = self._scheduler
        for event in scheduler.pass_to(until):
            now = scheduler.now
            self.events += 1
            if type(event) is tuple:
                node, message, source = event
                if not node.is_up:
                    continue
                if now < node.stalled_until:
                    node.inbox.append((message, source))
                else:
                    self._deliver(node, message, source)
            elif type(event) is Node:
                self._timer(event)
            else:
                event()  # type: ignore[operator]

    # ------------------------------------------------------------------ what befalls them

    def invalidate(self, node: Node, lane: Lane, size_bytes: int, *, receipt: bool = False) -> int:
        """Let a member publish a row; give the id of its payload."""
        stream = Stream(NAMESPACE, Origin(node.name, 1), lane)
        number = self._numbers[stream] = self._numbers.get(stream, 0) + 1
        payload = Payload(len(self.sent), NAMESPACE, lane, size_bytes, receipt)
        arrived = array("d", [inf]) * len(self.nodes)
        self.sent.append(Sent(payload, stream, number, self.now, arrived, set()))
        self._dots[stream, number] = payload.id
        for other in self.nodes:
            if other.stalled_until > self.now:
                self.sent[-1].stalled.add(other.index)
        node.core.originate(payload, self.now)
        self._take(node, payload.id)
        self._settle(node)
        return payload.id

    def stall(self, node: Node, seconds: float) -> None:
        """Let a member stand still for a while."""
        if self.now >= node.stalled_until:
            node.stalled_from = self.now
        node.stalled_until = max(node.stalled_until, self.now + seconds)
        self.at(node.stalled_until, lambda: self._wake(node))

    def crash(self, node: Node) -> None:
        """End a member without a word."""
        node.is_up = False
        self.at(self.now + NOTICED_AFTER, lambda: self._noticed(node))

    def _wake(self, node: Node) -> None:
        if self.now < node.stalled_until or not node.is_up:
            return
        self._timer(node, was_stalled=True)
        inbox, node.inbox = node.inbox, []
        for message, source in inbox:
            self._deliver(node, message, source)

    def _noticed(self, gone: Node) -> None:
        for view in self._views:
            view.remove(gone.name)
        for node in self.nodes:
            if node.is_up:
                for urgent in (True, False):
                    node.core.closed_in(gone.name, urgent=urgent)
                node.core.closed_out(gone.name, self.now)
                node.core.forget(gone.name)
                node.mender.gone(gone.name)
                self._settle(node)

    # ------------------------------------------------------------------ between them

    def _deliver(self, node: Node, message: Message, source: Node) -> None:
        """Let a member hear a message."""
        now = self.now
        if self.trace:
            text = f"{now!r} {node.index} {source.index} {type(message).__name__}"
            self.traced = crc32(text.encode(), self.traced)
        if type(message) is Parcels:
            self.copies += len(message.parcels)
            node.core.receive(message, source.name, now)
        elif type(message) is Reply:
            node.core.receive(message, source.name, now)
        else:
            if type(message) is Fetched:
                for stream, reply in message.answers.items():
                    for number in reply.rows:
                        self.mended += self._take(node, self._dots[stream, number])
            node.mender.receive(message, source.name, now)  # type: ignore[arg-type]
        self._settle(node)

    def _timer(self, node: Node, *, was_stalled: bool = False) -> None:
        now = self.now
        if not was_stalled and (node.armed > now or now < node.stalled_until):
            return  # an earlier timer took its place, or it comes when the member goes on
        if not node.is_up:
            return
        if now < node.busy_until:
            node.armed = node.busy_until
            self._scheduler.add(node.armed, node)
            return
        node.armed = inf
        node.core.handle_timer(now)
        if node.mender.next_timer() <= now:
            node.mender.handle_timer(now)
        self._settle(node)

    def _settle(self, node: Node) -> None:
        """Note what a member noticed, send what it wants to send, and set its timer."""
        for event in node.core.events():
            self._happened(node, event)
        for target, message in node.core.messages():
            self.bytes_spread += _size(message)
            self._send(node, target, message)
        for target, question in node.mender.messages():
            self.bytes_repair += mender.size(question) + self._rows_size(question)
            self._send(node, target, question)
        self._arm(node)

    def _arm(self, node: Node) -> None:
        due = node.core.next_timer()
        due = node.mender.next_timer() if due is None else min(due, node.mender.next_timer())
        if due < node.armed:
            node.armed = due
            self._scheduler.add(due, node)

    def _send(self, node: Node, name: str, message: Message) -> None:
        target = self._by_name.get(name)
        if target is None:
            return
        node.busy_until = max(self.now, node.busy_until) + self.region.conditions.send_cost
        way = (node.index, target.index, getattr(message, "urgent", None), type(message) is Reply)
        at = self._streams.arrival(way, node.busy_until, is_reply=type(message) is Reply)
        self._scheduler.add(at, (target, message, node))

    def _happened(self, node: Node, event: Event) -> None:
        if type(event) is Arrived:
            payload = event.payload.id
            if not self._take(node, payload) and payload in node.applied:
                node.core.applied(payload, self.now)
        elif type(event) is ReceiptGrew:
            self.on_receipt(event.payload, node, event)
            if event.payload not in self.receipts and len(event.names) == len(self.holders):
                self.receipts[event.payload] = self.now

    def _take(self, node: Node, payload: int) -> bool:
        """Let a member have a payload; tell whether it is new there."""
        sent = self.sent[payload]
        number = sent.number
        if not node.mender.take(sent.stream, ((number, number),), self.now):
            return False
        sent.arrived[node.index] = self.now
        if node.stalled_until > sent.at:
            sent.stalled.add(node.index)
        if sent.payload.wants_receipt:
            self.at(
                self.now + self.random.expovariate(1 / APPLYING), lambda: self._apply(node, payload)
            )
        return True

    def _apply(self, node: Node, payload: int) -> None:
        if self.now < node.stalled_until:
            self.at(node.stalled_until, lambda: self._apply(node, payload))
        elif node.is_up:
            node.applied.add(payload)
            node.core.applied(payload, self.now)
            self._settle(node)

    def _rows_size(self, message: mender.Message) -> int:
        if type(message) is not Fetched:
            return 0
        dots = [(s, n) for s, reply in message.answers.items() for n in reply.rows]
        return sum(self.sent[self._dots[dot]].payload.size_bytes for dot in dots)

    # ------------------------------------------------------------------ looking

    def missing(self) -> int:
        """Count the payloads that holders which are up do not have, each at each."""
        holders = [index for index in self.holders if self.nodes[index].is_up]
        return sum(sent.arrived[index] == inf for sent in self.sent for index in holders)

    def counted(self, name: str) -> int:
        """Sum up one of the statistics of all cores."""
        return sum(node.core.statistics()[name] for node in self.nodes)


def _size(message: Parcels | Reply) -> int:
    if type(message) is Parcels:
        return sum(p.payload.size_bytes + PARCEL_BYTES for p in message.parcels)
    assert type(message) is Reply
    return REPLY_BYTES + NAME_BYTES * sum(len(told.names) for told in message.applied)
