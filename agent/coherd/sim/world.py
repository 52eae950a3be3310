"""A cluster of membership cores in virtual time: who says what to whom, and what befalls them.

Everything follows from the seed: the same seed gives the same trace in every process. A stalled member
neither sends nor receives; when it goes on, what came in meanwhile comes at once. Its timers either run
(`BLOCKED`: what it sends waits and goes out first) or are late, too (`FROZEN`: they fire first). A crashed
member is gone; a restarted one begins a new life, with or without what it knew.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from zlib import crc32

from coherd.sim.network import Links, Network
from coherd.sim.scheduler import Scheduler
from coherd_membership import Change, MemberChanged, Status, Swim

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from coherd_membership import Datagram, News, SwimConfig

Action: TypeAlias = Callable[[], None]
Arrival: TypeAlias = "tuple[Node, bytes, Node]"
CLUSTER = "simulated"
EPOCHS_A_SECOND = 1_000
SEEDS = 3
"""The first few members, whose addresses all others are given."""
THERE = frozenset({Status.ALIVE, Status.RESTARTING})
"""Who is in one of these is not suspected of anything."""


class Stall(Enum):
    """What a stalled member still does."""

    BLOCKED = "blocked"
    """It computes, and its network does not: an overloaded host; the anomaly of Lifeguard §V."""
    FROZEN = "frozen"
    """Nothing: SIGSTOP, a long collection of garbage, a paused virtual machine."""


class Node:
    """One member, and how it is."""

    __slots__ = (
        "address", "armed", "epoch", "held", "inbox", "index", "is_up", "name", "sees", "stall",
        "stalled_until", "swim",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.name = f"member-{index}"
        self.address = f"host-{index}:4373"
        self.epoch = 0
        self.is_up = False
        self.stall: Stall | None = None
        self.stalled_until = 0.0
        self.sees = 0
        """How many others it sees there, of whom it suspects nothing."""
        self.swim: Swim
        self.inbox: list[tuple[bytes, str]] = []
        """What came in while it was stalled."""
        self.held: list[Datagram] = []
        """What it wanted to send meanwhile."""
        self.armed: float | None = None
        """When its timer is scheduled."""


class Seen(NamedTuple):
    """A member saw another in another way than before."""

    at: float
    observer: str
    change: Change
    name: str
    was_up: bool
    """Whether the one that was seen was up at that moment, stalled or not."""

    @property
    def is_false_death(self) -> bool:
        """Whether one that lived was declared dead."""
        return self.was_up and self.change is Change.DIED


class World:
    """Members, the network between them, and what was seen."""

    def __init__(self, config: SwimConfig, members: int, seed: int, links: Links = Links()) -> None:  # noqa: B008
        self.config = config
        self._random = Random(seed)
        self.network = Network(links, Random(self._random.getrandbits(64)))
        self._scheduler: Scheduler[Node | Arrival | Action] = Scheduler()
        self.nodes = [Node(index) for index in range(members)]
        self._by_address = {node.address: node for node in self.nodes}
        self._by_name = {node.name: node for node in self.nodes}
        self._seeds = [node.address for node in self.nodes[:SEEDS]]
        self.seen: list[Seen] = []
        self.events = 0
        """Things that happened, of any kind."""
        self.messages = 0
        """Datagrams sent, also those that were lost."""
        self.bytes = 0
        self.traced = 0
        """A checksum of all datagrams that arrived, of when and where; 0 until `trace` is set."""
        self.trace = False

    @property
    def now(self) -> float:
        """The virtual time in seconds."""
        return self._scheduler.now

    def at(self, when: float, action: Action) -> None:
        """Do something at a virtual time."""
        self._scheduler.add(when, action)

    def run(self, until: float) -> None:
        """Let time go on to a moment."""
        for event in self._scheduler.pass_to(until):
            if type(event) is tuple:
                self.events += 1
                node, payload, source = event
                if node.stall is not None and node.is_up:
                    node.inbox.append((payload, source.address))
                elif node.is_up:
                    self._deliver(node, payload, source.address)
            elif type(event) is Node:
                self._wake_up(event)
            else:
                self.events += 1
                event()  # type: ignore[operator]

    # ------------------------------------------------------------------ members

    def start(self, node: Node, *, knows: bool = False) -> None:
        """Begin a life; with `knows` it remembers the roster of the life before."""
        known = [member.news for member in node.swim.members.values()] if knows else []
        self._create(node, known)
        self._begin(node)

    def start_all(self) -> None:
        """Start every member at once."""
        for node in self.nodes:
            self.start(node)

    def start_joined(self) -> None:
        """Start every member with full knowledge of all others: the cluster as it is after a while."""
        for node in self.nodes:
            self._create(node, ())
        everybody = [node.swim.me for node in self.nodes]
        for node in self.nodes:
            node.swim.introduce(everybody, self.now)
            node.sees = len(self.nodes) - 1
            self._begin(node)

    def _create(self, node: Node, known: Iterable[News]) -> None:
        node.epoch = max(node.epoch + 1, int((self.now + 1) * EPOCHS_A_SECOND))
        node.swim = Swim(
            self.config,
            name=node.name,
            epoch=node.epoch,
            address=node.address,
            cluster=CLUSTER,
            random=Random(self._random.getrandbits(64)),
            known=known,
        )
        node.is_up, node.stall, node.inbox, node.held = True, None, [], []
        node.stalled_until, node.sees = 0.0, 0

    def _begin(self, node: Node) -> None:
        node.swim.start(self._seeds, self.now)
        self._settle(node)

    def crash(self, node: Node) -> None:
        """End a member without a word."""
        node.is_up = False

    def stop(self, node: Node, *, leaving: bool = False) -> None:
        """End a member that says goodbye."""
        if leaving:
            node.swim.leave()
        else:
            node.swim.restart()
        self._settle(node)
        node.is_up = False

    def stall(self, node: Node, seconds: float, kind: Stall = Stall.FROZEN) -> None:
        """Let a member neither send nor receive for a while, or for longer than it does not already."""
        node.stall = kind
        node.stalled_until = max(node.stalled_until, self.now + seconds)
        self.at(self.now + seconds, lambda: self._wake(node))

    def stall_often(
        self, node: Node, seconds: float, between: float, until: float, kind: Stall
    ) -> None:
        """Let a member stall, go on, and stall again, until a time at which no further stall begins."""
        if self.now < until:
            if node.is_up:
                self.stall(node, seconds, kind)
            again = self.now + seconds + between
            self.at(again, lambda: self.stall_often(node, seconds, between, until, kind))

    def _wake(self, node: Node) -> None:
        if node.stall is None or self.now < node.stalled_until:
            return
        node.stall = None
        if not node.is_up:
            return
        held, node.held = node.held, []
        for datagram in held:
            self._send(node, datagram)
        inbox, node.inbox = node.inbox, []
        node.swim.handle_timer(self.now)
        self._settle(node)
        for payload, source in inbox:
            self.events += 1
            self._deliver(node, payload, source)

    def _wake_up(self, node: Node) -> None:
        """Let a member do what is due, if its timer was not set for another time since."""
        now = self.now
        if node.armed is None or node.armed > now:
            return  # an earlier timer took its place; followed up, they would multiply
        self.events += 1
        node.armed = None
        if node.is_up and node.stall is not Stall.FROZEN:
            due = node.swim.next_timer()
            if due is None or due > now:  # what it was set for has been done with
                self._arm(node, due)
            else:
                node.swim.handle_timer(now)
                self._settle(node)

    # ------------------------------------------------------------------ between them

    def _deliver(self, node: Node, payload: bytes, source: str) -> None:
        """Let a member hear a datagram."""
        if self.trace:
            self._trace(node, payload)
        node.swim.receive(payload, source, self.now)
        self._settle(node)

    def _settle(self, node: Node) -> None:
        """Send what a member wants to send, note what it saw, and set its timer."""
        swim = node.swim
        if node.stall is None:
            for datagram in swim.datagrams():
                self._send(node, datagram)
        else:
            node.held += swim.datagrams()
        for event in swim.events():
            if type(event) is MemberChanged:
                self._note(node, event)
        self._arm(node, swim.next_timer())

    def _arm(self, node: Node, due: float | None) -> None:
        """Set a member's timer, unless it is set for earlier."""
        if due is not None and (node.armed is None or due < node.armed):
            node.armed = due
            self._scheduler.add(due, node)

    def _note(self, node: Node, event: MemberChanged) -> None:
        news = event.news
        node.sees += (news.status in THERE) - (event.before in THERE)
        other = self._by_name.get(news.name)
        was_up = other is not None and other.is_up
        self.seen.append(Seen(self.now, node.name, event.change, news.name, was_up))

    def _send(self, source: Node, datagram: Datagram) -> None:
        self.messages += 1
        self.bytes += len(datagram.payload)
        target = self._by_address.get(datagram.destination)
        if target is None:
            return
        now = self.now
        for delay in self.network.delays(source.index, target.index):
            self._scheduler.add(now + delay, (target, datagram.payload, source))

    def _trace(self, node: Node, payload: bytes) -> None:
        self.traced = crc32(payload, crc32(f"{self.now!r} {node.index}".encode(), self.traced))

    # ------------------------------------------------------------------ looking

    def is_whole(self, nodes: Collection[Node] | None = None) -> bool:
        """Tell whether every member that is up sees all others that are up there, and nobody else; or
        those of `nodes` each other, whomever else they see.
        """
        if nodes is None:
            up = [node for node in self.nodes if node.is_up]
            if any(node.sees != len(up) - 1 for node in up):
                return False
            nodes = up
        names = {node.name for node in nodes}
        return all(
            (member := node.swim.members.get(name)) is not None and member.news.status in THERE
            for node in nodes
            for name in names
            if name != node.name
        )
