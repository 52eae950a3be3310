"""The agent's own side of the door to a peer: what it answers to the others."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.admitting import admits
from coherd.cluster.roster import State
from coherd.errors import InvalidRequest, JournalDamaged, RpcFailed
from coherd.limits import BATCH_ROWS_MAX, RANGES_MAX
from coherd.model import Cause, Origin
from coherd.net.peer import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    ExchangeReply,
    FetchPart,
    HaveReply,
    RootReply,
    StreamsPage,
)
from coherd.replication.ahead import check_ahead
from coherd.replication.answers import Answer, answer, pages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

    from coherd.clock import Clock
    from coherd.cluster.delivery import Delivery
    from coherd.cluster.feed import Feed
    from coherd.cluster.ingest import Ingest
    from coherd.cluster.membership import Membership
    from coherd.cluster.repairing import Repairing
    from coherd.cluster.retiring import Retiring
    from coherd.cluster.roster import Roster
    from coherd.cluster.spreading import Say, Spreading
    from coherd.cluster.tracing import Tracing
    from coherd.journal import Journal
    from coherd.model import Range, Stream
    from coherd.net.peer import Have, MemberInfo, Parcel, StreamRange
    from coherd.net.traces import TraceQuestion, TraceReply
    from coherd.replication.freshness import Freshness
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Repair
    from coherd.replication.vector import Vector

log = structlog.get_logger("coherd.endpoint")

FETCHES_MAX = 3
"""Fetches served at once."""
FETCH_RETRY_AFTER = 0.05
"""Seconds after which one that is refused may ask again."""
FETCH_BYTES = 64 * 1024
FETCH_ROWS = BATCH_ROWS_MAX
"""Size of one part of the answer to a fetch."""
PAGE_STREAMS = 1_000
PAGE_RANGES = RANGES_MAX // 2
"""Streams, and ranges of their numbers, of one page of a Compare, or of the answers to a Fetch."""
PART_RANGES = PAGE_RANGES // 2
"""Ranges of one stream that a page of a Compare shows at once."""


class Endpoint:
    """What peers ask of this agent."""

    def __init__(
        self,
        cluster: str,
        ingest: Ingest,
        repair: Repair,
        repairing: Repairing,
        freshness: Freshness,
        roster: Roster,
        membership: Membership,
        spreading: Spreading,
        feed: Feed,
        journal: Journal,
        delivery: Delivery,
        clock: Clock,
        tracing: Tracing,
        retiring: Retiring,
    ) -> None:
        self._cluster = cluster
        self._ingest = ingest
        self._repair = repair
        self._repairing = repairing
        self._freshness = freshness
        self._roster = roster
        self._membership = membership
        self._spreading = spreading
        self._feed = feed
        self._journal = journal
        self._delivery = delivery
        self._clock = clock
        self._tracing = tracing
        self._retiring = retiring
        self._fetches = 0

    @property
    def me(self) -> MemberInfo:
        """What this agent says of itself."""
        return self._roster.me

    def exchange(
        self, cluster: str, sender: Origin, address: str, datagrams: Sequence[bytes]
    ) -> ExchangeReply:
        """Take messages about membership from the agent at `address`, and answer what can be answered now.

        Raises RpcFailed for another cluster, and InvalidRequest for an address where nobody can be.
        """
        self._check_cluster(cluster)
        is_mine = address == self.me.address and sender.name != self.me.name
        if is_mine or not admits(sender.name, address, self.me.address):
            raise InvalidRequest(f"{address[:80]!r}: no other agent can be there")
        answers = self._membership.exchange(sender, address, datagrams)
        return ExchangeReply(Origin(self.me.name, self.me.epoch), answers, self._clock.wall_us())

    def admit(self, cluster: str, member: MemberInfo) -> None:
        """Let a member open a link.

        Raises RpcFailed for another cluster, for a protocol that is not spoken here, for a name that is
        taken and for a life that is not known here, or not any more.
        """
        self._check_cluster(cluster)
        if member.protocol_min > PROTOCOL_MAX or member.protocol_max < PROTOCOL_MIN:
            raise RpcFailed(
                "FAILED_PRECONDITION",
                f"this agent speaks protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}, {member.name} speaks "
                f"{member.protocol_min} to {member.protocol_max}: upgrade the older one",
            )
        if member.name == self.me.name:
            raise RpcFailed(
                "ALREADY_EXISTS",
                f"the name {member.name!r} is taken by the agent at {self.me.address}",
            )
        if self._roster.is_forgotten(member.name, member.epoch):
            raise RpcFailed(
                "FAILED_PRECONDITION", f"{member.name} was forgotten: it has to join again"
            )
        known = self._roster.members.get(member.name)
        if known is None or known.info.epoch < member.epoch:
            raise RpcFailed("FAILED_PRECONDITION", f"{member.name} has not joined yet")
        if known.state is not State.ALIVE:
            self._membership.contact([member.name])  # it speaks: what is thought of it is wrong
        self._membership.spoke(member.name)

    def listen(self, source: str, *, urgent: bool, say: Say) -> None:
        """A member has opened a link: what it is to be told about its parcels goes to `say`."""
        self._spreading.listen(source, urgent=urgent, say=say)

    def ended(self, source: str, *, urgent: bool, say: Say) -> None:
        """The link that was opened with `say` has ended."""
        self._spreading.ended(source, urgent=urgent, say=say)

    def take(self, source: str, parcels: Sequence[Parcel], *, urgent: bool) -> None:
        """Forward the rows that a peer spreads, and then take them; who asks is told once they are applied.

        A parcel that can't be read goes no further, and is never said to be applied.
        """
        read = [(parcel, self._ingest.read(parcel.payload)) for parcel in parcels]
        payloads = self._spreading.take(source, urgent=urgent, parcels=read)
        taken = [(parcel, batch) for parcel, batch in read if batch is not None]
        self._ingest.take(((p.payload, p.age, batch) for p, batch in taken), Cause.LINK)
        asked = {
            payload: batch.stream.namespace
            for payload, (parcel, batch) in zip(payloads, taken, strict=True)
            if parcel.receipt and self._ingest.keeps(batch.stream)
        }
        if asked:
            self._delivery.ask(set(asked.values()), lambda: self._spreading.applied(list(asked)))

    def have(self, have: Have) -> HaveReply:
        """Take what changed at a peer. Raises MalformedMessage for a number that nobody can have."""
        name = self._member(have.sender)
        for stream, numbers in have.changes:
            check_ahead(self._ingest.replica.vector, stream, numbers.last)
        vector, eras = self._ingest.replica.vector, self._retiring.eras
        kept = [each for each in have.changes if self._ingest.keeps(each[0])]
        if kept:
            self._repairing.heard(name)
            publisher = name if have.offer else ""
            believed = eras.believed(self._retiring.theirs(name), kept, publisher)
            self._repairing.on_shown(name, believed)
            self._repair.claim(name, believed)
            self._repairing.look()
        if have.offer:
            quiet, behind = self._repairing.is_quiet, self._freshness.is_catching_up
            return HaveReply(quiet, 0, behind, _answer_offer(vector, kept))
        reply = HaveReply(
            self._repairing.is_quiet, self._repairing.sum(name), self._freshness.is_catching_up
        )
        self._repairing.heard_sum(name, have.sum, catching_up=have.catching_up)
        return reply

    def compare_roots(self, sender: Origin, root: int, eras: Mapping[str, int]) -> RootReply:
        """Compare the hashes over everything, and the eras."""
        name = self._member(sender)
        self._retiring.heard(name, {n: e for n, e in eras.items() if self._ingest.is_held(n)})
        equal = self._repairing.sum(name) == root
        mine = self._retiring.eras.numbers(self._repairing.shared(name))
        return RootReply(equal, self._freshness.is_catching_up, mine)

    def compare_buckets(self, sender: Origin, buckets: Sequence[int]) -> list[int]:
        """Give the numbers of the buckets that differ."""
        shared, whole = self._shown_to(self._member(sender))
        mine = self._ingest.replica.vector.bucket_sums(shared, whole)
        if len(buckets) != len(mine):
            raise InvalidRequest(f"{len(mine)} buckets are due")
        return [i for i, (a, b) in enumerate(zip(mine, buckets, strict=True)) if a != b]

    def compare_streams(self, sender: Origin, wanted: Collection[int], skip: int) -> StreamsPage:
        """Give the streams of some buckets; one with very many ranges in several parts."""
        vector = self._ingest.replica.vector
        shared, whole = self._shown_to(self._member(sender))
        found = (
            (stream, part)
            for namespace in shared
            for stream, state in vector.streams(namespace).items()
            if state.bucket in wanted and (not state.is_retired or namespace in whole)
            for part in state.have.chunks(PART_RANGES)
        )
        page: list[tuple[Stream, Intervals]] = []
        room = PAGE_RANGES
        for stream, part in islice(found, skip, None):
            room -= part.range_count
            if room < 0 or len(page) >= PAGE_STREAMS:
                return StreamsPage(page, more=True)
            page.append((stream, part))
        return StreamsPage(page, more=False)

    def _shown_to(self, name: str) -> tuple[Collection[str], Collection[str]]:
        """Give the namespaces that a member is shown, and those of which it is shown everything."""
        shared = self._repairing.shared(name)
        return shared, self._retiring.eras.shown_whole(self._retiring.theirs(name), shared)

    async def fetch(self, wanted: Mapping[Stream, Intervals]) -> AsyncGenerator[FetchPart, None]:
        """Serve rows and say what is known of the numbers without one."""
        if self._fetches >= FETCHES_MAX:
            yield FetchPart(retry_after=FETCH_RETRY_AFTER)
            return
        self._fetches += 1
        try:
            now = self._clock.now()
            vector = self._ingest.replica.vector
            answers: dict[Stream, Answer] = {
                stream: answer(vector.get(stream), numbers, now)
                for stream, numbers in wanted.items()
            }
            for stream, reply in answers.items():
                async for part in self._rows(stream, reply.rows):
                    yield part
                answers[stream] = self._without_forgotten(stream, reply)
            ready: dict[Stream, Answer] | None = None
            for page in pages(answers, PAGE_RANGES, PAGE_STREAMS):
                if ready is not None:
                    yield FetchPart(answers=ready, more=True)
                ready = page
            yield FetchPart(answers=ready or {})
        finally:
            self._fetches -= 1

    def _without_forgotten(self, stream: Stream, reply: Answer) -> Answer:
        """Call blank what was forgotten while it was being served: it may not have been sent."""
        state = self._ingest.replica.vector.get(stream)
        gone = answer(state, reply.rows, self._clock.now())
        if not gone.blank:
            return reply
        return replace(
            reply,
            rows=reply.rows - gone.blank,
            blank=reply.blank | gone.blank,
            blank_age=min(reply.blank_age, gone.blank_age) if reply.blank else gone.blank_age,
        )

    async def _rows(self, stream: Stream, numbers: Intervals) -> AsyncGenerator[FetchPart, None]:
        """Serve the rows of one stream: from memory what is new, from the journal the rest."""
        left = numbers.copy()
        blocks: list[tuple[bytes, float]] = []
        size = rows = 0
        now = self._clock.now()
        for entry in self._feed.rows(stream, numbers) if left else ():
            arrival = entry.arrival
            blocks.append((entry.payload, now - arrival.accepted_at))
            _discard(left, arrival.batch.numbers)
            size += len(entry.payload)
            rows += len(arrival.batch)
            if size >= FETCH_BYTES or rows >= FETCH_ROWS:
                yield FetchPart(blocks)
                blocks, size, rows = [], 0, 0
        if blocks:
            yield FetchPart(blocks)
        damaged = False
        while left:
            try:
                stored = await self._journal.fetch(stream, left.ranges(), FETCH_BYTES)
            except JournalDamaged as error:
                self._ingest.damaged(error)
                if damaged:  # it may be all that there is
                    self._lose(stream, left)
                    return
                damaged = True
                continue
            if not stored:
                self._lose(stream, left)
                return
            now = self._clock.now()
            yield FetchPart([(block.payload, now - block.accepted_at) for block in stored])
            for block in stored:
                _discard(left, block.numbers)

    def _lose(self, stream: Stream, numbers: Intervals) -> None:
        """What is not stored cannot be served; what was forgotten meanwhile is known to be gone."""
        state = self._ingest.replica.vector.get(stream)
        if state is not None and (lost := numbers & state.held):
            self._ingest.lose_rows(stream, lost)

    async def applied(self, dots: Sequence[StreamRange], wait: float) -> bool:
        """Tell whether this host has applied rows, after waiting for it for a while."""
        with trio.move_on_after(wait):
            for stream, (first, last) in dots:
                await self._ingest.wait_for(stream, first, last)
            await self._delivery.applied({stream.namespace for stream, _ in dots})
            return True
        return False

    async def trace(self, sender: Origin, question: TraceQuestion) -> TraceReply:
        """Tell when and how rows came to this host, and who has applied them here."""
        self._member(sender)
        return await self._tracing.here(question)

    def _check_cluster(self, cluster: str) -> None:
        if cluster != self._cluster:
            raise RpcFailed(
                "FAILED_PRECONDITION",
                f"this is cluster {self._cluster!r}, not {cluster!r}: check `cluster` and `join`",
            )

    def _member(self, sender: Origin) -> str:
        if sender.name not in self._roster.members:
            raise RpcFailed("FAILED_PRECONDITION", f"{sender.name} has not joined")
        return sender.name


def _answer_offer(
    vector: Vector, offered: Sequence[tuple[Stream, Intervals]]
) -> list[tuple[Stream, Intervals]]:
    """Give what is here of offered streams."""
    room, result = PAGE_RANGES, []
    for stream, numbers in offered:
        state = vector.get(stream)
        if state is not None:
            here = numbers & state.have
            room -= here.range_count
            if room < 0:
                break
            result.append((stream, here))
    return result


def _discard(numbers: Intervals, ranges: Sequence[Range]) -> None:
    for low, high in ranges:
        numbers.discard(low, high)
