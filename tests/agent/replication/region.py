"""Spreading cores wired in memory: messages arrive a millisecond later, unless the test keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from coherd.model import Lane
from coherd.replication.parcels import Arrived, Message, Outgoing, Parcels, Payload, ReceiptGrew
from coherd.replication.ring import View
from coherd.replication.spread import Spread
from coherd.replication.spread_config import SpreadConfig

NAMESPACE = "shop"
HOP = 0.001


def payload(number: int = 1, lane: Lane = Lane.NORMAL, **more: Any) -> Payload:
    return Payload(number, NAMESPACE, lane, more.pop("size_bytes", 100), **more)


class Region:
    """Members that share one view."""

    def __init__(
        self,
        members: int,
        config: SpreadConfig = SpreadConfig(),  # noqa: B008
        held: Callable[[int], Collection[str]] = lambda _index: ("*",),
    ) -> None:
        self.view = View({f"m{index}": held(index) for index in range(members)})
        self.cores = {
            name: Spread(name, number, self.view, config)
            for number, name in enumerate(self.view.members)
        }
        self.now = 0.0
        self.times = 1
        """How often each message arrives."""
        self.deaf: set[str] = set()
        """Members to which nothing gets through; it is kept in `kept`."""
        self.kept: list[tuple[str, str, Message]] = []
        self.under_way: list[tuple[float, str, str, Message]] = []
        self.arrived: Counter[str] = Counter()
        """Payloads that came along links, per member."""
        self.receipts: dict[int, list[str]] = {}
        self.applies: set[str] = set()
        """Members that apply at once what arrives."""
        self.replies: list[tuple[float, str, Message]] = []
        """Everything that is no parcel, with when and by whom."""

    def __getitem__(self, name: str) -> Spread:
        return self.cores[name]

    def collect(self, name: str) -> list[Outgoing]:
        core = self.cores[name]
        for event in core.events():
            if isinstance(event, ReceiptGrew):
                self.receipts[event.payload] = list(event.names)
            elif isinstance(event, Arrived) and name in self.applies:
                core.applied(event.payload.id, self.now)
        return core.messages()

    def flush(self, name: str) -> None:
        """Send what a member wants to send."""
        for target, message in self.collect(name):
            if not isinstance(message, Parcels):
                self.replies.append((self.now, name, message))
            self.under_way += [(self.now + HOP, target, name, message)] * self.times

    def originate(self, name: str, what: Payload) -> None:
        self.cores[name].originate(what, self.now)
        self.flush(name)

    def run(self, until: float) -> None:
        """Let time go on."""
        while True:
            timers = [
                (due, n) for n, c in self.cores.items() if (due := c.next_timer()) is not None
            ]
            first = min((at for at, *_ in self.under_way), default=until + 1)
            if min([first, *(due for due, _ in timers)]) > until:
                self.now = until
                return
            if timers and min(timers)[0] < first:
                self.now, name = max(self.now, min(timers)[0]), min(timers)[1]
                self.cores[name].handle_timer(self.now)
                self.flush(name)
                due = self.cores[name].next_timer()
                assert due is None or due > self.now, "what is due was done"
            else:
                self.now = first
                at = next(i for i, entry in enumerate(self.under_way) if entry[0] == first)
                _, target, source, message = self.under_way.pop(at)
                self.deliver(target, source, message)

    def deliver(self, target: str, source: str, message: Message) -> None:
        if target in self.deaf:
            self.kept.append((target, source, message))
            return
        if isinstance(message, Parcels):
            self.arrived[target] += len(message.parcels)
        self.cores[target].receive(message, source, self.now)
        self.flush(target)

    def counted(self, name: str) -> int:
        return sum(core.statistics()[name] for core in self.cores.values())
