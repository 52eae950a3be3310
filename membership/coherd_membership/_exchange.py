"""Comparing whole rosters: what gossip has not brought, brings a full exchange.

One sends the sums of its buckets; the other answers with all that it knows in the buckets that differ, and
gets the same in return. So two rosters that agree cost half a kilobyte, and two that differ in one member a
few entries. It happens when joining, when a message shows that the sums differ, now and then with anybody
(`exchange_interval`), and with those that are down, for hours: partitions heal by themselves.

What members publish travels by itself, asked for when its version is new: the entries name versions only.
"""

from __future__ import annotations

from math import ceil, log2
from typing import TYPE_CHECKING, Protocol

from coherd_membership._codec import (
    BUCKET_SUMS,
    BUCKETS,
    MASK,
    METADATA,
    NAMES,
    encode_buckets,
    encode_mask,
    encode_meta,
    encode_texts,
    section,
)
from coherd_membership._member import Status
from coherd_membership._messages import Kind, Meta
from coherd_membership._outbox import news_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from coherd_membership._config import SwimConfig
    from coherd_membership._messages import Message
    from coherd_membership._outbox import Outbox
    from coherd_membership._roster import Roster
    from coherd_membership._timers import Timers

JOIN = ("join", None)
EXCHANGE = ("exchange", None)
DOWN = ("down", None)
WANT_MAX = 50
"""Members whose metadata is asked for in one question; further names of one are not looked at."""


class Sequencer(Protocol):
    """Whoever numbers questions."""

    def next_sequence(self) -> int:
        """Give a number for a question."""


