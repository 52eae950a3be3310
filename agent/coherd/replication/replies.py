"""What a member says to those who send it parcels: what it has taken, and who has applied what.

Parcels are acknowledged within 10 ms, or 2 ms when more come, and that never waits for a cache. What members
have applied goes along with it as it grows, but at most every 20 ms: otherwise each leaf of a wide tree would
cause a message.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

from coherd.replication.parcels import Applied, Outgoing, ReceiptGrew, Reply
from coherd.replication.receipt_tree import ReceiptTree
from coherd.replication.ring import RINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coherd.replication.parcels import Event, LinkKey
    from coherd.replication.spread_config import SpreadConfig


class _InLink:
    """One link, seen from its receiver: what its sender is still to be told."""

    __slots__ = ("acknowledged", "armed", "is_alone", "is_due", "news", "told_at")

    def __init__(self) -> None:
        self.acknowledged = 0
        """All parcels up to this number were taken."""
        self.is_due = False
        """Whether that is still to be said."""
        self.is_alone = False
        """Whether that is of one message alone."""
        self.news: dict[tuple[int, int], None] = {}
        """Payloads and rings of which more is known than was told."""
        self.told_at = -inf
        """When news were told last."""
        self.armed: float | None = None
        """When the next reply goes."""


class Replies:
    """The replies of one member, and the receipts that pass through it."""

    def __init__(
        self, me: str, config: SpreadConfig, set_timer: Callable[[float, LinkKey], None]
    ) -> None:
        """`set_timer(when, link)`: see to it that `reply` is called then."""
        self._config = config
        self._set_timer = set_timer
        self._links: dict[LinkKey, _InLink] = {}
        self._receipts = ReceiptTree(me, config.receipts_max)
        self._messages: list[Outgoing] = []
        self._events: list[Event] = []
        self._counts: Counter[str] = Counter()

    # ------------------------------------------------------------------ what is to be told

    def took(self, key: LinkKey, number: int, now: float) -> None:
        """Note that parcels up to a number came over a link and were forwarded."""
        link = self._link(key)
        link.acknowledged = max(link.acknowledged, number)
        link.is_alone = not link.is_due
        link.is_due = True
        self._arm(key, link, now)

    def beat(self, key: LinkKey, now: float) -> None:
        """Answer an empty message at once: its sender wants to know whether anybody is there."""
        link = self._link(key)
        link.is_due, link.armed = True, now
        self.reply(key, now)

    def begin(self, payload: int, ring: int) -> None:
        """Note that a payload that wants receipts begins here."""
        self._receipts.ask(payload, ring, None)

    def ask(self, payload: int, ring: int, key: LinkKey, now: float) -> None:
        """Note that a link's sender wants to hear who has applied a payload."""
        self._link(key)
        self._receipts.ask(payload, ring, key)
        self._grew(payload, (ring,), now)

    def applied(self, payload: int, now: float) -> None:
        """Note that this member has applied a payload."""
        self._receipts.apply(payload)
        self._grew(payload, range(RINGS), now)

    def hear(self, told: Iterable[Applied], now: float) -> None:
        """Take what a member that this one handed payloads to tells of them."""
        for payload, ring, names in told:
            if 0 <= ring < RINGS and self._receipts.hear(payload, ring, names):
                self._grew(payload, (ring,), now)
            else:
                self._counts["unasked"] += 1

    def closed(self, key: LinkKey) -> None:
        """Forget a link from a member: its connection broke."""
        self._links.pop(key, None)

    def _grew(self, payload: int, rings: Iterable[int], now: float) -> None:
        if self._receipts.is_root(payload):
            if names := self._receipts.names(payload):
                self._events.append(ReceiptGrew(payload, names))
            return
        for ring in rings:
            for key in self._receipts.askers(payload, ring):
                link = self._links.get(key)
                if link is not None:
                    link.news[payload, ring] = None
                    self._arm(key, link, now)

    # ------------------------------------------------------------------ telling it

    def reply(self, key: LinkKey, now: float) -> None:
        """Say on a link what is due."""
        link = self._links.get(key)
        if link is None or link.armed is None or link.armed > now:
            return
        link.armed = None
        applied = []
        if link.news and now >= link.told_at + self._config.receipts_interval:
            link.told_at = now
            for payload, ring in link.news:
                if names := self._receipts.tell(payload, ring, key):
                    applied.append(Applied(payload, ring, names))
            link.news.clear()
        if link.is_due or applied:
            link.is_due = False
            name, urgent = key
            reply = Reply(urgent, link.acknowledged, tuple(applied))
            self._messages.append(Outgoing(name, reply))
        self._arm(key, link, now)

    def messages(self) -> list[Outgoing]:
        """Take what is to be sent."""
        messages = self._messages
        self._messages = []
        return messages

    def events(self) -> list[Event]:
        """Take what has happened: receipts that grew."""
        events = self._events
        self._events = []
        return events

    def statistics(self) -> dict[str, int]:
        """Give what was counted and what is kept."""
        return {
            "receipts": len(self._receipts),
            "receipts_given_up": self._receipts.given_up,
            "unasked": self._counts["unasked"],
        }

    def _link(self, key: LinkKey) -> _InLink:
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = _InLink()
        return link

    def _arm(self, key: LinkKey, link: _InLink, now: float) -> None:
        """Set the timer for the next reply, unless it is set for as soon."""
        config, due = self._config, inf
        if link.is_due:
            due = now + (
                config.acknowledge_lone_after if link.is_alone else config.acknowledge_after
            )
        if link.news:
            next_news = link.told_at + config.receipts_interval
            due = min(due, max(now + config.acknowledge_after, next_news))
        if due < inf and (link.armed is None or due < link.armed):
            link.armed = due
            self._set_timer(due, key)
