"""When a simulated member tells, compares, offers, fetches and resets: the rules of agents around `Repair`.

Agents do this in tasks (`cluster.repairing`, `cluster.endpoint`); here it is timers and messages. Simpler
than there: a Compare shows all streams at once instead of buckets and pages; what a Fetch brings comes whole.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from coherd.model import Cause
from coherd.replication.answers import answer
from coherd.replication.freshness import Freshness, domains
from coherd.replication.repair import Repair
from coherd.sim.faults.messages import (
    Compare,
    Compared,
    Fetch,
    Fetched,
    Have,
    HaveReply,
    Offer,
    OfferReply,
)
from coherd.sim.faults.offering import Offering
from coherd.sim.faults.retiring import Retiring

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from coherd.model import Batch, Stream
    from coherd.replication.answers import Answer
    from coherd.replication.repair import Ask
    from coherd.sim.faults.member import Member
    from coherd.sim.faults.messages import Claims, Message

HAVE_INTERVAL_BUSY = 0.25
HAVE_INTERVAL_QUIET = 1.0
HAVE_REPEATS = 3
HAVE_STREAMS_MAX = 1_000
COMPARE_INTERVAL = 10.0
FETCH_TIMEOUT = 10.0
FETCHES_MAX = 3
FETCH_RETRY_AFTER = 0.05
RETRY_AFTER = 0.5
SERVING, SERVING_ROW = 0.001, 0.00002
"""Seconds that it takes to serve a Fetch, and each of its rows."""


class Mending:
    """Repair of one life of one member."""

    def __init__(self, member: Member, random: Random) -> None:
        self._member = member
        self._random = random
        self._vector = member.replica.vector
        self.repair = Repair(self._vector, random, member.horizon, member.reset_jitter)
        self.repair.holds = member.holds_too
        self.freshness = Freshness()
        self.freshness.holders(
            domains(
                member.interest,
                {m.name: m.interest for m in member.world.members if m is not member},
            )
        )
        self.changed: dict[Stream, None] = {}
        self.told: dict[Stream, int] = {}
        self.comparing: dict[str, bool | None] = {}
        """With whom, and once it has answered whether it is catching up."""
        self.asked: dict[int, tuple[Ask, float]] = {}
        self._serving = 0
        now = member.now
        self.tell_at = now + random.uniform(0.0, HAVE_INTERVAL_QUIET)
        self.compare_at = now + random.uniform(0.0, COMPARE_INTERVAL)
        self.plan_at = inf
        self._sums: dict[str, int] = {}
        self._totals: dict[tuple[str, ...], int] = {}
        self.offering = Offering(member, random)
        self.retiring = Retiring(member, self.repair)
        for stream, _ in list(self._vector):
            self.repair.touch(stream)
        self.look()

    # ------------------------------------------------------------------ what the member says

    @property
    def is_quiet(self) -> bool:
        """Whether the vector does not change at the moment."""
        return not self.told and not self.changed

    def note_changed(self, stream: Stream) -> None:
        """Note that numbers of a stream entered the vector."""
        self.changed[stream] = None
        self._totals.clear()
        self._sums.pop(stream.namespace, None)

    def forget_sums(self) -> None:
        """Note that streams are shown that were not, or not any more."""
        self._totals.clear()
        self._sums.clear()

    def look(self) -> None:
        """Have the open holes looked at now."""
        if self.repair.has_gaps:
            self.plan_at = min(self.plan_at, self._member.now)

    def sum(self, name: str) -> int:
        """Give the sum of the vector over the namespaces that another member holds, too."""
        shared = self._member.shared(name)
        total = self._totals.get(shared)
        if total is None:
            sums = self._sums
            for namespace in shared:
                if namespace not in sums:
                    sums[namespace] = self._vector.sum((namespace,))
            total = self._totals[shared] = sum(sums[n] for n in shared) % 2**64
        return total

    def linked(self, name: str) -> None:
        """A link to another member has opened."""
        self.compare(name)

    def closed(self, name: str, now: float) -> None:
        """The link to another member has broken."""
        self.comparing.pop(name, None)
        for number, (ask, _) in list(self.asked.items()):
            if ask.member == name:
                del self.asked[number]
                self.repair.failed(ask, now, RETRY_AFTER)

    def next_timer(self) -> float:
        """Give when `handle_timer` wants to be called, in the member's own time."""
        return min(self.tell_at, self.compare_at, self.plan_at, self.offering.due)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self.tell_at <= now:
            self._tell(now)
        if self.compare_at <= now:
            self.compare_at = now + COMPARE_INTERVAL * self._random.uniform(0.8, 1.2)
            if not self.freshness.is_catching_up:
                self.retiring.eras.begin_due(now)
            if peers := self._member.peers:
                self.compare(self._random.choice(peers))
        if self.plan_at <= now:
            self._plan(now)
        if self.offering.due <= now:
            self.offering.offer(now)

    # ------------------------------------------------------------------ telling and comparing

    def _tell(self, now: float) -> None:
        if self.changed:
            self.told.update(dict.fromkeys(self.changed, 0))
            self.changed.clear()
        peers = self._member.peers
        streams = list(self.told)[:HAVE_STREAMS_MAX] if self.told else ()
        if count := len(peers):
            first = int(self._random.random() * count)
            self._tell_one(peers[first], streams)
            if count > 1:
                second = int(self._random.random() * (count - 1))
                self._tell_one(peers[second + (second >= first)], streams)
        for stream in streams:
            self.told[stream] += 1
            if self.told[stream] >= HAVE_REPEATS:
                del self.told[stream]
        if self.asked or self.comparing:
            self._look_at_waiting(now)
        if self.retiring.is_behind:
            self.retiring.look()
        if self.freshness.is_catching_up:
            self.freshness.check(peers, alone=False, now=now)
        self.tell_at = now + (HAVE_INTERVAL_BUSY if streams else HAVE_INTERVAL_QUIET)
        self._member.look_after(now)

    def _look_at_waiting(self, now: float) -> None:
        """Give up what was not answered, and end the syncs whose holes are closed."""
        for number, (ask, deadline) in list(self.asked.items()):
            if deadline <= now:
                del self.asked[number]
                self.repair.failed(ask, now, RETRY_AFTER)
        if self.retiring.is_behind:
            return
        for name, catching_up in list(self.comparing.items()):
            if catching_up is not None and self.repair.is_closed(name):
                self._synced(name, catching_up=catching_up)
                del self.comparing[name]

    def _tell_one(self, name: str, streams: Sequence[Stream]) -> None:
        changes: Claims = ()
        if streams:
            holds, get = self._member.world.by_name[name].holds, self._vector.get
            changes = tuple(
                (s, state.have.copy())
                for s in streams
                if s.namespace in holds and (state := get(s)) is not None
            )
        have = Have(changes, self.sum(name), self.freshness.is_catching_up)
        self._member.say(name, have)

    def _synced(self, name: str, *, catching_up: bool) -> None:
        self.freshness.completed(name, catching_up=catching_up, now=self._member.now)
        self.retiring.synced()

    def compare(self, name: str) -> None:
        """Compare vectors with a member, unless that is under way."""
        if name not in self.comparing:
            self.comparing[name] = None
            self._member.say(name, Compare(self.sum(name), self.retiring.numbers(name)))

    # ------------------------------------------------------------------ asking

    def _plan(self, now: float) -> None:
        peers = self._member.peers
        for ask in self.repair.plan(now, peers):
            self.asked[ask.number] = ask, now + FETCH_TIMEOUT
            self._member.say(ask.member, Fetch(ask.number, ask.wanted))
        for namespace, cause in self.repair.resets(now, peers):
            self._member.reset(namespace, cause)
        due = self.repair.next_timer(now)
        self.plan_at = inf if due is None else due

    def _serve(self, source: str, fetch: Fetch) -> None:
        if self._serving >= FETCHES_MAX:
            self._member.say(source, Fetched(fetch.number, (), {}, FETCH_RETRY_AFTER))
            return
        self._serving += 1
        now = self._member.now
        answers = {s: answer(self._vector.get(s), n, now) for s, n in fetch.wanted.items()}
        batches = []
        for stream, reply in answers.items():
            if reply.rows:
                batches += self._member.rows(stream, reply.rows)
        rows = sum(len(batch) for batch, _ in batches)
        self._member.later(
            SERVING + SERVING_ROW * rows,
            lambda: self._served(source, fetch.number, batches, answers),
        )

    def _served(
        self,
        source: str,
        number: int,
        batches: Sequence[tuple[Batch, float]],
        answers: dict[Stream, Answer],
    ) -> None:
        self._serving -= 1
        now = self._member.now
        aged = tuple((batch, now - accepted_at) for batch, accepted_at in batches)
        self._member.say(source, Fetched(number, aged, answers, 0.0))

    def _fetched(self, source: str, message: Fetched) -> None:
        member, now = self._member, self._member.now
        ask, _ = self.asked.get(message.number, (None, 0.0))
        for batch, age in message.batches:
            member.take(batch, age, Cause.REPAIR)
        if ask is None or ask.member != source:
            return
        del self.asked[message.number]
        if message.retry_after:
            self.repair.failed(ask, now, message.retry_after)
            return
        member.adopt(self.repair.answered(ask, message.answers, now))
        self.look()

    # ------------------------------------------------------------------ hearing

    def receive(self, message: Message, source: str) -> None:
        """Take a message."""
        kind = type(message)
        if kind is Have:
            self._hear_have(source, message)  # type: ignore[arg-type]
        elif kind is HaveReply:
            self._hear_reply(source, message)  # type: ignore[arg-type]
        else:
            self._hear_rarely(source, message)

    def _hear_have(self, source: str, have: Have) -> None:
        if have.changes:
            self.repair.claim(source, self.retiring.believed(source, have.changes))
            self.look()
        mine = self.sum(source)
        catching_up = self.freshness.is_catching_up
        reply = HaveReply(mine, self.is_quiet, catching_up, bool(have.changes))
        self._member.say(source, reply)
        if mine == have.sum:
            self._synced(source, catching_up=have.catching_up)

    def _hear_reply(self, source: str, reply: HaveReply) -> None:
        if reply.sum == self.sum(source):
            self._synced(source, catching_up=reply.catching_up)
        elif not reply.had_changes and reply.is_quiet and self.is_quiet:
            self.compare(source)

    def _hear_rarely(self, source: str, message: Message) -> None:
        match message:
            case Compare():
                self._say_compared(source, message)
            case Compared():
                self._compared(source, message)
            case Fetch():
                self._serve(source, message)
            case Fetched():
                self._fetched(source, message)
            case Offer(streams):
                self.repair.claim(source, self.retiring.believed(source, streams, offered=True))
                self.look()
                self._member.say(source, OfferReply(self.offering.answer(streams)))
            case OfferReply(streams):
                self.offering.answered(streams)

    def _say_compared(self, source: str, message: Compare) -> None:
        self.retiring.heard(source, message.eras)
        is_equal = message.sum == self.sum(source)
        streams = self.retiring.shown(source, message.eras, equal=is_equal)
        catching_up, eras = self.freshness.is_catching_up, self.retiring.numbers(source)
        self._member.say(source, Compared(is_equal, streams, catching_up, eras))

    def _compared(self, source: str, message: Compared) -> None:
        if source not in self.comparing:
            return
        behind = self.retiring.heard(source, message.eras)
        if message.is_equal and not behind:
            del self.comparing[source]
            self._synced(source, catching_up=message.catching_up)
            return
        self.comparing[source] = message.catching_up
        self.repair.claim(source, self.retiring.believed(source, message.streams))
        for namespace in behind:
            self.retiring.catch_up(namespace, message.eras[namespace], message.streams)
        self.look()