class Exchanger:
    """The full exchanges of one member, its seeds, and those that are down."""

    def __init__(
        self,
        config: SwimConfig,
        roster: Roster,
        outbox: Outbox,
        timers: Timers,
        random: Random,
        sequencer: Sequencer,
    ) -> None:
        self._config = config
        self._roster = roster
        self._outbox = outbox
        self._timers = timers
        self._random = random
        self._sequencer = sequencer
        self.seeds: tuple[str, ...] = ()
        self.has_joined = False
        """Whether anybody has ever answered."""
        self.meta = b""
        """What this member publishes."""
        self._pause = config.join_interval_min
        self._under_way: set[int] = set()
        self._rests_until = float("-inf")

    def start(self, now: float) -> None:
        """Begin to ask the seeds, and the others in their turn."""
        self.ask_seeds(now)
        self._timers.set(EXCHANGE, now + self._random.random() * self._interval())
        self._timers.set(DOWN, now + self._random.random() * self._config.down_interval)

    def stop(self) -> None:
        """Ask nobody any more."""
        for key in (JOIN, EXCHANGE, DOWN):
            self._timers.clear(key)

    # ------------------------------------------------------------------ whom to ask, and when

    def ask_seeds(self, now: float) -> None:
        """Ask every seed, and again later: until one answers after doubling pauses, then for ever."""
        for seed in self.seeds:
            if seed != self._roster.me.address:
                self._outbox.send(Kind.DIGEST, seed, content=self._digest())
        if self.has_joined:
            pause = self._config.seed_interval
        else:
            pause, self._pause = self._pause, min(2 * self._pause, self._config.join_interval_max)
        self._timers.set(JOIN, now + pause * self._random.uniform(0.5, 1.0))

    def ask_anybody(self, now: float) -> None:
        """Compare rosters with a random member that is there."""
        self._timers.set(EXCHANGE, now + self._interval() * self._random.uniform(0.8, 1.2))
        if able := self._roster.names_alive():
            self.ask(self._random.choice(able), now)

    def ask_down(self, now: float) -> None:
        """Ask a few of those that are down whether they are back."""
        config = self._config
        self._timers.set(DOWN, now + config.down_interval * self._random.uniform(0.8, 1.2))
        if self._roster.is_complete:
            return
        down = [
            name
            for name, member in self._roster.members.items()
            if member.news.status is Status.DEAD and now - member.since < config.down_after
        ]
        for name in self._random.sample(down, min(config.downs_at_once, len(down))):
            self.ask(name, now)

    def compare(self, name: str, now: float) -> None:
        """Ask a member whose sums differ from here; a few at once, one an interval."""
        if (
            now >= self._rests_until
            and len(self._under_way) < self._config.exchanges_max
            and name in self._roster.members
        ):
            self._rests_until = now + self._config.probe_interval
            self.ask(name, now)

    def expire(self, sequence: int) -> None:
        """Wait for this answer no more."""
        self._under_way.discard(sequence)

    def _interval(self) -> float:
        rounds = max(0, ceil(log2(max(1, self._roster.present)) - 5)) + 1
        return self._config.exchange_interval * rounds

    def ask(self, name: str, now: float) -> None:
        """Compare rosters with a member."""
        sequence = self._sequencer.next_sequence()
        self._under_way.add(sequence)
        self._timers.set(("exchange over", sequence), now + self._config.probe_interval)
        self._outbox.send(
            Kind.DIGEST,
            self._roster.members[name].news.address,
            sequence=sequence,
            target=name,
            content=self._digest(),
        )

    def _digest(self) -> bytes:
        return section(BUCKET_SUMS, encode_buckets(self._roster.buckets))

    # ------------------------------------------------------------------ answers

    def answer(self, message: Message, source: str) -> None:
        """Answer DIGEST: everything in the buckets that differ."""
        mask = 0
        if len(message.buckets) == BUCKETS:
            for index, (theirs, ours) in enumerate(
                zip(message.buckets, self._roster.buckets, strict=True)
            ):
                mask |= (theirs != ours) << index
        self._send_entries(source, message.sequence, mask, wants_back=mask != 0)

    def take(self, message: Message, source: str) -> None:
        """Hear ENTRIES, once their news is taken: give back what the other lacks, ask for metadata."""
        self.has_joined = True
        if message.sequence in self._under_way:
            self._under_way.discard(message.sequence)
            self._timers.clear(("exchange over", message.sequence))
        if message.wants_back:
            known = set(message.news)
            known.add(message.sender)
            self._send_entries(source, 0, message.mask, wants_back=False, but=known)
        self.want_meta(source, (news.name for news in (message.sender, *message.news)))

    def _send_entries(
        self,
        destination: str,
        sequence: int,
        mask: int,
        *,
        wants_back: bool,
        but: Iterable[object] = (),
    ) -> None:
        """Send what is known in some buckets, in as many datagrams as it needs; only the last asks back."""
        entries = (news_section(news) for news in self._roster.in_buckets(mask) if news not in but)
        page: list[bytes] = []
        size = 0
        for entry in entries:
            if size + len(entry) > self._config.exchange_bytes_max:
                self._send_page(destination, sequence, mask, page, wants_back=False)
                page, size = [], 0
            page.append(entry)
            size += len(entry)
        if page or wants_back or sequence or not mask:
            self._send_page(destination, sequence, mask, page, wants_back=wants_back)

    def _send_page(
        self, destination: str, sequence: int, mask: int, page: list[bytes], *, wants_back: bool
    ) -> None:
        content = section(MASK, encode_mask(mask, wants_back=wants_back)) + b"".join(page)
        self._outbox.send(Kind.ENTRIES, destination, sequence=sequence, content=content)

    # ------------------------------------------------------------------ metadata

    def want_meta(self, destination: str, names: Iterable[str]) -> None:
        """Ask for what these members publish, where it is not here in its present version."""
        lacking = [name for name in names if name in self._roster.lacking]
        for start in range(0, len(lacking), WANT_MAX):
            some = encode_texts(lacking[start : start + WANT_MAX])
            self._outbox.send(Kind.WANT_META, destination, content=section(NAMES, some))

    def want_any_meta(self, destination: str) -> None:
        """Ask somebody for some of the metadata that is still lacking."""
        if lacking := list(self._roster.lacking):
            self.want_meta(destination, self._random.sample(lacking, min(WANT_MAX, len(lacking))))

    def give_meta(self, names: Sequence[str], source: str) -> None:
        """Answer WANT_META with what is here."""
        content = b""
        for name in dict.fromkeys(names[:WANT_MAX]):
            entry = self._meta_section(name)
            if len(content) + len(entry) > self._config.exchange_bytes_max:
                self._outbox.send(Kind.META, source, content=content)
                content = b""
            content += entry
        if content:
            self._outbox.send(Kind.META, source, content=content)

    def _meta_section(self, name: str) -> bytes:
        me = self._roster.me
        if name == me.name:
            meta = Meta(name, me.epoch, me.version, self.meta)
        else:
            member = self._roster.members.get(name)
            if member is None or member.meta is None or member.meta_of is None:
                return b""
            meta = Meta(name, *member.meta_of, member.meta)
        return section(METADATA, encode_meta(meta))
