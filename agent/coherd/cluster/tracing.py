"""Where rows got to: what this host knows of them, and what every other one says when it is asked.

A row is traced by its dot, so "not among the answers of a host that answered" means that it has not come
there. How late it came is a duration that travelled with it; no clocks are compared. Wall-clock times are
for people, each by the clock of the host that says it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

import trio

from coherd.cluster.feed import arrival_of
from coherd.cluster.roster import State
from coherd.errors import JournalDamaged, RpcFailed
from coherd.limits import TRACE_READERS_MAX
from coherd.model import EVERYTHING, Kind
from coherd.net.peer import StreamRange
from coherd.net.traces import TracedReader, TracedRow, TraceQuestion, TraceReply
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coherd.clock import Clock
    from coherd.cluster.delivery import Delivery
    from coherd.cluster.feed import Feed
    from coherd.cluster.ingest import Ingest
    from coherd.cluster.linking import Linking
    from coherd.cluster.roster import Member, Roster
    from coherd.journal import Journal
    from coherd.model import Selector
    from coherd.net.peer import Dial
    from coherd.replication.replica import Arrival

HOSTS_MAX = 64
"""Hosts asked at once."""
CATCH_UP_TIMEOUT = 0.2
"""Seconds for the caches to reach what is here, where a row itself is kept no more."""
LOOKS_PER_ROW = 4
"""Arrivals that are looked at for each row wanted: a position may be that of a row that was widened."""


@dataclass(slots=True)
class HostTrace:
    """What one host says."""

    name: str
    member: Member | None
    """How it is seen; None for this agent itself."""
    holds: bool = True
    """Whether it holds the namespace, so that it should have the rows."""
    error: str = ""
    """Why it did not answer, or not to all that it was asked; empty when it did."""
    started_us: int = 0
    since_us: int = 0
    rows: list[TracedRow] = field(default_factory=list)

    def lacks(self, dots: Iterable[StreamRange]) -> list[StreamRange]:
        """Give the rows that it has not named."""
        named = {row.dot for row in self.rows}
        return [dot for dot in dots if dot not in named]


class Tracing:
    """Answers where rows got to."""

    def __init__(
        self,
        ingest: Ingest,
        feed: Feed,
        journal: Journal,
        delivery: Delivery,
        roster: Roster,
        linking: Linking,
        dial: Dial,
        clock: Clock,
        started_at: float,
    ) -> None:
        """`dial(address, name)` gives the door to an agent at its address; it started at `started_at`."""
        self._ingest = ingest
        self._feed = feed
        self._journal = journal
        self._delivery = delivery
        self._roster = roster
        self._linking = linking
        self._dial = dial
        self._clock = clock
        self._started_at = started_at

    # ------------------------------------------------------------------ this host

    async def here(self, question: TraceQuestion) -> TraceReply:
        """Tell what this host knows of rows."""
        rows = await self._last(question)
        found = {row.dot for row in rows}
        gone = []
        for dot in question.dots:
            stream, (number, _) = dot
            if dot in found or not self._ingest.has(stream, number, number):
                continue
            if row := await self._single(dot):
                rows.append(row)
            else:
                gone.append(dot)
        if gone:
            rows += await self._stood_for(question.namespace, gone)
        started, since = self._wall_us(self._started_at), self._feed.moments.since
        return TraceReply(rows, started, started if since is None else self._wall_us(since))

    async def _last(self, question: TraceQuestion) -> list[TracedRow]:
        """Find the last rows that touch what is named; the newest to arrive first."""
        ledger = self._ingest.replica.ledgers.get(question.namespace)
        rows: list[TracedRow] = []
        if ledger is None or not question.selectors:
            return rows
        for position in ledger.find(question.selectors)[: question.rows * LOOKS_PER_ROW]:
            arrival = await self._feed.at(position)
            if arrival is None:
                continue
            row = self._row(arrival, position - arrival.position)
            if any(covers(row.selector, named) for named in question.selectors):
                rows.append(row)
            if len(rows) == question.rows:
                break
        return rows

    async def _single(self, dot: StreamRange) -> TracedRow | None:
        """Find one row; None when it is kept no more."""
        stream, (number, _) = dot
        for entry in self._feed.rows(stream, Intervals([(number, number)])):
            return self._row(entry.arrival, offset_of(entry.arrival, number))
        for arrival in await self._stored(dot):
            return self._row(arrival, offset_of(arrival, number))
        return None

    async def _stood_for(self, namespace: str, dots: Sequence[StreamRange]) -> list[TracedRow]:
        """Tell of rows for which another row or a reset stands, or that were forgotten.

        They are applied once the caches have reached everything that is here by now.
        """
        position = self._feed.position
        with trio.move_on_after(CATCH_UP_TIMEOUT):
            await self._delivery.applied([namespace])
        readers = self._readers(namespace, position, is_remembered=False)
        return [TracedRow(dot=dot, readers=readers) for dot in dots]

    async def _stored(self, dot: StreamRange) -> Sequence[Arrival]:
        stream, numbers = dot
        try:
            blocks = await self._journal.fetch(stream, [numbers], 1)
        except JournalDamaged as error:
            self._ingest.damaged(error)
            return ()
        return [arrival_of(block) for block in blocks]

    def _row(self, arrival: Arrival, offset: int) -> TracedRow:
        """Say of one row of an arrival how it came and who has applied it."""
        batch, position = arrival.batch, arrival.position + offset
        moment = self._feed.moments.of(position)
        numbers = (n for low, high in batch.numbers for n in range(low, high + 1))
        number = next(islice(numbers, offset, None), None)
        return TracedRow(
            dot=None if number is None else StreamRange(batch.stream, (number, number)),
            selector=batch.selectors[offset],
            effect=batch.effect,
            version=batch.versions[offset] if batch.versions else 0,
            stamp=batch.stamp,
            cause=arrival.cause.value,
            reason=batch.reason,
            issuer=batch.issuer,
            age=self._clock.now() - arrival.accepted_at,
            late=None if moment is None else max(0.0, moment - arrival.accepted_at),
            received_us=None if moment is None else self._wall_us(moment),
            readers=self._readers(arrival.namespace, position),
        )

    def _readers(
        self, namespace: str, position: int, *, is_remembered: bool = True
    ) -> list[TracedReader]:
        """Say which caches have reached a position, and where it `is_remembered` when they did."""
        readers = []
        for kind, follower in self._delivery.followers(namespace):
            applied = follower.position >= position
            moment = follower.moments.of(position) if applied and is_remembered else None
            at = None if moment is None else self._wall_us(moment)
            readers.append(TracedReader(follower.name, kind, applied, at))
        readers.sort(key=lambda each: (each.applied, each.kind, each.label))
        return readers[:TRACE_READERS_MAX]

    def _wall_us(self, at: float) -> int:
        """Give the wall-clock time of a moment of running time, by the clock as it goes now."""
        return max(0, self._clock.wall_us() - int((self._clock.now() - at) * 1_000_000))

    # ------------------------------------------------------------------ everywhere

    async def everywhere(self, question: TraceQuestion, timeout: float) -> list[HostTrace]:
        """Ask every host that holds the namespace, within `timeout` seconds; this one comes first.

        All are asked for the last rows; then those that did not name a row which others have are asked for
        it by its dot, since they may have got rows in another order.
        """
        deadline = trio.current_time() + timeout
        holders = sorted(self._roster.holders(question.namespace), key=lambda m: m.info.name)
        me = self._roster.me
        hosts = [HostTrace(me.name, None, me.holds(question.namespace))]
        hosts += [HostTrace(member.info.name, member) for member in holders]
        await self._ask_all(hosts, lambda _host: question, deadline)
        chosen = newest(hosts, question.rows)
        for host in hosts:
            host.rows = [row for row in host.rows if key_of(host, row) in chosen]
        dots = [key for key in chosen if isinstance(key, StreamRange)]

        def rest(host: HostTrace) -> TraceQuestion | None:
            left = [] if host.error or not host.holds else host.lacks(dots)
            return TraceQuestion(question.namespace, dots=left) if left else None

        await self._ask_all(hosts, rest, deadline)
        return hosts

    async def _ask_all(
        self,
        hosts: Iterable[HostTrace],
        question: Callable[[HostTrace], TraceQuestion | None],
        deadline: float,
    ) -> None:
        limiter = trio.CapacityLimiter(HOSTS_MAX)

        async def ask(host: HostTrace, asked: TraceQuestion) -> None:
            async with limiter:
                try:
                    reply = await self._ask(host, asked, deadline)
                except RpcFailed as error:
                    host.error = why(error)
                else:
                    host.started_us, host.since_us = reply.started_us, reply.since_us
                    host.rows += reply.rows

        async with trio.open_nursery() as nursery:
            for host in hosts:
                if (asked := question(host)) is not None:
                    nursery.start_soon(ask, host, asked)

    async def _ask(self, host: HostTrace, asked: TraceQuestion, deadline: float) -> TraceReply:
        """Ask one host, over its link or where it is said to be. Raises RpcFailed."""
        member = host.member
        if member is None:
            return await self.here(asked)
        linked = self._linking.peers.get(host.name)
        if member.state is State.DEAD and linked is None:
            raise RpcFailed("UNAVAILABLE", "not asked")
        peer = linked or self._dial(member.info.address, member.info.name)
        try:
            left = deadline - trio.current_time()
            if left <= 0:
                raise RpcFailed("DEADLINE_EXCEEDED")
            return await peer.trace(self._ingest.life, asked, left)
        finally:
            if linked is None:
                with trio.CancelScope(shield=True):
                    await peer.aclose()


def why(error: RpcFailed) -> str:
    """Say why a host did not answer."""
    if error.code == "UNIMPLEMENTED":
        return "it does not know the question: an older release"
    if error.code == "DEADLINE_EXCEEDED":
        return "no answer in time"
    return error.details or error.code


def covers(selector: Selector, named: Selector) -> bool:
    """Tell whether a row touches what is named: it is the same, the whole namespace or a prefix of it."""
    if selector in {named, EVERYTHING}:
        return True
    is_prefix = selector[0] == Kind.PREFIX and named[0] in {Kind.KEY, Kind.PREFIX}
    return is_prefix and named[1:].startswith(selector[1:])


def offset_of(arrival: Arrival, number: int) -> int:
    """Tell which row of an arrival has a number."""
    offset = 0
    for low, high in arrival.batch.numbers:
        if number <= high:
            return offset + number - low
        offset += high - low + 1
    raise ValueError(f"no row {number} in {arrival.batch.numbers}")


Key = StreamRange | tuple[str, float]
"""Which row: by its dot, or a reset by its host and age."""


def key_of(host: HostTrace, row: TracedRow) -> Key:
    """Say which row this is."""
    return row.dot or (host.name, row.age)


def newest(hosts: Iterable[HostTrace], count: int) -> list[Key]:
    """Choose the rows that are least old by what the hosts say, that least old first."""
    ages: dict[Key, float] = {}
    for host in hosts:
        for row in host.rows:
            key = key_of(host, row)
            ages[key] = min(row.age, ages.get(key, inf))
    return sorted(ages, key=lambda key: ages[key])[:count]
