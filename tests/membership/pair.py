"""A few cores wired in memory: virtual time, cuts, stalls and loss, everything a function of one seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from coherd_membership import (
    Datagram,
    Event,
    MemberChanged,
    News,
    Status,
    Swim,
    SwimConfig,
)
from coherd_membership import _codec as codec
from coherd_membership._messages import Kind, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CLUSTER = "test"
LABEL = codec.cluster_label(CLUSTER)
DELAY = 0.001
"""Seconds that a datagram takes."""


def address(name: str) -> str:
    return f"{name}:7000"


def news(name: str, status: Status = Status.ALIVE, incarnation: int = 1, **more: Any) -> News:
    """News of the first life of a member at its usual address."""
    return News(**{
        "name": name, "epoch": 1, "incarnation": incarnation, "status": status,
        "address": address(name), **more,
    })  # fmt: skip


def swim(
    name: str = "me",
    config: SwimConfig | None = None,
    *,
    seed: int = 0,
    epoch: int = 1,
    **more: Any,
) -> Swim:
    at = more.pop("address", address(name))
    return Swim(
        config or SwimConfig(),
        name=name, epoch=epoch, address=at, cluster=CLUSTER, random=Random(f"{seed} {name}"), **more,
    )  # fmt: skip


def section_of(item: News) -> bytes:
    return codec.section(codec.NEWS, codec.encode_news(item))


def datagram(
    kind: int,
    sender: str | News,
    *,
    sequence: int = 0,
    target: str = "",
    at: str = "",
    told: Iterable[News] = (),
    content: bytes = b"",
    label: int = LABEL,
    root: int = 0,
) -> bytes:
    """Give any message of any sender as bytes."""
    word = news(sender) if isinstance(sender, str) else sender
    parts = [codec.head(kind, label, root, sequence, codec.encode_news(word), target)]
    if at:
        parts.append(codec.section(codec.ADDRESS, at.encode()))
    return b"".join((*parts, content, *map(section_of, told)))


def tell(
    core: Swim, sender: str | News, *told: News, now: float = 0.0, kind: int = Kind.TELL
) -> None:
    """Let a core hear news from a member, whose roster seems to be the same."""
    word = news(sender) if isinstance(sender, str) else sender
    payload = datagram(kind, word, told=told, root=core._roster.root)
    core.receive(payload, word.address, now)


def sent(core: Swim, kind: int | None = None) -> list[tuple[str, Message]]:
    """Take what a core sends as destination and message; of one kind only, if that is asked."""
    messages = [(each.destination, codec.decode(each.payload)) for each in core.datagrams()]
    return [(to, message) for to, message in messages if kind in {None, message.kind}]


def run(core: Swim, until: float) -> None:
    """Call a core at its own deadlines up to a time."""
    while (due := core.next_timer()) is not None and due <= until:
        core.handle_timer(due)


def status(core: Swim, name: str) -> Status | None:
    member = core.members.get(name)
    return None if member is None else member.news.status


def changes(events: Iterable[Event], name: str) -> list[str]:
    """What became of a member, in short."""
    return [
        str(event.change)
        for event in events
        if isinstance(event, MemberChanged) and event.news.name == name
    ]


def acquainted(*names: str, config: SwimConfig | None = None) -> Swim:
    """A core that has heard each of these members; it was not started, so it asks nobody by itself."""
    core = swim(config=config)
    for name in names:
        tell(core, name)
    core.datagrams()
    core.events()
    return core


class Cores:
    """Cores by address, and the network between them."""

    def __init__(self, *names: str, config: SwimConfig | None = None, seed: int = 0) -> None:
        self.config = config or SwimConfig()
        self.seed = seed
        self.now = 0.0
        self.at: dict[str, Swim] = {}
        """The core at each address."""
        self.events: dict[str, list[Event]] = {}
        self.traffic: list[tuple[float, str, Datagram]] = []
        """Everything that was sent: when, by which address, and what."""
        self.loss = 0.0
        self.alters: dict[str, Callable[[bytes], bytes]] = {}
        """What is done to the datagrams of an address, to play another version of the protocol."""
        self._random = Random(seed)
        self._cut: set[tuple[str, str]] = set()
        self._stalled: dict[str, list[tuple[bytes, str]]] = {}
        self._heap: list[tuple[float, int, str, str, bytes]] = []
        self._sent = 0
        for name in names:
            self.start(name, seeds=(address(names[0]),))

    def __getitem__(self, name: str) -> Swim:
        return self.at[address(name)]

    def start(self, name: str, seeds: Iterable[str] = (), **more: Any) -> Swim:
        """Start a member; one that is at its address is gone."""
        config = replace(self.config, **more.pop("changed", {}))
        core = swim(name, config, seed=self.seed, **more)
        core.start(seeds, self.now)
        self.at[core.me.address] = core
        self.events[core.me.address] = []
        self._stalled.pop(core.me.address, None)
        return core

    def crash(self, where: str) -> None:
        del self.at[self._place(where)]

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """Lose everything from one to the other, and back."""
        one, other = self._place(one), self._place(other)
        self._cut |= {(one, other), (other, one)} if both else {(one, other)}

    def split(self, some: Iterable[str], others: Iterable[str]) -> None:
        others = tuple(others)
        for one in some:
            for other in others:
                self.cut(one, other)

    def heal(self) -> None:
        self._cut.clear()

    def stall(self, where: str) -> None:
        """Stop a process: it neither hears, nor sends, nor notices its deadlines."""
        self._stalled[self._place(where)] = []

    def resume(self, where: str) -> None:
        """Let it go on: first it notices its deadlines, then what has come meanwhile."""
        place = self._place(where)
        waiting = self._stalled.pop(place)
        self.at[place].handle_timer(self.now)
        for payload, source in waiting:
            self.at[place].receive(payload, source, self.now)
        self._collect(place)

    def inject(self, payload: bytes, source: str, to: str) -> None:
        """Let a datagram arrive that nobody here has sent."""
        place = self._place(to)
        self.at[place].receive(payload, source, self.now)
        self._collect(place)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for place in list(self.at):
            self._collect(place)
        while (moment := self._next()) <= end:
            self.now = max(self.now, moment)
            while self._heap and self._heap[0][0] <= self.now:
                _, _, to, source, payload = heappop(self._heap)
                self._deliver(to, source, payload)
            for place, core in list(self.at.items()):
                due = core.next_timer()
                if due is not None and due <= self.now and place not in self._stalled:
                    core.handle_timer(self.now)
                    self._collect(place)
        self.now = end

    def seen(self, name: str) -> set[Status | None]:
        """How everybody else that runs sees a member."""
        return {status(core, name) for core in self.at.values() if core.me.name != name}

    def is_whole(self) -> bool:
        """Whether everybody sees everybody else alive."""
        return all(
            status(core, other.me.name) is Status.ALIVE
            for core in self.at.values()
            for other in self.at.values()
            if other is not core
        )

    def happened(self, where: str, kind: type) -> list[Any]:
        return [event for event in self.events[self._place(where)] if isinstance(event, kind)]

    def statistics(self) -> Counter[str]:
        """Counts of all cores together."""
        total: Counter[str] = Counter()
        for core in self.at.values():
            total.update(core.statistics())
        return total

    def _next(self) -> float:
        moments = [self._heap[0][0]] if self._heap else []
        for place, core in self.at.items():
            due = core.next_timer()
            if due is not None and place not in self._stalled:
                moments.append(due)
        return min(moments, default=float("inf"))

    def _deliver(self, to: str, source: str, payload: bytes) -> None:
        if to in self._stalled:
            self._stalled[to].append((payload, source))
        elif to in self.at:
            self.at[to].receive(payload, source, self.now)
            self._collect(to)

    def _collect(self, place: str) -> None:
        core = self.at[place]
        self.events[place] += core.events()
        alter = self.alters.get(place, bytes)
        for each in core.datagrams():
            self.traffic.append((self.now, place, each))
            if (place, each.destination) in self._cut or self._random.random() < self.loss:
                continue
            self._sent += 1
            payload = alter(each.payload)
            heappush(self._heap, (self.now + DELAY, self._sent, each.destination, place, payload))

    @staticmethod
    def _place(where: str) -> str:
        return where if ":" in where else address(where)
